//! Random matches, compared with a second implementation of the rules, and with twin matches whose hidden cards differ.

mod hidden;
mod rules;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forkade_protocol::{RejectCode, codec};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::eights::*;
use crate::{Audience, ErasedOutbox, Games};

/// An input to a match.
#[derive(Clone, Copy, Debug)]
enum Input {
    Act(u8, Action),
    Leave(u8),
}

/// A random match: the number of players, the seed, how much they prefer playing to drawing, and random choices.
type Course = (u8, u64, u8, Vec<u16>);

fn courses() -> impl Strategy<Value = Course> {
    let whims = proptest::collection::vec(any::<u16>(), 0..300);
    (2..=6_u8, any::<u64>(), 0..=4_u8, whims)
}

fn new(seats: u8, seed: u64) -> Eights {
    Eights::new((), seats, seed).expect("there are cards enough")
}

/// All possible actions.
fn all_actions() -> Vec<Action> {
    let named = || [None].into_iter().chain(Suit::ALL.map(Some));
    Card::pack()
        .flat_map(|card| named().map(move |named| Action::Play { card, named }))
        .chain([Action::Draw, Action::Pass])
        .collect()
}

fn attempt(game: &Eights, seat: u8, action: Action) -> Result<(Eights, Vec<(Audience, Event)>), Rejection> {
    let (mut game, mut out) = (game.clone(), Outbox::new());
    game.act(seat, action, &mut out)?;
    Ok((game, out.events()))
}

fn go(game: &Eights, input: Input) -> (Eights, Vec<(Audience, Event)>) {
    match input {
        Input::Act(seat, action) => attempt(game, seat, action).expect("it was legal"),
        Input::Leave(seat) => {
            let (mut game, mut out) = (game.clone(), Outbox::new());
            game.leave(seat, &mut out);
            (game, out.events())
        }
    }
}

/// The next input of a match; `None` after its end.
fn choose(game: &Eights, whim: u16, eagerness: u8) -> Option<Input> {
    let seat = game.next;
    if whim < 200 && !game.is_over() {
        return Some(Input::Leave(whim.to_le_bytes()[0] % 6));
    }
    let (plays, others): (Vec<Action>, Vec<Action>) = all_actions()
        .into_iter()
        .filter(|&action| attempt(game, seat, action).is_ok())
        .partition(|action| matches!(action, Action::Play { .. }));
    let is_eager = whim % 4 < eagerness.into();
    let liked = if (is_eager && !plays.is_empty()) || others.is_empty() {
        plays
    } else {
        others
    };
    liked
        .get(usize::from(whim / 4) % liked.len().max(1))
        .map(|&action| Input::Act(seat, action))
}

/// Plays a course to its end. `look` sees each input with the states around it and its events.
fn play(
    (seats, seed, eagerness, whims): &Course,
    mut look: impl FnMut(&Eights, Input, &Eights, &[(Audience, Event)]),
) -> Eights {
    let mut game = new(*seats, *seed);
    for &whim in whims {
        let Some(input) = choose(&game, whim, *eagerness) else {
            break;
        };
        let (next, events) = go(&game, input);
        look(&game, input, &next, &events);
        game = next;
    }
    game
}

proptest! {
    #[test]
    fn a_turn_that_times_out_is_drawn_if_that_can_be_done_and_passed(course in courses()) {
        let check = |game: &Eights| {
            let (mut late, mut events) = (game.clone(), Outbox::new());
            late.turn_timed_out(game.next, &mut events);
            let mut expected = (game.clone(), Vec::new());
            for action in [Action::Draw, Action::Pass] {
                if let Ok((next, events)) = attempt(&expected.0, game.next, action) {
                    expected = (next, [expected.1, events].concat());
                }
            }
            assert_eq!((late, events.events()), expected);
            // A seat that is not to move cannot take too long.
            let (mut other, mut events) = (game.clone(), Outbox::new());
            other.turn_timed_out(game.next + 1, &mut events);
            assert!(other == *game && events.events().is_empty());
        };
        let last = play(&course, |before, _, _, _| check(before));
        check(&last);
    }

    #[test]
    fn a_match_without_any_action_ends(seats in 2..=6_u8, seed: u64) {
        let mut game = new(seats, seed);
        // Each card of the stock is drawn once, and then all pass in turn.
        for _ in 0..52 + seats {
            if let Some(seat) = (!game.is_over()).then_some(game.next) {
                prop_assert_eq!(game.to_move(), Some(seat));
                game.turn_timed_out(seat, &mut Outbox::new());
                prop_assert!(game.is_over() || game.next != seat);
            }
        }
        prop_assert!(game.outcome().is_some());
    }
}

