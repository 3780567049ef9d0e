//! Runs the real server, stops it at each system call of interest, and can make one of them fail.
//!
//! A seccomp filter, installed before the server's program is executed and inherited by all its children,
//! reports these calls to this process, which traces all of them. A failing call is skipped, and its result
//! is replaced by the kernel's error.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use shmem::sys::process::{Exit, ForkError, fork};

use crate::calls::{Call, Role};

/// Exit status of a child that cannot be traced or cannot install a filter.
const NOT_PERMITTED: u8 = 77;

/// A call to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) role: Role,
    pub(crate) call: Call,
    pub(crate) errno: Errno,
    /// The position of the first failing call, from 1.
    pub(crate) nth: u32,
    /// Number of consecutive calls that fail.
    pub(crate) times: u32,
    /// The caller gets the error only after [`LATE`].
    pub(crate) is_late: bool,
}

/// Long enough for a handler to complete a handshake.
const LATE: Duration = Duration::from_millis(50);

/// The tracer's orders and its results.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    fault: Option<Fault>,
    met: u32,
    failed: Vec<u32>,
    /// Number of calls, by role and call.
    counts: BTreeMap<(Role, &'static str), u32>,
    /// Processes that have not ended.
    living: BTreeSet<i32>,
}

impl Plan {
    /// Starts counting calls, which fail as `fault` says.
    pub(crate) fn arm(&mut self, fault: Fault) {
        self.count_anew();
        self.fault = Some(fault);
    }

    /// Ends the fault. Returns the pids of the processes whose calls have failed.
    pub(crate) fn disarm(&mut self) -> Vec<u32> {
        self.fault = None;
        std::mem::take(&mut self.failed)
    }

    /// Starts counting calls, none of which fails.
    pub(crate) fn count_anew(&mut self) {
        *self = Self {
            living: std::mem::take(&mut self.living),
            ..Self::default()
        };
    }

    /// Processes that have not ended, including orphans.
    pub(crate) fn living(&self) -> Vec<u32> {
        self.living.iter().map(|pid| pid.cast_unsigned()).collect()
    }

    /// Number of a role's calls since then.
    pub(crate) fn count(&self, role: Role, call: Call) -> u32 {
        self.counts.get(&(role, call.name)).copied().unwrap_or(0)
    }

    /// The error with which this call fails, if it does.
    fn judge(&mut self, role: Role, call: Call, pid: Pid) -> Option<Fault> {
        *self.counts.entry((role, call.name)).or_default() += 1;
        let fault = self
            .fault
            .filter(|fault| (fault.role, fault.call.name) == (role, call.name))?;
        self.met += 1;
        let fails = self.met >= fault.nth && self.met - fault.nth < fault.times;
        fails.then(|| {
            self.failed.push(pid.as_raw().cast_unsigned());
            fault
        })
    }
}

/// Why the server cannot be traced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// For example, a container's filter forbids it.
    #[error("this machine does not let processes be traced")]
    NotPermitted,
    #[error("the server cannot be forked")]
    Fork(#[from] ForkError),
    #[error("no pipe")]
    Pipe(#[source] io::Error),
    #[error("ptrace or waitpid failed")]
    Trace(#[source] io::Error),
}

fn trace_error(errno: Errno) -> TraceError {
    TraceError::Trace(errno.into())
}

/// A server stopped before its first instruction.
pub(crate) struct Traced {
    pub(crate) pid: Pid,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

impl Traced {
    /// Starts the server's program and stops it before its first instruction; [`Traced::follow`] lets it
    /// continue. To be called by a process with one thread.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, TraceError> {
        let (stdout, output) = io::pipe().map_err(TraceError::Pipe)?;
        let (stderr, errors) = io::pipe().map_err(TraceError::Pipe)?;
        let filter = filter();
        let mut command = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"])
            .args(arguments)
            // Not a setting of the server.
            .env_remove("FORKADE_TEST_CALLS")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let child = fork(
            || {},
            move |_| {
                if ptrace::traceme().is_err() {
                    return NOT_PERMITTED;
                }
                raise(Signal::SIGSTOP).expect("a process can stop itself");
                if seccompiler::apply_filter(&filter).is_err() {
                    return NOT_PERMITTED;
                }
                let error = command.exec();
                panic!("the server's program cannot be executed: {error}")
            },
        )?;
        let pid = Pid::from_raw(child.pid.cast_signed());
        match waitpid(pid, None).map_err(trace_error)? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            _ => return Err(TraceError::NotPermitted),
        }
        let options = Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::setoptions(pid, options).map_err(trace_error)?;
        Ok(Self { pid, stdout, stderr })
    }
}

/// Lets the server and all its children run, and fails calls as planned, until the last process has ended.
/// Returns the supervisor's exit. To be called by the thread that has started the server.
pub(crate) fn follow(root: Pid, plan: &Mutex<Plan>) -> Result<Exit, TraceError> {
    let mut family = Family {
        root,
        parents: HashMap::from([(root, root)]),
        held: Vec::new(),
        ended_early: HashSet::new(),
    };
    let mut ended = Exit::Code(NOT_PERMITTED);
    locked(plan).living.insert(root.as_raw());
    go_on(root, None)?;
    loop {
        match waitpid(None, Some(family.manner_of_waiting())) {
            Err(Errno::EINTR) => {}
            // A process is being delayed.
            Ok(WaitStatus::StillAlive) => {
                std::thread::sleep(Duration::from_millis(1));
                family.release()?;
            }
            Err(Errno::ECHILD) => return Ok(ended),
            Err(error) => return Err(trace_error(error)),
            Ok(WaitStatus::Exited(pid, code)) => {
                family.remove(pid, plan);
                if pid == root {
                    ended = Exit::Code(u8::try_from(code).unwrap_or(u8::MAX));
                }
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                family.remove(pid, plan);
                if pid == root {
                    ended = Exit::Signal(signal as i32);
                }
            }
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                match event {
                    libc::PTRACE_EVENT_SECCOMP if family.stopped_at_call(pid, plan)? => continue,
                    libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                        if let Ok(child) = ptrace::getevent(pid) {
                            let child = Pid::from_raw(i32::try_from(child).expect("a pid"));
                            family.enter(child, pid, plan);
                        }
                    }
                    _ => {}
                }
                go_on(pid, None)?;
            }
            // A new process begins with a stop.
            Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)) => go_on(pid, None)?,
            Ok(WaitStatus::Stopped(pid, signal)) => go_on(pid, Some(signal))?,
            Ok(_) => {}
        }
    }
}

