//! The events that a call of a game gives out: [`Outbox`] for the game, over [`ErasedOutbox`], a buffer that the server
//! reuses.

use std::marker::PhantomData;

use forkade_protocol::codec::{self, CodecError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::Viewer;
use crate::limits::{GAME_EVENT_BYTES_MAX, OUTBOX_BYTES_MAX, OUTBOX_EVENT_HEADER_BYTES, OUTBOX_EVENTS_MAX};

/// Who gets an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everyone in the room, spectators included.
    All,
    /// This seat alone.
    Seat(u8),
    /// Everyone in the room but this seat, spectators included.
    AllBut(u8),
    /// The spectators alone.
    Spectators,
}

impl Audience {
    /// Whether the viewer gets the event.
    pub fn includes(self, viewer: Viewer) -> bool {
        match self {
            Audience::All => true,
            Audience::Seat(seat) => viewer == Viewer::Seat(seat),
            Audience::AllBut(seat) => viewer != Viewer::Seat(seat),
            Audience::Spectators => viewer == Viewer::Spectator,
        }
    }

    /// The seat that is named.
    pub(crate) fn seat(self) -> Option<u8> {
        match self {
            Audience::All | Audience::Spectators => None,
            Audience::Seat(seat) | Audience::AllBut(seat) => Some(seat),
        }
    }
}

/// A limit that the events of one call exceed. The call fails as a whole, and none of its events is seen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OutboxError {
    /// More events than a call may give out.
    #[error("more than {OUTBOX_EVENTS_MAX} events in one call")]
    TooManyEvents,
    /// More bytes of events than a call may give out.
    #[error("more than {OUTBOX_BYTES_MAX} bytes of events in one call")]
    TooManyBytes,
    /// An event that is too long for a frame.
    #[error("an event of more than {GAME_EVENT_BYTES_MAX} bytes")]
    EventTooLarge,
    /// An event of a type that the codec cannot encode; the codec's message.
    #[error("an event that cannot be encoded: {0}")]
    Unencodable(String),
}

/// The events of one call of a game, in the order in which everyone sees them.
///
/// A game has no error to handle: if a limit ([`OUTBOX_EVENTS_MAX`], [`OUTBOX_BYTES_MAX`], [`GAME_EVENT_BYTES_MAX`]) is
/// exceeded, the outbox records it, and the server fails the whole call with an [`OutboxError`].
#[derive(Debug)]
pub struct Outbox<E> {
    erased: ErasedOutbox,
    event: PhantomData<fn(&E)>,
}

impl<E> Outbox<E> {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::from_erased(ErasedOutbox::new())
    }

    /// The first limit that was exceeded.
    pub fn error(&self) -> Option<&OutboxError> {
        self.erased.error()
    }

    pub(crate) fn from_erased(erased: ErasedOutbox) -> Self {
        Outbox {
            erased,
            event: PhantomData,
        }
    }

    pub(crate) fn into_erased(self) -> ErasedOutbox {
        self.erased
    }
}

impl<E: Serialize> Outbox<E> {
    /// Sends `event` to everyone in the room, spectators included.
    pub fn to_all(&mut self, event: &E) {
        self.erased.push(Audience::All, event);
    }

    /// Sends `event` to `seat` alone.
    pub fn to_seat(&mut self, seat: u8, event: &E) {
        self.erased.push(Audience::Seat(seat), event);
    }

    /// Sends `event` to everyone in the room but `seat`, spectators included.
    pub fn to_all_but(&mut self, seat: u8, event: &E) {
        self.erased.push(Audience::AllBut(seat), event);
    }

    /// Sends `event` to the spectators alone.
    pub fn to_spectators(&mut self, event: &E) {
        self.erased.push(Audience::Spectators, event);
    }
}

