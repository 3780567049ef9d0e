//! Counts of connections that were lost or could not be made.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::engine::client::ConnectionError;

/// Further losses are counted but not logged one by one.
const LOG_MAX: usize = 10_000;

/// Counts of connections that ended other than by a goodbye.
#[derive(Debug, Default)]
pub(crate) struct ConnectionCounts {
    /// Lost after the server had answered their handshake.
    pub disconnects: u64,
    /// Lost or reset before that; the client has retried.
    pub early_resets: u64,
    /// Not made, or refused with a reason before the handshake was answered.
    pub refused: u64,
    /// Sessions that cannot be resumed.
    pub sessions_lost: u64,
    /// Why connections were lost, and how often.
    pub losses: BTreeMap<String, u64>,
    /// The player and the time of each connection lost after its handshake.
    pub log: Vec<(String, Instant)>,
}

impl ConnectionCounts {
    /// Counts the loss of `player`'s connection.
    pub(crate) fn record(&mut self, error: &ConnectionError, handshake_done: bool, player: Option<&str>) {
        let reason = match (error, handshake_done) {
            (_, true) => {
                self.disconnects += 1;
                if let Some(player) = player.filter(|_| self.log.len() < LOG_MAX) {
                    self.log.push((player.to_owned(), Instant::now()));
                }
                error.to_string()
            }
            (ConnectionError::Closed | ConnectionError::Failed(_), false) => {
                self.early_resets += 1;
                format!("{error}, before the handshake was answered")
            }
            (ConnectionError::Connect(_) | ConnectionError::Session(_), false) => {
                self.refused += 1;
                error.to_string()
            }
        };
        *self.losses.entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_reset_before_the_handshake_is_no_disconnect() {
        let mut connections = ConnectionCounts::default();
        let reset = ConnectionError::Failed(io::ErrorKind::ConnectionReset.into());
        connections.record(&reset, false, None);
        connections.record(&ConnectionError::Closed, false, Some("anna"));
        connections.record(
            &ConnectionError::Connect(io::ErrorKind::ConnectionRefused.into()),
            false,
            None,
        );
        assert_eq!(
            (
                connections.early_resets,
                connections.refused,
                connections.disconnects
            ),
            (2, 1, 0)
        );
        connections.record(&reset, true, Some("anna"));
        assert_eq!(connections.disconnects, 1);
        assert_eq!(connections.log.len(), 1);
        assert_eq!(connections.losses.values().sum::<u64>(), 4);
    }
}
