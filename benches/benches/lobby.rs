//! Benchmarks of the lobby's transactions, alone and beside a second process, and of the same work with Redis and LMDB.
//!
//! The measurement of Forkade is what a handler does between receiving a frame and ringing the doorbell, or only the
//! transaction in it. A frame is more work than the operations in Redis and LMDB: the handler decodes and checks it,
//! runs the game's code, and writes the event for everyone and the answer for the player.

#[path = "../../tests/harness/mod.rs"]
mod harness;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use forkade::games::{Game, Games, Outbox, Outcome, Rejection, Start, Viewer};
use forkade::testing::state::layout::{Capacity, Memory};
use forkade::testing::state::rooms::{read_state, write_state};
use forkade_benches::lmdb::Lmdb;
use forkade_benches::redis_server::{Redis, RedisServer};
use forkade_benches::{BackgroundProcess, COUNT_INDEX, ROOM_BYTES};
use forkade_protocol::{ClientMessage, RoomId, RoomSettings, ServerMessage, codec};
use serde::{Deserialize, Serialize};
use shmem::transaction::{Attachment, Record};

use crate::harness::{Actor, World};

/// Number of rooms and players.
const RECORDS: u32 = 8;
/// The room of the process that is measured.
const MEASURED: u32 = 0;
/// The room of the second process, if it does not use the same room.
const OTHER: u32 = 1;

/// A game whose state has as many bytes as a room in Redis and LMDB.
#[derive(Serialize, Deserialize)]
struct Ledger {
    bytes: Vec<u8>,
}

impl Game for Ledger {
    type Options = ();
    type Action = ();
    type Event = u8;
    type View = u8;

    const NAME: &'static str = "ledger";
    const SEATS: std::ops::RangeInclusive<u8> = 1..=2;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::AtOnce;

    fn new((): (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        // The encoded length of the bytes takes two bytes.
        let bytes = vec![0; ROOM_BYTES - 2];
        Ok(Self { bytes })
    }

    fn act(&mut self, _seat: u8, (): (), out: &mut Outbox<u8>) -> Result<(), Rejection> {
        self.bytes[COUNT_INDEX] = self.bytes[COUNT_INDEX].wrapping_add(1);
        out.to_all(&self.bytes[COUNT_INDEX]);
        Ok(())
    }

    fn view(&self, _viewer: Viewer) -> u8 {
        self.bytes[COUNT_INDEX]
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(_text: &str, _view: Option<&Self::View>) -> Result<(), Rejection> {
        Ok(())
    }

    fn draw(view: &u8, _name_of: &dyn Fn(u8) -> String) -> String {
        format!("{view}\n")
    }
}

/// The room in which a second process works, if there is one.
#[derive(Clone, Copy)]
enum Contention {
    None,
    OtherRoom,
    SameRoom,
}

impl Contention {
    const ALL: [Self; 3] = [Self::None, Self::OtherRoom, Self::SameRoom];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "alone",
            Self::OtherRoom => "beside another, other room",
            Self::SameRoom => "beside another, same room",
        }
    }

    /// Starts the second process, if there is one. `prepare` gets the room to work in.
    fn start<Work: FnMut()>(self, prepare: impl FnOnce(u32) -> Work) -> Option<BackgroundProcess> {
        match self {
            Self::None => None,
            Self::OtherRoom => Some(BackgroundProcess::start(|| prepare(OTHER))),
            Self::SameRoom => Some(BackgroundProcess::start(|| prepare(MEASURED))),
        }
    }
}

fn world() -> World {
    let capacity = Capacity {
        players: RECORDS,
        rooms: RECORDS,
        keepers: 1,
    };
    let mut games = Games::new();
    games.add::<Ledger>().expect("the name is unique");
    World {
        memory: Memory::create(capacity).expect("memory for a small lobby"),
        games: Box::leak(Box::new(games)),
    }
}

/// A player that has created a room, and the room.
fn with_room(world: World, slot: u32) -> (Actor, RoomId) {
    let mut actor = Actor::connect_as(world, slot, &format!("owner {slot}"));
    actor.request(&ClientMessage::CreateRoom {
        request: 0,
        game: Ledger::NAME.to_owned(),
        name: format!("room {slot}"),
        settings: RoomSettings::default(),
    });
    let room = actor.receive_messages().into_iter().find_map(|message| match message {
        ServerMessage::Joined { snapshot, .. } => Some(snapshot.room),
        _ => None,
    });
    (actor, room.expect("the room is open"))
}

/// Time in which the handler processes these frames. Receiving them and sending the answers does not count.
fn handle(actor: &mut Actor, messages: &[ClientMessage]) -> Duration {
    let mut elapsed = Duration::ZERO;
    for message in messages {
        actor.send_message(message);
        let started = Instant::now();
        let next = actor.handle();
        elapsed += started.elapsed();
        black_box(next);
        black_box(actor.receive_messages());
    }
    elapsed
}

fn total(iterations: u64, mut measure: impl FnMut() -> Duration) -> Duration {
    (0..iterations).map(|_| measure()).sum()
}

fn update(attachment: &mut Attachment, world: World, room: u32) {
    let mut tx = attachment.begin(world.memory.rooms.at(room));
    let mut state = read_state(&tx);
    state[COUNT_INDEX] = state[COUNT_INDEX].wrapping_add(1);
    write_state(&mut tx, &state, 1);
    tx.commit().expect("it fits the journal");
}

