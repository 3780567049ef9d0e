//! The protocol of a server that echoes text: payloads are lines of hexadecimal digits.

use std::fmt::Write;

use forkade_protocol::{ClientMessage, RoomId};

use super::{PeerError, PeerSession, Queues, joined, relayed};

/// The server begins each answer with a prefix, which may occur anywhere in a line: an answer holds what one
/// read of the server returned. No hexadecimal digit is among these two characters.
const PREFIX_START: u8 = b'E';
const PREFIX_END: u8 = b' ';
const LINE_BYTES_MAX: usize = 64 * 1024;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Echo {
    queues: Queues,
    /// Digits of an incomplete line.
    digits: Vec<u8>,
    /// Inside the prefix of an answer.
    is_in_prefix: bool,
    /// The request to create the room.
    request: u32,
}

impl PeerSession for Echo {
    fn send(&mut self, message: &ClientMessage) -> Result<(), PeerError> {
        let output = &mut self.queues.output;
        match message {
            // Each connection is a room of its own. An empty line that comes back shows that the server's
            // process runs.
            ClientMessage::CreateRoom { request, .. } => {
                self.request = *request;
                output.extend_from_slice(b"\n");
            }
            ClientMessage::Act { action, .. } => {
                for byte in action {
                    write!(output, "{byte:02x}")
                        .map_err(|error| PeerError::UnexpectedAnswer(error.to_string()))?;
                }
                output.extend_from_slice(b"\n");
            }
            ClientMessage::Goodbye => output.extend_from_slice(b"quit\n"),
            ClientMessage::JoinRoom { .. } => {
                return Err(PeerError::Unsupported("a room with several members"));
            }
            _ => return Err(PeerError::Unsupported("this message")),
        }
        Ok(())
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        for byte in bytes {
            match *byte {
                PREFIX_END if self.is_in_prefix => self.is_in_prefix = false,
                _ if self.is_in_prefix => {}
                PREFIX_START => self.is_in_prefix = true,
                b'\n' if self.digits.is_empty() => {
                    let joined = joined(self.request, RoomId(0));
                    self.queues.messages.push_back(joined);
                }
                b'\n' => {
                    let payload = bytes_of(&self.digits)?;
                    self.digits.clear();
                    self.queues.messages.push_back(relayed(&payload)?);
                }
                digit if self.digits.len() < LINE_BYTES_MAX => self.digits.push(digit),
                _ => return Err(PeerError::UnexpectedAnswer("a line that is too long".to_owned())),
            }
        }
        Ok(())
    }

    fn queues(&mut self) -> &mut Queues {
        &mut self.queues
    }

    fn output(&self) -> &[u8] {
        &self.queues.output
    }
}

/// Decodes hexadecimal digits.
fn bytes_of(digits: &[u8]) -> Result<Vec<u8>, PeerError> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    bytes
        .filter(|_| rest.is_empty())
        .ok_or_else(|| PeerError::UnexpectedAnswer(String::from_utf8_lossy(digits).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forkade_protocol::ServerMessage;

    #[test]
    fn payloads_are_lines_that_return_intact_however_the_server_splits_them() {
        let mut echo = Echo::default();
        for action in [vec![0x0e, 0xc4], vec![0xff]] {
            echo.send(&ClientMessage::Act { request: 0, action })
                .expect("it is a line");
        }
        assert_eq!(&echo.queues().output[..], b"0ec4\nff\n");
        for piece in ["Ec", "ho: 0e", "Echo: c4\nf", "Echo:", " f\n"] {
            echo.receive(piece.as_bytes()).expect("it is hexadecimal");
        }
        let received: Vec<ServerMessage> = echo.queues().messages.drain(..).collect();
        let expected = [&[0x0e, 0xc4][..], &[0xff]].map(|payload| relayed(payload).expect("it is encoded"));
        assert_eq!(received, expected);
    }

    #[test]
    fn a_room_is_joined_when_the_server_answers() {
        let mut echo = Echo::default();
        echo.send(&crate::client_protocol::create_room(3, "relay", 0, 1))
            .expect("it is a line");
        assert!(echo.queues().messages.is_empty());
        echo.receive(b"Echo: \n").expect("an empty line");
        assert_eq!(echo.queues().messages.pop_front(), Some(joined(3, RoomId(0))));
    }

    #[test]
    fn a_line_that_is_no_payload_is_an_error() {
        for line in ["Echo: xy\n", "Echo: 123\n"] {
            assert!(Echo::default().receive(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_room_cannot_have_a_second_member() {
        let join = ClientMessage::JoinRoom {
            request: 0,
            room: RoomId(1),
            passcode: None,
        };
        assert!(matches!(
            Echo::default().send(&join),
            Err(PeerError::Unsupported(_))
        ));
    }
}
