//! Text mode: a player at a telnet client or netcat instead of a program. Pure: bytes in, lines, commands and words out.
//!
//! A text player is a player like any other, in the same rooms; only the connection speaks otherwise:
//!
//! - **In.** What arrives lies in the player's input ring, and [`look`] finds the next thing in it: a line, or something for telnet.
//!   Each is consumed by the transaction that deals with it, exactly as a frame is. Half a line stays where it is, and whoever
//!   looks again, this process or its successor, finds the same half: so nobody sees a takeover while somebody types. What the
//!   bytes consumed so far mean for the next one is a [`Place`], in the player's record, moved by the same transaction.
//! - **Out.** What a program would be sent as frames is put into [words] at the moment at which it becomes output.
//!
//! There is no token to show, so a text player cannot come back: the end of the connection is the end of the player.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::{TEXT_ANSWERS_BYTES, TEXT_LINE_BYTES_MAX, TEXT_LINE_RAW_BYTES_MAX, TEXT_SKIP_FROM_BYTES};
use crate::telnet;
use crate::telnet::{Filter, Refused, Typed};

/// What the input that was consumed means for the byte behind it, as plain data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Place {
    telnet: telnet::Place,
    /// Nonzero within a line that was too long: it is thrown away up to its end.
    swallowing: u32,
}

/// What is next in a text player's input. Ends are counted in bytes from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing before more has arrived.
    Nothing,
    /// Commands of telnet's are to be answered, wherever they stand; nothing is consumed.
    Answers {
        /// The client is to be sent this.
        answers: Vec<u8>,
        /// How far the answers go.
        up_to: usize,
        /// What is refused from now on.
        refused: Refused,
    },
    /// A line.
    Line {
        /// What was typed. Any bytes but CR, LF and NUL.
        line: Vec<u8>,
        /// Where it ends.
        end: usize,
        /// What its bytes mean for those behind.
        place: Place,
    },
    /// A line has become too long. The rest of it will be skipped.
    TooLong {
        /// Up to where nothing of it is needed.
        end: usize,
        /// What these bytes mean for those behind.
        place: Place,
    },
    /// There is nothing in these bytes that anybody needs; their space is.
    Skip {
        /// Where they end.
        end: usize,
        /// What they mean for those behind.
        place: Place,
    },
}

/// Looks for the next thing in the input that has arrived, which begins at `place`. Telnet's commands in the first `answered` bytes
/// were answered, and what was `refused` so far is not refused again.
///
/// What is found does not depend on how much more has arrived behind it.
pub fn look(input: &[u8], place: Place, refused: Refused, answered: usize) -> Found {
    let mut filter = Filter {
        place: place.telnet,
        refused,
    };
    let mut swallowing = place.swallowing != 0;
    let (mut line, mut answers) = (Vec::new(), Vec::new());
    // Where the line begins, and what is meant by the bytes before.
    let mut beginning = (0, place);
    let mut looked_at = 0;
    for (end, byte) in (1..).zip(input) {
        let mut found = None;
        looked_at = end;
        let typed = filter.push(*byte);
        let here = |swallowing: bool| Place {
            telnet: filter.place,
            swallowing: u32::from(swallowing),
        };
        match typed {
            Some(Typed::Answer(answer)) if end > answered => {
                answers.extend(answer);
                if answers.len() >= TEXT_ANSWERS_BYTES {
                    break;
                }
            }
            Some(Typed::Enter) if swallowing => {
                swallowing = false;
                found = Some(Found::Skip {
                    end,
                    place: here(false),
                });
            }
            Some(Typed::Enter) => {
                found = Some(Found::Line {
                    line: std::mem::take(&mut line),
                    end,
                    place: here(false),
                });
            }
            Some(Typed::EraseLine) => {
                line.clear();
                swallowing = false;
            }
            Some(Typed::EraseCharacter) => telnet::erase_character(&mut line),
            Some(Typed::Byte(byte)) if !swallowing => line.push(byte),
            Some(Typed::Byte(_) | Typed::Answer(_)) | None => {}
        }
        if found.is_none() && line.is_empty() {
            beginning = (end, here(swallowing));
        } else if line.len() > TEXT_LINE_BYTES_MAX || end - beginning.0 > TEXT_LINE_RAW_BYTES_MAX {
            let place = here(true);
            found = found.or(Some(Found::TooLong { end, place }));
        }
        match found {
            None => {}
            Some(_) if !answers.is_empty() => break,
            Some(found) => return found,
        }
    }
    let (before, place) = beginning;
    if !answers.is_empty() {
        return Found::Answers {
            answers,
            up_to: looked_at,
            refused: filter.refused,
        };
    }
    if before >= TEXT_SKIP_FROM_BYTES || before > 0 && swallowing {
        return Found::Skip { end: before, place };
    }
    Found::Nothing
}

#[cfg(test)]
mod tests;
