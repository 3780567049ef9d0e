//! Large buffers that are used again and again. On the stack they would have to be cleared for every message, and in each of
//! thousands of processes they would turn pages that are never needed into memory.

use std::cell::RefCell;

use crate::limits::{FRAME_TOTAL_BYTES_MAX, GAME_STATE_BYTES_MAX};

// Boxed: what else is a thread's own would lie before and after them, on pages of its own.
thread_local! {
    static FRAME: RefCell<Box<[u8; FRAME_TOTAL_BYTES_MAX]>> = RefCell::new(zeroed());
    static STATE: RefCell<Box<[u8; GAME_STATE_BYTES_MAX]>> = RefCell::new(zeroed());
}

/// Made where it lies.
fn zeroed<const BYTES: usize>() -> Box<[u8; BYTES]> {
    let bytes = vec![0; BYTES].into_boxed_slice();
    bytes.try_into().expect("it is as long as it is")
}

/// Makes the buffers. What a process makes before it forks is there for its children: each copies only the pages that it writes to.
pub(crate) fn prepare() {
    with_frame(|_| ());
    with_state(|_| ());
}

/// Lends space for one frame, with anything in it.
///
/// # Panics
///
/// If it is lent already: a mistake of the caller's.
pub(crate) fn with_frame<R>(use_it: impl FnOnce(&mut [u8; FRAME_TOTAL_BYTES_MAX]) -> R) -> R {
    FRAME.with_borrow_mut(|frame| use_it(frame))
}

/// Lends space for the state that a game is about to have, with anything in it.
///
/// # Panics
///
/// If it is lent already: a mistake of the caller's.
pub(crate) fn with_state<R>(use_it: impl FnOnce(&mut [u8; GAME_STATE_BYTES_MAX]) -> R) -> R {
    STATE.with_borrow_mut(|state| use_it(state))
}
