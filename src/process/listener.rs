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

use forkade_protocol::{ServerMessage, frame};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::net::SocketFlags;

use crate::limits::{
    ACCEPT_RETRY_MS, ACCEPTS_PER_ROUND_MAX, CLOSE_MESSAGE_BYTES_MAX, CONNECTIONS_IN_FLIGHT_MAX,
    CONNECTIONS_PER_KEEPER_MAX, CONSOLE_CONNECTIONS_MAX, CONSOLE_SLOTS_PER_KEEPER, CONSOLES_LEAVING_MAX,
    KEEPER_CHANNEL_RETRY_MS, REFUSAL_LINGER_MS, REFUSED_LINGERING_MAX,
};
use crate::process::admission::{Admission, Load, Refusal, decide};
use crate::process::ipc::KeeperMessage;
use crate::process::process_table::{Context, LivenessHandle, RoleStart};
use crate::process::source_gate::SourceGate;
use crate::state::close_counters::count_close;
use crate::state::connections::{Claim, ConnectionRecord, Kind, OperatorFlag, Peer};
use crate::state::header::KeeperSlot;
use forkade_text::render;
use shmem::sys::clock::now_ms;
use shmem::sys::signals::Signals;
use shmem::sys::sockets::{SendOutcome, Sent, send_from, shut_down};
use socket2::SockRef;

const SIGNALS: Token = Token(0);
const LIFELINE: Token = Token(1);
/// Tokens from here on: listening sockets, by index.
const FIRST_SOCKET: usize = 2;

/// The role's entry.
pub(crate) fn run(start: &RoleStart) -> io::Result<u8> {
    let ipc = start.context.ipc;
    let mut keep = vec![ipc.lifeline.as_fd(), ipc.ready.as_fd()];
    keep.extend(ipc.games.iter().map(AsFd::as_fd));
    keep.extend(ipc.console.as_ref().map(AsFd::as_fd));
    keep.extend(ipc.console_unix.as_ref().map(AsFd::as_fd));
    keep.extend(ipc.keepers.iter().map(|keeper| keeper.sender.as_fd()));
    start.keep_only(&keep)?;
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
    /// The console's come first: a flood of clients must not keep operators out.
    sockets: Vec<ListeningSocket>,
    /// Closed for a moment when descriptors run out, so that the next connection can be accepted and refused.
    reserve_descriptor: Option<OwnedFd>,
    /// Refused sockets, each kept open until a time, so that a reset does not destroy the reason.
    refused: VecDeque<(u64, OwnedFd)>,
    /// Another listener replaces this one: no connection is accepted any more.
    is_stopping: bool,
    source_gate: SourceGate,
}

/// A socket that listens, and the connection that was accepted from it last.
struct ListeningSocket {
    kind: Kind,
    descriptor: OwnedFd,
    /// Connections may wait: true until accepting would block. The poll tells only once.
    is_ready: bool,
    /// A connection that no keeper could take. No other is accepted before it is sent.
    unsent: Option<OwnedFd>,
    /// No connection is accepted before: resources are short, or `unsent` waits.
    paused_until_ms: Option<u64>,
}

impl ListeningSocket {
    fn new(kind: Kind, descriptor: OwnedFd) -> Self {
        Self {
            kind,
            descriptor,
            // The poll gives this process no edge for what arrived before it was started.
            is_ready: true,
            unsent: None,
            paused_until_ms: None,
        }
    }

    fn can_accept(&self) -> bool {
        self.is_ready && self.paused_until_ms.is_none()
    }

    fn accept(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(rustix::net::accept_with(&self.descriptor, flags)?)
    }
}

/// What became of a connection.
enum Admitted {
    /// A keeper was sent it, or it was refused.
    Done,
    /// The channels of all keepers that have room are full.
    NotYet(OwnedFd),
}

impl Listener {
    fn new(start: &RoleStart, signals: Signals) -> io::Result<Self> {
        let context = start.context;
        let ipc = context.ipc;
        let mut sockets = Vec::new();
        if let Some(console) = &ipc.console_unix {
            sockets.push(ListeningSocket::new(
                Kind::Console,
                console.as_fd().try_clone_to_owned()?,
            ));
        }
        if let Some(console) = &ipc.console {
            sockets.push(ListeningSocket::new(
                Kind::Console,
                console.as_fd().try_clone_to_owned()?,
            ));
        }
        for game in &ipc.games {
            sockets.push(ListeningSocket::new(
                Kind::Game,
                game.as_fd().try_clone_to_owned()?,
            ));
        }
        let poll = Poll::new()?;
        let listening = sockets
            .iter()
            .zip(FIRST_SOCKET..)
            .map(|(socket, token)| (socket.descriptor.as_fd(), Token(token)));
        for (descriptor, token) in [(signals.as_fd(), SIGNALS), (ipc.lifeline.as_fd(), LIFELINE)]
            .into_iter()
            .chain(listening)
        {
            poll.registry()
                .register(&mut SourceFd(&descriptor.as_raw_fd()), token, Interest::READABLE)?;
        }
        let reserve_descriptor = Some(new_reserve_descriptor(&context)?);
        Ok(Self {
            context,
            liveness: start.liveness(),
            signals,
            poll,
            sockets,
            reserve_descriptor,
            refused: VecDeque::new(),
            is_stopping: false,
            source_gate: SourceGate::default(),
        })
    }

