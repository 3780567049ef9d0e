//! A game that misbehaves on request, called as the server calls games.

use serde::Deserialize;

use crate::erased::*;
use crate::limits::OUTBOX_EVENTS_MAX;

/// A game that does what an action says, right or wrong. Its state is the last action.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Obedient(String);

impl Game for Obedient {
    type Options = String;
    type Action = String;
    type Event = String;
    type View = String;

    const NAME: &'static str = "obedient";
    const SEATS: RangeInclusive<u8> = 1..=4;
    const TICKS_PER_SECOND: u16 = 10;
    const START: Start = Start::WhenSeatsReady;

    fn new(options: String, seats: u8, seed: u64) -> Result<Self, Rejection> {
        match options.as_str() {
            "refuse" => Err(Rejection::bad_options("no")),
            "panic" => panic!("in new"),
            _ => Ok(Obedient(format!("{options}{seats}{seed}"))),
        }
    }

    fn act(&mut self, seat: u8, action: String, out: &mut Outbox<String>) -> Result<(), Rejection> {
        out.to_seat(seat, &action);
        match action.as_str() {
            "refuse" => return Err(Rejection::illegal_action("no")),
            "panic" => panic!("in act"),
            "shout" => (0..=OUTBOX_EVENTS_MAX).for_each(|_| out.to_all(&action)),
            "grow" => self.0 = "x".repeat(GAME_STATE_BYTES_MAX),
            _ => self.0 = action,
        }
        Ok(())
    }

    fn tick(&mut self, out: &mut Outbox<String>) {
        assert!(self.0 != "panic in tick", "as told");
        self.0 += "+";
        out.to_all(&self.0);
    }

    fn leave(&mut self, seat: u8, _out: &mut Outbox<String>) {
        self.0 += &seat.to_string();
    }

    fn to_move(&self) -> Option<u8> {
        self.0.strip_prefix("waits for ")?.parse().ok()
    }

