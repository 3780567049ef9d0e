//! Commands that change the server: kick, ban, mute, say, drain, stop.

use std::io;
use std::net::IpAddr;
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
use crate::state::sources::{AddressBansFull, SourceKey};
use forkade_text::render;

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

/// Bans the source of an address.
pub(crate) fn ban_address(
    lobby: &mut StateHandle,
    doorbells: &Doorbells,
    address: IpAddr,
    time_ms: u64,
) -> Result<(), AddressBansFull> {
    for keeper in sanctions::ban_address(lobby, address, time_ms)? {
        doorbells.ring_keeper(keeper);
    }
    log::info!(
        "an operator has banned the address {address} for {} s",
        time_ms / 1000
    );
    Ok(())
}

/// Lifts the ban and the penalties of the source of an address. False if there were none.
pub(crate) fn unban_address(lobby: &mut StateHandle, address: IpAddr) -> bool {
    let key = SourceKey::new(address, lobby.memory.header.source_prefixes());
    let is_lifted = lobby.memory.sources.lift(key);
    if is_lifted {
        log::info!("an operator has lifted the ban and the penalties of the address {address}");
    }
    is_lifted
}

/// Lifts the bans and mutes of a name.
pub(crate) fn unban(lobby: &mut StateHandle, name: &str) -> Result<(), SanctionError> {
    sanctions::lift(lobby, name)?;
    log::info!("an operator has lifted the bans and mutes of \"{name}\"");
    Ok(())
}

/// Sends a line of the lobby's chat in the server's name.
pub(crate) fn say(lobby: &mut StateHandle, doorbells: &Doorbells, text: &str) -> Result<(), Rejection> {
    announce(lobby, doorbells, text)?;
    log::info!("an operator has told all players \"{text}\"");
    Ok(())
}

fn announce(lobby: &mut StateHandle, doorbells: &Doorbells, text: &str) -> Result<(), Rejection> {
    chat::announce(lobby, text)?;
    doorbells.ring_chat(&lobby.memory.chat.log);
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

/// Begins a drain, or cancels it, and tells all players. While the server drains it refuses new players, and the ticker
/// stops it after the last match.
pub(crate) fn drain(
    lobby: &mut StateHandle,
    context: ConsoleContext,
    drain: Drain,
) -> Result<(), DrainError> {
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
            tell(lobby, context, &draining_text(seconds_max));
        }
        Drain::Off => {
            if header.drain_until_ms.swap(0, Ordering::AcqRel) == 0 {
                return Err(DrainError::NotDraining);
            }
            log::info!("an operator has cancelled the drain");
            tell(
                lobby,
                context,
                "The server does not stop: matches begin as before.",
            );
        }
    }
    Ok(())
}

/// What players are told when a drain begins.
fn draining_text(seconds_max: Option<u32>) -> String {
    let latest = seconds_max.map_or_else(String::new, |seconds| {
        format!(
            ", in {} at the latest",
            render::duration(u64::from(seconds) * 1000)
        )
    });
    format!(
        "The server is about to stop: when the matches under way have ended{latest}. No other match begins."
    )
}

/// Tells all players something. If that fails, the operator's command does not.
fn tell(lobby: &mut StateHandle, context: ConsoleContext, text: &str) {
    if let Err(rejection) = announce(lobby, context.doorbells, text) {
        log::warn!("the players were not told \"{text}\": {rejection}");
    }
}
