//! A handler: runs connections and their players. It receives bytes, carries out transactions, and sends bytes.
//!
//! A *reception* is a handler that serves many connections, each until it has greeted. It runs no player: a game that
//! comes to no end must not make newcomers wait. It leaves what a client sends behind its greeting in the kernel, until
//! the connection has moved to a handler for players.
//!
//! The isolation dial decides how many connections a handler for players serves. By default that is one, and the
//! handler exits with it. A handler that may serve several is given them by its keeper over a
//! [channel](HandlerMessage), and runs each of them in turn: it is one loop over a set, whose size may be one.
//!
//! It must never keep anything that a successor would need anywhere but in shared memory. It can be killed between
//! any two instructions, and its successor goes on from what the kernel and the records say.

mod client;
mod deadlines;
mod doorbells;
mod drive;
mod pending_moves;
mod socket_io;
mod turns;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;

use crate::frontends::console;
use crate::frontends::console::context::ConsoleContext;
use crate::limits::LIVENESS_UPDATE_MS;
use crate::logging;
use crate::process::handler::client::{Client, HandlerState};
use crate::process::handler::doorbells::{FIRST_DOORBELL, FIRST_REPLY};
use crate::process::handler::drive::DriveOutcome;
use crate::process::handler::pending_moves::PendingMoves;
use crate::process::handler::turns::{LOOK_EVERY_US, ReadyQueue, Turn};
use crate::process::ipc::HandlerMessage;
use crate::process::process_table::{Context, keep_only};
use crate::state::budget::now_us;
use crate::state::connections::{Claim, Kind, ServedBy};
use crate::state::handle::StateHandle;
use crate::state::layout::{ConnectionRef, Memory};
use shmem::sys::clock::now_ms;
use shmem::sys::process::{NewProcess, ProcessId, set_name};
use shmem::sys::signals::Signals;
use shmem::sys::sockets::{Channel, ChannelError, ReceiveOutcome};

const SIGNALS: Token = Token(0);
const LIFELINE: Token = Token(1);
const CHAT_DOORBELL: Token = Token(2);
const KEEPER_MESSAGES: Token = Token(3);
/// Tokens from here on: sockets, by client key.
const FIRST_SOCKET: usize = 16;
const _: () = assert!(FIRST_SOCKET + (crate::limits::CLIENTS_PER_HANDLER_MAX as usize) < FIRST_DOORBELL);

/// Events that one poll returns at most.
const EVENTS_MAX: usize = 64;

/// What a keeper gives to a handler.
pub(crate) struct HandlerArgs {
    pub(crate) context: Context,
    /// Index of the keeper.
    pub(crate) keeper: u32,
    /// The connections, each with its socket.
    pub(crate) connections: Vec<(ConnectionRef, OwnedFd)>,
    pub(crate) start: Start,
    /// It serves connections until they have greeted.
    pub(crate) is_reception: bool,
    /// Where the keeper says what else to serve, and what to release.
    pub(crate) assignments: Option<Channel>,
}

/// How a handler begins with the connections that it is forked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// It is their first one.
    New,
    /// Their handler is dead.
    Takeover,
    /// It gets them as soon as their present handler has released them.
    Move { from: ProcessId },
}

/// Runs in the process that was just forked. Exit status 0 means that there is nothing left to serve.
pub(crate) fn run(new_process: &NewProcess, mut args: HandlerArgs) -> u8 {
    logging::set_role(role_name(args.is_reception));
    let found = ProcessId::try_current();
    let served = found.and_then(|process| {
        let me = ServedBy {
            process,
            build: args.context.build,
            is_reception: args.is_reception,
        };
        let memory = args.context.memory;
        // If the keeper has died meanwhile, the slot may have been given to another connection.
        let is_its = |connection| match args.start {
            Start::Move { .. } => true,
            Start::New | Start::Takeover => enter_handler(memory, connection, me),
        };
        args.connections.retain(|(connection, _)| is_its(*connection));
        serve(new_process, args, me)
    });
    served.unwrap_or_else(|error| {
        log::error!("cannot continue: {error}");
        1
    })
}

