//! The listener: accepts connections and sends each to a keeper, or refuses it with a reason.
//!
//! It must never read from a client's socket or register one in its poll: then a client can keep it busy only by
//! connecting. It must never wait for a lock, and never fork: nothing can delay it.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade_protocol::{ErrorCode, ServerMessage, frame};
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;

use crate::limits::{
    ACCEPT_RETRY_MS, CLOSE_MESSAGE_BYTES_MAX, CONNECTIONS_PER_KEEPER_MAX, CONSOLE_CONNECTIONS_MAX,
    REFUSAL_LINGER_MS, REFUSED_LINGERING_MAX,
};
use crate::process::admission::{Admission, Load, Refusal, decide};
use crate::process::ipc::KeeperMessage;
use crate::process::process_table::{Context, LivenessHandle, RoleStart};
use crate::state::connections::Kind;
use forkade_text::render;
use shmem::sys::clock::now_ms;
use shmem::sys::signals::Signals;
use shmem::sys::sockets::{SendOutcome, Sent, send_from, shut_down};

const GAME: Token = Token(0);
const CONSOLE: Token = Token(1);
const SIGNALS: Token = Token(2);
const LIFELINE: Token = Token(3);

/// The role's entry.
pub(crate) fn run(start: &RoleStart) -> io::Result<u8> {
    let ipc = start.context.ipc;
    let mut keep = vec![ipc.game.as_fd(), ipc.lifeline.as_fd(), ipc.ready.as_fd()];
    keep.extend(ipc.console.as_ref().map(AsFd::as_fd));
    keep.extend(ipc.keepers.iter().map(|keeper| keeper.sender.as_fd()));
    start.close_all_except(&keep)?;
    let signals = Signals::block(&[Signal::SIGTERM, Signal::SIGUSR1])?;
    let mut listener = Listener::new(start, signals)?;
    start.report_ready();
    listener.serve()
}

struct Listener {
    context: Context,
    liveness: LivenessHandle,
    signals: Signals,
    poll: Poll,
    game: TcpListener,
    console: Option<TcpListener>,
    /// Closed for a moment when descriptors run out, so that the next connection can be accepted and refused.
    reserve_descriptor: Option<OwnedFd>,
    /// Refused sockets, each kept open until a time, so that a reset does not destroy the reason.
    refused: VecDeque<(u64, TcpStream)>,
    /// After a failure for lack of resources no connection is accepted until then.
    paused_until_ms: Option<u64>,
    /// A connection that was accepted when the channels of all keepers were full. No other is accepted before it is
    /// sent.
    unsent: Option<(Kind, TcpStream)>,
    /// Another listener replaces this one: no connection is accepted any more.
    is_stopping: bool,
}

enum Event {
    Accept(Kind),
    Stop,
    SupervisorGone,
}

impl Listener {
    fn new(start: &RoleStart, signals: Signals) -> io::Result<Self> {
        let context = start.context;
        let poll = Poll::new()?;
        let mut game = TcpListener::from_std(context.ipc.game.try_clone()?);
        poll.registry().register(&mut game, GAME, Interest::READABLE)?;
        let mut console = None;
        if let Some(inherited) = &context.ipc.console {
            let mut listener = TcpListener::from_std(inherited.try_clone()?);
            poll.registry()
                .register(&mut listener, CONSOLE, Interest::READABLE)?;
            console = Some(listener);
        }
        for (descriptor, token) in [
            (signals.as_fd(), SIGNALS),
            (context.ipc.lifeline.as_fd(), LIFELINE),
        ] {
            poll.registry()
                .register(&mut SourceFd(&descriptor.as_raw_fd()), token, Interest::READABLE)?;
        }
        let reserve_descriptor = Some(new_reserve_descriptor(&context)?);
        Ok(Self {
            context,
            liveness: start.liveness(),
            signals,
            poll,
            game,
            console,
            reserve_descriptor,
            refused: VecDeque::new(),
            paused_until_ms: None,
            unsent: None,
            is_stopping: false,
        })
    }

