//! Whether a connection whose handler has died gets another: a pure decision from its crashes so far.
//!
//! A process that was killed from outside is not at fault. But a frame that kills the handler that handles it would
//! kill every successor, and so would a fault that strikes every handler of a connection when it starts.

use shmem::sys::process::Exit;

use crate::state::layout::RoomRef;

use crate::limits::{
    CRASH_WINDOW_MS, CRASHES_PER_CONNECTION_MAX, CRASHES_SAME_FRAME_MAX, CRASHES_SAME_ROOM_MAX,
};

/// The recent crashes of a connection's handlers.
#[derive(Debug, Default)]
pub(crate) struct CrashHistory {
    window_began_ms: u64,
    anywhere: u32,
    frame: u64,
    in_frame: u32,
}

/// How a handler died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The frame that it was handling; 0: none.
    pub(crate) current_frame: u64,
    /// `None` if it was not a child of the process that asks.
    pub(crate) exit: Option<Exit>,
    /// Set if the watchdog killed it.
    pub(crate) watchdog_kill: Option<WatchdogKill>,
    /// The room whose game it ran in order to show its match.
    pub(crate) shown_room: Option<RoomRef>,
}

/// Why the watchdog killed a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WatchdogKill {
    /// It ran, and came to no end. Otherwise it was stopped from outside, which is not its fault.
    pub(crate) is_self_inflicted: bool,
    /// How long it had made no progress, in milliseconds.
    pub(crate) hung_ms: u64,
}

/// Whether a connection whose handler has died gets another handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartDecision {
    /// It does.
    Replace,
    /// It does, but the frame in which this handler died is refused and the connection closed: every handler of that
    /// frame has died.
    RefuseFrame,
    /// It does not: its handlers die again and again.
    GiveUp,
}

/// In place of a frame: the handler hung outside any frame.
const NO_FRAME: u64 = u64::MAX;

impl CrashHistory {
    /// How many handlers in a row died in the frame in which the last one did, or hung without a frame.
    pub(crate) fn in_same_frame(&self) -> u32 {
        self.in_frame
    }

    /// Enters a crash.
    pub(crate) fn enter(&mut self, now_ms: u64, crash: Crash) -> RestartDecision {
        if let Some(kill) = crash.watchdog_kill {
            // Time spent hung does not count towards the window.
            self.window_began_ms = self.window_began_ms.saturating_add(kill.hung_ms).min(now_ms);
        }
        if now_ms.saturating_sub(self.window_began_ms) > CRASH_WINDOW_MS {
            *self = Self {
                window_began_ms: now_ms,
                ..Self::default()
            };
        }
        let is_self_inflicted = crash.watchdog_kill.is_some_and(|kill| kill.is_self_inflicted);
        let frame = match crash.current_frame {
            0 if is_self_inflicted => NO_FRAME,
            frame => frame,
        };
        if frame != 0 && frame == self.frame {
            self.in_frame += 1;
        } else {
            (self.frame, self.in_frame) = (frame, u32::from(frame != 0));
        }
        // A handler that was killed from outside is not at fault.
        self.anywhere += u32::from(!crash.was_killed());
        if self.in_frame == CRASHES_SAME_FRAME_MAX && frame != NO_FRAME {
            RestartDecision::RefuseFrame
        } else if self.in_frame >= CRASHES_SAME_FRAME_MAX || self.anywhere >= CRASHES_PER_CONNECTION_MAX {
            RestartDecision::GiveUp
        } else {
            RestartDecision::Replace
        }
    }
}

impl Crash {
    /// Whether the cause lies in the process itself: not in a kill from outside.
    pub(crate) fn is_self_inflicted(self) -> bool {
        !self.was_killed() || self.watchdog_kill.is_some_and(|kill| kill.is_self_inflicted)
    }

    fn was_killed(self) -> bool {
        self.exit.is_none_or(|exit| exit == Exit::Signal(libc::SIGKILL))
    }

    /// Whether the process was ended from outside, and not for the second time in one frame of the suspect.
    pub(crate) fn is_external_kill(self, crashes_of_suspect: u32) -> bool {
        !self.is_self_inflicted() && crashes_of_suspect < 2
    }
}

