//! Where what a process allocates lies: together, so that a forked child touches, and so copies, few pages of its parent's.
//!
//! What a child allocates comes from holes first, wherever its parent has freed something, and every hole is on another page. In a process
//! that has read its configuration that made 13 pages for the few KiB that a handler needs.

/// Uses up the holes in this process's heap, for good, so that whatever is allocated from now on lies beyond them. To be called before
/// children are forked. It costs address space; the pages are there already, and no child touches them. Returns the bytes used up. (It asks for
/// `mallinfo2`, which glibc has since 2.33, of 2021.)
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn use_up_heap_holes() -> usize {
    /// Larger ones are one mapping each at first, and leave no hole.
    const LARGEST: usize = 128 << 10;
    /// Sizes differ by this much.
    const STEP: usize = 16;
    /// Up to here freed pieces are set aside by size, up to seven of each, and count as in use.
    const SET_ASIDE_MAX: usize = 1032;
    const SET_ASIDE_OF_EACH: usize = 7;
    // SAFETY: it only reads the allocator's state, under the allocator's lock.
    let state = unsafe { libc::mallinfo2() };
    // SAFETY: an increment of 0 changes nothing.
    let end = unsafe { libc::sbrk(0) }.addr();
    // What is left of the heap at its end is no hole.
    let Some(first_beyond) = end.checked_sub(state.keepcost) else {
        return 0;
    };
    let set_aside_max = SET_ASIDE_OF_EACH * (SET_ASIDE_MAX / STEP) * SET_ASIDE_MAX;
    let holes_max = state.fordblks.saturating_sub(state.keepcost) + set_aside_max;
    let mut used_up = 0;
    for size in (8..LARGEST).rev().step_by(STEP) {
        while used_up < holes_max {
            // SAFETY: it may be called with any size.
            let piece = unsafe { libc::malloc(size) };
            if piece.addr() < first_beyond && !piece.is_null() {
                used_up += size;
                continue;
            }
            // A small one would only be set aside.
            if size > SET_ASIDE_MAX {
                // SAFETY: it was allocated above, and nothing refers to it.
                unsafe { libc::free(piece) };
            }
            break;
        }
    }
    used_up
}

/// Does nothing: this is about the way in which glibc's allocator looks for space.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn use_up_heap_holes() -> usize {
    0
}