    fn serve(&mut self) -> io::Result<u8> {
        let mut events = Events::with_capacity(16);
        self.count_lost_in_flight();
        // The poll gives this process no edge for what arrived before it was started.
        self.accept_all(Kind::Game)?;
        self.accept_all(Kind::Console)?;
        loop {
            match self.poll.poll(&mut events, self.poll_timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.liveness.report();
            for event in &events {
                match self.event_of(event.token())? {
                    Some(Event::Accept(kind)) => self.accept_all(kind)?,
                    Some(Event::Stop) => self.is_stopping = true,
                    Some(Event::SupervisorGone) => return Ok(1),
                    None => {}
                }
            }
            self.run_timers()?;
            // It sends what it has accepted; other connections wait for the next listener.
            if self.is_stopping && self.unsent.is_none() {
                return Ok(0);
            }
        }
    }

    fn event_of(&self, token: Token) -> io::Result<Option<Event>> {
        Ok(match token {
            GAME => Some(Event::Accept(Kind::Game)),
            CONSOLE => Some(Event::Accept(Kind::Console)),
            // SIGUSR1 only wakes it up.
            SIGNALS => {
                let mut told = None;
                while let Some(received) = self.signals.read()? {
                    told = told.or((received.signal == Signal::SIGTERM).then_some(Event::Stop));
                }
                told
            }
            _ => Some(Event::SupervisorGone),
        })
    }

    /// Time until something is due that no descriptor announces.
    fn poll_timeout(&self) -> Option<Duration> {
        let lingering = self.refused.front().map(|(until_ms, _)| *until_ms);
        let next_ms = [lingering, self.paused_until_ms].into_iter().flatten().min()?;
        Some(Duration::from_millis(next_ms.saturating_sub(now_ms()) + 1))
    }

    fn run_timers(&mut self) -> io::Result<()> {
        let now = now_ms();
        let is_over = |(until_ms, _): &(u64, TcpStream)| *until_ms <= now;
        while self.refused.front().is_some_and(is_over) {
            self.refused.pop_front();
        }
        if self.paused_until_ms.is_some_and(|until_ms| until_ms <= now) {
            self.paused_until_ms = None;
            if let Some((kind, socket)) = self.unsent.take() {
                self.admit(kind, socket);
                self.set_in_flight(self.unsent.is_some());
            }
            self.accept_all(Kind::Game)?;
            self.accept_all(Kind::Console)?;
        }
        Ok(())
    }

    /// Accepts until no connection is left: the poll tells only once.
    fn accept_all(&mut self, kind: Kind) -> io::Result<()> {
        while self.paused_until_ms.is_none() && !self.is_stopping {
            self.liveness.report();
            self.set_in_flight(true);
            let accepted = match (kind, &self.console) {
                (Kind::Game, _) => self.game.accept(),
                (Kind::Console, Some(console)) => console.accept(),
                (Kind::Console, None) => Err(io::ErrorKind::WouldBlock.into()),
            };
            match accepted {
                Ok((socket, _)) => self.admit(kind, socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.set_in_flight(false);
                    return Ok(());
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE) => self.refuse_without_descriptors(kind, &error),
                    Some(libc::ENOMEM | libc::ENOBUFS) => self.pause_accepting(&error),
                    // The connection is gone already (ECONNABORTED and its like): the next one may be fine.
                    _ if is_per_connection_error(&error) => {}
                    _ => return Err(error),
                },
            }
            self.set_in_flight(self.unsent.is_some());
        }
        Ok(())
    }

    /// Notes whether a connection would be lost if this process died now. (Set before accept: rather one too many.)
    fn set_in_flight(&self, has: bool) {
        let header = self.context.memory.header;
        header.listener_in_flight.store(has.into(), Ordering::Release);
    }

    /// Counts the connection that a predecessor may have died over. (A death here leaves it to be counted twice,
    /// rather than never.)
    fn count_lost_in_flight(&self) {
        let header = self.context.memory.header;
        if header.listener_in_flight.load(Ordering::Acquire) != 0 {
            header.lost_before_handshake_total.fetch_add(1, Ordering::Relaxed);
            self.set_in_flight(false);
        }
    }