#[test]
fn a_match_in_which_nothing_can_be_drawn_ends_with_the_fewest_cards() {
    let mut game = new(3, 8);
    while let Ok((next, _)) = attempt(&game, game.next, Action::Draw) {
        game = go(&next, Input::Act(next.next, Action::Pass)).0;
    }
    assert_eq!(game.view(Viewer::Spectator).counts, [17, 17, 17].map(Some));
    for turn in 1..=3 {
        assert_eq!(game.outcome(), None);
        game = go(&game, Input::Act(game.next, Action::Pass)).0;
        assert_eq!(game.is_over(), turn == 3);
    }
    assert_eq!(game.outcome(), Some(Outcome::Draw));
    for (cards, winners) in [([2, 3, 2], vec![0, 2]), ([4, 4, 3], vec![2])] {
        for (hand, cards) in game.hands.iter_mut().zip(cards) {
            hand.as_mut().expect("nobody has left").truncate(cards);
        }
        assert_eq!(game.outcome(), Some(Outcome::Won { seats: winners }));
        game = Eights {
            hands: vec![Some(Card::pack().collect()); 3],
            ..game
        };
    }
}

#[test]
fn the_last_player_in_the_room_wins() {
    let mut game = new(3, 1);
    for (leaver, told) in [
        (
            0,
            vec![Event::Left {
                seat: 0,
                stock: 41,
                next: 1,
            }],
        ),
        (0, vec![]),
        (9, vec![]),
        (
            2,
            vec![Event::Left {
                seat: 2,
                stock: 46,
                next: 1,
            }],
        ),
        (1, vec![]),
    ] {
        let (next, events) = go(&game, Input::Leave(leaver));
        assert_eq!(
            events.into_iter().map(|(_, event)| event).collect::<Vec<_>>(),
            told
        );
        game = next;
    }
    assert_eq!(game.outcome(), Some(Outcome::Won { seats: vec![1] }));
}

#[test]
fn every_card_comes_to_every_place_about_as_often() {
    const SEEDS: usize = 52 * 100;
    let mut often = vec![[0_u32; 52]; 52];
    for seed in 0..SEEDS as u64 {
        let cards = shuffled(Card::pack().collect(), seed, seed % 3);
        for (place, card) in cards.into_iter().enumerate() {
            often[place][usize::from(u8::from(card))] += 1;
        }
    }
    // Each is binomial with mean 100 and deviation 9.9; six deviations do not occur by chance.
    let (least, most) = often
        .iter()
        .flatten()
        .fold((u32::MAX, 0), |(least, most), &n| (least.min(n), most.max(n)));
    assert!(
        (41..100).contains(&least) && (101..160).contains(&most),
        "{least} to {most}"
    );
    // Chi-squared over all of them: about 51 · 51 = 2601, with a deviation of 72.
    let deviation: u32 = often.iter().flatten().map(|&n| n.abs_diff(100).pow(2)).sum();
    assert!((2300..2900).contains(&(deviation / 100)), "{deviation}");
}

#[test]
fn a_deal_is_all_of_a_pack_and_each_shuffle_its_own() {
    for seats in 2..=6 {
        let game = new(seats, 7);
        let each = if seats == 2 { 7 } else { 5 };
        let view = game.view(Viewer::Spectator);
        assert_eq!(view.counts, vec![Some(each); seats.into()]);
        assert_eq!((view.stock, view.beneath), (51 - seats * each, 0));
    }
    let pack = || Card::pack().collect::<Vec<_>>();
    let orders = [(1, 0), (1, 1), (2, 0), (2, 1)].map(|(seed, number)| shuffled(pack(), seed, number));
    assert_eq!(BTreeSet::from(orders).len(), 4);
}

#[test]
fn people_can_play_it() {
    let cards = |text: &str| -> Vec<Card> {
        text.split(' ')
            .map(|name| Card::parse(name).expect(name))
            .collect()
    };
    let mut game = Eights {
        hands: vec![Some(cards("KD 8c 10H 2C")), Some(cards("3s"))],
        stock: cards("AS"),
        top: cards("10d")[0],
        follow: Suit::Diamonds,
        ..new(2, 0)
    };
    assert_eq!(
        Eights::draw(&game.view(Viewer::Seat(0)), &|seat| format!("seat {seat}")),
        "top card 10D, follow diamonds; stock 1, pile 1\n\
         > seat 0: 4 cards (you)\n\
         \x20 seat 1: 1 card\n\
         your hand: 2C [8C] [KD] [10H]\n\
         play a card in [ ], or draw\n"
    );
    for (seat, text) in [(0, " Play 8C spades\r\n"), (1, "3s")] {
        let action = Eights::parse_action(text, None).expect(text);
        game = go(&game, Input::Act(seat, action)).0;
    }
    assert_eq!(
        Eights::draw(&game.view(Viewer::Spectator), &|seat| format!("seat {seat}")),
        "top card 3S, follow spades; stock 1, pile 3\n\
         \x20 seat 0: 3 cards\n\
         \x20 seat 1: 0 cards\n\
         seat 1 has won\n"
    );
    assert_eq!(Eights::parse_action("DRAW", None), Ok(Action::Draw));
    assert_eq!(Eights::parse_action("pass", None), Ok(Action::Pass));
    for bad in [
        "",
        "play",
        "11h",
        "h",
        "8h x",
        "8h s s",
        "draw 2",
        "1h",
        "8\u{2660}",
        "8s \u{e9}",
    ] {
        assert_eq!(
            Eights::parse_action(bad, None).expect_err(bad).code(),
            RejectCode::BadAction
        );
    }
    for card in Card::pack() {
        assert_eq!(Card::parse(&card.to_string()), Some(card));
    }
    for text in ["s", "Spade", "SPADES"] {
        assert_eq!(Suit::parse(text), Some(Suit::Spades));
    }
}

