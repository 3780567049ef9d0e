//! Relay: everyone in the room receives what a seat sends. For games whose rules are in their clients, and for
//! measurements.
//!
//! An action is any bytes. Its event is [`Relayed`]. There is no state and no view, and a match does not end.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize, Serializer};

use crate::limits::SEATS_MAX;
use crate::{Game, Outbox, Outcome, Rejection, Start, Viewer};

/// Bytes of a payload that people are shown.
const SHOWN_BYTES_MAX: usize = 400;

/// The game.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay;

/// A message as everyone in the room receives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// The sender's seat.
    pub seat: u8,
    /// What was sent.
    #[serde(serialize_with = "as_bytes")]
    pub payload: Vec<u8>,
}

impl Game for Relay {
    type Options = ();
    type Action = Vec<u8>;
    type Event = Relayed;
    type View = ();

    const NAME: &'static str = "relay";
    const SEATS: RangeInclusive<u8> = 1..=SEATS_MAX;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::AtOnce;

    fn new(_options: (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Relay)
    }

    fn act(&mut self, seat: u8, payload: Vec<u8>, out: &mut Outbox<Relayed>) -> Result<(), Rejection> {
        out.to_all(&Relayed { seat, payload });
        Ok(())
    }

    fn view(&self, _viewer: Viewer) {}

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(text: &str, _view: Option<&Self::View>) -> Result<Vec<u8>, Rejection> {
        Ok(text.into())
    }

    fn draw((): &(), _name_of: &dyn Fn(u8) -> String) -> String {
        String::new()
    }

    fn describe(relayed: &Relayed, name_of: &dyn Fn(u8) -> String) -> String {
        let Relayed { seat, payload } = relayed;
        let (shown, rest) = payload.split_at(payload.len().min(SHOWN_BYTES_MAX));
        let more = if rest.is_empty() { "" } else { " …" };
        let shown = String::from_utf8_lossy(shown);
        format!("{} sends {} bytes: {shown}{more}", name_of(*seat), payload.len())
    }

    fn decode_action(bytes: &[u8]) -> Result<Vec<u8>, Rejection> {
        Ok(bytes.to_vec())
    }

    fn encode_action(payload: &Vec<u8>) -> Result<Vec<u8>, Rejection> {
        Ok(payload.clone())
    }
}

/// The same encoding as serde's own, which encodes byte by byte.
fn as_bytes<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(payload)
}

#[cfg(test)]
mod tests {
    use forkade_protocol::{RejectCode, codec};
    use proptest::prelude::*;

    use super::*;
    use crate::limits::ACTION_BYTES_MAX;
    use crate::{Audience, ErasedOutbox, GameError, Games, Step};

    /// What everyone receives when `seat` sends `action`.
    fn relayed(seat: u8, action: &[u8]) -> Result<Vec<u8>, GameError> {
        let mut games = Games::new();
        games.add::<Relay>().expect("the first game");
        let (_, relay) = games.find("relay").expect("it was added");
        let mut out = ErasedOutbox::new();
        let step = relay.act(&[], seat, action, &mut out, &mut [])?;
        assert_eq!(
            step,
            Step {
                state_bytes: 0,
                outcome: None,
                to_move: None
            }
        );
        let events: Vec<_> = out.iter().collect();
        let [(Audience::All, event)] = events[..] else {
            panic!("not one event to all: {events:?}")
        };
        Ok(event.to_vec())
    }

    #[test]
    fn the_longest_action_is_relayed_and_a_longer_one_rejected() {
        assert!(relayed(0, &[7; ACTION_BYTES_MAX]).is_ok());
        let error = relayed(0, &[7; ACTION_BYTES_MAX + 1]).expect_err("too long");
        assert_eq!(error.rejection().code(), RejectCode::BadAction);
    }

    proptest! {
        #[test]
        fn any_bytes_are_relayed_unchanged(seat in any::<u8>(), action in proptest::collection::vec(any::<u8>(), 0..600)) {
            let event = relayed(seat, &action).expect("nothing is forbidden");
            prop_assert_eq!(codec::decode::<(u8, Vec<u8>)>(&event), Ok((seat, action)));
        }
    }
}
