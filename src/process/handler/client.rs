//! One connection of a handler's: what it remembers between its [turns](crate::process::handler::drive).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Poll};

use crate::logging;
use crate::process::handler::CHAT_BELL;
use crate::process::handler::doorbells::RoomBells;
use crate::process::handler::drive::{Outcome, Turn};
use crate::process::process_table::Context;
use crate::session::transport::Passed;
use crate::session::{IdleSession, Session};
use crate::state::handle::StateHandle;
use crate::state::layout::{ConnectionRef, RoomRef};
use shmem::sys::clock::now_ms;
use shmem::sys::process::ProcessId;
use shmem::sys::tcp_progress::{CursorError, TcpCursors};

/// What all clients of a process share.
pub(crate) struct Shared {
    pub(crate) context: Context,
    /// Index of the keeper.
    pub(crate) keeper: u32,
    pub(crate) me: ProcessId,
    pub(crate) poll: Poll,
    pub(crate) bells: RoomBells,
    /// Places of clients that have something to do now, through what another one did.
    pub(crate) woken: Vec<usize>,
    /// Whether there may be others than the one whose turn it is.
    pub(crate) serves_several: bool,
    /// The chat's bell wakes this process.
    hears_chat_bell: bool,
}

/// One connection, between its turns.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    /// In the list of those who have something to do.
    pub(crate) is_ready: bool,
    /// Somebody may want something of this connection.
    pub(crate) look_at_flags: bool,
    /// The process that the keeper wants it served by.
    pub(crate) asked_for_by: Option<ProcessId>,
    /// When the next turn is due, whatever happens; `u64::MAX`: never.
    pub(crate) due_ms: u64,
    /// The room whose bell wakes this client.
    pub(crate) room: Option<RoomRef>,
    session: IdleSession,
    pub(crate) flow: Flow,
    /// All is said; what still arrives is thrown away until then, or until the client ends the connection, too.
    pub(crate) lingers_until_ms: Option<u64>,
}

/// What is known of the socket.
pub(crate) struct Flow {
    /// The socket may have bytes: true until it says that it has not.
    pub(crate) readable: bool,
    /// The socket may take bytes: true until it says that it does not.
    pub(crate) writable: bool,
    /// The poll has told of the client's end, or of an urgent byte, before which receiving stops: behind what is received at once
    /// there is more, and it will not be told again.
    pub(crate) more_behind: bool,
    /// The client has ended its direction, and everything was received.
    pub(crate) client_has_ended: bool,
    /// When the client last took bytes, or nothing waited for it.
    pub(crate) last_taken_ms: u64,
}

impl Shared {
    pub(crate) fn new(context: Context, keeper: u32, me: ProcessId) -> io::Result<Self> {
        Ok(Self {
            context,
            keeper,
            me,
            poll: Poll::new()?,
            bells: RoomBells::new(context.memory, me),
            woken: Vec::new(),
            serves_several: false,
            hears_chat_bell: false,
        })
    }

    /// Nobody in `place` listens for the room any more.
    pub(crate) fn leave_room(&mut self, place: usize, room: Option<RoomRef>) -> io::Result<()> {
        let requests = &self.context.wiring.bell_requests.sender;
        self.bells.follow(place, (room, None), &self.poll, requests)
    }

    /// From now on this process is woken when something is said to the lobby.
    pub(crate) fn listen_to_chat(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.hears_chat_bell, true) {
            let bell = self.context.wiring.chat_bell.as_fd().as_raw_fd();
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&bell), CHAT_BELL, Interest::READABLE)?;
        }
        Ok(())
    }

    pub(crate) fn ring_keeper(&self, keeper: Option<u32>) {
        if let Some(keeper) = keeper {
            self.context.wiring.ring_keeper(keeper);
        }
    }
}

impl Client {
    /// Begins to animate a connection. If others have before, the kernel is asked how far they have come.
    pub(crate) fn attach(
        place: usize,
        index: u32,
        socket: OwnedFd,
        is_successor: bool,
        shared: &mut Shared,
        state: &mut StateHandle,
    ) -> io::Result<Self> {
        let (passed, over) = match is_successor.then(|| TcpCursors::read(&socket)) {
            None => (Passed::default(), None),
            Some(Ok(cursors)) => (
                Passed {
                    received: cursors.received,
                    sent: cursors.handed_over,
                },
                None,
            ),
            Some(Err(error)) => (Passed::default(), Some(error)),
        };
        let (session, plausible) = Session::attach(state, index, passed);
        let mut client = Self {
            socket,
            is_ready: false,
            // What a predecessor was told, its successor has to find by itself; and the server may be stopping.
            look_at_flags: true,
            asked_for_by: None,
            due_ms: 0,
            room: None,
            session: session.idle(),
            flow: Flow::new(),
            lingers_until_ms: None,
        };
        client.have_turn(place, shared, session, |turn| {
            match (over, plausible) {
                (Some(CursorError::ConnectionOver), _) => turn.end(),
                (Some(error), _) => {
                    log::error!("the connection cannot be taken over: {error}");
                    turn.end();
                }
                (None, Err(implausible)) => {
                    log::error!("the connection cannot be taken over: {implausible}");
                    turn.end();
                }
                (None, Ok(())) => turn.begin()?,
            }
            turn.ring_bells().map(drop)
        })?;
        Ok(client)
    }

    /// Which connection it is.
    pub(crate) fn connection(&self) -> ConnectionRef {
        self.session.connection()
    }

    /// The poll has told of the socket.
    pub(crate) fn hear(&mut self, event: &Event) {
        self.flow.more_behind |= event.is_read_closed() || event.is_priority();
        self.flow.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.flow.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Does what can be done without waiting, or a good part of it.
    pub(crate) fn take_turn(
        &mut self,
        place: usize,
        shared: &mut Shared,
        state: &mut StateHandle,
    ) -> io::Result<Outcome> {
        let session = self.session.activate(state);
        self.have_turn(place, shared, session, |turn| turn.run())
    }

    fn have_turn<R>(
        &mut self,
        place: usize,
        shared: &mut Shared,
        session: Session<'_>,
        act: impl FnOnce(&mut Turn<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        if shared.serves_several {
            let name = session.name();
            logging::set_player(Some(name.as_str()).filter(|name| !name.is_empty()));
        }
        let mut turn = Turn {
            place,
            shared,
            client: self,
            session,
        };
        // If this fails, so does the process: what its clients have begun, their successors end.
        let done = act(&mut turn)?;
        let due_ms = turn.due_ms();
        for fault in turn.session.state.take_faults() {
            log::warn!("the game's code failed: {fault}");
        }
        self.session = turn.session.park();
        self.due_ms = due_ms;
        Ok(done)
    }
}

impl Flow {
    fn new() -> Self {
        Self {
            readable: true,
            writable: true,
            more_behind: false,
            client_has_ended: false,
            last_taken_ms: now_ms(),
        }
    }
}
