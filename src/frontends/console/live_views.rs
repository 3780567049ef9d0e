//! Commands that last for a while: `watch` and `trace` follow a room or a player, `ping`, `top` and
//! `upgrade` wait for a result.
//!
//! A live view is advanced when the kernel has taken all its previous output, so it never buffers more than one piece.
//! What it misses meanwhile is counted. Its state is in this process only: if the process is killed, the successor
//! reports the view as interrupted.

mod ping;
mod top;
mod trace;
mod transcript;
mod upgrade;
mod watch;

use std::io;

use mio::Poll;

pub(crate) use crate::frontends::console::live_views::ping::Ping;
pub(crate) use crate::frontends::console::live_views::top::Top;
pub(crate) use crate::frontends::console::live_views::trace::Trace;
pub(crate) use crate::frontends::console::live_views::upgrade::Upgrade;
pub(crate) use crate::frontends::console::live_views::watch::Watch;
use crate::frontends::console::replies::Reply;
use crate::state::handle::StateHandle;

/// Most lines of one step.
const LINES_PER_STEP_MAX: usize = 64;

/// A command that is running.
pub(crate) enum LiveView {
    Watch(Watch),
    Trace(Trace),
    Ping(Ping),
    Top(Top),
    Upgrade(Upgrade),
}

/// The result of one step.
pub(crate) enum Progress {
    /// These lines; there may be more.
    Output(Vec<String>),
    /// No output now. To be advanced again when a doorbell rings, or at this time of the monotonic clock.
    Wait { until_ms: u64 },
    /// The view has ended with this reply.
    Finished(Reply),
    /// The view has failed for this reason.
    Failed(String),
}

impl LiveView {
    /// Returns the output that is available without waiting.
    pub(crate) fn advance(&mut self, lobby: &mut StateHandle, poll: &Poll) -> io::Result<Progress> {
        match self {
            Self::Watch(watch) => watch.advance(lobby, poll),
            Self::Trace(trace) => Ok(trace.advance(lobby)),
            Self::Ping(ping) => Ok(ping.advance()),
            Self::Top(top) => Ok(top.advance(lobby)),
            Self::Upgrade(upgrade) => Ok(upgrade.advance()),
        }
    }

    /// Accepts the doorbell that was requested, if it has arrived.
    pub(crate) fn accept_doorbell(&mut self, poll: &Poll) -> io::Result<()> {
        match self {
            Self::Watch(watch) => watch.accept_doorbell(poll),
            Self::Trace(_) | Self::Ping(_) | Self::Top(_) | Self::Upgrade(_) => Ok(()),
        }
    }

    /// Whether a line from the operator ends the view. Otherwise input waits until the view has ended.
    pub(crate) fn ends_on_input(&self) -> bool {
        !matches!(self, Self::Ping(_) | Self::Top(_) | Self::Upgrade(_))
    }

    /// Ends the view and releases what it holds.
    pub(crate) fn end(self, lobby: &StateHandle, poll: &Poll) -> io::Result<()> {
        match self {
            Self::Watch(watch) => watch.end(lobby, poll),
            Self::Trace(_) | Self::Ping(_) | Self::Top(_) | Self::Upgrade(_) => Ok(()),
        }
    }
}
