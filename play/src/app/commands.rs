//! From typed lines to requests.

use forkade_protocol::{ChatScope, ClientMessage, Phase, RoomId, RoomSettings};

use crate::app::{App, Location, ViewRequest};
use crate::listing::EntryAction;
use crate::styled::Style;
use forkade_games::GameError;
use forkade_text::commands::{self, Command, Description, REQUEST, Setting};
use forkade_text::render;

/// The request number of [`ClientMessage::Look`]. (What is typed uses [`REQUEST`].)
pub(super) const LOOK_REQUEST: u32 = 1;

/// Request numbers of lists begin here; each list has its own.
pub(super) const LIST_REQUESTS_FROM: u32 = 2;

/// Commands of text mode that do not exist here: the name is chosen at the start, and the protocol has no list of
/// players.
const TEXT_MODE_ONLY: [&str; 5] = ["name", "resume", "whoami", "who", "ansi"];

/// The commands of this client.
pub(crate) fn commands_here() -> impl Iterator<Item = &'static Description> {
    commands::all().filter(|command| !TEXT_MODE_ONLY.contains(&command.name()))
}

/// The request number of the next list.
pub(super) fn list_request_after(request: u32) -> u32 {
    request.checked_add(1).unwrap_or(LIST_REQUESTS_FROM)
}

/// Completes a line: to the only command, or after `create`, `quick` and `rooms` the only game, that begins like this;
/// or to the common beginning of several.
pub(super) fn completed(line: &str, games: &[&str]) -> Option<String> {
    let (slash, typed) = match line.strip_prefix('/') {
        Some(typed) => ("/", typed),
        None => ("", line),
    };
    let (head, word, candidates): (String, &str, Vec<&str>) = match typed.split_once(' ') {
        None => (
            slash.to_owned(),
            typed,
            commands_here().map(Description::name).collect(),
        ),
        Some((name @ ("create" | "quick" | "rooms"), game)) => {
            (format!("{slash}{name} "), game, games.to_vec())
        }
        Some(_) => return None,
    };
    let fitting: Vec<_> = candidates
        .into_iter()
        .filter(|candidate| candidate.starts_with(word))
        .collect();
    match fitting[..] {
        [] => None,
        [one] => Some(format!("{head}{one} ")),
        [first, ..] => {
            let is_common = |end: &usize| {
                let part = first.get(..*end);
                part.is_some() && fitting.iter().all(|other| other.get(..*end) == part)
            };
            let end = (0..=first.len()).rev().find(is_common)?;
            Some(format!("{head}{}", &first[..end]))
        }
    }
}

