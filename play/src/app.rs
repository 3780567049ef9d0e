//! The client's state, and what keys and messages of the server do to it. Pure: time is passed in as milliseconds of
//! the caller's clock, messages leave through [`App::take_messages`], and [`screen`](crate::screen) draws the state.

mod commands;
mod events;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use forkade_protocol::text::clean_chat;
use forkade_protocol::{ClientMessage, Limits};

pub(crate) use crate::app::commands::commands_here;

use crate::connection::SessionEnd;
use crate::limits::{PLAY_HISTORY_LINES_MAX, PLAY_INPUT_CHARACTERS_MAX, PLAY_LOG_LINES_MAX};
use crate::listing::Listing;
use crate::room::Room;
use crate::styled::{Line, Style};
use forkade_games::Games;
use forkade_text::keys::Key;
use forkade_text::line_editor::{LineEditor, LineLimits};

/// Any character but control characters may be typed; the server decides what it accepts.
const INPUT_LIMITS: LineLimits = LineLimits {
    characters_max: PLAY_INPUT_CHARACTERS_MAX,
    bytes_max: usize::MAX,
    history_lines_max: PLAY_HISTORY_LINES_MAX,
    accepts: |_| true,
};

/// Lines by which one key scrolls.
const SCROLL_LINES: usize = 5;

/// What to do once the server has sent its `Welcome`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartupAction {
    /// Show the lobby.
    ShowLobby,
    /// Take a seat in any room of a game.
    QuickMatch(String),
    /// Join a room by its number or id.
    Join { number: u64, watch: bool },
    /// Join a room by its invite code.
    JoinByInvite { code: String, watch: bool },
}

/// Why the client exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// The player has quit.
    Quit,
    /// The session has ended; the reason.
    SessionEnded(String),
}

/// The state of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionStatus {
    /// The first connection is not established yet.
    Connecting,
    Up,
    /// It was lost at that time, and is retried for so many seconds.
    Lost {
        since_ms: u64,
        retry_for_seconds: u64,
    },
}

/// Where the player is.
#[derive(Debug)]
pub(crate) enum Location {
    Lobby,
    Room(Box<Room>),
}

/// The client's state.
#[derive(Debug)]
pub(crate) struct App<'g> {
    pub games: &'g Games,
    pub server: String,
    pub name: String,
    limits: Option<Limits>,
    startup_action: StartupAction,
    pub connection_status: ConnectionStatus,
    pub location: Location,
    pub listing: Listing,
    pub input: LineEditor,
    log: VecDeque<Line>,
    /// Lines of the log below the screen.
    pub scrolled: usize,
    /// The first line of the help that is shown; `None`: no help is shown.
    pub help: Option<usize>,
    /// The last key was the quit key in a match: the same key again quits.
    quit_key_pressed: bool,
    messages: Vec<ClientMessage>,
    next_list_request: u32,
    /// The pending request for the room's view.
    view_request: ViewRequest,
    /// The passcode that the player has joined with or set: the server reveals it to no client.
    passcode_given: Option<String>,
    exit_reason: Option<ExitReason>,
    wants_suspend: bool,
    wants_redraw: bool,
}

/// The request for the room's view. One at a time is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ViewRequest {
    None,
    Pending,
    /// Something has happened since the request, so another one follows the reply.
    PendingAndStale,
}

impl<'g> App<'g> {
    /// The state before the first connection.
    pub(crate) fn new(games: &'g Games, server: &str, startup_action: StartupAction) -> Self {
        Self {
            games,
            server: server.to_owned(),
            name: String::new(),
            limits: None,
            startup_action,
            connection_status: ConnectionStatus::Connecting,
            location: Location::Lobby,
            listing: Listing::default(),
            input: LineEditor::new(INPUT_LIMITS),
            log: VecDeque::new(),
            scrolled: 0,
            help: None,
            quit_key_pressed: false,
            messages: Vec::new(),
            next_list_request: commands::LIST_REQUESTS_FROM,
            view_request: ViewRequest::None,
            passcode_given: None,
            exit_reason: None,
            wants_suspend: false,
            wants_redraw: false,
        }
    }

    /// Handles a key.
    pub(crate) fn on_key(&mut self, key: Key, now_ms: u64) {
        if key == Key::Unknown {
            return;
        }
        let quit_key_pressed = std::mem::take(&mut self.quit_key_pressed);
        match key {
            Key::Redraw => self.wants_redraw = true,
            Key::Suspend => self.wants_suspend = true,
            Key::Interrupt => self.on_quit_key(quit_key_pressed),
            Key::EndOfInput if self.input.is_empty() => self.on_quit_key(quit_key_pressed),
            Key::EndOfInput => _ = self.input.edit(Key::Delete),
            _ if self.help.is_some() => self.scroll_help(key),
            Key::Function(1) => self.help = Some(0),
            Key::Function(4) if self.is_in_lobby() => self.activate_selection(true),
            Key::PageUp => self.scrolled = (self.scrolled + SCROLL_LINES).min(self.log.len()),
            Key::PageDown => self.scrolled = self.scrolled.saturating_sub(SCROLL_LINES),
            Key::Enter => self.enter(now_ms),
            Key::Tab => self.complete(),
            Key::Up | Key::Down if self.input.is_empty() && self.is_in_lobby() => {
                self.listing.move_selection(if key == Key::Up { -1 } else { 1 });
            }
            Key::Escape => self.input.replace(""),
            key => _ = self.input.edit(key),
        }
    }

