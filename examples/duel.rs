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
    let mut ann = Client::connect(&server, "Ann", ClientOptions::default())?;
    let mut bob = Client::connect(&server, "Bob", ClientOptions::default())?;
    let room = ann.create_room(NewRoom::new("tictactoe", "A duel"))?.room;
    bob.join_room(room, None)?;
    // A third client watches: the answer to each `Spectate` has a snapshot of the room.
    let mut eve = Client::connect(&server, "Eve", ClientOptions::default())?;
    ann.ready(true)?;
    bob.ready(true)?;
    for (turn, cell) in [4_u8, 0, 2, 6, 3, 5, 1, 7, 8].into_iter().enumerate() {
        std::thread::sleep(MOVE_INTERVAL);
        let (name, player) = if turn % 2 == 0 {
            ("Ann", &mut ann)
        } else {
            ("Bob", &mut bob)
        };
        player.act(codec::encode(&cell)?)?;
        println!("{name} takes {cell}:\n{}", board(&eve.spectate(room, None)?)?);
        eve.leave()?;
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
    if let Some(ServerMessage::Event { number, event }) = ann.receive_where(TIMEOUT, is_end)? {
        println!("event {number}: {event:?}");
    }
    println!("Ann's client reconnected {} times.", ann.counters().resumes);
    for client in [ann, bob, eve] {
        client.goodbye()?;
    }
    Ok(())
}

fn board(snapshot: &Snapshot) -> Result<String, Box<dyn Error>> {
    Ok(TicTacToe::draw(&codec::decode(&snapshot.view)?))
}
