//! Chat: every client sends lines on a schedule, in turn to the room, to the lobby and to one other client.
//! Every line is numbered by its sender, and must reach each of its recipients exactly once, unaltered, under
//! its sender's name, and in the order in which the sender sent lines to the same recipients.

use forkade_protocol::{ChatScope, ClientMessage, RejectCode, RoomEvent, ServerMessage};

use super::fanout::{Fanout, number_of, request_of};
use super::pace::Pace;
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::plan::{Scope, WorkloadPlan};

/// The chat workload.
#[derive(Debug)]
pub(crate) struct Chat {
    clients: u32,
    line_bytes: usize,
    /// Distinguishes this workload's lines in the lobby from others.
    tag: String,
    pace: Pace,
    /// Each client sends to these in turn: its `n`th line goes to channel `n % length`.
    channels: Vec<Channel>,
    names: Vec<String>,
    counts: Counts,
    /// Lines that each client has sent.
    sent_lines: Vec<u64>,
    /// Lines that the server refused because their sender exceeded its chat rate.
    too_fast: u64,
    /// Whispers that the server refused because too many wait for the recipient.
    mailbox_full: u64,
    /// Receipts of lobby lines that the server announced as missed.
    missed: u64,
}

#[derive(Debug)]
struct Channel {
    scope: Scope,
    /// For whispers every client is a group of its own, because a whisper has one recipient.
    fanout: Fanout,
}

impl Chat {
    pub(crate) fn new(plan: &WorkloadPlan) -> Self {
        let clients = plan.shape.clients;
        let channel = |scope: &Scope| Channel {
            scope: *scope,
            fanout: match scope {
                Scope::Room => Fanout::new(clients, plan.shape.room_size),
                Scope::Lobby => Fanout::new(clients, clients),
                Scope::Whisper => Fanout::new(clients, 1),
            },
        };
        Self {
            clients,
            line_bytes: plan.payload_bytes as usize,
            tag: format!("{}.{}", std::process::id(), plan.number),
            pace: Pace::new(plan),
            channels: plan.chat_scopes.iter().map(channel).collect(),
            names: vec![String::new(); clients as usize],
            counts: Counts::default(),
            sent_lines: vec![0; clients as usize],
            too_fast: 0,
            mailbox_full: 0,
            missed: 0,
        }
    }

    fn send_line(&mut self, client: ClientIndex, intended_ns: u64, actions: &mut Actions) {
        let sent_lines = &mut self.sent_lines[client as usize];
        let line = Line {
            sender: client,
            number: *sent_lines,
            intended_ns,
        };
        *sent_lines += 1;
        let (index, _) = self.channel_of(line.number);
        let channel = &mut self.channels[index];
        channel.fanout.send(client);
        let message = ClientMessage::Chat {
            request: request_of(line.number),
            scope: match channel.scope {
                Scope::Room => ChatScope::Room,
                Scope::Lobby => ChatScope::Lobby,
                Scope::Whisper => ChatScope::Whisper {
                    to: self.names[self.whisper_target(client) as usize].clone(),
                },
            },
            text: line.text(&self.tag, self.line_bytes),
        };
        self.counts.sent += 1;
        actions.sends.push((client, message));
    }

    /// The channel of a client's line `number`, and how many of its lines went to that channel before.
    fn channel_of(&self, number: u64) -> (usize, u64) {
        let channels = self.channels.len() as u64;
        let index = usize::try_from(number % channels).expect("fewer than there are channels");
        (index, number / channels)
    }

    fn whisper_target(&self, client: ClientIndex) -> ClientIndex {
        (client + 1) % self.clients
    }

