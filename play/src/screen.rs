//! What the screen shows: a function of the client's state, the terminal's size and the time.
//!
//! From the top: the title, the lobby or the room, chat and events, the input line, a hint. If the terminal is too
//! small, the least important parts are omitted first and the input line last.

use forkade_protocol::{Phase, RoomSummary};

use crate::app::{App, ConnectionStatus, Location, commands_here};
use crate::listing::Entry;
use crate::room::{Drawing, Room};
use crate::styled::{Line, Style};
use forkade_text::columns::columns_of;
use forkade_text::render::{room_number, turn_hint};

/// The beginning of the input line.
const PROMPT: &str = "> ";

/// Columns between the board and the seats.
const GAP: usize = 3;

/// The seats are shown beside the board from this width on.
const BESIDE_COLUMNS_MIN: usize = 60;

/// Free seats that are listed one by one: some games have very many.
const FREE_SEATS_SHOWN_MAX: usize = 2;

/// Lines that are kept for chat and events.
const LOG_LINES_MIN: usize = 5;

/// The contents of the screen.
#[derive(Debug, Default)]
pub(crate) struct ScreenContents {
    /// One line for each row.
    pub lines: Vec<Line>,
    /// The cursor's column and row; `None` on a screen without rows.
    pub cursor: Option<(u16, u16)>,
}

/// The number of rows of each part.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    title: usize,
    rule: usize,
    main: usize,
    log: usize,
    input: usize,
    hint: usize,
}

impl Layout {
    /// Distributes the rows. `main_lines` is the number of lines of the room or the lobby.
    fn new(rows: usize, main_lines: usize) -> Self {
        let input = rows.min(1);
        let title = usize::from(rows >= 2);
        let hint = usize::from(rows >= 4);
        let rule = usize::from(rows >= 10);
        let rest = rows - input - title - hint - 2 * rule;
        let log_min = LOG_LINES_MIN.min(rest / 3);
        let main = main_lines.min(rest - log_min);
        let log = rest - main;
        Self {
            title,
            rule,
            main,
            log,
            input,
            hint,
        }
    }
}

/// Draws the state.
pub(crate) fn draw(app: &App<'_>, (columns, rows): (usize, usize), now_ms: u64) -> ScreenContents {
    if columns == 0 || rows == 0 {
        return ScreenContents::default();
    }
    let rule = || Line::of(Style::Dim, &"─".repeat(columns));
    let help = app.help.map(|from| (from, help()));
    let (main, selected) = match (&help, &app.location) {
        (Some((_, help)), _) => (help.clone(), None),
        (None, Location::Room(room)) => (room_lines(app, room, columns, now_ms), None),
        (None, Location::Lobby) => lobby_lines(app),
    };
    let layout = Layout::new(rows, main.len());
    let (main_rows, log_rows) = match help {
        // Help takes all the space.
        Some(_) => (layout.main + layout.log, 0),
        None => (layout.main, layout.log),
    };
    let from = match (help, selected) {
        (Some((from, help)), _) => from.min(help.len().saturating_sub(main_rows)),
        (None, Some(selected)) => (selected + 2).saturating_sub(main_rows),
        (None, None) => 0,
    };

    let mut lines = Vec::with_capacity(rows);
    lines.extend((0..layout.title).map(|_| title(app, columns, now_ms)));
    lines.extend((0..layout.rule).map(|_| rule()));
    lines.extend(window(main, from, main_rows));
    lines.extend(log(app, columns, log_rows));
    lines.extend((0..layout.rule).map(|_| rule()));
    let input_row = lines.len();
    let (input, cursor) = input(app, columns);
    lines.extend((0..layout.input).map(|_| input.clone()));
    lines.extend((0..layout.hint).map(|_| hint(app)));
    ScreenContents {
        lines: lines.into_iter().map(|line| line.cut(columns)).collect(),
        cursor: u16::try_from(cursor).ok().zip(u16::try_from(input_row).ok()),
    }
}

/// `rows` lines from the line `from` on, filled up with empty ones.
fn window(lines: Vec<Line>, from: usize, rows: usize) -> impl Iterator<Item = Line> {
    let shown = lines.into_iter().skip(from);
    shown.chain(std::iter::repeat_with(Line::default)).take(rows)
}