    fn serve(&mut self) -> io::Result<u8> {
        let mut events = Events::with_capacity(16);
        self.count_lost_in_flight();
        loop {
            match self.poll.poll(&mut events, self.poll_timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.liveness.report();
            for event in &events {
                match event.token() {
                    // SIGUSR1 only wakes it up.
                    SIGNALS => {
                        while let Some(received) = self.signals.read()? {
                            self.is_stopping |= received.signal == Signal::SIGTERM;
                        }
                    }
                    LIFELINE => return Ok(1),
                    Token(socket) => self.sockets[socket - FIRST_SOCKET].is_ready = true,
                }
            }
            self.run_timers();
            // It sends what it has accepted; other connections wait for the next listener.
            if self.is_stopping && self.sockets.iter().all(|socket| socket.unsent.is_none()) {
                return Ok(0);
            }
            for index in 0..self.sockets.len() {
                self.accept_some(index)?;
            }
        }
    }

    /// Time until something is due that no descriptor announces.
    fn poll_timeout(&self) -> Option<Duration> {
        if !self.is_stopping && self.sockets.iter().any(ListeningSocket::can_accept) {
            return Some(Duration::ZERO);
        }
        let lingering = self.refused.front().map(|(until_ms, _)| *until_ms);
        let paused = self.sockets.iter().filter_map(|socket| socket.paused_until_ms);
        let next_ms = paused.chain(lingering).min()?;
        Some(Duration::from_millis(next_ms.saturating_sub(now_ms()) + 1))
    }

    fn run_timers(&mut self) {
        let now = now_ms();
        let is_over = |(until_ms, _): &(u64, OwnedFd)| *until_ms <= now;
        while self.refused.front().is_some_and(is_over) {
            self.refused.pop_front();
        }
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            if socket.paused_until_ms.is_some_and(|until_ms| until_ms <= now) {
                socket.paused_until_ms = None;
                if let Some(unsent) = socket.unsent.take() {
                    self.admit(index, unsent);
                    self.publish_in_flight();
                }
            }
        }
    }

