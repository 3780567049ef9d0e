//! One workload as it is asked for, on the command line or in a file, and how it is completed.

use clap::Args;

use super::kind::{LOBBY_CHAT_CLIENTS_MAX, Scope, WorkloadKind};
use super::{CLIENTS_MAX, Shape, WorkloadPlan, per_second};

/// Most members of a room that the wire can name.
const ROOM_SIZE_MAX: u32 = 255;

const CLIENTS_DEFAULT: u32 = 100;
const ROOM_SIZE_DEFAULT: u32 = 2;

/// One workload as it was asked for.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WorkloadOptions {
    /// What the clients do.
    #[arg(long = "workload", value_enum, default_value = "relay")]
    pub kind: Option<WorkloadKind>,
    /// Number of clients [default: 100, or rooms × room size].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub clients: Option<u32>,
    /// Number of rooms [default: clients / room size].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub rooms: Option<u32>,
    /// Members of each room [default: 2, or clients / rooms; broadcast: all]; two-player games allow only 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub room_size: Option<u32>,
    /// Messages, moves, requests or lines per client and second [default: 10; chat and announce: 0.5;
    /// broadcast: 60]; 0: the next one when the last one has been answered.
    #[arg(long, value_name = "N", value_parser = per_second)]
    pub rate: Option<f64>,
    /// Bytes of each relay message, including its header of 20, or of each line [default: 32; chat, broadcast
    /// and announce: 80].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32))]
    pub payload: Option<u32>,
    /// The recipients of chat lines, in turn: room, lobby (all clients on the server), whisper [default: all
    /// three]. A server refuses more than one line a second by default (--server-arg=--chat-per-minute=0
    /// changes that).
    #[arg(long, value_enum, value_name = "SCOPE,…", value_delimiter = ',', num_args = 1..)]
    pub say: Option<Vec<Scope>>,
}

/// Why a workload is invalid. `key` names the option to change, without dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidOption {
    pub key: &'static str,
    pub reason: String,
}

impl WorkloadOptions {
    /// The complete workload, with index `number` in the run.
    ///
    /// # Errors
    /// Which option is invalid.
    pub(crate) fn complete(&self, number: u32, seed: u64) -> Result<WorkloadPlan, InvalidOption> {
        let kind = self.kind.unwrap_or(WorkloadKind::Relay);
        let payload_bytes = match (kind.payload_bytes(), self.payload) {
            (None, None) => 0,
            (None, Some(_)) => {
                return invalid("payload", format!("{kind} has no payload to choose"));
            }
            (Some((_, default, _)), None) => default,
            (Some((least, _, most)), Some(bytes)) if (least..=most).contains(&bytes) => bytes,
            (Some((least, _, most)), Some(bytes)) => {
                return invalid(
                    "payload",
                    format!("{bytes} bytes: {kind} takes {least} to {most}"),
                );
            }
        };
        let shape = self.shape(kind)?;
        Ok(WorkloadPlan {
            number,
            kind,
            chat_scopes: self.chat_scopes(kind, shape)?,
            shape,
            rate: self.rate.unwrap_or(kind.rate_default()),
            payload_bytes,
            seed: seed.wrapping_add(u64::from(number) << 32),
        })
    }

    fn chat_scopes(&self, kind: WorkloadKind, shape: Shape) -> Result<Vec<Scope>, InvalidOption> {
        let scopes = match (kind, &self.say) {
            (WorkloadKind::Chat, None) => Scope::ALL.to_vec(),
            (WorkloadKind::Chat, Some(scopes)) if scopes.is_empty() => {
                return invalid("say", "no recipients".to_owned());
            }
            (WorkloadKind::Chat, Some(scopes)) => scopes.clone(),
            (_, None) => Vec::new(),
            (_, Some(_)) => return invalid("say", format!("{kind} sends no chat")),
        };
        if scopes.contains(&Scope::Lobby) && shape.clients > LOBBY_CHAT_CLIENTS_MAX {
            return invalid(
                "say",
                format!(
                    "every client receives lobby chat, so {} clients are too many: at most {}",
                    shape.clients, LOBBY_CHAT_CLIENTS_MAX
                ),
            );
        }
        Ok(scopes)
    }