/// Enters this process as the handler of a connection. False if the connection was given up.
fn enter_handler(memory: &Memory, connection: ConnectionRef, me: ServedBy) -> bool {
    let index = connection.index();
    let record = memory.connections.at(index);
    let is_still_there =
        || record.claim_after_store() == Claim::Held && record.reference(index) == connection;
    if is_still_there() {
        record.set_handler(me);
    }
    // Checked again: a process that abandons the connection looks for a handler afterwards, or its claim is seen
    // here.
    if !is_still_there() {
        log::warn!("connection {connection:?} was given up before it was served");
        record.clear_handler(me.process);
        return false;
    }
    record.liveness.record_progress();
    true
}

fn role_name(is_reception: bool) -> &'static str {
    if is_reception { "reception" } else { "handler" }
}

fn serve(new_process: &NewProcess, args: HandlerArgs, me: ServedBy) -> io::Result<u8> {
    let Context { memory, ipc, .. } = args.context;
    let mut keep = vec![ipc.lifeline.as_fd(), ipc.keeper_channel(args.keeper).as_fd()];
    keep.extend(ipc.doorbells.for_clients());
    keep.extend(args.connections.iter().map(|(_, socket)| socket.as_fd()));
    keep.extend(args.assignments.as_ref().map(AsFd::as_fd));
    keep_only(new_process, &keep)?;
    set_name(role_name(me.is_reception))?;
    let mut state = StateHandle::attach(memory, args.context.games);
    state.reserved_names = args.context.config.reserved_names.0;
    if let [(connection, _)] = &args.connections[..]
        && memory.connections.at(connection.index()).kind() == Kind::Console
    {
        let index = connection.index();
        let (context, mut connections) = (args.context, args.connections);
        let (_, socket) = connections.remove(0);
        let console_context = ConsoleContext {
            memory,
            games: context.games,
            config: context.config,
            doorbells: &ipc.doorbells,
            lifeline: &ipc.lifeline,
            password: context.settings.console_password,
        };
        let status = console::run(&mut state, index, socket, console_context);
        if status == 0 {
            memory.connections.at(index).set_over();
        }
        return Ok(status);
    }
    Handler::new(args, state, me)?.serve()
}

struct Handler {
    state: HandlerState,
    shared_state: StateHandle,
    /// By key. Keys are reused.
    clients: Vec<Option<Client>>,
    /// By key: when the client must be run, at the latest.
    due_ms: Vec<u64>,
    /// The clients that have something to do, each once.
    ready: ReadyQueue,
    signals: Signals,
    assignments: Option<Channel>,
    /// Connections that other handlers are about to release to this one.
    pending_moves: PendingMoves,
    next_liveness_ms: u64,
    supervisor_is_gone: bool,
}

impl Handler {
    fn new(args: HandlerArgs, shared_state: StateHandle, me: ServedBy) -> io::Result<Self> {
        let signals = Signals::block(&[Signal::SIGUSR1, Signal::SIGTERM])?;
        let state = HandlerState::new(args.context, args.keeper, me)?;
        let mut descriptors = vec![
            (signals.as_fd(), SIGNALS),
            (args.context.ipc.lifeline.as_fd(), LIFELINE),
        ];
        descriptors.extend(args.assignments.iter().map(|it| (it.as_fd(), KEEPER_MESSAGES)));
        for (descriptor, token) in descriptors {
            register(&state.poll, descriptor.as_raw_fd(), token, Interest::READABLE)?;
        }
        let mut handler = Self {
            state,
            shared_state,
            clients: Vec::new(),
            due_ms: Vec::new(),
            ready: ReadyQueue::default(),
            signals,
            assignments: args.assignments,
            pending_moves: PendingMoves::default(),
            next_liveness_ms: 0,
            supervisor_is_gone: false,
        };
        for (connection, socket) in args.connections {
            match args.start {
                Start::Move { from } => handler.pending_moves.enter(connection, socket, from, now_ms()),
                start => handler.start_serving(connection.index(), socket, start == Start::Takeover)?,
            }
        }
        Ok(handler)
    }

