//! The processes that were killed in a run, and which lost connections that explains: those of handlers that
//! died together with their keepers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::server::console::Process;
use crate::server::roles::{HANDLER, KEEPER};

/// Within this time a killed keeper has a successor, and that one has adopted the living handlers. It takes
/// some ten milliseconds, but each process concerned (the dying keeper, the supervisor, the successor, the
/// handlers) may wait hundreds of milliseconds for a core.
const ADOPTION_TIME: Duration = Duration::from_secs(3);
/// A client notices within this time that its connection is lost to a double fault.
const LOSS_NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// All kills of a run.
#[derive(Debug, Default)]
pub(crate) struct KillLog {
    pub log: Vec<Kill>,
    /// How often a kill was due and no process of the role existed.
    pub missed: BTreeMap<String, u64>,
}

/// One process that was killed.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    /// Taken just before the kill, so no consequence of it can be earlier.
    pub at: Instant,
    pub role: String,
    pub(super) pid: u32,
    /// Which handler served which player when the processes were last listed. For a keeper's kill that was
    /// just before.
    pub(super) process_list: Arc<ProcessList>,
    /// Its parent: for a handler the keeper that forked it, or the supervisor if that keeper has died since.
    pub(super) parent: u32,
    /// The keeper that forked it is dead; another has adopted it or is about to.
    pub(super) is_orphan: bool,
}

/// Which handlers serve which players. A dead handler stays listed until its keeper enters its successor.
#[derive(Debug)]
pub(super) struct ProcessList {
    /// The time of the query.
    pub(super) at: Instant,
    handlers: HashSet<u32>,
    /// The handlers that may get further players: all if handlers are shared, otherwise those without a
    /// player.
    may_take_others: HashSet<u32>,
    /// The pid of each player's handler.
    served_by: HashMap<String, u32>,
}

impl KillLog {
    /// How many processes of `role` were killed.
    pub(crate) fn count(&self, role: &str) -> u64 {
        self.log.iter().filter(|kill| kill.role == role).count() as u64
    }

    /// The kills of handlers that perhaps no keeper could replace, or whose keeper was killed before it had
    /// replaced them. These may cost a connection. `slack` is the additional time that a slow machine needs.
    pub(crate) fn double_faults(&self, slack: Duration) -> impl Iterator<Item = &Kill> {
        self.log.iter().filter(move |kill| {
            kill.role == HANDLER
                && self
                    .keepers_of(kill)
                    .any(|keeper| is_unreplaced(kill, keeper) || is_unadopted(kill, keeper, slack))
        })
    }

    /// How many of `losses` (the player and the time of each lost connection) a double fault explains.
    pub(crate) fn count_explained(&self, losses: &[(String, Instant)], slack: Duration) -> u64 {
        let double_faults: Vec<&Kill> = self.double_faults(slack).collect();
        let is_explained = |(player, at): &&(String, Instant)| {
            double_faults
                .iter()
                .any(|kill| self.explains(kill, player, *at, slack))
        };
        losses.iter().filter(is_explained).count() as u64
    }

    /// Whether the deaths of this handler and of its keeper can explain the loss of the player's connection
    /// at `at`: it must follow the second death closely.
    fn explains(&self, handler: &Kill, player: &str, at: Instant, slack: Duration) -> bool {
        let follows = |kill: &Kill| {
            let after = at.checked_duration_since(kill.at);
            after.is_some_and(|after| after < LOSS_NOTICED_WITHIN + slack)
        };
        self.keepers_of(handler).any(|keeper| {
            let had_no_successor = is_unreplaced(handler, keeper)
                && keeper.process_list.served_by.get(player) == Some(&handler.pid)
                && follows(keeper);
            let had_no_keeper = is_unadopted(handler, keeper, slack)
                && self.may_have_served(handler, player)
                && follows(handler);
            had_no_successor || had_no_keeper
        })
    }

