//! Turns what is typed in text mode into calls of the lobby.

use forkade_games::AnyGame;
use forkade_protocol::{ClientMessage, ErrorCode, RejectCode, RoomSettings, Snapshot, text};
use forkade_text::commands::{self, Command, REQUEST, Setting};
use forkade_text::input::Token;
use forkade_text::render;

use crate::frontends::dispatch::{FrameOutcome, MASK, reject};
use crate::limits::{RESUME_WORDS_TRIED_MAX, TEXT_LINE_BYTES_MAX};
use crate::lobby::{delivery, ignoring, join_leave, names, text_requests};
use crate::logging;
use crate::session::rate::LOOK_PRICE;
use crate::session::rejection::Rejection;
use crate::session::resume_word::ResumeWord;
use crate::session::text_session::ResumeRefusal;
use crate::session::{CloseReason, Session};
use crate::state::fault::Fault;

/// Handles the next thing that was typed.
pub(crate) fn handle_next(session: &mut Session<'_>) -> FrameOutcome {
    // The events of the previous line are shown before the output of this one.
    if let Err(rejection) = delivery::deliver(session) {
        log::error!("cannot deliver the room's events: {rejection}");
    }
    if delivery::is_blocked_on_output(session) {
        return FrameOutcome::Wait;
    }
    let done = match session.next_typed() {
        Token::Incomplete => {
            session.reader_wait = None;
            return FrameOutcome::Wait;
        }
        Token::TelnetReply {
            replies,
            up_to,
            refused,
        } => session.answer_telnet(&replies, up_to, refused),
        Token::Skip { .. } => session.consume_and_reply(None),
        Token::LineTooLong { .. } => session.say(&render::refusal(&format!(
            "that line has more than {TEXT_LINE_BYTES_MAX} bytes; it is thrown away up to its end"
        ))),
        Token::Line { .. } if session.frame_is_blocked() => {
            session.say(&render::refusal(crate::frontends::dispatch::REFUSED))
        }
        // Most lines in a match are moves or chat.
        Token::Line { .. } if delivery::must_wait_for_readers(session) => {
            session.end_frame();
            return FrameOutcome::Wait;
        }
        Token::Line { line, .. } => {
            let secret = has_secret(&line).then(|| session.frame_place()).flatten();
            let outcome = execute_line(session, &line).unwrap_or_else(|rejection| {
                reject(session, REQUEST, rejection);
                session.end_frame();
                FrameOutcome::Handled
            });
            if let Some(place) = secret {
                session.overwrite_frame(place, mask_secret);
            }
            return outcome;
        }
    };
    if let Err(rejection) = done {
        log::error!("what was typed was rejected as a whole: {rejection}");
    }
    session.end_frame();
    FrameOutcome::Handled
}

/// Whether a line contains a passcode or an invite code.
fn has_secret(line: &[u8]) -> bool {
    match commands::parse(line) {
        Ok(Command::Join { passcode, .. }) => passcode.is_some(),
        Ok(Command::Create { settings, .. } | Command::Set(settings)) => settings
            .iter()
            .any(|setting| matches!(setting, Setting::Passcode(_))),
        Ok(Command::Ask(ClientMessage::JoinByInvite { .. })) => true,
        _ => false,
    }
}

/// Masks what was typed behind `passcode=`, or, without that, behind the first word.
fn mask_secret(typed: &mut [u8]) {
    const SETTING: &[u8] = b" passcode=";
    let setting = typed
        .windows(SETTING.len())
        .position(|window| window.eq_ignore_ascii_case(SETTING));
    let secret = match setting {
        Some(start) => start + SETTING.len(),
        None => typed.iter().position(|byte| *byte == b' ').unwrap_or(0),
    };
    for byte in &mut typed[secret..] {
        if !matches!(byte, b' ' | b'\r' | b'\n' | 0) {
            *byte = MASK;
        }
    }
}

