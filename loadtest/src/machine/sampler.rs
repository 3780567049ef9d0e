//! What the server uses over time, read by a thread of its own. Reading the memory of a thousand processes takes a while and
//! costs the machine what it measures, so it is done only as often as it may take a small share of the time.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::machine::process_tree;

const INTERVAL: Duration = Duration::from_secs(1);
/// Reading takes at most one part in so many of the time.
const PATIENCE: u32 = 40;
/// A longer run is sampled less often.
const SAMPLES_MAX: u32 = 1200;

/// What the server used at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub at: Instant,
    pub processes: u64,
    /// CPU use since the sample before; 100 is one core.
    pub cpu_percent: Option<f64>,
    /// Read less often than the rest.
    pub memory_kib: Option<u64>,
}

/// A running sampler.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<io::Result<Vec<Sample>>>,
}

impl Sampler {
    /// Samples the tree of processes below `root` from now on, for about so long.
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
                    memory_due = Instant::now() + interval.max(began.elapsed() * PATIENCE);
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

    /// Stops, and gives what was read.
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
    fn samples_have_memory_at_first_and_cpu_use_from_the_second_on() {
        let samples_within = |patience| {
            let sampler = Sampler::every(Duration::from_millis(1), std::process::id());
            std::thread::sleep(patience);
            sampler.end().expect("this process is there")
        };
        // On a busy machine the sampler's thread may have no core for long.
        let patience = [100, 1_000, 10_000, 60_000].map(Duration::from_millis);
        let mut attempts = patience.into_iter().map(samples_within);
        let samples = attempts
            .find(|samples| samples.len() >= 2)
            .expect("more than one sample in a minute");
        assert!(samples[0].memory_kib.is_some_and(|kib| kib > 100) && samples[0].cpu_percent.is_none());
        assert!(samples[1].cpu_percent.is_some() && samples[1].processes >= 1);
    }

    #[test]
    fn a_server_that_is_gone_ends_it() {
        let sampler = Sampler::start(u32::MAX, Duration::from_secs(1));
        assert!(sampler.end().is_err());
    }
}
