//! How long a handler waits, and for what: the deadlines of a connection, decided by its phase and some times alone.

use crate::limits::{
    CLOSING_TIMEOUT_MS, DOORBELL_RETRY_MS, HANDLER_WAIT_TIMEOUT_MS, LOBBY_GUEST_RECHECK_MS,
    READER_WAIT_POLL_MS, RESUME_RETRY_MS, WRITE_STALL_TIMEOUT_MS,
};
use crate::state::connections::Phase;

/// What the deadlines depend on besides the phase. All times are in milliseconds of the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The present time.
    pub(crate) now_ms: u64,
    /// When the connection was accepted.
    pub(crate) accepted_at_ms: u64,
    /// When the bytes of the handshake that have arrived may get another meaning; `None`: none have arrived.
    pub(crate) enter_decided_at_ms: Option<u64>,
    /// When the client is to be spoken to; `None`: it was, or has spoken first.
    pub(crate) banner_ms: Option<u64>,
    /// When the client's last whole frame arrived.
    pub(crate) last_frame_at_ms: u64,
    /// When the client last took bytes; `None` if nothing is left to send and no confirm is missing.
    pub(crate) not_taking_since_ms: Option<u64>,
    /// When the connection began to close.
    pub(crate) closing_since_ms: u64,
    /// The client's next frame waits for other readers of its room, and no doorbell says when they have read.
    pub(crate) waits_for_readers: bool,
    /// No doorbell wakes the handler when something happens in its room.
    pub(crate) doorbell_is_unavailable: bool,
    /// A player in text mode that is in no room: how long it may be silent depends on how many places are free.
    pub(crate) is_lobby_guest: bool,
    /// The player is not run here: it waits for a handler.
    pub(crate) is_at_reception: bool,
    /// How long the handshake may take, in milliseconds.
    pub(crate) handshake_timeout_ms: u64,
    /// How long a client may be silent, in milliseconds.
    pub(crate) heartbeat_timeout_ms: u64,
}

/// A time at which something must be done although nothing has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// When, in milliseconds of the monotonic clock.
    pub(crate) at_ms: u64,
    /// What has run out at that time.
    pub(crate) kind: TimeoutKind,
}

/// What has run out when a deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeoutKind {
    /// The client has not completed the handshake in time.
    Handshake,
    /// There was no process for the player in time.
    NoHandler,
    /// The client has sent nothing for too long.
    Silent,
    /// The client has taken nothing of what is to be sent for too long, or has confirmed nothing of what was sent.
    WriteStall,
    /// The client has not taken the rest in time while the connection closes.
    Closing,
    /// It is time to look for an event that is not announced. Such a deadline is never past in the turn that computes
    /// it: it lies ahead of the turn's beginning.
    Recheck,
}

