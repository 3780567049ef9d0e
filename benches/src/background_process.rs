//! A second process that does the same work in a loop, beside the process that is measured.

use std::sync::atomic::{AtomicU64, Ordering};

use shmem::sys::memory::Mapping;
use shmem::sys::process::{Exit, ProcessId, fork};

/// A running background process. Dropping it stops the loop and waits for the process to exit.
pub struct BackgroundProcess {
    process: ProcessId,
    stop: &'static AtomicU64,
    done: &'static AtomicU64,
}

/// The stop flag and the number of iterations, in memory that both processes share.
type SharedCounters = [AtomicU64; 2];

impl BackgroundProcess {
    /// Forks the process. There `prepare` returns the function that the process calls in a loop.
    ///
    /// # Panics
    /// If the fork fails.
    pub fn start<Work: FnMut()>(prepare: impl FnOnce() -> Work) -> Self {
        let counters: &'static SharedCounters =
            Mapping::create_record("background").expect("a page");
        let [stop, done] = counters;
        let process = fork(
            || eprintln!("the second process has panicked"),
            |_| {
                let mut work = prepare();
                while stop.load(Ordering::Relaxed) == 0 {
                    work();
                    done.fetch_add(1, Ordering::Relaxed);
                }
                0
            },
        )
        .expect("a second process");
        let background = Self { process, stop, done };
        // The measurement begins only when the second process runs.
        while background.done() == 0 {
            std::thread::yield_now();
        }
        background
    }

    /// Number of completed iterations.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for BackgroundProcess {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Relaxed);
        let exit = self.process.wait();
        if !matches!(exit, Ok(Exit::Code(0))) {
            eprintln!("the second process failed: {exit:?}");
        }
    }
}
