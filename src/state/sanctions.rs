//! What operators have imposed on names: bans and mutes. They lie in the directory, under the lobby's lock, so that a
//! greeting finds them in its own transaction. One that is over is replaced by the next.

use std::cell::LazyCell;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::SANCTIONS_MAX;
use crate::state::directory::{Directory, LobbyTx, Name, NameHashes};
use shmem::shared_record;
use shmem::sys::clock::now_ms;
use shmem::sys::memory::Guarded;

shared_record! {
    /// The place of one sanction.
    pub struct SanctionRecord {
        /// When it ends, in milliseconds of the monotonic clock.
        until_ms: Guarded<u64>,
        kind: Guarded<SanctionKind>,
        name_hashes: Guarded<NameHashes>,
        name: Guarded<Name>,
    }
}

/// What is imposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct SanctionKind(u32);

impl SanctionKind {
    /// Nobody can be on the server under the name.
    pub const BAN: Self = Self(1);
    /// Nobody can chat under the name.
    pub const MUTE: Self = Self(2);
}

/// As in the console's list.
impl std::fmt::Display for SanctionKind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match *self {
            Self::BAN => "ban",
            Self::MUTE => "mute",
            _ => "?",
        })
    }
}

/// A sanction.
#[derive(Clone, Copy)]
pub(crate) struct Sanction {
    /// What is imposed.
    pub(crate) kind: SanctionKind,
    /// The name, as the operator has given it. It holds for all names that count as the same.
    pub(crate) name: Name,
    /// When it ends, in milliseconds of the monotonic clock.
    pub(crate) until_ms: u64,
}

/// There is no place for another sanction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {SANCTIONS_MAX} bans and mutes already: lift one, or wait until one is over")]
pub struct SanctionsFull;

impl Directory {
    /// Milliseconds that the sanction of that kind on the name still lasts; `None` if there is none.
    pub(crate) fn sanction_left_ms(&self, tx: &LobbyTx<'_>, kind: SanctionKind, name: Name) -> Option<u64> {
        let now_ms = now_ms();
        // Each greeting asks, under the lobby's lock: the name is hashed only if there is something to compare it with.
        let hashes = LazyCell::new(|| self.hashes_of(name.as_str()));
        self.sanctions_in_force(tx, now_ms)
            .filter(|place| tx.get(&place.kind) == kind && tx.get(&place.name_hashes).is_same(*hashes))
            .map(|place| tx.get(&place.until_ms) - now_ms)
            .max()
    }

    /// Imposes a sanction on a name, in place of one of the same kind on the same name.
    ///
    /// # Errors
    ///
    /// [`SanctionsFull`]; the transaction must not be committed.
    pub(crate) fn impose(&self, tx: &mut LobbyTx<'_>, sanction: &Sanction) -> Result<(), SanctionsFull> {
        let (head, now_ms) = (self.record, now_ms());
        let name_hashes = self.hashes_of(sanction.name.as_str());
        self.lift(tx, name_hashes, Some(sanction.kind));
        let touched = tx.get(&head.sanctions_touched) as usize;
        let is_over = |place: &&'static SanctionRecord| tx.get(&place.until_ms) <= now_ms;
        let place = match head.sanctions[..touched].iter().find(is_over) {
            Some(place) => place,
            None => {
                let place = head.sanctions.get(touched).ok_or(SanctionsFull)?;
                let touched = tx.get(&head.sanctions_touched) + 1;
                tx.set(&head.sanctions_touched, touched);
                place
            }
        };
        tx.set(&place.until_ms, sanction.until_ms);
        tx.set(&place.kind, sanction.kind);
        tx.set(&place.name_hashes, name_hashes);
        tx.set(&place.name, sanction.name);
        if sanction.kind == SanctionKind::MUTE {
            let mutes_end_ms = tx.get(&head.mutes_end_ms).max(sanction.until_ms);
            tx.set(&head.mutes_end_ms, mutes_end_ms);
        }
        Ok(())
    }

    /// Lifts the sanctions on a name, all or those of one kind. Returns whether there were any.
    pub(crate) fn lift(&self, tx: &mut LobbyTx<'_>, name: NameHashes, kind: Option<SanctionKind>) -> bool {
        let places: Vec<_> = self
            .sanctions_in_force(tx, now_ms())
            .filter(|place| tx.get(&place.name_hashes).is_same(name))
            .filter(|place| kind.is_none_or(|kind| tx.get(&place.kind) == kind))
            .collect();
        for place in &places {
            tx.set(&place.until_ms, 0);
        }
        !places.is_empty()
    }

    /// The sanction in a place, if one is in force there at `now_ms`.
    pub(crate) fn sanction(&self, tx: &LobbyTx<'_>, index: u32, now_ms: u64) -> Option<Sanction> {
        let place = self.record.sanctions.get(index as usize)?;
        let until_ms = tx.get(&place.until_ms);
        (until_ms > now_ms).then(|| Sanction {
            kind: tx.get(&place.kind),
            name: tx.get(&place.name),
            until_ms,
        })
    }

    fn sanctions_in_force(
        &self,
        tx: &LobbyTx<'_>,
        now_ms: u64,
    ) -> impl Iterator<Item = &'static SanctionRecord> {
        let touched = tx.get(&self.record.sanctions_touched) as usize;
        self.record.sanctions[..touched]
            .iter()
            .filter(move |place| tx.get(&place.until_ms) > now_ms)
    }
}
