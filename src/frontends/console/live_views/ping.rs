//! `ping`: measures how long each of the supervisor's processes takes to answer.

use serde_json::json;

use crate::frontends::console::commands::Format;
use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::live_views::Progress;
use crate::frontends::console::queries::List;
use crate::frontends::console::replies::Reply;
use crate::limits::PING_TIMEOUT_MS;
use crate::state::header::Pong;
use crate::state::roles::{Role, RoleInstance};
use shmem::sys::clock::{now_ms, now_ns};
use shmem::sys::process::ProcessId;
use std::sync::atomic::Ordering;

/// A ping that was sent to all processes and waits for their answers.
pub(crate) struct Ping {
    asked: u64,
    asked_at_ns: u64,
    give_up_at_ms: u64,
    format: Format,
    processes: Vec<PingTarget>,
}

struct PingTarget {
    role: &'static str,
    number: Option<u32>,
    pid: u32,
    pong: &'static Pong,
}

impl Ping {
    /// Sends a ping to all of the supervisor's processes.
    pub(crate) fn start(context: ConsoleContext, format: Format) -> Self {
        let header = context.memory.header;
        let asked_at_ns = now_ns();
        let asked = header.ping.fetch_add(1, Ordering::AcqRel) + 1;
        let mut processes = vec![PingTarget {
            role: "supervisor",
            number: None,
            pid: header.supervisor_pid.load(Ordering::Relaxed),
            pong: &header.supervisor_pong,
        }];
        if let Err(error) = context.signal_supervisor(rustix::process::Signal::USR1) {
            log::warn!("cannot wake the supervisor: {error}");
        }
        for instance in RoleInstance::all(context.config) {
            let slot = instance.slot(context.memory);
            let process = slot.process();
            match (instance.role, process) {
                (Role::Keeper, _) => context.doorbells.ring_keeper(instance.index),
                // The listener blocks this signal from its start, so the signal only wakes it.
                (Role::Listener, Some(process)) => wake(process),
                _ => {}
            }
            processes.push(PingTarget {
                role: instance.role.name(),
                number: Some(instance.index),
                pid: process.map_or(0, |process| process.pid),
                pong: &slot.pong,
            });
        }
        Self {
            asked,
            asked_at_ns,
            give_up_at_ms: now_ms() + PING_TIMEOUT_MS,
            format,
            processes,
        }
    }

    pub(crate) fn advance(&self) -> Progress {
        let all_have = self
            .processes
            .iter()
            .all(|process| process.pong.answered(self.asked).is_some());
        let now = now_ms();
        if !all_have && now < self.give_up_at_ms {
            return Progress::Wait { until_ms: now + 1 };
        }
        let rows = self.processes.iter().map(|process| {
            let answered_ns = process.pong.answered(self.asked);
            let after_ns = answered_ns.map(|at_ns| at_ns.saturating_sub(self.asked_at_ns));
            let milliseconds = match after_ns {
                Some(after_ns) => json!((after_ns / 1000) as f64 / 1000.0),
                None => json!("no answer"),
            };
            vec![
                json!(process.role),
                json!(process.number),
                json!((process.pid != 0).then_some(process.pid)),
                milliseconds,
            ]
        });
        let mut rows = Some(rows.collect());
        let list = List {
            columns: &[("pong", 10), ("number", 6), ("pid", 7), ("milliseconds", 12)],
            next: Box::new(move |_| rows.take()),
        };
        Progress::Finished(Reply::list(list, self.format))
    }
}

fn wake(process: ProcessId) {
    if let Err(error) = process.send_signal(nix::sys::signal::Signal::SIGUSR1) {
        log::warn!("cannot wake process {process}: {error}");
    }
}