    /// Accepts from one socket, up to a limit: then the others, and signals, have their turn.
    fn accept_some(&mut self, index: usize) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_ROUND_MAX {
            let socket = &mut self.sockets[index];
            if !socket.can_accept() || self.is_stopping {
                break;
            }
            self.liveness.report();
            set_in_flight(&self.context, true);
            match socket.accept() {
                Ok(accepted) => self.judge_and_admit(index, accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.is_ready = false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE) => self.refuse_without_descriptors(index, &error),
                    Some(libc::ENOMEM | libc::ENOBUFS) => self.pause_accepting(index, &error),
                    // The connection is gone already (ECONNABORTED and its like): the next one may be fine.
                    _ if is_per_connection_error(&error) => {}
                    _ => return Err(error),
                },
            }
            self.publish_in_flight();
        }
        Ok(())
    }

    /// Notes whether a connection would be lost if this process died now.
    fn publish_in_flight(&self) {
        set_in_flight(
            &self.context,
            self.sockets.iter().any(|socket| socket.unsent.is_some()),
        );
    }

    /// Counts the connection that a predecessor may have died over. (A death here leaves it to be counted twice,
    /// rather than never.)
    fn count_lost_in_flight(&self) {
        let header = self.context.memory.header;
        if header.listener_in_flight.load(Ordering::Acquire) != 0 {
            header.lost_before_handshake_total.fetch_add(1, Ordering::Relaxed);
            set_in_flight(&self.context, false);
        }
    }

    /// Charges a new connection to its source, and refuses it if the source has used up what it may, or if too many
    /// others have not greeted.
    fn judge_and_admit(&mut self, index: usize, accepted: OwnedFd) {
        let kind = self.sockets[index].kind;
        let peer = peer_of(&accepted);
        // Its client has reset it already: nobody is left to be served.
        if peer.is_gone() {
            return;
        }
        let judged = match kind {
            Kind::Game => self.source_gate.judge(&self.context, peer),
            Kind::Console => Ok(()),
        };
        match judged {
            Ok(()) => self.admit(index, accepted),
            Err(refusal) => self.refuse(kind, accepted, refusal),
        }
    }

    fn admit(&mut self, index: usize, accepted: OwnedFd) {
        let kind = self.sockets[index].kind;
        if let Admitted::NotYet(accepted) = self.try_admit(kind, accepted) {
            let socket = &mut self.sockets[index];
            socket.unsent = Some(accepted);
            socket.paused_until_ms = Some(now_ms() + KEEPER_CHANNEL_RETRY_MS);
        }
    }

    fn try_admit(&mut self, kind: Kind, socket: OwnedFd) -> Admitted {
        let memory = self.context.memory;
        let header = memory.header;
        let open = memory.open_connections(kind);
        let (open_max, keeper_max) = match kind {
            Kind::Game => (
                u64::from(self.context.config.connections_max),
                CONNECTIONS_PER_KEEPER_MAX,
            ),
            Kind::Console => {
                if open >= CONSOLE_CONNECTIONS_MAX as u64 {
                    // Of the connections on their way to a keeper it is not known yet which will be idle.
                    if header.keepers.iter().any(|keeper| keeper.in_flight(kind) > 0) {
                        return Admitted::NotYet(socket);
                    }
                    self.make_room_for_operator(open);
                }
                let open_max = CONSOLE_CONNECTIONS_MAX + CONSOLES_LEAVING_MAX;
                (open_max as u64, CONSOLE_SLOTS_PER_KEEPER)
            }
        };
        let has_room = |keeper: &KeeperSlot| keeper.open(kind) < keeper_max;
        let mut is_busy: Vec<bool> = header
            .keepers
            .iter()
            .take(self.context.ipc.keepers.len())
            .map(|keeper| kind == Kind::Game && keeper.in_flight(kind) >= CONNECTIONS_IN_FLIGHT_MAX)
            .collect();
        loop {
            let keepers: Vec<u32> = header
                .keepers
                .iter()
                .zip(&is_busy)
                .map(|(keeper, is_busy)| {
                    if *is_busy || !has_room(keeper) {
                        u32::MAX
                    } else {
                        keeper.open(Kind::Game) + keeper.open(Kind::Console)
                    }
                })
                .collect();
            let admission = decide(Load {
                stopping: header.stopping.load(Ordering::Acquire) != 0,
                keepers: &keepers,
                keeper_max: u32::MAX,
                open,
                open_max,
                fill_in_order: self.context.config.clients_per_handler > 1,
            });
            let keeper = match admission {
                // A keeper has room, but its channel is full: connections wait in the kernel's backlog.
                Admission::Refuse(Refusal::Full)
                    if open < open_max
                        && header
                            .keepers
                            .iter()
                            .zip(&is_busy)
                            .any(|(it, is_busy)| *is_busy && has_room(it)) =>
                {
                    return Admitted::NotYet(socket);
                }
                Admission::Refuse(refusal) => {
                    self.refuse(kind, socket, refusal);
                    return Admitted::Done;
                }
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
                    if kind == Kind::Game {
                        self.source_gate
                            .note_sent(&self.context, keeper, peer_of(&socket));
                    }
                    header.accepted_total.fetch_add(1, Ordering::Relaxed);
                    return Admitted::Done;
                }
                // Its channel is full. Another keeper may have less to do.
                Ok(SendOutcome::WouldBlock) => {}
                // The supervisor keeps the other end open: no other process could receive there.
                Ok(SendOutcome::PeerGone) => log::error!("the channel to keeper {keeper} is closed"),
                Err(error) => log::warn!("cannot hand a connection to keeper {keeper}: {error}"),
            }
            is_busy[keeper as usize] = true;
        }
    }

    /// Tells the console connection that was idle the longest to end, unless enough of the `open` ones are about to
    /// end. Connections that have not given the password go first, then those that have entered no command yet; those
    /// on the unix socket go last. So a client cannot drive an operator out by connecting alone.
    fn make_room_for_operator(&self, open: u64) {
        let is_held =
            |record: &&ConnectionRecord| record.kind() == Kind::Console && record.claimed() == Claim::Held;
        let (leaving, staying): (Vec<_>, Vec<_>) = self
            .context
            .memory
            .touched_connections()
            .map(|(_, record)| record)
            .filter(is_held)
            .partition(|record| record.has_operator_flag(OperatorFlag::MakesRoom) || record.is_over());
        if open.saturating_sub(leaving.len() as u64) < CONSOLE_CONNECTIONS_MAX as u64 {
            return;
        }
        let asks_for_password = self.context.config.console_password_file.is_some();
        let idle_longest = staying.into_iter().min_by_key(|record| {
            // Only the server's own user can connect to the unix socket.
            let is_own_user = matches!(record.peer(), Peer::Process { .. });
            let is_admitted = !asks_for_password || record.has_operator_flag(OperatorFlag::Password);
            let has_commanded = record.has_operator_flag(OperatorFlag::Commands);
            let last_at_ms = record.last_frame_at_ms.load(Ordering::Relaxed);
            // Several may have done something within a millisecond.
            (
                is_own_user,
                is_admitted,
                has_commanded,
                last_at_ms,
                record.order(),
            )
        });
        let Some(record) = idle_longest else { return };
        record.set_operator_flag(OperatorFlag::MakesRoom, true);
        // It looks at the flag at every event, and a handler that is not entered yet looks when it starts.
        if let Some(handler) = record.handler()
            && let Err(error) = handler.send_signal(Signal::SIGUSR1)
        {
            log::warn!("cannot tell console {handler} to make room: {error}");
        }
    }

    fn refuse(&mut self, kind: Kind, socket: OwnedFd, refusal: Refusal) {
        send_refusal(&self.context, kind, &socket, refusal);
        // If it were closed at once, with bytes of the client unread, the kernel would send a reset, and the reason
        // could be lost.
        if self.refused.len() == REFUSED_LINGERING_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((now_ms() + REFUSAL_LINGER_MS, socket));
    }

    /// Accepts and refuses the waiting connection with the reserved descriptor: the poll would never announce it
    /// again.
    fn refuse_without_descriptors(&mut self, index: usize, error: &io::Error) {
        self.reserve_descriptor = None;
        self.refused.clear();
        let kind = self.sockets[index].kind;
        if let Ok(socket) = self.sockets[index].accept() {
            send_refusal(&self.context, kind, &socket, Refusal::NoResources);
        }
        self.reserve_descriptor = new_reserve_descriptor(&self.context).ok();
        self.pause_accepting(index, error);
    }

    fn pause_accepting(&mut self, index: usize, error: &io::Error) {
        log::error!("cannot accept connections: {error}; trying again in {ACCEPT_RETRY_MS} ms");
        self.sockets[index].paused_until_ms = Some(now_ms() + ACCEPT_RETRY_MS);
    }
}

