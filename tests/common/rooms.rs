//! Rooms and their players.

use std::fmt::Debug;
use std::time::Duration;

use forkade_protocol::client::{Client, ClientError, NewRoom};
use forkade_protocol::{RejectCode, RoomEvent, RoomFilter, RoomId, RoomSettings, ServerMessage, Snapshot};

use super::{Server, WAIT_MAX};

/// Ann creates a room of this game with these settings, and the others join it in this order.
pub fn room_of<const N: usize>(
    server: &Server,
    game: &str,
    settings: RoomSettings,
    others: [&str; N],
) -> (Client, [Client; N], RoomId) {
    let mut ann = server.client("Ann");
    let wish = NewRoom {
        settings,
        ..NewRoom::new(game, "table")
    };
    let snapshot = ann.create_room(wish).expect("a room is free");
    assert_eq!((snapshot.seat, snapshot.owner), (Some(0), Some(0)));
    let others = others.map(|name| {
        let mut other = server.client(name);
        other.join_room(snapshot.room, None).expect("a seat is free");
        other
    });
    (ann, others, snapshot.room)
}

/// Ann and Bob in a room of tic-tac-toe, not ready yet.
pub fn table(server: &Server) -> (Client, Client, RoomId) {
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(NewRoom::new("tictactoe", "table"))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    (ann, bob, room)
}

/// The default settings.
pub fn public() -> RoomSettings {
    RoomSettings::default()
}

/// The code of a rejected request.
#[track_caller]
pub fn rejection<T: Debug>(result: Result<T, ClientError>) -> RejectCode {
    let error = result.expect_err("it should have been rejected");
    error
        .reject_code()
        .unwrap_or_else(|| panic!("not rejected, but {error}"))
}

/// The next message that `wanted` accepts. Others stay queued.
pub fn message<T>(client: &mut Client, wanted: impl Fn(&ServerMessage) -> Option<T>) -> T {
    match client
        .receive_where(WAIT_MAX, |message| wanted(message).is_some())
        .expect("the session lives")
    {
        Some(message) => wanted(&message).expect("it was picked"),
        None => panic!("no such message"),
    }
}

/// The next event that `wanted` accepts. Earlier ones stay queued.
pub fn event<T>(client: &mut Client, wanted: impl Fn(&RoomEvent) -> Option<T>) -> T {
    message(client, |message| match message {
        ServerMessage::Event { event, .. } => wanted(event),
        _ => None,
    })
}

/// Waits for an event.
pub fn expect_event(client: &mut Client, expected: &RoomEvent) {
    event(client, |event| (event == expected).then_some(()));
}

/// Waits for `Removed`, and returns the room that the client was removed from.
pub fn removed(client: &mut Client) -> RoomId {
    message(client, |message| match message {
        ServerMessage::Removed { room, .. } => Some(*room),
        _ => None,
    })
}

/// All messages queued for the client now. A ping makes sure that the server has sent everything.
pub fn heard(client: &mut Client) -> Vec<ServerMessage> {
    client.ping().expect("the session lives");
    std::iter::from_fn(|| client.receive(Duration::ZERO).expect("the session lives")).collect()
}

/// A snapshot of the room.
pub fn picture(client: &mut Client) -> Snapshot {
    client.look().expect("in a room")
}

/// All declare themselves ready, and receive the start of the match.
pub fn start(clients: &mut [&mut Client]) {
    for client in clients.iter_mut() {
        client.ready(true).expect("not yet started");
    }
    for client in clients {
        message(client, |message| {
            matches!(message, ServerMessage::Started { .. }).then_some(())
        });
    }
}

/// The rooms that are listed without a filter.
pub fn listed(client: &mut Client) -> Vec<RoomId> {
    let (rooms, _) = client
        .list_rooms(RoomFilter::default(), None)
        .expect("lists are for everybody");
    rooms.into_iter().map(|room| room.room).collect()
}
