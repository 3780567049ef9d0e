//! `upgrade`: requests an upgrade in place and shows its progress.

use std::io;

use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::live_views::Progress;
use crate::frontends::console::replies::Reply;
use crate::limits::UPGRADE_POLL_MS;
use crate::state::header::{UpgradeSlot, UpgradeStage};
use shmem::sys::clock::now_ms;

/// An upgrade that was requested and has no result yet.
pub(crate) struct Upgrade {
    slot: &'static UpgradeSlot,
    /// Upgrades that had been begun before this one.
    begun_before: u32,
    shown: UpgradeStage,
}

impl Upgrade {
    /// Requests an upgrade.
    ///
    /// # Errors
    ///
    /// Another upgrade is under way, or the supervisor cannot be signalled.
    pub(crate) fn start(context: ConsoleContext) -> Result<Self, String> {
        let slot = &context.memory.header.upgrade;
        let (begun_before, stage, _) = slot.read();
        if matches!(stage, UpgradeStage::Checking | UpgradeStage::Replacing) {
            return Err("an upgrade is under way".to_owned());
        }
        let signalled: io::Result<()> = context.signal_supervisor(rustix::process::Signal::USR2);
        signalled.map_err(|error| format!("cannot signal the supervisor: {error}"))?;
        Ok(Self {
            slot,
            begun_before,
            shown: UpgradeStage::None,
        })
    }

    pub(crate) fn advance(&mut self) -> Progress {
        let wait = Progress::Wait {
            until_ms: now_ms() + UPGRADE_POLL_MS,
        };
        let (begun, stage, text) = self.slot.read();
        if begun == self.begun_before {
            return wait;
        }
        match stage {
            UpgradeStage::Refused => Progress::Failed(format!("refused, and nothing has changed: {text}")),
            UpgradeStage::Stalled => Progress::Failed(format!("stalled: {text}")),
            UpgradeStage::Done => Progress::Finished(Reply::lines(vec![text])),
            _ if stage == self.shown => wait,
            _ => {
                self.shown = stage;
                Progress::Output(vec![text])
            }
        }
    }
}
