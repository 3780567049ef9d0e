//! Commands that change the server: kick, ban, mute, say, drain, stop.

use std::io;
use std::sync::atomic::Ordering;

use rustix::process::Signal;
use shmem::sys::clock::now_ms;
use thiserror::Error;

use crate::frontends::console::commands::Drain;
use crate::frontends::console::context::ConsoleContext;
use crate::lobby::departure::NoSuchPlayer;
use crate::lobby::sanctions::SanctionError;
use crate::lobby::{chat, departure, sanctions};
use crate::session::rejection::Rejection;
use crate::state::doorbells::Doorbells;
use crate::state::handle::StateHandle;
use crate::state::sanctions::SanctionKind;

/// Removes a player from the server. The ticker removes a player without a connection, at its next sweep.
pub(crate) fn kick(lobby: &mut StateHandle, doorbells: &Doorbells, name: &str) -> Result<(), NoSuchPlayer> {
    if let Some(keeper) = departure::kick(lobby, name)? {
        doorbells.ring_keeper(keeper);
    }
    log::info!("an operator has removed player \"{name}\"");
    Ok(())
}

/// Bans or mutes a name.
pub(crate) fn sanction(
    lobby: &mut StateHandle,
    doorbells: &Doorbells,
    (kind, name, time_ms): (SanctionKind, &str, u64),
) -> Result<(), SanctionError> {
    for keeper in sanctions::impose(lobby, kind, name, time_ms)? {
        doorbells.ring_keeper(keeper);
    }
    log::info!(
        "an operator has imposed a {kind} of {} s on \"{name}\"",
        time_ms / 1000
    );
    Ok(())
}

/// Lifts the bans and mutes of a name.
pub(crate) fn unban(lobby: &mut StateHandle, name: &str) -> Result<(), SanctionError> {
    sanctions::lift(lobby, name)?;
    log::info!("an operator has lifted the bans and mutes of \"{name}\"");
    Ok(())
}

/// Sends a line of the lobby's chat in the server's name.
pub(crate) fn say(lobby: &mut StateHandle, doorbells: &Doorbells, text: &str) -> Result<(), Rejection> {
    chat::announce(lobby, text)?;
    doorbells.ring_chat(&lobby.memory.chat.log);
    log::info!("an operator has told all players \"{text}\"");
    Ok(())
}

/// Asks the supervisor to stop the server.
pub(crate) fn stop(context: ConsoleContext) -> io::Result<()> {
    log::info!("an operator has asked the server to stop");
    context.signal_supervisor(Signal::TERM)
}

/// Why a drain was not begun or cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum DrainError {
    #[error("the server does not drain")]
    NotDraining,
    #[error("the drain is over, and the server is stopping")]
    Over,
}

/// Begins a drain, or cancels it. While the server drains it refuses new players, and the ticker stops it after the
/// last match.
pub(crate) fn drain(context: ConsoleContext, drain: Drain) -> Result<(), DrainError> {
    let header = context.memory.header;
    if header.drained.load(Ordering::Acquire) != 0 {
        return Err(DrainError::Over);
    }
    match drain {
        Drain::On { seconds_max } => {
            let until_ms = seconds_max.map_or(u64::MAX, |seconds| now_ms() + u64::from(seconds) * 1000);
            header.drain_until_ms.store(until_ms, Ordering::Release);
            log::info!(
                "an operator has begun a drain: the server takes no new players, and stops when its matches have ended"
            );
        }
        Drain::Off => {
            if header.drain_until_ms.swap(0, Ordering::AcqRel) == 0 {
                return Err(DrainError::NotDraining);
            }
            log::info!("an operator has cancelled the drain");
        }
    }
    Ok(())
}
