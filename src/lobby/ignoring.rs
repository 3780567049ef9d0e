//! Whom a player ignores: a list of names in the player's record, which only the player's own handler reads and
//! changes.
//!
//! Senders know nothing of it. What others write to the player is left out when it is delivered.

use forkade_protocol::{RejectCode, RoomEvent, ServerMessage, codec};

use crate::limits::{FRAME_HEADER_BYTES, IGNORED_NAMES_MAX};
use crate::lobby::names::clean_name;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::directory::{Directory, NameHashes};

/// Ignores the players of this name, or with `ignore` false not any more.
///
/// # Errors
///
/// If no player can have the name, it is the player's own, or the player ignores too many.
pub fn ignore(session: &mut Session<'_>, name: &str, ignore: bool) -> Result<(), Rejection> {
    let unknown = |why: &str| Rejection::new(RejectCode::UnknownPlayer, why);
    let name =
        clean_name(name).map_err(|error| unknown(&format!("no player can have that name: {error}")))?;
    let directory = session.state.memory.directory;
    let hashes = directory.hashes_of(name.as_str());
    if hashes.is_same(directory.hashes_of(session.name().as_str())) {
        return Err(unknown("that is your own name"));
    }
    let Some(own) = session.player_tx() else {
        return Ok(());
    };
    let (count, names) = (&own.player.ignored, &own.player.ignored_names);
    let mut tx = session.state.attachment.begin(own.player);
    let mut ignored = tx.get(count) as usize;
    // An earlier name may look like this one.
    while let Some(earlier) = names[..ignored]
        .iter()
        .find(|earlier| tx.get(&earlier.hashes).is_same(hashes))
    {
        ignored -= 1;
        let (last_hashes, last_name) = (tx.get(&names[ignored].hashes), tx.get(&names[ignored].name));
        tx.set(&earlier.hashes, last_hashes);
        tx.set(&earlier.name, last_name);
    }
    if ignore {
        let place = names.get(ignored).ok_or_else(|| {
            let text = format!("you ignore {IGNORED_NAMES_MAX} names already, which is the most");
            Rejection::new(RejectCode::IgnoringTooMany, text)
        })?;
        tx.set(&place.hashes, hashes);
        tx.set(&place.name, name);
        ignored += 1;
    }
    tx.set(count, u32::try_from(ignored).expect("bounded by the limit"));
    let text = match ignore {
        true => format!("You ignore {} now.\n", name.as_str()),
        false => format!("You do not ignore {}.\n", name.as_str()),
    };
    own.say(&mut tx, &text);
    own.consume(&mut tx);
    Ok(tx.commit()?)
}

/// Replies to a player in text mode with the names that it ignores.
///
/// # Errors
///
/// If the transaction does not fit. That is a bug in the server.
pub fn list(session: &mut Session<'_>) -> Result<(), Rejection> {
    let Some((_, player)) = session.player else {
        return Ok(());
    };
    let attachment = &session.state.attachment;
    let names: Vec<_> = player
        .ignored_names(attachment)
        .map(|ignored| attachment.read_own(&ignored.name).as_str().to_owned())
        .collect();
    session.say(&match names.is_empty() {
        true => "You ignore nobody.\n".to_owned(),
        false => format!("You ignore {}.\n", names.join(", ")),
    })
}

/// The names that a player ignores, as they are when a delivery begins.
pub(crate) struct Ignored {
    names: Vec<NameHashes>,
    directory: Directory,
}

impl Ignored {
    pub(crate) fn by(session: &Session<'_>) -> Self {
        let attachment = &session.state.attachment;
        let names = session.player.map_or_else(Vec::new, |(_, player)| {
            player
                .ignored_names(attachment)
                .map(|ignored| attachment.read_own(&ignored.hashes))
                .collect()
        });
        Self {
            names,
            directory: session.state.memory.directory,
        }
    }

    /// Whether the event is left out.
    pub(crate) fn hides(&self, event: &RoomEvent) -> bool {
        matches!(event, RoomEvent::Chat { from, .. } if self.contains(from))
    }

    /// Whether the message in the frame is left out.
    pub(crate) fn hides_frame(&self, frame: &[u8]) -> bool {
        if self.names.is_empty() {
            return false;
        }
        match codec::decode(&frame[FRAME_HEADER_BYTES..]) {
            Ok(ServerMessage::Event { event, .. }) => self.hides(&event),
            Ok(ServerMessage::Chat { from, .. } | ServerMessage::Invited { from, .. }) => {
                self.contains(&from)
            }
            _ => false,
        }
    }

    fn contains(&self, name: &str) -> bool {
        if self.names.is_empty() {
            return false;
        }
        let hashes = self.directory.hashes_of(name);
        self.names.iter().any(|ignored| ignored.is_same(hashes))
    }
}
