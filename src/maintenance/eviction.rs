//! How long players without a seat keep their places when few places are free: those that are detached, and those in
//! text mode that only sit in the lobby.
//!
//! Without this limit, one client could fill the server: connect, greet, and disconnect or fall silent, again and
//! again, and keep each place for the whole time. A seat is kept for its grace in any case.

/// While more than one in so many places is free, every player keeps its place for the whole time.
const LAST_PLACES_ONE_IN: u64 = 8;

/// Returns the time for which a player without a seat keeps its place, in milliseconds: `whole_ms`, shortened in
/// proportion when few places are free, but not below `min_ms`. So the players that have been away or silent for
/// longest go first.
pub(crate) fn shortened_ms(whole_ms: u64, min_ms: u64, players: u32, players_max: u32) -> u64 {
    let last_places = (u64::from(players_max) / LAST_PLACES_ONE_IN).max(1);
    let free = u64::from(players_max.saturating_sub(players));
    if free >= last_places {
        return whole_ms;
    }
    (whole_ms / last_places * free).max(min_ms).min(whole_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_MS: u64 = 1000;

    #[test]
    fn while_places_are_free_the_time_is_whole() {
        for players in [0, 1, 1000, 1750] {
            assert_eq!(shortened_ms(60_000, MIN_MS, players, 2000), 60_000);
        }
        assert_eq!(shortened_ms(60_000, MIN_MS, 1, 2), 60_000);
    }

    #[test]
    fn the_time_shrinks_with_the_free_places() {
        assert_eq!(shortened_ms(60_000, MIN_MS, 1875, 2000), 30_000);
        let times: Vec<u64> = (1750..=2000)
            .map(|players| shortened_ms(60_000, MIN_MS, players, 2000))
            .collect();
        assert!(times.is_sorted_by(|earlier, later| earlier >= later));
        for players_max in [1, 2, 7, 2000, u32::MAX] {
            assert_eq!(shortened_ms(60_000, MIN_MS, players_max, players_max), MIN_MS);
        }
    }

    #[test]
    fn a_time_below_the_minimum_is_not_raised() {
        assert_eq!(shortened_ms(100, MIN_MS, 2000, 2000), 100);
        assert_eq!(shortened_ms(u64::MAX, MIN_MS, 1999, 2000), u64::MAX / 250);
    }
}
