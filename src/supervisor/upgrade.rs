//! The supervisor's side of an upgrade in place: it lets the new program look, puts it into its own process, and, being the new
//! one by then, replaces the other processes one after another.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use mio::Interest;
use mio::unix::SourceFd;
use nix::sys::signal::Signal;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::{ANSWER, Filled, StartError, Supervisor, configure, prepare_process, step};
use crate::config::Settings;
use crate::games::Games;
use crate::limits::{
    TERMINATE_TIMEOUT_MS, UPGRADE_CHECK_TIMEOUT_MS, UPGRADE_LOOK_EVERY_MS, UPGRADE_TEXT_BYTES,
};
use crate::lobby::connections::{Claim, Kind};
use crate::lobby::memory::UpgradeStage;
use crate::logging;
use crate::role::{Context, ROLES};
use crate::sys::clock::now_ms;
use crate::sys::exec;
use crate::sys::memory::Access;
use crate::sys::process::{Exit, ForkError, ProcessId, die_with_parent, fork};
use crate::upgrade::{self, Answer, Handover, HandoverError};
use crate::wiring::Wiring;

/// A new program that looks at the memory.
pub(super) struct Check {
    /// Open on the file that is executed in the end, too: nobody can put another in its place meanwhile.
    program: OwnedFd,
    process: ProcessId,
    report: File,
    said: Vec<u8>,
    has_said_all: bool,
    ended: Option<Exit>,
    give_up_at_ms: u64,
}

impl Check {
    /// Takes note of the end of a process, if it is this one.
    pub(super) fn note_end(&mut self, pid: u32, exit: Exit) -> bool {
        let is_it = pid == self.process.pid;
        if is_it {
            self.ended = Some(exit);
        }
        is_it
    }

    /// Takes in what the program has said by now.
    fn listen(&mut self) {
        let mut bytes = [0; 1024];
        while !self.has_said_all {
            match self.report.read(&mut bytes) {
                // A program that says more than an answer can have is none of ours.
                Ok(0) => self.has_said_all = true,
                Ok(length) if self.said.len() <= 4 * UPGRADE_TEXT_BYTES => self.said.extend(&bytes[..length]),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.has_said_all = true,
            }
        }
    }

    /// What the program has said in the end: its version, or why it will not do.
    fn verdict(&self) -> Result<String, String> {
        let ended = self.ended.map_or_else(String::new, |exit| exit.to_string());
        match serde_json::from_slice(&self.said) {
            Ok(Answer {
                objection: Some(objection),
                ..
            }) => Err(objection),
            Ok(Answer {
                version,
                objection: None,
            }) if self.ended == Some(Exit::Code(0)) => Ok(version),
            Ok(_) => Err(format!("it said yes, and ended with {ended}")),
            Err(_) if self.said.is_empty() => Err(format!(
                "it ended with {ended} and said nothing: it cannot run here, or is another program"
            )),
            Err(_) => Err("what it said cannot be understood: it is another program".to_owned()),
        }
    }
}

/// Goes on with what the program before this one has handed over, until the server is told to stop.
///
/// # Errors
///
/// [`StartError`]: then the server has come to its end, for nobody else can go on with it.
pub(crate) fn go_on(
    handover: &Handover,
    settings: &'static Settings,
    games: &'static Games,
) -> Result<(), StartError> {
    let config = &settings.config;
    prepare_process()?;
    let memory = handover.open_memory(Access::ReadAndWrite, config)?;
    let numbers = handover
        .wiring
        .as_ref()
        .ok_or_else(|| step("cannot go on")(io::Error::other("no sockets were handed over")))?;
    let wiring = Wiring::claim(numbers).map_err(step("cannot take over the sockets and channels"))?;
    configure(memory, config);
    let build = memory.header.build.fetch_add(1, Ordering::AcqRel) + 1;
    let context = Context {
        memory,
        games,
        wiring: Box::leak(Box::new(wiring)),
        config,
        settings,
        build,
    };
    let program = PathBuf::from(std::ffi::OsString::from_vec(handover.program.clone()));
    let mut supervisor = Supervisor::new(context, Some(program))?;
    supervisor.take_over_posts(handover);
    memory.header.upgrade.enter(
        UpgradeStage::Replacing,
        concat!(
            "version ",
            env!("CARGO_PKG_VERSION"),
            " goes on; the processes are replaced one after another"
        ),
    );
    log::info!(
        "version {} goes on in the place of the program before",
        env!("CARGO_PKG_VERSION")
    );
    supervisor.serve();
    Ok(())
}

