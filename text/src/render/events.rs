//! A room's events, for people.

use forkade_games::{AnyGame, GameError};
use forkade_protocol::{ChatScope, Outcome, RoomEvent};

use crate::render::rooms::{rules_text, seat_name};
use crate::render::wrap::{chat_prefix, wrap};

/// What is needed to describe the events of a room.
#[derive(Clone, Copy)]
pub struct RenderContext<'s> {
    /// The room's game.
    pub game: Option<&'s dyn AnyGame>,
    /// The reader's own seat.
    pub seat: Option<u8>,
    /// The name of the player who has a seat.
    pub names: &'s dyn Fn(u8) -> Option<String>,
    /// The name of the player who last had a seat, if it is free.
    pub left: &'s dyn Fn(u8) -> Option<String>,
}

impl RenderContext<'_> {
    /// The lines that describe an event; empty if another message shows it.
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    pub fn event(&self, event: &RoomEvent) -> Result<String, GameError> {
        let own = |seat: u8| self.seat == Some(seat);
        let name = |seat: u8| (self.names)(seat).unwrap_or_else(|| format!("seat {seat}"));
        let former = |seat: u8| {
            (self.left)(seat).unwrap_or_else(|| format!("the player on {}", seat_name(self.game, seat)))
        };
        let text = match event {
            RoomEvent::Joined { seat, name } => format!("{name} takes {}.", seat_name(self.game, *seat)),
            RoomEvent::Left { seat } => match (self.left)(*seat) {
                Some(name) => format!("{name} has left."),
                None => format!("The player on {} has left.", seat_name(self.game, *seat)),
            },
            RoomEvent::Connection {
                seat,
                connected: true,
            } => format!("{} is back.", name(*seat)),
            RoomEvent::Connection {
                seat,
                connected: false,
            } => {
                format!(
                    "{} has lost the connection; the seat is kept for a while.",
                    name(*seat)
                )
            }
            RoomEvent::Ready { seat, ready } => {
                let whose = if own(*seat) {
                    "You are".to_owned()
                } else {
                    format!("{} is", name(*seat))
                };
                format!("{whose} {}.", if *ready { "ready" } else { "not ready any more" })
            }
            // The message `Started` shows it, with the view.
            RoomEvent::Started => String::new(),
            RoomEvent::Game { data } => match self.game {
                Some(game) => game.describe(data, &name)?,
                None => String::new(),
            },
            RoomEvent::Chat { from, text } => return Ok(wrap(&chat_prefix(&ChatScope::Room, from), text)),
            RoomEvent::Finished { outcome } => {
                let end = match outcome {
                    Outcome::Won { seats } if self.seat.is_some_and(|seat| seats == &[seat]) => {
                        "You have won!".to_owned()
                    }
                    Outcome::Won { seats } => {
                        let names: Vec<_> = seats.iter().map(|seat| name(*seat)).collect();
                        format!(
                            "{} {} won.",
                            names.join(" and "),
                            if seats.len() == 1 { "has" } else { "have" }
                        )
                    }
                    Outcome::Draw => "A draw.".to_owned(),
                    Outcome::Abandoned => "The match was broken off.".to_owned(),
                };
                let hint = match self.seat {
                    Some(_) => " \"rematch\" for another one, \"leave\" for the lobby.",
                    None => "",
                };
                end + hint
            }
            RoomEvent::Owner { seat } if own(*seat) => "You own the room now.".into(),
            RoomEvent::Owner { seat } => format!("{} owns the room now.", name(*seat)),
            RoomEvent::Kicked { seat } => format!("The owner has sent {} out.", former(*seat)),
            RoomEvent::Reserved { seat, name } => {
                format!("{} is kept for {name}.", capital(&seat_name(self.game, *seat)))
            }
            RoomEvent::ReservationOver { seat } => {
                format!(
                    "{} is free for anybody again.",
                    capital(&seat_name(self.game, *seat))
                )
            }
            RoomEvent::Configured { rules: changed } => {
                let others = match rules_text(self.game, changed) {
                    none if none.is_empty() => String::new(),
                    others => format!(", {others}"),
                };
                format!("The owner has changed the room: {} seats{others}.", changed.seats)
            }
            RoomEvent::Turn { seat, milliseconds } => {
                let seconds = milliseconds.div_ceil(1000);
                let whose = if own(*seat) {
                    "Your".to_owned()
                } else {
                    name(*seat) + "'s"
                };
                format!("{whose} turn: {seconds} seconds.")
            }
            RoomEvent::TurnTimedOut { seat } if own(*seat) => "You took too long.".into(),
            RoomEvent::TurnTimedOut { seat } => format!("{} took too long.", name(*seat)),
            RoomEvent::TurnStopped => "The turn clock has stopped.".into(),
        };
        Ok(if text.is_empty() { text } else { wrap("", &text) })
    }
}

/// With a capital letter.
fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}