fn locked(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// It is no error if the process was killed meanwhile.
fn go_on(pid: Pid, signal: Option<Signal>) -> Result<(), TraceError> {
    match ptrace::cont(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(trace_error(error)),
    }
}

/// The parent of each process.
struct Family {
    root: Pid,
    parents: HashMap<Pid, Pid>,
    /// Processes that continue after a delay.
    held: Vec<(Pid, Instant)>,
    /// Processes whose end was reported before their fork: events of several processes come in any order.
    ended_early: HashSet<Pid>,
}

impl Family {
    fn enter(&mut self, child: Pid, parent: Pid, plan: &Mutex<Plan>) {
        if !self.ended_early.remove(&child) {
            self.parents.insert(child, parent);
            locked(plan).living.insert(child.as_raw());
        }
    }

    fn remove(&mut self, pid: Pid, plan: &Mutex<Plan>) {
        if self.parents.remove(&pid).is_none() {
            self.ended_early.insert(pid);
        }
        locked(plan).living.remove(&pid.as_raw());
    }

    fn manner_of_waiting(&self) -> WaitPidFlag {
        match self.held.is_empty() {
            true => WaitPidFlag::__WALL,
            false => WaitPidFlag::__WALL | WaitPidFlag::WNOHANG,
        }
    }

    /// Continues the processes whose delay is over.
    fn release(&mut self) -> Result<(), TraceError> {
        let now = Instant::now();
        for (pid, _) in self.held.extract_if(.., |(_, until)| *until <= now) {
            go_on(pid, None)?;
        }
        Ok(())
    }

    /// Fails the call if the plan says so. Returns whether the process is delayed.
    fn stopped_at_call(&mut self, pid: Pid, plan: &Mutex<Plan>) -> Result<bool, TraceError> {
        let mut registers = match ptrace::getregs(pid) {
            Err(Errno::ESRCH) => return Ok(false),
            registers => registers.map_err(trace_error)?,
        };
        let arguments = [registers.rdi, registers.rsi];
        let Some(call) = Call::of(registers.orig_rax.cast_signed(), arguments) else {
            return Ok(false);
        };
        let role = self.role(pid);
        let fails = locked(plan).judge(role, call, pid);
        let Some(fault) = fails else { return Ok(false) };
        // There is no such call, so the kernel skips it; this is its result.
        registers.orig_rax = u64::MAX;
        registers.rax = (-i64::from(fault.errno as i32)).cast_unsigned();
        match ptrace::setregs(pid, registers) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(trace_error(error)),
        }
        if fault.is_late {
            self.held.push((pid, Instant::now() + LATE));
        }
        Ok(fault.is_late)
    }

    /// The role of a process, even before it has set its name.
    fn role(&self, pid: Pid) -> Role {
        let parent = self.parents.get(&pid).copied().unwrap_or(self.root);
        match name_of(pid).as_str() {
            _ if pid == self.root => Role::Supervisor,
            "ticker" => Role::Ticker,
            "listener" => Role::Receiver,
            "keeper" if parent == self.root => Role::Keeper,
            "keeper" | "handler" | "reception" => Role::Handler,
            "console" => Role::Console,
            _ => Role::Beginner,
        }
    }
}

fn name_of(pid: Pid) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Kills a process of the server.
pub(crate) fn kill_process(pid: u32) {
    // The process may have ended just now.
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
}

fn filter() -> BpfProgram {
    let rules = Call::all_numbers().map(|number| (number, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Trace(0),
        TargetArch::x86_64,
    );
    let program = filter.and_then(BpfProgram::try_from);
    program.expect("the filter is a program")
}
