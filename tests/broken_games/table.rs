//! Measures what a failing game costs its players and others, for the table in `docs/when-something-dies.md`:
//! `cargo test --test broken_games -- table`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forkade_protocol::client::NewRoom;
use forkade_protocol::{RoomSettings, codec};

use crate::common::Server;
use crate::games::{Deed, FailsIn, Shows, Way};
use crate::{deed, start};

/// A game and the action that makes it fail; without one it fails by itself.
struct Case {
    what: &'static str,
    game: &'static str,
    options: Vec<u8>,
    action: Option<Vec<u8>>,
}

fn case(what: &'static str, game: &'static str, options: Vec<u8>, action: Option<Vec<u8>>) -> Case {
    Case {
        what,
        game,
        options,
        action,
    }
}

fn cases() -> Vec<Case> {
    let encoded = |fault: (Shows, Way)| codec::encode(&fault).expect("encodes");
    let fragile = |what, doing: Deed| case(what, "fragile", Vec::new(), Some(deed(&doing)));
    let failing = |what, fails_in: FailsIn, action: Option<Deed>| {
        let options = codec::encode(&fails_in).expect("encodes");
        case(what, "fragile", options, action.map(|action| deed(&action)))
    };
    let unseen = |what, shows, way| {
        let one = codec::encode(&1_u32).expect("encodes");
        case(what, "unseen", encoded((shows, way)), Some(one))
    };
    vec![
        fragile("`act` panics", Deed::Panic("broken".to_owned())),
        fragile("`act` panics after events", Deed::PanicAfterEvents),
        fragile("`act` makes the state too large", Deed::GrowTooLarge),
        fragile("`act` gives out too many events", Deed::SaySoMuch),
        fragile("seat 200 wins", Deed::WinWithoutASeat),
        fragile("seat 9 of 4 wins", Deed::WinForSeat9),
        fragile("an event for seat 9 of 4", Deed::TellSeat9),
        fragile("`act` sleeps for 1.5 s", Deed::Sleep),
        fragile("`act` loops", Deed::Loop),
        fragile("`act` ends its process", Deed::Abort),
        failing("`new` panics", FailsIn::New, None),
        failing("`view` panics", FailsIn::View, Some(Deed::Add(1))),
        failing("`turn_timed_out` panics", FailsIn::Timeout, None),
        case(
            "`tick` panics",
            "clock",
            codec::encode(&3_u32).expect("encodes"),
            None,
        ),
        unseen("`view` loops", Shows::View, Way::Loops),
        unseen("`view` ends its process", Shows::View, Way::Aborts),
        unseen("`draw` loops", Shows::Draw, Way::Loops),
        unseen("`draw` ends its process", Shows::Draw, Way::Aborts),
    ]
}

/// The longest time in which another client's ping was answered.
fn with_bystander(server: &Server, run: impl FnOnce()) -> Duration {
    let (stop, mut carol) = (AtomicBool::new(false), server.client("Carol"));
    std::thread::scope(|scope| {
        let worst = scope.spawn(|| {
            let mut worst = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                carol.ping().expect("a bystander is served");
                worst = worst.max(began.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(carol.counters().resumes, 0, "a bystander keeps the connection");
            worst
        });
        run();
        stop.store(true, Ordering::Relaxed);
        worst.join().expect("no panic")
    })
}

fn said<R>(result: Result<R, forkade_protocol::client::ClientError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => error
            .reject_code()
            .map_or_else(|| "connection lost".to_owned(), |code| format!("{code:?}")),
    }
}

/// One row: what Ann, who acts, and Bob, who is with her at a terminal, get.
fn measure(case: &Case) -> String {
    let server = start();
    let mut ann = server.client("Ann");
    let (mut answer, mut waited) = (String::new(), Duration::ZERO);
    let mut with = NewRoom::new(case.game, "broken");
    with.settings = RoomSettings {
        options: case.options.clone(),
        turn_seconds: if case.what.contains("timed") { 1 } else { 0 },
        ..RoomSettings::default()
    };
    let other = with_bystander(&server, || {
        let created = ann.create_room(with);
        let Ok(room) = created else {
            answer = said(created);
            return;
        };
        let mut bob = crate::common::text_client::TextClient::connect(&server);
        bob.type_line("name Bob");
        bob.read_until("You are called Bob now.");
        bob.ask(&format!("join {}", (room.room.0 & u64::from(u32::MAX)) + 1));
        let began = Instant::now();
        answer = match &case.action {
            Some(action) => said(ann.act(action.clone())),
            None => {
                let ended = ann.receive_where(Duration::from_secs(20), |message| {
                    format!("{message:?}").contains("Abandoned")
                });
                if matches!(ended, Ok(Some(_))) {
                    "match abandoned"
                } else {
                    "nothing"
                }
                .to_owned()
            }
        };
        let looked = said(ann.look().map(|_| ()));
        let texts = bob.ask("look");
        waited = began.elapsed();
        if looked != "done" || texts.is_empty() {
            answer += &format!(", then look: {looked}");
        }
    });
    let mut told = None;
    crate::common::eventually("the author is told", || {
        told = last_told(&server.log());
        told.is_some()
    });
    let told = told.unwrap_or_default();
    let handlers = server.status("takeovers_total");
    format!(
        "| {} | {answer}; {} resumes; {} ms | {} ms | {handlers} | {told} |",
        case.what,
        ann.counters().resumes,
        waited.as_millis(),
        other.as_millis()
    )
}

/// The last record that tells the author of a failure, without a backtrace.
fn last_told(log: &str) -> Option<String> {
    let is_about_the_game = |line: &&str| {
        (line.contains(" WARN ") || line.contains(" ERROR "))
            && !["replaced", "come round", "keeps others"]
                .iter()
                .any(|other| line.contains(other))
    };
    let record = log.lines().rfind(is_about_the_game)?;
    let (_, text) = record.split_once(']')?.1.split_once(": ")?;
    let end = ["; called from", "; its backtrace"]
        .iter()
        .filter_map(|rest| text.find(rest))
        .min();
    Some(text[..end.unwrap_or(text.len())].to_owned())
}

/// Prints the table.
pub(crate) fn print() {
    println!("| game | its players | others: longest ping | deaths | the log |");
    println!("|---|---|---|--:|---|");
    for case in cases() {
        println!("{}", measure(&case));
    }
}
