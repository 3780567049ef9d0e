//! A second process that does the same work all the time, beside the one that is measured.

use std::sync::atomic::{AtomicU64, Ordering};

use shmem::sys::memory::Mapping;
use shmem::sys::process::{Exit, ProcessId, fork};

/// A running rival. Dropping it lets it come to the end of what it is doing, and waits for that.
pub struct Rival {
    process: ProcessId,
    stop: &'static AtomicU64,
    done: &'static AtomicU64,
}

/// In memory that both processes have.
type Signals = [AtomicU64; 2];

impl Rival {
    /// Forks one. `prepare` makes, in the new process, what is then done over and over again.
    ///
    /// # Panics
    /// When there can be no second process.
    pub fn start<Work: FnMut()>(prepare: impl FnOnce() -> Work) -> Self {
        let signals: &'static Signals = Mapping::create("rival", 4096).expect("a page").record(0);
        let [stop, done] = signals;
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
        let rival = Self { process, stop, done };
        // What is measured is to have company from the beginning.
        while rival.done() == 0 {
            std::thread::yield_now();
        }
        rival
    }

    /// How often it has done its work.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::Relaxed);
        let exit = self.process.wait();
        if !matches!(exit, Ok(Exit::Code(0))) {
            eprintln!("the second process did not end in order: {exit:?}");
        }
    }
}
