//! Visitors that join a room as player or spectator, send something, receive it, may lose their connection,
//! and leave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use forkade_protocol::client::Client;
use forkade_protocol::{ClientMessage, RoomEvent, RoomId, ServerMessage, codec};

use super::{Figures, LIMIT, options};
use crate::common::random::Random;

/// Messages of a visitor.
const WORDS: u64 = 5;

/// Visits repeatedly until told to stop.
pub(crate) fn visit(
    server: SocketAddr,
    visitor: u64,
    rooms: &[RoomId],
    mut random: Random,
    stop: &AtomicBool,
) -> Figures {
    let mut figures = Figures::default();
    while !stop.load(Ordering::Relaxed) {
        figures.visits += 1;
        let name = format!("visitor {visitor}-{}", figures.visits);
        // If handler and keeper died during the handshake, the name is still taken.
        let Ok(mut client) = Client::connect(server, name, options()) else {
            figures.not_greeted += 1;
            continue;
        };
        let room = *random.choose(rooms);
        if random.chance(70) {
            let joined = client.join_room(room, None).expect("a seat is free");
            talk(
                &mut client,
                joined.seat.expect("a seat"),
                &mut random,
                &mut figures,
            );
        } else {
            client.spectate(room, None).expect("spectators are allowed");
            hear(&mut client, |event| matches!(event, RoomEvent::Game { .. }));
        }
        if random.chance(30) {
            client.leave().expect("out of the room");
        }
        let counters = client.counters();
        figures.resumes += counters.resumes;
        figures.gaps += counters.gaps;
        figures.resyncs += counters.resyncs;
        client.goodbye().expect("said in order");
    }
    figures
}

fn talk(client: &mut Client, seat: u8, random: &mut Random, figures: &mut Figures) {
    for number in 0..WORDS {
        let action = number.to_le_bytes().to_vec();
        client
            .send(&ClientMessage::Act { request: 0, action })
            .expect("the session lives");
        if random.chance(20) && client.is_connected() {
            client.disconnect_abruptly();
            figures.cuts += 1;
        }
    }
    for number in 0..WORDS {
        let Some(word) = hear(client, |event| said_by(event, seat).is_some()) else {
            return;
        };
        let heard = said_by(&word, seat).expect("it was waited for");
        assert_eq!(
            heard,
            number.to_le_bytes(),
            "a word is missing, or is heard again"
        );
    }
}

fn said_by(event: &RoomEvent, speaker: u8) -> Option<Vec<u8>> {
    let RoomEvent::Game { data } = event else {
        return None;
    };
    let (seat, payload): (u8, Vec<u8>) = codec::decode(data).expect("an event of the relay");
    (seat == speaker).then_some(payload)
}

/// The next awaited event; `None` if the visitor was away for longer than the room's event log reaches, which
/// is counted elsewhere.
fn hear(client: &mut Client, is_awaited: impl Fn(&RoomEvent) -> bool) -> Option<RoomEvent> {
    loop {
        match client.receive(LIMIT).expect("the session lives") {
            Some(ServerMessage::Event { event, .. }) if is_awaited(&event) => return Some(event),
            Some(ServerMessage::Event { .. }) => {}
            Some(ServerMessage::Resync { .. }) => return None,
            Some(other) => panic!("a visitor was told {other:?}"),
            None => panic!("a visitor has heard nothing for {LIMIT:?}"),
        }
    }
}
