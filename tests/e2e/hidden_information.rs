//! Promise: what a game hides from a player stays in the server. No event, view, takeover or late join
//! reveals it.

use crate::common::{Server, WAIT_MAX};
use forkade::games::eights::{Action, Event, Suit, Table};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{RoomEvent, RoomSettings, ServerMessage, codec};

/// A client, and the state of the table that follows from the events it received.
struct Player {
    client: Client,
    table: Table,
}

impl Player {
    fn of_a_match_that_begins(mut client: Client) -> Self {
        let is_start = |message: &ServerMessage| matches!(message, ServerMessage::Started { .. });
        let started = client.receive_where(WAIT_MAX, is_start);
        let Ok(Some(ServerMessage::Started { snapshot })) = started else {
            panic!("the match did not begin: {started:?}")
        };
        let table = codec::decode(&snapshot.view).expect("a view of eights");
        Player { client, table }
    }

    /// Applies the next event of the game to the table.
    fn hear(&mut self) -> Event {
        let of_game = |message: &ServerMessage| match message {
            ServerMessage::Event {
                event: RoomEvent::Game { data },
                ..
            } => Some(codec::decode(data).expect("an event of eights")),
            _ => None,
        };
        let heard = self
            .client
            .receive_where(WAIT_MAX, |message| of_game(message).is_some());
        let event =
            of_game(&heard.expect("the session lives").expect("an event comes")).expect("it was picked");
        let table = &mut self.table;
        let change =
            |count: &mut Option<u8>, by: i8| *count = count.and_then(|count| count.checked_add_signed(by));
        match event {
            Event::Played {
                seat,
                card,
                follow,
                next,
            } => {
                change(&mut table.counts[usize::from(seat)], -1);
                table.hand.retain(|own| *own != card);
                table.beneath += 1;
                (table.top, table.follow, table.next, table.has_drawn) = (card, follow, next, false);
                table.over = table.counts.contains(&Some(0));
            }
            Event::Drew { seat } => {
                change(&mut table.counts[usize::from(seat)], 1);
                table.stock -= 1;
                table.has_drawn = true;
            }
            Event::Got { card } => {
                assert_eq!(table.seat, Some(table.next), "no other player may know {card}");
                table.hand.push(card);
                table.hand.sort();
            }
            Event::Passed { next, .. } => (table.next, table.has_drawn) = (next, false),
            Event::Turned { stock } => (table.stock, table.beneath) = (stock, 0),
            Event::Left { .. } => panic!("no player leaves"),
        }
        event
    }

    /// Plays the first matching card, or draws one.
    fn choose(&self) -> Action {
        let table = &self.table;
        let mut fitting = table
            .hand
            .iter()
            .filter(|card| card.fits(table.top, table.follow));
        match fitting.next() {
            Some(&card) => Action::Play {
                card,
                named: card.is_eight().then_some(Suit::Hearts),
            },
            None if !table.has_drawn && (table.stock > 0 || table.beneath > 0) => Action::Draw,
            None => Action::Pass,
        }
    }
}

#[test]
fn cards_are_sent_only_to_the_player_that_holds_them() {
    let server = Server::start(&["--requests-per-minute", "0"]);
    let names = ["Ann", "Bob", "Cid"];
    let mut clients = names.map(|name| server.client(name));
    let room = clients[0]
        .create_room(NewRoom {
            settings: RoomSettings {
                seats: 3,
                ..RoomSettings::default()
            },
            ..NewRoom::new("eights", "Cards")
        })
        .expect("a room is free")
        .room;
    let (mut looker, mut late) = (server.client("Dot"), server.client("Eve"));
    looker.spectate(room, None).expect("spectators are allowed");
    for client in &mut clients[1..] {
        client.join_room(room, None).expect("a seat is free");
    }
    for client in &mut clients {
        client.ready(true).expect("not yet started");
    }
    let mut players: Vec<Player> = clients
        .into_iter()
        .chain([looker])
        .map(Player::of_a_match_that_begins)
        .collect();
    for turn in 0.. {
        let public = players[3].table.clone();
        // Without cards to draw, the match might block, which this test is not about.
        if public.over || (public.stock, public.beneath) == (0, 0) {
            break;
        }
        assert!(public.seat.is_none() && public.hand.is_empty(), "{public:?}");
        let arrived = late.spectate(room, None).expect("spectators are allowed");
        assert_eq!(codec::decode(&arrived.view), Ok(public.clone()));
        late.leave().expect("it was there");
        let mover = usize::from(public.next);
        if let (1, Some(name)) = (turn % 3, names.get(turn / 3)) {
            // Its replacement reads the room's log again, which contains the cards.
            server.kill(server.handler_of(name).expect("it is served"));
        }
        let action = players[mover].choose();
        let bytes = codec::encode(&action).expect("it encodes");
        players[mover].client.act(bytes).expect("it is legal");
        for player in &mut players {
            if let Event::Turned { .. } = player.hear() {
                player.hear();
            }
        }
        if action == Action::Draw {
            assert!(matches!(players[mover].hear(), Event::Got { .. }));
        }
        for player in &players {
            let own = player
                .table
                .seat
                .map_or(Some(0), |seat| player.table.counts[usize::from(seat)]);
            assert_eq!(
                u8::try_from(player.table.hand.len()).ok(),
                own,
                "its own cards and no others"
            );
        }
    }
    for player in players {
        player.client.goodbye().expect("said in order");
    }
}
