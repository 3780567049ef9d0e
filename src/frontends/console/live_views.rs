//! What goes on for a while: a room that is watched, a player who is traced, processes that are asked whether they are alive.
//!
//! An activity is asked to go on whenever all that it has said was taken by the operator's system, so it never holds more than one
//! piece; what happens meanwhile may be missed, and is counted. What it keeps is in this process alone: it ends with it, and the
//! successor says so.

mod ping;
mod trace;
mod transcript;
mod upgrade;
mod watch;

use std::io;

use mio::Poll;

pub(crate) use crate::frontends::console::live_views::ping::Ping;
pub(crate) use crate::frontends::console::live_views::trace::Trace;
pub(crate) use crate::frontends::console::live_views::upgrade::Upgrade;
pub(crate) use crate::frontends::console::live_views::watch::Watch;
use crate::frontends::console::replies::Reply;
use crate::state::handle::StateHandle;

/// Lines that one turn gives at most.
const LINES_PER_STEP_MAX: usize = 64;

/// Something that goes on.
pub(crate) enum LiveView {
    Watch(Watch),
    Trace(Trace),
    Ping(Ping),
    Upgrade(Upgrade),
}

/// What a turn has come to.
pub(crate) enum Progress {
    /// These lines, and perhaps more at once.
    Output(Vec<String>),
    /// Nothing to say now. To be asked again when a doorbell rings, or at this time of the monotonic clock.
    Wait { until_ms: u64 },
    /// The end, with this last reply.
    Finished(Reply),
    /// The end, for this reason.
    Failed(String),
}

impl LiveView {
    /// Says what there is to say without waiting.
    pub(crate) fn advance(&mut self, lobby: &mut StateHandle, poll: &Poll) -> io::Result<Progress> {
        match self {
            Self::Watch(watch) => watch.advance(lobby, poll),
            Self::Trace(trace) => Ok(trace.advance(lobby)),
            Self::Ping(ping) => Ok(ping.advance()),
            Self::Upgrade(upgrade) => Ok(upgrade.advance()),
        }
    }

    /// The doorbell that was asked for may have come.
    pub(crate) fn accept_doorbell(&mut self, poll: &Poll) -> io::Result<()> {
        match self {
            Self::Watch(watch) => watch.accept_doorbell(poll),
            Self::Trace(_) | Self::Ping(_) | Self::Upgrade(_) => Ok(()),
        }
    }

    /// Whether it goes on until the operator sends a line. Else what the operator sends meanwhile waits.
    pub(crate) fn ends_on_input(&self) -> bool {
        !matches!(self, Self::Ping(_) | Self::Upgrade(_))
    }

    /// Leaves nothing behind.
    pub(crate) fn end(self, lobby: &StateHandle, poll: &Poll) -> io::Result<()> {
        match self {
            Self::Watch(watch) => watch.end(lobby, poll),
            Self::Trace(_) | Self::Ping(_) | Self::Upgrade(_) => Ok(()),
        }
    }
}
