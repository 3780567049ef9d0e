//! What has gone wrong or ended lately, for operators: the last incidents of each kind, in shared memory.
//!
//! Also processes that take no lock write here, and any may be killed while it writes. So a record carries a checksum
//! of its words and its number: a reader leaves out a record that does not have it, whether its writer was killed, has
//! not finished, or was overtaken by another one in the same place. Writers wait for nobody. Each kind has its own
//! places: a flood of refusals hides no death.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use forkade_games::floor_char_boundary;
use shmem::shared_record;
use shmem::sys::clock::now_ms;

use crate::limits::{INCIDENT_TEXT_BYTES, INCIDENTS_PER_KIND_MAX};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncidentKind {
    /// A process has died.
    Death,
    /// Another process goes on with the connections of one that died.
    Takeover,
    /// A connection was closed with an error.
    Refusal,
    /// A player has left, or has lost its connection.
    Departure,
    /// A game's own code has failed.
    Failure,
}

impl IncidentKind {
    /// All kinds, in the order of their numbers.
    pub(crate) const ALL: [Self; 5] = [
        Self::Death,
        Self::Takeover,
        Self::Refusal,
        Self::Departure,
        Self::Failure,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Death => "death",
            Self::Takeover => "takeover",
            Self::Refusal => "refusal",
            Self::Departure => "departure",
            Self::Failure => "failure",
        }
    }
}

/// An incident.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Incident {
    /// When, in milliseconds of the monotonic clock.
    pub(crate) at_ms: u64,
    /// The process that it concerns.
    pub(crate) pid: u32,
    /// The room's number; 0: none.
    pub(crate) room: u32,
    /// The player's name; empty: none, or not known to the process that wrote it.
    pub(crate) player: String,
    /// What happened.
    pub(crate) text: String,
}

/// Words of a record behind its checksum: number, time, pid and room, lengths, and the texts.
const WORDS: usize = 4 + INCIDENT_TEXT_BYTES / 8;

shared_record! {
    /// One incident. Its first word is the checksum of the others.
    struct IncidentRecord {
        words: [AtomicU64; 1 + WORDS],
    }
}

shared_record! {
    /// The incidents of one kind.
    struct IncidentRing {
        /// Incidents ever entered.
        entered: AtomicU64,
        records: [IncidentRecord; INCIDENTS_PER_KIND_MAX],
    }
}

shared_record! {
    /// The last incidents, by kind.
    pub struct Incidents {
        rings: [IncidentRing; IncidentKind::ALL.len()],
    }
}

impl Incidents {
    /// Enters an incident. The text is cut if it is too long.
    pub(crate) fn enter(
        &self,
        kind: IncidentKind,
        (pid, room): (u32, Option<u32>),
        player: &str,
        text: fmt::Arguments<'_>,
    ) {
        let incident = Incident {
            at_ms: now_ms(),
            pid,
            room: room.map_or(0, |index| index + 1),
            player: player.to_owned(),
            text: text.to_string(),
        };
        let ring = &self.rings[kind as usize];
        let number = ring.entered.fetch_add(1, Ordering::Relaxed) + 1;
        ring.record(number).write(&encode(number, &incident));
    }

    /// The incidents of the kind that are kept whole, the latest first.
    pub(crate) fn latest(&self, kind: IncidentKind) -> impl Iterator<Item = Incident> {
        let ring = &self.rings[kind as usize];
        let last = ring.entered.load(Ordering::Relaxed);
        let first = last.saturating_sub(INCIDENTS_PER_KIND_MAX as u64) + 1;
        (first..=last)
            .rev()
            .filter_map(|number| decode(number, &ring.record(number).read()?))
    }

    /// Incidents of the kind ever entered.
    pub(crate) fn entered(&self, kind: IncidentKind) -> u64 {
        self.rings[kind as usize].entered.load(Ordering::Relaxed)
    }
}

impl IncidentRing {
    fn record(&self, number: u64) -> &IncidentRecord {
        let place = number % INCIDENTS_PER_KIND_MAX as u64;
        &self.records[usize::try_from(place).expect("below a length")]
    }
}

impl IncidentRecord {
    fn write(&self, words: &[u64; WORDS]) {
        self.words[0].store(checksum(words), Ordering::Relaxed);
        for (cell, word) in self.words[1..].iter().zip(words) {
            cell.store(*word, Ordering::Relaxed);
        }
    }

    /// The words, if they belong together.
    fn read(&self) -> Option<[u64; WORDS]> {
        let mut words = [0; WORDS];
        for (word, cell) in words.iter_mut().zip(&self.words[1..]) {
            *word = cell.load(Ordering::Relaxed);
        }
        (self.words[0].load(Ordering::Relaxed) == checksum(&words)).then_some(words)
    }
}

/// Differs for words of different records, but for one pair in 2^64.
fn checksum(words: &[u64; WORDS]) -> u64 {
    words.iter().fold(0x9E37_79B9_7F4A_7C15, |sum: u64, word| {
        let mixed = (sum ^ word).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ mixed >> 29).rotate_left(17)
    })
}

