//! Logging: each record is one line, written in one write. Neither a client nor a reader of stderr can do harm through
//! it.
//!
//! - **Origin.** Each record names the role, the pid and, in a handler, the player. [`set_role`] and [`set_player`] are
//!   process-wide and are called again after every fork. (Processes have one thread, so no lock is held across a fork.)
//! - **No forgery.** Control characters, line separators and characters that reorder text are escaped, in the message
//!   and in the player's name. What a client sends stays inside its own record.
//! - **No stall.** A process that blocks on stderr would stall its player, and under a lock the whole lobby. So stderr
//!   is non-blocking. A record that does not fit is dropped and counted (see [`set_drop_counters`]); the next record
//!   that any process writes reports the count.
//! - **No flood.** Each place in the code logs a bounded number of records a second, in all processes together. The
//!   next record of the same place reports how many were left out. The backtrace of a panic is logged once per place
//!   and minute.
//! - **One level.** The level is one number in shared memory (see [`share_level`]), which each process reads for each
//!   record. A change takes effect in all processes at once.
//! - **Panics.** The [hook](forkade_games::panics) runs where the panic happens, perhaps under a lock, so it only keeps
//!   message, place and the raw backtrace. The code that catches the panic logs it after the lock is released.
//!
//! Do not log while a lock of the lobby is held: formatting takes time for which other processes wait.

pub(crate) mod audit;
mod limiter;
mod line;
mod nonblocking_stderr;

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};

pub(crate) use crate::logging::limiter::{LogLimits, set_log_limits};
use crate::logging::line::Line;
use crate::logging::nonblocking_stderr::NonblockingWriter;

/// Sends records to stderr and installs the panic hook. The first process calls it once, before any fork.
///
/// # Errors
///
/// The process already has a logger.
pub(crate) fn start(level: LevelFilter) -> Result<(), log::SetLoggerError> {
    let writer = env_logger::Builder::new()
        // `LevelFilterLogger` alone applies the level, because it can change at run time.
        .filter_level(LevelFilter::Trace)
        .format(|out, record| {
            let dropped = drop_counters().unreported.swap(0, Ordering::Relaxed);
            let line = line_of(record, dropped, LEFT_OUT.take());
            REPORTING.set(dropped);
            out.write_all(line.as_bytes())
        })
        .target(env_logger::Target::Pipe(Box::new(Sink(
            NonblockingWriter::stderr(),
        ))))
        .build();
    OWN_LEVEL.store(to_raw(level), Ordering::Relaxed);
    log::set_boxed_logger(Box::new(LevelFilterLogger(writer)))?;
    log::set_max_level(LevelFilter::Trace);
    forkade_games::panics::install_hook();
    forkade_games::panics::set_backtrace_filter(limiter::is_backtrace_due);
    Ok(())
}

/// Uses the level in shared memory from now on, and sets it to this process's level if none is set there yet. After an
/// upgrade it stays as it was.
pub(crate) fn share_level(shared: &'static AtomicU32) {
    let own = OWN_LEVEL.load(Ordering::Relaxed);
    let _ = shared.compare_exchange(UNSET, own, Ordering::Relaxed, Ordering::Relaxed);
    // An upgrade calls this in a process where it is set already.
    let _ = SHARED_LEVEL.set(shared);
}

/// Sets the level: of all processes of the server, once it is shared.
pub(crate) fn set_level(level: LevelFilter) {
    level_cell().store(to_raw(level), Ordering::Relaxed);
}

/// The level in force.
pub(crate) fn level() -> LevelFilter {
    let set = level_cell().load(Ordering::Relaxed);
    LevelFilter::iter()
        .find(|level| to_raw(*level) == set)
        .unwrap_or(LevelFilter::Trace)
}

/// A level as stored in shared memory, where 0 means that none is set.
const fn to_raw(level: LevelFilter) -> u32 {
    level as u32 + 1
}

const UNSET: u32 = 0;

fn level_cell() -> &'static AtomicU32 {
    SHARED_LEVEL.get().copied().unwrap_or(&OWN_LEVEL)
}

/// Passes on the records that the level in force allows.
struct LevelFilterLogger(env_logger::Logger);

