//! Blame: whether a connection whose handler has died gets another. A pure decision from the deaths so far.
//!
//! Being killed is nobody's fault. But a frame that kills whoever handles it would do so for ever, and so would a fault that strikes
//! every handler of a connection when it comes up.

use crate::limits::{DEATHS_ANYWHERE_MAX, DEATHS_SAME_FRAME_MAX, DEATHS_SAME_ROOM_MAX, DEATHS_WINDOW_MS};
use shmem::sys::process::Exit;

/// How a connection's handlers have died lately.
#[derive(Debug, Default)]
pub(crate) struct CrashHistory {
    window_began_ms: u64,
    anywhere: u32,
    frame: u64,
    in_frame: u32,
}

/// How a handler has died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The frame that it was handling; 0: none.
    pub(crate) current_frame: u64,
    /// Not known of a process that is not one's own.
    pub(crate) exit: Option<Exit>,
    /// The watchdog has killed it.
    pub(crate) stuck: Option<WatchdogKill>,
}

/// What the watchdog has killed a handler for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WatchdogKill {
    /// It did something, and came to no end with it. (Else it was stopped from outside, which is nobody's fault.)
    pub(crate) by_itself: bool,
    /// How long it had been at it, in milliseconds.
    pub(crate) for_ms: u64,
}

/// Whether a connection whose handler has died is worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartDecision {
    /// It is.
    Replace,
    /// It is, but the frame that this one died in is to be refused, and the connection closed: all who handled it have died.
    RefuseFrame,
    /// Its handlers die again and again: it is not.
    GiveUp,
}

/// In place of a frame: the handler did not come round, and no frame was its reason.
const NO_FRAME: u64 = u64::MAX;

impl CrashHistory {
    /// How many have died in the frame in which the last one did, or without a frame, one after another.
    pub(crate) fn in_same_frame(&self) -> u32 {
        self.in_frame
    }

    /// Enters a death.
    pub(crate) fn enter(&mut self, now_ms: u64, crash: Crash) -> RestartDecision {
        if let Some(stuck) = crash.stuck {
            // Time in which it did not die, because it was stuck, speaks for nobody.
            self.window_began_ms = self.window_began_ms.saturating_add(stuck.for_ms).min(now_ms);
        }
        if now_ms.saturating_sub(self.window_began_ms) > DEATHS_WINDOW_MS {
            *self = Self {
                window_began_ms: now_ms,
                ..Self::default()
            };
        }
        let stuck_by_itself = crash.stuck.is_some_and(|stuck| stuck.by_itself);
        let frame = match crash.current_frame {
            0 if stuck_by_itself => NO_FRAME,
            frame => frame,
        };
        if frame != 0 && frame == self.frame {
            self.in_frame += 1;
        } else {
            (self.frame, self.in_frame) = (frame, u32::from(frame != 0));
        }
        // Who is killed by somebody else has done nothing wrong.
        let killed = crash.exit.is_none_or(|exit| exit == Exit::Signal(libc::SIGKILL));
        self.anywhere += u32::from(!killed);
        if self.in_frame == DEATHS_SAME_FRAME_MAX && frame != NO_FRAME {
            RestartDecision::RefuseFrame
        } else if self.in_frame >= DEATHS_SAME_FRAME_MAX || self.anywhere >= DEATHS_ANYWHERE_MAX {
            RestartDecision::GiveUp
        } else {
            RestartDecision::Replace
        }
    }
}

impl Crash {
    /// Whether somebody or something outside has ended the process, and not twice in one frame of a suspect's.
    pub(crate) fn is_external_kill(self, crashes_of_suspect: u32) -> bool {
        let killed = self.exit.is_none_or(|exit| exit == Exit::Signal(libc::SIGKILL));
        killed && !self.stuck.is_some_and(|stuck| stuck.by_itself) && crashes_of_suspect < 2
    }
}

/// Who is to be served by one process again, after the handler of all of `connections` has died: a fault must not go on to cost those
/// who have nothing to do with it but their place.
///
/// - Killed from outside: all together, unless it was in the frame of a suspect before whom others have died so.
/// - In a suspect's frame: the suspect alone.
/// - Without a suspect: each half of them. Whoever it is, is alone after a few times.
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

/// How many tickers a room's game has ended lately.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoomCrashHistory {
    /// When the present window began, in milliseconds of the monotonic clock.
    pub(crate) window_began_ms: u64,
    /// The deaths within it.
    pub(crate) count: u32,
}

