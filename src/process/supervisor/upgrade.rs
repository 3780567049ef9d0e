//! The supervisor's side of an upgrade in place: it probes the new program, executes it in its own process, and,
//! being the new program by then, replaces the other processes one after another.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use mio::Interest;
use mio::unix::SourceFd;
use nix::sys::signal::Signal;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::config::Settings;
use crate::limits::{
    ROLE_READY_TIMEOUT_MS, TERMINATE_TIMEOUT_MS, UPGRADE_POLL_MS, UPGRADE_PROBE_TIMEOUT_MS,
    UPGRADE_REPLY_BYTES_MAX, UPGRADE_STALLED_AFTER_CRASHES,
};
use crate::logging;
use crate::process::ipc::IpcHandles;
use crate::process::process_table::{Context, keep_only};
use crate::process::supervisor::{
    Child, PROBE_REPLY, StartError, Supervisor, configure, prepare_process, step,
};
use crate::process::upgrade::{self, Handover, HandoverError, ProbeReply};
use crate::state::connections::{Claim, Kind};
use crate::state::header::UpgradeStage;
use crate::state::roles::Role;
use forkade_games::Games;
use shmem::sys::clock::now_ms;
use shmem::sys::exec;
use shmem::sys::process::{Exit, ForkError, ProcessId, die_with_parent, fork};

/// A new program that looks whether it can use the memory.
pub(crate) struct Check {
    /// Open on the file that is executed later, too: it cannot be exchanged in between.
    program: OwnedFd,
    process: ProcessId,
    report: File,
    reply: Vec<u8>,
    reply_is_complete: bool,
    ended: Option<Exit>,
    give_up_at_ms: u64,
}

impl Check {
    /// Notes the exit of a process, if it is this one.
    pub(crate) fn on_exit(&mut self, pid: u32, exit: Exit) -> bool {
        let is_it = pid == self.process.pid;
        if is_it {
            self.ended = Some(exit);
        }
        is_it
    }

