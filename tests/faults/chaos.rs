//! Who kills processes at random, and knows which deaths may cost somebody a connection.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::killer::send;
use crate::common::random::Random;
use crate::common::{WAIT_MAX, eventually};
use crate::common::{children, of_name, processes_below};

/// Longest pause between two deaths of handlers.
const PAUSE_US_MAX: usize = 12_000;
/// Longest time between two deaths of other processes. Those that die too often are started again only after a while.
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
    /// Handlers that were killed in the same moment as their keeper.
    pub(crate) double_faults: usize,
}

impl Tally {
    pub(crate) fn total(&self) -> usize {
        self.handlers + self.keepers + self.tickers + self.listeners
    }
}

/// What is killed besides handlers, one after the other.
#[derive(Debug, Clone, Copy)]
enum Post {
    Ticker,
    Listener,
    Keeper,
    /// And some of its handlers.
    KeeperAndHandlers,
}

/// How long handlers are killed while a keeper is missing.
const STRIKES_GO_ON_FOR: Duration = Duration::from_secs(2);

/// In this order, again and again.
const POSTS: [Post; 4] = [
    Post::KeeperAndHandlers,
    Post::Ticker,
    Post::Listener,
    Post::Keeper,
];

/// See the module's documentation.
pub(crate) struct Chaos {
    pub(crate) tally: Tally,
    supervisor: u32,
    keepers: usize,
    /// Handlers that were killed and may not be gone yet: on a busy machine it takes a while until a process finds the time to die.
    victims: Vec<u32>,
    random: Random,
    next_post: usize,
    next_post_at: Instant,
}

impl Chaos {
    /// Nobody may be greeting just now.
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

    /// Waits for a moment, and kills somebody.
    pub(crate) fn strike(&mut self) {
        if Instant::now() < self.next_post_at {
            self.strike_handler(None);
            return;
        }
        let pause_ms = self.random.below(ROLE_PAUSE_MS_MAX) as u64;
        let post = POSTS[self.next_post % POSTS.len()];
        self.next_post += 1;
        match post {
            Post::Ticker => self.tally.tickers += self.kill_by_name("ticker"),
            Post::Listener => self.tally.listeners += self.kill_by_name("listener"),
            Post::Keeper => self.strike_keeper(0),
            Post::KeeperAndHandlers => {
                let together = 1 + self.random.below(TOGETHER_MAX);
                self.strike_keeper(together);
            }
        }
        self.next_post_at = Instant::now() + Duration::from_millis(pause_ms);
    }

    /// Waits until there is a keeper in every post, and every handler has one.
    pub(crate) fn wait_until_whole(&self) {
        eventually("every handler has a keeper again", || self.is_whole());
    }

    fn kill_by_name(&self, name: &str) -> usize {
        let named = of_name(&children(self.supervisor), name);
        named.iter().filter(|pid| send(**pid, Signal::SIGKILL)).count()
    }

    /// Kills a handler, but none of this keeper's.
    fn strike_handler(&mut self, spared: Option<u32>) {
        // Often without a pause: some die before they have done anything.
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
            // Whose they are that outlived their keeper cannot be told.
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

    /// Kills a keeper, with so many of its handlers, and others' handlers until it is replaced and has adopted what it had.
    fn strike_keeper(&mut self, together: usize) {
        self.wait_until_whole();
        let keeper = *self.random.choose(&of_name(&children(self.supervisor), "keeper"));
        let mut handlers = children(keeper);
        // Its handlers die before it or after it, and either way nobody is there to replace them.
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
        while of_name(&children(self.supervisor), "keeper").contains(&keeper) || !self.is_whole() {
            assert!(struck.elapsed() < WAIT_MAX, "the keeper was not replaced");
            if struck.elapsed() < STRIKES_GO_ON_FOR {
                // Who is new among the keepers may be the one whose handlers are to be spared.
                self.strike_handler_of_the_old(keeper);
            } else {
                // On a crowded machine nobody would ever see all of them whole.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Kills a handler whose keeper has been there for longer than the one that was killed.
    fn strike_handler_of_the_old(&mut self, killed: u32) {
        let keepers = of_name(&children(self.supervisor), "keeper");
        match keepers.iter().max() {
            // Who was killed may not be dead yet, and its handlers its children.
            Some(newest)
                if keepers.len() == self.keepers && *newest > killed && !keepers.contains(&killed) =>
            {
                self.strike_handler(Some(*newest));
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }

    /// Every post of a keeper is filled, every handler that has outlived its keeper was adopted by another, nobody is about to die, no
    /// dead one waits to be replaced, and no keeper is in the middle of anything.
    fn is_whole(&self) -> bool {
        let looks_whole = || {
            let all = children(self.supervisor);
            let keepers = of_name(&all, "keeper");
            let orphans = of_name(&all, "handler").len();
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
            // A process bears its parent's name until it says what it is.
            std::thread::sleep(Duration::from_millis(2));
            looks_whole()
        }
    }
}

/// Whether there is a process of this id, be it a dead one that nobody has taken note of.
fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).expect("the kernel says")
}

/// As in stat(5): `S` waits for an event, `Z` has ended.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// How many processes that are not its children a process watches.
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
