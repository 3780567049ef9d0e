//! The supervisor: creates the memory and the listening sockets, forks the roles, starts them again when they exit,
//! and stops all.
//!
//! An upgrade in place puts another program into this process: see [`upgrade`].
//!
//! It must never take a lock: if it hung under one, no process could kill it and free the lock. It must never read a
//! byte that a client sent, hold a client's socket or start a thread: what it does not touch cannot kill it, and when
//! it exits, the server ends.

mod backoff;
mod game_sockets;
pub(crate) mod upgrade;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;

use crate::config::Settings;
use crate::limits::{ROLE_READY_TIMEOUT_MS, TERMINATE_TIMEOUT_MS};
use crate::logging::{self, DropCounters, LogLimits};
use crate::process::ipc::IpcHandles;
use crate::process::process_table::{Context, RoleStart};
use crate::process::supervisor::backoff::Backoff;
use crate::process::supervisor::game_sockets::GameSocketsError;
use crate::process::unix_console::{self, UnixConsoleError};
use crate::process::upgrade::HandoverError;
use crate::process::watchdog::Watchdog;
use crate::state::buffers;
use crate::state::incidents::IncidentKind;
use crate::state::layout::{Capacity, Memory};
use crate::state::roles::{Role, RoleInstance};
use forkade_games::Games;
use shmem::sys::clock::now_ms;
use shmem::sys::heap::use_up_heap_holes;
use shmem::sys::process::{
    ChildEvent, ForkError, ProcessId, Reaped, become_subreaper, child_events, disable_core_dumps, fork,
    raise_open_file_limit, set_name,
};
use shmem::sys::signals::{Signals, ignore_broken_pipes, reset_ignored};
use shmem::sys::sockets::{ListenError, ListenOptions, listen};

