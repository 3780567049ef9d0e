//! The state machine of a connection: bytes of the handshake and frames in, calls of the lobby out. No sockets and no
//! clock.
//!
//! Whatever a client sends, the worst result is a typed error and the end of its own connection.

use forkade_protocol::preamble::{self, PreambleResult};
use forkade_protocol::{ChatScope, ClientMessage, ErrorCode, RejectCode, ServerMessage, codec, frame, text};

use crate::limits::{CLIENT_NAME_BYTES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, HANDSHAKE_BYTES_MAX};
use crate::lobby::chat::{self, clean_line};
use crate::lobby::join_leave::{self, NewRoom};
use crate::lobby::{
    delivery, ignoring, invites, listing, match_play, names, ownership, reservations, room_view, sanctions,
    settings,
};
use crate::session::handshake::Refusal;
use crate::session::proxy_header;
use crate::session::rate::{costs_if_rejected, price_of};
use crate::session::rejection::Rejection;
use crate::session::{CloseReason, Greeting, Session};
use crate::state::directory::Name;
use forkade_text::opening::{self, ForeignProtocol, Opening};
use forkade_text::render;

/// What the handshake has led to.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeOutcome {
    /// More bytes are needed.
    Incomplete,
    /// A PROXY header was read. The client's source is to be judged before more is read.
    ClientKnown,
    /// The client has a session now.
    Greeted,
    /// The client asks to resume a session. Holds the keeper whose doorbell is to be rung.
    Resuming(Option<u32>),
    /// The connection is to be closed for this reason.
    Refused(CloseReason),
    /// The client speaks another protocol. The connection is to be closed with [`foreign_text`].
    Foreign(ForeignProtocol),
}

/// What a client of another protocol is told.
pub fn foreign_text(protocol: ForeignProtocol) -> String {
    if protocol == ForeignProtocol::Proxy {
        return "a PROXY header is accepted from trusted proxies only, and once".to_owned();
    }
    format!("this is the port of a game server, which does not speak {protocol}")
}

/// Parses the bytes of the handshake that have arrived, and acts once they are complete.
pub fn process_handshake(session: &mut Session<'_>) -> HandshakeOutcome {
    handshake(session, false)
}

/// Like [`process_handshake`], for a client that sends nothing more.
pub fn process_ended_handshake(session: &mut Session<'_>) -> HandshakeOutcome {
    handshake(session, true)
}

fn handshake(session: &mut Session<'_>, has_ended: bool) -> HandshakeOutcome {
    let outcome = match sanctions::address_ban(session) {
        // It connected before the ban.
        Some(reason) => HandshakeOutcome::Refused(reason),
        None => try_handshake(session, has_ended),
    };
    session.wipe_handshake();
    outcome
}