/// Which connections share a handler again after the handler of all of `connections` has died: a fault should soon
/// strike only the connection that it belongs to.
///
/// - Killed from outside: all stay together, unless it was in a frame of a suspect in which another handler has died.
/// - In a frame of a suspect: the suspect alone.
/// - Without a suspect: two halves. The connection at fault is alone after a few crashes.
pub(crate) fn regroup(
    connections: Vec<u32>,
    suspect: Option<u32>,
    crash: Crash,
    crashes_of_suspect: u32,
) -> Vec<Vec<u32>> {
    if connections.len() < 2 || crash.is_external_kill(crashes_of_suspect) {
        return Vec::from_iter((!connections.is_empty()).then_some(connections));
    }
    let (one, other): (Vec<_>, Vec<_>) = match suspect {
        Some(suspect) => connections.into_iter().partition(|index| *index == suspect),
        None => {
            let mut first = connections;
            let second = first.split_off(first.len() / 2);
            (first, second)
        }
    };
    [one, other]
        .into_iter()
        .filter(|group| !group.is_empty())
        .collect()
}

/// How many processes died recently while they ran a room's game.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoomCrashHistory {
    /// When the present window began, in milliseconds of the monotonic clock.
    pub(crate) window_began_ms: u64,
    /// The crashes in it.
    pub(crate) count: u32,
}