/// Notes whether a connection would be lost if this process died now. (Set before accept: rather one too many.)
fn set_in_flight(context: &Context, has: bool) {
    let header = context.memory.header;
    header.listener_in_flight.store(has.into(), Ordering::Release);
}

/// Tells a client that it cannot be served, in its protocol and in a form that a person can read, because it is not
/// known which of the two it is. The socket's buffer is empty, so nothing waits.
pub(crate) fn send_refusal(context: &Context, kind: Kind, socket: &impl AsFd, refusal: Refusal) {
    let mut buffer = [0; CLOSE_MESSAGE_BYTES_MAX];
    let (peer, code, text) = (peer_of(socket), refusal.code(), refusal.text());
    log::info!("refusing the connection from {peer}: {text}");
    count_close(&context.memory.header.closes, code, false);
    context
        .memory
        .enter_refusal(peer, "", format_args!("{peer}: {code:?}: {text}"));
    let message = ServerMessage::Error {
        code,
        text: render::readable_by_any_client(&text),
    };
    let sent = match kind {
        Kind::Game => {
            let length = frame::write_frame_into(&message, &mut buffer).expect("a refusal is short");
            send_from(socket, &buffer[..length])
        }
        Kind::Console => send_from(socket, format!("ERR {text}\n").as_bytes()),
    };
    if matches!(sent, Sent::Bytes(_)) {
        // It is refused whether this succeeds or not.
        let _ = shut_down(socket, Shutdown::Write);
    }
}

/// The other end of a connection, as the kernel tells it.
pub(crate) fn peer_of(socket: &impl AsFd) -> Peer {
    let address = SockRef::from(socket).peer_addr();
    match address {
        Ok(address) if address.is_unix() => {
            // The pid is 0 for a process of another pid namespace.
            let credentials = getsockopt(socket, PeerCredentials);
            let (uid, pid) = credentials.map_or((u32::MAX, 0), |it| (it.uid(), it.pid()));
            Peer::Process {
                uid,
                pid: pid.cast_unsigned(),
            }
        }
        // The socket of a client that has disconnected already has no peer address.
        other => other
            .ok()
            .and_then(|address| address.as_socket())
            .map_or(Peer::GONE, Peer::Network),
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
