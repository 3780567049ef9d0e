//! Kills handlers: all at once, or one after the other at random moments, as fast as their replacements
//! start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::random::Random;
use super::{Server, children, eventually, is_asleep, of_name, processes_below};

/// Number of handlers that a test kills: its share of `FORKADE_TEST_KILLS`, which is 500 by default.
pub fn kills(share_percent: usize) -> usize {
    let total = std::env::var("FORKADE_TEST_KILLS").map_or(500, |kills| kills.parse().expect("a number"));
    total * share_percent / 100
}

/// Finds the handlers of a server without asking the server. (Console processes are included: use none
/// meanwhile.)
#[derive(Debug, Clone)]
pub struct Handlers {
    keepers: Vec<u32>,
}

impl Handlers {
    pub fn of(server: &Server) -> Self {
        Self {
            keepers: of_name(&children(server.pid()), "keeper"),
        }
    }

    /// Their pids. Includes handlers that are starting, and dead ones not yet replaced.
    pub fn pids(&self) -> Vec<u32> {
        let mut all = self.with_receptions();
        let receptions = of_name(&all, "reception");
        all.retain(|pid| !receptions.contains(pid));
        all
    }

    /// These, and the receptions.
    pub fn with_receptions(&self) -> Vec<u32> {
        self.keepers
            .iter()
            .flat_map(|keeper| processes_below(*keeper))
            .collect()
    }

    /// The receptions' pids.
    pub fn receptions(&self) -> Vec<u32> {
        of_name(&self.with_receptions(), "reception")
    }

    /// The pid of the only handler. The replacement of a handler that answered before it died may be late.
    pub fn only(&self) -> u32 {
        let mut pids = Vec::new();
        eventually("the only player has one handler", || {
            pids = of_name(&self.pids(), "handler");
            pids.len() == 1
        });
        pids[0]
    }

    /// Sends all of them a signal. Returns their number.
    pub fn signal_all(&self, signal: Signal) -> usize {
        let pids = self.pids();
        pids.iter().filter(|pid| send(**pid, signal)).count()
    }
}

/// Signals a process that may have ended just now. Returns false if it has.
pub fn send(pid: u32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), signal).is_ok()
}

/// Longer than handling any frame takes.
const GIVEN_TIME: Duration = Duration::from_millis(100);

/// A thread that kills one handler after the other.
pub struct Killer {
    stop: Arc<AtomicBool>,
    killed: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Killer {
    /// Starts killing, with pauses of up to `pause_max` after a replacement has started, and often with none.
    /// Ends by itself after `kills`. Of three consecutive victims, one was idle or got time first: three
    /// deaths over one frame would be attributed to that frame.
    pub fn start(server: &Server, mut random: Random, kills: usize, pause_max: Duration) -> Self {
        let handlers = Handlers::of(server);
        let (stop, killed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&killed));
        let pause_us = usize::try_from(pause_max.as_micros()).expect("short") + 1;
        let thread = std::thread::spawn(move || {
            let (mut last, mut in_a_row) = (0, 0);
            while !told.load(Ordering::Relaxed) && counted.load(Ordering::Relaxed) < kills {
                let pids = handlers.with_receptions();
                if pids.is_empty() || pids == [last] {
                    std::thread::sleep(Duration::from_micros(50));
                    continue;
                }
                let victim = *random.choose(&pids);
                if !random.chance(25) {
                    std::thread::sleep(Duration::from_micros(random.below(pause_us) as u64));
                }
                if in_a_row == 2 {
                    let until = Instant::now() + GIVEN_TIME;
                    while !is_asleep(victim) && Instant::now() < until {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    in_a_row = 0;
                }
                if victim != last && send(victim, Signal::SIGKILL) {
                    in_a_row += 1;
                    counted.fetch_add(1, Ordering::Relaxed);
                    last = victim;
                }
            }
        });
        Self { stop, killed, thread }
    }

    /// Whether it has reached its number of kills.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops killing. Returns the number of kills.
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("killing does not fail");
        self.killed.load(Ordering::Relaxed)
    }
}