fn try_handshake(session: &mut Session<'_>, has_ended: bool) -> HandshakeOutcome {
    if session.awaits_proxy_header() {
        match proxy_header::parse(&session.handshake()) {
            Ok(None) => return HandshakeOutcome::Incomplete,
            Ok(Some(header)) => {
                session.enter_proxied_client(header);
                return HandshakeOutcome::ClientKnown;
            }
            Err(error) => return refused(ErrorCode::BadPreamble, error.to_string()),
        }
    }
    let bytes = session.handshake();
    let (min, max) = match preamble::classify(&bytes) {
        PreambleResult::Incomplete => return HandshakeOutcome::Incomplete,
        PreambleResult::Preamble { min, max } => (min, max),
        PreambleResult::Invalid => {
            return refused(
                ErrorCode::BadPreamble,
                "this is no preamble of the Forkade protocol",
            );
        }
        PreambleResult::Text(_) => {
            return match opening::classify(&bytes, has_ended || bytes.len() >= HANDSHAKE_BYTES_MAX) {
                Opening::Incomplete => HandshakeOutcome::Incomplete,
                Opening::Enter if session.is_just_accepted() => HandshakeOutcome::Incomplete,
                Opening::Enter | Opening::Person => create_guest(session),
                Opening::Foreign(protocol) => HandshakeOutcome::Foreign(protocol),
            };
        }
    };
    let Some(version) = preamble::negotiate(min, max) else {
        let text = format!(
            "this server speaks versions {} to {}, you speak {min} to {max}",
            preamble::VERSION_MIN,
            preamble::VERSION_MAX
        );
        return refused(ErrorCode::VersionUnsupported, text);
    };
    let rest = &bytes[preamble::PREAMBLE_BYTES..];
    let first_frame_max = HANDSHAKE_BYTES_MAX - preamble::PREAMBLE_BYTES - FRAME_HEADER_BYTES;
    let (body, total) = match frame::split(rest, first_frame_max) {
        frame::Split::Incomplete { .. } => return HandshakeOutcome::Incomplete,
        frame::Split::TooLarge { .. } => {
            return refused(
                ErrorCode::FrameTooLarge,
                format!("a greeting has at most {first_frame_max} bytes"),
            );
        }
        frame::Split::Frame { body, total } => (body, total),
    };
    let in_front = session.proxy_header_bytes() + preamble::PREAMBLE_BYTES;
    let (used, is_all) = (in_front + total, rest.len() == total);
    match codec::decode::<ClientMessage>(body) {
        Err(error) => refused(
            ErrorCode::Malformed,
            format!("the greeting is malformed: {error}"),
        ),
        Ok(ClientMessage::Greet { .. }) if version < 2 => refused(
            ErrorCode::Malformed,
            "the greeting is malformed: version 1 has no Greet",
        ),
        Ok(ClientMessage::Hello { client, .. } | ClientMessage::Greet { client, .. })
            if client.len() > CLIENT_NAME_BYTES_MAX =>
        {
            refused(
                ErrorCode::NameInvalid,
                format!("the client's name for itself has more than {CLIENT_NAME_BYTES_MAX} bytes"),
            )
        }
        Ok(ClientMessage::Hello { name, .. }) => {
            let greeting = Greeting {
                version,
                nonce: None,
                acknowledge: false,
            };
            greet(session, greeting, &name, used)
        }
        Ok(ClientMessage::Greet {
            name,
            nonce,
            acknowledge,
            ..
        }) => {
            let greeting = Greeting {
                version,
                nonce: Some(nonce),
                acknowledge,
            };
            greet(session, greeting, &name, used)
        }
        Ok(ClientMessage::Resume { .. }) if !is_all => refused(
            ErrorCode::WrongState,
            "after Resume, wait for Resumed: only then it is known what to send",
        ),
        Ok(ClientMessage::Resume { token, received }) => {
            match session.request_resume(min..=max, token, received, used) {
                Ok(keeper) => HandshakeOutcome::Resuming(keeper),
                Err(Refusal::Banned { left_ms }) => refused(ErrorCode::Kicked, render::banned(left_ms)),
                Err(Refusal::Error(code)) => {
                    let text = match code {
                        ErrorCode::Replaced => "your session goes on on a newer connection",
                        ErrorCode::VersionUnsupported => "your session has another version than you speak",
                        ErrorCode::TokenUnknown => "no session has this token (any more)",
                        ErrorCode::Malformed => "more bytes were claimed received than were sent",
                        _ => "the server failed; nothing was changed",
                    };
                    refused(code, text)
                }
            }
        }
        Ok(_) => refused(ErrorCode::WrongState, "the first message is Hello or Resume"),
    }
}

fn greet(session: &mut Session<'_>, greeting: Greeting, name: &str, used: usize) -> HandshakeOutcome {
    let name = match names::player_name(session.state, name) {
        Ok(name) => name,
        Err(error) => {
            return refused(
                ErrorCode::NameInvalid,
                format!("the name cannot be used: {error}"),
            );
        }
    };
    match session.greet(greeting, name, used) {
        Ok(()) => HandshakeOutcome::Greeted,
        Err(Refusal::Banned { left_ms }) => refused(ErrorCode::Kicked, render::banned(left_ms)),
        Err(Refusal::Error(code @ (ErrorCode::NameTaken | ErrorCode::ShuttingDown))) => {
            greet_again(session, greeting, name, used, code)
        }
        Err(Refusal::Error(code @ ErrorCode::ServerFull)) => {
            refused(code, "the server has as many players as it can; try again later")
        }
        Err(Refusal::Error(code)) => refused(code, "the server failed; nothing was changed"),
    }
}