    fn admit(&mut self, kind: Kind, socket: TcpStream) {
        let header = self.context.memory.header;
        let open_max = match kind {
            Kind::Game => u64::from(self.context.config.connections_max),
            Kind::Console => CONSOLE_CONNECTIONS_MAX as u64,
        };
        let mut full = vec![false; self.context.ipc.keepers.len()];
        loop {
            let keepers: Vec<u32> = header
                .keepers
                .iter()
                .zip(&full)
                .map(|(keeper, full)| {
                    if *full {
                        u32::MAX
                    } else {
                        keeper.open(Kind::Game) + keeper.open(Kind::Console)
                    }
                })
                .collect();
            let admission = decide(Load {
                stopping: header.stopping.load(Ordering::Acquire) != 0,
                keepers: &keepers,
                keeper_max: CONNECTIONS_PER_KEEPER_MAX,
                open: self.context.memory.open_connections(kind),
                open_max,
                fill_in_order: self.context.config.clients_per_handler > 1,
            });
            let keeper = match admission {
                // A keeper has room, but its channel is full: connections wait in the kernel's backlog.
                Admission::Refuse(Refusal::Full) if full.contains(&true) => {
                    self.unsent = Some((kind, socket));
                    self.paused_until_ms = Some(now_ms() + ACCEPT_RETRY_MS);
                    return;
                }
                Admission::Refuse(refusal) => return self.refuse(kind, socket, refusal),
                Admission::Admit { keeper } => keeper,
            };
            let slot = &header.keepers[keeper as usize];
            let number = slot.sent(kind).wrapping_add(1);
            let channel = self.context.ipc.keeper_channel(keeper);
            let order = header.accepted_total.load(Ordering::Relaxed) + 1;
            match channel.send(
                &KeeperMessage::New { kind, number, order }.encode(),
                &[socket.as_fd()],
            ) {
                Ok(SendOutcome::Sent) => {
                    slot.set_sent(kind, number);
                    header.accepted_total.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // Its channel is full. Another keeper may have less to do.
                Ok(SendOutcome::WouldBlock) => {}
                // The supervisor keeps the other end open: no other process could receive there.
                Ok(SendOutcome::PeerGone) => log::error!("the channel to keeper {keeper} is closed"),
                Err(error) => log::warn!("cannot hand a connection to keeper {keeper}: {error}"),
            }
            full[keeper as usize] = true;
        }
    }

    fn refuse(&mut self, kind: Kind, socket: TcpStream, refusal: Refusal) {
        self.context
            .memory
            .header
            .refused_total
            .fetch_add(1, Ordering::Relaxed);
        send_refusal(kind, &socket, refusal);
        // If it were closed at once, with bytes of the client unread, the kernel would send a reset, and the reason
        // could be lost.
        if self.refused.len() == REFUSED_LINGERING_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((now_ms() + REFUSAL_LINGER_MS, socket));
    }

    /// Accepts and refuses the waiting connection with the reserved descriptor: the poll would never announce it
    /// again.
    fn refuse_without_descriptors(&mut self, kind: Kind, error: &io::Error) {
        self.reserve_descriptor = None;
        self.refused.clear();
        let accepted = match (kind, &self.console) {
            (Kind::Console, Some(console)) => console.accept(),
            _ => self.game.accept(),
        };
        if let Ok((socket, _)) = accepted {
            self.context
                .memory
                .header
                .refused_total
                .fetch_add(1, Ordering::Relaxed);
            send_refusal(kind, &socket, Refusal::NoResources);
        }
        self.reserve_descriptor = new_reserve_descriptor(&self.context).ok();
        self.pause_accepting(error);
    }

    fn pause_accepting(&mut self, error: &io::Error) {
        log::error!("cannot accept connections: {error}; trying again in {ACCEPT_RETRY_MS} ms");
        self.paused_until_ms = Some(now_ms() + ACCEPT_RETRY_MS);
    }
}

/// Tells a client that it cannot be served, in its protocol and in a form that a person can read, because it is not
/// known which of the two it is. The socket's buffer is empty, so nothing waits.
pub(crate) fn send_refusal(kind: Kind, socket: &impl AsFd, refusal: Refusal) {
    let mut buffer = [0; CLOSE_MESSAGE_BYTES_MAX];
    let code = match refusal {
        Refusal::Stopping => ErrorCode::ShuttingDown,
        Refusal::Full | Refusal::NoResources => ErrorCode::ServerFull,
    };
    let message = ServerMessage::Error {
        code,
        text: render::readable_by_any_client(refusal.text()),
    };
    let sent = match kind {
        Kind::Game => {
            let length = frame::write_frame_into(&message, &mut buffer).expect("a refusal is short");
            send_from(socket, &buffer[..length])
        }
        Kind::Console => send_from(socket, format!("ERR {}\n", refusal.text()).as_bytes()),
    };
    if matches!(sent, Sent::Bytes(_)) {
        // It is refused whether this succeeds or not.
        let _ = shut_down(socket, Shutdown::Write);
    }
}

fn new_reserve_descriptor(context: &Context) -> io::Result<OwnedFd> {
    context.ipc.lifeline.as_fd().try_clone_to_owned()
}

/// Whether accept(2) failed because of this one connection's network, not because of the listening socket.
fn is_per_connection_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENOPROTOOPT
                | libc::ENONET
                | libc::EOPNOTSUPP
                | libc::ETIMEDOUT
        )
    )
}
