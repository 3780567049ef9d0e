//! Panics are kept until it is safe to log them. Internal to the server.
//!
//! The hook runs where the panic occurs, perhaps under a lock. Resolving the names of a backtrace takes a tenth of a
//! second, so the hook only captures addresses; the names are resolved when the panic is displayed.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::OnceLock;

/// A panic that was caught. It is displayed as one line: location, message and backtrace. Do not display it under a
/// lock: that can take a tenth of a second.
#[derive(Debug)]
pub struct Panic {
    message: String,
    /// Location and backtrace; `None` if [`install_hook`] was not called.
    origin: Option<(String, Backtrace)>,
}

impl Panic {
    /// The text that the panic was raised with.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Says whether the backtrace of a panic at a place is displayed.
static BACKTRACE_FILTER: OnceLock<fn(&str) -> bool> = OnceLock::new();

/// From now on a panic is displayed with its backtrace only if `is_due` says so for its place. Only the first call has
/// an effect.
pub fn set_backtrace_filter(is_due: fn(&str) -> bool) {
    let _ = BACKTRACE_FILTER.set(is_due);
}

thread_local! {
    /// The last panic of this thread, until it is taken.
    static LAST_PANIC: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Keeps every panic of this process for the code that catches it, instead of printing it where it occurs.
pub fn install_hook() {
    std::panic::set_hook(Box::new(store_panic));
}

/// Runs `run` and returns its panic, if it panics. The caller must undo or discard what `run` has changed.
pub fn catch_panic<R>(run: impl FnOnce() -> R) -> Result<R, Panic> {
    let result = catch_unwind(AssertUnwindSafe(run));
    let kept = take_panic();
    result.map_err(|payload| {
        let message = payload_text(&*payload).map(str::to_owned);
        if message.is_none() {
            // The drop of an unknown type could panic in turn.
            std::mem::forget(payload);
        }
        kept.unwrap_or_else(|| Panic {
            message: message.unwrap_or_else(no_message),
            origin: None,
        })
    })
}

/// Takes the last panic of this thread, unless it was taken: for code that uses [`catch_unwind`].
pub fn take_panic() -> Option<Panic> {
    LAST_PANIC.take()
}

/// Logs the last panic of this thread, unless it was taken. Call it after unwinding, without a lock.
pub fn log_panic() {
    if let Some(panic) = take_panic() {
        log::error!("{panic}");
    }
}

fn store_panic(info: &PanicHookInfo<'_>) {
    let message = payload_text(info.payload()).map_or_else(no_message, str::to_owned);
    let place = info
        .location()
        .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let panic = Panic {
        message,
        origin: Some((place, Backtrace::force_capture())),
    };
    // A panic is kept already: this one occurred while that one unwound, and the runtime is about to abort. This is the
    // last chance to log them. (Or the first one was caught and not taken; then the log shows both.)
    if let Ok(Some(first)) = LAST_PANIC.try_with(|last| last.replace(Some(panic))) {
        log::error!("{first}");
        log_panic();
    }
}

fn payload_text(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

fn no_message() -> String {
    "no message".to_owned()
}

impl fmt::Display for Panic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((place, backtrace)) = &self.origin else {
            return write!(out, "panicked: {}", self.message);
        };
        write!(out, "panicked at {place}: {}", self.message)?;
        if BACKTRACE_FILTER.get().is_some_and(|is_due| !is_due(place)) {
            return write!(out, "; its backtrace was logged less than a minute ago");
        }
        write!(out, "; called from")?;
        let mut separator = " ";
        for frame in frames(&backtrace.to_string()) {
            write!(out, "{separator}{frame}")?;
            separator = " < ";
        }
        Ok(())
    }
}

/// Where the server's own code begins, which calls a game's.
const CALLERS: [&str; 2] = ["forkade_games::erased::", "forkade_games::panics::catch_panic"];

/// The file of those functions: a name may lack its path.
const CALLERS_FILE: &str = "games/src/erased.rs:";

/// Functions of Rust's libraries.
const STD: [&str; 6] = [
    "std::",
    "core::",
    "alloc::",
    "rust_begin_unwind",
    "__rust",
    "<alloc::",
];

/// Frames that are displayed.
const FRAMES_MAX: usize = 16;

/// The frames of `text`, a displayed backtrace, innermost first, as `function (file:line:column)`. Those of Rust's
/// libraries and of the hook are left out: they are always the same, and would push the others off the end of the log
/// record.
fn frames(text: &str) -> Vec<String> {
    let mut frames: Vec<String> = Vec::new();
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let place = lines
            .next_if(|next| next.starts_with("at "))
            .map(|next| &next["at ".len()..]);
        let function = line.split_once(": ").map_or(line, |(_index, function)| function);
        // A game's caller, and what called that: always the same, too. (Without an author's frame, all are shown.)
        let is_caller = CALLERS.iter().any(|caller| function.contains(caller))
            || place.is_some_and(|place| place.contains(CALLERS_FILE));
        if !frames.is_empty() && is_caller {
            break;
        }
        let is_std = place.is_some_and(|place| place.contains("/rustc/") || place.contains("/rustlib/"))
            // Without line tables.
            || STD.iter().any(|std| function.starts_with(std));
        let is_hook = frames.is_empty() && function.ends_with("store_panic");
        if frames.len() == FRAMES_MAX {
            break;
        }
        if !is_std && !is_hook {
            frames.push(place.map_or_else(|| function.to_owned(), |place| format!("{function} ({place})")));
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use std::panic::{set_hook, take_hook};
    use std::thread::{self, ThreadId};

    use super::*;

    /// Keeps this thread's panics and leaves those of other tests to the test harness.
    fn store_panics_of(thread: ThreadId) {
        let harness = take_hook();
        set_hook(Box::new(move |info| {
            if thread::current().id() == thread {
                store_panic(info)
            } else {
                harness(info)
            }
        }));
    }

    #[inline(never)]
    fn break_something(what: &str) {
        panic!("broke {what}");
    }

    #[test]
    fn a_panic_is_kept_and_shown_in_one_line() {
        store_panics_of(thread::current().id());
        let panic = catch_panic(|| break_something("a cup")).expect_err("it panics");
        assert_eq!(panic.message(), "broke a cup");
        let text = panic.to_string();
        assert!(text.starts_with("panicked at games/src/panics.rs:"), "{text}");
        assert!(text.contains(": broke a cup; called from "), "{text}");
        assert!(text.contains("break_something (./src/panics.rs:"), "{text}");
        assert!(
            !text.contains('\n') && !text.contains("rust_begin_unwind"),
            "{text}"
        );
        assert!(take_panic().is_none());
    }

    #[test]
    fn a_backtrace_has_the_authors_frames_alone() {
        let text = "   0: forkade_games::panics::store_panic\n   1: std::panicking::panic_with_hook\n   2: __rustc::rust_begin_unwind\n             \
                    at /rustc/abc/library/std/src/panicking.rs:1:2\n   3: core::panicking::panic_fmt\n   4: chess::check\n             at ./src/chess.rs:7:9\n   \
                    5: <chess::Chess as forkade_games::Game>::act\n   6: forkade_games::erased::run_call::{{closure}}\n   7: forkade::main\n";
        assert_eq!(
            frames(text),
            [
                "chess::check (./src/chess.rs:7:9)",
                "<chess::Chess as forkade_games::Game>::act"
            ]
        );
        let deep = "1: author::recurse\n".repeat(100);
        assert_eq!(frames(&deep).len(), FRAMES_MAX);
    }

    #[test]
    fn a_panic_is_caught_without_the_hook_and_with_a_payload_that_panics_too() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let panic = catch_panic(|| std::panic::resume_unwind(Box::new(Bomb))).expect_err("it panics");
        assert_eq!(panic.to_string(), "panicked: no message");
        let panic = catch_panic(|| std::panic::resume_unwind(Box::new("text"))).expect_err("it panics");
        assert_eq!(panic.to_string(), "panicked: text");
    }
}
