//! Large buffers that are reused. On the stack they would have to be cleared for every message, and in thousands of
//! processes they would occupy pages that are never needed.

use std::cell::RefCell;

use crate::limits::{FRAME_TOTAL_BYTES_MAX, GAME_STATE_BYTES_MAX};

// Boxed, so that other thread-local values do not share their pages.
thread_local! {
    static FRAME: RefCell<Box<[u8; FRAME_TOTAL_BYTES_MAX]>> = RefCell::new(zeroed());
    static STATE: RefCell<Box<[u8; GAME_STATE_BYTES_MAX]>> = RefCell::new(zeroed());
}

/// Allocated in place, not copied from the stack.
fn zeroed<const BYTES: usize>() -> Box<[u8; BYTES]> {
    let bytes = vec![0; BYTES].into_boxed_slice();
    bytes.try_into().expect("it is as long as it is")
}

/// Allocates the buffers. Buffers allocated before a fork exist in the children too; each child copies only the pages
/// that it writes to.
pub(crate) fn prepare() {
    with_frame(|_| ());
    with_state(|_| ());
}

/// Lends a buffer for one frame. Its contents are undefined.
///
/// # Panics
///
/// If it is lent already: a bug of the caller.
pub(crate) fn with_frame<R>(use_it: impl FnOnce(&mut [u8; FRAME_TOTAL_BYTES_MAX]) -> R) -> R {
    FRAME.with_borrow_mut(|frame| use_it(frame))
}

/// Lends a buffer for a game's next state. Its contents are undefined.
///
/// # Panics
///
/// If it is lent already: a bug of the caller.
pub(crate) fn with_state<R>(use_it: impl FnOnce(&mut [u8; GAME_STATE_BYTES_MAX]) -> R) -> R {
    STATE.with_borrow_mut(|state| use_it(state))
}
