//! Formats messages and events as one line of text each, for `watch` and `trace`.
//!
//! The text is derived from the message's serialisation, so new messages and fields need no code here. Secrets are
//! recognised by the field's name and left out. Everything is escaped, and a line's length is bounded.

use std::fmt::Write as _;

use forkade_protocol::{ClientMessage, RoomEvent, RoomId, ServerMessage, codec};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::limits::CONSOLE_DESCRIPTION_CHARACTERS_MAX;
use forkade_text::escape::Escaped;
use forkade_text::render::room_number;

/// Replaces a secret.
pub(crate) const SECRET: &str = "(secret)";

/// Names of fields that are never shown.
const SECRET_FIELDS: [&str; 3] = ["passcode", "token", "code"];

/// Messages whose `code` is not a secret but the reason of a failure.
const VARIANTS_WITH_PUBLIC_CODE: [&str; 2] = ["Error", "Rejected"];

/// Fields that contain a game's own encoding.
const BYTE_FIELDS: [&str; 4] = ["data", "view", "action", "options"];

/// Most bytes that are shown of such a field.
const BYTES_SHOWN_MAX: usize = 32;

/// A message from a client; `body` is the body of a complete frame.
pub(crate) fn client_frame(body: &[u8]) -> String {
    match codec::decode::<ClientMessage>(body) {
        Ok(message) => format_message(&message),
        Err(error) => format_undecodable(body, &error),
    }
}

/// A message to a client; `body` is the body of a complete frame.
pub(crate) fn server_frame(body: &[u8]) -> String {
    match codec::decode::<ServerMessage>(body) {
        Ok(message) => format_message(&message),
        Err(error) => format_undecodable(body, &error),
    }
}

/// An event of a room.
pub(crate) fn event(event: &RoomEvent) -> String {
    format_message(event)
}

