//! Rooms, for people.

use forkade_games::{AnyGame, Games};
use forkade_protocol::{Phase, RoomId, RoomRules, RoomSummary, Snapshot};

use crate::render::NO_DRAWING;
use crate::render::wrap::quoted_name;

/// The number by which people refer to a room. It is short, and is used again once the room is gone.
pub fn room_number(room: RoomId) -> u64 {
    (room.0 & u64::from(u32::MAX)) + 1
}

/// A room with its seats, rules and view. It begins in the middle of a sentence: "room 7, …".
pub fn room(games: &Games, snapshot: &Snapshot) -> String {
    let game = find(games, &snapshot.game);
    let state = match snapshot.phase {
        Phase::Waiting => "waiting for players",
        Phase::Playing => "a match is on",
        Phase::Finished => "the match is over",
    };
    let number = room_number(snapshot.room);
    let mut text = format!(
        "room {number}, {}: {}, {state}.\n",
        quoted_name(&snapshot.name),
        snapshot.game
    );
    for (seat, info) in (0..).zip(&snapshot.seats) {
        let seat_name = seat_name(game, seat);
        let kept = snapshot.reservations.iter().find(|kept| kept.seat == seat);
        let line = match (info, kept) {
            (None, None) => "free".to_owned(),
            (None, Some(kept)) => format!(
                "kept for {} for {} s",
                kept.name,
                kept.milliseconds.div_ceil(1000)
            ),
            (Some(info), _) => {
                let mut line = info.name.clone();
                for (applies, words) in [
                    (snapshot.seat == Some(seat), " (you)"),
                    (snapshot.owner == Some(seat), ", owner"),
                    (info.ready && snapshot.phase != Phase::Playing, ", ready"),
                    (!info.connected, ", connection lost"),
                ] {
                    line.push_str(if applies { words } else { "" });
                }
                line
            }
        };
        text.push_str(&format!("  {seat_name}: {line}\n"));
    }
    if snapshot.spectators > 0 {
        text.push_str(&format!("  watching: {}\n", snapshot.spectators));
    }
    let rules = rules_text(game, &snapshot.rules);
    if !rules.is_empty() {
        text.push_str(&format!("  rules: {rules}\n"));
    }
    text + &view_text(games, snapshot)
}

/// The game's drawing of the view; empty if there is no view.
pub fn view_text(games: &Games, snapshot: &Snapshot) -> String {
    let drawn = find(games, &snapshot.game)
        .filter(|_| !snapshot.view.is_empty())
        .map(|game| game.draw(&snapshot.view, &|seat| name_in(snapshot, seat)));
    match drawn {
        None => String::new(),
        Some(Ok(drawn)) => drawn,
        Some(Err(_)) => NO_DRAWING.into(),
    }
}

/// The name of the player in a seat, or its number.
pub fn name_in(snapshot: &Snapshot, seat: u8) -> String {
    let taken = snapshot.seats.get(usize::from(seat)).and_then(Option::as_ref);
    taken.map_or_else(|| format!("seat {seat}"), |info| info.name.clone())
}

pub(super) fn own_label(games: &Games, snapshot: &Snapshot) -> String {
    let game = find(games, &snapshot.game);
    match snapshot.seat {
        Some(seat) => format!(" You are {}.", label(game, seat)),
        None => String::new(),
    }
}

pub(super) fn list_of_rooms(rooms: &[RoomSummary], next: Option<RoomId>) -> String {
    if rooms.is_empty() {
        return "There is no such room. \"create GAME\" opens one.\n".into();
    }
    let head = ("room", "game", "seats", "watching", "match");
    let mut text = format!(
        "  {:>5}  {:12}{:>6}  {:>8}  {:5}  name\n",
        head.0, head.1, head.2, head.3, head.4
    );
    for room in rooms {
        let phase = match room.phase {
            Phase::Waiting => "-",
            Phase::Playing => "on",
            Phase::Finished => "over",
        };
        text.push_str(&format!(
            "  {:>5}  {:12}{:>6}  {:>8}  {phase:5}  {}{}\n",
            room_number(room.room),
            room.game,
            format!("{}/{}", room.taken, room.seats),
            room.spectators,
            room.name,
            if room.passcode { " *" } else { "" },
        ));
    }
    if rooms.iter().any(|room| room.passcode) {
        text.push_str("  (*: asks for a passcode)\n");
    }
    if let Some(next) = next {
        text.push_str(&format!(
            "There are more: \"rooms after {}\".\n",
            room_number(next)
        ));
    }
    text
}

pub(super) fn rules_text(game: Option<&dyn AnyGame>, rules: &RoomRules) -> String {
    let turn = (rules.turn_seconds > 0).then(|| format!("{} seconds for a turn", rules.turn_seconds));
    let others = [
        (rules.passcode, "passcode"),
        (rules.unlisted, "unlisted"),
        (rules.no_spectators, "no spectators"),
    ];
    let others = others
        .into_iter()
        .filter(|(applies, _)| *applies)
        .map(|(_, words)| words.to_owned());
    // A game that cannot describe its options says nothing of them.
    let options = game.and_then(|game| game.describe_options(&rules.options).ok());
    let options = options.filter(|options| !options.is_empty());
    options
        .into_iter()
        .chain(others)
        .chain(turn)
        .collect::<Vec<_>>()
        .join(", ")
}

fn find<'g>(games: &'g Games, name: &str) -> Option<&'g dyn AnyGame> {
    games.find(name).map(|(_, game)| game)
}

/// The game's name for a seat.
fn label(game: Option<&dyn AnyGame>, seat: u8) -> String {
    game.and_then(|game| game.seat_label(seat).ok())
        .unwrap_or_else(|| format!("seat {seat}"))
}

/// A seat by its number and the game's name for it.
pub(super) fn seat_name(game: Option<&dyn AnyGame>, seat: u8) -> String {
    let (plain, label) = (format!("seat {seat}"), label(game, seat));
    if label == plain {
        plain
    } else {
        format!("{plain} ({label})")
    }
}
