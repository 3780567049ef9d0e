//! The watchdog: kills processes that hang, and no others. It is a part of the supervisor.
//!
//! Robust mutexes and takeover help against processes that die. A process that is stopped or loops for ever does not
//! die: others would wait for its lock, and its player for a reply. So a process that waits for too long
//! [reports](shmem::hang_reports) *what* hangs. The watchdog finds the process that is responsible, [observes
//! it](hang_detector) over several looks, and kills it if it hangs. The rest is as for any death.
//!
//! That a process waits proves nothing: on a crowded machine another may not be scheduled for seconds. What counts is
//! the processor time that a process has used over one and the same thing, or that it is stopped; never wall time.
//!
//! It must never take a lock: it would wait for the processes that it should kill. What it reads of shared memory are
//! atomics.

pub(crate) mod hang_detector;
pub(crate) mod progress;
mod targets;

use crate::limits::{
    LIVENESS_POLL_MS, REPORTS_MAX, ROLES_MAX, WATCHDOG_KILLS_PER_SECOND_MAX, WATCHDOG_POLL_MS,
};
use crate::process::process_table::Context;
use crate::state::layout::RoomRef;
use crate::state::roles::RoleInstance;
use shmem::hang_reports::Subject;
use shmem::sys::process::{ProcessId, ProcessStatus, RunState};

use crate::process::watchdog::hang_detector::{Hang, HangDetector, HangLimits};
use crate::process::watchdog::progress::{ProgressMarks, run_state};
use crate::process::watchdog::targets::Target;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;

/// The supervisor's watchdog.
pub(crate) struct Watchdog {
    context: Context,
    limits: HangLimits,
    open: Vec<OpenReport>,
    next_look_ms: u64,
    /// By slot, of the supervisor's roles.
    progress_marks: ProgressMarks,
    /// When the present second began, and the kills within it.
    kills: (u64, u32),
}

/// A report that is being followed.
struct OpenReport {
    /// Index in the table of reports; `None` if the supervisor itself found it.
    place: Option<usize>,
    subject: Subject,
    /// Changes when the process makes progress.
    mark: u64,
    detector: HangDetector,
    is_killed: bool,
}

