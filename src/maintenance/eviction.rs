//! How long a player without a connection is kept who holds nothing but a place at the table.
//!
//! Otherwise anybody could keep everybody out: connect, greet, go, and again, each time for the whole grace.

use crate::limits::LOBBY_GRACE_MS_MIN;

/// The last places, as a share of all: while more are free, everybody is kept for the whole grace.
const LAST_PLACES: u64 = 8;

/// How long a player in the lobby is kept without a connection, in milliseconds: `grace_ms`, but the less the fewer of the last
/// places are free. So those who have been away for longest go first.
pub(crate) fn lobby_grace_ms(grace_ms: u64, players: u32, players_max: u32) -> u64 {
    let last_places = (u64::from(players_max) / LAST_PLACES).max(1);
    let free = u64::from(players_max.saturating_sub(players));
    if free >= last_places {
        return grace_ms;
    }
    (grace_ms / last_places * free)
        .max(LOBBY_GRACE_MS_MIN)
        .min(grace_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_there_are_places_everybody_is_kept_for_the_grace() {
        for players in [0, 1, 1000, 1750] {
            assert_eq!(lobby_grace_ms(60_000, players, 2000), 60_000);
        }
        assert_eq!(lobby_grace_ms(60_000, 1, 2), 60_000);
    }

    #[test]
    fn the_fewer_places_are_left_the_shorter() {
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
    fn a_grace_that_is_shorter_yet_stays() {
        assert_eq!(lobby_grace_ms(100, 2000, 2000), 100);
        assert_eq!(lobby_grace_ms(u64::MAX, 1999, 2000), u64::MAX / 250);
    }
}
