//! What a run consists of: one workload or several, each with its own clients, rooms and pace.

use std::fmt;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::workload::broadcast;
use crate::workload::chat::{self, Scope};
use crate::workload::relay;

/// Most clients of a run.
pub(crate) const CLIENTS_MAX: u32 = 200_000;
/// Most clients that one process drives: each needs a port of its own towards the one server address.
pub(crate) const CLIENTS_PER_PROCESS_MAX: u32 = 28_000;
/// Most members of a room that the wire can name.
pub(crate) const ROOM_SIZE_MAX: u32 = 255;
/// Highest rate; above it a schedule in nanoseconds means nothing.
pub(crate) const PER_SECOND_MAX: f64 = 100_000.0;
/// Lowest one above 0.
pub(crate) const PER_SECOND_MIN: f64 = 0.001;

const CLIENTS_DEFAULT: u32 = 100;
const ROOM_SIZE_DEFAULT: u32 = 2;
const RATE_DEFAULT: f64 = 10.0;
const PAYLOAD_BYTES_DEFAULT: u32 = 32;

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkloadKind {
    /// Every message goes to all members of the room, numbered and checked.
    Relay,
    /// Pairs play random legal matches of tic-tac-toe, and check every event and result.
    Tictactoe,
    /// The same with connect four.
    Connect4,
    /// Clients list, create, join, watch and leave rooms, match quickly, go and come back as new players; every answer
    /// and every event is checked against who is where.
    Lobby,
    /// Everybody talks, in rooms, in the lobby and to one another: every line must reach each of its readers once and in its
    /// speaker's order.
    Chat,
    /// One seat of each room sends, and all others watch: every message comes to each of them.
    Broadcast,
    /// One client speaks to the lobby, and everybody on the server hears it.
    Announce,
}

/// One workload as it was asked for.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Wish {
    /// What the clients do.
    #[arg(long = "workload", value_enum, default_value = "relay")]
    pub kind: Option<WorkloadKind>,
    /// Number of clients [default: 100, or rooms × room size].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub clients: Option<u32>,
    /// Number of rooms [default: clients / room size].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub rooms: Option<u32>,
    /// Members of each room [default: 2, or clients / rooms; broadcast: all]; two-player games know only 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub room_size: Option<u32>,
    /// Messages, moves, requests or lines per client and second [default: 10; chat and announce: 0.5;
    /// broadcast: 60]; 0: the next one when the last has come
    /// back.
    #[arg(long, value_name = "N", value_parser = per_second)]
    pub rate: Option<f64>,
    /// Bytes of each relay message, its header of 20 included, or of each line [default: 32; chat, broadcast
    /// and announce: 80].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32))]
    pub payload: Option<u32>,
    /// To whom chat lines go, in turn: room, lobby (to everybody on the server), whisper [default: all three]. A server refuses
    /// more than one line a second unless it is told otherwise (--server-arg=--chat-per-minute=0).
    #[arg(long, value_enum, value_name = "SCOPE,…", value_delimiter = ',', num_args = 1..)]
    pub say: Option<Vec<Scope>>,
}

/// One workload of a run. Its clients are numbered from 0 here, whatever their place in the run is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// Which of the run's workloads this is.
    pub number: u32,
    pub kind: WorkloadKind,
    pub shape: Shape,
    /// Per client and second; 0 is a closed loop.
    pub rate: f64,
    pub payload_bytes: u32,
    /// To whom chat lines go, in turn; empty if there are none.
    pub say: Vec<Scope>,
    /// Of everything random in it.
    pub seed: u64,
}

/// How many clients sit in how many rooms: `clients == rooms * room_size`. Without rooms of their own both are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub clients: u32,
    pub rooms: u32,
    pub room_size: u32,
}

/// Why a workload cannot be as it was asked for. `key` names what is to be changed, without dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Impossible {
    pub key: &'static str,
    pub reason: String,
}

