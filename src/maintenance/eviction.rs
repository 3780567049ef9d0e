//! How long a detached player in the lobby keeps its identity when few identities are free.
//!
//! Without this limit, one client could fill the server: connect, do the handshake, disconnect, and repeat, for the
//! whole grace each time.

use crate::limits::LOBBY_GRACE_MS_MIN;

/// While more than one in so many identities is free, every player keeps the whole grace.
const LAST_IDENTITIES_ONE_IN: u64 = 8;

/// Returns the grace of a detached player in the lobby, in milliseconds: `grace_ms`, shortened in proportion when few
/// identities are free. So the players that have been detached for longest expire first.
pub(crate) fn lobby_grace_ms(grace_ms: u64, players: u32, players_max: u32) -> u64 {
    let last_identities = (u64::from(players_max) / LAST_IDENTITIES_ONE_IN).max(1);
    let free = u64::from(players_max.saturating_sub(players));
    if free >= last_identities {
        return grace_ms;
    }
    (grace_ms / last_identities * free)
        .max(LOBBY_GRACE_MS_MIN)
        .min(grace_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_identities_are_free_the_grace_is_whole() {
        for players in [0, 1, 1000, 1750] {
            assert_eq!(lobby_grace_ms(60_000, players, 2000), 60_000);
        }
        assert_eq!(lobby_grace_ms(60_000, 1, 2), 60_000);
    }

    #[test]
    fn the_grace_shrinks_with_the_free_identities() {
        assert_eq!(lobby_grace_ms(60_000, 1875, 2000), 30_000);
        let graces: Vec<u64> = (1750..=2000)
            .map(|players| lobby_grace_ms(60_000, players, 2000))
            .collect();
        assert!(graces.is_sorted_by(|earlier, later| earlier >= later));
        for players_max in [1, 2, 7, 2000, u32::MAX] {
            assert_eq!(
                lobby_grace_ms(60_000, players_max, players_max),
                LOBBY_GRACE_MS_MIN
            );
        }
    }

    #[test]
    fn a_grace_below_the_minimum_is_not_raised() {
        assert_eq!(lobby_grace_ms(100, 2000, 2000), 100);
        assert_eq!(lobby_grace_ms(u64::MAX, 1999, 2000), u64::MAX / 250);
    }
}
