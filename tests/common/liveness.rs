//! Liveness: no process sleeps while it has work. A server that does nothing would pass all safety checks.

use std::time::{Duration, Instant};

use super::tcp_table::{CLOSE_WAIT, ESTABLISHED, End, ends};
use super::{Server, WAIT_MAX};

/// All work gets done although no client sends anything more: every doorbell is rung, every byte from a
/// client is received and handled, every byte to a client is sent. Call it when all clients are waiting,
/// after the kills.
#[track_caller]
pub fn expect_no_pending_work(server: &Server) {
    let deadline = Instant::now() + WAIT_MAX;
    while let Some(work) = work_left(server) {
        assert!(
            Instant::now() < deadline,
            "work left undone for {WAIT_MAX:?}: {work}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Some work that is still to be done.
fn work_left(server: &Server) -> Option<String> {
    let unread = unread_bytes(server);
    if unread > 0 {
        return Some(format!("{unread} bytes are unread"));
    }
    let asked = |query: String| server.try_ask(&query).ok().map(|reply| (query, reply));
    let of_rooms = ids(server, "rooms")
        .into_iter()
        .map(|id| format!("room {id} --json"));
    let of_players = ids(server, "players")
        .into_iter()
        .map(|id| format!("player {id} --json"));
    // A player or room that has just gone has no work left.
    let answers = of_rooms.chain(of_players).filter_map(asked);
    let mut parsed = answers.map(|(query, reply)| {
        let answer = serde_json::from_str::<serde_json::Value>(&reply);
        answer.unwrap_or_else(|error| panic!("{query}: {error}: {reply:?}"))
    });
    let left = parsed.find(|answer| is_to_be_rung_for(answer) || is_to_be_served(answer));
    left.map(|answer| answer.to_string())
}

/// Whether a room's doorbell was not rung for its newest event.
fn is_to_be_rung_for(answer: &serde_json::Value) -> bool {
    answer["log"][1] != answer["log"][2]
}

/// Whether a connected player has unhandled input or unsent output. (In text mode some input may remain: a
/// line is handled at its CR, and the LF waits for the next line.)
fn is_to_be_served(answer: &serde_json::Value) -> bool {
    let is_some = |what: &str| answer[what].as_u64().is_some_and(|bytes| bytes > 0);
    answer["presence"] == "connected"
        && (is_some("output_unsent") || answer["mode"] == "binary" && is_some("input_waiting"))
}

/// Unread bytes in the server's sockets, as the kernel counts them, of clients that are connected or have
/// closed their side.
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