impl WorkloadKind {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Tictactoe => "tictactoe",
            Self::Connect4 => "connect4",
            Self::Lobby => "lobby",
            Self::Chat => "chat",
            Self::Broadcast => "broadcast",
            Self::Announce => "announce",
        }
    }

    /// The game that its rooms are made for; nothing if it gets its clients into no rooms.
    pub(crate) const fn game(self) -> Option<&'static str> {
        match self {
            // Room chat needs a room, whichever.
            Self::Relay | Self::Chat | Self::Broadcast => Some("relay"),
            Self::Tictactoe => Some("tictactoe"),
            Self::Connect4 => Some("connect4"),
            Self::Lobby | Self::Announce => None,
        }
    }

    /// How many of a room's members have seats; the others watch.
    pub(crate) const fn seats(self, room_size: u32) -> u32 {
        match self {
            Self::Broadcast => 1,
            _ => room_size,
        }
    }

    /// Whether its rooms have two seats and no others.
    const fn is_paired(self) -> bool {
        matches!(self, Self::Tictactoe | Self::Connect4)
    }

    /// Shortest, default and longest payload in bytes; nothing if it sends none.
    const fn payload_bytes(self) -> Option<(u32, u32, u32)> {
        match self {
            Self::Relay => Some((
                relay::HEADER_BYTES,
                PAYLOAD_BYTES_DEFAULT,
                relay::PAYLOAD_BYTES_MAX,
            )),
            Self::Chat => Some((
                chat::LINE_BYTES_MIN,
                chat::LINE_BYTES_DEFAULT,
                chat::LINE_BYTES_MAX,
            )),
            Self::Broadcast | Self::Announce => Some((
                broadcast::LINE_BYTES_MIN,
                broadcast::LINE_BYTES_DEFAULT,
                broadcast::LINE_BYTES_MAX,
            )),
            Self::Tictactoe | Self::Connect4 | Self::Lobby => None,
        }
    }

    const fn rate_default(self) -> f64 {
        match self {
            Self::Chat => chat::RATE_DEFAULT,
            Self::Broadcast => broadcast::BROADCAST_RATE_DEFAULT,
            Self::Announce => broadcast::ANNOUNCE_RATE_DEFAULT,
            Self::Relay | Self::Tictactoe | Self::Connect4 | Self::Lobby => RATE_DEFAULT,
        }
    }
}

impl Wish {
    /// The complete workload, the `number`th of its run.
    ///
    /// # Errors
    /// What is impossible about it.
    pub(crate) fn fulfil(&self, number: u32, seed: u64) -> Result<Part, Impossible> {
        let kind = self.kind.unwrap_or(WorkloadKind::Relay);
        let payload_bytes = match (kind.payload_bytes(), self.payload) {
            (None, None) => 0,
            (None, Some(_)) => {
                return impossible("payload", format!("{kind} has no payload to choose"));
            }
            (Some((_, default, _)), None) => default,
            (Some((least, _, most)), Some(bytes)) if (least..=most).contains(&bytes) => bytes,
            (Some((least, _, most)), Some(bytes)) => {
                return impossible(
                    "payload",
                    format!("{bytes} bytes: {kind} takes {least} to {most}"),
                );
            }
        };
        let shape = self.shape(kind)?;
        Ok(Part {
            number,
            kind,
            say: self.say(kind, shape)?,
            shape,
            rate: self.rate.unwrap_or(kind.rate_default()),
            payload_bytes,
            seed: seed.wrapping_add(u64::from(number) << 32),
        })
    }

    fn say(&self, kind: WorkloadKind, shape: Shape) -> Result<Vec<Scope>, Impossible> {
        let say = match (kind, &self.say) {
            (WorkloadKind::Chat, None) => Scope::ALL.to_vec(),
            (WorkloadKind::Chat, Some(say)) if say.is_empty() => {
                return impossible("say", "nobody to talk to".to_owned());
            }
            (WorkloadKind::Chat, Some(say)) => say.clone(),
            (_, None) => Vec::new(),
            (_, Some(_)) => return impossible("say", format!("{kind} says nothing")),
        };
        if say.contains(&Scope::Lobby) && shape.clients > chat::LOBBY_CLIENTS_MAX {
            return impossible(
                "say",
                format!(
                    "everybody hears the lobby, so that {} clients are too many: at most {}",
                    shape.clients,
                    chat::LOBBY_CLIENTS_MAX
                ),
            );
        }
        Ok(say)
    }

