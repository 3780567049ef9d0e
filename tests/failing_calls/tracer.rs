//! The real server, stopped at each of the system calls that a test is about, so that one of them can be made to fail.
//!
//! A system-call filter, put on before the server's program is executed and inherited by all it forks, reports those calls to this
//! process, which traces all of them. Failing, a call is skipped, and its result is what the kernel would have given.

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

/// Exit status of a child that may not be traced, or may not have a filter.
const NOT_PERMITTED: u8 = 77;

/// A call that is to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) role: Role,
    pub(crate) call: Call,
    pub(crate) errno: Errno,
    /// Which one of those calls, from 1.
    pub(crate) nth: u32,
    /// How many in a row fail.
    pub(crate) times: u32,
    /// Who has called learns of it only after [`LATE`].
    pub(crate) is_late: bool,
}

/// Long enough for a handler to greet.
const LATE: Duration = Duration::from_millis(50);

/// What the tracer is to do, and what it has done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    fault: Option<Fault>,
    met: u32,
    failed: Vec<u32>,
    /// How often each role has made each call.
    counts: BTreeMap<(Role, &'static str), u32>,
    /// Processes that have not ended.
    living: BTreeSet<i32>,
}

impl Plan {
    /// From now on calls are counted, and fail as `fault` says.
    pub(crate) fn arm(&mut self, fault: Fault) {
        self.count_anew();
        self.fault = Some(fault);
    }

    /// No more faults. Gives the pids of those whose calls have failed.
    pub(crate) fn disarm(&mut self) -> Vec<u32> {
        self.fault = None;
        std::mem::take(&mut self.failed)
    }

    /// From now on calls are counted, and none fails.
    pub(crate) fn count_anew(&mut self) {
        *self = Self {
            living: std::mem::take(&mut self.living),
            ..Self::default()
        };
    }

    /// Processes that have not ended, whoever's children they are.
    pub(crate) fn living(&self) -> Vec<u32> {
        self.living.iter().map(|pid| pid.cast_unsigned()).collect()
    }

    /// How often a role has made a call since then.
    pub(crate) fn count(&self, role: Role, call: Call) -> u32 {
        self.counts.get(&(role, call.name)).copied().unwrap_or(0)
    }

    /// Whether this call is to fail, and with what.
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

/// Why there is no server to trace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// A container's filter, say, forbids it.
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

/// A server that is about to begin.
pub(crate) struct Traced {
    pub(crate) pid: Pid,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

impl Traced {
    /// Starts the server's program, and stops it before its first instruction. From then on only [`Traced::follow`] lets it go on.
    /// To be called by a process with one thread.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, TraceError> {
        let (stdout, output) = io::pipe().map_err(TraceError::Pipe)?;
        let (stderr, errors) = io::pipe().map_err(TraceError::Pipe)?;
        let filter = filter();
        let mut command = Command::new(env!("CARGO_BIN_EXE_forkade"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"])
            .args(arguments)
            // No setting of the server's.
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

/// Lets the server and all it forks run, failing calls as planned, until the last of them has ended. Gives the supervisor's end. To be
/// called by the thread that has started it.
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
            // Somebody is held.
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
            // A new process begins so.
            Ok(WaitStatus::Stopped(pid, Signal::SIGSTOP)) => go_on(pid, None)?,
            Ok(WaitStatus::Stopped(pid, signal)) => go_on(pid, Some(signal))?,
            Ok(_) => {}
        }
    }
}

fn locked(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that was killed meanwhile cannot go on, which is no error.
fn go_on(pid: Pid, signal: Option<Signal>) -> Result<(), TraceError> {
    match ptrace::cont(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(trace_error(error)),
    }
}

/// Who forked whom.
struct Family {
    root: Pid,
    parents: HashMap<Pid, Pid>,
    /// Who goes on only after a while.
    held: Vec<(Pid, Instant)>,
    /// Whose end was told before their birth: what has happened to several processes is told in any order.
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

    /// Lets those go on whose time has come.
    fn release(&mut self) -> Result<(), TraceError> {
        let now = Instant::now();
        for (pid, _) in self.held.extract_if(.., |(_, until)| *until <= now) {
            go_on(pid, None)?;
        }
        Ok(())
    }

    /// Lets the call fail, if it is to. Says whether the process is held.
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
        // There is no such call, so it is skipped; and this is its result.
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

    /// What a process is, also before it has got its name.
    fn role(&self, pid: Pid) -> Role {
        let parent = self.parents.get(&pid).copied().unwrap_or(self.root);
        match name_of(pid).as_str() {
            _ if pid == self.root => Role::Supervisor,
            "ticker" => Role::Ticker,
            "listener" => Role::Listener,
            "keeper" if parent == self.root => Role::Keeper,
            "keeper" | "handler" => Role::Handler,
            "console" => Role::Console,
            _ => Role::Beginner,
        }
    }
}

fn name_of(pid: Pid) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Kills a process of the server's.
pub(crate) fn kill_process(pid: u32) {
    // It may have ended just now.
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