/// The first deadline of a connection; `None` if it has ended.
pub(crate) fn next_deadline(phase: Phase, times: &Times) -> Option<Deadline> {
    let deadline = |at_ms: u64, kind| Some(Deadline { at_ms, kind });
    match phase {
        Phase::HANDSHAKE => {
            let timeout = deadline(
                times.accepted_at_ms + times.handshake_timeout_ms,
                TimeoutKind::Handshake,
            );
            let looks = [times.enter_decided_at_ms, times.banner_ms];
            let looks = looks
                .into_iter()
                .flatten()
                .filter(|at_ms| *at_ms > times.now_ms)
                .filter_map(|at_ms| deadline(at_ms, TimeoutKind::Recheck));
            looks.chain(timeout).min_by_key(|deadline| deadline.at_ms)
        }
        Phase::RESUMING => deadline(times.now_ms + RESUME_RETRY_MS, TimeoutKind::Recheck),
        Phase::OPEN if times.is_at_reception => deadline(
            times.last_frame_at_ms + HANDLER_WAIT_TIMEOUT_MS,
            TimeoutKind::NoHandler,
        ),
        Phase::OPEN => {
            let silent = deadline(
                times.last_frame_at_ms + times.heartbeat_timeout_ms,
                TimeoutKind::Silent,
            );
            let not_reading = times
                .not_taking_since_ms
                .and_then(|since_ms| deadline(since_ms + WRITE_STALL_TIMEOUT_MS, TimeoutKind::WriteStall));
            let pause_ms = match (times.waits_for_readers, times.doorbell_is_unavailable) {
                (true, _) => Some(READER_WAIT_POLL_MS),
                (false, true) => Some(DOORBELL_RETRY_MS),
                (false, false) => None,
            };
            let look_again =
                pause_ms.and_then(|pause_ms| deadline(times.now_ms + pause_ms, TimeoutKind::Recheck));
            let free_places = times
                .is_lobby_guest
                .then_some(times.now_ms + LOBBY_GUEST_RECHECK_MS)
                .and_then(|at_ms| deadline(at_ms, TimeoutKind::Recheck));
            let all = [silent, not_reading, look_again, free_places];
            all.into_iter().flatten().min_by_key(|deadline| deadline.at_ms)
        }
        Phase::CLOSING => deadline(times.closing_since_ms + CLOSING_TIMEOUT_MS, TimeoutKind::Closing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_000_000;

    /// Of a connection without problems.
    fn times() -> Times {
        Times {
            now_ms: NOW_MS,
            accepted_at_ms: NOW_MS - 5000,
            enter_decided_at_ms: None,
            banner_ms: None,
            last_frame_at_ms: NOW_MS - 400,
            not_taking_since_ms: None,
            closing_since_ms: NOW_MS - 30,
            waits_for_readers: false,
            doorbell_is_unavailable: false,
            is_lobby_guest: false,
            is_at_reception: false,
            handshake_timeout_ms: 10_000,
            heartbeat_timeout_ms: 20_000,
        }
    }

    fn expect(phase: Phase, times: &Times, at_ms: u64, kind: TimeoutKind) {
        assert_eq!(next_deadline(phase, times), Some(Deadline { at_ms, kind }));
    }

    #[test]
    fn the_handshake_is_timed_from_the_accept_whatever_the_client_sends() {
        let times = Times {
            doorbell_is_unavailable: true,
            not_taking_since_ms: Some(0),
            ..times()
        };
        expect(Phase::HANDSHAKE, &times, NOW_MS + 5000, TimeoutKind::Handshake);
    }

    #[test]
    fn a_handshake_of_enter_alone_is_looked_at_again_once() {
        let times = Times {
            enter_decided_at_ms: Some(NOW_MS + 200),
            ..times()
        };
        expect(Phase::HANDSHAKE, &times, NOW_MS + 200, TimeoutKind::Recheck);
        let later = Times {
            enter_decided_at_ms: Some(NOW_MS),
            ..times
        };
        expect(Phase::HANDSHAKE, &later, NOW_MS + 5000, TimeoutKind::Handshake);
    }

    #[test]
    fn a_client_that_is_to_be_spoken_to_is_looked_at_again() {
        let times = Times {
            banner_ms: Some(NOW_MS + 300),
            ..times()
        };
        expect(Phase::HANDSHAKE, &times, NOW_MS + 300, TimeoutKind::Recheck);
    }

    #[test]
    fn a_connection_that_waits_for_its_session_looks_again_soon() {
        expect(
            Phase::RESUMING,
            &times(),
            NOW_MS + RESUME_RETRY_MS,
            TimeoutKind::Recheck,
        );
    }

    #[test]
    fn a_player_may_be_silent_for_the_heartbeat_timeout() {
        expect(Phase::OPEN, &times(), NOW_MS + 19_600, TimeoutKind::Silent);
    }

    #[test]
    fn a_player_in_the_reception_waits_for_a_handler_whatever_it_does() {
        let times = Times {
            is_at_reception: true,
            not_taking_since_ms: Some(0),
            heartbeat_timeout_ms: 300,
            ..times()
        };
        let by_ms = NOW_MS - 400 + HANDLER_WAIT_TIMEOUT_MS;
        expect(Phase::OPEN, &times, by_ms, TimeoutKind::NoHandler);
    }

    #[test]
    fn the_earliest_deadline_decides() {
        let stalled_first = Times {
            heartbeat_timeout_ms: WRITE_STALL_TIMEOUT_MS,
            not_taking_since_ms: Some(NOW_MS - 401),
            ..times()
        };
        let stalled_at_ms = NOW_MS - 401 + WRITE_STALL_TIMEOUT_MS;
        expect(
            Phase::OPEN,
            &stalled_first,
            stalled_at_ms,
            TimeoutKind::WriteStall,
        );
        let silent_first = Times {
            not_taking_since_ms: Some(NOW_MS - 399),
            ..stalled_first
        };
        let silent_at_ms = NOW_MS - 400 + WRITE_STALL_TIMEOUT_MS;
        expect(Phase::OPEN, &silent_first, silent_at_ms, TimeoutKind::Silent);
    }

    #[test]
    fn without_a_doorbell_the_handler_looks_again_soon_but_misses_no_earlier_deadline() {
        let deaf = Times {
            doorbell_is_unavailable: true,
            ..times()
        };
        let soon_ms = NOW_MS + DOORBELL_RETRY_MS;
        expect(Phase::OPEN, &deaf, soon_ms, TimeoutKind::Recheck);
        let and_silent = Times {
            heartbeat_timeout_ms: 300,
            ..deaf
        };
        expect(Phase::OPEN, &and_silent, NOW_MS - 100, TimeoutKind::Silent);
    }

    #[test]
    fn a_silent_guest_in_the_lobby_looks_again_whether_places_are_free() {
        let guest = Times {
            is_lobby_guest: true,
            heartbeat_timeout_ms: 1_800_000,
            ..times()
        };
        let again_ms = NOW_MS + LOBBY_GUEST_RECHECK_MS;
        expect(Phase::OPEN, &guest, again_ms, TimeoutKind::Recheck);
    }

    #[test]
    fn a_writer_that_waits_for_readers_looks_again_at_once() {
        let held = Times {
            waits_for_readers: true,
            doorbell_is_unavailable: true,
            ..times()
        };
        expect(
            Phase::OPEN,
            &held,
            NOW_MS + READER_WAIT_POLL_MS,
            TimeoutKind::Recheck,
        );
    }

    #[test]
    fn a_closing_connection_has_no_other_deadline() {
        let times = Times {
            heartbeat_timeout_ms: 300,
            not_taking_since_ms: Some(0),
            ..times()
        };
        let closed_by_ms = NOW_MS - 30 + CLOSING_TIMEOUT_MS;
        expect(Phase::CLOSING, &times, closed_by_ms, TimeoutKind::Closing);
    }

    #[test]
    fn an_ended_connection_has_no_deadline() {
        assert_eq!(next_deadline(Phase::DONE, &times()), None);
    }
}
