//! Kills processes at random, and knows which deaths may cost a connection.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::killer::send;
use crate::common::random::Random;
use crate::common::{WAIT_MAX, children, eventually, of_name, processes_below};

/// Longest pause between two deaths of handlers.
const PAUSE_US_MAX: usize = 12_000;
/// Longest time between two deaths of other processes. Processes that die too often are restarted with a
/// delay.
const ROLE_PAUSE_MS_MAX: usize = 1600;
/// Handlers that die together with their keeper.
const TOGETHER_MAX: usize = 3;

/// How many processes were killed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) handlers: usize,
    pub(crate) keepers: usize,
    pub(crate) tickers: usize,
    pub(crate) listeners: usize,
    /// Handlers that were killed at the same moment as their keeper.
    pub(crate) double_faults: usize,
}

impl Tally {
    pub(crate) fn total(&self) -> usize {
        self.handlers + self.keepers + self.tickers + self.listeners
    }
}

/// Victims other than handlers, in turn.
#[derive(Debug, Clone, Copy)]
enum Post {
    Ticker,
    Receiver,
    Keeper,
    /// A keeper and some of its handlers.
    KeeperAndHandlers,
}

/// How long handlers are killed while a keeper is missing.
const STRIKES_GO_ON_FOR: Duration = Duration::from_secs(2);

/// Cycled through in this order.
const POSTS: [Post; 4] = [
    Post::KeeperAndHandlers,
    Post::Ticker,
    Post::Receiver,
    Post::Keeper,
];

/// See the module's documentation.
pub(crate) struct Chaos {
    pub(crate) tally: Tally,
    supervisor: u32,
    keepers: usize,
    /// Handlers that were killed and may still exist: on a busy machine a process takes a while to die.
    victims: Vec<u32>,
    random: Random,
    next_post: usize,
    next_post_at: Instant,
}

impl Chaos {
    /// Call it when no client is in its handshake.
    pub(crate) fn new(supervisor: u32, random: Random) -> Self {
        Self {
            tally: Tally::default(),
            supervisor,
            keepers: of_name(&children(supervisor), "keeper").len(),
            victims: Vec::new(),
            random,
            next_post: 0,
            next_post_at: Instant::now(),
        }
    }

    /// Waits for a moment, and kills a process.
    pub(crate) fn kill_next(&mut self) {
        if Instant::now() < self.next_post_at {
            self.strike_handler(None);
            return;
        }
        let pause_ms = self.random.below(ROLE_PAUSE_MS_MAX) as u64;
        let post = POSTS[self.next_post % POSTS.len()];
        self.next_post += 1;
        match post {
            Post::Ticker => self.tally.tickers += self.kill_by_name("ticker"),
            Post::Receiver => self.tally.listeners += self.kill_by_name("listener"),
            Post::Keeper => self.strike_keeper(0),
            Post::KeeperAndHandlers => {
                let together = 1 + self.random.below(TOGETHER_MAX);
                self.strike_keeper(together);
            }
        }
        self.next_post_at = Instant::now() + Duration::from_millis(pause_ms);
    }

    /// Waits until every keeper runs and every handler has a keeper.
    pub(crate) fn wait_until_recovered(&self) {
        eventually("every handler has a keeper again", || self.is_recovered());
    }

    fn kill_by_name(&self, name: &str) -> usize {
        let named = of_name(&children(self.supervisor), name);
        named.iter().filter(|pid| send(**pid, Signal::SIGKILL)).count()
    }