    fn on_line(
        &mut self,
        (recipient, scope): (ClientIndex, Scope),
        from: &str,
        text: &str,
        now_ns: u64,
        actions: &mut Actions,
    ) {
        if scope == Scope::Lobby && !text.contains(&self.tag) {
            // Other clients may chat in the lobby, too.
            return;
        }
        let Some((line, index)) = self.verify((recipient, scope), from, text) else {
            self.counts.mismatches += 1;
            return;
        };
        let sender = line.sender;
        let (_, number) = self.channel_of(line.number);
        // A whisper is counted as if its sender had received it.
        let counted_for = if scope == Scope::Whisper {
            sender
        } else {
            recipient
        };
        let fanout = &mut self.channels[index].fanout;
        if !fanout.receive(counted_for, sender, number, &mut self.counts) {
            return;
        }
        actions.receipt(line.intended_ns, now_ns, sender == recipient);
        if sender == counted_for && line.number + 1 == self.sent_lines[sender as usize] {
            self.continue_closed_loop(sender, now_ns, actions);
        }
    }

    /// The line and its channel, if the stated sender has sent exactly this text to the recipient.
    fn verify(
        &self,
        (recipient, scope): (ClientIndex, Scope),
        from: &str,
        text: &str,
    ) -> Option<(Line, usize)> {
        let line = Line::parse(text)?;
        let name = self.names.get(line.sender as usize)?;
        let (index, number) = self.channel_of(line.number);
        let channel = &self.channels[index];
        let is_for_recipient = match scope {
            Scope::Whisper => {
                self.whisper_target(line.sender) == recipient
                    && channel.fanout.is_for(line.sender, line.sender, number)
            }
            Scope::Room | Scope::Lobby => channel.fanout.is_for(recipient, line.sender, number),
        };
        let is_same = is_for_recipient && channel.scope == scope && name == from;
        (is_same && line.text(&self.tag, self.line_bytes) == text).then_some((line, index))
    }

    fn on_rejected(
        &mut self,
        client: ClientIndex,
        request: u32,
        code: RejectCode,
        now_ns: u64,
        actions: &mut Actions,
    ) {
        match number_of(request, self.sent_lines[client as usize]) {
            Some(sent_lines) => {
                let (index, number) = self.channel_of(sent_lines);
                self.channels[index].fanout.refuse(client, number);
            }
            None => self.counts.mismatches += 1,
        }
        match code {
            RejectCode::ChatTooFast => self.too_fast += 1,
            RejectCode::MailboxFull => self.mailbox_full += 1,
            _ => self.counts.rejected += 1,
        }
        self.continue_closed_loop(client, now_ns, actions);
    }

    /// A recipient of lobby chat was too slow; the server announces how many lines it missed.
    fn missed(&mut self, lines: u64) {
        self.missed += lines;
        let lobby = self
            .channels
            .iter_mut()
            .filter(|channel| channel.scope == Scope::Lobby);
        lobby.for_each(|channel| channel.fanout.give_up(lines));
    }

    /// Descriptions of errors. Line numbers are those within a scope.
    fn examples(&self) -> Vec<String> {
        let is_shown = |channel: &&Channel| channel.scope != Scope::Lobby || channel.lost(self.missed) > 0;
        let of = |channel: &Channel| {
            let examples = channel.fanout.examples().into_iter();
            examples
                .map(|example| format!("{}: {example}", channel.scope))
                .collect::<Vec<_>>()
        };
        self.channels.iter().filter(is_shown).flat_map(of).collect()
    }

    /// Closed loop: the next line follows when the last one has been received, refused or skipped.
    fn continue_closed_loop(&mut self, client: ClientIndex, now_ns: u64, actions: &mut Actions) {
        if self.pace.is_closed_loop(now_ns) {
            self.send_line(client, now_ns, actions);
        }
    }
}