impl RoomCrashHistory {
    /// Enters the crash of a process that had run the game's code for `ran_for_ms`. [`RestartDecision::GiveUp`]: the
    /// match is to be abandoned, or not to be shown any more.
    pub(crate) fn enter(&mut self, now_ms: u64, ran_for_ms: u64) -> RestartDecision {
        // Time for which the game kept the process does not count towards the window.
        self.window_began_ms = self.window_began_ms.saturating_add(ran_for_ms).min(now_ms);
        if self.count == 0 || now_ms - self.window_began_ms > CRASH_WINDOW_MS {
            (self.window_began_ms, self.count) = (now_ms, 0);
        }
        self.count += 1;
        match self.count >= CRASHES_SAME_ROOM_MAX {
            true => RestartDecision::GiveUp,
            false => RestartDecision::Replace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: Option<Exit> = Some(Exit::Signal(libc::SIGSEGV));
    const KILL: Option<Exit> = Some(Exit::Signal(libc::SIGKILL));

    fn crash(current_frame: u64, exit: Option<Exit>) -> Crash {
        Crash {
            current_frame,
            exit,
            watchdog_kill: None,
            shown_room: None,
        }
    }

    fn hung(current_frame: u64, is_self_inflicted: bool, hung_ms: u64) -> Crash {
        Crash {
            watchdog_kill: Some(WatchdogKill {
                is_self_inflicted,
                hung_ms,
            }),
            ..crash(current_frame, KILL)
        }
    }

    #[test]
    fn clients_stay_together_when_their_handler_is_killed_from_outside() {
        let all = vec![4, 5, 6];
        for crash in [crash(0, KILL), crash(0, None), hung(0, false, 10), crash(9, KILL)] {
            assert_eq!(regroup(all.clone(), None, crash, 0), std::slice::from_ref(&all));
        }
        assert_eq!(regroup(vec![], None, crash(0, KILL), 0), Vec::<Vec<u32>>::new());
    }

    #[test]
    fn a_suspect_is_served_alone() {
        let alone = [vec![5], vec![4, 6]];
        for crash in [crash(9, CRASH), hung(9, true, 10)] {
            assert_eq!(regroup(vec![4, 5, 6], Some(5), crash, 1), alone);
        }
        let killed = crash(9, KILL);
        assert_eq!(regroup(vec![4, 5, 6], Some(5), killed, 1), [vec![4, 5, 6]]);
        assert_eq!(
            regroup(vec![4, 5, 6], Some(5), killed, 2),
            alone,
            "twice in one frame"
        );
    }

    #[test]
    fn without_a_suspect_halving_isolates_the_connection_at_fault() {
        let mut group: Vec<u32> = (0..256).collect();
        for _ in 0..8 {
            let groups = regroup(group, None, crash(0, CRASH), 0);
            assert_eq!(groups.len(), 2);
            group = groups
                .into_iter()
                .find(|group| group.contains(&77))
                .expect("it is somewhere");
        }
        assert_eq!(group, [77]);
        assert_eq!(regroup(group, None, crash(0, CRASH), 0), [[77]]);
    }

    #[test]
    fn the_third_crash_in_a_frame_refuses_it_and_the_fourth_gives_the_connection_up() {
        let mut history = CrashHistory::default();
        let decisions: Vec<_> = (1..=4).map(|time| history.enter(time, crash(7, CRASH))).collect();
        assert_eq!(
            decisions,
            [
                RestartDecision::Replace,
                RestartDecision::Replace,
                RestartDecision::RefuseFrame,
                RestartDecision::GiveUp
            ]
        );
    }

    #[test]
    fn crashes_in_different_frames_or_at_long_intervals_are_forgiven() {
        let mut history = CrashHistory::default();
        for (time, frame) in (0..9).zip([7, 8, 7, 8, 9, 7, 8, 9, 7]) {
            assert_eq!(history.enter(time, crash(frame, CRASH)), RestartDecision::Replace);
        }
        for time in 1..20 {
            assert_eq!(
                history.enter(time * (CRASH_WINDOW_MS + 1), crash(7, CRASH)),
                RestartDecision::Replace
            );
        }
    }

    #[test]
    fn a_frame_in_which_every_handler_hangs_is_refused_however_long_each_hangs() {
        for is_self_inflicted in [true, false] {
            let mut history = CrashHistory::default();
            let hour_ms = 3_600_000;
            let decisions =
                [1, 2, 3].map(|hour| history.enter(hour * hour_ms, hung(7, is_self_inflicted, hour_ms - 10)));
            assert_eq!(
                decisions,
                [
                    RestartDecision::Replace,
                    RestartDecision::Replace,
                    RestartDecision::RefuseFrame
                ]
            );
        }
    }

    #[test]
    fn a_room_that_kills_three_tickers_is_given_up_however_long_it_keeps_each() {
        for ran_for_ms in [0, 10, 1_000_000] {
            let mut history = RoomCrashHistory::default();
            let decisions = [1, 2, 3].map(|nth| history.enter(nth * (ran_for_ms + 100), ran_for_ms));
            assert_eq!(
                decisions,
                [
                    RestartDecision::Replace,
                    RestartDecision::Replace,
                    RestartDecision::GiveUp
                ]
            );
        }
        let mut history = RoomCrashHistory::default();
        for nth in 1..100 {
            assert_eq!(
                history.enter(nth * (CRASH_WINDOW_MS + 1), 0),
                RestartDecision::Replace
            );
        }
    }

    #[test]
    fn a_connection_whose_handlers_loop_outside_frames_is_given_up() {
        let mut history = CrashHistory::default();
        let decisions = [2000, 4000, 6000].map(|now| history.enter(now, hung(0, true, 1900)));
        assert_eq!(
            decisions,
            [
                RestartDecision::Replace,
                RestartDecision::Replace,
                RestartDecision::GiveUp
            ]
        );
    }

    #[test]
    fn handlers_that_are_killed_or_stopped_between_frames_are_always_replaced() {
        let mut history = CrashHistory::default();
        for time in 0..1000 {
            assert_eq!(history.enter(time, crash(0, KILL)), RestartDecision::Replace);
            assert_eq!(history.enter(time, hung(0, false, 1)), RestartDecision::Replace);
        }
    }

    #[test]
    fn a_connection_whose_handlers_crash_outside_frames_is_given_up_at_last() {
        let mut history = CrashHistory::default();
        let decisions: Vec<_> = (0..CRASHES_PER_CONNECTION_MAX)
            .map(|time| history.enter(time.into(), crash(0, CRASH)))
            .collect();
        assert_eq!(decisions.last(), Some(&RestartDecision::GiveUp));
    }
}
