//! For a game's own tests: plays a match over the same bytes as the server, and checks after each call what the server
//! relies on.
//!
//! ```
//! use forkade_games::tictactoe::TicTacToe;
//! use forkade_games::{Viewer, test_kit};
//!
//! let played = test_kit::play::<TicTacToe>(&[], 2, 7, [(0, 4), (1, 0), (0, 2), (1, 6)]);
//! assert!(played.refused.is_empty());
//! assert!(!played.seen_by(Viewer::Spectator).is_empty());
//! ```

use forkade_protocol::{Outcome, codec};

use crate::erased::Erased;
use crate::limits::{GAME_STATE_BYTES_MAX, GAME_VIEW_BYTES_MAX};
use crate::{AnyGame, ErasedOutbox, Game, GameError, Rejection, Viewer};

/// What a match has shown.
#[derive(Debug, Default)]
pub struct Played {
    /// The actions that the game refused, by their number in the list, and why.
    pub refused: Vec<(usize, Rejection)>,
    /// How the match ended, if it did. Later actions were not made.
    pub outcome: Option<Outcome>,
    /// Each event and view with its viewer, encoded.
    seen: Vec<(Viewer, Vec<u8>)>,
}

impl Played {
    /// All events and views that `viewer` got, in their order, encoded. Search them for what must be hidden.
    pub fn seen_by(&self, viewer: Viewer) -> Vec<&[u8]> {
        let seen = self.seen.iter().filter(|(of, _)| *of == viewer);
        seen.map(|(_, bytes)| bytes.as_slice()).collect()
    }
}

/// Plays a match of `actions`, each with its seat. After each call the state is decoded and encoded again, byte for
/// byte, the call is repeated, every viewer's view and event is encoded, decoded and drawn or described; all limits
/// apply. `options` are encoded; empty for the default.
///
/// # Panics
///
/// With the reason: a type that the codec cannot encode or decode, a call that gives two results (a `HashMap` in the
/// state, a clock, a random generator), an exceeded limit, a seat that the match does not have, or a panic of the game.
#[track_caller]
pub fn play<G: Game>(
    options: &[u8],
    seats: u8,
    seed: u64,
    actions: impl IntoIterator<Item = (u8, G::Action)>,
) -> Played {
    let game = Erased::<G>::new();
    let mut played = Played::default();
    let start = |next: &mut [u8]| game.start(options, seats, seed, next);
    let mut state = vec![0; GAME_STATE_BYTES_MAX];
    let mut step = or_fail::<G, _>("new", start(&mut state));
    let again = repeat::<G>("new", start);
    assert_same::<G>("new", &again, &state[..step.state_bytes]);
    for (number, (seat, action)) in actions.into_iter().enumerate() {
        look::<G>(&game, &state[..step.state_bytes], seats, &mut played);
        if step.outcome.is_some() {
            break;
        }
        let action = match G::encode_action(&action) {
            Ok(action) => action,
            Err(rejection) => panic!("{}: an action cannot be encoded: {}", G::NAME, rejection.text()),
        };
        let (current, mut out) = (state[..step.state_bytes].to_vec(), ErasedOutbox::new());
        match game.act(&current, seat, &action, &mut out, &mut state) {
            Ok(next) => step = next,
            Err(GameError::Rejected(rejection)) => {
                played.refused.push((number, rejection));
                state[..current.len()].copy_from_slice(&current);
                continue;
            }
            Err(fault) => panic!("{}: act failed: {fault}", G::NAME),
        }
        or_fail::<G, _>("act", step.check_seats(&out, seats));
        let events: Vec<_> = out
            .iter()
            .map(|(audience, event)| (audience, event.to_vec()))
            .collect();
        let again = repeat::<G>("act", |next| game.act(&current, seat, &action, &mut out, next));
        assert_same::<G>("act", &again, &state[..step.state_bytes]);
        let same = out.iter().eq(events
            .iter()
            .map(|(audience, event)| (*audience, event.as_slice())));
        assert!(
            same,
            "{}: the same action gives other events the second time",
            G::NAME
        );
        for (audience, event) in events {
            or_fail::<G, _>("describe", game.describe(&event, &|seat| format!("seat {seat}")));
            let getting = viewers(seats).filter(|viewer| audience.includes(*viewer));
            played.seen.extend(getting.map(|viewer| (viewer, event.clone())));
        }
    }
    look::<G>(&game, &state[..step.state_bytes], seats, &mut played);
    played.outcome = step.outcome;
    played
}

fn viewers(seats: u8) -> impl Iterator<Item = Viewer> {
    (0..seats).map(Viewer::Seat).chain([Viewer::Spectator])
}

/// Decodes and encodes the state, and shows it to every viewer.
#[track_caller]
fn look<G: Game>(game: &Erased<G>, state: &[u8], seats: u8, played: &mut Played) {
    let decoded: G = match codec::decode_within::<{ 32 * GAME_STATE_BYTES_MAX }, G>(state) {
        Ok(decoded) => decoded,
        Err(error) => panic!("{}: its state cannot be decoded: {error}", G::NAME),
    };
    let again = codec::encode(&decoded).expect("it was encoded before");
    assert_same::<G>("decoding and encoding", &again, state);
    for viewer in viewers(seats) {
        let mut view = vec![0; GAME_VIEW_BYTES_MAX];
        let length = or_fail::<G, _>("view", game.view(state, viewer, &mut view));
        view.truncate(length);
        or_fail::<G, _>("draw", game.draw(&view, &|seat| format!("seat {seat}")));
        played.seen.push((viewer, view));
    }
}