    /// The killed keepers that may have held the connections of this handler.
    fn keepers_of(&self, handler: &Kill) -> impl Iterator<Item = &Kill> {
        self.log
            .iter()
            .filter(|kill| kill.role == KEEPER && (kill.pid == handler.parent || handler.is_orphan))
    }

    /// Whether `handler` may have served the player when it was killed. It did when the processes were last
    /// listed; or the player is new, or its handler was killed, so that this one may have got it since.
    fn may_have_served(&self, handler: &Kill, player: &str) -> bool {
        let process_list = &handler.process_list;
        let lost_its_handler = |by: u32| {
            let mut since = self.log.iter().filter(|kill| kill.at >= process_list.at);
            since.any(|kill| kill.pid == by && kill.at <= handler.at)
        };
        match process_list.served_by.get(player) {
            Some(pid) if *pid == handler.pid => true,
            former => {
                process_list.may_take_others.contains(&handler.pid)
                    && former.is_none_or(|pid| lost_its_handler(*pid))
            }
        }
    }
}

/// Whether the handler was killed before the keeper and had no successor yet.
fn is_unreplaced(handler: &Kill, keeper: &Kill) -> bool {
    handler.at <= keeper.at && keeper.process_list.handlers.contains(&handler.pid)
}

/// Whether the keeper was killed before the handler, and no other keeper may have adopted the handler yet.
fn is_unadopted(handler: &Kill, keeper: &Kill, slack: Duration) -> bool {
    let after = handler.at.checked_duration_since(keeper.at);
    after.is_some_and(|after| after < ADOPTION_TIME + slack)
}