/// A greeting was refused with `code`. If it repeats one whose answer was lost, it is answered again.
fn greet_again(
    session: &mut Session<'_>,
    greeting: Greeting,
    name: Name,
    used: usize,
    code: ErrorCode,
) -> HandshakeOutcome {
    let nonce = greeting.nonce.unwrap_or(0);
    match session.request_repeated_greeting(name, nonce, used) {
        Ok(keeper) => HandshakeOutcome::Resuming(keeper),
        Err(ErrorCode::WrongState) => refused(
            ErrorCode::WrongState,
            "after a repeated greeting, wait for the answer: only then it is known what to send",
        ),
        Err(ErrorCode::Replaced) => refused(
            ErrorCode::Replaced,
            "you have greeted again on a newer connection",
        ),
        Err(_) if code == ErrorCode::ShuttingDown => {
            refused(code, "the server is about to stop and takes no new players")
        }
        Err(_) => refused(code, "somebody here has this name; choose another"),
    }
}

/// Anything but a preamble comes from a person at a terminal.
fn create_guest(session: &mut Session<'_>) -> HandshakeOutcome {
    let code = match session.create_guest() {
        Ok(()) => return HandshakeOutcome::Greeted,
        Err(code) => code,
    };
    let why = match code {
        ErrorCode::ServerFull => "the server has as many players as it can; try again later",
        ErrorCode::ShuttingDown => "the server is about to stop and takes in nobody new",
        _ => "the server failed; try again",
    };
    HandshakeOutcome::Refused(CloseReason::Line(Some(code), why.into()))
}

fn refused(code: ErrorCode, text: impl Into<String>) -> HandshakeOutcome {
    HandshakeOutcome::Refused(CloseReason::Error(code, text.into()))
}

/// The outcome of an attempt to handle the next frame.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameOutcome {
    /// A frame was handled.
    Handled,
    /// No whole frame has arrived, there is [no space](delivery::is_blocked_on_output) for its output, readers of the
    /// room have [fallen behind](delivery::must_wait_for_readers), or the player's input is
    /// [held](Session::holds_input).
    Wait,
    /// The connection is to be closed.
    Close {
        /// Whether the player leaves for good.
        leaves: bool,
        /// What the client is told.
        reason: CloseReason,
    },
}

/// Handles the next frame of the player's input, or the next line in text mode, if it is complete and its output has
/// space.
pub fn handle_next_frame(session: &mut Session<'_>) -> FrameOutcome {
    if session.holds_input() {
        if session.waits_for_confirm() {
            session.enter_confirms_ahead();
        }
        return FrameOutcome::Wait;
    }
    if session.is_text() {
        return super::text_dispatch::handle_next(session);
    }
    let body = match session.next_frame() {
        Ok(Some(body)) => body,
        Ok(None) => {
            session.reader_wait = None;
            return FrameOutcome::Wait;
        }
        Err(length) => {
            let text = format!("a frame of {length} bytes was announced; the limit is {FRAME_BYTES_MAX}");
            return close(ErrorCode::FrameTooLarge, text);
        }
    };
    match codec::decode::<ClientMessage>(&body) {
        Ok(message) if must_wait(session, &message) => {
            session.end_frame();
            FrameOutcome::Wait
        }
        Ok(message) if session.frame_is_blocked() => refuse(session, &message),
        Ok(message) => {
            let masked = masked(&message).zip(session.frame_place());
            let outcome = deliver_then_handle(session, message);
            if let Some((masked, place)) = masked {
                session.overwrite_frame(place, |frame| match masked.len() == frame.len() {
                    true => frame.copy_from_slice(&masked),
                    false => frame.fill(MASK),
                });
            }
            outcome
        }
        Err(error) => close(ErrorCode::Malformed, format!("a message is malformed: {error}")),
    }
}

