//! The heap before the first fork: without holes, so that a forked child copies few of its parent's pages.
//!
//! The allocator serves a child from holes first, which are wherever its parent has freed something. Each hole may be
//! on another page, and a write to it copies that page. In a parent that has read its configuration, the few KiB that a
//! handler needs are spread over the whole heap.
//!
//! Measured with 200 idle clients, one handler each, by `smaps_rollup`: a handler has 78 KiB of private dirty memory
//! (19 of them heap) with this, and 120 KiB (56 of them heap) without.

/// Allocates the holes in this process's heap and never frees them, so that later allocations lie after them. Call it
/// before the first fork. It needs no new pages, and no child touches those that it uses. Returns the number of bytes
/// allocated.
///
/// It needs `mallinfo2`, which glibc has since version 2.33 (2021).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn use_up_heap_holes() -> usize {
    /// Larger allocations are mappings of their own at first, and leave no hole.
    const LARGEST: usize = 128 << 10;
    /// Distance of two sizes that the allocator tells apart, in bytes.
    const STEP: usize = 16;
    /// The thread cache holds freed pieces up to this size, in bytes, and counts them as in use.
    const CACHED_BYTES_MAX: usize = 1032;
    /// And this many of each size.
    const CACHED_OF_EACH_SIZE: usize = 7;
    // SAFETY: it only reads the allocator's state, under the allocator's lock.
    let state = unsafe { libc::mallinfo2() };
    // SAFETY: an increment of 0 changes nothing.
    let end = unsafe { libc::sbrk(0) }.addr();
    // The free space at the heap's end is no hole.
    let Some(first_beyond) = end.checked_sub(state.keepcost) else {
        return 0;
    };
    let cached_max = CACHED_OF_EACH_SIZE * (CACHED_BYTES_MAX / STEP) * CACHED_BYTES_MAX;
    let holes_max = state.fordblks.saturating_sub(state.keepcost) + cached_max;
    let mut used_up = 0;
    for size in (8..LARGEST).rev().step_by(STEP) {
        while used_up < holes_max {
            // SAFETY: it may be called with any size.
            let piece = unsafe { libc::malloc(size) };
            if piece.addr() < first_beyond && !piece.is_null() {
                used_up += size;
                continue;
            }
            // A small one would only go to the thread cache.
            if size > CACHED_BYTES_MAX {
                // SAFETY: `malloc` returned it, it was not freed, and nothing refers to it.
                unsafe { libc::free(piece) };
            }
            break;
        }
    }
    used_up
}

/// Does nothing: only glibc's allocator is known to search holes first.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn use_up_heap_holes() -> usize {
    0
}