    /// Reads what the program has written by now, up to the limit of a reply: a program that writes for ever must not
    /// keep this process from everything else.
    fn read_reply(&mut self) {
        let mut bytes = [0; 1024];
        while !self.reply_is_complete && !self.reply_is_too_long() {
            match self.report.read(&mut bytes) {
                Ok(0) => self.reply_is_complete = true,
                Ok(length) => self.reply.extend(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.reply_is_complete = true,
            }
        }
    }

    /// A reply that is too long comes from another kind of program.
    fn reply_is_too_long(&self) -> bool {
        self.reply.len() > UPGRADE_REPLY_BYTES_MAX
    }

    /// What the program has found: its version, or why it cannot continue.
    fn verdict(&self) -> Result<ProbeReply, String> {
        let ended = self.ended.map_or_else(String::new, |exit| exit.to_string());
        match serde_json::from_slice(&self.reply) {
            Ok(ProbeReply {
                objection: Some(objection),
                ..
            }) => Err(objection),
            Ok(reply) if self.ended == Some(Exit::Code(0)) => Ok(reply),
            Ok(_) => Err(format!("it agreed, but ended with {ended}")),
            Err(_) if self.reply.is_empty() => Err(format!(
                "it ended with {ended} and said nothing: it cannot run here, or is another program"
            )),
            Err(_) => Err("what it said cannot be understood: it is another program".to_owned()),
        }
    }
}

/// What is still to be replaced after an upgrade. Handlers follow the roles, and are replaced by their keepers.
#[derive(Default)]
pub(crate) struct RollingRestart {
    /// Roles in the order in which they are replaced, with their processes of the program before; `None`: it had just
    /// died.
    children: VecDeque<(usize, Option<ProcessId>)>,
    /// When the first of those processes, which was told to exit, is killed.
    kill_at_ms: Option<u64>,
    /// How often in a row the new process of the first role has failed to start.
    crashes: u32,
}

impl RollingRestart {
    /// The new program does not start. Another upgrade may be begun.
    fn is_stalled(&self) -> bool {
        self.crashes >= UPGRADE_STALLED_AFTER_CRASHES
    }
}

/// Continues with what the program before this one has handed over, until the server is told to stop.
///
/// # Errors
///
/// [`StartError`]: then the server ends, because no other process can continue it.
pub(crate) fn go_on(
    handover: &Handover,
    settings: &'static Settings,
    games: &'static Games,
) -> Result<(), StartError> {
    let config = &settings.config;
    prepare_process()?;
    let memory = handover.open_memory(config)?;
    let numbers = handover
        .ipc
        .as_ref()
        .ok_or_else(|| step("cannot go on")(io::Error::other("no sockets were handed over")))?;
    let ipc = IpcHandles::claim(numbers).map_err(step("cannot take over the sockets and channels"))?;
    configure(memory, settings);
    ipc.configure(config)
        .map_err(step("cannot set the options of the sockets"))?;
    let build = memory.header.build.fetch_add(1, Ordering::AcqRel) + 1;
    let context = Context {
        memory,
        games,
        ipc: Box::leak(Box::new(ipc)),
        config,
        settings,
        build,
    };
    let program = PathBuf::from(std::ffi::OsString::from_vec(handover.program.clone()));
    let mut supervisor = Supervisor::new(context, Some(program))?;
    supervisor.register_old_processes(handover);
    let program_now = this_program(games);
    let text = format!("{program_now} goes on; the processes are replaced one after another");
    memory.header.upgrade.enter(UpgradeStage::Replacing, &text);
    log::info!("{program_now} goes on in the place of the program before");
    supervisor.serve();
    Ok(())
}

/// Version and file of the program that runs.
fn this_program(games: &Games) -> String {
    let path = std::env::current_exe().unwrap_or_default();
    format!("version {} ({})", games.program().version(), path.display())
}

impl Supervisor {
    /// Begins an upgrade: probes the program that lies where this one was started from.
    pub(crate) fn start_upgrade(&mut self) {
        let is_in_the_middle = self
            .replacement
            .as_ref()
            .is_some_and(|replacement| !replacement.is_stalled());
        if self.stop_requests > 0 || self.probe.is_some() || is_in_the_middle {
            log::warn!("an upgrade was requested during another one or during the stop: ignored");
            return;
        }
        let slot = &self.context.memory.header.upgrade;
        slot.enter(UpgradeStage::Checking, "the new program is looking at the memory");
        match self.start_probe() {
            Ok(probe) => self.probe = Some(probe),
            Err(error) => self.refuse_upgrade(&error.to_string()),
        }
    }