    /// Kills a handler, except those of this keeper.
    fn strike_handler(&mut self, spared: Option<u32>) {
        // Often without a pause: some handlers die before they have done anything.
        if !self.random.chance(25) {
            std::thread::sleep(Duration::from_micros(self.random.below(PAUSE_US_MAX) as u64));
        }
        let all = children(self.supervisor);
        let keepers = of_name(&all, "keeper").into_iter();
        let mut handlers: Vec<u32> = keepers
            .filter(|keeper| Some(*keeper) != spared)
            .flat_map(children)
            .collect();
        if spared.is_none() {
            // The keeper of an orphaned handler cannot be determined.
            handlers.extend(of_name(&all, "handler"));
        }
        if handlers.is_empty() {
            return;
        }
        let victim = *self.random.choose(&handlers);
        if send(victim, Signal::SIGKILL) {
            self.tally.handlers += 1;
            self.victims.retain(|victim| exists(*victim));
            self.victims.push(victim);
        }
    }

    /// Kills a keeper with `with_handlers` of its handlers, and then handlers of other keepers, until the
    /// keeper is replaced and its handlers are adopted.
    fn strike_keeper(&mut self, together: usize) {
        self.wait_until_recovered();
        let keeper = *self.random.choose(&of_name(&children(self.supervisor), "keeper"));
        let mut handlers = children(keeper);
        // Its handlers die before it or after it. Either way no keeper is there to replace them.
        let keeper_first = self.random.chance(50);
        if keeper_first {
            send(keeper, Signal::SIGKILL);
        }
        for _ in 0..together.min(handlers.len()) {
            let index = self.random.below(handlers.len());
            if send(handlers.swap_remove(index), Signal::SIGKILL) {
                self.tally.handlers += 1;
                self.tally.double_faults += 1;
            }
        }
        send(keeper, Signal::SIGKILL);
        self.tally.keepers += 1;
        let struck = Instant::now();
        while of_name(&children(self.supervisor), "keeper").contains(&keeper) || !self.is_recovered() {
            assert!(struck.elapsed() < WAIT_MAX, "the keeper was not replaced");
            if struck.elapsed() < STRIKES_GO_ON_FOR {
                // The new keeper may be the one whose handlers must be spared.
                self.strike_handler_of_the_old(keeper);
            } else {
                // On a busy machine all of them would never be whole at once.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Kills a handler whose keeper is older than the one that was killed.
    fn strike_handler_of_the_old(&mut self, killed: u32) {
        let keepers = of_name(&children(self.supervisor), "keeper");
        match keepers.iter().max() {
            // The killed keeper may not be dead yet, and its handlers still its children.
            Some(newest)
                if keepers.len() == self.keepers && *newest > killed && !keepers.contains(&killed) =>
            {
                self.strike_handler(Some(*newest));
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }

    /// Every keeper runs, every orphaned handler was adopted, no process is about to die, no dead handler
    /// waits to be replaced, and no keeper is busy.
    fn is_recovered(&self) -> bool {
        let looks_whole = || {
            let all = children(self.supervisor);
            let keepers = of_name(&all, "keeper");
            let orphans = of_name(&all, "handler").len() + of_name(&all, "reception").len();
            let adopted: usize = keepers.iter().map(|keeper| pidfds(*keeper)).sum();
            keepers.len() == self.keepers
                && adopted == orphans
                && !self.victims.iter().any(|victim| exists(*victim))
                && keepers.iter().all(|keeper| state(*keeper) == Some('S'))
                && !processes_below(self.supervisor)
                    .iter()
                    .any(|pid| state(*pid) == Some('Z'))
        };
        looks_whole() && {
            // A process has its parent's name until it sets its own.
            std::thread::sleep(Duration::from_millis(2));
            looks_whole()
        }
    }
}

/// Whether this pid exists, including zombies.
fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).expect("the kernel says")
}

/// As in proc(5): `S` sleeps, `Z` is a zombie.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Number of processes that a process watches without being their parent.
fn pidfds(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let is_pidfd = |file: &fs::DirEntry| {
        fs::read_link(file.path()).is_ok_and(|target| {
            let target = target.to_string_lossy();
            target.contains("[pidfd]") || target.starts_with("pidfd:")
        })
    };
    files.filter(is_pidfd).count()
}
