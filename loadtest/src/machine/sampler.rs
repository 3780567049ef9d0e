//! What the server uses over time, read by a thread of its own. Reading the memory of a thousand processes
//! takes long and uses the CPU that it measures, so memory is read only as often as reading takes a small
//! share of the time.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::process_tree;

const INTERVAL: Duration = Duration::from_secs(1);
/// Reading memory takes at most 1 / MEMORY_READ_DIVISOR of the time.
const MEMORY_READ_DIVISOR: u32 = 40;
/// A longer run is sampled less often.
const SAMPLES_MAX: u32 = 1200;

/// What the server used at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub at: Instant,
    pub processes: u64,
    /// CPU use since the sample before; 100 is one core.
    pub cpu_percent: Option<f64>,
    /// Read less often than the other fields.
    pub memory_kib: Option<u64>,
}

/// A running sampler.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<io::Result<Vec<Sample>>>,
}

impl Sampler {
    /// Samples the tree of processes below `root` from now on. `duration` is the expected duration.
    pub(crate) fn start(root: u32, duration: Duration) -> Self {
        Self::every(INTERVAL.max(duration / SAMPLES_MAX), root)
    }

    fn every(interval: Duration, root: u32) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let (mut samples, mut before, mut memory_due) = (Vec::new(), None, Instant::now());
            loop {
                let began = Instant::now();
                let used = process_tree::cpu(root)?;
                let cpu_percent = before.map(|(seconds, at): (f64, Instant)| {
                    (used.cpu_seconds - seconds) / (began - at).as_secs_f64() * 100.0
                });
                before = Some((used.cpu_seconds, began));
                let mut memory_kib = None;
                if began >= memory_due {
                    memory_kib = Some(process_tree::tree(root)?.memory_kib);
                    memory_due = Instant::now() + interval.max(began.elapsed() * MEMORY_READ_DIVISOR);
                }
                samples.push(Sample {
                    at: began,
                    processes: used.processes,
                    cpu_percent,
                    memory_kib,
                });
                match stopped.recv_timeout(interval.saturating_sub(began.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(samples),
                }
            }
        });
        Self { stop, thread }
    }

    /// Stops, and returns the samples.
    ///
    /// # Errors
    /// When the server's root process is gone.
    pub(crate) fn end(self) -> io::Result<Vec<Sample>> {
        drop(self.stop);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_has_memory_and_the_second_has_cpu_use() {
        let samples_within = |duration| {
            let sampler = Sampler::every(Duration::from_millis(1), std::process::id());
            std::thread::sleep(duration);
            sampler.end().expect("this process is there")
        };
        // On a busy machine the sampler's thread may get no core for long.
        let durations = [100, 1_000, 10_000, 60_000].map(Duration::from_millis);
        let mut attempts = durations.into_iter().map(samples_within);
        let samples = attempts
            .find(|samples| samples.len() >= 2)
            .expect("more than one sample in a minute");
        assert!(samples[0].memory_kib.is_some_and(|kib| kib > 100) && samples[0].cpu_percent.is_none());
        assert!(samples[1].cpu_percent.is_some() && samples[1].processes >= 1);
    }

    #[test]
    fn the_sampler_ends_with_an_error_if_the_server_is_gone() {
        let sampler = Sampler::start(u32::MAX, Duration::from_secs(1));
        assert!(sampler.end().is_err());
    }
}
