//! CPU time of the calling thread, and how long it had to wait for a core.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of the calling thread, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}

/// Seconds in which the calling thread was runnable and had no core; `None` if the kernel does not count
/// that.
pub(crate) fn wait_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let seconds = nanoseconds as f64 / 1e9;
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_cpu_time() {
        let before = cpu_seconds();
        while cpu_seconds() < before + 0.01 {}
        assert!(wait_seconds().is_none_or(|seconds| seconds >= 0.0));
    }
}
