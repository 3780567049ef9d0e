//! What players say: to their room, to the lobby, to one another; and how fast they may.
//!
//! What is said to the lobby lies in one log with a lock of its own, as a room's events do in theirs. Everybody on the server hears
//! it, in the same order: each reader has a place in the log, in the player's record, and copies lines from there without a lock, in
//! transactions of its own. An entry's audience is the number of its line, so a reader who finds another number than the next one
//! knows how many lines it has missed.

use std::sync::atomic::Ordering;

use forkade_protocol::text::TextError;
use forkade_protocol::{ChatScope, RejectCode, RoomEvent, ServerMessage, frame, text};

use super::delivery::Events;
use super::mailbox::PostError;
use super::players::PlayerRecord;
use super::session::Session;
use super::{Lobby, Rejection, scratch};
use crate::limits::{CHAT_LOG_BYTES, FRAME_TOTAL_BYTES_MAX};
use crate::shared_record;
use crate::shm::event_log::{EventLog, Read};
use crate::shm::lock::Lock;
use crate::shm::transaction::{Record, Tx, View};
use crate::sys::clock::now_ns;

/// Lines that one transaction delivers at most.
const BATCH_MAX: usize = 64;

const MINUTE_US: u64 = 60_000_000;

shared_record! {
    /// What is said to the lobby.
    pub struct ChatRecord {
        lock: Lock,
        /// The lines, as frames that are ready to be sent.
        pub log: EventLog<{ CHAT_LOG_BYTES / 8 }>,
    }
}

impl Record for ChatRecord {
    fn lock(&self) -> &Lock {
        &self.lock
    }

    fn publish(&'static self, view: &View<'_>) {
        self.log.publish(view);
    }
}

/// A reader's place in the lobby's chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatPlace {
    /// Offset in the log behind the last line that was read.
    pub cursor: u64,
    /// That line's number.
    pub line: u64,
}

impl Session {
    /// Says something to everybody in the room. The text is validated.
    ///
    /// # Errors
    ///
    /// If the player is in no room, or has said too much lately.
    pub fn chat_in_room(&mut self, text: &str) -> Result<(), Rejection> {
        self.must_be_in_room()?;
        let paid = self.pay_for_line()?;
        let chat = RoomEvent::Chat {
            from: self.name().as_str().to_owned(),
            text: text.to_owned(),
        };
        self.in_room(|tx, inside| {
            let mut events = Events::begin(tx);
            events.tell_all(tx, chat)?;
            events.finish(tx);
            paid.enter(tx, inside.own.player);
            Ok(())
        })
    }

    /// Says something to everybody on the server. The text is validated.
    ///
    /// # Errors
    ///
    /// If the player has said too much lately.
    pub fn chat_in_lobby(&mut self, text: &str) -> Result<(), Rejection> {
        let Some(own) = self.own() else { return Ok(()) };
        let paid = self.pay_for_line()?;
        let from = self.name().as_str().to_owned();
        let mut tx = self.lobby.hand.begin(self.lobby.memory.chat);
        append_line(&mut tx, from, text)?;
        paid.enter(&mut tx, own.player);
        own.consume(&mut tx);
        tx.commit()?;
        self.chat_bell = true;
        self.lobby.count_line();
        Ok(())
    }