fn title(app: &App<'_>, columns: usize, now_ms: u64) -> Line {
    let mut left = Line::of(Style::Strong, "Forkade");
    if !app.name.is_empty() {
        left = left.and(Style::Plain, "  ").and(Style::Plain, &app.name);
    }
    left = left.and(Style::Plain, " at ").and(Style::Plain, &app.server);
    if let Some(room) = app.room().map(Room::snapshot) {
        left = left.and(Style::Plain, &format!(", room {}", room_number(room.room)));
    }
    let right = match &app.connection_status {
        ConnectionStatus::Connecting => Line::of(Style::Dim, "connecting"),
        ConnectionStatus::Up => Line::of(Style::Good, "connected"),
        ConnectionStatus::Lost {
            since_ms,
            retry_for_seconds,
        } => {
            let seconds = now_ms.saturating_sub(*since_ms) / 1000;
            let text = format!("reconnecting, {seconds} s (up to {retry_for_seconds} s)");
            Line::of(Style::Bad, &text)
        }
    };
    // The state of the connection is more important than the server's address.
    let room = columns.saturating_sub(right.columns() + 1);
    left.cut(room).padded(room + 1).and_line(right)
}

fn lobby_lines(app: &App<'_>) -> (Vec<Line>, Option<usize>) {
    let selected = app.listing.selected();
    let heading = match (app.listing.rooms().is_empty(), &app.listing.filter.game) {
        (false, None) => format!(
            "     {:>5}  {:16}{:>7}  {:>8}  {:8}  name",
            "room", "game", "seats", "watching", "match"
        ),
        (false, Some(game)) => format!("     rooms of {game} (\"rooms\" shows all)"),
        (true, None) => "     There is no room yet: open one.".to_owned(),
        (true, Some(game)) => format!("     There is no room of {game} (\"rooms\" shows all)."),
    };
    let mut lines = vec![Line::of(Style::Dim, &heading)];
    for (index, entry) in app.listing.entries().enumerate() {
        let text = match &entry {
            Entry::Room(id) => {
                let room = app.listing.rooms().iter().find(|room| room.room == *id);
                room.map_or_else(String::new, summary_text)
            }
            Entry::New(game) => {
                let unknown = if app.games.find(game).is_some() {
                    ""
                } else {
                    " (not known here)"
                };
                format!("new room: {game}{unknown}")
            }
        };
        lines.push(if index == selected {
            Line::plain(" ▸ ").and(Style::Selected, &format!("  {text} "))
        } else {
            Line::plain(&format!("     {text}"))
        });
    }
    (lines, Some(selected))
}

fn summary_text(room: &RoomSummary) -> String {
    let phase = match room.phase {
        Phase::Waiting => "-",
        Phase::Playing => "on",
        Phase::Finished => "over",
    };
    let locked = if room.passcode { " (passcode)" } else { "" };
    format!(
        "{:>5}  {:16}{:>7}  {:>8}  {phase:8}  {}{locked}",
        room_number(room.room),
        room.game,
        format!("{}/{}", room.taken, room.seats),
        room.spectators,
        room.name,
    )
}

fn room_lines(app: &App<'_>, room: &Room, columns: usize, now_ms: u64) -> Vec<Line> {
    let mut lines = vec![room_heading(room), Line::default()];
    let mut board = board(room);
    let hint = turn_hint(room.to_move(), room.snapshot().seat);
    board.extend(
        hint.lines()
            .map(|hint| Line::of(Style::Strong, &format!("   {hint}"))),
    );
    let seats = seats(app, room, now_ms);
    if columns < BESIDE_COLUMNS_MIN {
        lines.extend(board);
        lines.push(Line::default());
        lines.extend(seats);
    } else {
        let width = board.iter().map(Line::columns).max().unwrap_or(0);
        let width = if width == 0 {
            0
        } else {
            (width + GAP).min(columns * 2 / 3)
        };
        let rows = board.len().max(seats.len());
        let (mut board, mut seats) = (board.into_iter(), seats.into_iter());
        for _ in 0..rows {
            let left = board.next().unwrap_or_default();
            lines.push(match seats.next() {
                Some(right) => left.cut(width).padded(width).and_line(right),
                None => left,
            });
        }
    }
    lines.push(Line::default());
    lines
}