fn act() -> ClientMessage {
    ClientMessage::Act {
        request: 0,
        action: codec::encode(&()).expect("it is encoded"),
    }
}

fn join_and_leave(room: RoomId) -> [ClientMessage; 2] {
    let join = ClientMessage::JoinRoom {
        request: 0,
        room,
        passcode: None,
    };
    [join, ClientMessage::Leave { request: 0 }]
}

fn state_updates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state of 256 bytes, read, changed, written");
    for contention in Contention::ALL {
        bare_transactions(&mut group, contention);
        whole_acts(&mut group, contention);
        with_lmdb(&mut group, contention, "lmdb", Lmdb::update);
        with_redis(&mut group, contention, "redis", Redis::update);
    }
    group.finish();
}

fn bare_transactions(group: &mut BenchmarkGroup<'_, WallTime>, contention: Contention) {
    let world = world();
    let mut attachment = world.memory.imitate_attachment();
    for room in [MEASURED, OTHER] {
        let record = world.memory.rooms.at(room);
        record.lock().prepare();
        let mut tx = attachment.begin(record);
        write_state(&mut tx, &[0; ROOM_BYTES], 1);
        tx.commit().expect("it fits the journal");
    }
    let background = contention.start(|room| {
        let mut attachment = world.memory.attach();
        move || update(&mut attachment, world, room)
    });
    let name = format!("forkade, the transaction/{}", contention.name());
    group.bench_function(name, |bench| {
        bench.iter(|| update(&mut attachment, world, MEASURED));
    });
    drop(background);
}

fn whole_acts(group: &mut BenchmarkGroup<'_, WallTime>, contention: Contention) {
    let world = world();
    let (mut mine, my_room) = with_room(world, 0);
    let background = contention.start(|room| {
        let mut other = match room {
            MEASURED => {
                let mut guest = Actor::connect_as(world, 1, "guest");
                let [join, _] = join_and_leave(my_room);
                guest.request(&join);
                guest.receive_messages();
                guest
            }
            _ => with_room(world, 1).0,
        };
        move || {
            black_box(handle(&mut other, &[act()]));
        }
    });
    let (name, act) = (format!("forkade, the whole frame/{}", contention.name()), [act()]);
    group.bench_function(name, |bench| {
        bench.iter_custom(|iterations| total(iterations, || handle(&mut mine, &act)));
    });
    drop(background);
}

fn joins_and_leaves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a join and a leave");
    for contention in [Contention::None, Contention::OtherRoom] {
        let world = world();
        // The owners keep both rooms open.
        let rooms = [0, 1].map(|slot| with_room(world, slot));
        let messages = [0, 1].map(|place: usize| join_and_leave(rooms[place].1));
        let mut mine = Actor::connect_as(world, 2, "mine");
        let background = contention.start(|room| {
            let mut other = Actor::connect_as(world, 3, "other");
            let messages = messages[room as usize].clone();
            move || {
                black_box(handle(&mut other, &messages));
            }
        });
        let name = format!("forkade, both frames/{}", contention.name());
        group.bench_function(name, |bench| {
            bench.iter_custom(|iterations| total(iterations, || handle(&mut mine, &messages[0])));
        });
        drop(background);
        with_lmdb(&mut group, contention, "lmdb", |lmdb, room| {
            lmdb.set_membership(room, room, true)?;
            lmdb.set_membership(room, room, false)
        });
        with_redis(&mut group, contention, "redis", |redis, room| {
            redis.set_membership(room, room, true)?;
            redis.set_membership(room, room, false)
        });
    }
    group.finish();
}

fn with_lmdb(
    group: &mut BenchmarkGroup<'_, WallTime>,
    contention: Contention,
    name: &str,
    work: impl Fn(&Lmdb, u32) -> heed::Result<()> + Copy,
) {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    // The fork comes first: a process may open the file only once, and a forked process must not use its parent's
    // handle.
    let background = contention.start(|room| {
        let lmdb = Lmdb::open(directory.path(), RECORDS).expect("LMDB opens");
        move || work(&lmdb, room).expect("LMDB works")
    });
    let lmdb = Lmdb::open(directory.path(), RECORDS).expect("LMDB opens");
    group.bench_function(format!("{name}/{}", contention.name()), |bench| {
        bench.iter(|| work(&lmdb, MEASURED).expect("LMDB works"));
    });
    drop(background);
}

fn with_redis(
    group: &mut BenchmarkGroup<'_, WallTime>,
    contention: Contention,
    name: &str,
    work: impl Fn(&mut Redis, u32) -> redis::RedisResult<()> + Copy,
) {
    let Some(server) = RedisServer::start(RECORDS) else {
        return;
    };
    let background = contention.start(|room| {
        let mut redis = server.connect().expect("Redis answers");
        move || work(&mut redis, room).expect("Redis works")
    });
    let mut redis = server.connect().expect("Redis answers");
    group.bench_function(format!("{name}, unix socket/{}", contention.name()), |bench| {
        bench.iter(|| work(&mut redis, MEASURED).expect("Redis works"));
    });
    drop(background);
}

criterion_group!(benches, state_updates, joins_and_leaves);
criterion_main!(benches);
