//! Blame: whether a connection whose handler has died gets another. A pure decision from the deaths so far.
//!
//! Being killed is nobody's fault. But a frame that kills whoever handles it would do so for ever, and so would a fault that strikes
//! every handler of a connection when it comes up.

use crate::limits::{DEATHS_ANYWHERE_MAX, DEATHS_SAME_FRAME_MAX, DEATHS_WINDOW_MS};
use crate::sys::process::Exit;

/// How a connection's handlers have died lately.
#[derive(Debug, Default)]
pub struct Deaths {
    window_began_ms: u64,
    anywhere: u32,
    frame: u64,
    in_frame: u32,
}

/// Whether a connection whose handler has died is worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Replace,
    /// Its handlers die again and again: it is not.
    GiveUp,
}

impl Deaths {
    /// Enters a death while the frame `working_on` (0: none) was being handled; `exit` is not known of a process that is not one's own.
    pub fn enter(&mut self, now_ms: u64, working_on: u64, exit: Option<Exit>) -> Verdict {
        if now_ms.saturating_sub(self.window_began_ms) > DEATHS_WINDOW_MS {
            *self = Self {
                window_began_ms: now_ms,
                ..Self::default()
            };
        }
        if working_on != 0 && working_on == self.frame {
            self.in_frame += 1;
        } else {
            (self.frame, self.in_frame) = (working_on, u32::from(working_on != 0));
        }
        // Who is killed has done nothing wrong.
        self.anywhere += u32::from(exit.is_some_and(|exit| exit != Exit::Signal(libc::SIGKILL)));
        if self.in_frame >= DEATHS_SAME_FRAME_MAX || self.anywhere >= DEATHS_ANYWHERE_MAX {
            Verdict::GiveUp
        } else {
            Verdict::Replace
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: Option<Exit> = Some(Exit::Signal(libc::SIGSEGV));
    const KILL: Option<Exit> = Some(Exit::Signal(libc::SIGKILL));

    #[test]
    fn three_deaths_in_the_same_frame_are_enough() {
        let mut deaths = Deaths::default();
        assert_eq!(deaths.enter(1, 7, CRASH), Verdict::Replace);
        assert_eq!(deaths.enter(2, 7, CRASH), Verdict::Replace);
        assert_eq!(deaths.enter(3, 7, CRASH), Verdict::GiveUp);
    }

    #[test]
    fn deaths_in_different_frames_or_at_long_intervals_are_forgiven() {
        let mut deaths = Deaths::default();
        for (time, frame) in (0..9).zip([7, 8, 7, 8, 9, 7, 8, 9, 7]) {
            assert_eq!(deaths.enter(time, frame, CRASH), Verdict::Replace);
        }
        for time in 1..20 {
            assert_eq!(
                deaths.enter(time * (DEATHS_WINDOW_MS + 1), 7, CRASH),
                Verdict::Replace
            );
        }
    }

    #[test]
    fn being_killed_between_frames_is_never_blamed() {
        let mut deaths = Deaths::default();
        for time in 0..1000 {
            assert_eq!(deaths.enter(time, 0, KILL), Verdict::Replace);
        }
    }

    #[test]
    fn crashing_outside_frames_is_given_up_at_last() {
        let mut deaths = Deaths::default();
        let verdicts: Vec<_> = (0..DEATHS_ANYWHERE_MAX)
            .map(|time| deaths.enter(time.into(), 0, CRASH))
            .collect();
        assert_eq!(verdicts.last(), Some(&Verdict::GiveUp));
    }
}
