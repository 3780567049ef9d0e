//! Two clients that exchange numbers and notice loss, repetition and reordering.

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{RoomEvent, ServerMessage, codec};

use super::rooms::message;

/// Two clients in a room that send each other numbers.
pub struct Pair {
    pub clients: [Client; 2],
    said: u32,
    heard: [u32; 2],
}

impl Pair {
    /// Both join a new room.
    pub fn in_new_room(mut one: Client, mut other: Client) -> Self {
        let room = one
            .create_room(NewRoom::new("relay", "a pair"))
            .expect("a room is free");
        other.join_room(room.room, None).expect("a seat is free");
        Self::in_room([one, other])
    }

    /// Both are in a room in which nothing was sent yet.
    pub fn in_room(clients: [Client; 2]) -> Self {
        Self {
            clients,
            said: 0,
            heard: [0; 2],
        }
    }

    /// They send `count` numbers, alternating.
    pub fn send(&mut self, count: u32) {
        for _ in 0..count {
            let speaker = self.said as usize % 2;
            let action = self.said.to_le_bytes().to_vec();
            self.clients[speaker].act(action).expect("the session lives");
            self.said += 1;
        }
    }

    /// Both receive what was sent: each sender's numbers once and in order.
    pub fn receive(&mut self) {
        // Seat 0 sends even numbers, seat 1 odd ones. Everything before was received by both.
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
