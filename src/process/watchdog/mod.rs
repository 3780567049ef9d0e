//! The watchdog: kills who is stuck, and nobody else. It is a part of the supervisor.
//!
//! Robust mutexes and takeover help against processes that die. One that is stopped, or runs in an endless loop, does not die: others
//! would wait for its lock for ever, and its player for an answer. So whoever waits too long [reports](shmem::hang_reports) *what* is
//! stuck, the watchdog looks at who is to blame for it, [again and again](hang_detector), and if need be makes a dead process of a stuck one. The
//! rest is as for any death.
//!
//! That somebody waits proves nothing: on a crowded machine an innocent process may not get its turn for seconds. Who is judged is judged
//! by the processor time that it has used while it was at one and the same thing, or because it is stopped; never by wall time.
//!
//! It must never take a lock: it would wait for those it is to judge. What it reads of shared memory are atomics.

pub(crate) mod hang_detector;
pub(crate) mod progress;
mod targets;

use crate::limits::{LIVENESS_POLL_MS, REPORTS_MAX, WATCHDOG_KILLS_PER_SECOND_MAX, WATCHDOG_POLL_MS};
use crate::process::process_table::Context;
use crate::state::roles::RoleInstance;
use shmem::hang_reports::Subject;
use shmem::sys::process::{ProcessId, ProcessStatus, RunState};

use crate::process::watchdog::hang_detector::{Hang, HangDetector, HangLimits};
use crate::process::watchdog::targets::Target;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;

/// The supervisor's watchdog.
pub(crate) struct Watchdog {
    context: Context,
    limits: HangLimits,
    open: Vec<OpenReport>,
    next_look_ms: u64,
    /// By slot: when the supervisor's own processes were last seen to get on.
    pulses: Vec<u64>,
    next_pulse_look_ms: u64,
    /// When the present second began, and the kills within it.
    kills: (u64, u32),
}

/// A case, and where it was reported.
struct OpenReport {
    /// `None` for what was not reported, but found by the supervisor itself.
    place: Option<usize>,
    subject: Subject,
    /// Changes when the accused gets on.
    mark: u64,
    detector: HangDetector,
    is_closed: bool,
}

impl Watchdog {
    /// A watchdog, which from now on is told what seems to be stuck; `None` if it is not wanted.
    pub(crate) fn new(context: Context) -> Option<Self> {
        let cpu_ms = u64::from(context.config.watchdog_cpu_ms);
        if cpu_ms == 0 {
            return None;
        }
        context
            .memory
            .header
            .hang_reports
            .set_detector(ProcessId::current());
        Some(Self {
            context,
            limits: HangLimits::with_cpu_ms(cpu_ms),
            open: Vec::with_capacity(REPORTS_MAX),
            next_look_ms: 0,
            pulses: vec![0; RoleInstance::all(context.config).len()],
            next_pulse_look_ms: 0,
            kills: (0, 0),
        })
    }

    /// How long it has nothing to do, unless something is reported.
    pub(crate) fn timeout_ms(&self, now_ms: u64) -> u64 {
        let look_ms = (!self.open.is_empty()).then_some(self.next_look_ms);
        let next_ms = look_ms.map_or(self.next_pulse_look_ms, |at| at.min(self.next_pulse_look_ms));
        next_ms.saturating_sub(now_ms)
    }

    /// Takes up what was reported, and looks at those under suspicion, if it is time.
    pub(crate) fn run_checks(&mut self, now_ms: u64) {
        self.collect_reports();
        if now_ms >= self.next_pulse_look_ms {
            self.next_pulse_look_ms = now_ms + LIVENESS_POLL_MS;
            self.check_role_liveness();
        }
        if self.open.is_empty() || now_ms < self.next_look_ms {
            return;
        }
        self.next_look_ms = now_ms + WATCHDOG_POLL_MS;
        let mut open = std::mem::take(&mut self.open);
        open.retain_mut(|detector| {
            if self.evaluate(detector, now_ms) {
                return true;
            }
            // Who was killed has a successor now. What was reported of that meanwhile has not been heard: the case was open.
            if detector.is_closed
                && let Ok(Some(next)) = self.new_report(detector.subject, detector.place)
            {
                *detector = next;
                return true;
            }
            if let Some(place) = detector.place {
                self.context.memory.header.hang_reports.clear(place);
            }
            false
        });
        self.open = open;
    }

    /// A child of the supervisor's was stopped: one of its own processes, or a handler whose keeper has died.
    pub(crate) fn on_child_stopped(&mut self, pid: u32) {
        let children = RoleInstance::all(self.context.config);
        let slot_of = |instance: &RoleInstance| instance.slot(self.context.memory);
        let role = (0..)
            .zip(&children)
            .find(|(_, instance)| slot_of(instance).pid.load(Ordering::Relaxed) == pid);
        let subject = match role {
            Some((slot, _)) => Some(Subject::Role { slot }),
            None => self
                .find_connection(|handler| handler.pid == pid)
                .map(|(index, _)| Subject::Connection { index }),
        };
        if let Some(subject) = subject {
            self.open_report(subject, None);
        }
    }

