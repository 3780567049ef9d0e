//! Two who talk to each other, and notice what is lost, doubled or out of order.

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{RoomEvent, ServerMessage, codec};

use super::rooms::message;

/// Two clients in a room, who say numbers to each other.
pub struct Pair {
    pub clients: [Client; 2],
    said: u32,
    heard: [u32; 2],
}

impl Pair {
    /// They meet in a new room.
    pub fn meet(mut one: Client, mut other: Client) -> Self {
        let room = one
            .create_room(NewRoom::new("relay", "a pair"))
            .expect("a room is free");
        other.join_room(room.room, None).expect("a seat is free");
        Self::in_room([one, other])
    }

    /// They are in a room, where nothing was said yet.
    pub fn in_room(clients: [Client; 2]) -> Self {
        Self {
            clients,
            said: 0,
            heard: [0; 2],
        }
    }

    /// They say so many numbers, by turns.
    pub fn say(&mut self, count: u32) {
        for _ in 0..count {
            let speaker = self.said as usize % 2;
            let action = self.said.to_le_bytes().to_vec();
            self.clients[speaker].act(action).expect("the session lives");
            self.said += 1;
        }
    }

    /// Both hear what was said, each speaker's words once and in order.
    pub fn hear(&mut self) {
        // Seat 0 says even numbers, seat 1 odd ones; up to now all were heard.
        let all = self.heard[0];
        let mut next = [[all.next_multiple_of(2), all / 2 * 2 + 1]; 2];
        for (listener, client) in self.clients.iter_mut().enumerate() {
            while self.heard[listener] < self.said {
                let (seat, word) = message(client, |message| match message {
                    ServerMessage::Event {
                        event: RoomEvent::Game { data },
                        ..
                    } => codec::decode::<(u8, Vec<u8>)>(data).ok(),
                    _ => None,
                });
                let word = u32::from_le_bytes(word.try_into().expect("a number"));
                let expected = &mut next[listener][usize::from(seat)];
                assert_eq!(word, *expected, "from seat {seat}");
                *expected += 2;
                self.heard[listener] += 1;
            }
        }
    }
}
