//! Promise: two present players never have names that look alike. Every name is visible, covers no other line, and does
//! not read as a line of the server.

use forkade_protocol::client::Client;
use forkade_protocol::{ChatScope, ErrorCode};

use crate::common::text_client::TextClient;
use crate::common::{Server, eventually, patient};

/// What the server answers to a greeting with a name.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The player is called so.
    Called(&'static str),
    Refused(ErrorCode),
}

use Verdict::{Called, Refused};

/// Names at the greeting, in this order; all that are accepted stay present.
const NAMES: [(&str, Verdict); 16] = [
    ("Ann", Called("Ann")),
    ("\u{410}nn", Refused(ErrorCode::NameInvalid)),
    ("Zo\u{eb}", Called("Zo\u{eb}")),
    ("Zoe\u{308}", Refused(ErrorCode::NameTaken)),
    ("\u{405}erver", Refused(ErrorCode::NameInvalid)),
    ("\u{ff33}erver", Refused(ErrorCode::NameInvalid)),
    ("Admin", Refused(ErrorCode::NameInvalid)),
    ("operator", Refused(ErrorCode::NameInvalid)),
    ("\u{1d159}", Refused(ErrorCode::NameInvalid)),
    ("\u{fffc}", Refused(ErrorCode::NameInvalid)),
    ("The match is over. Ann", Refused(ErrorCode::NameInvalid)),
    (
        "Z\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}",
        Refused(ErrorCode::NameInvalid),
    ),
    ("\u{5d0}\u{5d1}\u{5d2}", Called("\u{5d0}\u{5d1}\u{5d2}")),
    ("\u{5c0f}\u{9f8d}", Called("\u{5c0f}\u{9f8d}")),
    ("Jos\u{e9} P", Called("Jos\u{e9} P")),
    ("Ann\u{430}", Refused(ErrorCode::NameInvalid)),
];

fn verdict(server: &Server, name: &str) -> Result<Client, Option<ErrorCode>> {
    Client::connect(server.game, name, patient()).map_err(|error| error.error_code())
}

#[test]
fn each_name_is_accepted_or_refused_as_people_would_take_it() {
    let server = Server::start(&[]);
    let mut present = Vec::new();
    for (name, expected) in NAMES {
        match (verdict(&server, name), expected) {
            (Ok(client), Called(called)) => {
                let players = server.ask_json("players").to_string();
                assert!(players.contains(&format!("{called:?}")), "{called} in {players}");
                present.push(client);
            }
            (Err(code), Refused(expected)) => assert_eq!(code, Some(expected), "{name:?}"),
            (other, expected) => panic!("{name:?}: {:?}, not {expected:?}", other.map(drop)),
        }
    }
    server.expect_no_errors();
}

#[test]
fn the_decomposed_form_of_a_free_name_becomes_the_composed_one() {
    let server = Server::start(&[]);
    let _zoe = server.client("Zoe\u{308}");
    let players = server.ask_json("players");
    assert_eq!(players[0]["name"], "Zo\u{eb}");
}

#[test]
fn a_name_that_looks_like_that_of_a_present_player_is_taken() {
    let server = Server::start(&[]);
    for (present, alike) in [
        ("Alice", "AIice"),
        ("Alice", "A1ICE"),
        ("Barn", "bam"),
        ("BOB", "\u{412}\u{41e}\u{412}"),
        ("\u{441}\u{43e}\u{440}", "cop"),
    ] {
        let first = server.client(present);
        assert_eq!(
            verdict(&server, alike).err(),
            Some(Some(ErrorCode::NameTaken)),
            "{alike}"
        );
        let mut text_player = TextClient::connect(&server);
        text_player.type_line("");
        text_player.read_until("> ");
        assert_eq!(
            text_player.ask(&format!("name {alike}")),
            "No: somebody here has this name; choose another."
        );
        first.goodbye().expect("connected");
        drop(text_player);
        eventually("the name is free", || server.status("players") == 0);
        drop(server.client(alike));
        server.ask(&format!("kick {present}"));
        eventually("found by the name that it looks like", || {
            server.status("players") == 0
        });
    }
}

#[test]
fn a_player_cannot_take_a_name_that_looks_like_its_own_and_anothers() {
    let server = Server::start(&[]);
    let _alice = server.client("Alice");
    let mut text_player = TextClient::named(&server, "Aiice");
    assert_eq!(
        text_player.ask("name AIice"),
        "No: somebody here has this name; choose another."
    );
    assert_eq!(text_player.ask("name aiIce"), "You are called aiIce now.");
}

#[test]
fn a_player_is_found_by_name_in_any_case_and_form() {
    let server = Server::start(&[]);
    let (mut ann, _zoe) = (server.client("Ann"), server.client("Zo\u{eb}"));
    for name in ["zo\u{eb}", "ZOE\u{308}"] {
        ann.chat(ChatScope::Whisper { to: name.into() }, "hello")
            .expect("it is found");
    }
    assert_eq!(server.ask_json("player ZO\u{cb}")["name"], "Zo\u{eb}");
}

#[test]
fn the_operator_can_reserve_names() {
    let server = Server::start(&["--reserved-names", "The Boss, Forkade"]);
    for name in ["the boss", "TheBoss", "Th\u{435} B\u{43e}ss", "F0rkade"] {
        assert_eq!(
            verdict(&server, name).err(),
            Some(Some(ErrorCode::NameInvalid)),
            "{name}"
        );
    }
    let mut text_player = TextClient::named(&server, "Boss");
    assert_eq!(
        text_player.ask("name Forkade"),
        "No: the name cannot be used: that name is reserved."
    );
    assert!(server.ask("config").contains("The Boss,Forkade"));
}