impl Log for LevelFilterLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        to_raw(metadata.level().to_level_filter()) <= level_cell().load(Ordering::Relaxed)
            && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && let Some(left_out) = limiter::check(record)
        {
            LEFT_OUT.set(left_out);
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Sets the role that this process's records name, and clears the player. To be called first after a fork.
pub(crate) fn set_role(role: &'static str) {
    *label() = ProcessLabel { role, player: None };
}

/// Sets the player that this process's records name: the one that it serves at the moment.
pub(crate) fn set_player(player: Option<&str>) {
    label().player = player.map(str::to_owned);
}

/// Counters of dropped records.
#[derive(Clone, Copy)]
pub(crate) struct DropCounters {
    /// All dropped records.
    pub(crate) total: &'static AtomicU64,
    /// Dropped records that no later record has reported yet.
    pub(crate) unreported: &'static AtomicU64,
}

/// Counts dropped records in shared memory from now on, and adds those dropped before. Most processes end before they
/// could report their own drops, so the next record of any process reports all of them. Only the first call has an
/// effect.
pub(crate) fn set_drop_counters(shared: DropCounters) {
    if SHARED_COUNTERS.set(shared).is_ok() {
        shared
            .total
            .fetch_add(OWN_TOTAL.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        shared
            .unreported
            .fetch_add(OWN_UNREPORTED.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn drop_counters() -> DropCounters {
    let own = DropCounters {
        total: &OWN_TOTAL,
        unreported: &OWN_UNREPORTED,
    };
    SHARED_COUNTERS.get().copied().unwrap_or(own)
}

/// What each record says about the process.
struct ProcessLabel {
    role: &'static str,
    player: Option<String>,
}

static PROCESS_LABEL: Mutex<ProcessLabel> = Mutex::new(ProcessLabel {
    role: "forkade",
    player: None,
});

static SHARED_COUNTERS: OnceLock<DropCounters> = OnceLock::new();
static SHARED_LEVEL: OnceLock<&'static AtomicU32> = OnceLock::new();

// Used until the shared memory exists.
static OWN_LEVEL: AtomicU32 = AtomicU32::new(to_raw(LevelFilter::Info));
static OWN_TOTAL: AtomicU64 = AtomicU64::new(0);
static OWN_UNREPORTED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Dropped records that the line being written reports.
    static REPORTING: Cell<u64> = const { Cell::new(0) };
    /// Records of its kind that were left out before the record being written.
    static LEFT_OUT: Cell<u64> = const { Cell::new(0) };
}

fn label() -> std::sync::MutexGuard<'static, ProcessLabel> {
    PROCESS_LABEL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line_of(record: &Record<'_>, dropped: u64, left_out: u64) -> Line {
    let mut line = Line::new();
    {
        // Unlocked before the message is formatted: its `Display` may do anything, even log.
        let label = label();
        line.head(
            record.level(),
            label.role,
            label.player.as_deref(),
            record.target(),
        );
    }
    line.message(record.args());
    line.end(dropped, left_out);
    line
}

/// The target of env_logger, which writes one whole record at a time.
struct Sink(NonblockingWriter<io::Stderr>);

impl Write for Sink {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let reported = REPORTING.take();
        if !self.0.write_record(record) {
            let counters = drop_counters();
            counters.total.fetch_add(1, Ordering::Relaxed);
            counters.unreported.fetch_add(reported + 1, Ordering::Relaxed);
        }
        // Also for a dropped record: on an error env_logger would try to write the rest of it.
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, dropped: u64) -> String {
        let record = format_args!("{message}").as_str().map(str::to_owned);
        assert!(
            record.is_none() || message.is_empty(),
            "the message must be formatted, not a literal"
        );
        let line = line_of(
            &Record::builder()
                .level(log::Level::Info)
                .target("forkade::handler")
                .args(format_args!("{message}"))
                .build(),
            dropped,
            0,
        );
        String::from_utf8(line.as_bytes().to_vec()).expect("a line is UTF-8")
    }

    #[test]
    fn a_record_names_role_pid_and_player() {
        set_role("handler");
        set_player(Some("an\"n\n"));
        let text = line("moved", 0);
        set_player(None);
        let expected = format!(
            " INFO  handler[{}] player=\"an\\\"n\\n\" forkade::handler: moved\n",
            std::process::id()
        );
        assert!(text.ends_with(&expected), "{text:?} does not end in {expected:?}");
        assert!(line("alone", 0).ends_with("] forkade::handler: alone\n"));
    }

    #[test]
    fn a_record_reports_what_was_dropped_before_it() {
        assert!(line("x", 1).ends_with(": x [1 record dropped before this one]\n"));
        assert!(line("x", 12).ends_with(": x [12 records dropped before this one]\n"));
    }
}
