//! Two clients of a running server play tic-tac-toe against each other, one move a second, and print the board.
//!
//! ```text
//! cargo run --release                      # in one terminal
//! cargo run --release --example duel       # in another; kill the players' handler processes while it runs
//! ```

use std::error::Error;
use std::time::Duration;

use forkade::games::Game;
use forkade::games::tictactoe::TicTacToe;
use forkade_protocol::client::{Client, ClientOptions, NewRoom};
use forkade_protocol::{RoomEvent, ServerMessage, Snapshot, codec};

const MOVE_INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:4000".to_owned());
    let mut xenia = Client::connect(&server, "Xenia", ClientOptions::default())?;
    let mut yuri = Client::connect(&server, "Yuri", ClientOptions::default())?;
    let room = xenia.create_room(NewRoom::new("tictactoe", "A duel"))?.room;
    yuri.join_room(room, None)?;
    // A third client watches: the answer to each `Spectate` has a snapshot of the room.
    let mut zoe = Client::connect(&server, "Zoe", ClientOptions::default())?;
    xenia.ready(true)?;
    yuri.ready(true)?;
    for (turn, cell) in [4_u8, 0, 2, 6, 3, 5, 1, 7, 8].into_iter().enumerate() {
        std::thread::sleep(MOVE_INTERVAL);
        let (name, player) = if turn % 2 == 0 {
            ("Xenia", &mut xenia)
        } else {
            ("Yuri", &mut yuri)
        };
        player.act(codec::encode(&cell)?)?;
        println!("{name} takes {cell}:\n{}", board(&zoe.spectate(room, None)?)?);
        zoe.leave()?;
    }
    let is_end = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Finished { .. },
                ..
            }
        )
    };
    if let Some(ServerMessage::Event { number, event }) = xenia.receive_where(TIMEOUT, is_end)? {
        println!("event {number}: {event:?}");
    }
    println!("Xenia's client reconnected {} times.", xenia.counters().resumes);
    for client in [xenia, yuri, zoe] {
        client.goodbye()?;
    }
    Ok(())
}

fn board(snapshot: &Snapshot) -> Result<String, Box<dyn Error>> {
    Ok(TicTacToe::draw(&codec::decode(&snapshot.view)?, &|seat| {
        format!("seat {seat}")
    }))
}