    /// Completes clients, rooms and room size from those that were given.
    fn shape(&self, kind: WorkloadKind) -> Result<Shape, InvalidOption> {
        let with = |clients, rooms, room_size| Shape {
            clients,
            rooms,
            room_size,
        };
        if kind.game().is_none() {
            let given = [("rooms", self.rooms), ("room_size", self.room_size)];
            if let Some((key, _)) = given.iter().find(|(_, given)| given.is_some()) {
                return invalid(key, format!("{kind} has no rooms that its clients stay in"));
            }
            return Ok(with(self.clients.unwrap_or(CLIENTS_DEFAULT), 0, 0));
        }
        let paired = kind.is_paired();
        let broadcasts = kind == WorkloadKind::Broadcast;
        if paired && self.room_size.is_some_and(|size| size != 2) {
            return invalid("room_size", format!("a {kind} room has two seats"));
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
            return invalid(
                "rooms",
                format!("{rooms} rooms of {room_size} make {clients} clients; the most is {CLIENTS_MAX}"),
            );
        }
        if rooms == 0 || rooms.checked_mul(room_size) != Some(clients) {
            let (rooms, room_size) = (rooms.max(1), room_size.max(1));
            return invalid(
                "clients",
                format!("{clients} clients do not fill {rooms} rooms of {room_size} exactly"),
            );
        }
        if kind.seats(room_size) > ROOM_SIZE_MAX {
            return invalid(
                "rooms",
                format!("{clients} clients in {rooms} rooms: a room has at most {ROOM_SIZE_MAX} seats"),
            );
        }
        Ok(with(clients, rooms, room_size))
    }
}

fn invalid<T>(key: &'static str, reason: String) -> Result<T, InvalidOption> {
    Err(InvalidOption { key, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: WorkloadKind) -> WorkloadOptions {
        WorkloadOptions {
            kind: Some(kind),
            ..WorkloadOptions::default()
        }
    }

    fn sizes(options: &WorkloadOptions) -> (u32, u32, u32) {
        let shape = options.complete(0, 1).expect("possible").shape;
        (shape.clients, shape.rooms, shape.room_size)
    }

    #[test]
    fn clients_rooms_and_room_size_complete_each_other() {
        for (clients, rooms, room_size, expected) in [
            (None, None, None, (100, 50, 2)),
            (Some(10), None, None, (10, 5, 2)),
            (None, Some(7), None, (14, 7, 2)),
            (None, Some(7), Some(3), (21, 7, 3)),
            (Some(20), Some(5), None, (20, 5, 4)),
            (Some(20), None, Some(5), (20, 4, 5)),
        ] {
            let options = WorkloadOptions {
                clients,
                rooms,
                room_size,
                ..WorkloadOptions::default()
            };
            assert_eq!(sizes(&options), expected, "{options:?}");
        }
        let paired = WorkloadOptions {
            clients: Some(20),
            ..options(WorkloadKind::Connect4)
        };
        assert_eq!(sizes(&paired), (20, 10, 2));
        assert_eq!(sizes(&options(WorkloadKind::Lobby)), (100, 0, 0));
    }

    #[test]
    fn an_invalid_option_is_named() {
        use WorkloadKind::*;
        let (clients, rooms, room_size, payload) = (None, None, None, None);
        let of = |kind, clients, rooms, room_size, payload| WorkloadOptions {
            kind: Some(kind),
            clients,
            rooms,
            room_size,
            payload,
            rate: None,
            say: None,
        };
        for (options, key, reason) in [
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
            let invalid = options.complete(0, 1).expect_err(reason);
            assert_eq!(invalid.key, key, "{invalid:?}");
            assert!(invalid.reason.contains(reason), "{invalid:?}");
        }
    }

    #[test]
    fn only_chat_has_recipients_and_lobby_chat_has_a_limit_of_clients() {
        let chat_scopes = |kind, clients, say: &[Scope]| {
            let options = WorkloadOptions {
                kind: Some(kind),
                clients: Some(clients),
                say: Some(say.to_vec()),
                ..WorkloadOptions::default()
            };
            options
                .complete(0, 1)
                .map(|plan| plan.chat_scopes)
                .map_err(|invalid| invalid.key)
        };
        assert_eq!(
            options(WorkloadKind::Chat)
                .complete(0, 1)
                .expect("possible")
                .chat_scopes,
            Scope::ALL
        );
        assert_eq!(
            chat_scopes(WorkloadKind::Chat, 4000, &[Scope::Room]),
            Ok(vec![Scope::Room])
        );
        for bad in [
            chat_scopes(WorkloadKind::Chat, 4000, &[Scope::Lobby]),
            chat_scopes(WorkloadKind::Chat, 4, &[]),
            chat_scopes(WorkloadKind::Relay, 4, &[Scope::Room]),
        ] {
            assert_eq!(bad, Err("say"));
        }
    }

    #[test]
    fn workloads_of_one_run_have_different_seeds() {
        let seeds = [0, 1].map(|number| {
            WorkloadOptions::default()
                .complete(number, 7)
                .expect("possible")
                .seed
        });
        assert_ne!(seeds[0], seeds[1]);
    }
}