    /// Does what is due at `now_ms`.
    pub(crate) fn run_timers(&mut self, now_ms: u64) {
        if self.is_in_lobby() && self.connection_status == ConnectionStatus::Up && self.help.is_none() {
            let request = self.next_list_request;
            if let Some(message) = self.listing.request_if_due(request, now_ms) {
                self.next_list_request = commands::list_request_after(request);
                self.messages.push(message);
            }
        }
    }

    /// When to call [`run_timers`](Self::run_timers) or to draw again, even if nothing happens.
    pub(crate) fn next_change_ms(&self, now_ms: u64) -> Option<u64> {
        let next_second = now_ms - now_ms % 1000 + 1000;
        match (&self.connection_status, &self.location) {
            (ConnectionStatus::Lost { .. }, _) => Some(next_second),
            (_, Location::Room(room)) => room.has_clock().then_some(next_second),
            (ConnectionStatus::Up, Location::Lobby) => self.listing.due_ms(),
            (ConnectionStatus::Connecting, Location::Lobby) => None,
        }
    }

    /// Takes the messages to send.
    pub(crate) fn take_messages(&mut self) -> Vec<ClientMessage> {
        std::mem::take(&mut self.messages)
    }

    /// The reason to exit, if there is one.
    pub(crate) fn exit_reason(&self) -> Option<&ExitReason> {
        self.exit_reason.as_ref()
    }

    /// Quits: by key, command or signal.
    pub(crate) fn quit(&mut self) {
        self.exit_reason.get_or_insert(ExitReason::Quit);
    }

    /// Whether to suspend the program; the request is cleared.
    pub(crate) fn take_suspend_request(&mut self) -> bool {
        std::mem::take(&mut self.wants_suspend)
    }

    /// Whether to redraw the whole screen; the request is cleared.
    pub(crate) fn take_redraw_request(&mut self) -> bool {
        std::mem::take(&mut self.wants_redraw)
    }

    /// Chat and events, the newest last.
    pub(crate) fn log(&self) -> &VecDeque<Line> {
        &self.log
    }

    /// Whether the player is in the lobby.
    pub(crate) fn is_in_lobby(&self) -> bool {
        matches!(self.location, Location::Lobby)
    }

    /// The room that the player is in.
    pub(crate) fn room(&self) -> Option<&Room> {
        match &self.location {
            Location::Room(room) => Some(room),
            Location::Lobby => None,
        }
    }

    /// A message could not be sent.
    pub(crate) fn on_send_failed(&mut self, why: &str) {
        self.print(Style::Bad, &format!("That could not be sent: {why}."));
    }

    fn print(&mut self, style: Style, text: &str) {
        for line in text.lines() {
            self.add_to_log(Line::of(style, line));
        }
    }

    fn add_to_log(&mut self, line: Line) {
        if self.log.len() == PLAY_LOG_LINES_MAX {
            self.log.pop_front();
        }
        self.log.push_back(line);
        // A scrolled log keeps showing the same lines.
        if self.scrolled > 0 {
            self.scrolled = (self.scrolled + 1).min(self.log.len());
        }
    }

    fn on_quit_key(&mut self, was_asked: bool) {
        if was_asked || !self.room().is_some_and(Room::is_playing) {
            return self.quit();
        }
        self.quit_key_pressed = true;
        let warning =
            "You are in the middle of a match, and would give up your seat. The same key again quits.";
        self.print(Style::Bad, warning);
    }

    fn scroll_help(&mut self, key: Key) {
        let from = self.help.unwrap_or(0);
        self.help = match key {
            Key::PageDown | Key::Down => Some(from + SCROLL_LINES),
            Key::PageUp | Key::Up => Some(from.saturating_sub(SCROLL_LINES)),
            _ => None,
        };
    }

    fn complete(&mut self) {
        let games: Vec<_> = self
            .listing
            .games()
            .iter()
            .map(|game| game.name.as_str())
            .collect();
        if let Some(line) = commands::completed(&self.input.text(), &games) {
            self.input.replace(&line);
        }
    }

    /// A chat text as the server would accept it.
    fn clean_chat(&self, text: &str) -> Result<String, String> {
        let cleaned = clean_chat(text).map_err(|error| error.to_string())?;
        let bytes_max = self.limits.map_or(u32::MAX, |limits| limits.chat_bytes_max);
        match u32::try_from(cleaned.len()) {
            Ok(bytes) if bytes <= bytes_max => Ok(cleaned),
            _ => Err(format!(
                "it has {} bytes, at most {bytes_max} are allowed",
                cleaned.len()
            )),
        }
    }

    /// The session has ended: no connection follows.
    pub(crate) fn connection_ended(&mut self, end: SessionEnd) {
        let why = match end {
            SessionEnd::Left => return self.quit(),
            other => other.to_string(),
        };
        self.exit_reason.get_or_insert(ExitReason::SessionEnded(why));
    }
}
