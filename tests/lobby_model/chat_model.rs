//! The model of lobby chat and whispers, and of what each client has received of them: every line once, in
//! order, or counted as missed.

use std::collections::BTreeMap;

use forkade::limits::MAILBOX_BYTES;
use forkade_protocol::frame::append_frame;
use forkade_protocol::{ChatScope, RejectCode, ServerMessage};

/// Sender and text. All lines are different.
type Said = (String, String);

/// All chat.
#[derive(Default)]
pub(crate) struct ChatModel {
    lobby: Vec<Said>,
    /// By name in lower case.
    players: BTreeMap<String, Player>,
}

struct Player {
    name: String,
    /// Number of lobby lines when the player joined.
    came_at: usize,
    lobby: DeliveryCursor,
    whispers: Vec<Said>,
    whisper: DeliveryCursor,
    /// Bytes in the mailbox.
    mail_bytes: usize,
}

/// How many of a list of lines a client has received.
#[derive(Default)]
struct DeliveryCursor {
    /// At least this many.
    heard: usize,
    /// Some may have been lost with bytes of the stream.
    unsure: bool,
}

impl DeliveryCursor {
    fn hear(&mut self, said: &Said, lines: &[Said]) {
        let next = &lines[self.heard..];
        let distance = next.iter().position(|line| line == said).unwrap_or_else(|| {
            panic!("{said:?} was never sent, or was received before");
        });
        assert!(
            distance == 0 || self.unsure,
            "{distance} lines before {said:?} were lost"
        );
        self.heard += distance + 1;
        self.unsure = false;
    }

    fn expect_all_received(&self, lines: &[Said]) {
        assert!(
            self.unsure || self.heard == lines.len(),
            "{:?} was not heard",
            lines.last()
        );
    }
}

impl ChatModel {
    pub(crate) fn add(&mut self, name: &str) {
        let player = Player {
            name: name.to_owned(),
            came_at: self.lobby.len(),
            lobby: DeliveryCursor {
                heard: self.lobby.len(),
                unsure: false,
            },
            whispers: Vec::new(),
            whisper: DeliveryCursor::default(),
            mail_bytes: 0,
        };
        self.players.insert(name.to_lowercase(), player);
    }

    pub(crate) fn remove(&mut self, who: &str) {
        self.players.remove(&who.to_lowercase());
    }

    pub(crate) fn say(&mut self, from: &str, text: &str) {
        self.lobby.push((from.to_owned(), text.to_owned()));
    }

    pub(crate) fn whisper(&mut self, from: &str, to: &str, text: &str) -> Result<(), RejectCode> {
        let player = self
            .players
            .get(&to.to_lowercase())
            .ok_or(RejectCode::UnknownPlayer)?;
        let message = ServerMessage::Chat {
            scope: ChatScope::Whisper {
                to: player.name.clone(),
            },
            from: from.to_owned(),
            text: text.to_owned(),
        };
        self.post(to, &message)?;
        let said = (from.to_owned(), text.to_owned());
        self.player(to).whispers.push(said);
        Ok(())
    }

    /// Puts a message into a player's mailbox.
    pub(crate) fn post(&mut self, to: &str, message: &ServerMessage) -> Result<(), RejectCode> {
        let mut frame = Vec::new();
        append_frame(message, &mut frame).expect("a message fits a frame");
        self.expect_space(to, frame.len())?;
        self.player(to).mail_bytes += frame.len();
        Ok(())
    }

    pub(crate) fn expect_space(&mut self, to: &str, bytes: usize) -> Result<(), RejectCode> {
        if self.player(to).mail_bytes + bytes > MAILBOX_BYTES {
            return Err(RejectCode::MailboxFull);
        }
        Ok(())
    }

    /// A client receives a message.
    pub(crate) fn hear(&mut self, who: &str, message: &ServerMessage) {
        let player = self
            .players
            .get_mut(&who.to_lowercase())
            .expect("an existing player");
        match message {
            ServerMessage::Chat { scope, from, text } => {
                let said = (from.clone(), text.clone());
                match scope {
                    ChatScope::Lobby => player.lobby.hear(&said, &self.lobby),
                    ChatScope::Whisper { to } if *to == player.name => {
                        player.whisper.hear(&said, &player.whispers);
                    }
                    other => panic!("{who} received chat for {other:?}"),
                }
            }
            ServerMessage::ChatMissed { lines } => {
                assert!(*lines > 0, "no lines were missed");
                // It is not known which ones if bytes were lost, too.
                if !player.lobby.unsure {
                    player.lobby.heard += usize::try_from(*lines).expect("few");
                }
            }
            _ => {}
        }
    }

    /// The player's mail was moved to the output stream.
    pub(crate) fn mail_was_moved(&mut self, who: &str) {
        self.player(who).mail_bytes = 0;
    }

    /// The client has received everything.
    pub(crate) fn expect_all_received(&mut self, who: &str) {
        self.mail_was_moved(who);
        let player = &self.players[&who.to_lowercase()];
        player.lobby.expect_all_received(&self.lobby);
        player.whisper.expect_all_received(&player.whispers);
    }

    /// The client receives the stream again, from its beginning.
    pub(crate) fn restart_stream(&mut self, who: &str) {
        let player = self.player(who);
        player.lobby = DeliveryCursor {
            heard: player.came_at,
            unsure: false,
        };
        player.whisper = DeliveryCursor::default();
    }

    /// Bytes of the stream were lost on the way to the client.
    pub(crate) fn loses_bytes(&mut self, who: &str) {
        let player = self.player(who);
        player.lobby.unsure = true;
        player.whisper.unsure = true;
    }

    fn player(&mut self, who: &str) -> &mut Player {
        self.players
            .get_mut(&who.to_lowercase())
            .expect("an existing player")
    }
}