/// Whether the message cannot be handled yet: there is [no space](delivery::is_blocked_on_output) for its reply, or
/// [readers](delivery::must_wait_for_readers) of the room have fallen behind.
fn must_wait(session: &mut Session<'_>, message: &ClientMessage) -> bool {
    // It needs no space, and may give some.
    if matches!(message, ClientMessage::Confirm { .. }) {
        return false;
    }
    if session.waits_for_confirm() {
        session.enter_confirms_ahead();
    }
    let fills_the_log = matches!(
        message,
        ClientMessage::Act { .. }
            | ClientMessage::Chat {
                scope: ChatScope::Room,
                ..
            }
    );
    if delivery::is_blocked_on_output(session) || delivery::lacks_space_for_reply(session) {
        // The wait for readers, if one follows, begins later.
        session.reader_wait = None;
        return true;
    }
    fills_the_log && delivery::must_wait_for_readers(session)
}

/// In place of each byte of a passcode.
pub(crate) const MASK: u8 = b'*';

/// The frame of a message with its passcode or invite code masked; `None` if it has none. It is as long as the
/// original, so that an operator who traces the player still reads whole frames.
fn masked(message: &ClientMessage) -> Option<Vec<u8>> {
    let may_have_secret = matches!(
        message,
        ClientMessage::JoinRoom { .. }
            | ClientMessage::Spectate { .. }
            | ClientMessage::CreateRoom { .. }
            | ClientMessage::Configure { .. }
            | ClientMessage::JoinByInvite { .. }
    );
    if !may_have_secret {
        return None;
    }
    let mut message = message.clone();
    let secret = match &mut message {
        ClientMessage::JoinRoom { passcode, .. } | ClientMessage::Spectate { passcode, .. } => {
            passcode.as_mut()
        }
        ClientMessage::CreateRoom { settings, .. } | ClientMessage::Configure { settings, .. } => {
            settings.passcode.as_mut()
        }
        ClientMessage::JoinByInvite { code, .. } => Some(code),
        _ => None,
    }?;
    *secret = char::from(MASK).to_string().repeat(secret.len());
    let mut frame = Vec::new();
    frame::append_frame(&message, &mut frame).ok()?;
    Some(frame)
}

/// Handles a message. Before the player leaves a room, the room's events up to now are delivered: afterwards they
/// could not be.
pub(crate) fn deliver_then_handle(session: &mut Session<'_>, message: ClientMessage) -> FrameOutcome {
    if !matches!(message, ClientMessage::Leave { .. } | ClientMessage::Goodbye) {
        return handle(session, message);
    }
    match delivery::catch_up(session) {
        Ok(false) if message != ClientMessage::Goodbye => {
            session.end_frame();
            FrameOutcome::Wait
        }
        // A client that says goodbye and does not read gives up the rest.
        Ok(_) => handle(session, message),
        Err(rejection) => {
            log::error!("cannot deliver the room's events: {rejection}");
            close(
                ErrorCode::InternalError,
                "the server failed; the session can be resumed",
            )
        }
    }
}

/// Ends the connection. After an error that no resume can mend the session is over, too, and its name is free.
fn close(code: ErrorCode, text: impl Into<String>) -> FrameOutcome {
    FrameOutcome::Close {
        leaves: !code.may_resume(),
        reason: CloseReason::Error(code, text.into()),
    }
}

