//! Tries rows of the matrix on real servers.

use std::io::PipeReader;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use shmem::sys::process::Exit;

use crate::calls::{Call, FORK, POLL_FOR, Role, Row, Scene};
use crate::play::{ControlPair, LIMIT, question, visit};
use crate::subject::{Footprint, Log, Subject, eventually, within};
use crate::tracer::{Fault, Plan, TraceError, Traced, follow, kill_process};

/// A small server, so that failing the setup of every record takes a short time. The watchdog kills no
/// process for being slow under a tracer.
const ARGUMENTS: [&str; 10] = [
    "--keepers",
    "1",
    "--players-max",
    "32",
    "--rooms-max",
    "16",
    "--seat-grace-ms",
    "4000",
    "--watchdog-cpu-ms",
    "0",
];

/// A role that has lived for this long is restarted at once.
const ROLE_IS_TRUSTED_AFTER: Duration = Duration::from_millis(600);

/// Attempts per second to start a role that has died three times in a row: with the delay doubled each time
/// there are five.
const FORKS_PER_SECOND_MAX: u32 = 8;

/// A logged line has arrived by then.
const LOG_ARRIVES_IN: Duration = Duration::from_secs(3);

/// The part of the matrix to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Each error with this many of the calls, spread over all of them.
    Some(u32),
    /// Each error with each of the calls.
    All,
}

impl Extent {
    /// The calls, of `count`, that fail with the error at this position of `errors`.
    fn choose(self, count: u32, place: u32, errors: u32) -> Vec<u32> {
        match self {
            Self::Some(each) if each * errors < count => (0..each)
                .map(|number| 1 + (number * errors + place) * count / (each * errors))
                .collect(),
            _ => (1..=count).collect(),
        }
    }
}

/// The result of a row.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    /// Calls that were made to fail.
    pub(crate) failed: u32,
    /// Calls that were not made this time: there were fewer.
    pub(crate) not_made: u32,
    /// Requests that were refused with a typed error and then granted.
    pub(crate) refused: u32,
    pub(crate) violation: Option<String>,
}

/// Tries rows on as few servers as possible: a new one is started only after a violation.
pub(crate) fn run(rows: &[Row], extent: Extent, report: impl Fn(&Row, &Finding)) -> Result<(), TraceError> {
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let findings = match first.scene {
            Scene::Start => vec![run_starts(first, extent)?],
            _ => run_on_one_server(rest, extent)?,
        };
        for (row, finding) in rest.iter().zip(&findings) {
            report(row, finding);
        }
        rest = &rest[findings.len()..];
    }
    Ok(())
}

/// Runs a server, and beside it `script`, which gets the server if it starts. Returns the script's result and
/// the server's exit.
fn with_server<T: Send + 'static>(
    plan: &Arc<Mutex<Plan>>,
    script: impl FnOnce(Option<Subject>, &Log) -> T + Send + 'static,
) -> Result<(std::thread::Result<T>, Exit, Vec<String>), TraceError> {
    let Traced { pid, stdout, stderr } = Traced::start(&ARGUMENTS)?;
    let log = Log::default();
    let collector = log.collect(stderr);
    let for_script = Arc::clone(plan);
    let script = std::thread::spawn(move || {
        let pid = pid.as_raw().cast_unsigned();
        let end = EndOfServer {
            pid,
            plan: Arc::clone(&for_script),
        };
        let subject = has_input(&stdout)
            .then(|| Subject::await_ready(pid, stdout, log.clone(), for_script))
            .flatten();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| script(subject, &log)));
        (result, end.bring_about())
    });
    let exit = follow(pid, plan)?;
    let (result, left) = script.join().expect("it catches panics");
    collector.join().expect("it only collects");
    wait_until_single_threaded();
    Ok((result, exit, left))
}

/// A joined thread may still be visible for a moment, and the process that forks must have one thread.
fn wait_until_single_threaded() {
    let is_alone = || std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1);
    assert!(eventually(is_alone), "a thread is left");
}