    /// Serves until no client is left and none can come.
    fn serve(&mut self) -> io::Result<u8> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut now = now_us();
        loop {
            now = self.drive_ready(now)?;
            if self.supervisor_is_gone {
                return Ok(1);
            }
            if self.assignments.is_none() && self.has_no_clients() {
                return Ok(0);
            }
            let polled = self.state.poll.poll(&mut events, self.poll_timeout(now / 1000));
            match polled {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    now = now_us();
                    continue;
                }
                polled => polled?,
            }
            for event in &events {
                self.on_event(event)?;
            }
            now = now_us();
            self.wake_due(now / 1000);
            if self
                .pending_moves
                .due_ms()
                .is_some_and(|due_ms| due_ms <= now / 1000)
            {
                self.serve_completed_moves()?;
            }
        }
    }

    fn has_no_clients(&self) -> bool {
        self.clients.iter().all(Option::is_none) && self.pending_moves.is_empty()
    }

    fn on_event(&mut self, event: &Event) -> io::Result<()> {
        match event.token() {
            SIGNALS => {
                while self.signals.read()?.is_some() {}
                self.check_flags();
                self.serve_completed_moves()?;
            }
            LIFELINE => self.supervisor_is_gone = true,
            CHAT_DOORBELL => (0..self.clients.len()).for_each(|key| self.wake(key)),
            KEEPER_MESSAGES => self.receive_messages()?,
            Token(answer @ FIRST_REPLY..) => {
                let room = room_of(answer - FIRST_REPLY);
                self.state.doorbells.take_reply(room, &self.state.poll)?;
                self.wake_room(room);
            }
            // Nothing to clear: all subscribers share the doorbell, and each ring is a new edge.
            Token(doorbell @ FIRST_DOORBELL..) => self.wake_room(room_of(doorbell - FIRST_DOORBELL)),
            Token(socket) => {
                let key = socket - FIRST_SOCKET;
                if let Some(Some(client)) = self.clients.get_mut(key) {
                    client.on_socket_event(event);
                    self.wake(key);
                }
            }
        }
        Ok(())
    }

    /// Runs clients that have something to do, until it is time to look for events. Each gets one turn at a time.
    /// Takes the present time, in microseconds of the monotonic clock, and returns what it is afterwards.
    fn drive_ready(&mut self, mut now: u64) -> io::Result<u64> {
        let until_us = now + LOOK_EVERY_US;
        while now < until_us
            && let Some(key) = self.ready.pop()
        {
            self.report_liveness(now / 1000);
            let Some(client) = &mut self.clients[key] else {
                continue;
            };
            client.is_ready = false;
            let turn = Turn::begin(now);
            let outcome = client.drive(key, turn, &mut self.state, &mut self.shared_state)?;
            let began_us = std::mem::replace(&mut now, now_us());
            client.usage.add(now - began_us);
            self.due_ms[key] = client.due_ms;
            match outcome {
                DriveOutcome::Wait => {}
                DriveOutcome::More => self.wake(key),
                DriveOutcome::Finished => self.end(key)?,
                DriveOutcome::Move(to) => self.move_out(key, to)?,
            }
            self.wake_woken();
        }
        Ok(now)
    }

    fn wake(&mut self, key: usize) {
        if let Some(Some(client)) = self.clients.get_mut(key)
            && !std::mem::replace(&mut client.is_ready, true)
        {
            self.ready.push(key, &mut client.usage);
        }
    }

    fn wake_room(&mut self, room: u32) {
        self.state
            .woken
            .extend_from_slice(self.state.doorbells.client_keys(room));
        self.wake_woken();
    }

    /// Wakes the clients that were woken by others.
    fn wake_woken(&mut self) {
        while let Some(key) = self.state.woken.pop() {
            self.wake(key);
        }
    }

    fn wake_due(&mut self, now_ms: u64) {
        for key in 0..self.due_ms.len() {
            if self.due_ms[key] <= now_ms {
                self.wake(key);
            }
        }
    }

    /// How long nothing needs to be done, if nothing happens.
    fn poll_timeout(&self, now_ms: u64) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let due_ms = self.due_ms.iter().copied().chain(self.pending_moves.due_ms());
        let due_ms = due_ms.min().filter(|due_ms| *due_ms != u64::MAX)?;
        Some(Duration::from_millis(due_ms.saturating_sub(now_ms).max(1)))
    }

    /// Another process has set flags in connections of this one.
    fn check_flags(&mut self) {
        let memory = self.state.context.memory;
        let stopping = memory.header.stopping.load(Ordering::Acquire) != 0;
        let epoch = memory.header.keepers[self.state.keeper as usize]
            .epoch
            .load(Ordering::Acquire);
        for key in 0..self.clients.len() {
            let Some(client) = &mut self.clients[key] else {
                continue;
            };
            let record = memory.connections.at(client.connection().index());
            if record.take_attention() || stopping || record.keeper_epoch() != epoch {
                client.check_flags = true;
                self.wake(key);
            }
        }
    }

    /// Shows the watchdog and the keeper that this process makes progress: it runs all its clients.
    fn report_liveness(&mut self, now_ms: u64) {
        if now_ms < self.next_liveness_ms {
            return;
        }
        self.next_liveness_ms = now_ms + LIVENESS_UPDATE_MS;
        for client in self.clients.iter().flatten() {
            let record = self
                .state
                .context
                .memory
                .connections
                .at(client.connection().index());
            record.liveness.record_progress();
        }
    }

    fn receive_messages(&mut self) -> io::Result<()> {
        let mut message = [0; HandlerMessage::BYTES];
        while let Some(channel) = &self.assignments {
            match channel.receive(&mut message) {
                Ok(ReceiveOutcome::Message { bytes, descriptors }) => {
                    match (
                        HandlerMessage::decode(&message[..bytes]),
                        descriptors.into_iter().next(),
                    ) {
                        (Some(HandlerMessage::Serve { connection }), Some(socket)) => {
                            self.accept(connection, socket)?;
                        }
                        (Some(HandlerMessage::ExpectMove { connection, from }), Some(socket)) => {
                            self.pending_moves.enter(connection, socket, from, now_ms());
                        }
                        (Some(HandlerMessage::MoveTo { connection, to }), None) => {
                            self.start_move_out(connection, to)?;
                        }
                        _ => log::error!("a message from the keeper was malformed"),
                    }
                }
                Ok(ReceiveOutcome::WouldBlock) => return Ok(()),
                // The keeper sends no further connections, or is dead.
                Ok(ReceiveOutcome::PeerGone) => {
                    let raw = channel.as_fd().as_raw_fd();
                    self.state.poll.registry().deregister(&mut SourceFd(&raw))?;
                    self.assignments = None;
                }
                // The keeper counts the connection as served here. It learns otherwise only if this process exits.
                Err(error @ ChannelError::DescriptorsLost { .. }) => return Err(io::Error::other(error)),
                Err(error) => log::error!("a message from the keeper was lost: {error}"),
            }
        }
        Ok(())
    }

    fn accept(&mut self, connection: ConnectionRef, socket: OwnedFd) -> io::Result<()> {
        if !enter_handler(self.state.context.memory, connection, self.state.me) {
            return Ok(());
        }
        // It is not known whether a handler has served it before; the kernel is asked in any case.
        self.start_serving(connection.index(), socket, true)
    }

    fn start_serving(&mut self, index: u32, socket: OwnedFd, is_successor: bool) -> io::Result<()> {
        let free = self.clients.iter().position(Option::is_none);
        let key = free.unwrap_or(self.clients.len());
        if free.is_none() {
            self.clients.push(None);
            self.due_ms.push(u64::MAX);
        }
        self.state.serves_several |= key > 0 || self.assignments.is_some();
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = Token(FIRST_SOCKET + key);
        register(&self.state.poll, socket.as_raw_fd(), token, all)?;
        let client = Client::attach(
            key,
            index,
            socket,
            is_successor,
            &mut self.state,
            &mut self.shared_state,
        )?;
        self.clients[key] = Some(client);
        self.wake(key);
        self.wake_woken();
        Ok(())
    }

    /// Serves the connections that were moving here and that their former handlers have released.
    fn serve_completed_moves(&mut self) -> io::Result<()> {
        let (memory, me) = (self.state.context.memory, self.state.me);
        for (connection, socket) in
            self.pending_moves
                .take_completed(&memory.connections, me.process, now_ms())
        {
            // Announced again although it was here already.
            if self.key_of(connection).is_some() {
                continue;
            }
            let record = memory.connections.at(connection.index());
            record.set_handler(me);
            record.liveness.record_progress();
            self.start_serving(connection.index(), socket, true)?;
        }
        Ok(())
    }

    /// The keeper wants the connection served by another process.
    fn start_move_out(&mut self, connection: ConnectionRef, to: ProcessId) -> io::Result<()> {
        if self.key_of(connection).is_none() {
            // It may have been released to this process just now.
            self.serve_completed_moves()?;
        }
        if let Some(key) = self.key_of(connection)
            && let Some(client) = &mut self.clients[key]
        {
            client.move_to = Some(to);
            self.wake(key);
        }
        Ok(())
    }

    /// Key of the client with this connection, if it is served here.
    fn key_of(&self, connection: ConnectionRef) -> Option<usize> {
        let is_it = |client: &Option<Client>| client.as_ref().is_some_and(|it| it.connection() == connection);
        self.clients.iter().position(is_it)
    }

    /// Releases a connection to another process, which has its socket already and waits for this.
    fn move_out(&mut self, key: usize, to: ProcessId) -> io::Result<()> {
        let Some(client) = &self.clients[key] else {
            return Ok(());
        };
        let context = self.state.context;
        let connection = client.connection().index();
        self.remove_client(key)?;
        // Up to here it belongs to this process, and from here on to the other: there is nothing between.
        context
            .memory
            .connections
            .at(connection)
            .move_to(self.state.me.process, to);
        // If it cannot be signalled, it looks by itself soon; if it is dead, the keeper finds a successor.
        if let Err(error) = to.send_signal(Signal::SIGUSR1) {
            log::warn!("cannot tell handler {to} that connection {connection} was released to it: {error}");
        }
        context.memory.notify_keeper(connection);
        context.ipc.doorbells.ring_keeper(self.state.keeper);
        Ok(())
    }

    /// The connection has ended.
    fn end(&mut self, key: usize) -> io::Result<()> {
        let Some(client) = &self.clients[key] else {
            return Ok(());
        };
        let context = self.state.context;
        let connection = client.connection().index();
        self.remove_client(key)?;
        // From here on the keeper may give the slot to another connection.
        context.memory.connections.at(connection).set_over();
        if self.assignments.is_some() || self.clients.iter().any(Option::is_some) {
            context.memory.notify_keeper(connection);
            context.ipc.doorbells.ring_keeper(self.state.keeper);
        }
        Ok(())
    }

    /// This process has nothing to do with the connection any more.
    fn remove_client(&mut self, key: usize) -> io::Result<()> {
        let Some(client) = self.clients[key].take() else {
            return Ok(());
        };
        self.due_ms[key] = u64::MAX;
        self.state.leave_room(key, client.room)?;
        // Closing this descriptor would not end its events, because the keeper has a duplicate.
        let raw = client.socket.as_raw_fd();
        self.state.poll.registry().deregister(&mut SourceFd(&raw))
    }
}

