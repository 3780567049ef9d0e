//! What an operator does to the server.

use std::io;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::lobby::Lobby;
use crate::lobby::sweep::NoSuchPlayer;
use crate::role::Context;
use crate::wiring::Wiring;

/// Sends a player out. One without a connection is gone when the ticker looks next.
pub(super) fn kick(lobby: &mut Lobby, wiring: &Wiring, name: &str) -> Result<(), NoSuchPlayer> {
    if let Some(keeper) = lobby.kick(name)? {
        wiring.ring_keeper(keeper);
    }
    log::info!("player \"{name}\" is sent out");
    Ok(())
}

/// Asks the supervisor to end the server.
pub(super) fn stop(context: Context) -> io::Result<()> {
    let pid = context.memory.header.supervisor_pid.load(Ordering::Relaxed);
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::SRCH)?;
    let supervisor = pidfd_open(pid, PidfdFlags::empty())?;
    // While the lifeline holds the supervisor lives, so the pid was its own when the descriptor was opened.
    if context.wiring.lifeline.is_cut()? {
        return Err(Errno::SRCH.into());
    }
    log::info!("the server is told to stop");
    Ok(pidfd_send_signal(supervisor, Signal::TERM)?)
}