fn execute_line(session: &mut Session<'_>, line: &[u8]) -> Result<FrameOutcome, Rejection> {
    let command = match commands::parse(line) {
        Ok(command) => command,
        Err(error) => return say(session, &render::refusal(&error.to_string())),
    };
    let message = match command {
        Command::Nothing => return say(session, ""),
        Command::Help(None) => return say(session, &render::help()),
        Command::Help(Some(about)) => return say(session, &render::command_help(about, session.state.games)),
        Command::Games => {
            let games = render::games(session.state.games);
            return say(session, &games);
        }
        Command::Quit => {
            return Ok(FrameOutcome::Close {
                leaves: true,
                reason: CloseReason::Line(None, "goodbye".into()),
            });
        }
        Command::WhoAmI => {
            let word = session.resume_word().map(|word| word.to_string());
            let hint = render::resume_hint(&word.unwrap_or_default());
            let text = format!("You are {}.\n{hint}", session.name().as_str());
            return say(session, &text);
        }
        Command::Resume(word) => return resume(session, &word),
        Command::Ansi(has_ansi) => {
            return handled(session, |session| text_requests::set_ansi(session, has_ansi));
        }
        Command::Ignored => return handled(session, ignoring::list),
        Command::Ignore { player, ignore } => {
            return handled(session, |session| ignoring::ignore(session, &player, ignore));
        }
        Command::Who => {
            session.charge(LOOK_PRICE)?;
            return handled(session, text_requests::list_players);
        }
        Command::Rename(name) => {
            session.charge_in_any_case()?;
            let name = names::player_name(session.state, &name).map_err(|error| {
                Rejection::new(
                    RejectCode::TextInvalid,
                    format!("the name cannot be used: {error}"),
                )
            })?;
            let renamed = handled(session, |session| text_requests::rename(session, name))?;
            logging::set_player(Some(name.as_str()));
            session.record().set_player_name(name.as_str());
            return Ok(renamed);
        }
        Command::Create { game, name, settings } => {
            session.charge_in_any_case()?;
            ClientMessage::CreateRoom {
                request: REQUEST,
                name: match name.is_empty() {
                    true => render::default_room_name(session.name().as_str()),
                    false => name,
                },
                settings: chosen_settings(session, &game, settings)?,
                game,
            }
        }
        Command::Rooms { filter, after } => ClientMessage::ListRooms {
            request: REQUEST,
            filter,
            after: after.map(text_requests::list_cursor_before),
        },
        Command::Join {
            room,
            passcode,
            watch,
        } => {
            let (request, room) = (REQUEST, text_requests::room_by_number(session, room));
            match watch {
                true => ClientMessage::Spectate {
                    request,
                    room,
                    passcode,
                },
                false => ClientMessage::JoinRoom {
                    request,
                    room,
                    passcode,
                },
            }
        }
        Command::Set(settings) => {
            session.charge_in_any_case()?;
            ClientMessage::Configure {
                request: REQUEST,
                settings: changed_settings(session, settings)?,
            }
        }
        Command::Kick(player) => {
            session.charge_in_any_case()?;
            let (seat, name) = seat_of(session, &player)?;
            ClientMessage::Kick {
                request: REQUEST,
                seat,
                name,
            }
        }
        Command::HandOver(player) => {
            session.charge_in_any_case()?;
            let (seat, name) = seat_of(session, &player)?;
            ClientMessage::HandOver {
                request: REQUEST,
                seat,
                name,
            }
        }
        Command::Move(text) => ClientMessage::Act {
            request: REQUEST,
            action: action(session, &text)?,
        },
        Command::Look if session.membership().place().is_none() => {
            return handled(session, text_requests::describe_lobby);
        }
        Command::Look => ClientMessage::Look { request: REQUEST },
        Command::Ask(message) => message,
    };
    Ok(crate::frontends::dispatch::deliver_then_handle(session, message))
}

/// Continues another session on this connection. The player that has typed this leaves.
fn resume(session: &mut Session<'_>, word: &str) -> Result<FrameOutcome, Rejection> {
    session.charge_if_rejected()?;
    join_leave::ensure_in_lobby(session)?;
    let asked = ResumeWord::parse(word)
        .ok_or(ResumeRefusal::UnknownWord)
        .and_then(|word| session.request_resume_by_word(word));
    match asked {
        Ok(keeper) => session.keeper_doorbells.extend(keeper),
        Err(ResumeRefusal::NotYet) => {
            session.end_frame();
            return Ok(FrameOutcome::Wait);
        }
        Err(ResumeRefusal::UnknownWord) => {
            session.fail();
            let text = ResumeRefusal::UnknownWord.to_string();
            if session.refuse_word(&render::refusal(&text))? >= RESUME_WORDS_TRIED_MAX {
                return Ok(FrameOutcome::Close {
                    leaves: true,
                    reason: CloseReason::Line(
                        Some(ErrorCode::TokenUnknown),
                        "that was the last word you can try here".into(),
                    ),
                });
            }
        }
        Err(refusal) => {
            session.fail();
            session.say(&render::refusal(&refusal.to_string()))?;
        }
    }
    session.end_frame();
    Ok(FrameOutcome::Handled)
}

