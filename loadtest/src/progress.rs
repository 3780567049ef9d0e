//! Live progress on stderr: one line that changes on a terminal, elsewhere a line every few seconds.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::run_state::RunState;

/// How often the line on a terminal changes.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The progress display of a run.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    phase: &'static str,
    phase_began: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}").ok();
            let bar = ProgressBar::new_spinner();
            if let Some(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            phase: "starting",
            phase_began: Instant::now(),
            last_line: None,
        }
    }

    /// Begins a new phase.
    pub(crate) fn phase(&mut self, phase: &'static str, state: &RunState) {
        (self.phase, self.phase_began, self.last_line) = (phase, Instant::now(), None);
        self.show(state);
    }

    /// Shows the current counts if the display is due.
    pub(crate) fn show(&mut self, state: &RunState) {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut line = format!(
            "{} ({:.0} s): {} in rooms, sent {}, received {}",
            self.phase,
            self.phase_began.elapsed().as_secs_f64(),
            count(&state.joined),
            count(&state.sent),
            count(&state.received),
        );
        for (name, value) in [
            ("matches", count(&state.matches)),
            ("disconnects", count(&state.disconnects)),
        ] {
            if value > 0 {
                line += &format!(", {name} {value}");
            }
        }
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None if self.last_line.is_none_or(|last| last.elapsed() >= PLAIN_INTERVAL) => {
                eprintln!("{line}");
                self.last_line = Some(Instant::now());
            }
            None => {}
        }
    }

    /// Clears the line on the terminal.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
