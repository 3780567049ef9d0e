//! One connection of a handler's: what it remembers between its [turns](crate::process::handler::drive).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Poll};

use crate::logging;
use crate::process::handler::CHAT_DOORBELL;
use crate::process::handler::doorbells::RoomDoorbells;
use crate::process::handler::drive::{DriveOutcome, Driver};
use crate::process::process_table::Context;
use crate::session::transport::ByteCounts;
use crate::session::{IdleSession, Session};
use crate::state::handle::StateHandle;
use crate::state::layout::{ConnectionRef, RoomRef};
use shmem::sys::clock::now_ms;
use shmem::sys::process::ProcessId;
use shmem::sys::tcp_progress::{TcpProgress, TcpProgressError};

/// What all clients of a process share.
pub(crate) struct HandlerState {
    pub(crate) context: Context,
    /// Index of the keeper.
    pub(crate) keeper: u32,
    pub(crate) me: ProcessId,
    pub(crate) poll: Poll,
    pub(crate) doorbells: RoomDoorbells,
    /// Places of clients that have something to do now, through what another one did.
    pub(crate) woken: Vec<usize>,
    /// Whether there may be others than the one whose turn it is.
    pub(crate) serves_several: bool,
    /// The chat's doorbell wakes this process.
    hears_chat_doorbell: bool,
}

/// One connection, between its turns.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    /// In the list of those who have something to do.
    pub(crate) is_ready: bool,
    /// Somebody may want something of this connection.
    pub(crate) check_flags: bool,
    /// The process that the keeper wants it served by.
    pub(crate) move_to: Option<ProcessId>,
    /// When the next turn is due, whatever happens; `u64::MAX`: never.
    pub(crate) due_ms: u64,
    /// The room whose doorbell wakes this client.
    pub(crate) room: Option<RoomRef>,
    session: IdleSession,
    pub(crate) readiness: SocketReadiness,
    /// All is said; what still arrives is thrown away until then, or until the client ends the connection, too.
    pub(crate) linger_until_ms: Option<u64>,
}

/// What is known of the socket.
pub(crate) struct SocketReadiness {
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

impl HandlerState {
    pub(crate) fn new(context: Context, keeper: u32, me: ProcessId) -> io::Result<Self> {
        Ok(Self {
            context,
            keeper,
            me,
            poll: Poll::new()?,
            doorbells: RoomDoorbells::new(context.memory, me),
            woken: Vec::new(),
            serves_several: false,
            hears_chat_doorbell: false,
        })
    }

    /// Nobody in `place` listens for the room any more.
    pub(crate) fn leave_room(&mut self, place: usize, room: Option<RoomRef>) -> io::Result<()> {
        let requests = &self.context.ipc.doorbells.requests.sender;
        self.doorbells.follow(place, (room, None), &self.poll, requests)
    }

    /// From now on this process is woken when something is said to the lobby.
    pub(crate) fn listen_to_chat(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.hears_chat_doorbell, true) {
            let doorbell = self.context.ipc.doorbells.chat.as_fd().as_raw_fd();
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&doorbell), CHAT_DOORBELL, Interest::READABLE)?;
        }
        Ok(())
    }

    pub(crate) fn ring_keeper(&self, keeper: Option<u32>) {
        if let Some(keeper) = keeper {
            self.context.ipc.doorbells.ring_keeper(keeper);
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
        state: &mut HandlerState,
        shared_state: &mut StateHandle,
    ) -> io::Result<Self> {
        let (passed, over) = match is_successor.then(|| TcpProgress::read(&socket)) {
            None => (ByteCounts::default(), None),
            Some(Ok(cursors)) => (
                ByteCounts {
                    received: cursors.received,
                    sent: cursors.sent,
                },
                None,
            ),
            Some(Err(error)) => (ByteCounts::default(), Some(error)),
        };
        let (session, plausible) = Session::attach(shared_state, index, passed);
        let mut client = Self {
            socket,
            is_ready: false,
            // What a predecessor was told, its successor has to find by itself; and the server may be stopping.
            check_flags: true,
            move_to: None,
            due_ms: 0,
            room: None,
            session: session.idle(),
            readiness: SocketReadiness::new(),
            linger_until_ms: None,
        };
        client.with_driver(place, state, session, |turn| {
            match (over, plausible) {
                (Some(TcpProgressError::ConnectionOver), _) => turn.end(),
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
            turn.ring_doorbells().map(drop)
        })?;
        Ok(client)
    }

    /// Which connection it is.
    pub(crate) fn connection(&self) -> ConnectionRef {
        self.session.connection()
    }

    /// The poll has told of the socket.
    pub(crate) fn on_socket_event(&mut self, event: &Event) {
        self.readiness.more_behind |= event.is_read_closed() || event.is_priority();
        self.readiness.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.readiness.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Does what can be done without waiting, or a good part of it.
    pub(crate) fn drive(
        &mut self,
        place: usize,
        state: &mut HandlerState,
        shared_state: &mut StateHandle,
    ) -> io::Result<DriveOutcome> {
        let session = self.session.activate(shared_state);
        self.with_driver(place, state, session, |turn| turn.run())
    }

    fn with_driver<R>(
        &mut self,
        place: usize,
        state: &mut HandlerState,
        session: Session<'_>,
        act: impl FnOnce(&mut Driver<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        if state.serves_several {
            let name = session.name();
            logging::set_player(Some(name.as_str()).filter(|name| !name.is_empty()));
        }
        let mut turn = Driver {
            place,
            state,
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

impl SocketReadiness {
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
