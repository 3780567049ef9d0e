//! Text mode: a player at a telnet client or netcat instead of a program. Pure: bytes in, lines, commands and words out.
//!
//! A text player is a player like any other, in the same rooms; only the connection speaks otherwise:
//!
//! - **In.** What arrives lies in the player's input ring, and [`next_token`] finds the next thing in it: a line, or something for telnet.
//!   Each is consumed by the transaction that deals with it, exactly as a frame is. Half a line stays where it is, and whoever
//!   looks again, this process or its successor, finds the same half: so nobody sees a takeover while somebody types. What the
//!   bytes consumed so far mean for the next one is a [`InputState`], in the player's record, moved by the same transaction.
//! - **Out.** What a program would be sent as frames is put into [words] at the moment at which it becomes output.
//!
//! There is no token to show, so a text player cannot come back: the end of the connection is the end of the player.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::{
    TELNET_REPLY_BATCH_BYTES, TEXT_LINE_BYTES_MAX, TEXT_LINE_RAW_BYTES_MAX, TEXT_SKIP_BYTES_MIN,
};
use crate::telnet;
use crate::telnet::{Event, Parser, RefusedOptions};

/// What the input that was consumed means for the byte behind it, as plain data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct InputState {
    telnet: telnet::ParserState,
    /// Nonzero within a line that was too long: it is thrown away up to its end.
    swallowing: u32,
}

/// What is next in a text player's input. Ends are counted in bytes from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// Nothing before more has arrived.
    Incomplete,
    /// Commands of telnet's are to be answered, wherever they stand; nothing is consumed.
    TelnetReply {
        /// The client is to be sent this.
        answers: Vec<u8>,
        /// How far the answers go.
        up_to: usize,
        /// What is refused from now on.
        refused: RefusedOptions,
    },
    /// A line.
    Line {
        /// What was typed. Any bytes but CR, LF and NUL.
        line: Vec<u8>,
        /// Where it ends.
        end: usize,
        /// What its bytes mean for those behind.
        state: InputState,
    },
    /// A line has become too long. The rest of it will be skipped.
    LineTooLong {
        /// Up to where nothing of it is needed.
        end: usize,
        /// What these bytes mean for those behind.
        state: InputState,
    },
    /// There is nothing in these bytes that anybody needs; their space is.
    Skip {
        /// Where they end.
        end: usize,
        /// What they mean for those behind.
        state: InputState,
    },
}

/// Looks for the next thing in the input that has arrived, which begins at `place`. Telnet's commands in the first `answered` bytes
/// were answered, and what was `refused` so far is not refused again.
///
/// What is found does not depend on how much more has arrived behind it.
pub fn next_token(input: &[u8], state: InputState, refused: RefusedOptions, answered: usize) -> Token {
    let mut filter = Parser {
        state: state.telnet,
        refused,
    };
    let mut swallowing = state.swallowing != 0;
    let (mut line, mut answers) = (Vec::new(), Vec::new());
    // Where the line begins, and what is meant by the bytes before.
    let mut beginning = (0, state);
    let mut looked_at = 0;
    for (end, byte) in (1..).zip(input) {
        let mut found = None;
        looked_at = end;
        let typed = filter.push(*byte);
        let here = |swallowing: bool| InputState {
            telnet: filter.state,
            swallowing: u32::from(swallowing),
        };
        match typed {
            Some(Event::Reply(answer)) if end > answered => {
                answers.extend(answer);
                if answers.len() >= TELNET_REPLY_BATCH_BYTES {
                    break;
                }
            }
            Some(Event::Enter) if swallowing => {
                swallowing = false;
                found = Some(Token::Skip {
                    end,
                    state: here(false),
                });
            }
            Some(Event::Enter) => {
                found = Some(Token::Line {
                    line: std::mem::take(&mut line),
                    end,
                    state: here(false),
                });
            }
            Some(Event::EraseLine) => {
                line.clear();
                swallowing = false;
            }
            Some(Event::EraseCharacter) => telnet::erase_character(&mut line),
            Some(Event::Byte(byte)) if !swallowing => line.push(byte),
            Some(Event::Byte(_) | Event::Reply(_)) | None => {}
        }
        if found.is_none() && line.is_empty() {
            beginning = (end, here(swallowing));
        } else if line.len() > TEXT_LINE_BYTES_MAX || end - beginning.0 > TEXT_LINE_RAW_BYTES_MAX {
            let state = here(true);
            found = found.or(Some(Token::LineTooLong { end, state }));
        }
        match found {
            None => {}
            Some(_) if !answers.is_empty() => break,
            Some(found) => return found,
        }
    }
    let (before, state) = beginning;
    if !answers.is_empty() {
        return Token::TelnetReply {
            answers,
            up_to: looked_at,
            refused: filter.refused,
        };
    }
    if before >= TEXT_SKIP_BYTES_MIN || before > 0 && swallowing {
        return Token::Skip { end: before, state };
    }
    Token::Incomplete
}

#[cfg(test)]
mod tests;