const SIGNALS: Token = Token(0);
const READY: Token = Token(1);
/// The reply of the new program that an upgrade probes.
const PROBE_REPLY: Token = Token(2);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// It cannot listen for clients.
    #[error("{0}")]
    Game(#[from] GameSocketsError),
    /// It cannot listen for operators.
    #[error("{0}")]
    Console(#[from] ListenError),
    /// It cannot listen on the console's unix socket.
    #[error("{0}")]
    UnixConsole(#[from] UnixConsoleError),
    /// A step of the start failed.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The handover is missing or cannot be used.
    #[error("cannot go on in the place of another program: {0}")]
    Handover(#[from] HandoverError),
    /// A role's process was not forked.
    #[error("cannot fork the {role}: {source}")]
    Fork {
        /// Its name.
        role: String,
        /// Why not.
        #[source]
        source: ForkError,
    },
    /// A role's process exited before it reported ready, or did not report in time.
    #[error("the {role} did not come up: {why}")]
    NotReady {
        /// Its name.
        role: String,
        /// What became of it.
        why: String,
    },
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Step { step, source }
}

/// Runs the server until it is told to stop.
///
/// # Errors
///
/// [`StartError`]; whatever was started has been stopped again.
pub(crate) fn run(settings: &'static Settings, games: &'static Games) -> Result<(), StartError> {
    let config = &settings.config;
    prepare_process()?;
    let options = ListenOptions {
        backlog: config.backlog,
        send_buffer_bytes: config.send_buffer_bytes,
    };
    let game_sockets = game_sockets::open(config.listen.0, options)?;
    let console = config
        .console
        .map(|address| listen(address, options))
        .transpose()?;
    let console_unix = config
        .console_unix
        .map(|path| unix_console::listen(path, config.backlog))
        .transpose()?;
    // Another server could replace the file as soon as no process listens: so it is removed before.
    let kept = console_unix.as_ref().map(UnixListener::try_clone);
    let started = start(settings, games, (game_sockets, console, console_unix));
    if let (Err(_), Some(path)) = (&started, config.console_unix) {
        unix_console::unlink(path);
    }
    drop(kept);
    started?.serve();
    Ok(())
}

/// The sockets that the server listens on: for players, and for operators.
type ListeningSockets = (Vec<TcpListener>, Option<TcpListener>, Option<UnixListener>);

fn start(
    settings: &'static Settings,
    games: &'static Games,
    (game_sockets, console, console_unix): ListeningSockets,
) -> Result<Supervisor, StartError> {
    let config = &settings.config;
    let game_addresses = game_sockets
        .iter()
        .map(|socket| Ok(socket.local_addr()?.to_string()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(step("cannot tell the game's addresses"))?;
    let console_address = console
        .as_ref()
        .map(std::net::TcpListener::local_addr)
        .transpose()
        .map_err(step("cannot tell the console's address"))?;
    let capacity = Capacity {
        players: config.players_max,
        rooms: config.rooms_max,
        keepers: config.keepers,
    };
    let memory = Memory::create(capacity).map_err(step(
        "cannot create the shared memory (lower players_max and rooms_max, or raise the limits of memory)",
    ))?;
    configure(memory, settings);
    let ipc = IpcHandles::new(
        game_sockets,
        console,
        console_unix,
        config.keepers,
        config.rooms_max,
    );
    let context = Context {
        memory,
        games,
        ipc: Box::leak(Box::new(
            ipc.map_err(step("cannot make the channels between processes"))?,
        )),
        config,
        build: 0,
        settings,
    };
    let mut supervisor = Supervisor::new(context, own_program())?;
    if let Err(error) = supervisor.start_all() {
        supervisor.stop_all();
        return Err(error);
    }
    announce(&game_addresses, console_address, config.console_unix);
    log::info!(
        "serving players on {} with {} keepers",
        game_addresses.join(", "),
        config.keepers
    );
    Ok(supervisor)
}

/// Signals that stay ignored if the server was started with them ignored: the end of the terminal, for nohup(1), and
/// the stop signals of a shell's job control. All others have their default effect in all processes, whatever a shell
/// ignored for a background job.
const KEPT_IGNORED: [Signal; 4] = [Signal::SIGHUP, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// What the process itself needs, whichever program has run in it before.
fn prepare_process() -> Result<(), StartError> {
    disable_core_dumps().map_err(step("cannot switch core dumps off"))?;
    raise_open_file_limit().map_err(step("cannot raise the limit of open files"))?;
    become_subreaper().map_err(step("cannot become the reaper of orphaned processes"))?;
    reset_ignored(&KEPT_IGNORED).map_err(step("cannot stop ignoring signals"))?;
    ignore_broken_pipes().map_err(step("cannot ignore SIGPIPE"))?;
    set_name("forkade").map_err(step("cannot set the process's name"))?;
    ProcessId::try_current().map_err(step("cannot tell which process this is"))?;
    Ok(())
}

/// Path of the running program. An upgrade takes the program that lies there then.
fn own_program() -> Option<PathBuf> {
    let program = std::env::current_exe();
    if let Err(error) = &program {
        log::warn!("cannot find the path of this program, so it cannot be upgraded in place: {error}");
    }
    let program = program.ok()?;
    Some(invoked_path(&program).unwrap_or(program))
}

/// The path by which this program was invoked, if it leads to the program's file: it may be a symbolic link that is
/// changed before an upgrade.
fn invoked_path(program: &Path) -> Option<PathBuf> {
    let file_of = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let invoked = PathBuf::from(std::env::args_os().next()?);
    let candidates: Vec<PathBuf> = match invoked.components().count() {
        1 => std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|folder| folder.join(&invoked))
            .collect(),
        _ => vec![invoked],
    };
    let found = candidates
        .into_iter()
        .find(|path| file_of(path).is_some() && file_of(path) == file_of(program))?;
    std::path::absolute(found).ok()
}

/// Enters the settings that all processes read from shared memory: see [`Header`](crate::state::header::Header).
fn configure(memory: &Memory, settings: &Settings) {
    let (header, config) = (memory.header, &settings.config);
    logging::share_level(&header.log_level);
    // An upgrade that configures another level sets it. Otherwise the level stays as an operator has set it.
    let level = config.log as u32 + 1;
    let before = header.log_level_configured.swap(level, Ordering::Relaxed);
    if before != 0 && before != level {
        logging::set_level(config.log);
    }
    logging::set_log_limits(LogLimits {
        kinds: &header.log_kinds,
        panic_places: &header.panic_places,
        left_out_total: &header.log_records_left_out_total,
    });
    let rows = serde_json::to_string(&settings.rows()).expect("texts can be written");
    if !header.settings.enter(&rows) {
        log::warn!("the settings are too long to be shown on the console");
    }
    logging::set_drop_counters(DropCounters {
        total: &header.log_records_dropped_total,
        unreported: &header.log_records_unreported,
    });
    for (shared, value) in [
        (&header.seat_grace_ms, config.seat_grace_ms),
        (&header.seat_reservation_ms, config.seat_reservation_ms),
        (&header.heartbeat_timeout_ms, config.heartbeat_timeout_ms),
        (&header.text_idle_timeout_ms, config.text_idle_timeout_ms),
        (&header.reader_wait_ms, config.reader_wait_ms),
        (&header.handshake_timeout_ms, config.handshake_timeout_ms),
        (&header.chat_burst, config.chat_burst),
        (&header.chat_per_minute, config.chat_per_minute),
        (&header.requests_burst, config.requests_burst),
        (&header.requests_per_minute, config.requests_per_minute),
        (&header.failures_burst, config.failures_burst),
        (&header.failures_per_minute, config.failures_per_minute),
        (&header.guesses_per_minute, config.guesses_per_minute),
        (&header.lobby_fanout, config.lobby_fanout),
        (&header.room_fanout, config.room_fanout),
        (&header.server_fanout, config.server_fanout),
        (
            &header.source_guesses_per_minute,
            config.source_guesses_per_minute,
        ),
        (
            &header.source_messages_per_second,
            config.source_messages_per_second,
        ),
        (&header.source_kib_per_second, config.source_kib_per_second),
        (&header.ipv4_source_prefix, config.ipv4_source_prefix),
        (&header.ipv6_source_prefix, config.ipv6_source_prefix),
    ] {
        shared.store(value.into(), Ordering::Relaxed);
    }
}

/// Makes the heap cheap to copy: every process is forked from this one.
fn prepare_heap() {
    buffers::prepare();
    // Reading the configuration has left holes everywhere.
    let used_up = use_up_heap_holes();
    log::debug!("filled {used_up} bytes of holes in the heap");
}

/// Prints that the server accepts connections.
fn announce(games: &[String], console: Option<SocketAddr>, console_unix: Option<&Path>) {
    let ready = serde_json::json!({
        "event": "ready",
        "game": games.first(),
        "games": games,
        "console": console.map(|console| console.to_string()),
        "console_unix": console_unix.map(|path| path.display().to_string()),
        "pid": std::process::id(),
    });
    // Standard output may be closed.
    let _ = writeln!(io::stdout(), "{ready}");
}

struct Supervisor {
    context: Context,
    signals: Signals,
    poll: Poll,
    children: Vec<Child>,
    /// Path of the program that an upgrade takes.
    program: Option<PathBuf>,
    /// A new program that is being probed.
    probe: Option<upgrade::Check>,
    /// After an upgrade, until all processes of the program before are replaced.
    replacement: Option<upgrade::RollingRestart>,
    watchdog: Option<Watchdog>,
    /// How often the server was told to stop.
    stop_requests: u32,
}

/// A role's instance and the process that runs it.
struct Child {
    instance: RoleInstance,
    process: Option<ProcessId>,
    /// When it is started again, in milliseconds of the monotonic clock.
    restart_at_ms: u64,
    backoff: Backoff,
}

impl Supervisor {
    fn new(context: Context, program: Option<PathBuf>) -> Result<Self, StartError> {
        let signals = Signals::block(&[
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ]);
        let signals = signals.map_err(step("cannot receive signals"))?;
        let poll = Poll::new().map_err(step("cannot poll"))?;
        for (descriptor, token) in [(signals.as_fd(), SIGNALS), (context.ipc.ready.as_fd(), READY)] {
            poll.registry()
                .register(&mut SourceFd(&descriptor.as_raw_fd()), token, Interest::READABLE)
                .map_err(step("cannot poll"))?;
        }
        let unfilled = |instance| Child {
            instance,
            process: None,
            restart_at_ms: 0,
            backoff: Backoff::new(),
        };
        let children = RoleInstance::all(context.config)
            .into_iter()
            .map(unfilled)
            .collect();
        prepare_heap();
        Ok(Self {
            context,
            signals,
            poll,
            children,
            program,
            probe: None,
            replacement: None,
            watchdog: Watchdog::new(context),
            stop_requests: 0,
        })
    }

    /// Serves until the server is told to stop, and stops it.
    fn serve(&mut self) {
        self.supervise();
        self.stop_all();
        if let Some(path) = self.context.config.console_unix {
            unix_console::unlink(path);
        }
        log::info!("stopped");
    }

    /// Starts all roles, one after the other: each must be ready before the next is started.
    fn start_all(&mut self) -> Result<(), StartError> {
        for role in Role::ALL {
            let of_role: Vec<usize> = (0..self.children.len())
                .filter(|index| self.children[*index].instance.role == role)
                .collect();
            for index in &of_role {
                self.spawn(*index).map_err(|source| StartError::Fork {
                    role: self.name(*index),
                    source,
                })?;
            }
            let give_up_at_ms = now_ms() + ROLE_READY_TIMEOUT_MS;
            for index in of_role {
                self.await_ready(index, give_up_at_ms)
                    .map_err(|why| StartError::NotReady {
                        role: self.name(index),
                        why,
                    })?;
            }
        }
        Ok(())
    }

    fn spawn(&mut self, index: usize) -> Result<(), ForkError> {
        let (context, instance) = (self.context, self.children[index].instance);
        let slot = instance.slot(context.memory);
        slot.ready.store(0, Ordering::Release);
        let process = fork(forkade_games::panics::log_panic, |new_process| {
            RoleStart::run(context, instance, new_process)
        })?;
        slot.start_time.store(process.start_time, Ordering::Relaxed);
        slot.pid.store(process.pid, Ordering::Release);
        let child = &mut self.children[index];
        child.process = Some(process);
        child.backoff.started(now_ms());
        Ok(())
    }

    fn await_ready(&mut self, index: usize, give_up_at_ms: u64) -> Result<(), String> {
        let slot = self.children[index].instance.slot(self.context.memory);
        while slot.ready.load(Ordering::Acquire) == 0 {
            if self.children[index].process.is_none() {
                return Err("it exited at once; the log says why".into());
            }
            let now = now_ms();
            if now >= give_up_at_ms {
                return Err(format!(
                    "it did not report ready within {ROLE_READY_TIMEOUT_MS} ms"
                ));
            }
            self.wait(Some(give_up_at_ms - now));
            if self.stop_requests > 0 {
                return Err("the server was told to stop".into());
            }
        }
        Ok(())
    }

    /// Restarts roles that exit until the server is told to stop.
    fn supervise(&mut self) {
        while self.stop_requests == 0 {
            let vacant = self.children.iter().filter(|child| child.process.is_none());
            let next_ms = vacant
                .map(|child| child.restart_at_ms)
                .chain(self.upgrade_due_ms())
                .min();
            self.wait(next_ms.map(|at| at.saturating_sub(now_ms())));
            if self.stop_requests > 0 {
                return;
            }
            let now = now_ms();
            self.continue_upgrade(now);
            for index in 0..self.children.len() {
                if self.children[index].process.is_none() && self.children[index].restart_at_ms <= now {
                    self.respawn(index);
                }
            }
        }
    }

    fn respawn(&mut self, index: usize) {
        let name = self.name(index);
        match self.spawn(index) {
            Ok(()) => {
                self.children[index]
                    .instance
                    .slot(self.context.memory)
                    .restarts
                    .fetch_add(1, Ordering::Relaxed);
                log::info!("the {name} was started again");
            }
            Err(error) => {
                log::error!("cannot fork the {name}: {error}");
                self.mark_exited(index);
                self.on_start_failure(index, &error.to_string());
            }
        }
    }

    /// Waits for signals, for the time given at most, and handles them. Runs the watchdog meanwhile.
    fn wait(&mut self, timeout_ms: Option<u64>) {
        let mut events = Events::with_capacity(4);
        let watchdog_ms = self
            .watchdog
            .as_ref()
            .map(|watchdog| watchdog.timeout_ms(now_ms()));
        let timeout_ms = timeout_ms.into_iter().chain(watchdog_ms).min();
        match self.poll.poll(&mut events, timeout_ms.map(Duration::from_millis)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Without a poll the supervisor cannot continue.
            Err(error) => panic!("cannot poll: {error}"),
        }
        self.context.ipc.ready.clear();
        while let Ok(Some(received)) = self.signals.read() {
            match received.signal {
                Signal::SIGTERM | Signal::SIGINT => self.stop_requests += 1,
                Signal::SIGUSR2 => self.start_upgrade(),
                Signal::SIGCHLD => self.reap_children(),
                // Reports for the watchdog are announced by this signal, too.
                Signal::SIGUSR1 => self.process_requests(),
                _ => {}
            }
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.run_checks(now_ms());
        }
    }

    /// Answers what other processes have left in the header.
    fn process_requests(&mut self) {
        let header = self.context.memory.header;
        header.supervisor_pong.answer(&header.ping);
        // The signal may be repeated, and a second request to stop would mean at once.
        if header.drained.load(Ordering::Acquire) != 0 && self.stop_requests == 0 {
            log::info!("drained");
            self.stop_requests = 1;
        }
    }

    fn reap_children(&mut self) {
        for event in child_events() {
            let Reaped { pid, exit } = match event {
                ChildEvent::Exited(reaped) => reaped,
                ChildEvent::Stopped { pid } => {
                    if let Some(watchdog) = &mut self.watchdog {
                        watchdog.on_child_stopped(pid);
                    }
                    continue;
                }
            };
            if self.probe.as_mut().is_some_and(|probe| probe.on_exit(pid, exit)) {
                continue;
            }
            let process_of = |child: &Child| child.process.filter(|process| process.pid == pid);
            let found = self.children.iter().map(process_of).zip(0..);
            let Some((process, index)) = found
                .filter_map(|(process, index)| Some((process?, index)))
                .next()
            else {
                log::debug!("process {pid}, whose keeper had died, ended: {exit}");
                continue;
            };
            let name = self.name(index);
            self.mark_exited(index);
            if self.on_replaced_exit(index, process) {
                log::info!("the {name} (process {pid}) ended, to be replaced: {exit}");
            } else if self.stop_requests == 0 {
                log::warn!("the {name} (process {pid}) ended: {exit}");
                self.context.memory.incidents.enter(
                    IncidentKind::Death,
                    (pid, None),
                    "",
                    format_args!("the {name} (process {pid}) ended: {exit}"),
                );
                self.on_start_failure(index, &exit.to_string());
            }
        }
    }

    /// A role's process has exited: it is started again, the later the more often that happened recently.
    fn mark_exited(&mut self, index: usize) {
        let child = &mut self.children[index];
        child
            .instance
            .slot(self.context.memory)
            .pid
            .store(0, Ordering::Release);
        child.process = None;
        child.restart_at_ms = child.backoff.ended(now_ms());
    }

    /// Stops all processes in the order in which nothing is lost: first the keepers with their handlers, while the
    /// listener refuses new connections with the reason.
    fn stop_all(&mut self) {
        self.stop_requests = self.stop_requests.max(1);
        self.cancel_probe("the server stops");
        self.context.memory.header.stopping.store(1, Ordering::Release);
        for role in [Role::Keeper, Role::Listener, Role::Ticker] {
            let timeout_ms = match role {
                Role::Keeper => u64::from(self.context.config.drain_timeout_ms) + TERMINATE_TIMEOUT_MS,
                _ => TERMINATE_TIMEOUT_MS,
            };
            self.signal_role(role, Signal::SIGTERM);
            self.await_role_exit(role, now_ms() + timeout_ms);
        }
        self.await_orphaned_handlers();
    }

    fn signal_role(&self, role: Role, signal: Signal) {
        for process in self
            .children
            .iter()
            .filter(|child| child.instance.role == role)
            .filter_map(|child| child.process)
        {
            if let Err(error) = process.send_signal(signal) {
                log::error!("cannot signal process {process}: {error}");
            }
        }
    }

    fn await_role_exit(&mut self, role: Role, give_up_at_ms: u64) {
        let mut killed = false;
        while self
            .children
            .iter()
            .any(|child| child.instance.role == role && child.process.is_some())
        {
            let now = now_ms();
            // A second request to stop means at once.
            if !killed && (now >= give_up_at_ms || self.stop_requests > 1) {
                log::warn!("the {} did not exit in time: killed", role.name());
                self.signal_role(role, Signal::SIGKILL);
                killed = true;
            }
            self.wait(Some(if killed {
                100
            } else {
                give_up_at_ms.saturating_sub(now).clamp(1, 100)
            }));
        }
    }

    /// Waits for handlers that no keeper has adopted: they are children of this process.
    fn await_orphaned_handlers(&mut self) {
        let give_up_at_ms = now_ms() + TERMINATE_TIMEOUT_MS;
        // They look whether the server stops.
        for orphan in self.living_handlers() {
            if let Err(error) = orphan.send_signal(Signal::SIGUSR1) {
                log::error!("cannot tell handler {orphan} that the server stops: {error}");
            }
        }
        loop {
            let orphans: Vec<ProcessId> = self.living_handlers();
            if orphans.is_empty() {
                return;
            }
            if now_ms() >= give_up_at_ms || self.stop_requests > 1 {
                for orphan in &orphans {
                    let _ = orphan.send_signal(Signal::SIGKILL);
                }
            }
            self.wait(Some(20));
        }
    }

    fn living_handlers(&self) -> Vec<ProcessId> {
        let handlers = self
            .context
            .memory
            .touched_connections()
            .filter_map(|(_, record)| record.handler());
        handlers
            .filter(|handler| handler.is_alive().unwrap_or(false))
            .collect()
    }

    fn name(&self, index: usize) -> String {
        self.children[index].instance.name(self.context.config)
    }
}