    fn start_probe(&self) -> Result<Check, ProbeError> {
        let path = self.program.as_ref().ok_or(ProbeError::Unknown)?;
        let open =
            |path: &std::path::Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let program = open(path).map_err(|source| ProbeError::Open {
            path: path.clone(),
            source: source.into(),
        })?;
        let system = |step| {
            move |source: rustix::io::Errno| ProbeError::System {
                step,
                source: source.into(),
            }
        };
        // The new program gets no descriptor by which it could write to the memory.
        let memory = format!(
            "/proc/self/fd/{}",
            self.context.memory.mapping.descriptor_number()
        );
        let memory = open(memory.as_ref()).map_err(system("cannot open the memory for reading"))?;
        let (report, answer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(system("cannot make a pipe for the answer"))?;
        // Before the fork: no process may be left behind whose reply is not read. (If all else fails, it exits when
        // the pipe is closed.)
        self.poll
            .registry()
            .register(
                &mut SourceFd(&report.as_raw_fd()),
                PROBE_REPLY,
                Interest::READABLE,
            )
            .map_err(|source| ProbeError::System {
                step: "cannot poll for the answer",
                source,
            })?;
        let nothing = open("/dev/null".as_ref()).map_err(system("cannot open /dev/null"))?;
        let states = rustix::fs::memfd_create("states", MemfdFlags::CLOEXEC)
            .map_err(system("cannot create a file for the states of the matches"))?;
        let mut handover = self.handover(memory.as_raw_fd());
        handover.states = Some(states.as_raw_fd());
        let handover = handover.write()?;
        let Context {
            memory: lobby, games, ..
        } = self.context;
        let run = || -> io::Result<std::convert::Infallible> {
            die_with_parent()?;
            // Standard output belongs to the server.
            rustix::stdio::dup2_stdout(&nothing)?;
            exec::keep_open(memory.as_fd())?;
            let mut copy = BufWriter::new(File::from(states.try_clone()?));
            upgrade::states::write(lobby, games, &mut copy)?;
            copy.flush()?;
            exec::keep_open(states.as_fd())?;
            let environment = upgrade::environment_for_check(&handover, &answer)?;
            Err(exec::execute(program.as_fd(), std::env::args_os(), environment))
        };
        let process = fork(forkade_games::panics::log_panic, |new_process| {
            logging::set_role("upgrade");
            let keep = [&program, &memory, &answer, &nothing, &handover, &states].map(AsFd::as_fd);
            let Err(error) = keep_only(&new_process, &keep).and_then(|()| run());
            log::error!("the new program cannot be executed: {error}");
            let objection = Some(format!("it cannot be executed: {error}"));
            let answer_text = ProbeReply {
                version: String::new(),
                objection,
                settings: None,
            };
            let _ = rustix::io::write(&answer, &serde_json::to_vec(&answer_text).unwrap_or_default());
            1
        })?;
        Ok(Check {
            program,
            process,
            report: report.into(),
            reply: Vec::new(),
            reply_is_complete: false,
            ended: None,
            give_up_at_ms: now_ms() + UPGRADE_PROBE_TIMEOUT_MS,
        })
    }

    /// When the upgrade needs attention, if nothing happens before.
    pub(crate) fn upgrade_due_ms(&self) -> Option<u64> {
        let probe = self.probe.as_ref().map(|probe| probe.give_up_at_ms);
        let look = self.replacement.is_some().then(|| now_ms() + UPGRADE_POLL_MS);
        probe.into_iter().chain(look).min()
    }

    /// Does the next step of an upgrade, if it is due.
    pub(crate) fn continue_upgrade(&mut self, now: u64) {
        if let Some(probe) = &mut self.probe {
            probe.read_reply();
            if probe.reply_is_too_long() {
                self.cancel_probe(&format!(
                    "it says more than the {UPGRADE_REPLY_BYTES_MAX} bytes that a reply can have: it is another program"
                ));
            } else if probe.reply_is_complete && probe.ended.is_some() {
                match probe.verdict() {
                    Ok(reply) => self.execute(reply),
                    Err(objection) => self.cancel_probe(&objection),
                }
            } else if probe.give_up_at_ms <= now {
                self.cancel_probe("it did not reply in time");
            }
        } else if self.replacement.is_some() {
            self.replace_next(now);
        }
    }

    /// Ends the probe, if there is one, and refuses the upgrade.
    pub(crate) fn cancel_probe(&mut self, why: &str) {
        if let Some(probe) = self.probe.take() {
            if probe.ended.is_none() {
                let _ = probe.process.send_signal(Signal::SIGKILL);
                let _ = probe.process.wait();
            }
            self.refuse_upgrade(why);
        }
    }

    fn refuse_upgrade(&self, why: &str) {
        log::error!("the upgrade is refused, and nothing has changed: {why}");
        self.context
            .memory
            .header
            .upgrade
            .enter(UpgradeStage::Refused, why);
    }

    /// Executes the new program in this process. Returns only if that fails.
    fn execute(&mut self, reply: ProbeReply) {
        let Some(probe) = self.probe.take() else { return };
        let opened = format!("/proc/self/fd/{}", probe.program.as_raw_fd());
        let path = std::fs::read_link(opened).unwrap_or_default();
        log::info!(
            "version {} ({}) can continue: it is executed in this process",
            reply.version,
            path.display()
        );
        let memory = self.context.memory.mapping;
        let ipc = self.context.ipc;
        let attempt = || -> Result<io::Error, HandoverError> {
            let failed = HandoverError::at("cannot leave the descriptors open");
            let mut handover = self.handover(memory.descriptor_number());
            let left_open = memory.keep_open().and_then(|_| ipc.keep_open());
            handover.ipc = Some(left_open.map_err(&failed)?);
            handover.settings = reply.settings;
            let file = handover.write()?;
            let environment = upgrade::environment_to_go_on(&file).map_err(&failed)?;
            Ok(exec::execute(
                probe.program.as_fd(),
                std::env::args_os(),
                environment,
            ))
        };
        let why = match attempt() {
            Ok(error) => format!("it cannot be executed: {error}"),
            Err(error) => error.to_string(),
        };
        // The children of this process close by number what they do not need; only another program would inherit
        // these.
        self.refuse_upgrade(&why);
    }

    fn handover(&self, memory: std::os::fd::RawFd) -> Handover {
        let context = self.context;
        let name = |child: &Child| (child.instance.role.name().to_owned(), child.instance.index);
        let processes = self.children.iter().filter_map(|child| {
            let (role, index) = name(child);
            Some((role, index, child.process?))
        });
        let program = self
            .program
            .as_ref()
            .map(|program| program.as_os_str().as_bytes().to_vec());
        Handover::of(
            program.unwrap_or_default(),
            memory,
            context.config,
            context.games,
            processes.collect(),
        )
    }

    /// Registers the processes of the program before as those of the roles: each is to be replaced.
    fn register_old_processes(&mut self, handover: &Handover) {
        let now = now_ms();
        let mut replacement = RollingRestart::default();
        for index in 0..self.children.len() {
            let instance = self.children[index].instance;
            let is_it = |(role, number, _): &&(String, u32, ProcessId)| {
                role == instance.role.name() && *number == instance.index
            };
            let process = handover
                .processes
                .iter()
                .find(is_it)
                .map(|(_, _, process)| *process);
            let slot = instance.slot(self.context.memory);
            match process {
                Some(process) => {
                    slot.start_time.store(process.start_time, Ordering::Relaxed);
                    slot.pid.store(process.pid, Ordering::Release);
                    self.children[index].process = Some(process);
                    self.children[index].backoff.started(now);
                }
                // The program before did not have this role, or its process had just died.
                None => slot.pid.store(0, Ordering::Release),
            }
            replacement.children.push_back((index, process));
        }
        self.replacement = Some(replacement);
        let is_known = |(role, number, _): &&(String, u32, ProcessId)| {
            let config = self.context.config;
            let is_it = |known: &&Role| known.name() == role.as_str();
            Role::ALL
                .iter()
                .find(is_it)
                .is_some_and(|known| *number < known.count(config))
        };
        for (role, number, process) in handover.processes.iter().filter(|process| !is_known(process)) {
            log::info!("{role} {number} (process {process}) is not wanted any more, and is terminated");
            let _ = process.send_signal(Signal::SIGTERM);
        }
    }

    /// Replaces the processes of the program before, one at a time. The keepers replace the handlers.
    fn replace_next(&mut self, now: u64) {
        let Some(replacement) = &mut self.replacement else {
            return;
        };
        let Some(&(index, old)) = replacement.children.front() else {
            return self.finish_rolling_restart();
        };
        let child = &self.children[index];
        let has_come_up = child
            .instance
            .slot(self.context.memory)
            .ready
            .load(Ordering::Acquire)
            != 0;
        match child.process {
            Some(process) if Some(process) == old => match replacement.kill_at_ms {
                None => {
                    replacement.kill_at_ms = Some(now + TERMINATE_TIMEOUT_MS);
                    let _ = process.send_signal(Signal::SIGTERM);
                }
                Some(kill_at_ms) if kill_at_ms <= now => self.kill_first(process, "end", now),
                Some(_) => {}
            },
            Some(_) if has_come_up => self.finish_first(),
            Some(process) => {
                let started_at_ms = child.backoff.started_at_ms().unwrap_or(now);
                let patience_ends_ms = started_at_ms + ROLE_READY_TIMEOUT_MS;
                if patience_ends_ms.max(replacement.kill_at_ms.unwrap_or(0)) <= now {
                    self.kill_first(process, "come up", now);
                }
            }
            // It is started when its delay is over.
            None => {}
        }
    }

    fn kill_first(&mut self, process: ProcessId, what: &str, now: u64) {
        let Some(replacement) = &mut self.replacement else {
            return;
        };
        replacement.kill_at_ms = Some(now + TERMINATE_TIMEOUT_MS);
        log::warn!("process {process}, during an upgrade, did not {what} in time: killed");
        let _ = process.send_signal(Signal::SIGKILL);
    }

    /// The new process of the first role is ready.
    fn finish_first(&mut self) {
        let Some(replacement) = &mut self.replacement else {
            return;
        };
        if replacement.is_stalled() {
            let text = "the new program starts after all; the processes are replaced one after another";
            log::info!("{text}");
            let slot = &self.context.memory.header.upgrade;
            slot.enter(UpgradeStage::Replacing, text);
        }
        replacement.children.pop_front();
        (replacement.kill_at_ms, replacement.crashes) = (None, 0);
    }

    /// All roles are replaced: the upgrade is done once all handlers are, too.
    fn finish_rolling_restart(&mut self) {
        if self.any_handler_is_outdated() {
            return;
        }
        self.replacement = None;
        let text = format!("all processes run {}", this_program(self.context.games));
        log::info!("upgraded: {text}");
        let slot = &self.context.memory.header.upgrade;
        slot.enter(UpgradeStage::Done, &text);
    }

    /// Notes the exit of a role's process. Says whether it exited because it is replaced: then its successor starts
    /// without delay.
    pub(crate) fn on_replaced_exit(&mut self, index: usize, process: ProcessId) -> bool {
        let Some(replacement) = &self.replacement else {
            return false;
        };
        let was_outdated = replacement.children.front() == Some(&(index, Some(process)));
        if was_outdated {
            self.children[index].restart_at_ms = now_ms();
            self.children[index].backoff.begin_anew();
        }
        was_outdated
    }

    /// Notes that a role's new process has exited or could not be forked. If it is the one that the upgrade waits
    /// for, the upgrade stalls.
    pub(crate) fn on_start_failure(&mut self, index: usize, why: &str) {
        let name = self.name(index);
        let Some(replacement) = &mut self.replacement else {
            return;
        };
        if replacement
            .children
            .front()
            .is_none_or(|(front, _)| *front != index)
        {
            return;
        }
        replacement.crashes = replacement.crashes.saturating_add(1);
        if replacement.crashes == UPGRADE_STALLED_AFTER_CRASHES {
            let text = format!(
                "the new {name} does not come up ({why}): it is tried again, ever more rarely, and another upgrade may be begun"
            );
            log::error!("the upgrade has stalled: {text}");
            let slot = &self.context.memory.header.upgrade;
            slot.enter(UpgradeStage::Stalled, &text);
        }
    }

    fn any_handler_is_outdated(&self) -> bool {
        let memory = self.context.memory;
        memory.touched_connections().any(|(_, record)| {
            record.kind() == Kind::Game
                && record.claimed() == Claim::Held
                && record.handler_build() != self.context.build
        })
    }
}

/// Why the new program could not be probed.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("the path of the program is not known")]
    Unknown,
    #[error("cannot open {}: {source}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{step}: {source}")]
    System {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Handover(#[from] HandoverError),
    #[error("cannot fork: {0}")]
    Fork(#[from] ForkError),
}
