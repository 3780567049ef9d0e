//! Hidden cards stay hidden: each match is compared with a twin that differs in hidden cards alone.

use crate::eights::tests::*;

fn viewers(seats: u8) -> impl Iterator<Item = Viewer> {
    (0..seats).map(Viewer::Seat).chain([Viewer::Spectator])
}

/// The events that `viewer` receives, as bytes.
fn stream(events: &[(Audience, Event)], viewer: Viewer) -> Vec<Vec<u8>> {
    let heard = events.iter().filter(|(audience, _)| audience.includes(viewer));
    heard
        .map(|(_, event)| codec::encode(event).expect("it encodes"))
        .collect()
}

fn view(game: &Eights, viewer: Viewer) -> Vec<u8> {
    codec::encode(&game.view(viewer)).expect("it encodes")
}

/// The faces that `viewer` can see, according to the rules and not to the view.
fn open_cards(game: &Eights, viewer: Viewer) -> BTreeSet<Card> {
    let own = match viewer {
        Viewer::Seat(seat) => game.hands[usize::from(seat)].clone(),
        Viewer::Spectator => None,
    };
    own.into_iter()
        .flatten()
        .chain(game.beneath.iter().copied())
        .chain([game.top])
        .collect()
}

/// The same match, with other faces on the cards.
fn relabelled(game: &Eights, faces: &BTreeMap<Card, Card>) -> Eights {
    let face = |card: &Card| *faces.get(card).unwrap_or(card);
    let all = |cards: &Vec<Card>| cards.iter().map(face).collect::<Vec<_>>();
    Eights {
        hands: game.hands.iter().map(|hand| hand.as_ref().map(all)).collect(),
        stock: all(&game.stock),
        beneath: all(&game.beneath),
        top: face(&game.top),
        ..game.clone()
    }
}

proptest! {
       #![proptest_config(ProptestConfig::with_cases(64))]

       /// Two matches in which all cards that the viewer never sees have other faces, in other hands and in the stock.
       /// If the viewer saw one bit of them, in a view, an event, a rejection or an outcome, the two would differ.
       #[test]
       fn nobody_can_tell_which_cards_the_others_hold(
           course in courses(),
           from in any::<Index>(),
           to in any::<Index>(),
           pack in Just(Card::pack().collect::<Vec<_>>()).prop_shuffle(),
       ) {
           let mut story = Vec::new();
           play(&course, |game, input, next, events| {
               story.push((game.clone(), input, next.clone(), events.to_vec()));
           });
           prop_assume!(!story.is_empty());
           // Most parts begin with the deal and end with the match: the longer the part, the more could be revealed.
           let from = from.index(story.len() * 2).saturating_sub(story.len());
           let to = (from + 1 + to.index(story.len() * 2)).min(story.len());
           let part = &story[from..to];
           for viewer in viewers(course.0) {
               let mut open = open_cards(&part[0].0, viewer);
               for (audience, event) in part.iter().flat_map(|(_, _, _, events)| events) {
                   match (audience, event) {
                       (_, Event::Played { card, .. }) => {
open.insert(*card);
}
                       (Audience::Seat(seat), Event::Got { card }) if viewer == Viewer::Seat(*seat) => {
                           open.insert(*card);
                       }
                       _ => {}
                   }
               }
               let hidden: Vec<Card> = pack.iter().copied().filter(|card| !open.contains(card)).collect();
               let others = hidden.iter().copied().cycle().skip(1);
               let faces: BTreeMap<Card, Card> = hidden.iter().copied().zip(others).collect();
               let mut twin = relabelled(&part[0].0, &faces);
               prop_assert!(hidden.len() < 2 || twin != part[0].0, "they are two");
               for (game, input, next, events) in part {
                   prop_assert_eq!(view(&twin, viewer), view(game, viewer));
                   if let Viewer::Seat(seat) = viewer {
                       for action in all_actions() {
                           let outside = |game| attempt(game, seat, action).map(|(_, events)| events);
                           // A card drawn now is hidden in this comparison: its drawer may see it.
                           if action != Action::Draw {
                               prop_assert_eq!(outside(&twin), outside(game));
                           }
                       }
                   }
                   let (twin_next, twin_events) = go(&twin, *input);
                   prop_assert_eq!(stream(&twin_events, viewer), stream(events, viewer));
                   prop_assert_eq!(twin_next.outcome(), next.outcome());
                   twin = twin_next;
               }
               prop_assert_eq!(view(&twin, viewer), view(&part[part.len() - 1].2, viewer));
               prop_assert_eq!(&twin, &relabelled(&part[part.len() - 1].2, &faces));
           }
       }

       #[test]
       fn a_seat_sees_its_own_hand_and_a_spectator_none(course in courses()) {
           play(&course, |_, _, game, events| {
               for (audience, event) in events {
                   assert_eq!(matches!(event, Event::Got { .. }), *audience != Audience::All);
               }
               for viewer in viewers(9) {
                   let table = game.view(viewer);
                   let own = match viewer {
                       Viewer::Seat(seat) => game.hand(seat).cloned(),
                       Viewer::Spectator => None,
                   };
                   assert_eq!(table.seat.is_some(), own.is_some());
                   assert!(table.hand.is_sorted());
                   let own: BTreeSet<Card> = own.into_iter().flatten().collect();
                   assert_eq!(BTreeSet::from_iter(table.hand), own);
               }
           });
       }
   }