impl RoomCrashHistory {
    /// Enters the death of a ticker that had run the game's code for `ran_for_ms`. [`RestartDecision::GiveUp`]: the match is to be abandoned.
    pub(crate) fn enter(&mut self, now_ms: u64, ran_for_ms: u64) -> RestartDecision {
        // However long the game keeps a ticker, that does not speak for it.
        self.window_began_ms = self.window_began_ms.saturating_add(ran_for_ms).min(now_ms);
        if self.count == 0 || now_ms - self.window_began_ms > DEATHS_WINDOW_MS {
            (self.window_began_ms, self.count) = (now_ms, 0);
        }
        self.count += 1;
        match self.count >= DEATHS_SAME_ROOM_MAX {
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
            stuck: None,
        }
    }

    fn stuck(current_frame: u64, by_itself: bool, for_ms: u64) -> Crash {
        Crash {
            stuck: Some(WatchdogKill { by_itself, for_ms }),
            ..crash(current_frame, KILL)
        }
    }

    #[test]
    fn who_is_killed_from_outside_leaves_its_clients_together() {
        let all = vec![4, 5, 6];
        for crash in [
            crash(0, KILL),
            crash(0, None),
            stuck(0, false, 10),
            crash(9, KILL),
        ] {
            assert_eq!(regroup(all.clone(), None, crash, 0), std::slice::from_ref(&all));
        }
        assert_eq!(regroup(vec![], None, crash(0, KILL), 0), Vec::<Vec<u32>>::new());
    }

    #[test]
    fn a_suspect_is_served_alone() {
        let alone = [vec![5], vec![4, 6]];
        for crash in [crash(9, CRASH), stuck(9, true, 10)] {
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
    fn a_fault_of_nobody_s_is_alone_after_as_many_deaths_as_halving_takes() {
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
    fn after_three_deaths_in_the_same_frame_it_is_refused_and_after_a_fourth_all_is_given_up() {
        let mut deaths = CrashHistory::default();
        let decisions: Vec<_> = (1..=4).map(|time| deaths.enter(time, crash(7, CRASH))).collect();
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
    fn deaths_in_different_frames_or_at_long_intervals_are_forgiven() {
        let mut deaths = CrashHistory::default();
        for (time, frame) in (0..9).zip([7, 8, 7, 8, 9, 7, 8, 9, 7]) {
            assert_eq!(deaths.enter(time, crash(frame, CRASH)), RestartDecision::Replace);
        }
        for time in 1..20 {
            assert_eq!(
                deaths.enter(time * (DEATHS_WINDOW_MS + 1), crash(7, CRASH)),
                RestartDecision::Replace
            );
        }
    }

    #[test]
    fn a_frame_in_which_all_get_stuck_is_refused_however_long_each_takes() {
        for by_itself in [true, false] {
            let mut deaths = CrashHistory::default();
            let hour_ms = 3_600_000;
            let decisions =
                [1, 2, 3].map(|hour| deaths.enter(hour * hour_ms, stuck(7, by_itself, hour_ms - 10)));
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
    fn a_room_that_ends_three_tickers_is_given_up_however_long_it_keeps_each() {
        for ran_for_ms in [0, 10, 1_000_000] {
            let mut deaths = RoomCrashHistory::default();
            let decisions = [1, 2, 3].map(|nth| deaths.enter(nth * (ran_for_ms + 100), ran_for_ms));
            assert_eq!(
                decisions,
                [
                    RestartDecision::Replace,
                    RestartDecision::Replace,
                    RestartDecision::GiveUp
                ]
            );
        }
        let mut deaths = RoomCrashHistory::default();
        for nth in 1..100 {
            assert_eq!(
                deaths.enter(nth * (DEATHS_WINDOW_MS + 1), 0),
                RestartDecision::Replace
            );
        }
    }

    #[test]
    fn a_connection_whose_handlers_loop_without_a_frame_is_given_up() {
        let mut deaths = CrashHistory::default();
        let decisions = [2000, 4000, 6000].map(|now| deaths.enter(now, stuck(0, true, 1900)));
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
    fn being_killed_or_stopped_between_frames_is_never_blamed() {
        let mut deaths = CrashHistory::default();
        for time in 0..1000 {
            assert_eq!(deaths.enter(time, crash(0, KILL)), RestartDecision::Replace);
            assert_eq!(deaths.enter(time, stuck(0, false, 1)), RestartDecision::Replace);
        }
    }

    #[test]
    fn crashing_outside_frames_is_given_up_at_last() {
        let mut deaths = CrashHistory::default();
        let decisions: Vec<_> = (0..DEATHS_ANYWHERE_MAX)
            .map(|time| deaths.enter(time.into(), crash(0, CRASH)))
            .collect();
        assert_eq!(decisions.last(), Some(&RestartDecision::GiveUp));
    }
}
