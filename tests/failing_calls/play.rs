//! The activity while calls fail: visitors that connect, play, chat and leave, and a control pair that must
//! notice nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use forkade_protocol::client::{Client, ClientError, ClientOptions, NewRoom};
use forkade_protocol::{ChatScope, ClientMessage, RoomEvent, RoomSettings, ServerMessage, codec};

use crate::subject::Subject;

/// Time limit for any step. (The server's own longest wait is five seconds, between two attempts to start a
/// role.)
pub(crate) const LIMIT: Duration = Duration::from_secs(12);

/// Attempts at a visit that the server refuses with a typed error.
const ATTEMPTS_MAX: u32 = 5;

fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: LIMIT,
        reply_timeout: LIMIT,
        reconnect_timeout: LIMIT,
        reconnect_pause_max: Duration::from_millis(50),
        ..ClientOptions::default()
    }
}

/// How a visit failed.
enum Trouble {
    /// The server refused a request with a typed error: the next attempt must succeed.
    Refused(String),
    /// The server broke a promise.
    Broken(String),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        let text = format!("{error:?}");
        if error.error_code().is_some() || error.reject_code().is_some() {
            Self::Refused(text)
        } else {
            Self::Broken(text)
        }
    }
}

/// Two players connect, play, chat, lose a connection and leave. Returns how often they were refused before.
pub(crate) fn visit(subject: &Subject, number: u32) -> Result<u32, String> {
    let mut refusals = Vec::new();
    while refusals.len() < ATTEMPTS_MAX as usize {
        let name = format!("{number} {}", refusals.len());
        match try_to_visit(subject, &name) {
            Ok(()) => return Ok(u32::try_from(refusals.len()).expect("a few")),
            Err(Trouble::Refused(why)) => refusals.push(why),
            Err(Trouble::Broken(what)) => return Err(format!("a visitor met with {what}")),
        }
    }
    Err(format!("a visitor was refused again and again: {refusals:?}"))
}

fn try_to_visit(subject: &Subject, name: &str) -> Result<(), Trouble> {
    let mut ann = Client::connect(subject.game, format!("ann {name}"), options())?;
    let played = play(subject, name, &mut ann);
    // Refused or not, nothing of hers may be left.
    ann.goodbye()?;
    played
}

fn play(subject: &Subject, name: &str, ann: &mut Client) -> Result<(), Trouble> {
    let settings = RoomSettings {
        seats: 2,
        ..RoomSettings::default()
    };
    let room = ann
        .create_room(NewRoom {
            settings,
            ..NewRoom::new("relay", name)
        })?
        .room;
    let mut bea = Client::connect(subject.game, format!("bea {name}"), options())?;
    bea.join_room(room, None)?;
    send_and_receive(ann, &mut bea, 1)?;
    ann.chat(ChatScope::Room, "hello")?;
    bea.disconnect_abruptly();
    send_and_receive(ann, &mut bea, 2)?;
    send_and_receive(&mut bea, ann, 3)?;
    // The session is taken from a living connection, whose client does not resume.
    let token = bea.token();
    let for_good = ClientOptions {
        reconnect_timeout: Duration::ZERO,
        ..options()
    };
    let mut displaced = Client::resume(subject.game, token, for_good)?;
    drop(bea);
    let mut bea = Client::resume(subject.game, token, options())?;
    // With the token alone, the client has received nothing: earlier messages may be repeated.
    let is_picture = |message: &ServerMessage| matches!(message, ServerMessage::Resync { .. });
    if bea.receive_where(LIMIT, is_picture)?.is_none() {
        return Err(Trouble::Broken("silence instead of the picture".to_owned()));
    }
    send_and_receive(ann, &mut bea, 4)?;
    let mut end = displaced.receive(LIMIT);
    while let Ok(Some(_)) = end {
        end = displaced.receive(LIMIT);
    }
    if end.is_ok() {
        return Err(Trouble::Broken(
            "the replaced connection gets nothing more".to_owned(),
        ));
    }
    bea.leave()?;
    bea.goodbye()?;
    Ok(())
}