fn handle(session: &mut Session<'_>, message: ClientMessage) -> FrameOutcome {
    let request = message.request();
    let kind = log::log_enabled!(log::Level::Debug).then(|| name_of(&message));
    if matches!(
        message,
        ClientMessage::ListRooms { .. } | ClientMessage::QuickMatch { .. }
    ) && let Err(too_soon) = listing::admit_search(session)
    {
        session.hold_input(too_soon);
        session.end_frame();
        return FrameOutcome::Wait;
    }
    session.to_acknowledge = request.filter(|_| session.dialect().acknowledges && !has_answer(&message));
    if let Some(request) = request
        && let Err(rejection) = charge(session, &message)
    {
        reject(session, request, rejection);
        session.end_frame();
        return FrameOutcome::Handled;
    }
    let result = match message {
        ClientMessage::Hello { .. } | ClientMessage::Greet { .. } | ClientMessage::Resume { .. } => {
            return close(ErrorCode::WrongState, "you have greeted already");
        }
        ClientMessage::Ignore { .. } if session.dialect().version < 2 => {
            return close(
                ErrorCode::Malformed,
                "a message is malformed: version 1 has no Ignore",
            );
        }
        ClientMessage::Ignore { player, ignore, .. } => ignoring::ignore(session, &player, ignore),
        ClientMessage::Goodbye => {
            return FrameOutcome::Close {
                leaves: true,
                reason: CloseReason::None,
            };
        }
        ClientMessage::Confirm { received } => match session.confirm(received) {
            Ok(confirmed) => confirmed,
            Err(sent) => {
                let text = format!("{received} bytes were confirmed, of {sent} that were sent");
                return close(ErrorCode::Malformed, text);
            }
        },
        ClientMessage::Ping { nonce } => session.pong(nonce),
        ClientMessage::ListRooms {
            request,
            filter,
            after,
        } => listing::list_rooms(session, request, &filter, after),
        ClientMessage::CreateRoom {
            request,
            game,
            name,
            settings,
        } => room_name(&name).and_then(|name| {
            let settings = &settings;
            join_leave::create_room(
                session,
                request,
                &NewRoom {
                    game: &game,
                    name: &name,
                    settings,
                },
            )
        }),
        ClientMessage::JoinRoom {
            request,
            room,
            passcode,
        } => join_leave::join_room(session, request, room, passcode.as_deref(), false),
        ClientMessage::Spectate {
            request,
            room,
            passcode,
        } => join_leave::join_room(session, request, room, passcode.as_deref(), true),
        ClientMessage::QuickMatch {
            request,
            game,
            options,
        } => listing::quick_match(session, request, &game, &options),
        ClientMessage::Leave { request } => join_leave::leave_room(session, request),
        ClientMessage::Look { request } => room_view::look(session, request),
        ClientMessage::Ready { ready, .. } => match_play::ready(session, ready),
        ClientMessage::Rematch { .. } => match_play::rematch(session),
        ClientMessage::Act { action, .. } => match_play::act(session, &action),
        ClientMessage::Chat { scope, text, .. } => chat(session, &scope, &text),
        ClientMessage::Configure { settings, .. } => settings::configure(session, &settings),
        ClientMessage::Kick { seat, name, .. } => ownership::kick_from_seat(session, seat, &name),
        ClientMessage::HandOver { seat, name, .. } => ownership::transfer_ownership(session, seat, &name),
        ClientMessage::Invite { request, renew } => invites::invite(session, request, renew),
        ClientMessage::JoinByInvite { request, code, watch } => {
            invites::join_by_invite(session, request, &code, watch)
        }
        ClientMessage::Reserve { player, .. } => reservations::reserve(session, &player),
    };
    if let Some(kind) = kind {
        // Neither its texts nor its codes: they may be secrets, or chat.
        match &result {
            Ok(()) => log::debug!("{kind}: done"),
            Err(rejection) => log::debug!("{kind}: rejected, {:?}", rejection.code),
        }
    }
    match (result, request) {
        (Ok(()), _) => {}
        (Err(rejection), Some(request)) => reject(session, request, rejection),
        // Confirm and Ping cannot be rejected.
        (Err(rejection), None) => {
            log::error!("a message without a request was rejected: {rejection}");
            return close(
                ErrorCode::InternalError,
                "the server failed; the session can be resumed",
            );
        }
    }
    session.end_frame();
    FrameOutcome::Handled
}

/// The name of a message, without what it says.
fn name_of(message: &ClientMessage) -> String {
    let shown = format!("{message:?}");
    let end = shown.find(|character: char| !character.is_ascii_alphanumeric());
    shown[..end.unwrap_or(shown.len())].to_owned()
}

