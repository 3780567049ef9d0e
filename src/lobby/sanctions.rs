//! What operators impose on names: nobody can be here under a banned name, and nobody can chat under a muted one.
//!
//! A sanction holds for the name and all that [count as the same](forkade_protocol::text::is_same_name). It does not
//! hold for the person: with another name that person is another player. It is one transaction under the lobby's lock,
//! with the kicks that it implies.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use forkade_protocol::text::TextError;
use forkade_protocol::{ErrorCode, RejectCode};

use crate::limits::IDENTITIES_PER_TRANSACTION;
use crate::lobby::departure::mark_kicked;
use crate::lobby::names::clean_name;
use crate::session::rejection::Rejection;
use crate::session::{CloseReason, Session};
use crate::state::directory::Presence;
use crate::state::handle::StateHandle;
use crate::state::layout::PlayerRef;
use crate::state::sanctions::{Sanction, SanctionKind, SanctionsFull};
use crate::state::sources::{AddressBansFull, SourceKey};
use forkade_text::render;
use shmem::sys::clock::now_ms;

/// Why a sanction was not imposed or lifted. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SanctionError {
    /// Nobody can have the name anyway.
    #[error("no player can have that name: {0}")]
    Name(#[from] TextError),
    /// There are too many.
    #[error(transparent)]
    Full(#[from] SanctionsFull),
    /// There is none to be lifted.
    #[error("there is no ban or mute of that name")]
    None,
}

/// Imposes a sanction on the name for `time_ms` milliseconds. A ban also kicks the players who have the name, or one
/// that looks like it. Returns the keepers whose doorbells are to be rung.
///
/// # Errors
///
/// If no player can have the name, or there are too many sanctions.
pub fn impose(
    state: &mut StateHandle,
    kind: SanctionKind,
    name: &str,
    time_ms: u64,
) -> Result<Vec<u32>, SanctionError> {
    let sanction = Sanction {
        kind,
        name: clean_name(name)?,
        until_ms: now_ms() + time_ms,
    };
    let memory = state.memory;
    let mut tx = state.attachment.begin(memory.directory.record);
    memory.directory.impose(&mut tx, &sanction)?;
    let mut connections = Vec::new();
    if kind == SanctionKind::BAN {
        let holders: Vec<_> = memory.directory.holders(&tx, sanction.name.as_str()).collect();
        connections.extend(
            holders
                .into_iter()
                .filter_map(|holder| mark_kicked(&mut tx, memory, holder)),
        );
    }
    tx.commit().expect("a sanction fits the journal");
    let raise = |connection| memory.raise_attention(connection);
    Ok(connections.into_iter().map(raise).collect())
}

/// Bans the source of an address for `time_ms` milliseconds, and kicks the players that came from it. Returns the
/// keepers whose doorbells are to be rung.
///
/// # Errors
///
/// [`AddressBansFull`].
pub fn ban_address(
    state: &mut StateHandle,
    address: IpAddr,
    time_ms: u64,
) -> Result<Vec<u32>, AddressBansFull> {
    let memory = state.memory;
    let key = SourceKey::new(address, memory.header.source_prefixes());
    let tx = state.attachment.begin(memory.directory.record);
    let banned = memory.sources.ban(key, now_ms() + time_ms);
    drop(tx);
    banned?;
    let players: Vec<u32> = memory.sources.players_of(key).collect();
    let mut keepers = Vec::new();
    // A few at a time: their marks must fit the journal.
    for some in players.chunks(IDENTITIES_PER_TRANSACTION as usize) {
        let mut tx = state.attachment.begin(memory.directory.record);
        let mut connections = Vec::new();
        for index in some {
            let identity = memory.directory.identities.at(*index);
            let player = PlayerRef::new(*index, tx.get(&identity.generation));
            if Presence::from_raw(tx.get(&identity.presence)) != Presence::FREE {
                connections.extend(mark_kicked(&mut tx, memory, player));
            }
        }
        tx.commit().expect("a few marks fit the journal");
        keepers.extend(
            connections
                .into_iter()
                .map(|connection| memory.raise_attention(connection)),
        );
    }
    Ok(keepers)
}

/// Lifts all sanctions on the name.
///
/// # Errors
///
/// If there are none, or no player can have the name.
pub fn lift(state: &mut StateHandle, name: &str) -> Result<(), SanctionError> {
    let name = clean_name(name)?;
    let directory = state.memory.directory;
    let hashes = directory.hashes_of(name.as_str());
    let mut tx = state.attachment.begin(directory.record);
    let lifted = directory.lift(&mut tx, hashes, None);
    tx.commit().expect("a few marks fit the journal");
    lifted.then_some(()).ok_or(SanctionError::None)
}

/// What a player is told that an operator has kicked.
pub(crate) fn close_reason(session: &mut Session<'_>) -> CloseReason {
    if let Some(refused) = address_ban(session) {
        return refused;
    }
    let (name, directory) = (session.name(), session.state.memory.directory);
    let tx = session.state.attachment.begin(directory.record);
    kicked(directory.sanction_left_ms(&tx, SanctionKind::BAN, name))
}

/// What a client is told whose address an operator has banned; `None`: it is not.
pub(crate) fn address_ban(session: &Session<'_>) -> Option<CloseReason> {
    let left_ms = session.state.memory.sources.ban_left_ms(session.source()?)?;
    let text = render::address_banned(left_ms);
    Some(CloseReason::Error(ErrorCode::Kicked, text))
}

/// The same, if the name is banned for `ban_ms` more milliseconds, or not at all.
pub(crate) fn kicked(ban_ms: Option<u64>) -> CloseReason {
    let text = ban_ms.map_or_else(|| "an operator has sent you out".to_owned(), render::banned);
    CloseReason::Error(ErrorCode::Kicked, text)
}

/// Checks that no operator has muted the player's name.
///
/// # Errors
///
/// [`RejectCode::ChatTooFast`] with the time to wait.
pub(crate) fn ensure_not_muted(session: &mut Session<'_>) -> Result<(), Rejection> {
    let (name, memory) = (session.name(), session.state.memory);
    let head = memory.directory.record;
    // Hardly ever is anyone muted, and chat should not wait for the lobby's lock.
    if head.mutes_end_published_ms.load(Ordering::Acquire) <= now_ms() {
        return Ok(());
    }
    let tx = session.state.attachment.begin(head);
    let Some(left_ms) = memory.directory.sanction_left_ms(&tx, SanctionKind::MUTE, name) else {
        return Ok(());
    };
    drop(tx);
    memory.header.muted_total.fetch_add(1, Ordering::Relaxed);
    Err(Rejection {
        retry_after_ms: Some(u32::try_from(left_ms).unwrap_or(u32::MAX)),
        ..Rejection::new(RejectCode::ChatTooFast, render::muted(left_ms))
    })
}