fn has_input(stdout: &PipeReader) -> bool {
    let timeout = PollTimeout::try_from(LIMIT).expect("not that long");
    let mut descriptors = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    poll(&mut descriptors, timeout).is_ok_and(|count| count > 0)
}

/// Ensures that no process is left, whatever the script does.
struct EndOfServer {
    pid: u32,
    plan: Arc<Mutex<Plan>>,
}

impl EndOfServer {
    /// Stops the server. Returns the processes that had to be killed, with their state.
    fn bring_about(self) -> Vec<String> {
        let living = || self.plan.lock().map(|plan| plan.living()).unwrap_or_default();
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.pid.cast_signed()),
            Signal::SIGTERM,
        );
        if eventually(|| living().is_empty()) {
            return Vec::new();
        }
        let left = living();
        let told = left.iter().map(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| format!("{pid} is gone"))
        });
        let told = told.collect();
        left.into_iter().for_each(kill_process);
        told
    }
}

fn run_on_one_server(rows: &[Row], extent: Extent) -> Result<Vec<Finding>, TraceError> {
    let plan = Arc::new(Mutex::new(Plan::default()));
    let rows_of_script: Vec<Row> = rows
        .iter()
        .copied()
        .take_while(|row| row.scene != Scene::Start)
        .collect();
    let (result, exit, left) = with_server(&plan, move |subject, log| {
        let mut findings = Vec::new();
        match subject.map(Fixture::prepare) {
            Some(Ok(mut fixture)) => {
                for row in &rows_of_script {
                    findings.push(fixture.play(row, extent));
                    if findings.last().is_some_and(|finding| finding.violation.is_some()) {
                        return findings;
                    }
                }
                if let Err(error) = fixture.control_pair.leave() {
                    findings.last_mut().expect("a row").violation = Some(format!("control_pair: {error:?}"));
                }
            }
            Some(Err(why)) => findings.push(violation(format!("before anything failed: {why}"))),
            None => findings.push(violation(format!("the server did not start: {}", log.text()))),
        }
        findings
    })?;
    let mut findings = result.unwrap_or_else(|panic| vec![violation(text_of(panic.as_ref()))]);
    let last = findings.last_mut().expect("a row was tried");
    if last.violation.is_none() && exit != Exit::Code(0) {
        last.violation = Some(format!("the server ended with {exit}"));
    }
    if last.violation.is_none() && !left.is_empty() {
        last.violation = Some(format!("processes were left: {left:?}"));
    }
    Ok(findings)
}