/// Text of a player in text mode. Bytes that are not UTF-8 are shown as `\xNN`.
pub(crate) fn typed(bytes: &[u8]) -> String {
    let mut line = String::new();
    for chunk in bytes.utf8_chunks() {
        line.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    escape_and_cut(&line)
}

fn format_undecodable(body: &[u8], error: &codec::CodecError) -> String {
    escape_and_cut(&format!("no message ({error}): {}", format_bytes(body)))
}

fn format_message(message: &impl Serialize) -> String {
    let value = match serde_json::to_value(message) {
        Ok(value) => value,
        Err(error) => return escape_and_cut(&format!("cannot be shown: {error}")),
    };
    let mut line = String::new();
    match &value {
        // A variant with fields is serialised as an object with one entry.
        Value::Object(variant) if variant.len() == 1 => {
            for (name, fields) in variant {
                line.push_str(name);
                let code_is_public = VARIANTS_WITH_PUBLIC_CODE.contains(&name.as_str());
                if let Value::Object(fields) = fields {
                    write_fields(&mut line, fields, code_is_public, " ");
                } else {
                    line.push(' ');
                    write_value(&mut line, fields, code_is_public);
                }
            }
        }
        Value::String(name) => line.push_str(name),
        other => write_value(&mut line, other, false),
    }
    escape_and_cut(&line)
}

fn write_fields(line: &mut String, fields: &Map<String, Value>, code_is_public: bool, before: &str) {
    // Identifying fields come first, long ones last.
    const FIRST: [&str; 3] = ["request", "number", "room"];
    let rank = |key: &str, value: &Value| match FIRST.iter().position(|first| *first == key) {
        Some(place) => place,
        None if value.is_object() || value.is_array() => usize::MAX,
        None => FIRST.len(),
    };
    let mut ordered: Vec<_> = fields.iter().collect();
    ordered.sort_by_key(|(key, value)| rank(key, value));
    for (number, (key, value)) in ordered.into_iter().enumerate() {
        if number > 0 || before == " " {
            line.push(' ');
        }
        let _ = write!(line, "{key}=");
        let is_secret = SECRET_FIELDS.contains(&key.as_str()) && !(code_is_public && key == "code");
        // The presence of a passcode is not a secret.
        let is_plain = value.is_null() || value.is_boolean();
        if is_secret && !is_plain {
            line.push_str(SECRET);
        } else if let (true, Some(bytes)) = (BYTE_FIELDS.contains(&key.as_str()), as_bytes(value)) {
            line.push_str(&format_bytes(&bytes));
        } else if let ("room", Some(id)) = (key.as_str(), value.as_u64()) {
            let _ = write!(line, "{}", room_number(RoomId(id)));
        } else {
            write_value(line, value, code_is_public);
        }
    }
}

fn write_value(line: &mut String, value: &Value, code_is_public: bool) {
    match value {
        Value::Null => line.push('-'),
        Value::String(text) => {
            let _ = write!(line, "{text:?}");
        }
        Value::Array(values) => {
            line.push('[');
            for (number, value) in values.iter().enumerate() {
                if number > 0 {
                    line.push_str(", ");
                }
                write_value(line, value, code_is_public);
            }
            line.push(']');
        }
        Value::Object(fields) => {
            line.push('(');
            write_fields(line, fields, code_is_public, "");
            line.push(')');
        }
        other => {
            let _ = write!(line, "{other}");
        }
    }
}

fn as_bytes(value: &Value) -> Option<Vec<u8>> {
    let byte = |value: &Value| value.as_u64().and_then(|number| u8::try_from(number).ok());
    value.as_array()?.iter().map(byte).collect()
}

fn format_bytes(bytes: &[u8]) -> String {
    let mut shown = format!("{} bytes", bytes.len());
    if !bytes.is_empty() {
        shown.push(' ');
    }
    for byte in bytes.iter().take(BYTES_SHOWN_MAX) {
        let _ = write!(shown, "{byte:02x}");
    }
    if bytes.len() > BYTES_SHOWN_MAX {
        shown.push('…');
    }
    shown
}

/// Escapes the text, and cuts it if it is too long.
fn escape_and_cut(text: &str) -> String {
    // Cut before escaping, which never makes a text shorter.
    let cut = text.char_indices().nth(CONSOLE_DESCRIPTION_CHARACTERS_MAX);
    let mut shown = Escaped(&text[..cut.map_or(text.len(), |(at, _)| at)]).to_string();
    if cut.is_some() {
        shown.push_str("… [cut]");
    }
    shown
}

#[cfg(test)]
mod tests {
    use forkade_protocol::{
        ChatScope, ErrorCode, GameInfo, Limits, Outcome, PlayerId, RejectCode, RoomSettings, Token,
    };
    use proptest::prelude::*;

    use super::*;

    fn client(message: &ClientMessage) -> String {
        client_frame(&codec::encode(message).expect("it can be encoded"))
    }

    fn server(message: &ServerMessage) -> String {
        server_frame(&codec::encode(message).expect("it can be encoded"))
    }

    #[test]
    fn messages_are_shown_with_their_names_and_fields() {
        assert_eq!(client(&ClientMessage::Goodbye), "Goodbye");
        assert_eq!(client(&ClientMessage::Ping { nonce: 7 }), "Ping nonce=7");
        let act = ClientMessage::Act {
            request: 3,
            action: vec![4, 255],
        };
        assert_eq!(client(&act), "Act request=3 action=2 bytes 04ff");
        let whisper = ClientMessage::Chat {
            request: 4,
            scope: ChatScope::Whisper { to: "Bob".into() },
            text: "a \"b\"".into(),
        };
        assert_eq!(
            client(&whisper),
            r#"Chat request=4 text="a \"b\"" scope=(Whisper=(to="Bob"))"#
        );
        let rejected = ServerMessage::Rejected {
            request: 3,
            code: RejectCode::RoomFull,
            text: "full".into(),
        };
        assert_eq!(
            server(&rejected),
            r#"Rejected request=3 code="RoomFull" text="full""#
        );
        let finished = RoomEvent::Finished {
            outcome: Outcome::Won { seats: vec![1] },
        };
        assert_eq!(event(&finished), "Finished outcome=(Won=(seats=[1]))");
        assert!(
            client(&ClientMessage::Act {
                request: 1,
                action: vec![1; 3000]
            })
            .len()
                < 120
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let passcode = || Some("open sesame".to_owned());
        let (request, room, code) = (1, RoomId(5), "ABCD-EFGH-JKLM".to_owned());
        let settings = RoomSettings {
            passcode: passcode(),
            ..RoomSettings::default()
        };
        let name = "den".to_owned();
        let token = Token(*b"sesame, open now");
        let said = [
            ClientMessage::CreateRoom {
                request,
                game: "relay".into(),
                name,
                settings: settings.clone(),
            },
            ClientMessage::Configure { request, settings },
            ClientMessage::JoinRoom {
                request,
                room,
                passcode: passcode(),
            },
            ClientMessage::Spectate {
                request,
                room,
                passcode: passcode(),
            },
            ClientMessage::JoinByInvite {
                request,
                code: code.clone(),
                watch: false,
            },
            ClientMessage::Resume { token, received: 0 },
        ]
        .map(|message| client(&message));
        let limits = Limits {
            frame_bytes_max: 1,
            name_bytes_max: 1,
            chat_bytes_max: 1,
            confirm_every_bytes: 1,
            heartbeat_timeout_ms: 1,
            seat_grace_ms: 1,
        };
        let welcome = ServerMessage::Welcome {
            version: 1,
            token,
            player: PlayerId(1),
            name: "Ann".into(),
            limits,
            games: Vec::<GameInfo>::new(),
        };
        let invited = ServerMessage::Invited {
            room,
            game: "relay".into(),
            name: "den".into(),
            from: "Ann".into(),
            code: code.clone(),
            seconds: 1,
        };
        let told =
            [welcome, invited, ServerMessage::Invitation { request, code }].map(|message| server(&message));
        for line in said.iter().chain(&told) {
            assert!(line.contains("(secret)"), "{line}");
            for secret in ["sesame", "ABCD", "115, 101", "736573"] {
                assert!(!line.contains(secret), "{line}");
            }
        }
        let error = ServerMessage::Error {
            code: ErrorCode::Kicked,
            text: "out".into(),
        };
        assert_eq!(server(&error), r#"Error code="Kicked" text="out""#);
    }

    proptest! {
        #[test]
        fn any_bytes_are_shown_as_one_line_of_visible_text(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            text in "\\PC{0,50}[\u{0}-\u{1f}\u{7f}\u{202e}\u{2028}]{0,9}",
        ) {
            let chat = event(&RoomEvent::Chat { from: text.clone(), text });
            for line in [client_frame(&body), server_frame(&body), typed(&body), chat] {
                let is_raw = |character: char| character.is_control() || "\u{202e}\u{2028}".contains(character);
                prop_assert!(!line.contains(is_raw));
                prop_assert!(line.chars().count() <= 9 * CONSOLE_DESCRIPTION_CHARACTERS_MAX);
            }
        }
    }
}
