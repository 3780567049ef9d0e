//! What an operator does to the server.

use crate::lobby::chat;
use crate::lobby::departure;
use std::io;
use std::sync::atomic::Ordering;

use rustix::process::Signal;
use thiserror::Error;

use crate::frontends::console::commands::Drain;
use crate::frontends::console::context::ConsoleContext;
use crate::lobby::departure::NoSuchPlayer;
use crate::session::rejection::Rejection;
use crate::state::doorbells::Doorbells;
use crate::state::handle::StateHandle;
use shmem::sys::clock::now_ms;

/// Sends a player out. One without a connection is gone when the ticker looks next.
pub(crate) fn kick(lobby: &mut StateHandle, doorbells: &Doorbells, name: &str) -> Result<(), NoSuchPlayer> {
    if let Some(keeper) = departure::kick(lobby, name)? {
        doorbells.ring_keeper(keeper);
    }
    log::info!("player \"{name}\" is sent out");
    Ok(())
}

/// Tells everybody on the server.
pub(crate) fn say(lobby: &mut StateHandle, doorbells: &Doorbells, text: &str) -> Result<(), Rejection> {
    chat::announce(lobby, text)?;
    doorbells.ring_chat(&lobby.memory.chat.log);
    log::info!("an operator has told everybody \"{text}\"");
    Ok(())
}

/// Asks the supervisor to end the server.
pub(crate) fn stop(context: ConsoleContext) -> io::Result<()> {
    log::info!("the server is told to stop");
    context.signal_supervisor(Signal::TERM)
}

/// Why a drain was not begun or taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum DrainError {
    #[error("the server does not drain")]
    NotDraining,
    #[error("the drain is over, and the server is stopping")]
    Over,
}

/// Refuses new players, and has the ticker stop the server when the last match has ended; or not after all.
pub(crate) fn drain(context: ConsoleContext, drain: Drain) -> Result<(), DrainError> {
    let header = context.memory.header;
    if header.drained.load(Ordering::Acquire) != 0 {
        return Err(DrainError::Over);
    }
    match drain {
        Drain::On { seconds_max } => {
            let until_ms = seconds_max.map_or(u64::MAX, |seconds| now_ms() + u64::from(seconds) * 1000);
            header.drain_until_ms.store(until_ms, Ordering::Release);
            log::info!("the server drains: it takes no new players, and stops when its matches have ended");
        }
        Drain::Off => {
            if header.drain_until_ms.swap(0, Ordering::AcqRel) == 0 {
                return Err(DrainError::NotDraining);
            }
            log::info!("the server does not drain any more");
        }
    }
    Ok(())
}