    /// Says something to one player, who may be oneself. The text is validated.
    ///
    /// # Errors
    ///
    /// Nobody has that name, the addressee's mailbox is full, or the player has said too much lately.
    pub fn whisper(&mut self, to: &str, text: &str) -> Result<(), Rejection> {
        let Some(own) = self.own() else { return Ok(()) };
        let unknown = || {
            Rejection::new(
                RejectCode::UnknownPlayer,
                format!("nobody here is called \"{}\"", to.escape_debug()),
            )
        };
        // As the names of those who are here were cleaned.
        let to_name = text::player_name(to).map_err(|_| unknown())?;
        let paid = self.pay_for_line()?;
        let from = self.name().as_str().to_owned();
        let memory = self.lobby.memory;
        let mut tx = self.lobby.hand.begin(memory.directory.record);
        let to = memory.directory.find_name(&tx, &to_name).ok_or_else(unknown)?;
        let to_name = tx.get(&memory.directory.identities.at(to.index()).name);
        let message = ServerMessage::Chat {
            scope: ChatScope::Whisper {
                to: to_name.as_str().to_owned(),
            },
            from,
            text: text.to_owned(),
        };
        let keeper = memory.post(&mut tx, to, &message).map_err(|error| match error {
            PostError::Gone => unknown(),
            PostError::Full => error.into(),
        })?;
        paid.enter(&mut tx, own.player);
        // Programs know what they have asked for.
        own.say(&mut tx, &format!("You tell {}: {text}\n", to_name.as_str()));
        own.consume(&mut tx);
        tx.commit()?;
        self.keeper_bells.extend(keeper);
        memory.header.whispers_total.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the lobby's chat is to be rung for; asking says that it will be.
    pub fn take_chat_bell(&mut self) -> bool {
        std::mem::take(&mut self.chat_bell)
    }

    /// Moves what was said to the lobby into the player's output, as far as there is space, but no more than a batch. Says whether
    /// anything moved.
    pub(super) fn deliver_chat(&mut self) -> Result<bool, Rejection> {
        let Some(own) = self.own() else { return Ok(false) };
        let (log, header) = (&self.lobby.memory.chat.log, self.lobby.memory.header);
        let mut cursor = self.lobby.hand.own(&own.player.chat_cursor);
        let space = self.output_space();
        if log.is_read_up_to(cursor) || space < FRAME_TOTAL_BYTES_MAX as u64 {
            return Ok(false);
        }
        let mut tx = self.lobby.hand.begin(own.player);
        let mut line = tx.get(&own.player.chat_line);
        let mut output = own.begin_output(&tx);
        let space_end = output.head() + space;
        let (before, mut missed_total) = (line, 0);
        scratch::with_frame(|buffer| {
            for _ in 0..BATCH_MAX {
                // For the line, and for the word that others were missed. (In text mode both take more space than their frames.)
                if space_end - output.head() < FRAME_TOTAL_BYTES_MAX as u64 {
                    return;
                }
                match log.read(cursor, buffer) {
                    Read::End => return,
                    Read::Lost => cursor = log.oldest(),
                    Read::Entry {
                        audience,
                        length,
                        next,
                    } => {
                        // Numbers are compared as far as the entry tells them.
                        let missed = u64::from(audience.wrapping_sub(low_half(line + 1)));
                        if missed > 0 {
                            output.put_short(&mut tx, &ServerMessage::ChatMissed { lines: missed });
                            missed_total += missed;
                        }
                        output.put(&mut tx, &buffer[..length]);
                        line += missed + 1;
                        cursor = next;
                    }
                }
            }
        });
        output.finish(&mut tx);
        tx.set(&own.player.chat_cursor, cursor);
        tx.set(&own.player.chat_line, line);
        tx.commit()?;
        header
            .lobby_lines_missed_total
            .fetch_add(missed_total, Ordering::Relaxed);
        Ok(line != before)
    }

    /// What one more line costs the player, who may say it now.
    pub(super) fn pay_for_line(&self) -> Result<Paid, Rejection> {
        let header = self.lobby.memory.header;
        let rate = Rate {
            burst: header.chat_burst.load(Ordering::Relaxed),
            per_minute: header.chat_per_minute.load(Ordering::Relaxed),
        };
        let paid_until_us = self
            .player
            .map_or(0, |(_, player)| self.lobby.hand.own(&player.chat_paid_until_us));
        rate.pay(paid_until_us, now_ns() / 1000).map_err(|wait_us| {
            Rejection::new(
                RejectCode::ChatTooFast,
                format!(
                    "you may say {} lines a minute; wait {:.1} s",
                    rate.per_minute,
                    wait_us.div_ceil(100_000) as f64 / 10.0
                ),
            )
        })
    }
}

impl Lobby {
    /// Says something to everybody on the server, in the server's own name: nobody's. The chat's bell is to be rung then.
    ///
    /// # Errors
    ///
    /// If nothing can be seen of the text, or it is too long.
    pub fn announce(&mut self, said: &str) -> Result<(), Rejection> {
        let said = clean_line(said)?;
        let mut tx = self.hand.begin(self.memory.chat);
        append_line(&mut tx, String::new(), &said)?;
        tx.commit()?;
        self.count_line();
        Ok(())
    }

    /// The end of the lobby's chat: where somebody begins to hear it who comes in now.
    pub(super) fn end_of_chat(&mut self) -> ChatPlace {
        let tx = self.hand.begin(self.memory.chat);
        let log = &tx.record().log;
        ChatPlace {
            cursor: log.head(&tx),
            line: log.last_number(&tx),
        }
    }