impl<E: DeserializeOwned> Outbox<E> {
    /// All events so far with their audiences, for tests of games.
    ///
    /// # Panics
    ///
    /// If the event type's `Deserialize` cannot read what its `Serialize` wrote.
    pub fn events(&self) -> Vec<(Audience, E)> {
        let decoded = |bytes| codec::decode(bytes).expect("an event decodes as it was encoded");
        self.erased
            .iter()
            .map(|(audience, bytes)| (audience, decoded(bytes)))
            .collect()
    }
}

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// The size of the first allocation.
const OUTBOX_BYTES_FIRST: usize = 256;

/// Encoded events with their audiences. Internal to the server, which reuses one for every call.
#[derive(Debug, Default)]
pub struct ErasedOutbox {
    /// The events, each after its header: length (`u16`, little-endian), the kind of audience, its seat or 0.
    bytes: Vec<u8>,
    used: usize,
    count: usize,
    error: Option<OutboxError>,
}

impl ErasedOutbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all encoded events with their headers.
    pub fn bytes_used(&self) -> usize {
        self.used
    }

    /// Removes all events and the error.
    pub fn clear(&mut self) {
        (self.used, self.count, self.error) = (0, 0, None);
    }

    /// The events in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Audience, &[u8])> {
        let mut rest = &self.bytes[..self.used];
        std::iter::from_fn(move || {
            let (&[length_low, length_high, kind, seat], behind) = rest.split_first_chunk()?;
            let (event, next) = behind.split_at(u16::from_le_bytes([length_low, length_high]).into());
            rest = next;
            let audience = match kind {
                0 => Audience::All,
                1 => Audience::Seat(seat),
                2 => Audience::AllBut(seat),
                _ => Audience::Spectators,
            };
            Some((audience, event))
        })
    }

    pub(crate) fn error(&self) -> Option<&OutboxError> {
        self.error.as_ref()
    }

    pub(crate) fn take_error(&mut self) -> Option<OutboxError> {
        self.error.take()
    }

    /// Adds an event, unless there is an error: the first error is the one to report.
    fn push(&mut self, audience: Audience, event: &impl Serialize) {
        if self.error.is_none() {
            self.error = self.try_push(audience, event).err();
        }
    }

    fn try_push(&mut self, audience: Audience, event: &impl Serialize) -> Result<(), OutboxError> {
        if self.count == OUTBOX_EVENTS_MAX {
            return Err(OutboxError::TooManyEvents);
        }
        loop {
            match self.try_push_into_space(audience, event) {
                // Most games give out little, so the buffer grows only as far as it is needed.
                Err(OutboxError::TooManyBytes) if self.bytes.len() < OUTBOX_BYTES_MAX => {
                    let doubled = (self.bytes.len() * 2).clamp(OUTBOX_BYTES_FIRST, OUTBOX_BYTES_MAX);
                    self.bytes.resize(doubled, 0);
                }
                pushed => return pushed,
            }
        }
    }

    fn try_push_into_space(&mut self, audience: Audience, event: &impl Serialize) -> Result<(), OutboxError> {
        let Some((header, space)) = self.bytes[self.used..].split_first_chunk_mut() else {
            return Err(OutboxError::TooManyBytes);
        };
        let space_bytes = space.len().min(GAME_EVENT_BYTES_MAX);
        let length = codec::encode_into(event, &mut space[..space_bytes]).map_err(|error| match error {
            CodecError::BufferFull {
                capacity: GAME_EVENT_BYTES_MAX,
            } => OutboxError::EventTooLarge,
            CodecError::BufferFull { .. } => OutboxError::TooManyBytes,
            other => OutboxError::Unencodable(other.to_string()),
        })?;
        let (kind, seat) = match audience {
            Audience::All => (0, 0),
            Audience::Seat(seat) => (1, seat),
            Audience::AllBut(seat) => (2, seat),
            Audience::Spectators => (3, 0),
        };
        let length_field = u16::try_from(length).expect("GAME_EVENT_BYTES_MAX fits the length field");
        let [length_low, length_high] = length_field.to_le_bytes();
        *header = [length_low, length_high, kind, seat];
        self.used += OUTBOX_EVENT_HEADER_BYTES + length;
        self.count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn too_many_events_are_an_error_that_stays() {
        let mut out = Outbox::new();
        for number in (0..=u8::MAX).cycle().take(OUTBOX_EVENTS_MAX) {
            out.to_all(&vec![number]);
        }
        assert_eq!(out.error(), None);
        out.to_all(&vec![0]);
        assert_eq!(out.error(), Some(&OutboxError::TooManyEvents));
        out.to_all(&vec![0; GAME_EVENT_BYTES_MAX]);
        assert_eq!(out.error(), Some(&OutboxError::TooManyEvents));
    }

    #[test]
    fn an_event_as_long_as_allowed_goes_in_and_one_byte_more_does_not() {
        let longest = vec![7_u8; GAME_EVENT_BYTES_MAX - 3];
        let mut out = Outbox::new();
        out.to_all(&longest);
        assert_eq!(
            (out.error(), out.events()),
            (None, vec![(Audience::All, longest.clone())])
        );
        out.to_all(&[longest, vec![7]].concat());
        assert_eq!(out.error(), Some(&OutboxError::EventTooLarge));
    }

    #[test]
    fn too_many_bytes_are_an_error_and_clear_removes_it() {
        let mut out = Outbox::new();
        let half = vec![7_u8; OUTBOX_BYTES_MAX / 2 - OUTBOX_EVENT_HEADER_BYTES - 3];
        out.to_all(&half);
        assert_eq!(
            out.error(),
            Some(&OutboxError::EventTooLarge),
            "half an outbox is more than a frame holds"
        );

        let mut erased = out.into_erased();
        erased.clear();
        let mut out = Outbox::from_erased(erased);
        let third = vec![7_u8; OUTBOX_BYTES_MAX / 3];
        for _ in 0..3 {
            out.to_all(&third);
        }
        assert_eq!(
            (out.error(), out.events().len()),
            (Some(&OutboxError::TooManyBytes), 2)
        );
    }

    #[test]
    fn an_event_that_cannot_be_encoded_is_an_error() {
        struct Unencodable;
        impl Serialize for Unencodable {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("never"))
            }
        }
        let mut out = Outbox::new();
        out.to_all(&Unencodable);
        assert!(matches!(out.error(), Some(OutboxError::Unencodable(_))));
    }

    #[test]
    fn each_audience_includes_the_viewers_that_it_names() {
        let mut out = Outbox::new();
        out.to_all(&0);
        out.to_seat(1, &1);
        out.to_all_but(1, &2);
        out.to_spectators(&3);
        let got = |viewer| -> Vec<i32> {
            let events = out.events().into_iter();
            events
                .filter(|(audience, _)| audience.includes(viewer))
                .map(|(_, event)| event)
                .collect()
        };
        assert_eq!(got(Viewer::Seat(0)), [0, 2]);
        assert_eq!(got(Viewer::Seat(1)), [0, 1]);
        assert_eq!(got(Viewer::Spectator), [0, 2, 3]);
    }

    proptest! {
        #[test]
        fn events_come_out_as_they_went_in(
            events in proptest::collection::vec(
                (proptest::option::of(any::<u8>()), proptest::collection::vec(any::<u8>(), 0..50)), 0..100)
        ) {
            let mut out = Outbox::new();
            let mut expected = Vec::new();
            for (seat, event) in events {
                match seat {
                    None => out.to_all(&event),
                    Some(seat) => out.to_seat(seat, &event),
                }
                expected.push((seat.map_or(Audience::All, Audience::Seat), event));
            }
            prop_assert_eq!(out.events(), expected.clone());
            prop_assert_eq!(out.into_erased().len(), expected.len());
        }
    }
}
