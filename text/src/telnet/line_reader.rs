//! Lines from what a telnet client, netcat or a script sends.

use crate::telnet::Event;

/// A line that has ended, or that is too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line without its end. It has any bytes but CR, LF and NUL.
    Complete(Vec<u8>),
    /// The line has become too long. It is discarded, and so is the rest of it.
    TooLong,
}

/// Assembles lines from the events of a [`Parser`](crate::telnet::Parser).
#[derive(Debug)]
pub struct LineReader {
    line: Vec<u8>,
    bytes_max: usize,
    discarding: bool,
}

impl LineReader {
    /// A reader of lines of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            bytes_max,
            discarding: false,
        }
    }

    /// Consumes one event. Events that are no part of a line change nothing.
    pub fn push(&mut self, event: Event) -> Option<Line> {
        match event {
            Event::Enter => {
                let line = std::mem::take(&mut self.line);
                return (!std::mem::take(&mut self.discarding)).then_some(Line::Complete(line));
            }
            Event::EraseLine | Event::Interrupt => {
                self.line.clear();
                self.discarding = false;
            }
            _ if self.discarding => {}
            Event::EraseCharacter => erase_character(&mut self.line),
            Event::Byte(_) if self.line.len() == self.bytes_max => {
                self.line.clear();
                self.discarding = true;
                return Some(Line::TooLong);
            }
            Event::Byte(byte) => self.line.push(byte),
            Event::Option(..)
            | Event::AreYouThere
            | Event::SubnegotiationByte(_)
            | Event::SubnegotiationEnd => {}
        }
        None
    }

    /// Whether no line has begun.
    pub fn is_between_lines(&self) -> bool {
        self.line.is_empty() && !self.discarding
    }
}

/// Removes the last character of UTF-8 text: up to four bytes.
pub fn erase_character(line: &mut Vec<u8>) {
    const CHARACTER_BYTES_MAX: usize = 4;
    for _ in 0..CHARACTER_BYTES_MAX {
        let is_continuation = line.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
        if !is_continuation {
            return;
        }
    }
}