    /// Suspects those of the supervisor's own processes that have not come round since the last time, and do not wait for anything.
    fn check_role_liveness(&mut self) {
        for slot in 0..self.pulses.len() {
            let role = &self.context.memory.header.roles[slot];
            let Some(process) = role.process() else {
                continue;
            };
            let liveness = role.liveness.last_progress_ms();
            if std::mem::replace(&mut self.pulses[slot], liveness) != liveness {
                continue;
            }
            let seen = ProcessStatus::of(process.pid).ok().flatten();
            let gets_nowhere = |seen: ProcessStatus| {
                seen.process == process
                    && match seen.state {
                        RunState::Stopped => true,
                        // To come up may take a while.
                        RunState::Running => role.ready.load(Ordering::Acquire) != 0,
                        _ => false,
                    }
            };
            if seen.is_some_and(gets_nowhere) {
                let slot = u32::try_from(slot).expect("bounded by the limit of roles");
                self.open_report(Subject::Role { slot }, None);
            }
        }
    }

    fn collect_reports(&mut self) {
        let hang_reports = &self.context.memory.header.hang_reports;
        for (place, subject) in hang_reports.pending() {
            if self.open.iter().any(|detector| detector.place == Some(place)) {
                continue;
            }
            if !self.open_report(subject, Some(place)) {
                hang_reports.clear(place);
            }
        }
    }

    /// Opens a case, if there is somebody to suspect. Says whether the report is to stay.
    fn open_report(&mut self, subject: Subject, place: Option<usize>) -> bool {
        if self.open.iter().any(|detector| detector.subject == subject) {
            return false;
        }
        match self.new_report(subject, place) {
            Ok(Some(hang_detector)) => {
                self.open.push(hang_detector);
                true
            }
            Ok(None) => false,
            // Nothing is known now.
            Err(()) => true,
        }
    }

    /// A case against whoever is to blame at this moment, if anybody is. An error is logged.
    fn new_report(&self, subject: Subject, place: Option<usize>) -> Result<Option<OpenReport>, ()> {
        let Some(target_of) = self.target_of(subject) else {
            return Ok(None);
        };
        let activity = ProcessStatus::of(target_of.pid)
            .map_err(|error| log::error!("cannot look at process {}: {error}", target_of.pid))?;
        // Another process may have got the pid of one that has ended.
        let activity = activity.filter(|activity| target_of.is(activity.process));
        Ok(activity.map(|activity| OpenReport {
            place,
            subject,
            mark: target_of.mark,
            detector: HangDetector::open(activity),
            is_closed: false,
        }))
    }

    /// Looks at a suspect; kills it if it is found guilty. Says whether the case goes on.
    fn evaluate(&mut self, open: &mut OpenReport, now_ms: u64) -> bool {
        let suspect = open.detector.process();
        let is_still_at_it = |target_of: Target| target_of.is(suspect) && target_of.mark == open.mark;
        if !self.target_of(open.subject).is_some_and(is_still_at_it) {
            return false;
        }
        let activity = match ProcessStatus::of(suspect.pid) {
            Ok(Some(activity)) if activity.process == suspect => activity,
            Ok(_) => return false,
            Err(error) => {
                log::error!("cannot look at process {suspect}: {error}");
                return true;
            }
        };
        let holds_lock = matches!(open.subject, Subject::Lock { .. });
        if activity.state == RunState::Sleeping && !holds_lock {
            // It waits for something, as is its right.
            return false;
        }
        if !open.is_closed
            && let Some(fault) = open.detector.judge(activity, self.limits_for(open.subject))
            && self.take_kill_allowance(now_ms)
        {
            self.kill(open, fault, now_ms);
            open.is_closed = true;
        }
        true
    }

    fn limits_for(&self, subject: Subject) -> HangLimits {
        match subject {
            Subject::Lock { .. } => self.limits.under_a_lock(),
            Subject::Connection { .. } | Subject::Role { .. } => self.limits,
        }
    }

    /// Whether another may be killed in this second; counts it.
    fn take_kill_allowance(&mut self, now_ms: u64) -> bool {
        let (began_ms, count) = &mut self.kills;
        if now_ms.saturating_sub(*began_ms) >= 1000 {
            (*began_ms, *count) = (now_ms, 0);
        }
        *count += 1;
        *count <= WATCHDOG_KILLS_PER_SECOND_MAX
    }

