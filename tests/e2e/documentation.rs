//! Promise: the documentation of options, limits and files is correct.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forkade::limits;
use forkade_protocol::limits as protocol_limits;

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All documents of the repository.
fn documents() -> Vec<PathBuf> {
    let in_folder = |folder: &'static str| {
        let entries = fs::read_dir(repository().join(folder)).expect(folder);
        entries.map(move |entry| entry.expect(folder).path())
    };
    ["", "docs", "protocol"]
        .into_iter()
        .flat_map(in_folder)
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

#[test]
fn every_option_is_documented_in_the_words_of_its_help_text() {
    let help = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"))
        .arg("--help")
        .output()
        .expect("the program can be run");
    let help = String::from_utf8(help.stdout).expect("it speaks UTF-8");
    let documented = read(&repository().join("docs/limits.md"));
    let rows: Vec<String> = help.lines().filter_map(row_of).collect();
    assert!(rows.len() > 10, "the help has changed its form:\n{help}");
    let missing: Vec<&String> = rows.iter().filter(|row| !documented.contains(*row)).collect();
    assert!(
        missing.is_empty(),
        "docs/limits.md lacks these rows of its table of options:\n{missing:#?}"
    );
    let is_row = |line: &&str| line.starts_with("| `--");
    assert_eq!(
        documented.lines().filter(is_row).count(),
        rows.len(),
        "rows of options that are gone"
    );
}

/// A line of the help as a row of the table.
fn row_of(line: &str) -> Option<String> {
    let (option, rest) = line.trim().split_once("  ")?;
    let (text, rest) = rest.trim().split_once(" [default: ")?;
    let default = rest.split(']').next()?;
    let option = option.replace('|', "\\|");
    Some(format!(
        "| `{option}` | {} | `{default}` |",
        text.replace('|', "\\|")
    ))
}

#[test]
fn every_limit_is_documented_with_its_value() {
    let documented = read(&repository().join("docs/limits.md"));
    let claims = [
        ("a frame's body", protocol_limits::FRAME_BYTES_MAX, "bytes"),
        (
            "preamble and first frame together",
            protocol_limits::HANDSHAKE_BYTES_MAX,
            "bytes",
        ),
        (
            "addresses that clients can connect to, those of host names counted",
            limits::LISTEN_ADDRESSES_MAX,
            "addresses",
        ),
        (
            "a PROXY header of a trusted proxy",
            limits::PROXY_HEADER_BYTES_MAX,
            "bytes",
        ),
        (
            "networks of trusted proxies",
            limits::TRUSTED_PROXIES_MAX,
            "networks",
        ),
        (
            "a player's name",
            protocol_limits::PLAYER_NAME_CHARACTERS_MAX,
            "characters",
        ),
        (
            "a player's name in UTF-8",
            protocol_limits::PLAYER_NAME_BYTES_MAX,
            "bytes",
        ),
        (
            "a room's name",
            protocol_limits::ROOM_NAME_CHARACTERS_MAX,
            "characters",
        ),
        (
            "a room's name in UTF-8",
            protocol_limits::ROOM_NAME_BYTES_MAX,
            "bytes",
        ),
        ("a passcode", protocol_limits::PASSCODE_BYTES_MAX, "bytes"),
        ("a chat text", protocol_limits::CHAT_BYTES_MAX, "bytes"),
        ("a turn's clock", protocol_limits::TURN_SECONDS_MAX.into(), "s"),
        ("a game's options", limits::GAME_OPTIONS_BYTES_MAX, "bytes"),
        ("seats of a room", limits::SEATS_MAX.into(), "seats"),
        ("banned players of a room", limits::BANS_PER_ROOM_MAX, "players"),
        ("rooms in one answer", limits::ROOMS_PER_PAGE_MAX, "rooms"),
        (
            "rooms examined for one answer",
            limits::ROOMS_EXAMINED_PER_LIST_MAX as usize,
            "rooms",
        ),
        (
            "rooms examined for a player at once",
            usize::try_from(limits::ROOMS_EXAMINED_BURST).expect("fits"),
            "rooms",
        ),
        (
            "the part of a room's name to look for",
            limits::ROOM_FILTER_BYTES_MAX,
            "bytes",
        ),
        ("unread events of a room", limits::ROOM_LOG_BYTES, "bytes"),
        ("unread chat of the lobby", limits::CHAT_LOG_BYTES, "bytes"),
        ("mail of a player", limits::MAILBOX_BYTES, "bytes"),
        ("input not handled yet", limits::INPUT_RING_BYTES, "bytes"),
        ("output kept for a resume", limits::OUTPUT_RING_BYTES, "bytes"),
        (
            "away and without a seat",
            usize::try_from(limits::LOBBY_GRACE_MS_MIN).expect("fits"),
            "ms",
        ),
        (
            "not reading",
            usize::try_from(limits::WRITE_STALL_TIMEOUT_MS).expect("fits"),
            "ms",
        ),
        (
            "operators at once",
            limits::CONSOLE_CONNECTIONS_MAX,
            "connections",
        ),
        ("a line on the console", limits::CONSOLE_LINE_BYTES_MAX, "bytes"),
        ("a line in text mode", limits::TEXT_LINE_BYTES_MAX, "bytes"),
        ("lines of a drawing in place", limits::DRAWING_ROWS_MAX, "lines"),
        ("a game's encoded state", limits::GAME_STATE_BYTES_MAX, "bytes"),
        ("a game's encoded view", limits::GAME_VIEW_BYTES_MAX, "bytes"),
        ("a game's encoded action", limits::ACTION_BYTES_MAX, "bytes"),
        ("a game's encoded event", limits::GAME_EVENT_BYTES_MAX, "bytes"),
        (
            "events of one call of a game",
            limits::OUTBOX_EVENTS_MAX,
            "events",
        ),
        (
            "bytes of events of one call of a game",
            limits::OUTBOX_BYTES_MAX,
            "bytes",
        ),
        (
            "ticks of a game per second",
            limits::TICKS_PER_SECOND_MAX.into(),
            "ticks",
        ),
        (
            "missed ticks that are made up for",
            limits::CATCH_UP_TICKS_MAX.into(),
            "ticks",
        ),
        ("games of a server", limits::GAMES_MAX, "games"),
    ];
    let wrong: Vec<String> = claims
        .into_iter()
        .map(|(what, limit, unit)| format!("| {what} | {} {unit} |", grouped(limit)))
        .filter(|row| !documented.contains(row))
        .collect();
    assert!(
        wrong.is_empty(),
        "docs/limits.md should say, and does not:\n{wrong:#?}"
    );
}

/// Groups digits: 8192 becomes 8,192.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits"))
        .collect();
    groups.join(",")
}

#[test]
fn every_link_between_documents_has_a_target() {
    let mut dead = BTreeSet::new();
    for document in documents() {
        let text = read(&document);
        let folder = document.parent().expect("a file is in a folder");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() {
                document.clone()
            } else {
                folder.join(path)
            };
            let is_there = file.exists()
                && (anchor.is_empty()
                    || read(&file)
                        .lines()
                        .any(|line| anchor_of(line) == Some(anchor.to_owned())));
            if !is_there {
                dead.insert(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// The anchor of a heading: lower case, hyphens for spaces, no punctuation.
fn anchor_of(line: &str) -> Option<String> {
    let heading = line
        .strip_prefix('#')?
        .trim_start_matches('#')
        .trim()
        .to_lowercase();
    Some(
        heading
            .chars()
            .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
            .map(|character| if character == ' ' { '-' } else { character })
            .collect(),
    )
}