/// One client sends a number, and both receive it: as an event, or in a `Resync` of the state behind that event.
fn send_and_receive(speaker: &mut Client, listener: &mut Client, word: u64) -> Result<(), Trouble> {
    let action = word.to_le_bytes().to_vec();
    speaker.send(&ClientMessage::Act { request: 0, action })?;
    let number = receive_word(speaker, word, u64::MAX)?;
    receive_word(listener, word, number).map(drop)
}

/// Receives up to the event with this word, or up to a `Resync` that has the event `number`. Returns the number of the
/// event.
fn receive_word(player: &mut Client, word: u64, number: u64) -> Result<u64, Trouble> {
    loop {
        let message = player.receive(LIMIT)?;
        match &message {
            None => return Err(Trouble::Broken(format!("silence instead of word {word}"))),
            Some(ServerMessage::Resync { snapshot: Some(it) }) if it.event >= number => return Ok(number),
            Some(message) => match relay_event(message) {
                None => {}
                Some((number, _, heard)) if heard == word => return Ok(number),
                Some(other) => return Err(Trouble::Broken(format!("{other:?} instead of word {word}"))),
            },
        }
    }
}

/// The event's number, the sender's seat and the word of a relay event.
fn relay_event(message: &ServerMessage) -> Option<(u64, u8, u64)> {
    let ServerMessage::Event {
        number,
        event: RoomEvent::Game { data },
    } = message
    else {
        return None;
    };
    let (seat, payload): (u8, Vec<u8>) = codec::decode(data).expect("an event of the relay");
    let word = u64::from_le_bytes(payload.try_into().expect("eight bytes were sent"));
    Some((*number, seat, word))
}

/// Two players in a room of their own that exchange messages and lose nothing.
pub(crate) struct ControlPair {
    players: [Client; 2],
    round: u64,
}

impl ControlPair {
    pub(crate) fn enter(subject: &Subject) -> Result<Self, ClientError> {
        let enter = |name: &str| Client::connect(subject.game, name, options());
        let mut players = [enter("control one")?, enter("control two")?];
        let settings = RoomSettings {
            seats: 2,
            ..RoomSettings::default()
        };
        let room = NewRoom {
            settings,
            ..NewRoom::new("relay", "apart")
        };
        let room = players[0].create_room(room)?.room;
        players[1].join_room(room, None)?;
        Ok(Self { players, round: 0 })
    }

    /// Each sends a number, and both receive both, once and in order.
    pub(crate) fn talk(&mut self) -> Result<(), String> {
        self.round += 1;
        let [one, two] = &mut self.players;
        send_and_receive(one, two, 2 * self.round).map_err(describe)?;
        send_and_receive(two, one, 2 * self.round + 1).map_err(describe)?;
        let gaps = |client: &Client| client.counters().gaps + client.counters().resyncs;
        match self.players.iter().map(gaps).sum::<u64>() {
            0 => Ok(()),
            gaps => Err(format!("the control pair has lost something: {gaps} gaps")),
        }
    }

    /// Number of times that they resumed.
    pub(crate) fn resumes(&self) -> u64 {
        self.players.iter().map(|player| player.counters().resumes).sum()
    }

    pub(crate) fn leave(self) -> Result<(), ClientError> {
        self.players.into_iter().try_for_each(Client::goodbye)
    }
}

fn describe(trouble: Trouble) -> String {
    match trouble {
        Trouble::Refused(what) | Trouble::Broken(what) => format!("the control pair met with {what}"),
    }
}

/// An operator repeats a query until it is answered.
pub(crate) fn question(subject: &Subject) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS_MAX {
        match ask(subject) {
            Ok(reply) if reply.contains("OK") => return Ok(()),
            Ok(reply) => last = reply,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err("an operator got no answer, and no end".to_owned());
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("an operator got no answer again and again: {last}"))
}

fn ask(subject: &Subject) -> std::io::Result<String> {
    let mut console = TcpStream::connect(subject.console)?;
    console.set_read_timeout(Some(LIMIT))?;
    console.write_all(b"status\n")?;
    let mut reply = String::new();
    for line in BufReader::new(console).lines() {
        let line = line?;
        reply.push_str(&line);
        if line.starts_with("OK") || line.starts_with("ERR") {
            break;
        }
    }
    Ok(reply)
}
