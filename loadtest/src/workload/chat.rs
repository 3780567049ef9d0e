//! Chat: everybody talks on a schedule. Every line is numbered by its speaker, and must come to each of its readers exactly
//! once, unaltered, under its speaker's name, and after all that the speaker said before.

use forkade_protocol::limits::CHAT_BYTES_MAX;
use forkade_protocol::{ChatScope, ClientMessage, RejectCode, RoomEvent, ServerMessage};

use super::fanout::{Fanout, number_of, request_of};
use super::pace::Pace;
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::plan::Part;

/// Room for the longest numbers, and some text.
pub(crate) const LINE_BYTES_MIN: u32 = 80;
pub(crate) const LINE_BYTES_DEFAULT: u32 = 80;
pub(crate) const LINE_BYTES_MAX: u32 = 500;
const _: () = assert!(LINE_BYTES_MAX as usize == CHAT_BYTES_MAX);
/// What people type at best, and servers allow.
pub(crate) const RATE_DEFAULT: f64 = 1.0;

/// The chat workload.
#[derive(Debug)]
pub(crate) struct Chat {
    line_bytes: usize,
    pace: Pace,
    fanout: Fanout,
    names: Vec<String>,
    counts: Counts,
    /// Lines that the server refused because their speaker talks too fast.
    too_fast: u64,
}

impl Chat {
    pub(crate) fn new(part: &Part) -> Self {
        Self {
            line_bytes: part.payload_bytes as usize,
            pace: Pace::new(part),
            fanout: Fanout::new(part.shape.clients, part.shape.room_size),
            names: vec![String::new(); part.shape.clients as usize],
            counts: Counts::default(),
            too_fast: 0,
        }
    }

    fn say(&mut self, client: ClientIndex, intended_ns: u64, actions: &mut Actions) {
        let line = Line {
            speaker: client,
            number: self.fanout.send(client),
            intended_ns,
        };
        let message = ClientMessage::Chat {
            request: request_of(line.number),
            scope: ChatScope::Room,
            text: line.text(self.line_bytes),
        };
        self.counts.sent += 1;
        actions.sends.push((client, message));
    }

    fn heard(&mut self, reader: ClientIndex, from: &str, text: &str, now_ns: u64, actions: &mut Actions) {
        let Some(line) = self.checked(reader, from, text) else {
            self.counts.mismatches += 1;
            return;
        };
        if !self
            .fanout
            .receive(reader, line.speaker, line.number, &mut self.counts)
        {
            return;
        }
        let own = line.speaker == reader;
        actions.receipt(line.intended_ns, now_ns, own);
        if own && line.number + 1 == self.fanout.sent(reader) {
            self.go_on(reader, now_ns, actions);
        }
    }

    /// The line, if the one who is said to have said it has said just this, to the reader among others.
    fn checked(&self, reader: ClientIndex, from: &str, text: &str) -> Option<Line> {
        let line = Line::parse(text)?;
        let said = self.fanout.is_for(reader, line.speaker, line.number);
        (said && line.text(self.line_bytes) == text && self.names[line.speaker as usize] == from)
            .then_some(line)
    }

    fn refused(
        &mut self,
        client: ClientIndex,
        request: u32,
        code: RejectCode,
        actions: &mut Actions,
        now_ns: u64,
    ) {
        match number_of(request, self.fanout.sent(client)) {
            Some(number) => self.fanout.refuse(client, number),
            None => self.counts.mismatches += 1,
        }
        if code == RejectCode::ChatTooFast {
            self.too_fast += 1;
        } else {
            self.counts.rejected += 1;
        }
        self.go_on(client, now_ns, actions);
    }

    /// Closed loop: the next line follows when the last one has come to its end, whichever.
    fn go_on(&mut self, client: ClientIndex, now_ns: u64, actions: &mut Actions) {
        if self.pace.is_closed_loop(now_ns) {
            self.say(client, now_ns, actions);
        }
    }
}

impl Workload for Chat {
    fn welcomed(&mut self, client: ClientIndex, name: &str, _now_ns: u64, _actions: &mut Actions) {
        name.clone_into(&mut self.names[client as usize]);
    }

    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions) {
        for client in self.pace.start(now_ns, end_ns, actions) {
            self.say(client, now_ns, actions);
        }
    }

    fn due(&mut self, client: ClientIndex, intended_ns: u64, _now_ns: u64, actions: &mut Actions) {
        if self.pace.is_due(client, intended_ns, actions) {
            self.say(client, intended_ns, actions);
        }
    }

    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions) {
        match message {
            ServerMessage::Event {
                event: RoomEvent::Chat { from, text },
                ..
            } => self.heard(client, &from, &text, now_ns, actions),
            ServerMessage::Rejected { request, code, .. } => {
                self.refused(client, request, code, actions, now_ns);
            }
            // What was skipped shows as numbers that never come. If the own copy is among them, nothing else would.
            ServerMessage::Resync { .. } => self.go_on(client, now_ns, actions),
            _ => {}
        }
    }

    fn stop(&mut self, now_ns: u64) {
        self.pace.stop(now_ns);
    }

    fn is_settled(&self) -> bool {
        self.fanout.is_settled()
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn figures(&self) -> Figures {
        Figures {
            counts: self.counts,
            lost: self.fanout.lost(),
            unsent: self.pace.unsent(),
            details: vec![("chat_too_fast", self.too_fast)],
            ..Figures::default()
        }
    }
}

/// One line of talk. Its text says all of this, and nothing in it changes when the server cleans it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    speaker: ClientIndex,
    number: u64,
    intended_ns: u64,
}

impl Line {
    /// `bytes` is at least [`LINE_BYTES_MIN`].
    fn text(self, bytes: usize) -> String {
        let Self {
            speaker,
            number,
            intended_ns,
        } = self;
        let mut text = format!("line {number} of {speaker} at {intended_ns}: ");
        let mut filler = number.wrapping_add(u64::from(speaker));
        while text.len() < bytes {
            text.push(char::from(b'a' + (filler % 26).to_le_bytes()[0]));
            filler += 1;
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, rest) = text.strip_prefix("line ")?.split_once(" of ")?;
        let (speaker, rest) = rest.split_once(" at ")?;
        let (intended_ns, _) = rest.split_once(": ")?;
        Some(Self {
            speaker: speaker.parse().ok()?,
            number: number.parse().ok()?,
            intended_ns: intended_ns.parse().ok()?,
        })
    }
}