fn room_heading(room: &Room) -> Line {
    let snapshot = room.snapshot();
    let phase = match snapshot.phase {
        Phase::Waiting => "waiting for players",
        Phase::Playing => "the match is on",
        Phase::Finished => "the match is over",
    };
    let mut rest = format!(": {}, {phase}", snapshot.game);
    if snapshot.seat.is_none() {
        rest.push_str(", you are watching");
    }
    let rules = &snapshot.rules;
    for (holds, words) in [
        (rules.passcode, ", passcode"),
        (rules.unlisted, ", unlisted"),
        (rules.no_spectators, ", no spectators"),
    ] {
        rest.push_str(if holds { words } else { "" });
    }
    if rules.turn_seconds > 0 {
        rest.push_str(&format!(", {} s for a turn", rules.turn_seconds));
    }
    Line::of(Style::Strong, &format!(" {}", snapshot.name)).and(Style::Plain, &rest)
}

fn board(room: &Room) -> Vec<Line> {
    let plain = |text: &str| vec![Line::of(Style::Dim, &format!("   {text}"))];
    match (room.drawing(), room.snapshot().phase) {
        (Drawing::Lines(lines), _) => lines
            .iter()
            .map(|line| Line::plain(&format!("   {line}")))
            .collect(),
        (Drawing::Unknown, _) => plain("(This program does not know the game.)"),
        (Drawing::Failed(why), _) => plain(&format!("(The game cannot draw itself: {why})")),
        (Drawing::Nothing, Phase::Waiting) => plain("It begins when all seats are taken and ready."),
        (Drawing::Nothing, _) => Vec::new(),
    }
}

fn seats(app: &App<'_>, room: &Room, now_ms: u64) -> Vec<Line> {
    let snapshot = room.snapshot();
    let turn = room.turn(now_ms);
    let mut lines = Vec::new();
    let mut free = 0;
    for (seat, info) in (0..).zip(&snapshot.seats) {
        let reserved = room.reservation(seat, now_ms);
        if info.is_none() && reserved.is_none() {
            free += 1;
            if free > FREE_SEATS_SHOWN_MAX {
                continue;
            }
        }
        let label = room.game(app.games).and_then(|game| game.seat_label(seat).ok());
        let plain = format!("seat {seat}");
        let label = match label {
            Some(label) if label != plain => format!("{plain} ({label})"),
            _ => plain,
        };
        let has_turn = room.to_move() == Some(seat);
        let line = Line::plain(&format!(" {} {label}: ", if has_turn { '▸' } else { ' ' }));
        lines.push(match (info, reserved) {
            (None, None) => line.and(Style::Dim, "free"),
            (None, Some((name, seconds))) => line.and(Style::Dim, &format!("kept for {name}, {seconds} s")),
            (Some(info), _) => {
                let is_own = snapshot.seat == Some(seat);
                let mut line = line.and(if is_own { Style::Strong } else { Style::Plain }, &info.name);
                if is_own {
                    line = line.and(Style::Plain, " (you)");
                }
                if snapshot.owner == Some(seat) {
                    line = line.and(Style::Dim, ", owner");
                }
                if info.ready && snapshot.phase != Phase::Playing {
                    line = line.and(Style::Good, ", ready");
                }
                if !info.connected {
                    line = line.and(Style::Bad, ", connection lost");
                }
                match turn {
                    Some((turn, seconds)) if turn == seat => {
                        line.and(Style::Strong, &format!(", {seconds} s left"))
                    }
                    _ => line,
                }
            }
        });
    }
    if free > FREE_SEATS_SHOWN_MAX {
        let more = free - FREE_SEATS_SHOWN_MAX;
        lines.push(Line::of(Style::Dim, &format!("   {more} more are free")));
    }
    if snapshot.spectators > 0 {
        lines.push(Line::of(
            Style::Dim,
            &format!("   watching: {}", snapshot.spectators),
        ));
    }
    lines
}

/// The last lines of the log, or those that it was scrolled to.
fn log(app: &App<'_>, columns: usize, rows: usize) -> Vec<Line> {
    // From the newest backwards, until there are enough.
    let mut shown: Vec<Line> = Vec::new();
    let wanted = rows.saturating_add(app.scrolled);
    for line in app.log().iter().rev() {
        if shown.len() >= wanted {
            break;
        }
        shown.extend(line.clone().wrapped(columns).into_iter().rev());
    }
    let below = app.scrolled.min(shown.len().saturating_sub(rows));
    let mut lines: Vec<_> = shown.into_iter().skip(below).take(rows).collect();
    lines.resize_with(rows, Line::default);
    lines.reverse();
    lines
}

