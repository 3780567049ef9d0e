//! Logging: one record is one line in one write, and neither a client nor a reader of stderr can do harm through it.
//!
//! - **Who.** Each record names the role, the pid and, in a handler, the player: [`set_role`] and [`set_player`] are
//!   process-wide and called again after every fork. (No lock can be held across a fork: processes have one thread.)
//! - **No forgery.** Control characters, line separators and what reorders text on a screen are escaped, in the message
//!   and in the player's name, so whatever a client sends stays inside its own record.
//! - **No stall.** A process blocked on stderr would stall its player, and under a lock the whole lobby. So stderr is
//!   non-blocking; a record that does not fit is dropped, counted (see [`set_drop_counters`]), and reported by the next
//!   record that gets through, of whatever process.
//! - **One level.** What is logged is decided by one number in shared memory (see [`share_level`]), which each process looks at for
//!   each record: it can be changed for all of them at once, and nobody needs to be told.
//! - **Panics.** The hook runs wherever the panic happens, perhaps under a lock, so it only keeps message, place and the
//!   raw backtrace. Whoever catches the panic ([`catch_panic`], [`log_panic`]) logs it once the lock is let go.
//!
//! Never log while a lock of the lobby is held: formatting takes time that others wait for.

mod line;
mod nonblocking_stderr;

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};

use crate::logging::line::Line;
use crate::logging::nonblocking_stderr::NonblockingWriter;

/// Sends records to stderr and installs the panic hook. Called once, by the first process, before any fork.
///
/// # Errors
///
/// When the process has a logger already.
pub(crate) fn start(level: LevelFilter) -> Result<(), log::SetLoggerError> {
    let writer = env_logger::Builder::new()
        // The level is decided by `LevelFilterLogger` alone, so that it can be changed while running.
        .filter_level(LevelFilter::Trace)
        .format(|out, record| {
            let dropped = drop_counters().unreported.swap(0, Ordering::Relaxed);
            let line = line_of(record, dropped);
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
    Ok(())
}

/// From now on the level is the one in shared memory. If none was set there, it is the one that this process has had; after an upgrade
/// it stays as it was.
pub(crate) fn share_level(shared: &'static AtomicU32) {
    let own = OWN_LEVEL.load(Ordering::Relaxed);
    let _ = shared.compare_exchange(UNSET, own, Ordering::Relaxed, Ordering::Relaxed);
    // Said twice, the first one counts.
    let _ = SHARED_LEVEL.set(shared);
}

/// From now on records up to `level` are written: by all processes of the server, once the level is shared.
pub(crate) fn set_level(level: LevelFilter) {
    level_cell().store(to_raw(level), Ordering::Relaxed);
}

/// The least important records that are written.
pub(crate) fn level() -> LevelFilter {
    let set = level_cell().load(Ordering::Relaxed);
    LevelFilter::iter()
        .find(|level| to_raw(*level) == set)
        .unwrap_or(LevelFilter::Trace)
}

/// A level as it lies in memory, where 0 is none.
const fn to_raw(level: LevelFilter) -> u32 {
    level as u32 + 1
}

const UNSET: u32 = 0;

fn level_cell() -> &'static AtomicU32 {
    SHARED_LEVEL.get().copied().unwrap_or(&OWN_LEVEL)
}

/// Passes on what the level lets through.
struct LevelFilterLogger(env_logger::Logger);

impl Log for LevelFilterLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        to_raw(metadata.level().to_level_filter()) <= level_cell().load(Ordering::Relaxed)
            && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Names what this process is, in each of its records. Called first thing after a fork: it also forgets the parent's
/// player.
pub(crate) fn set_role(role: &'static str) {
    *label() = ProcessLabel { role, player: None };
}

/// Names the player that this process works for at the moment, in each of its records.
pub(crate) fn set_player(player: Option<&str>) {
    label().player = player.map(str::to_owned);
}

/// Where dropped records are counted.
#[derive(Clone, Copy)]
pub(crate) struct DropCounters {
    /// All of them.
    pub(crate) total: &'static AtomicU64,
    /// Those that no record has reported yet.
    pub(crate) unreported: &'static AtomicU64,
}

/// Counts records that were dropped in shared memory from now on: most processes live too short to report what they drop
/// themselves, so the next record that gets through reports for all. The first call counts for good, with what was
/// dropped before it.
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

// Until there is shared memory.
static OWN_LEVEL: AtomicU32 = AtomicU32::new(to_raw(LevelFilter::Info));
static OWN_TOTAL: AtomicU64 = AtomicU64::new(0);
static OWN_UNREPORTED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How many dropped records the line being written reports.
    static REPORTING: Cell<u64> = const { Cell::new(0) };
}

fn label() -> std::sync::MutexGuard<'static, ProcessLabel> {
    PROCESS_LABEL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line_of(record: &Record<'_>, dropped: u64) -> Line {
    let mut line = Line::new();
    {
        // Let go before the message is formatted: its `Display` may do anything, even log.
        let label = label();
        line.head(
            record.level(),
            label.role,
            label.player.as_deref(),
            record.target(),
        );
    }
    line.message(record.args());
    line.end(dropped);
    line
}

/// What env_logger writes to; it hands over one whole record at a time.
struct Sink(NonblockingWriter<io::Stderr>);

impl Write for Sink {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let reported = REPORTING.take();
        if !self.0.write_record(record) {
            let counters = drop_counters();
            counters.total.fetch_add(1, Ordering::Relaxed);
            counters.unreported.fetch_add(reported + 1, Ordering::Relaxed);
        }
        // A dropped record is done with, too: an error would only make env_logger try the rest of it.
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