fn encode(number: u64, incident: &Incident) -> [u64; WORDS] {
    let player = floor_char_boundary(&incident.player, INCIDENT_TEXT_BYTES);
    let text = floor_char_boundary(&incident.text, INCIDENT_TEXT_BYTES - player);
    let mut bytes = [0; INCIDENT_TEXT_BYTES];
    bytes[..player].copy_from_slice(&incident.player.as_bytes()[..player]);
    bytes[player..player + text].copy_from_slice(&incident.text.as_bytes()[..text]);
    let mut words = [0; WORDS];
    words[0] = number;
    words[1] = incident.at_ms;
    words[2] = u64::from(incident.pid) << 32 | u64::from(incident.room);
    words[3] = (player as u64) << 32 | text as u64;
    for (word, chunk) in words[4..].iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

/// The incident of this number; `None` if the words are those of another one.
fn decode(number: u64, words: &[u64; WORDS]) -> Option<Incident> {
    let halves = |word: u64| {
        Some((
            u32::try_from(word >> 32).ok()?,
            u32::try_from(word & 0xFFFF_FFFF).ok()?,
        ))
    };
    let bytes: Vec<u8> = words[4..].iter().flat_map(|word| word.to_le_bytes()).collect();
    let ((pid, room), (player, text)) = (halves(words[2])?, halves(words[3])?);
    let (player, text) = (player as usize, text as usize);
    let taken = |from: usize, length: usize| {
        let bytes = bytes.get(from..from.checked_add(length)?)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    (words[0] == number).then_some(())?;
    Some(Incident {
        at_ms: words[1],
        pid,
        room,
        player: taken(0, player)?,
        text: taken(player, text)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::layout::{Capacity, Memory};

    fn incidents() -> &'static Incidents {
        let capacity = Capacity {
            players: 1,
            rooms: 1,
            keepers: 1,
        };
        Memory::create(capacity).expect("there is memory").incidents
    }

    fn texts(incidents: &Incidents, kind: IncidentKind) -> Vec<String> {
        incidents.latest(kind).map(|incident| incident.text).collect()
    }

    #[test]
    fn the_last_incidents_of_each_kind_are_kept_and_cut_to_their_space() {
        let incidents = incidents();
        let long = "ä".repeat(INCIDENT_TEXT_BYTES);
        incidents.enter(IncidentKind::Death, (7, Some(0)), "Ann", format_args!("{long}"));
        let death = incidents
            .latest(IncidentKind::Death)
            .next()
            .expect("it was entered");
        assert_eq!((death.pid, death.room, &*death.player), (7, 1, "Ann"));
        assert!(long.starts_with(&death.text) && death.text.len() + 3 > INCIDENT_TEXT_BYTES - 3);
        for nth in 0..INCIDENTS_PER_KIND_MAX + 5 {
            incidents.enter(IncidentKind::Refusal, (1, None), "", format_args!("{nth}"));
        }
        let refusals = texts(incidents, IncidentKind::Refusal);
        assert_eq!(refusals.len(), INCIDENTS_PER_KIND_MAX);
        assert_eq!(refusals[0], (INCIDENTS_PER_KIND_MAX + 4).to_string());
        assert_eq!(
            texts(incidents, IncidentKind::Death).len(),
            1,
            "no flood hides a death"
        );
    }

    #[test]
    fn a_record_whose_writer_was_killed_at_any_word_is_left_out_and_its_place_used_again() {
        let incidents = incidents();
        let ring = &incidents.rings[IncidentKind::Death as usize];
        let incident = |text: &str| Incident {
            at_ms: 3,
            text: text.to_owned(),
            ..Incident::default()
        };
        for text in ["first", "second"] {
            incidents.enter(IncidentKind::Death, (1, None), "", format_args!("{text}"));
        }
        // The third writer is killed before one of its words, over what another record has left there.
        let number = 3;
        let (old, new) = (
            encode(1000, &incident("an older one")),
            encode(number, &incident("third")),
        );
        ring.entered.store(number, Ordering::Relaxed);
        let record = ring.record(number);
        let cells = [&[checksum(&new)], &new[..]].concat();
        for written in 0..=cells.len() {
            record.write(&old);
            for (cell, word) in record.words.iter().zip(&cells[..written]) {
                cell.store(*word, Ordering::Relaxed);
            }
            // The words at the end are zero in both.
            let is_whole = record
                .words
                .iter()
                .map(|cell| cell.load(Ordering::Relaxed))
                .eq(cells.iter().copied());
            let kept = texts(incidents, IncidentKind::Death);
            let third = if is_whole { vec!["third"] } else { vec![] };
            assert_eq!(kept, [third, vec!["second", "first"]].concat(), "{written} words");
        }
        incidents.enter(IncidentKind::Death, (1, None), "", format_args!("fourth"));
        assert_eq!(texts(incidents, IncidentKind::Death)[0], "fourth");
    }
}