#[track_caller]
fn repeat<G: Game>(call: &str, run: impl FnOnce(&mut [u8]) -> Result<crate::Step, GameError>) -> Vec<u8> {
    let mut state = vec![0; GAME_STATE_BYTES_MAX];
    let step = or_fail::<G, _>(call, run(&mut state));
    state.truncate(step.state_bytes);
    state
}

#[track_caller]
fn or_fail<G: Game, R>(call: &str, result: Result<R, GameError>) -> R {
    result.unwrap_or_else(|fault| panic!("{}: {call} failed: {fault}", G::NAME))
}

#[track_caller]
fn assert_same<G: Game>(call: &str, again: &[u8], state: &[u8]) {
    assert!(
        again == state,
        "{}: {call} gives another state the second time: it is not deterministic (a HashMap or HashSet, a clock, a random \
         generator), or its Deserialize does not read what its Serialize writes",
        G::NAME
    );
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::ops::RangeInclusive;

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::eights::Eights;
    use crate::panics::catch_panic;
    use crate::tictactoe::TicTacToe;
    use crate::{Outbox, Start};

    /// Keeps everything that is sent to it, in a map of this type.
    #[derive(Serialize, Deserialize)]
    struct Keeps<M>(M);

    impl<M: Default + Extend<(u32, u32)> + Serialize + DeserializeOwned + 'static> Game for Keeps<M> {
        type Options = ();
        type Action = u32;
        type Event = u32;
        type View = ();
        const NAME: &'static str = "keeps";
        const SEATS: RangeInclusive<u8> = 1..=2;
        const TICKS_PER_SECOND: u16 = 0;
        const START: Start = Start::AtOnce;

        fn new((): (), _: u8, _: u64) -> Result<Self, Rejection> {
            Ok(Self(M::default()))
        }
        fn act(&mut self, _: u8, number: u32, out: &mut Outbox<u32>) -> Result<(), Rejection> {
            self.0.extend([(number, number)]);
            if number == 99 {
                out.to_seat(9, &number);
            }
            Ok(())
        }
        fn view(&self, _: Viewer) {}
        fn outcome(&self) -> Option<Outcome> {
            None
        }
        fn parse_action(_: &str, _view: Option<&Self::View>) -> Result<u32, Rejection> {
            Err(Rejection::bad_action("not for people"))
        }
        fn draw((): &(), _name_of: &dyn Fn(u8) -> String) -> String {
            String::new()
        }
    }

    /// A state that the codec writes and cannot read.
    #[derive(Clone, Copy, Default, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        #[default]
        Nothing,
    }

    impl Extend<(u32, u32)> for Untagged {
        fn extend<I: IntoIterator<Item = (u32, u32)>>(&mut self, _: I) {}
    }

    fn failure<G: Game<Action = u32>>(actions: &[u32]) -> String {
        let actions: Vec<_> = actions.iter().map(|number| (0, *number)).collect();
        let failed = catch_panic(|| play::<G>(&[], 2, 0, actions)).expect_err("it is found");
        failed.message().to_owned()
    }

    #[test]
    fn a_sound_game_is_played_to_its_end_and_what_was_refused_is_told() {
        let moves = [(0, 4), (0, 3), (1, 0), (0, 3), (1, 1), (0, 5), (1, 8)];
        let played = play::<TicTacToe>(&[], 2, 0, moves);
        assert_eq!(played.outcome, Some(Outcome::Won { seats: vec![0] }));
        assert_eq!(
            played
                .refused
                .iter()
                .map(|(number, _)| *number)
                .collect::<Vec<_>>(),
            [1]
        );
        let deal = play::<Eights>(&[], 3, 5, []);
        assert_ne!(
            deal.seen_by(Viewer::Seat(0)),
            deal.seen_by(Viewer::Seat(1)),
            "hands are hidden"
        );
    }

    #[test]
    fn a_hash_map_in_the_state_is_noticed_and_a_btree_map_is_not() {
        let numbers: Vec<u32> = (0..40).collect();
        let text = failure::<Keeps<HashMap<u32, u32>>>(&numbers);
        assert!(text.contains("HashMap"), "{text}");
        let actions = numbers.iter().map(|number| (0, *number));
        assert!(
            play::<Keeps<BTreeMap<u32, u32>>>(&[], 2, 0, actions)
                .refused
                .is_empty()
        );
    }

    #[test]
    fn a_type_that_the_codec_cannot_read_and_a_seat_that_is_not_there_are_found() {
        let text = failure::<Keeps<Untagged>>(&[1]);
        assert!(text.contains("cannot be decoded"), "{text}");
        assert!(Erased::<Keeps<Untagged>>::new().check_types().is_err());
        assert!(Erased::<Keeps<BTreeMap<u32, u32>>>::new().check_types().is_ok());
        let text = failure::<Keeps<BTreeMap<u32, u32>>>(&[99]);
        assert!(
            text.contains("its event names seat 9, and the match has 2 seats"),
            "{text}"
        );
    }
}