impl Watchdog {
    /// A watchdog, which receives reports from now on; `None` if it is switched off.
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
            progress_marks: ProgressMarks::default(),
            kills: (0, 0),
        })
    }

    /// How long it has nothing to do, in milliseconds, unless something is reported.
    pub(crate) fn timeout_ms(&self, now_ms: u64) -> u64 {
        let look_ms = (!self.open.is_empty()).then_some(self.next_look_ms);
        let marks_ms = self.progress_marks.next_look_ms();
        let next_ms = look_ms.map_or(marks_ms, |look_ms| look_ms.min(marks_ms));
        next_ms.saturating_sub(now_ms)
    }

    /// Takes up new reports, and looks at the processes that are followed, if it is time.
    pub(crate) fn run_checks(&mut self, now_ms: u64) {
        self.collect_reports();
        self.check_role_liveness(now_ms);
        if self.open.is_empty() || now_ms < self.next_look_ms {
            return;
        }
        self.next_look_ms = now_ms + WATCHDOG_POLL_MS;
        let mut open = std::mem::take(&mut self.open);
        open.retain_mut(|report| {
            if self.evaluate(report, now_ms) {
                return true;
            }
            // The killed process has a successor now. A report about that was ignored while this one was open.
            if report.is_killed
                && let Ok(Some(next)) = self.new_report(report.subject, report.place)
            {
                *report = next;
                return true;
            }
            if let Some(place) = report.place {
                self.context.memory.header.hang_reports.clear(place);
            }
            false
        });
        self.open = open;
    }

    /// A child of the supervisor was stopped: one of its roles, or a handler whose keeper has died.
    pub(crate) fn on_child_stopped(&mut self, pid: u32) {
        let children = RoleInstance::all(self.context.config);
        let slot_of = |instance: &RoleInstance| instance.slot(self.context.memory);
        let role = children
            .iter()
            .find(|instance| slot_of(instance).pid.load(Ordering::Relaxed) == pid);
        let subject = match role {
            Some(instance) => Some(subject_of(instance)),
            None => self
                .find_connection(|handler| handler.pid == pid)
                .map(|(index, _)| Subject::Connection { index }),
        };
        if let Some(subject) = subject {
            self.open_report(subject, None);
        }
    }

    /// Follows the supervisor's roles that have made no progress since the last look and do not wait for anything.
    fn check_role_liveness(&mut self, now_ms: u64) {
        let instances = RoleInstance::all(self.context.config);
        if !self.progress_marks.begin_look(ROLES_MAX, now_ms) {
            return;
        }
        self.check_running_games(now_ms);
        for instance in instances {
            let role = instance.slot(self.context.memory);
            let Some(process) = role.process() else {
                continue;
            };
            let mark = role.liveness.last_progress_ms();
            if !self.progress_marks.is_unchanged(instance.slot, mark) {
                continue;
            }
            let hangs = match run_state(process) {
                Some(RunState::Stopped) => true,
                // Starting may take a while.
                Some(RunState::Running) => role.ready.load(Ordering::Acquire) != 0,
                _ => false,
            };
            if hangs {
                self.open_report(subject_of(&instance), None);
            }
        }
    }

    /// Follows the holder of the lock of each room in whose game a ticker has slept for long. Perhaps nobody waits for
    /// that lock and reports it: other tickers go on with other rooms.
    fn check_running_games(&mut self, now_ms: u64) {
        let memory = self.context.memory;
        for mark in &memory.header.running_games {
            let room = mark.room.load(Ordering::Acquire);
            let ran_for_ms = now_ms.saturating_sub(mark.since_ms.load(Ordering::Relaxed));
            if room == 0 || ran_for_ms < LIVENESS_POLL_MS {
                continue;
            }
            let ticker = ProcessId::from_u64(mark.process.load(Ordering::Relaxed));
            if ticker.and_then(run_state) != Some(RunState::Sleeping) {
                continue;
            }
            if let Some(record) = memory.rooms.get(RoomRef::from_id(room).index()) {
                let offset = memory.offset_of(record);
                self.open_report(Subject::Lock { offset }, None);
            }
        }
    }

    fn collect_reports(&mut self) {
        let hang_reports = &self.context.memory.header.hang_reports;
        for (place, subject) in hang_reports.pending() {
            if self.open.iter().any(|report| report.place == Some(place)) {
                continue;
            }
            if !self.open_report(subject, Some(place)) {
                hang_reports.clear(place);
            }
        }
    }

    /// Begins to follow a report, if a process is responsible for it. Says whether the report stays in the table.
    fn open_report(&mut self, subject: Subject, place: Option<usize>) -> bool {
        if self.open.iter().any(|report| report.subject == subject) {
            return false;
        }
        match self.new_report(subject, place) {
            Ok(Some(hang_detector)) => {
                self.open.push(hang_detector);
                true
            }
            Ok(None) => false,
            // Nothing is known at the moment.
            Err(()) => true,
        }
    }

    /// The report with the process that is responsible now, if there is one. An error is logged.
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
            is_killed: false,
        }))
    }

    /// Looks at the process again, and kills it if it hangs. Says whether the report is followed further.
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
            // It waits for something, which it may.
            return false;
        }
        if !open.is_killed
            && let Some(hang) = open.detector.judge(activity, self.limits_for(open.subject))
            && self.take_kill_allowance(now_ms)
        {
            self.kill(open, hang, now_ms);
            open.is_killed = true;
        }
        true
    }

    fn limits_for(&self, subject: Subject) -> HangLimits {
        match subject {
            Subject::Lock { .. } => self.limits.under_lock(),
            Subject::Connection { .. } | Subject::Role { .. } => self.limits,
        }
    }

    /// Whether another process may be killed in this second; counts it.
    fn take_kill_allowance(&mut self, now_ms: u64) -> bool {
        let (began_ms, count) = &mut self.kills;
        if now_ms.saturating_sub(*began_ms) >= 1000 {
            (*began_ms, *count) = (now_ms, 0);
        }
        *count += 1;
        *count <= WATCHDOG_KILLS_PER_SECOND_MAX
    }

    fn kill(&self, open: &OpenReport, hang: Hang, now_ms: u64) {
        let (process, memory) = (open.detector.process(), self.context.memory);
        log::error!(
            "{} {} and {hang}: killed",
            self.name_of(process),
            self.describe_hang(open.subject)
        );
        // Set before it dies, so that the process that replaces it knows.
        if let Some((_, record)) = self.find_connection(|handler| handler == process) {
            record.set_hang(hang.kind());
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
        figures.last_hang.store(hang.kind().number(), Ordering::Relaxed);
    }
}

fn subject_of(instance: &RoleInstance) -> Subject {
    let slot = u32::try_from(instance.slot).expect("bounded by the limit of roles");
    Subject::Role { slot }
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
            tickers: 2,
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
            console_password: None,
            warnings: Vec::new(),
        }));
        Context {
            memory: Memory::create(capacity).expect("memory"),
            games: Box::leak(Box::new(Games::new())),
            ipc: Box::leak(Box::new(
                IpcHandles::new(vec![game], None, None, config.keepers, config.rooms_max)
                    .expect("descriptors"),
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

    /// A stopped process that belongs to no server.
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

    /// Waits until the watchdog has killed it, which takes a while on a busy machine.
    fn expect_killed(child: &mut Bystander) {
        for _ in 0..1000 {
            if let Some(status) = child.0.try_wait().expect("a child") {
                return assert_eq!(status.signal(), Some(libc::SIGKILL));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it lives");
    }

    /// Lets the watchdog look so often that it must have decided.
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
        // An earlier process of the role, which had the same pid.
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
        // Its stop is reported only once.
        watchdog.on_child_stopped(process.pid);
        looks.for_each(|run_checks| watchdog.run_checks(run_checks * WATCHDOG_POLL_MS));
        expect_killed(&mut second);
    }
}
