//! What a player's requests cost its source: the address that its connection comes from.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::SOURCE_BURST_SECONDS;
use crate::session::Session;
use crate::state::budget::Rate;
use crate::state::connections::Peer;
use crate::state::sources::{SourceAccount, SourceKey, is_exempt};

impl Session<'_> {
    /// The source of the connection; `None` for a process on a unix socket.
    pub(crate) fn source(&self) -> Option<SourceKey> {
        self.state.memory.sources.of_connection(self.connection.index())
    }

    /// Enters the connection as greeted, and where its player comes from.
    pub(crate) fn enter_player_source(&self) {
        let memory = self.state.memory;
        memory.set_greeting(self.connection.index(), false);
        if let Some((player, _)) = self.player {
            memory.sources.set_of_player(player.index(), self.source());
        }
    }

    /// Charges the source for frames or lines that were handled, and for their bytes. If it sends faster than it may,
    /// the player's further input waits. Nothing is refused.
    pub(crate) fn charge_source_for_input(&mut self, frames: u64, bytes: u64) {
        let Some(key) = self.source().filter(|_| frames > 0 && !self.is_source_exempt()) else {
            return;
        };
        let (sources, header) = (&self.state.memory.sources, self.state.memory.header);
        let rate = |per_second: &AtomicU64, units| {
            let per_second = per_second.load(Ordering::Relaxed) * units;
            Rate::per_second(per_second, per_second * SOURCE_BURST_SECONDS)
        };
        let messages = rate(&header.source_messages_per_second, 1);
        // Single bytes would be too many for accounts of whole microseconds.
        let bytes_rate = rate(&header.source_kib_per_second, 1024 / SOURCE_BYTES_UNIT);
        let wait_us = sources
            .spend(key, SourceAccount::Messages, messages, frames)
            .max(sources.spend(
                key,
                SourceAccount::Bytes,
                bytes_rate,
                bytes.div_ceil(SOURCE_BYTES_UNIT),
            ));
        if wait_us > 0 {
            header.sources_held_total.fetch_add(1, Ordering::Relaxed);
            self.hold_input_for(wait_us);
        }
    }

    fn is_source_exempt(&self) -> bool {
        match self.record.peer() {
            Peer::Network(address) => is_exempt(address.ip()),
            Peer::Process { .. } => true,
        }
    }
}

/// Bytes that are charged together.
const SOURCE_BYTES_UNIT: u64 = 256;