impl Workload for Chat {
    fn welcomed(&mut self, client: ClientIndex, name: &str, _now_ns: u64, _actions: &mut Actions) {
        name.clone_into(&mut self.names[client as usize]);
    }

    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions) {
        for client in self.pace.start(now_ns, end_ns, actions) {
            self.send_line(client, now_ns, actions);
        }
    }

    fn due(&mut self, client: ClientIndex, intended_ns: u64, _now_ns: u64, actions: &mut Actions) {
        if self.pace.take_due(client, intended_ns, actions) {
            self.send_line(client, intended_ns, actions);
        }
    }

    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions) {
        match message {
            ServerMessage::Event {
                event: RoomEvent::Chat { from, text },
                ..
            } => self.on_line((client, Scope::Room), &from, &text, now_ns, actions),
            ServerMessage::Chat { scope, from, text } => {
                let scope = match scope {
                    ChatScope::Room => Scope::Room,
                    ChatScope::Lobby => Scope::Lobby,
                    ChatScope::Whisper { .. } => Scope::Whisper,
                };
                self.on_line((client, scope), &from, &text, now_ns, actions);
            }
            ServerMessage::ChatMissed { lines } => self.missed(lines),
            ServerMessage::Rejected { request, code, .. } => {
                self.on_rejected(client, request, code, now_ns, actions);
            }
            // Skipped lines show as numbers that never arrive. If the client's own copy is among them, only
            // this continues its loop.
            ServerMessage::Resync { .. } => self.continue_closed_loop(client, now_ns, actions),
            _ => {}
        }
    }

    fn stop(&mut self, now_ns: u64) {
        self.pace.stop(now_ns);
    }

    fn is_settled(&self) -> bool {
        self.channels.iter().all(|channel| channel.fanout.is_settled())
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn figures(&self) -> Figures {
        Figures {
            counts: self.counts,
            lost: self
                .channels
                .iter()
                .map(|channel| channel.lost(self.missed))
                .sum(),
            unsent: self.pace.unsent(),
            details: vec![
                ("chat_too_fast", self.too_fast),
                ("mailbox_full", self.mailbox_full),
                ("lobby_lines_missed", self.missed),
            ],
            examples: self.examples(),
        }
    }
}

impl Channel {
    /// Receipts that have not arrived, except those that the server announced as missed.
    fn lost(&self, missed: u64) -> u64 {
        match self.scope {
            Scope::Lobby => self.fanout.lost().saturating_sub(missed),
            Scope::Room | Scope::Whisper => self.fanout.lost(),
        }
    }
}

/// One chat line. Its text contains all these fields, and the server's normalization changes nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    sender: ClientIndex,
    /// Its number among all lines of the sender.
    number: u64,
    intended_ns: u64,
}

