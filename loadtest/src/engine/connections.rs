//! How clients connect, stay connected, and reconnect.

use forkade_protocol::{ClientMessage, ServerMessage};
use mio::Token;

use super::client::ConnectionError;
use super::heartbeats::Heartbeats;
use super::{Engine, EngineError, Task};
use crate::workload::ClientIndex;

impl Engine {
    pub(super) fn connect(&mut self, index: ClientIndex) -> Result<(), EngineError> {
        let client = &mut self.clients[index as usize];
        client.will_reconnect = false;
        match client.connect(
            self.poll.registry(),
            self.server,
            self.source,
            Token(index as usize),
        ) {
            Ok(()) => Ok(()),
            Err(error) => self.on_connection_lost(index, error),
        }
    }

    /// A client ends its session, and reconnects as a new player when the server has closed the connection.
    pub(super) fn replace_player(&mut self, index: ClientIndex) -> Result<(), EngineError> {
        let now_ns = self.now_ns();
        let client = self.client(index);
        client.is_replacing_player = true;
        match client.send(ClientMessage::Goodbye) {
            Ok(()) => {}
            Err(error) if error.is_session_end() => {}
            Err(error) => return Err(EngineError::Send(error)),
        }
        client
            .flush(now_ns)
            .or_else(|error| self.on_connection_lost(index, error))
    }

    /// A connection is lost. The client reconnects, if it can, after a pause that doubles with each failed
    /// attempt.
    pub(super) fn on_connection_lost(
        &mut self,
        index: ClientIndex,
        error: ConnectionError,
    ) -> Result<(), EngineError> {
        let now_ns = self.now_ns();
        let client = &mut self.clients[index as usize];
        let handshake_done = client.is_handshake_done();
        client.disconnect();
        if self.disconnecting {
            return Ok(());
        }
        if client.is_replacing_player {
            client.start_new_player();
            client.will_reconnect = true;
            self.timers.set(now_ns, Task::Connect(index));
            return Ok(());
        }
        self.connections
            .record(&error, handshake_done, client.player_name());
        // If the port has refused every connection so far, a retry cannot succeed.
        let is_unreachable = error.is_refused() && self.heartbeats.is_none();
        if client.session().is_ended() || is_unreachable {
            self.connections.sessions_lost += 1;
            let server = self.server;
            return match self.group_of(index).join_phase.is_complete() {
                true => Ok(()),
                false if is_unreachable => Err(EngineError::Unreachable { server, error }),
                false => Err(EngineError::Rejected { client: index, error }),
            };
        }
        if !client.session().has_player() && !client.session().can_greet_again() {
            // If the server has read the handshake and its answer is lost, a player of this name stays for a
            // while.
            client.start_new_player();
        }
        client.will_reconnect = true;
        let pause_ns = client.back_off_ns(&mut self.random);
        self.timers.set(now_ns + pause_ns, Task::Connect(index));
        Ok(())
    }

    /// The first welcome tells the heartbeat timeout of the server.
    fn start_heartbeats(&mut self, message: &ServerMessage, now_ns: u64) {
        if let (ServerMessage::Welcome { limits, .. }, None) = (message, &self.heartbeats) {
            let heartbeats = Heartbeats::new(limits.heartbeat_timeout_ms);
            self.timers
                .set(now_ns + heartbeats.interval_ns(), Task::Heartbeat);
            self.heartbeats = Some(heartbeats);
        }
    }

    pub(super) fn send_heartbeats(&mut self, now_ns: u64) -> Result<(), EngineError> {
        let Some(heartbeats) = &mut self.heartbeats else {
            return Ok(());
        };
        let silence_ns_max = heartbeats.silence_ns_max();
        let group = heartbeats.next_group(self.clients.len());
        self.timers
            .set(now_ns + heartbeats.interval_ns(), Task::Heartbeat);
        for index in group {
            let client = &mut self.clients[index];
            if now_ns.saturating_sub(client.last_sent_ns) < silence_ns_max {
                continue;
            }
            client.ping();
            if let Err(error) = client.flush(now_ns) {
                self.on_connection_lost(ClientIndex::try_from(index).unwrap_or(ClientIndex::MAX), error)?;
            }
        }
        Ok(())
    }

    /// The first message of a connection. A welcome or a resume completes the handshake.
    pub(super) fn on_handshake(&mut self, index: ClientIndex, message: &ServerMessage, now_ns: u64) {
        if let ServerMessage::Welcome { .. } | ServerMessage::Resumed { .. } = message {
            self.client(index).failed_attempts = 0;
            self.start_heartbeats(message, now_ns);
        }
    }
}