    fn count_line(&self) {
        self.memory
            .header
            .lobby_lines_total
            .fetch_add(1, Ordering::Relaxed);
    }
}

/// Cleans what somebody says.
///
/// # Errors
///
/// If nothing can be seen of it, or it is too long.
pub fn clean_line(said: &str) -> Result<String, Rejection> {
    text::chat(said).map_err(|error| {
        let code = match error {
            TextError::TooManyCharacters { .. } | TextError::TooLong { .. } => RejectCode::ChatTooLong,
            TextError::Empty | TextError::Character(_) | TextError::Reserved(_) => RejectCode::TextInvalid,
        };
        Rejection::new(code, error.to_string())
    })
}

fn append_line(tx: &mut Tx<'_, ChatRecord>, from: String, text: &str) -> Result<(), Rejection> {
    let message = ServerMessage::Chat {
        scope: ChatScope::Lobby,
        from,
        text: text.to_owned(),
    };
    // Those who are away, or slow, may still want what others have read.
    let mut lines = tx.record().log.append(tx, false);
    scratch::with_frame(|buffer| {
        let length = frame::write_frame_into(&message, buffer).expect("every line fits a frame");
        let number = low_half(lines.next_number());
        lines.push(tx, number, &buffer[..length])
    })?;
    lines.finish(tx);
    Ok(())
}

/// A line's number, as far as an entry of the log tells it. Nobody misses four thousand million lines.
fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}

/// How fast a player may speak.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Lines at once.
    burst: u64,
    /// Lines in the long run; 0: any number.
    per_minute: u64,
}

impl Rate {
    /// Says one more line: each takes its share of a minute to be paid for, and the player may run so far ahead as the burst
    /// allows. (A token bucket, which fills as time passes, with one number to remember.)
    ///
    /// # Errors
    ///
    /// How many microseconds there are to wait.
    fn pay(self, paid_until_us: u64, now_us: u64) -> Result<Paid, u64> {
        if self.per_minute == 0 {
            return Ok(Paid { until_us: None });
        }
        let share_us = MINUTE_US / self.per_minute;
        let until_us = paid_until_us.max(now_us) + share_us;
        let latest_us = now_us + share_us * self.burst.max(1);
        match until_us.checked_sub(latest_us) {
            None | Some(0) => Ok(Paid {
                until_us: Some(until_us),
            }),
            Some(wait_us) => Err(wait_us),
        }
    }
}

/// A line that the player may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) struct Paid {
    until_us: Option<u64>,
}

impl Paid {
    /// The line is said by this transaction.
    pub(super) fn enter<R: Record>(self, tx: &mut Tx<'_, R>, player: &'static PlayerRecord) {
        if let Some(until_us) = self.until_us {
            tx.set(&player.chat_paid_until_us, until_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    /// How many lines are accepted, one after the other, at one moment.
    fn said_at_once(rate: Rate, paid_until_us: &mut u64, now_us: u64) -> u64 {
        (0..)
            .find(|_| match rate.pay(*paid_until_us, now_us) {
                Ok(paid) => {
                    *paid_until_us = paid.until_us.expect("there is a limit");
                    false
                }
                Err(_) => true,
            })
            .expect("some end")
    }

    #[test]
    fn a_burst_is_free_and_comes_back_as_fast_as_the_rate_says() {
        let rate = Rate {
            burst: 5,
            per_minute: 60,
        };
        let (mut paid, start_us) = (0, 1_000_000_000);
        assert_eq!(said_at_once(rate, &mut paid, start_us), 5);
        assert_eq!(said_at_once(rate, &mut paid, start_us + 999_999), 0);
        assert_eq!(said_at_once(rate, &mut paid, start_us + SECOND_US), 1);
        assert_eq!(said_at_once(rate, &mut paid, start_us + 3 * SECOND_US), 2);
        assert_eq!(said_at_once(rate, &mut paid, start_us + 3600 * SECOND_US), 5);
    }

    #[test]
    fn who_is_too_fast_is_told_how_long_to_wait_and_may_speak_then() {
        let rate = Rate {
            burst: 2,
            per_minute: 30,
        };
        let mut paid = 0;
        assert_eq!(said_at_once(rate, &mut paid, 0), 2);
        let wait_us = rate.pay(paid, 500_000).expect_err("too fast");
        assert_eq!(wait_us, 1_500_000);
        assert!(rate.pay(paid, 500_000 + wait_us).is_ok());
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let rate = Rate {
            burst: 1,
            per_minute: 0,
        };
        assert_eq!(rate.pay(u64::MAX, 0), Ok(Paid { until_us: None }));
    }
}