    fn kill(&self, open: &OpenReport, fault: Hang, now_ms: u64) {
        let (process, memory) = (open.detector.process(), self.context.memory);
        log::error!(
            "{} {} and {fault}: killed",
            self.name_of(process),
            self.describe_hang(open.subject)
        );
        // Before it dies, so that whoever replaces it knows.
        if let Some((_, record)) = self.find_connection(|handler| handler == process) {
            record.set_hang(fault.kind());
        }
        let figures = &memory.header.watchdog;
        figures.kills_total.fetch_add(1, Ordering::Relaxed);
        match process.send_signal(Signal::SIGKILL) {
            Ok(true) => {}
            not_killed => {
                figures.kills_total.fetch_sub(1, Ordering::Relaxed);
                if let Err(error) = not_killed {
                    log::error!("cannot kill process {process}: {error}");
                }
                return;
            }
        }
        figures.last_pid.store(process.pid, Ordering::Relaxed);
        figures.last_at_ms.store(now_ms, Ordering::Relaxed);
        figures
            .last_subject
            .store(open.subject.to_word(), Ordering::Relaxed);
        figures.last_hang.store(fault.kind().number(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, ConfigSource, SETTINGS, Settings};
    use crate::limits::WATCHDOG_STOPPED_POLLS;
    use crate::process::ipc::IpcHandles;
    use crate::state::layout::{Capacity, Memory};
    use forkade_games::Games;

    const STOPPED: Subject = Subject::Role { slot: 0 };

    fn context() -> Context {
        let config = Config {
            players_max: 1,
            rooms_max: 1,
            keepers: 1,
            watchdog_cpu_ms: 1000,
            ..Config::default()
        };
        let capacity = Capacity {
            players: config.players_max,
            rooms: config.rooms_max,
            keepers: config.keepers,
        };
        let game = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let settings: &'static Settings = Box::leak(Box::new(Settings {
            config,
            sources: [ConfigSource::Default; SETTINGS.len()],
            file: None,
            warnings: Vec::new(),
        }));
        Context {
            memory: Memory::create(capacity).expect("memory"),
            games: Box::leak(Box::new(Games::new())),
            ipc: Box::leak(Box::new(
                IpcHandles::new(game, None, config.keepers, config.rooms_max).expect("descriptors"),
            )),
            config: &settings.config,
            build: 0,
            settings,
        }
    }

    /// Killed when the test is over, however it ends.
    struct Bystander(Child);

    impl Drop for Bystander {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process that is stopped, and has nothing to do with any server.
    fn stopped_process() -> (Bystander, ProcessId) {
        let child = Command::new("sleep")
            .arg("86400")
            .stdout(Stdio::null())
            .spawn()
            .expect("it can be run");
        let activity = || {
            ProcessStatus::of(child.id())
                .expect("/proc can be read")
                .expect("it lives")
        };
        let process = activity().process;
        process.send_signal(Signal::SIGSTOP).expect("it is ours");
        while activity().state != RunState::Stopped {
            std::thread::yield_now();
        }
        (Bystander(child), process)
    }

    /// It dies of the watchdog, if not at once: on a busy machine that takes a while.
    fn expect_killed(child: &mut Bystander) {
        for _ in 0..1000 {
            if let Some(status) = child.0.try_wait().expect("a child") {
                return assert_eq!(status.signal(), Some(libc::SIGKILL));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it lives");
    }

    /// Lets the watchdog look until it must have judged.
    fn look_on(watchdog: &mut Watchdog) {
        let looks = u64::from(2 * WATCHDOG_STOPPED_POLLS) + 2 * LIVENESS_POLL_MS / WATCHDOG_POLL_MS;
        (1..=looks).for_each(|run_checks| watchdog.run_checks(run_checks * WATCHDOG_POLL_MS));
    }

    #[test]
    fn a_process_that_has_the_pid_of_an_ended_one_is_not_taken_for_it() {
        let context = context();
        let mut watchdog = Watchdog::new(context).expect("it is wanted");
        let (mut child, process) = stopped_process();
        let slot = &context.memory.header.roles[0];
        // A role's process that was started earlier, and had the same pid.
        slot.start_time.store(process.start_time - 1, Ordering::Relaxed);
        slot.pid.store(process.pid, Ordering::Release);
        slot.ready.store(1, Ordering::Release);
        assert!(!watchdog.open_report(STOPPED, None));
        look_on(&mut watchdog);
        assert!(
            child.0.try_wait().expect("a child").is_none(),
            "an innocent was killed"
        );

        slot.start_time.store(process.start_time, Ordering::Relaxed);
        let mut watchdog = Watchdog::new(context).expect("it is wanted");
        assert!(watchdog.open_report(STOPPED, None));
        look_on(&mut watchdog);
        expect_killed(&mut child);
    }

    #[test]
    fn a_successor_that_is_stopped_before_its_predecessors_report_is_closed_is_killed_too() {
        let context = context();
        let mut watchdog = Watchdog::new(context).expect("it is wanted");
        let slot = &context.memory.header.roles[0];
        let enter = |process: ProcessId| {
            slot.start_time.store(process.start_time, Ordering::Relaxed);
            slot.pid.store(process.pid, Ordering::Release);
        };
        let (mut first, process) = stopped_process();
        enter(process);
        watchdog.on_child_stopped(process.pid);
        let kills = &context.memory.header.watchdog.kills_total;
        let mut looks = 1..100;
        while kills.load(Ordering::Relaxed) == 0 {
            watchdog.run_checks(looks.next().expect("it is judged by then") * WATCHDOG_POLL_MS);
        }
        expect_killed(&mut first);
        let (mut second, process) = stopped_process();
        enter(process);
        // Its stop is told only once.
        watchdog.on_child_stopped(process.pid);
        looks.for_each(|run_checks| watchdog.run_checks(run_checks * WATCHDOG_POLL_MS));
        expect_killed(&mut second);
    }
}