impl Supervisor {
    /// Lets the program that lies where this one was started from look at the memory.
    pub(super) fn begin_upgrade(&mut self) {
        if self.told_to_stop > 0 || self.check.is_some() || self.is_replacing() {
            log::warn!("an upgrade was asked for in the middle of another, or of the stop: not done");
            return;
        }
        let slot = &self.context.memory.header.upgrade;
        slot.enter(UpgradeStage::Checking, "the new program is looking at the memory");
        match self.start_check() {
            Ok(check) => self.check = Some(check),
            Err(error) => self.refuse_upgrade(&error.to_string()),
        }
    }

    fn start_check(&self) -> Result<Check, CheckError> {
        let path = self.program.as_ref().ok_or(CheckError::Unknown)?;
        let open =
            |path: &std::path::Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let program = open(path).map_err(|source| CheckError::Open {
            path: path.clone(),
            source: source.into(),
        })?;
        let system = |step| {
            move |source: rustix::io::Errno| CheckError::System {
                step,
                source: source.into(),
            }
        };
        // The new program gets no descriptor by which it could write to the memory.
        let memory = format!(
            "/proc/self/fd/{}",
            self.context.memory.mapping.as_fd().as_raw_fd()
        );
        let memory = open(memory.as_ref()).map_err(system("cannot open the memory for reading"))?;
        let (report, answer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(system("cannot make a pipe for the answer"))?;
        let nothing = open("/dev/null".as_ref()).map_err(system("cannot open /dev/null"))?;
        let handover = self.handover(memory.as_raw_fd()).write()?;
        let run = || -> io::Result<std::convert::Infallible> {
            die_with_parent()?;
            // Standard output is the server's own.
            rustix::stdio::dup2_stdout(&nothing)?;
            exec::keep_open(memory.as_fd())?;
            let environment = upgrade::environment_for_check(&handover, &answer)?;
            Err(exec::execute(program.as_fd(), std::env::args_os(), environment))
        };
        let process = fork(logging::log_panic, |new_process| {
            logging::set_role("upgrade");
            let keep = [&program, &memory, &answer, &nothing, &handover].map(AsFd::as_fd);
            let Err(error) = new_process.keep_only(&keep).and_then(|()| run());
            log::error!("the new program cannot be executed: {error}");
            let objection = Some(format!("it cannot be executed: {error}"));
            let answer_text = Answer {
                version: String::new(),
                objection,
            };
            let _ = rustix::io::write(&answer, &serde_json::to_vec(&answer_text).unwrap_or_default());
            1
        })?;
        let raw = report.as_raw_fd();
        self.poll
            .registry()
            .register(&mut SourceFd(&raw), ANSWER, Interest::READABLE)
            .map_err(|source| CheckError::System {
                step: "cannot poll",
                source,
            })?;
        Ok(Check {
            program,
            process,
            report: report.into(),
            said: Vec::new(),
            has_said_all: false,
            ended: None,
            give_up_at_ms: now_ms() + UPGRADE_CHECK_TIMEOUT_MS,
        })
    }

    /// When the upgrade needs this process's attention, if nothing happens before.
    pub(super) fn upgrade_due_ms(&self) -> Option<u64> {
        let check = self.check.as_ref().map(|check| check.give_up_at_ms);
        let look = self.is_replacing().then(|| now_ms() + UPGRADE_LOOK_EVERY_MS);
        check.into_iter().chain(look).min()
    }

    /// Does the next step of an upgrade, if it can be done now.
    pub(super) fn go_on_with_upgrade(&mut self, now: u64) {
        if let Some(check) = &mut self.check {
            check.listen();
            if check.has_said_all && check.ended.is_some() {
                match check.verdict() {
                    Ok(version) => self.execute(&version),
                    Err(objection) => self.give_up_check(&objection),
                }
            } else if check.give_up_at_ms <= now {
                self.give_up_check("it did not answer in time");
            }
        } else if self.is_replacing() {
            self.replace_next(now);
        }
    }

    /// Ends the check, if there is one, and says why the upgrade is not to be.
    pub(super) fn give_up_check(&mut self, why: &str) {
        if let Some(check) = self.check.take() {
            if check.ended.is_none() {
                let _ = check.process.send_signal(Signal::SIGKILL);
                let _ = check.process.wait();
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

    /// Puts the new program into this process. Returns only if that fails.
    fn execute(&mut self, version: &str) {
        let Some(check) = self.check.take() else { return };
        log::info!("version {version} can go on: it is put into this process");
        let memory = self.context.memory.mapping.as_fd();
        let wiring = self.context.wiring;
        let attempt = || -> Result<io::Error, HandoverError> {
            let failed = HandoverError::at("cannot leave the descriptors open");
            let mut handover = self.handover(memory.as_raw_fd());
            let left_open = exec::keep_open(memory).and_then(|_| wiring.keep_open());
            handover.wiring = Some(left_open.map_err(&failed)?);
            let file = handover.write()?;
            let environment = upgrade::environment_to_go_on(&file).map_err(&failed)?;
            Ok(exec::execute(
                check.program.as_fd(),
                std::env::args_os(),
                environment,
            ))
        };
        let why = match attempt() {
            Ok(error) => format!("it cannot be executed: {error}"),
            Err(error) => error.to_string(),
        };
        // Children of this process close what they do not need by number; only another program would inherit these.
        self.refuse_upgrade(&why);
    }

    fn handover(&self, memory: std::os::fd::RawFd) -> Handover {
        let context = self.context;
        let name = |filled: &Filled| (ROLES[filled.post.role].name.to_owned(), filled.post.index);
        let processes = self.posts.iter().filter_map(|filled| {
            let (role, index) = name(filled);
            Some((role, index, filled.process?))
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

    /// The posts are filled by the processes of the program before: each is to be replaced.
    fn take_over_posts(&mut self, handover: &Handover) {
        let now = now_ms();
        for index in 0..self.posts.len() {
            let post = self.posts[index].post;
            let is_it = |(role, number, _): &&(String, u32, ProcessId)| {
                role == ROLES[post.role].name && *number == post.index
            };
            let process = handover
                .processes
                .iter()
                .find(is_it)
                .map(|(_, _, process)| *process);
            let slot = post.slot(self.context.memory);
            match process {
                Some(process) => {
                    slot.start_time.store(process.start_time, Ordering::Relaxed);
                    slot.pid.store(process.pid, Ordering::Release);
                    self.posts[index].process = Some(process);
                    self.posts[index].started_at_ms = now;
                    self.outdated.push_back((index, process));
                }
                // A role that the program before did not have, or whose process had just died.
                None => slot.pid.store(0, Ordering::Release),
            }
        }
        let is_known =
            |(role, _, _): &&(String, u32, ProcessId)| ROLES.iter().any(|kind| kind.name == role.as_str());
        for (role, _, process) in handover.processes.iter().filter(|process| !is_known(process)) {
            log::info!("the {role} (process {process}) has no place in this version, and is ended");
            let _ = process.send_signal(Signal::SIGTERM);
        }
    }

    fn is_replacing(&self) -> bool {
        let (_, stage, _) = self.context.memory.header.upgrade.read();
        stage == UpgradeStage::Replacing
    }

    /// Replaces the processes of the program before, one at a time; the handlers are the keepers' to replace.
    fn replace_next(&mut self, now: u64) {
        let Some(&(index, old)) = self.outdated.front() else {
            if !self.some_handler_is_outdated() {
                let text = format!("all processes run version {}", env!("CARGO_PKG_VERSION"));
                log::info!("upgraded: {text}");
                self.context
                    .memory
                    .header
                    .upgrade
                    .enter(UpgradeStage::Done, &text);
            }
            return;
        };
        let slot = self.posts[index].post.slot(self.context.memory);
        match (self.posts[index].process, self.outdated_by_ms) {
            (Some(process), None) if process == old => {
                self.outdated_by_ms = Some(now + TERMINATE_TIMEOUT_MS);
                let _ = old.send_signal(Signal::SIGTERM);
            }
            (Some(process), Some(by_ms)) if process == old => {
                if by_ms <= now {
                    log::warn!("the {} did not end in time: killed", self.name(index));
                    let _ = old.send_signal(Signal::SIGKILL);
                }
            }
            (Some(_), _) if slot.ready.load(Ordering::Acquire) != 0 => {
                self.outdated.pop_front();
                self.outdated_by_ms = None;
            }
            (Some(_), _) => {}
            // It ended because it was told to: its successor need not wait.
            (None, _) => self.posts[index].restart_at_ms = now,
        }
    }

    /// Whether it ends because it is to be replaced by one of the new program.
    pub(super) fn is_outdated(&self, index: usize) -> bool {
        self.outdated
            .front()
            .is_some_and(|(outdated, _)| *outdated == index)
    }

    fn some_handler_is_outdated(&self) -> bool {
        let memory = self.context.memory;
        memory.touched_connections().any(|(_, record)| {
            record.kind() == Kind::Game
                && record.claimed() == Claim::Held
                && record.handler_build() != self.context.build
        })
    }
}

/// Why the new program could not be made to look.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("it is not known where the program lies")]
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