fn register(poll: &Poll, raw: i32, token: Token, interest: Interest) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&raw), token, interest)
}

fn room_of(distance: usize) -> u32 {
    u32::try_from(distance).expect("tokens are made from the indices of rooms")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::state::layout::Capacity;

    #[test]
    fn a_handler_born_late_leaves_the_next_connection_of_the_slot_alone() {
        let capacity = Capacity {
            players: 1,
            rooms: 1,
            keepers: 1,
        };
        let memory = Memory::create(capacity).expect("there is memory");
        let record = memory.connections.at(0);
        let claim = || {
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            assert!(record.claim(Kind::Game, peer, 1, 0));
            record.reference(0)
        };
        let process = |pid| ProcessId { pid, start_time: 1 };
        let server = |pid| ServedBy {
            process: process(pid),
            build: 0,
            is_reception: false,
        };
        let connection = claim();
        assert!(enter_handler(memory, connection, server(7)));
        assert_eq!(record.handler(), Some(process(7)));
        // The keeper dies, the ticker frees the slot, and the next keeper gives it to another connection.
        record.free();
        assert!(!enter_handler(memory, connection, server(7)), "it is free");
        assert_eq!(record.handler(), None);
        let next = claim();
        assert!(enter_handler(memory, next, server(8)));
        assert!(!enter_handler(memory, connection, server(7)));
        assert_eq!(record.handler(), Some(process(8)));
    }
}
