//! Whether anybody sleeps while there is something to do: safety alone is also kept by a server that does nothing.

use std::fs;

use super::{Server, eventually};

/// Everything that there is to do gets done, although nobody says anything more: every bell is rung, every byte that clients have sent is
/// taken in and handled, every byte for them is on its way. To be called when the clients wait, after whatever was killed.
pub fn expect_nobody_sleeps_over_work(server: &Server) {
    eventually("all that there was to do is done", || {
        unread_bytes(server) == 0 && rooms_are_rung_for(server) && players_are_served(server)
    });
}

/// Bytes that lie in the server's sockets, by the kernel: of clients that are connected or have closed their side.
fn unread_bytes(server: &Server) -> u64 {
    const ESTABLISHED: &str = "01";
    const CLOSE_WAIT: &str = "08";
    let port = format!(":{:04X}", server.game.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel lists connections");
    let unread = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields.get(1)?.ends_with(&port) && [ESTABLISHED, CLOSE_WAIT].contains(fields.get(3)?);
        let (_, received) = fields.get(4)?.split_once(':')?;
        is_ours.then(|| u64::from_str_radix(received, 16).expect("a number"))
    };
    table.lines().filter_map(unread).sum()
}

/// Of every room, the newest event is one that its bell was rung for.
fn rooms_are_rung_for(server: &Server) -> bool {
    ids(server, "rooms").iter().all(|room| {
        // One that has just closed has nothing to ring for.
        let Some(room) = asked(server, &format!("room {room}")) else {
            return true;
        };
        room["log"][1] == room["log"][2]
    })
}

/// Of everybody who is connected, all input is handled and all output sent.
fn players_are_served(server: &Server) -> bool {
    ids(server, "players").iter().all(|player| {
        let Some(player) = asked(server, &format!("player {player}")) else {
            return true;
        };
        player["presence"] != "connected" || (player["input_waiting"] == 0 && player["output_unsent"] == 0)
    })
}

fn ids(server: &Server, query: &str) -> Vec<u64> {
    let rows = server.ask_json(query);
    let rows = rows.as_array().expect("a list");
    rows.iter().filter_map(|row| row["id"].as_u64()).collect()
}

/// The answer, unless it is that there is no such thing any more.
fn asked(server: &Server, query: &str) -> Option<serde_json::Value> {
    let reply = server.try_ask(&format!("{query} --json")).ok()?;
    Some(serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{query}: {error}: {reply:?}")))
}