fn input(app: &App<'_>, columns: usize) -> (Line, usize) {
    // Without space for both, the prompt is omitted.
    let prompt = if columns > 4 * PROMPT.len() { PROMPT } else { "" };
    let window = app.input.window(0, columns - prompt.len());
    // Each character takes columns of its own here, so that the cursor is where the next one comes at every terminal.
    let joins = |character: &char| matches!(character, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}');
    let shown = |range| {
        let typed = app.input.characters(range).iter();
        typed.filter(|character| !joins(character)).collect::<String>()
    };
    let before_cursor = shown(window.start..app.input.cursor());
    (
        Line::of(Style::Strong, prompt).and(Style::Plain, &shown(window)),
        prompt.len() + columns_of(&before_cursor),
    )
}

/// The hint at the next step.
fn hint(app: &App<'_>) -> Line {
    let text = match (&app.help, &app.location, &app.connection_status) {
        (Some(_), ..) => "↑↓ PgUp PgDn: scroll · any other key: back",
        (None, _, ConnectionStatus::Connecting) => "Ctrl-C: quit",
        (None, Location::Lobby, _) => {
            "↑↓ Enter: join or open · F4: watch · F1: help · Ctrl-C: quit · or type a command"
        }
        (None, Location::Room(room), _) => room_hint(app, room),
    };
    let scrolled = if app.scrolled > 0 { "(PgDn: newer) " } else { "" };
    Line::of(Style::Dim, scrolled).and(Style::Dim, text)
}

fn room_hint(app: &App<'_>, room: &Room) -> &'static str {
    let is_ready = room.own_seat().is_none_or(|own| own.ready);
    match (room.snapshot().seat, room.snapshot().phase) {
        (None, _) => "type to talk to the room · \"leave\": lobby · F1: help",
        (Some(_), Phase::Playing) if room.game(app.games).is_none() => {
            "this program does not know the game · \"say TEXT\": talk · \"leave\": give up · F1: help"
        }
        (Some(_), Phase::Playing) => {
            "type your move and press Enter · \"say TEXT\": talk · \"leave\": give up · F1: help"
        }
        (Some(_), Phase::Waiting) if is_ready => {
            "waiting for the others · type to talk · \"leave\": lobby · F1: help"
        }
        (Some(_), Phase::Waiting) => "Enter: ready · type to talk · \"leave\": lobby · F1: help",
        (Some(_), Phase::Finished) if is_ready => "waiting for the others · \"leave\": lobby · F1: help",
        (Some(_), Phase::Finished) => "Enter: another match · type to talk · \"leave\": lobby · F1: help",
    }
}

fn help() -> Vec<Line> {
    let mut lines = vec![Line::of(
        Style::Strong,
        "What can be typed; a / before it does no harm",
    )];
    lines.extend(commands_here().map(|command| Line::plain(&format!("  {}", command.line()))));
    lines.push(Line::of(Style::Strong, "Anything else"));
    for line in [
        "in a match             your move",
        "elsewhere in a room    something to say",
    ] {
        lines.push(Line::plain(&format!("  {line}")));
    }
    lines.push(Line::of(Style::Strong, "Keys"));
    for line in [
        "↑ ↓                    lobby: choose; else: what was typed before",
        "Enter                  lobby: join, watch or open what is selected; room: ready, or another match",
        "F4                     lobby: watch what is selected",
        "Tab                    completes commands and games",
        "PgUp PgDn              older and newer chat",
        "Esc, Ctrl-U            empties the line; Ctrl-W takes a word away",
        "Ctrl-L                 draws the screen again",
        "Ctrl-Z                 stops this program; the shell's fg goes on",
        "Ctrl-C                 quits",
    ] {
        lines.push(Line::plain(&format!("  {line}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_used_and_the_input_line_is_always_shown() {
        for rows in 1..80 {
            for wanted in [0, 1, 5, 20, 1000] {
                let layout = Layout::new(rows, wanted);
                let Layout {
                    title,
                    rule,
                    main,
                    log,
                    input,
                    hint,
                } = layout;
                assert_eq!(title + 2 * rule + main + log + input + hint, rows, "{layout:?}");
                assert_eq!(input, 1);
                assert!(rows < 24 || log >= LOG_LINES_MIN);
            }
        }
    }
}