    /// Completes clients, rooms and room size from those that were given.
    fn shape(&self, kind: WorkloadKind) -> Result<Shape, Impossible> {
        let with = |clients, rooms, room_size| Shape {
            clients,
            rooms,
            room_size,
        };
        if kind.game().is_none() {
            let given = [("rooms", self.rooms), ("room_size", self.room_size)];
            if let Some((key, _)) = given.iter().find(|(_, given)| given.is_some()) {
                return impossible(key, format!("{kind} has no rooms that its clients stay in"));
            }
            return Ok(with(self.clients.unwrap_or(CLIENTS_DEFAULT), 0, 0));
        }
        let paired = kind.is_paired();
        let broadcasts = kind == WorkloadKind::Broadcast;
        if paired && self.room_size.is_some_and(|size| size != 2) {
            return impossible("room_size", format!("a {kind} room has two seats"));
        }
        let Shape {
            clients,
            rooms,
            room_size,
        } = match (self.clients, self.rooms, self.room_size) {
            (Some(clients), Some(rooms), None) if !paired => with(clients, rooms, clients / rooms),
            (None, Some(rooms), size) => {
                let room_size = size.unwrap_or(ROOM_SIZE_DEFAULT);
                with(rooms.saturating_mul(room_size), rooms, room_size)
            }
            (clients, rooms, size) => {
                let clients = clients.unwrap_or(CLIENTS_DEFAULT);
                let room_size = size.unwrap_or(if broadcasts { clients } else { ROOM_SIZE_DEFAULT });
                with(clients, rooms.unwrap_or(clients / room_size), room_size)
            }
        };
        if clients > CLIENTS_MAX {
            return impossible(
                "rooms",
                format!("{rooms} rooms of {room_size} make {clients} clients; the most is {CLIENTS_MAX}"),
            );
        }
        if rooms == 0 || rooms.checked_mul(room_size) != Some(clients) {
            let (rooms, room_size) = (rooms.max(1), room_size.max(1));
            return impossible(
                "clients",
                format!("{clients} clients do not fill {rooms} rooms of {room_size} exactly"),
            );
        }
        if kind.seats(room_size) > ROOM_SIZE_MAX {
            return impossible(
                "rooms",
                format!("{clients} clients in {rooms} rooms: a room has at most {ROOM_SIZE_MAX} seats"),
            );
        }
        Ok(with(clients, rooms, room_size))
    }
}

impl Part {
    /// Shortest time between two messages of one client, in nanoseconds; 0 in a closed loop.
    pub(crate) fn interval_ns(&self) -> u64 {
        if self.rate > 0.0 {
            crate::schedule::Schedule::new(0, self.rate).interval_ns()
        } else {
            0
        }
    }
}

fn impossible<T>(key: &'static str, reason: String) -> Result<T, Impossible> {
    Err(Impossible { key, reason })
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a workload is, in one line: `relay: 100 clients in 50 rooms of 2, 10/s each`.
impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape {
            clients,
            rooms,
            room_size,
        } = self.shape;
        write!(formatter, "{}: {clients} clients", self.kind)?;
        if rooms > 0 {
            let s = if rooms == 1 { "" } else { "s" };
            write!(formatter, " in {rooms} room{s} of {room_size}")?;
        }
        if self.rate > 0.0 {
            write!(formatter, ", {}/s each", self.rate)?;
        } else {
            formatter.write_str(", closed loop")?;
        }
        for (place, scope) in self.say.iter().enumerate() {
            write!(formatter, "{} {scope}", if place == 0 { ", to" } else { " /" })?;
        }
        Ok(())
    }
}

/// For the command line: a rate per second, or 0.
pub(crate) fn per_second(text: &str) -> Result<f64, String> {
    let number = text.parse().map_err(|_| rates())?;
    check_per_second(number)
}

/// The same for a number.
pub(crate) fn check_per_second(number: f64) -> Result<f64, String> {
    let is_rate = number == 0.0 || (PER_SECOND_MIN..=PER_SECOND_MAX).contains(&number);
    if is_rate { Ok(number) } else { Err(rates()) }
}