impl App<'_> {
    /// Handles Enter.
    pub(crate) fn enter(&mut self, now_ms: u64) {
        self.scrolled = 0;
        let line = self.input.take();
        match commands::parse(line.as_bytes()) {
            Ok(Command::Nothing) => self.run_default_action(),
            Ok(command) => self.execute(command, &line, now_ms),
            Err(complaint) => self.print(Style::Bad, &format!("{complaint}.")),
        }
    }

    /// Handles an empty line: the most likely next step.
    fn run_default_action(&mut self) {
        let Location::Room(room) = &self.location else {
            return self.activate_selection(false);
        };
        let is_ready = room.own_seat().is_none_or(|own| own.ready);
        match room.snapshot().phase {
            Phase::Waiting if !is_ready => self.request(ClientMessage::Ready {
                request: REQUEST,
                ready: true,
            }),
            Phase::Finished if !is_ready => self.request(ClientMessage::Rematch { request: REQUEST }),
            _ => {}
        }
    }

    fn execute(&mut self, command: Command, line: &str, now_ms: u64) {
        match command {
            Command::Nothing => {}
            Command::Help(None) => self.help = Some(0),
            Command::Help(Some(description)) => {
                for line in description.explanation() {
                    self.print(Style::Plain, line);
                }
            }
            Command::Rename(_) => self.print(
                Style::Bad,
                "A name is chosen at the start here: forkade play --name NAME.",
            ),
            Command::Resume(_) | Command::WhoAmI => self.print(
                Style::Bad,
                "This program comes back by itself after a lost connection.",
            ),
            Command::Ansi(_) => self.print(Style::Bad, "This program draws every match in place."),
            Command::Games => self.print_games(),
            Command::Who => self.print(
                Style::Bad,
                "Only the text mode lists who is here: telnet to the same port.",
            ),
            Command::Ignored => self.print(
                Style::Bad,
                "Only the text mode lists whom you ignore; \"ignore NAME\" and \"unignore NAME\" work here, too.",
            ),
            Command::Ignore { player, ignore } => self.request(ClientMessage::Ignore {
                request: REQUEST,
                player,
                ignore,
            }),
            Command::Look if self.is_in_lobby() => self.listing.refresh_now(),
            Command::Look => self.request_view(),
            Command::Rooms { filter, .. } => {
                self.listing.filter = filter;
                self.listing.refresh_now();
                if !self.is_in_lobby() {
                    self.print(
                        Style::Plain,
                        "The rooms are shown in the lobby; \"leave\" takes you there.",
                    );
                }
            }
            Command::Create { game, name, settings } => {
                match self.changed_settings(&game, RoomSettings::default(), settings) {
                    Ok(settings) => self.create(game, name, settings),
                    Err(why) => self.print(Style::Bad, &why),
                }
            }
            Command::Join {
                room,
                passcode,
                watch,
            } => match self.listing.room(room) {
                Some(id) => self.join(id, passcode, watch),
                None => {
                    // It may be new.
                    self.listing.refresh_now();
                    let what = format!(
                        "There is no room {room} in the list, which is asked for anew: try again. (An unlisted one is joined by its invite code.)"
                    );
                    self.print(Style::Bad, &what);
                }
            },
            Command::Set(settings) => self.configure(settings),
            Command::Kick(whom) => self.request_for_seat(&whom, |seat, name| ClientMessage::Kick {
                request: REQUEST,
                seat,
                name,
            }),
            Command::HandOver(whom) => {
                self.request_for_seat(&whom, |seat, name| ClientMessage::HandOver {
                    request: REQUEST,
                    seat,
                    name,
                });
            }
            Command::Ask(ClientMessage::Chat { scope, text, .. }) => self.chat(scope, &text),
            Command::Ask(message) => self.request(message),
            Command::Move(text) => self.make_move(&text, line),
            Command::Quit => self.quit(),
        }
        self.run_timers(now_ms);
    }

    /// Handles a line that is no command: a move in a match, otherwise chat.
    fn make_move(&mut self, text: &str, line: &str) {
        if line.trim_start().starts_with('/') {
            let what = format!("There is no command {}; F1 lists them.", line.trim());
            return self.print(Style::Bad, &what);
        }
        match &self.location {
            Location::Room(room) if room.is_playing() => match room.parse_move(text, self.games) {
                Ok(action) => self.request(ClientMessage::Act {
                    request: REQUEST,
                    action,
                }),
                Err(why) => {
                    let what = format!("That is no move: {why}. To talk, begin with \"say\".");
                    self.print(Style::Bad, &what);
                }
            },
            Location::Room(_) => self.chat(ChatScope::Room, text),
            Location::Lobby => {
                let what = "That is no command; F1 lists them. \"shout TEXT\" talks to all who are here.";
                self.print(Style::Bad, what);
            }
        }
    }

    /// Runs the action of the selected line of the lobby.
    pub(crate) fn activate_selection(&mut self, watch: bool) {
        match self.listing.selected_action(watch, self.games) {
            None => {}
            Some(EntryAction::Join(room)) => self.join(room, None, false),
            Some(EntryAction::Watch(room)) => self.join(room, None, true),
            Some(EntryAction::AskPasscode(number)) => {
                let verb = if watch { "watch" } else { "join" };
                self.input.replace(&format!("{verb} {number} "));
                self.print(
                    Style::Plain,
                    "This room asks for a passcode: type it behind the number.",
                );
            }
            Some(EntryAction::Create(game)) => self.create(game, String::new(), RoomSettings::default()),
        }
    }

    /// Requests the room's view, unless a request is pending.
    pub(crate) fn request_view(&mut self) {
        self.view_request = match self.view_request {
            ViewRequest::None => {
                self.messages.push(ClientMessage::Look {
                    request: LOOK_REQUEST,
                });
                ViewRequest::Pending
            }
            ViewRequest::Pending | ViewRequest::PendingAndStale => ViewRequest::PendingAndStale,
        };
    }

    /// Runs the action of the command line.
    pub(crate) fn run_startup_action(&mut self) {
        use crate::app::StartupAction;
        match std::mem::replace(&mut self.startup_action, StartupAction::ShowLobby) {
            StartupAction::ShowLobby => {}
            StartupAction::QuickMatch(game) => self.request(ClientMessage::QuickMatch {
                request: REQUEST,
                game,
                options: Vec::new(),
            }),
            // The number cannot be resolved before there is a list.
            StartupAction::Join { number, watch }
                if self.listing.room(number).is_none() && !self.listing.is_known() =>
            {
                self.startup_action = StartupAction::Join { number, watch };
            }
            StartupAction::Join { number, watch } => match self.listing.room(number) {
                Some(room) => self.join(room, None, watch),
                None => self.print(Style::Bad, &format!("There is no room {number} in the list.")),
            },
            StartupAction::JoinByInvite { code, watch } => self.request(ClientMessage::JoinByInvite {
                request: REQUEST,
                code,
                watch,
            }),
        }
    }

    fn request(&mut self, message: ClientMessage) {
        self.messages.push(message);
    }

    fn create(&mut self, game: String, name: String, settings: RoomSettings) {
        let name = if name.is_empty() {
            render::default_room_name(&self.name)
        } else {
            name
        };
        self.passcode_given = settings.passcode.clone();
        self.request(ClientMessage::CreateRoom {
            request: REQUEST,
            game,
            name,
            settings,
        });
    }

    fn join(&mut self, room: RoomId, passcode: Option<String>, watch: bool) {
        self.passcode_given = passcode.clone();
        let request = REQUEST;
        self.request(if watch {
            ClientMessage::Spectate {
                request,
                room,
                passcode,
            }
        } else {
            ClientMessage::JoinRoom {
                request,
                room,
                passcode,
            }
        });
    }

    fn chat(&mut self, scope: ChatScope, text: &str) {
        match self.clean_chat(text) {
            Ok(text) => self.request(ClientMessage::Chat {
                request: REQUEST,
                scope,
                text,
            }),
            Err(why) => self.print(Style::Bad, &format!("That cannot be said: {why}.")),
        }
    }

    fn request_for_seat(&mut self, whom: &str, message: impl FnOnce(u8, String) -> ClientMessage) {
        let seat = self.room().and_then(|room| {
            let seat = room.seat_of(whom)?;
            Some((seat, room.name_of(seat)?.to_owned()))
        });
        match seat {
            Some((seat, name)) => self.request(message(seat, name)),
            None => self.print(Style::Bad, "Nobody of that name has a seat here."),
        }
    }

    /// The message contains all settings, so those that do not change are repeated.
    fn configure(&mut self, changes: Vec<Setting>) {
        let Some(room) = self.room() else {
            return self.print(Style::Bad, "You are in no room.");
        };
        let rules = &room.snapshot().rules;
        let says_passcode = changes
            .iter()
            .any(|change| matches!(change, Setting::Passcode(_)));
        if rules.passcode && self.passcode_given.is_none() && !says_passcode {
            let what = "The room has a passcode that is not known here: say passcode=WORD as well, or passcode= for none.";
            return self.print(Style::Bad, what);
        }
        let settings = RoomSettings {
            passcode: self.passcode_given.clone().filter(|_| rules.passcode),
            seats: rules.seats,
            options: rules.options.clone(),
            unlisted: rules.unlisted,
            no_spectators: rules.no_spectators,
            turn_seconds: rules.turn_seconds,
        };
        let game = room.snapshot().game.clone();
        let settings = match self.changed_settings(&game, settings, changes) {
            Ok(settings) => settings,
            Err(why) => return self.print(Style::Bad, &why),
        };
        self.passcode_given = settings.passcode.clone();
        self.request(ClientMessage::Configure {
            request: REQUEST,
            settings,
        });
    }

    /// The settings with these changes, or an error for the player.
    fn changed_settings(
        &self,
        game: &str,
        mut settings: RoomSettings,
        changes: Vec<Setting>,
    ) -> Result<RoomSettings, String> {
        let game = self.games.find(game).map(|(_, game)| game);
        for change in changes {
            change.apply(&mut settings, game).map_err(|error| match error {
                GameError::Rejected(rejection) => format!("These options cannot be: {}.", rejection.text()),
                other => format!("These options cannot be: {other}."),
            })?;
        }
        Ok(settings)
    }

    fn print_games(&mut self) {
        let lines: Vec<_> = self
            .listing
            .games()
            .iter()
            .map(|game| format!("{}, {} to {} seats", game.name, game.seats_min, game.seats_max))
            .collect();
        self.print(Style::Plain, &lines.join("\n"));
    }
}
