//! One connection of a handler: what it remembers between its [runs](crate::process::handler::drive).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Poll};

use crate::logging;
use crate::process::handler::CHAT_DOORBELL;
use crate::process::handler::doorbells::RoomDoorbells;
use crate::process::handler::drive::{DriveOutcome, Driver};
use crate::process::handler::turns::{Turn, Usage};
use crate::process::process_table::Context;
use crate::session::transport::ByteCounts;
use crate::session::{IdleSession, Session};
use crate::state::connections::ServedBy;
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
    pub(crate) me: ServedBy,
    pub(crate) poll: Poll,
    pub(crate) doorbells: RoomDoorbells,
    /// Keys of clients that another client has given something to do.
    pub(crate) woken: Vec<usize>,
    /// Whether there may be other clients than the one that is run.
    pub(crate) serves_several: bool,
    /// The chat's doorbell wakes this process.
    polls_chat_doorbell: bool,
}

/// One connection, between its runs.
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    /// It is in the list of the clients that have something to do.
    pub(crate) is_ready: bool,
    /// What its turns have used.
    pub(crate) usage: Usage,
    /// The connection's flags may be set.
    pub(crate) check_flags: bool,
    /// In a reception: the keeper was asked for a handler for this player.
    pub(crate) asked_to_move: bool,
    /// The process that the keeper wants it served by.
    pub(crate) move_to: Option<ProcessId>,
    /// When the next run is due at the latest, in milliseconds of the monotonic clock; `u64::MAX`: never.
    pub(crate) due_ms: u64,
    /// The room whose doorbell wakes this client.
    pub(crate) room: Option<RoomRef>,
    session: IdleSession,
    pub(crate) readiness: SocketReadiness,
    /// Everything was sent. What still arrives is discarded until then, or until the client shuts down its direction.
    pub(crate) linger_until_ms: Option<u64>,
    /// Bytes that were discarded so far.
    pub(crate) lingered_bytes: usize,
}

/// What is known of the socket.
pub(crate) struct SocketReadiness {
    /// The socket may have bytes: true until reading would block.
    pub(crate) readable: bool,
    /// The socket may take bytes: true until writing would block.
    pub(crate) writable: bool,
    /// The poll has reported the end of the client's direction, or an urgent byte, at which receiving stops. More
    /// follows behind the bytes received first, and the poll does not report it again.
    pub(crate) more_behind: bool,
    /// The client has shut down its direction, and everything was received.
    pub(crate) client_has_ended: bool,
    /// When the client last took bytes, or nothing was left to send.
    pub(crate) last_taken_ms: u64,
}

impl HandlerState {
    pub(crate) fn new(context: Context, keeper: u32, me: ServedBy) -> io::Result<Self> {
        Ok(Self {
            context,
            keeper,
            me,
            poll: Poll::new()?,
            doorbells: RoomDoorbells::new(context.memory, me.process),
            woken: Vec::new(),
            serves_several: false,
            polls_chat_doorbell: false,
        })
    }

    /// The client with this key leaves its room.
    pub(crate) fn leave_room(&mut self, key: usize, room: Option<RoomRef>) -> io::Result<()> {
        let requests = &self.context.ipc.doorbells.requests.sender;
        self.doorbells.follow(key, (room, None), &self.poll, requests)
    }

    /// From now on this process is woken when the lobby's chat has something new.
    pub(crate) fn listen_to_chat(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.polls_chat_doorbell, true) {
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
    /// Begins to serve a connection. For a successor, the kernel says how many bytes have passed.
    pub(crate) fn attach(
        key: usize,
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
            usage: Usage::new(),
            // A successor was not told what its predecessor was told, so it looks; and the server may be stopping.
            check_flags: true,
            asked_to_move: false,
            move_to: None,
            due_ms: 0,
            room: None,
            session: session.idle(),
            readiness: SocketReadiness::new(),
            linger_until_ms: None,
            lingered_bytes: 0,
        };
        client.with_driver((key, now_ms()), state, session, |driver| {
            match (over, plausible) {
                (Some(TcpProgressError::ConnectionOver), _) => driver.end(),
                (Some(error), _) => {
                    log::error!("the connection cannot be taken over: {error}");
                    driver.end();
                }
                (None, Err(implausible)) => {
                    log::error!("the connection cannot be taken over: {implausible}");
                    driver.end();
                }
                (None, Ok(())) => driver.begin()?,
            }
            driver.ring_doorbells().map(drop)
        })?;
        Ok(client)
    }

    /// Which connection it is.
    pub(crate) fn connection(&self) -> ConnectionRef {
        self.session.connection()
    }

    /// The poll has reported an event of the socket.
    pub(crate) fn on_socket_event(&mut self, event: &Event) {
        self.readiness.more_behind |= event.is_read_closed() || event.is_priority();
        self.readiness.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.readiness.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Does what can be done without waiting, up to the end of the turn.
    pub(crate) fn drive(
        &mut self,
        key: usize,
        turn: Turn,
        state: &mut HandlerState,
        shared_state: &mut StateHandle,
    ) -> io::Result<DriveOutcome> {
        let session = self.session.activate(shared_state);
        self.with_driver((key, turn.began_at_ms()), state, session, |driver| {
            driver.run(turn)
        })
    }

    fn with_driver<R>(
        &mut self,
        (key, now_ms): (usize, u64),
        state: &mut HandlerState,
        session: Session<'_>,
        act: impl FnOnce(&mut Driver<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        if state.serves_several {
            let name = session.name();
            logging::set_player(Some(name.as_str()).filter(|name| !name.is_empty()));
        }
        let mut driver = Driver {
            key,
            now_ms,
            state,
            client: self,
            session,
        };
        // If this fails, the process exits: successors finish what its clients have begun.
        let done = act(&mut driver)?;
        let due_ms = driver.due_ms();
        for fault in driver.session.state.take_faults() {
            fault.enter(driver.state.context.memory);
            log::warn!("the game's code failed: {fault}");
        }
        self.session = driver.session.park();
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