    fn view(&self, viewer: Viewer) -> String {
        match self.0.as_str() {
            "panic in view" => panic!("as told"),
            "large view" => "x".repeat(GAME_VIEW_BYTES_MAX),
            state => format!("{state} {viewer:?}"),
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        match self.0.as_str() {
            "won" => Some(Outcome::Won { seats: vec![0, 3] }),
            "badly won" => Some(Outcome::Won { seats: vec![3, 3] }),
            "won by nobody" => Some(Outcome::Won { seats: vec![] }),
            _ => None,
        }
    }

    fn parse_action(text: &str, view: Option<&Self::View>) -> Result<String, Rejection> {
        Ok(text.to_uppercase() + view.map_or("", String::as_str))
    }

    fn describe_options(options: &Self::Options) -> String {
        format!("options {options:?}")
    }

    fn draw(view: &String, name_of: &dyn Fn(u8) -> String) -> String {
        format!("{} [{view}]\n", name_of(2))
    }

    fn describe(event: &String, name_of: &dyn Fn(u8) -> String) -> String {
        assert!(event != "panic in describe", "as told");
        format!("{}: {event}", name_of(3))
    }
}

const GAME: Erased<Obedient> = Erased(PhantomData);

fn bytes(text: &str) -> Vec<u8> {
    codec::encode(text).expect("text encodes")
}

/// The new state and the number of events after `action`.
fn act(action: &[u8]) -> Result<(String, usize), GameError> {
    let mut out = ErasedOutbox::new();
    let mut next = vec![0; 2 * GAME_STATE_BYTES_MAX];
    let result = GAME.act(&bytes("before"), 2, action, &mut out, &mut next);
    assert!(
        result.is_ok() || out.is_empty(),
        "events of a call that has not happened"
    );
    let step = result?;
    Ok((
        codec::decode(&next[..step.state_bytes]).expect("it decodes"),
        out.len(),
    ))
}

#[test]
fn a_call_gives_the_new_state_its_events_and_the_outcome() {
    assert_eq!(act(&bytes("go")).expect("it is allowed"), ("go".to_owned(), 1));
    let (mut out, mut next) = (ErasedOutbox::new(), [0; 100]);
    let step = GAME
        .act(&bytes(""), 2, &bytes("won"), &mut out, &mut next)
        .expect("it is allowed");
    assert_eq!(
        step,
        Step {
            state_bytes: 4,
            outcome: Some(Outcome::Won { seats: vec![0, 3] }),
            to_move: None
        }
    );
    assert_eq!(GAME.outcome(&next[..4]).expect("it works"), step.outcome);
    let step = GAME
        .act(&bytes(""), 2, &bytes("waits for 3"), &mut out, &mut next)
        .expect("it is allowed");
    assert_eq!(step.to_move, Some(3));
    let step = GAME
        .turn_timed_out(&bytes("a"), 3, &mut out, &mut next)
        .expect("unless a game says otherwise, the seat has left");
    assert_eq!(next[..step.state_bytes], bytes("a3"));
    let step = GAME.tick(&bytes("a"), &mut out, &mut next).expect("it ticks");
    assert_eq!(next[..step.state_bytes], bytes("a+"));
    let step = GAME
        .leave(&bytes("a"), 3, &mut out, &mut next)
        .expect("one leaves");
    assert_eq!((&next[..step.state_bytes], out.len()), (&bytes("a3")[..], 0));
}

#[test]
fn options_and_seats_are_checked_at_the_start() {
    let start = |options: &[u8], seats| {
        let mut state = [0; 100];
        let step = GAME.start(options, seats, 5, &mut state)?;
        Ok::<String, GameError>(codec::decode(&state[..step.state_bytes]).expect("it decodes"))
    };
    let code = |result: Result<String, GameError>| result.expect_err("it is refused").rejection().code();
    assert_eq!(start(&[], 4).expect("defaults"), "45");
    assert_eq!(start(&bytes("fast"), 1).expect("options"), "fast15");
    assert_eq!(code(start(&[], 0)), RejectCode::SeatsOutOfRange);
    assert_eq!(code(start(&[], 5)), RejectCode::SeatsOutOfRange);
    assert_eq!(code(start(&[200], 2)), RejectCode::BadOptions);
    assert_eq!(code(start(&bytes("refuse"), 2)), RejectCode::BadOptions);
    assert_eq!(code(start(&bytes("panic"), 2)), RejectCode::GameFailed);
}

#[test]
fn whatever_goes_wrong_in_an_action_is_a_typed_error_and_no_event() {
    let code = |action: &[u8]| act(action).expect_err("it fails").rejection().code();
    assert_eq!(code(&bytes("refuse")), RejectCode::IllegalAction);
    assert_eq!(code(&[9, 1]), RejectCode::BadAction);
    assert_eq!(code(&[bytes("go"), vec![0]].concat()), RejectCode::BadAction);
    assert_eq!(code(&bytes(&"x".repeat(ACTION_BYTES_MAX))), RejectCode::BadAction);
    assert_eq!(code(&bytes("panic")), RejectCode::GameFailed);
    assert_eq!(code(&bytes("grow")), RejectCode::StateTooLarge);
    assert!(matches!(act(&bytes("panic")), Err(GameError::Panicked(panic)) if panic.message() == "in act"));
    assert!(matches!(
        act(&bytes("shout")),
        Err(GameError::Outbox(OutboxError::TooManyEvents))
    ));
    assert!(matches!(act(&bytes("badly won")), Err(GameError::BadOutcome(seats)) if seats == [3, 3]));
    assert!(matches!(
        act(&bytes("won by nobody")),
        Err(GameError::BadOutcome(_))
    ));
    assert!(matches!(act(&bytes("waits for 4")), Err(GameError::BadTurn(4))));
}

#[test]
fn faults_outside_of_actions_are_typed_errors_too() {
    let (mut out, mut next) = (ErasedOutbox::new(), [0; 8]);
    let ticked = GAME.tick(&bytes("panic in tick"), &mut out, &mut next);
    assert!(matches!(ticked, Err(GameError::Panicked(_))));
    let ticked = GAME.tick(&bytes("1234567"), &mut out, &mut next);
    assert!(matches!(ticked, Err(GameError::StateTooLarge { bytes_max: 8 })) && out.is_empty());
    assert!(matches!(
        GAME.tick(&[5, 1], &mut out, &mut next),
        Err(GameError::Undecodable(_))
    ));

    let mut view = [0; 2 * GAME_VIEW_BYTES_MAX];
    let mut look = |state: &str| GAME.view(&bytes(state), Viewer::Seat(1), &mut view);
    assert!(matches!(look("panic in view"), Err(GameError::Panicked(_))));
    assert!(matches!(
        look("large view"),
        Err(GameError::ViewTooLarge {
            bytes_max: GAME_VIEW_BYTES_MAX
        })
    ));
    assert_eq!(
        look("all well").expect("it is seen"),
        "all well Seat(1)".len() + 1
    );
}

#[test]
fn people_s_text_and_pictures_go_through_bytes() {
    for (view, expected) in [(bytes(" view"), "GO view"), (Vec::new(), "GO")] {
        let action = GAME.parse_action("go", &view).expect("a text");
        assert_eq!(act(&action).expect("it is allowed").0, expected);
    }
    let name_of = |seat: u8| format!("player {seat}");
    assert_eq!(
        GAME.draw(&bytes("view"), &name_of).expect("it is drawn"),
        "player 2 [view]\n"
    );
    assert!(matches!(
        GAME.draw(&[5, 1], &name_of),
        Err(GameError::Undecodable(_))
    ));
    assert!(
        GAME.describe_options(&[])
            .expect("the default")
            .starts_with("options ")
    );
    assert!(matches!(
        GAME.describe_options(&[255]),
        Err(GameError::Rejected(_))
    ));
    assert_eq!(
        GAME.describe(&bytes("hello"), &name_of).expect("it is described"),
        "player 3: hello"
    );
    assert!(matches!(
        GAME.describe(&[5, 1], &name_of),
        Err(GameError::Undecodable(_))
    ));
    assert!(matches!(
        GAME.describe(&bytes("panic in describe"), &name_of),
        Err(GameError::Panicked(_))
    ));
    assert_eq!(GAME.seat_label(2).expect("it is named"), "seat 2");
}