#[test]
fn it_looks_as_documented_on_the_wire() {
    let [eight_of_hearts, king_of_spades] = [33, 51].map(|number| Card::try_from(number).expect("a card"));
    assert_eq!(
        [eight_of_hearts, king_of_spades].map(|card| card.to_string()),
        ["8H", "KS"]
    );
    let play = |card, named| codec::encode(&Action::Play { card, named }).expect("it encodes");
    assert_eq!(play(eight_of_hearts, Some(Suit::Spades)), [0, 33, 1, 3]);
    assert_eq!(play(king_of_spades, None), [0, 51, 0]);
    assert_eq!(Eights::decode_action(&[1]), Ok(Action::Draw));
    assert_eq!(Eights::decode_action(&[2]), Ok(Action::Pass));
    for bad in [&[][..], &[0, 52, 0], &[0, 33, 1, 4], &[3], &[2, 0]] {
        assert_eq!(
            Eights::decode_action(bad).expect_err("no action").code(),
            RejectCode::BadAction
        );
    }
    let card = king_of_spades;
    let event = |event: Event| codec::encode(&event).expect("it encodes");
    let follow = Suit::Spades;
    assert_eq!(
        event(Event::Played {
            seat: 0,
            card,
            follow,
            next: 1
        }),
        [0, 0, 51, 3, 1]
    );
    assert_eq!(event(Event::Drew { seat: 1 }), [1, 1]);
    assert_eq!(event(Event::Got { card }), [2, 51]);
    assert_eq!(event(Event::Passed { seat: 1, next: 0 }), [3, 1, 0]);
    assert_eq!(event(Event::Turned { stock: 20 }), [4, 20]);
    assert_eq!(
        event(Event::Left {
            seat: 2,
            stock: 30,
            next: 0
        }),
        [5, 2, 30, 0]
    );
    let game = Eights {
        hands: vec![Some(vec![card, eight_of_hearts]), None, Some(vec![card])],
        stock: Card::pack().take(46).collect(),
        top: Card::try_from(12).expect("a card"),
        beneath: vec![card; 2],
        follow: Suit::Clubs,
        next: 2,
        has_drawn: true,
        ..new(3, 0)
    };
    let view = |viewer| codec::encode(&game.view(viewer)).expect("it encodes");
    let public = [3, 1, 2, 0, 1, 1, 12, 0, 46, 2, 2, 1, 0];
    assert_eq!(view(Viewer::Seat(0)), [&[1, 0, 2, 33, 51], &public[..]].concat());
    assert_eq!(view(Viewer::Spectator), [&[0, 0], &public[..]].concat());
}

proptest! {
    #[test]
    fn the_same_inputs_give_the_same_bytes(
        seed in any::<u64>(),
        actions in proptest::collection::vec(prop_oneof![
            Just(vec![1_u8]),
            Just(vec![2]),
            (0..54_u8, 0..6_u8).prop_map(|(card, suit)| {
                if suit == 0 { vec![0, card, 0] } else { vec![0, card, 1, suit - 1] }
            }),
        ], 0..200)
    ) {
        let mut games = Games::new();
        games.add::<Eights>().expect("the first game");
        let (_, game) = games.find("eights").expect("it was added");
        let run = || {
            let (mut slots, mut out) = ([[0; 128]; 2], ErasedOutbox::new());
            let mut state_bytes = game.start(&[], 3, seed, &mut slots[0]).expect("it starts").state_bytes;
            let mut seen = Vec::new();
            for action in &actions {
                for seat in 0..3 {
                    let [current, next] = &mut slots;
                    if let Ok(step) = game.act(&current[..state_bytes], seat, action, &mut out, next) {
                        state_bytes = step.state_bytes;
                        slots.swap(0, 1);
                    }
                    seen.extend_from_slice(&slots[0][..state_bytes]);
                    out.iter().for_each(|(_, event)| seen.extend_from_slice(event));
                }
            }
            seen
        };
        prop_assert_eq!(run(), run());
    }
}