fn say(session: &mut Session<'_>, text: &str) -> Result<FrameOutcome, Rejection> {
    handled(session, |session| session.say(text))
}

fn handled(
    session: &mut Session<'_>,
    act: impl FnOnce(&mut Session<'_>) -> Result<(), Rejection>,
) -> Result<FrameOutcome, Rejection> {
    act(session)?;
    session.end_frame();
    Ok(FrameOutcome::Handled)
}

/// Parses text that is no command as a move.
fn action(session: &mut Session<'_>, text: &str) -> Result<Vec<u8>, Rejection> {
    let what = render::quoted_input(text);
    match text_requests::parse_action(session, text) {
        Err(rejection) if rejection.code == RejectCode::NotInRoom => Err(Rejection::new(
            RejectCode::NotInRoom,
            format!("{what} is no command; \"help\" lists them"),
        )),
        Err(rejection) if rejection.code == RejectCode::BadAction => Err(Rejection::new(
            RejectCode::BadAction,
            format!(
                "{what} is neither a command (see \"help\") nor a move: {}",
                rejection.text
            ),
        )),
        decided => decided,
    }
}

/// Returns the default settings for a room of the game, with these changes.
fn chosen_settings(
    session: &Session<'_>,
    game: &str,
    chosen: Vec<Setting>,
) -> Result<RoomSettings, Rejection> {
    let mut settings = RoomSettings::default();
    let game = session.state.games.find(game).map(|(_, game)| game);
    for setting in chosen {
        apply_setting(setting, &mut settings, game)?;
    }
    Ok(settings)
}

/// Returns the room's settings with these changes.
fn changed_settings(session: &mut Session<'_>, changes: Vec<Setting>) -> Result<RoomSettings, Rejection> {
    let Snapshot { game, rules, .. } = text_requests::current_snapshot(session)?;
    let says_passcode = changes
        .iter()
        .any(|change| matches!(change, Setting::Passcode(_)));
    if rules.passcode && !says_passcode {
        return Err(Rejection::new(
            RejectCode::BadSettings,
            "your room has a passcode, which is not kept in readable form: say it again (passcode=WORD), or \"passcode=\" for none",
        ));
    }
    let mut settings = RoomSettings {
        passcode: None,
        seats: rules.seats,
        options: rules.options,
        unlisted: rules.unlisted,
        no_spectators: rules.no_spectators,
        turn_seconds: rules.turn_seconds,
    };
    let game = session.state.games.find(&game).map(|(_, game)| game);
    for change in changes {
        apply_setting(change, &mut settings, game)?;
    }
    Ok(settings)
}

fn apply_setting(
    setting: Setting,
    settings: &mut RoomSettings,
    game: Option<&dyn AnyGame>,
) -> Result<(), Rejection> {
    setting.apply(settings, game).map_err(|error| {
        let name = game.map_or("an unknown game", |game| game.name());
        Rejection::of_call(error, |error| Fault::without_room(name, "parse_options", error))
    })
}

/// The seat of the member that has this name, and the name as it is written.
fn seat_of(session: &mut Session<'_>, player: &str) -> Result<(u8, String), Rejection> {
    let seats = text_requests::current_snapshot(session)?.seats;
    let names = (0..)
        .zip(seats)
        .filter_map(|(seat, info)| Some((seat, info?.name)));
    let mut found = names.filter(|(_, other)| text::is_same_name(other, player));
    found.next().ok_or_else(|| {
        let text = format!("nobody in this room is called {}", render::quoted_input(player));
        Rejection::new(RejectCode::NoSuchSeat, text)
    })
}