impl Line {
    /// `bytes` is at least the shortest payload of this workload.
    fn text(self, tag: &str, bytes: usize) -> String {
        let Self {
            sender,
            number,
            intended_ns,
        } = self;
        let mut text = format!("line {number} of {sender} in {tag} at {intended_ns}: ");
        let mut filler = number.wrapping_add(u64::from(sender));
        while text.len() < bytes {
            text.push(char::from(b'a' + (filler % 26).to_le_bytes()[0]));
            filler += 1;
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, rest) = text.strip_prefix("line ")?.split_once(" of ")?;
        let (sender, rest) = rest.split_once(" in ")?;
        let (_tag, rest) = rest.split_once(" at ")?;
        let (intended_ns, _) = rest.split_once(": ")?;
        Some(Self {
            sender: sender.parse().ok()?,
            number: number.parse().ok()?,
            intended_ns: intended_ns.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    const SECOND: u64 = 1_000_000_000;

    /// Four clients in two rooms. Client 1 is called "c1".
    fn chat(arguments: &[&str]) -> Chat {
        let all = [&["--workload", "chat", "--clients", "4"], arguments].concat();
        let mut chat = Chat::new(&Options::plan_for_test(&all));
        for client in 0..4 {
            chat.welcomed(client, &format!("c{client}"), 0, &mut Actions::default());
        }
        chat
    }

    /// Lets client 0 send its first `lines` lines.
    fn sent_lines(chat: &mut Chat, lines: u64) -> Vec<(ChatScope, String)> {
        let mut actions = Actions::default();
        (0..lines).for_each(|line| chat.send_line(0, line, &mut actions));
        let text = |(_, message)| match message {
            ClientMessage::Chat { scope, text, .. } => (scope, text),
            other => panic!("{other:?}"),
        };
        actions.sends.into_iter().map(text).collect()
    }

    fn deliver(chat: &mut Chat, recipient: ClientIndex, scope: &ChatScope, from: &str, text: &str) {
        let (from, text) = (from.to_owned(), text.to_owned());
        let message = match scope {
            ChatScope::Room => ServerMessage::Event {
                number: 1,
                event: RoomEvent::Chat { from, text },
            },
            other => ServerMessage::Chat {
                scope: other.clone(),
                from,
                text,
            },
        };
        chat.received(recipient, message, SECOND, &mut Actions::default());
    }

    fn recipients(scope: &ChatScope) -> &'static [ClientIndex] {
        match scope {
            ChatScope::Room => &[0, 1],
            ChatScope::Lobby => &[0, 1, 2, 3],
            ChatScope::Whisper { .. } => &[1],
        }
    }

    #[test]
    fn a_workload_is_settled_when_all_recipients_have_all_lines() {
        let mut chat = chat(&[]);
        let lines = sent_lines(&mut chat, 6);
        assert_eq!(lines[2].0, ChatScope::Whisper { to: "c1".to_owned() });
        for (scope, text) in &lines {
            for recipient in recipients(scope) {
                assert!(!chat.is_settled());
                deliver(&mut chat, *recipient, scope, "c0", text);
            }
        }
        assert!(chat.is_settled());
        let figures = chat.figures();
        assert_eq!(
            (figures.lost, figures.counts.sent, figures.counts.received),
            (0, 6, 14)
        );
        assert_eq!((figures.counts.mismatches, figures.counts.reordered), (0, 0));
    }

    #[test]
    fn lost_duplicated_and_reordered_lines_are_told_apart_within_their_scope() {
        let mut chat = chat(&["--say", "whisper"]);
        let lines = sent_lines(&mut chat, 4);
        for line in [0, 2, 1, 1] {
            let (scope, text) = &lines[line];
            deliver(&mut chat, 1, scope, "c0", text);
        }
        let figures = chat.figures();
        assert_eq!(
            (figures.counts.reordered, figures.counts.duplicated, figures.lost),
            (1, 1, 1)
        );
    }

    #[test]
    fn lines_under_a_wrong_name_or_altered_or_to_wrong_recipients_are_mismatches() {
        let mut chat = chat(&[]);
        let lines = sent_lines(&mut chat, 3);
        let (room, whisper) = (&lines[0], &lines[2]);
        deliver(&mut chat, 1, &room.0, "c1", &room.1);
        deliver(&mut chat, 1, &room.0, "c0", &room.1[..79]);
        deliver(&mut chat, 2, &room.0, "c0", &room.1);
        deliver(&mut chat, 1, &ChatScope::Lobby, "c0", &room.1);
        deliver(&mut chat, 2, &whisper.0, "c0", &whisper.1);
        deliver(&mut chat, 1, &whisper.0, "c0", "psst");
        assert_eq!((chat.counts().mismatches, chat.counts().received), (6, 0));
        deliver(&mut chat, 1, &ChatScope::Lobby, "a stranger", "good evening");
        assert_eq!(chat.counts().mismatches, 6, "other clients may chat in the lobby");
    }

    #[test]
    fn lines_that_the_server_refuses_or_announces_as_missed_are_not_lost() {
        let mut chat = chat(&["--say", "lobby,whisper"]);
        let lines = sent_lines(&mut chat, 4);
        for (request, code) in [(0, RejectCode::ChatTooFast), (1, RejectCode::MailboxFull)] {
            let text = String::new();
            chat.received(
                0,
                ServerMessage::Rejected { request, code, text },
                1,
                &mut Actions::default(),
            );
        }
        for recipient in 0..3 {
            deliver(&mut chat, recipient, &lines[2].0, "c0", &lines[2].1);
        }
        deliver(&mut chat, 1, &lines[3].0, "c0", &lines[3].1);
        assert!(!chat.is_settled());
        chat.received(
            3,
            ServerMessage::ChatMissed { lines: 1 },
            1,
            &mut Actions::default(),
        );
        assert!(chat.is_settled());
        let figures = chat.figures();
        assert_eq!((figures.lost, figures.counts.rejected), (0, 0));
        assert_eq!(
            figures.details,
            [
                ("chat_too_fast", 1),
                ("mailbox_full", 1),
                ("lobby_lines_missed", 1)
            ]
        );
    }
}
