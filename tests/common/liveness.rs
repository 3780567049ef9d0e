//! Whether anybody sleeps while there is something to do: safety alone is also kept by a server that does nothing.

use std::time::{Duration, Instant};

use super::tcp_table::{CLOSE_WAIT, ESTABLISHED, End, ends};
use super::{Server, WAIT_MAX};

/// Everything that there is to do gets done, although nobody says anything more: every doorbell is rung, every byte that clients have sent is
/// taken in and handled, every byte for them is on its way. To be called when the clients wait, after whatever was killed.
#[track_caller]
pub fn expect_no_pending_work(server: &Server) {
    let deadline = Instant::now() + WAIT_MAX;
    while let Some(work) = work_left(server) {
        assert!(
            Instant::now() < deadline,
            "for {WAIT_MAX:?} nobody has done this: {work}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Something that is still to be done.
fn work_left(server: &Server) -> Option<String> {
    let unread = unread_bytes(server);
    if unread > 0 {
        return Some(format!("{unread} bytes are to be taken in"));
    }
    let asked = |query: String| server.try_ask(&query).ok().map(|reply| (query, reply));
    let of_rooms = ids(server, "rooms")
        .into_iter()
        .map(|id| format!("room {id} --json"));
    let of_players = ids(server, "players")
        .into_iter()
        .map(|id| format!("player {id} --json"));
    // One that has just gone has nothing left to do.
    let answers = of_rooms.chain(of_players).filter_map(asked);
    let mut parsed = answers.map(|(query, reply)| {
        let answer = serde_json::from_str::<serde_json::Value>(&reply);
        answer.unwrap_or_else(|error| panic!("{query}: {error}: {reply:?}"))
    });
    let left = parsed.find(|answer| is_to_be_rung_for(answer) || is_to_be_served(answer));
    left.map(|answer| answer.to_string())
}

/// Of a room: its newest event is not the newest that its doorbell was rung for.
fn is_to_be_rung_for(answer: &serde_json::Value) -> bool {
    answer["log"][1] != answer["log"][2]
}

/// Of a player who is connected: input is not handled, or output not sent. (Of a person at a terminal something may always be left: a line
/// is handled at its CR, and the LF waits for the next one.)
fn is_to_be_served(answer: &serde_json::Value) -> bool {
    let is_some = |what: &str| answer[what].as_u64().is_some_and(|bytes| bytes > 0);
    answer["presence"] == "connected"
        && (is_some("output_unsent") || answer["mode"] == "binary" && is_some("input_waiting"))
}

/// Bytes that lie in the server's sockets, by the kernel: of clients that are connected or have closed their side.
fn unread_bytes(server: &Server) -> u64 {
    let is_its =
        |end: &End| end.local_port == server.game.port() && [ESTABLISHED, CLOSE_WAIT].contains(&end.state);
    ends()
        .iter()
        .filter(|end| is_its(end))
        .map(|end| end.unread)
        .sum()
}

fn ids(server: &Server, query: &str) -> Vec<u64> {
    let rows = server.ask_json(query);
    let rows = rows.as_array().expect("a list");
    rows.iter().filter_map(|row| row["id"].as_u64()).collect()
}