impl ProcessList {
    /// Evaluates the answer to a query that was sent at `at`.
    pub(super) fn of(processes: &[Process], at: Instant) -> Self {
        let of_handlers = processes.iter().filter(|process| process.role == HANDLER);
        let (mut handlers, mut alone, mut served_by) = (HashSet::new(), HashSet::new(), HashMap::new());
        let mut are_shared = false;
        for Process { pid, player, .. } in of_handlers {
            are_shared |= !handlers.insert(*pid);
            match player {
                Some(player) => drop(served_by.insert(player.clone(), *pid)),
                None => drop(alone.insert(*pid)),
            }
        }
        Self {
            at,
            served_by,
            may_take_others: if are_shared { handlers.clone() } else { alone },
            handlers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list in which each handler serves these players.
    fn process_list(at: Instant, served: &[(u32, &[&str])]) -> Arc<ProcessList> {
        let players = |(pid, players): &(u32, &[&str])| -> Vec<Process> {
            let each = players
                .iter()
                .map(|player| Process::listed("handler", *pid, Some(player)));
            each.collect()
        };
        let processes: Vec<Process> = served.iter().flat_map(players).collect();
        Arc::new(ProcessList::of(&processes, at))
    }

    /// Kills within one run, at times in milliseconds from its start.
    struct KillTimeline {
        began: Instant,
        process_list: Arc<ProcessList>,
        kills: KillLog,
    }

    impl KillTimeline {
        fn new(served: &[(u32, &[&str])]) -> Self {
            let began = Instant::now();
            Self {
                began,
                process_list: process_list(began, served),
                kills: KillLog::default(),
            }
        }

        fn at(&self, ms: u64) -> Instant {
            self.began + Duration::from_millis(ms)
        }

        fn list(&mut self, ms: u64, served: &[(u32, &[&str])]) {
            self.process_list = process_list(self.at(ms), served);
        }

        fn kill(&mut self, ms: u64, role: &str, pid: u32, parent: u32) {
            self.kills.log.push(Kill {
                at: self.at(ms),
                role: role.to_owned(),
                pid,
                process_list: self.process_list.clone(),
                parent,
                is_orphan: parent == ROOT,
            });
        }

        fn double_faults(&self) -> Vec<u32> {
            let double_faults = self.kills.double_faults(Duration::ZERO);
            double_faults.map(|kill| kill.pid).collect()
        }

        fn is_explained(&self, player: &str, ms: u64) -> bool {
            let losses = [(player.to_owned(), self.at(ms))];
            self.kills.count_explained(&losses, Duration::ZERO) == 1
        }
    }

    const ROOT: u32 = 1;

    #[test]
    fn a_handler_without_a_successor_when_its_keeper_dies_may_lose_all_its_connections() {
        let mut timeline = KillTimeline::new(&[(60, &["ann"]), (61, &["bob", "bea"]), (62, &["cid"])]);
        timeline.kill(0, "handler", 60, 50);
        timeline.kill(100, "handler", 61, 50);
        timeline.kill(100, "handler", 62, 51);
        // However long the keeper needs: 60 has a successor now, and 61 has none.
        timeline.list(900, &[(70, &["ann"]), (61, &["bob", "bea"]), (62, &["cid"])]);
        timeline.kill(901, "keeper", 50, ROOT);
        assert_eq!(timeline.double_faults(), [61], "62 has another keeper");
        assert!(timeline.is_explained("bob", 901) && timeline.is_explained("bea", 2000));
        assert!(
            !timeline.is_explained("ann", 950),
            "it had a handler and lost its connection"
        );
        assert!(!timeline.is_explained("cid", 950), "its keeper lives");
        assert!(!timeline.is_explained("bob", 900), "its keeper lived");
        assert!(!timeline.is_explained("bob", 60_000), "that was long ago");
    }

    #[test]
    fn a_handler_that_dies_before_its_adoption_may_lose_its_connections() {
        let mut timeline =
            KillTimeline::new(&[(60, &["ann"]), (61, &["bob"]), (62, &["cid"]), (63, &["dan"])]);
        timeline.kill(0, "keeper", 50, ROOT);
        timeline.kill(1, "handler", 60, 50);
        timeline.kill(500, "handler", 61, ROOT);
        timeline.kill(501, "handler", 62, 51);
        timeline.kill(10_000, "handler", 63, ROOT);
        assert_eq!(
            timeline.double_faults(),
            [60, 61],
            "62 has another keeper, 63 had long been adopted"
        );
        assert!(timeline.is_explained("ann", 1) && timeline.is_explained("bob", 700));
        assert!(!timeline.is_explained("bob", 499), "its handler lived");
        assert!(!timeline.is_explained("cid", 600) && !timeline.is_explained("dan", 10_000));
        let slow = Duration::from_secs(10);
        let loss = ("dan".to_owned(), timeline.at(10_000));
        assert_eq!(
            timeline.kills.count_explained(&[loss], slow),
            1,
            "on a slow machine"
        );
    }

    #[test]
    fn a_player_may_have_another_handler_than_the_last_list_says() {
        let mut shared = KillTimeline::new(&[(60, &["ann", "abe"]), (61, &["bob"]), (62, &["cid"])]);
        let mut own = KillTimeline::new(&[(60, &["ann"]), (61, &["bob"]), (62, &["cid"])]);
        for timeline in [&mut shared, &mut own] {
            timeline.kill(10, "handler", 60, 50);
            timeline.kill(500, "keeper", 50, ROOT);
            timeline.kill(600, "handler", 61, ROOT);
        }
        assert!(shared.is_explained("abe", 600), "61 may have taken over from 60");
        assert!(shared.is_explained("eve", 600), "eve joined later");
        assert!(!shared.is_explained("cid", 600), "62 lives");
        assert!(!own.is_explained("eve", 600), "61 is bob's alone");

        let mut handshake = KillTimeline::new(&[(60, &["ann"])]);
        let processes = [
            Process::listed("handler", 61, None),
            Process::listed("handler", 62, Some("cid")),
        ];
        handshake.process_list = Arc::new(ProcessList::of(&processes, handshake.at(0)));
        handshake.kill(500, "keeper", 50, ROOT);
        handshake.kill(600, "handler", 61, ROOT);
        assert!(handshake.is_explained("bob", 600), "61 was in a handshake");
        assert!(!handshake.is_explained("cid", 600), "62 lives");
    }
}