fn rates() -> String {
    format!("must be a number: 0, or from {PER_SECOND_MIN} to {PER_SECOND_MAX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(kind: WorkloadKind) -> Wish {
        Wish {
            kind: Some(kind),
            ..Wish::default()
        }
    }

    fn sizes(wish: &Wish) -> (u32, u32, u32) {
        let shape = wish.fulfil(0, 1).expect("possible").shape;
        (shape.clients, shape.rooms, shape.room_size)
    }

    #[test]
    fn any_two_of_clients_rooms_and_size_give_the_third() {
        for (clients, rooms, room_size, expected) in [
            (None, None, None, (100, 50, 2)),
            (Some(10), None, None, (10, 5, 2)),
            (None, Some(7), None, (14, 7, 2)),
            (None, Some(7), Some(3), (21, 7, 3)),
            (Some(20), Some(5), None, (20, 5, 4)),
            (Some(20), None, Some(5), (20, 4, 5)),
        ] {
            let wish = Wish {
                clients,
                rooms,
                room_size,
                ..Wish::default()
            };
            assert_eq!(sizes(&wish), expected, "{wish:?}");
        }
        let paired = Wish {
            clients: Some(20),
            ..wish(WorkloadKind::Connect4)
        };
        assert_eq!(sizes(&paired), (20, 10, 2));
        assert_eq!(sizes(&wish(WorkloadKind::Lobby)), (100, 0, 0));
    }

    #[test]
    fn what_is_impossible_names_its_key() {
        use WorkloadKind::*;
        let (clients, rooms, room_size, payload) = (None, None, None, None);
        let of = |kind, clients, rooms, room_size, payload| Wish {
            kind: Some(kind),
            clients,
            rooms,
            room_size,
            payload,
            rate: None,
            say: None,
        };
        for (wish, key, reason) in [
            (
                of(Relay, Some(3), rooms, room_size, payload),
                "clients",
                "do not fill",
            ),
            (
                of(Relay, Some(1), rooms, room_size, payload),
                "clients",
                "do not fill",
            ),
            (
                of(Relay, clients, Some(150_000), Some(2), payload),
                "rooms",
                "the most is",
            ),
            (
                of(Relay, Some(600), Some(2), room_size, payload),
                "rooms",
                "at most 255 seats",
            ),
            (
                of(Relay, Some(10), Some(20), room_size, payload),
                "clients",
                "do not fill",
            ),
            (
                of(Tictactoe, clients, rooms, Some(3), payload),
                "room_size",
                "two seats",
            ),
            (
                of(Connect4, Some(8), Some(2), room_size, payload),
                "clients",
                "do not fill",
            ),
            (
                of(Lobby, clients, Some(2), room_size, payload),
                "rooms",
                "no rooms",
            ),
            (of(Relay, clients, rooms, room_size, Some(19)), "payload", "20 to"),
            (
                of(Relay, clients, rooms, room_size, Some(9000)),
                "payload",
                "20 to",
            ),
            (
                of(Lobby, clients, rooms, room_size, Some(32)),
                "payload",
                "no payload",
            ),
        ] {
            let impossible = wish.fulfil(0, 1).expect_err(reason);
            assert_eq!(impossible.key, key, "{impossible:?}");
            assert!(impossible.reason.contains(reason), "{impossible:?}");
        }
    }

    #[test]
    fn only_chat_talks_and_not_with_everybody_to_the_lobby() {
        let say = |kind, clients, say: &[Scope]| {
            let wish = Wish {
                kind: Some(kind),
                clients: Some(clients),
                say: Some(say.to_vec()),
                ..Wish::default()
            };
            wish.fulfil(0, 1)
                .map(|part| part.say)
                .map_err(|impossible| impossible.key)
        };
        assert_eq!(
            wish(WorkloadKind::Chat).fulfil(0, 1).expect("possible").say,
            Scope::ALL
        );
        assert_eq!(
            say(WorkloadKind::Chat, 4000, &[Scope::Room]),
            Ok(vec![Scope::Room])
        );
        for bad in [
            say(WorkloadKind::Chat, 4000, &[Scope::Lobby]),
            say(WorkloadKind::Chat, 4, &[]),
            say(WorkloadKind::Relay, 4, &[Scope::Room]),
        ] {
            assert_eq!(bad, Err("say"));
        }
    }

    #[test]
    fn rates_are_numbers_that_a_schedule_can_keep() {
        assert_eq!((per_second("0"), per_second("2.5")), (Ok(0.0), Ok(2.5)));
        for bad in ["-1", "NaN", "inf", "0.0001", "1e9", "fast"] {
            assert!(per_second(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn workloads_of_one_run_draw_different_numbers() {
        let seeds = [0, 1].map(|number| Wish::default().fulfil(number, 7).expect("possible").seed);
        assert_ne!(seeds[0], seeds[1]);
    }
}
