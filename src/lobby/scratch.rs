//! Large buffers that are used again and again. On the stack they would have to be cleared for every message, and in each of
//! thousands of processes they would turn pages that are never needed into memory.

use std::cell::RefCell;

use crate::limits::{FRAME_TOTAL_BYTES_MAX, GAME_STATE_BYTES_MAX};

thread_local! {
    static FRAME: RefCell<[u8; FRAME_TOTAL_BYTES_MAX]> = const { RefCell::new([0; FRAME_TOTAL_BYTES_MAX]) };
    static STATE: RefCell<[u8; GAME_STATE_BYTES_MAX]> = const { RefCell::new([0; GAME_STATE_BYTES_MAX]) };
}

/// Lends space for one frame, with anything in it.
///
/// # Panics
///
/// If it is lent already: a mistake of the caller's.
pub(super) fn with_frame<R>(use_it: impl FnOnce(&mut [u8; FRAME_TOTAL_BYTES_MAX]) -> R) -> R {
    FRAME.with_borrow_mut(use_it)
}

/// Lends space for the state that a game is about to have, with anything in it.
///
/// # Panics
///
/// If it is lent already: a mistake of the caller's.
pub(super) fn with_state<R>(use_it: impl FnOnce(&mut [u8; GAME_STATE_BYTES_MAX]) -> R) -> R {
    STATE.with_borrow_mut(use_it)
}
