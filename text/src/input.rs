//! Text mode's input: a player uses telnet or netcat instead of a client program. Pure: bytes in, tokens out.
//!
//! A text player is a player like any other, in the same rooms. Only the bytes on the connection differ:
//!
//! - **In.** Bytes that arrive lie in the player's input ring. [`next_token`] finds the next thing in them: a line, or
//!   something for telnet. The transaction that handles a token consumes it, as it would consume a frame. An incomplete
//!   line stays in the ring, so a takeover in the middle of a line loses nothing: the successor finds the same bytes.
//!   The [`InputState`] in the player's record says what the consumed bytes mean for the next one; the same transaction
//!   updates it.
//! - **Out.** A message that a client program would receive as a frame is [rendered](crate::render) when it enters the
//!   output ring.
//!
//! A text player has no token to show, but a word to type (`resume WORD`). It cannot count what it has received, so it
//! sees the room anew. When the connection ends, a player without a seat leaves.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::{
    TELNET_REPLY_BATCH_BYTES, TEXT_LINE_BYTES_MAX, TEXT_LINE_RAW_BYTES_MAX, TEXT_SKIP_BYTES_MIN,
};
use crate::render;
use crate::telnet::options::RefusedOptions;
use crate::telnet::{self, Event, Parser};

/// What the consumed input means for the next byte, as plain data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct InputState {
    telnet: telnet::ParserState,
    /// Nonzero within a line that is too long: its bytes are discarded up to its end.
    discarding: u32,
}

/// The next thing in a text player's input. Ends are offsets in bytes from the beginning of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// Nothing is complete yet.
    Incomplete,
    /// Telnet's commands need replies, wherever in the input they stand. Nothing is consumed.
    TelnetReply {
        /// The bytes to send.
        replies: Vec<u8>,
        /// The offset up to which commands are answered by them.
        up_to: usize,
        /// All options refused so far, these included.
        refused: RefusedOptions,
    },
    /// A line.
    Line {
        /// What was typed: any bytes but CR, LF and NUL.
        line: Vec<u8>,
        /// Where it ends.
        end: usize,
        /// The state behind it.
        state: InputState,
    },
    /// A line is too long. The rest of it will be skipped.
    LineTooLong {
        /// Up to where its bytes can be discarded.
        end: usize,
        /// The state behind them.
        state: InputState,
    },
    /// These bytes mean nothing, but they take space in the ring.
    Skip {
        /// Where they end.
        end: usize,
        /// The state behind them.
        state: InputState,
    },
}

/// Finds the next token in `input`, which begins in `state`. Telnet's commands in the first `answered` bytes have been
/// answered; options in `refused` have been refused.
///
/// The token does not depend on the bytes behind it.
pub fn next_token(input: &[u8], state: InputState, refused: RefusedOptions, answered: usize) -> Token {
    let mut parser = Parser { state: state.telnet };
    let mut refused = refused;
    let mut discarding = state.discarding != 0;
    let (mut line, mut replies) = (Vec::new(), Vec::new());
    // The last offset at which the line was empty, and the state there.
    let mut line_start = (0, state);
    let mut parsed = 0;
    for (end, byte) in (1..).zip(input) {
        let mut token = None;
        parsed = end;
        let event = parser.push(*byte);
        let state_with = |discarding: bool| InputState {
            telnet: parser.state,
            discarding: u32::from(discarding),
        };
        match event {
            Some(Event::Option(verb, option)) => {
                let reply = refused.refuse(verb, option);
                replies.extend(reply.filter(|_| end > answered).into_iter().flatten());
                if replies.len() >= TELNET_REPLY_BATCH_BYTES {
                    break;
                }
            }
            Some(Event::Enter) => {
                let state = state_with(false);
                token = Some(match std::mem::take(&mut discarding) {
                    true => Token::Skip { end, state },
                    false => Token::Line {
                        line: std::mem::take(&mut line),
                        end,
                        state,
                    },
                });
            }
            Some(Event::AreYouThere) if end > answered => {
                replies.extend_from_slice(telnet::I_AM_HERE);
                replies.extend_from_slice(render::PROMPT.as_bytes());
                if replies.len() >= TELNET_REPLY_BATCH_BYTES {
                    break;
                }
            }
            Some(Event::EraseLine | Event::Interrupt) => {
                line.clear();
                discarding = false;
            }
            Some(Event::EraseCharacter) => telnet::erase_character(&mut line),
            Some(Event::Byte(byte)) if !discarding => line.push(byte),
            Some(
                Event::Byte(_) | Event::AreYouThere | Event::SubnegotiationByte(_) | Event::SubnegotiationEnd,
            )
            | None => {}
        }
        if token.is_none() && line.is_empty() {
            line_start = (end, state_with(discarding));
        } else if line.len() > TEXT_LINE_BYTES_MAX || end - line_start.0 > TEXT_LINE_RAW_BYTES_MAX {
            let state = state_with(true);
            token = token.or(Some(Token::LineTooLong { end, state }));
        }
        match token {
            None => {}
            // The replies go out first; the token is found again then.
            Some(_) if !replies.is_empty() => break,
            Some(token) => return token,
        }
    }
    if !replies.is_empty() {
        return Token::TelnetReply {
            replies,
            up_to: parsed,
            refused,
        };
    }
    let (end, state) = line_start;
    if end >= TEXT_SKIP_BYTES_MIN || end > 0 && discarding {
        return Token::Skip { end, state };
    }
    Token::Incomplete
}

#[cfg(test)]
mod tests;