fn violation(what: String) -> Finding {
    Finding {
        violation: Some(what),
        ..Finding::default()
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic".to_owned())
}

/// The ticker frees a connection that has had neither keeper nor handler for a second.
const ORPHANS_ARE_FREED_AFTER: Duration = Duration::from_millis(1500);

/// A server with a control pair, before any failure.
struct Fixture {
    subject: Subject,
    control_pair: ControlPair,
    /// The server's footprint while idle.
    at_rest: Footprint,
    visits: u32,
    killed_at: Option<Instant>,
}

impl Fixture {
    fn prepare(subject: Subject) -> Result<Self, String> {
        let control_pair = ControlPair::enter(&subject).map_err(|error| format!("{error:?}"))?;
        visit(&subject, 0)?;
        question(&subject)?;
        // The control pair alone.
        let at_rest = subject.settled(2);
        Ok(Self {
            subject,
            control_pair,
            at_rest,
            visits: 0,
            killed_at: None,
        })
    }

    /// Tries all errors of a row.
    fn play(&mut self, row: &Row, extent: Extent) -> Finding {
        let mut finding = Finding::default();
        finding.violation = self.try_row(row, extent, &mut finding).err();
        finding
    }

    fn try_row(&mut self, row: &Row, extent: Extent, finding: &mut Finding) -> Result<(), String> {
        if row.scene == Scene::StalledUpgrade {
            return self.stall(row, finding);
        }
        self.subject.plan().count_anew();
        self.enact(row.scene)?;
        self.expect_rest()?;
        let count = self.subject.plan().count(row.role, row.call).min(row.nth_max);
        if count == 0 {
            return Err("no such call was made".to_owned());
        }
        let errors = u32::try_from(row.errors.len()).expect("a few");
        for (place, errno) in (0..).zip(row.errors) {
            for nth in extent.choose(count, place, errors) {
                let tried = self.try_call(row, *errno, nth, finding);
                tried.map_err(|what| {
                    let lines: Vec<_> = self
                        .subject
                        .log()
                        .lines()
                        .rev()
                        .take(12)
                        .map(str::to_owned)
                        .collect();
                    let lines: Vec<_> = lines.into_iter().rev().collect();
                    format!(
                        "{errno:?} at call {nth} of {count}: {what}\n    {}",
                        lines.join("\n    ")
                    )
                })?;
            }
        }
        match finding.failed {
            0 => Err("no call was made to fail".to_owned()),
            _ => Ok(()),
        }
    }

    /// Makes one call fail, and checks every promise.
    fn try_call(&mut self, row: &Row, errno: Errno, nth: u32, finding: &mut Finding) -> Result<(), String> {
        let (log_before, resumes_before) = (self.subject.log().len(), self.control_pair.resumes());
        let control_handlers = self.subject.pids("handler");
        self.subject.plan().arm(Fault {
            role: row.role,
            call: row.call,
            errno,
            nth,
            times: row.times,
            is_late: row.is_late,
        });
        let enacted = self.enact(row.scene);
        let failed = self.subject.plan().disarm();
        finding.refused += enacted?;
        let (what, forks) = (row.call.name, self.subject.plan().count(Role::Supervisor, FORK));
        if (row.scene, what) == (Scene::Upgrade, POLL_FOR.name) && forks > 0 {
            return Err("a program was tried that no process listened to".to_owned());
        }
        if failed.is_empty() {
            finding.not_made += 1;
            return self.expect_rest();
        }
        finding.failed += u32::try_from(failed.len()).expect("a few");
        // As if nothing had happened.
        let afterwards = match row.scene {
            Scene::Question => question(&self.subject).map(|()| 0)?,
            Scene::Upgrade => self.enact(Scene::Upgrade)?,
            _ => self.visit()?,
        };
        if afterwards > 0 {
            return Err("a later client was refused".to_owned());
        }
        self.control_pair.talk()?;
        self.expect_rest()?;
        let is_their_own = failed.iter().any(|pid| control_handlers.contains(pid));
        let is_second_fault = matches!(row.scene, Scene::After(_));
        if self.control_pair.resumes() != resumes_before && !is_their_own && !is_second_fault {
            return Err("the control pair has lost its connection".to_owned());
        }
        self.expect_told(row, errno, log_before)
    }

    /// Runs the row's activity. Returns the number of typed refusals.
    fn enact(&mut self, scene: Scene) -> Result<u32, String> {
        match scene {
            Scene::Visit => {
                self.control_pair.talk()?;
                let refused = self.visit()?;
                self.control_pair.talk()?;
                Ok(refused)
            }
            Scene::After(role) => {
                self.kill_one(role)?;
                self.control_pair.talk()?;
                self.visit()
            }
            Scene::Question => question(&self.subject).map(|()| 0),
            Scene::Upgrade => self.upgrade(),
            Scene::Start | Scene::StalledUpgrade => unreachable!("played in its own way"),
        }
    }

    fn visit(&mut self) -> Result<u32, String> {
        self.visits += 1;
        visit(&self.subject, self.visits)
    }

    fn kill_one(&mut self, role: Role) -> Result<(), String> {
        let name = match role {
            Role::Ticker => "ticker",
            Role::Keeper => "keeper",
            Role::Receiver => "listener",
            _ => "handler",
        };
        if let Some(killed_at) = self.killed_at {
            std::thread::sleep(ROLE_IS_TRUSTED_AFTER.saturating_sub(killed_at.elapsed()));
        }
        let before = self.subject.pids(name);
        let victim = before.first().copied().ok_or("no process to kill")?;
        kill_process(victim);
        let is_replaced = || {
            let pids = self.subject.pids(name);
            pids.len() >= before.len() && !pids.contains(&victim)
        };
        if !eventually(is_replaced) {
            return Err(format!("the {name} was not replaced"));
        }
        self.killed_at = Some(Instant::now());
        Ok(())
    }

    /// Requests an upgrade to the same program, until it is done or refused.
    fn upgrade(&mut self) -> Result<u32, String> {
        let before = self.subject.log().len();
        self.subject.signal(Signal::SIGUSR2);
        let says = |text: &str| self.subject.log()[before..].contains(text);
        let done = || says("upgraded: all processes run");
        if !eventually(|| done() || says("the upgrade is refused")) {
            return Err("an upgrade is neither done nor refused".to_owned());
        }
        let refused = u32::from(!done());
        self.control_pair.talk()?;
        Ok(refused)
    }

    /// A role of the new program does not start: the attempts become rarer, and another upgrade succeeds.
    fn stall(&mut self, row: &Row, finding: &mut Finding) -> Result<(), String> {
        let errno = row.errors[0];
        let (log_before, resumes_before) = (self.subject.log().len(), self.control_pair.resumes());
        self.subject.plan().arm(Fault {
            role: row.role,
            call: row.call,
            errno,
            nth: 1,
            times: u32::MAX,
            is_late: false,
        });
        self.begin_upgrade_that_stalls()?;
        let forks = || self.subject.plan().count(Role::Supervisor, FORK);
        let forks_before = forks();
        std::thread::sleep(Duration::from_secs(1));
        let forks = forks() - forks_before;
        if forks > FORKS_PER_SECOND_MAX {
            return Err(format!(
                "a role that does not come up was forked {forks} times in a second"
            ));
        }
        self.control_pair.talk()?;
        if row.role == Role::Keeper {
            // The dead handler's client waits: no keeper is there to replace it.
            let handler = self.subject.pids("handler").first().copied();
            kill_process(handler.ok_or("no process to kill")?);
            std::thread::sleep(ORPHANS_ARE_FREED_AFTER);
        }
        self.begin_upgrade_that_stalls()?;
        let log_of_end = self.subject.log().len();
        finding.failed += u32::try_from(self.subject.plan().disarm().len()).expect("a few");
        let done = || self.subject.log()[log_of_end..].contains("upgraded: all processes run");
        if !eventually(done) {
            return Err("the upgrade does not go on although nothing fails any more".to_owned());
        }
        self.control_pair.talk()?;
        if self.control_pair.resumes() != resumes_before {
            return Err("the control pair has lost its connection".to_owned());
        }
        self.visit()?;
        self.expect_rest()?;
        self.expect_told(row, errno, log_before)
    }

    fn begin_upgrade_that_stalls(&self) -> Result<(), String> {
        let before = self.subject.log().len();
        self.subject.signal(Signal::SIGUSR2);
        let says = |text: &str| self.subject.log()[before..].contains(text);
        match eventually(|| {
            says("goes on in the place of the program before") && says("the upgrade has stalled")
        }) {
            true => Ok(()),
            false => Err("an upgrade whose role does not come up does not stall".to_owned()),
        }
    }

    /// The server has left no process, zombie or descriptor behind.
    fn expect_rest(&self) -> Result<(), String> {
        let mut now = Footprint::new();
        let is_at_rest = || {
            now = self.subject.footprint();
            now == self.at_rest
        };
        match eventually(is_at_rest) {
            true => Ok(()),
            false => Err(format!("it holds {now:?}, and held {:?}", self.at_rest)),
        }
    }

    fn expect_told(&self, row: &Row, errno: Errno, log_before: usize) -> Result<(), String> {
        let since = || self.subject.log()[log_before..].to_owned();
        if since().contains("panicked") {
            return Err("a process panicked".to_owned());
        }
        match !row.is_told || within(LOG_ARRIVES_IN, || tells(&since(), errno)) {
            true => Ok(()),
            false => Err("the log does not tell".to_owned()),
        }
    }
}

/// Whether a warning or an error in the log names the kernel's error.
fn tells(log: &str, errno: Errno) -> bool {
    let what = format!("(os error {})", errno as i32);
    let is_end = matches!(errno, Errno::EPIPE | Errno::ECONNRESET);
    log.lines().any(|line| {
        (line.contains(" ERROR ") || line.contains(" WARN ") || line.starts_with("forkade:"))
            && (line.contains(&what) || is_end && line.contains("is closed"))
    })
}

/// Tries all errors of a row, each on a server that is starting.
fn run_starts(row: &Row, extent: Extent) -> Result<Finding, TraceError> {
    let mut finding = Finding::default();
    let plan = Arc::new(Mutex::new(Plan::default()));
    let (result, _, _) = with_server(&plan, |subject, _| subject.map(|subject| visit(&subject, 0)))?;
    if !matches!(result, Ok(Some(Ok(_)))) {
        return Ok(violation(
            "the server does not start even if nothing fails".to_owned(),
        ));
    }
    let count = count_of_start(row.role, row.call)?.min(row.nth_max);
    if count == 0 {
        return Ok(violation("no such call was made".to_owned()));
    }
    let errors = u32::try_from(row.errors.len()).expect("a few");
    for (place, errno) in (0..).zip(row.errors) {
        for nth in extent.choose(count, place, errors) {
            if let Err(what) = start_with(row, *errno, nth, &mut finding)? {
                finding.violation = Some(format!("{errno:?} at call {nth} of {count}: {what}"));
                return Ok(finding);
            }
        }
    }
    Ok(finding)
}

/// Number of calls before the server accepts connections.
fn count_of_start(role: Role, call: Call) -> Result<u32, TraceError> {
    let plan = Arc::new(Mutex::new(Plan::default()));
    let (result, _, _) = with_server(&plan, move |subject, _| {
        subject.map_or(0, |subject| subject.plan().count(role, call))
    })?;
    Ok(result.unwrap_or(0))
}

/// The server either serves, or reports why it does not start and leaves nothing behind.
fn start_with(
    row: &Row,
    errno: Errno,
    nth: u32,
    finding: &mut Finding,
) -> Result<Result<(), String>, TraceError> {
    let plan = Arc::new(Mutex::new(Plan::default()));
    plan.lock().expect("no other thread has it").arm(Fault {
        role: row.role,
        call: row.call,
        errno,
        nth,
        times: row.times,
        is_late: false,
    });
    let (result, exit, left) = with_server(&plan, |subject, log| {
        let Some(subject) = subject else {
            return (None, log.clone());
        };
        subject.plan().disarm();
        (Some(visit(&subject, 0)), log.clone())
    })?;
    let Ok((served, log)) = result else {
        return Ok(Err("a panic".to_owned()));
    };
    finding.failed += 1;
    let text = log.text();
    Ok(match (served, exit) {
        _ if !left.is_empty() => Err(format!("processes were left: {left:?}\n{text}")),
        _ if text.contains("panicked") => Err(format!("a process panicked\n{text}")),
        (Some(Ok(_)), Exit::Code(0)) => Ok(()),
        (None, Exit::Code(1..)) if tells(&text, errno) => {
            finding.refused += 1;
            Ok(())
        }
        (served, exit) => Err(format!("{served:?}, {exit}\n{text}")),
    })
}