/// Checks that the player may make this request now, and notes what it will cost.
fn charge(session: &mut Session<'_>, message: &ClientMessage) -> Result<(), Rejection> {
    // The account that makes the player wait for longest comes first, so that the player is told that wait.
    if costs_if_rejected(message) {
        session.charge_if_rejected()?;
    }
    let price = price_of(message);
    if price > 0 {
        session.charge(price)?;
    }
    Ok(())
}

/// The error for a frame that crashed every handler that executed it.
pub(crate) const REFUSED: &str = "what you asked for has ended every process that tried it; it was not done";

/// Refuses a frame that crashed every handler that executed it. It is consumed, so that it is not tried again after a
/// resume.
fn refuse(session: &mut Session<'_>, message: &ClientMessage) -> FrameOutcome {
    match message.request() {
        Some(request) => reject(session, request, Rejection::new(RejectCode::GameFailed, REFUSED)),
        None => session
            .consume_and_reply(None)
            .expect("consuming a frame fits its transaction"),
    }
    session.end_frame();
    close(ErrorCode::InternalError, REFUSED)
}

pub(crate) fn reject(session: &mut Session<'_>, request: u32, rejection: Rejection) {
    // No lock is held here: formatting a backtrace takes time.
    if let Some(fault) = &rejection.fault {
        fault.enter(session.state.memory);
        log::warn!(
            "the game's code failed in {}'s request: {fault}",
            session.name().as_str()
        );
    }
    let Rejection {
        code,
        text,
        retry_after_ms,
        ..
    } = rejection;
    // A request that came too soon keeps its price: it may have taken a lock, and the client makes it again.
    if retry_after_ms.is_none() {
        session.fail();
    }
    session.to_acknowledge = None;
    let reply = match retry_after_ms.filter(|_| session.dialect().version >= 2) {
        Some(retry_after_ms) => ServerMessage::RejectedTooFast {
            request,
            code,
            text,
            retry_after_ms,
        },
        None => ServerMessage::Rejected { request, code, text },
    };
    session
        .consume_and_reply(Some(&reply))
        .expect("a rejection fits its transaction");
}

/// Whether an accepted request has an answer of its own.
fn has_answer(message: &ClientMessage) -> bool {
    match message {
        ClientMessage::Ready { .. }
        | ClientMessage::Rematch { .. }
        | ClientMessage::Act { .. }
        | ClientMessage::Chat { .. }
        | ClientMessage::Configure { .. }
        | ClientMessage::Reserve { .. }
        | ClientMessage::Kick { .. }
        | ClientMessage::HandOver { .. }
        | ClientMessage::Ignore { .. } => false,
        ClientMessage::ListRooms { .. }
        | ClientMessage::CreateRoom { .. }
        | ClientMessage::JoinRoom { .. }
        | ClientMessage::QuickMatch { .. }
        | ClientMessage::Spectate { .. }
        | ClientMessage::JoinByInvite { .. }
        | ClientMessage::Leave { .. }
        | ClientMessage::Invite { .. }
        | ClientMessage::Look { .. } => true,
        ClientMessage::Hello { .. }
        | ClientMessage::Greet { .. }
        | ClientMessage::Resume { .. }
        | ClientMessage::Confirm { .. }
        | ClientMessage::Ping { .. }
        | ClientMessage::Goodbye => true,
    }
}

fn chat(session: &mut Session<'_>, scope: &ChatScope, said: &str) -> Result<(), Rejection> {
    let said = clean_line(said)?;
    match scope {
        ChatScope::Room => chat::chat_in_room(session, &said),
        ChatScope::Lobby => chat::chat_in_lobby(session, &said),
        ChatScope::Whisper { to } => chat::whisper(session, to, &said),
    }
}

fn room_name(name: &str) -> Result<String, Rejection> {
    text::clean_room_name(name)
        .map_err(|error| Rejection::new(RejectCode::RoomNameInvalid, error.to_string()))
}
