//! The lobby's transactions, alone and beside a second process; and the same done with Redis and LMDB.
//!
//! What is measured of Forkade is what a handler does between receiving a frame and ringing the doorbell, or the bare transaction inside
//! of it. A frame is more work than what the others are asked for: it is decoded and checked, the game's code runs,
//! everybody's event and the player's answer are written, too.

#[path = "../../tests/harness/mod.rs"]
mod harness;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use forkade::games::{Game, Games, Outbox, Outcome, Rejection, Start, Viewer};
use forkade::testing::state::layout::{Capacity, Memory};
use forkade::testing::state::rooms::{read_state, write_state};
use shmem::transaction::{Attachment, Record};
use forkade_benches::lmdb::Lmdb;
use forkade_benches::redis_server::{Redis, RedisServer};
use forkade_benches::{COUNT_AT, ROOM_BYTES, Rival};
use forkade_protocol::{ClientMessage, RoomId, RoomSettings, ServerMessage, codec};
use serde::{Deserialize, Serialize};

use crate::harness::{Actor, World};

/// Rooms and players there are.
const RECORDS: u32 = 8;
/// Those of the process that is measured.
const MINE: u32 = 0;
/// Those of the other, where they do not meet.
const OTHER: u32 = 1;

/// A game whose state has as many bytes as the others' rooms.
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
        // Two bytes say how many there are.
        let bytes = vec![0; ROOM_BYTES - 2];
        Ok(Self { bytes })
    }

    fn act(&mut self, _seat: u8, (): (), out: &mut Outbox<u8>) -> Result<(), Rejection> {
        self.bytes[COUNT_AT] = self.bytes[COUNT_AT].wrapping_add(1);
        out.to_all(&self.bytes[COUNT_AT]);
        Ok(())
    }

    fn view(&self, _viewer: Viewer) -> u8 {
        self.bytes[COUNT_AT]
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(_text: &str) -> Result<(), Rejection> {
        Ok(())
    }

    fn draw(view: &u8) -> String {
        format!("{view}\n")
    }
}

/// Which of the rooms a second process is at work in.
#[derive(Clone, Copy)]
enum Company {
    None,
    InAnotherRoom,
    InTheSameRoom,
}

impl Company {
    const ALL: [Self; 3] = [Self::None, Self::InAnotherRoom, Self::InTheSameRoom];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "alone",
            Self::InAnotherRoom => "beside another, other room",
            Self::InTheSameRoom => "beside another, same room",
        }
    }

    /// Starts it, if there is to be one, with the room that it is to work in.
    fn start<Work: FnMut()>(self, prepare: impl FnOnce(u32) -> Work) -> Option<Rival> {
        match self {
            Self::None => None,
            Self::InAnotherRoom => Some(Rival::start(|| prepare(OTHER))),
            Self::InTheSameRoom => Some(Rival::start(|| prepare(MINE))),
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
    games.add::<Ledger>().expect("a name of its own");
    World {
        memory: Memory::create(capacity).expect("memory for a small lobby"),
        games: Box::leak(Box::new(games)),
    }
}

/// A player who has opened a room, and the room.
fn with_room(world: World, slot: u32) -> (Actor, RoomId) {
    let mut actor = Actor::greeted(world, slot, &format!("owner {slot}"));
    actor.asks(&ClientMessage::CreateRoom {
        request: 0,
        game: Ledger::NAME.to_owned(),
        name: format!("room {slot}"),
        settings: RoomSettings::default(),
    });
    let room = actor.hear().into_iter().find_map(|message| match message {
        ServerMessage::Joined { snapshot, .. } => Some(snapshot.room),
        _ => None,
    });
    (actor, room.expect("the room is open"))
}

/// How long the handler takes for these frames; receiving them, and sending the answers, is not counted.
fn handle(actor: &mut Actor, messages: &[ClientMessage]) -> Duration {
    let mut taken = Duration::ZERO;
    for message in messages {
        actor.say(message);
        let began = Instant::now();
        let next = actor.handle();
        taken += began.elapsed();
        black_box(next);
        black_box(actor.hear());
    }
    taken
}

fn times(iterations: u64, mut once: impl FnMut() -> Duration) -> Duration {
    (0..iterations).map(|_| once()).sum()
}

fn update(attachment: &mut Attachment, world: World, room: u32) {
    let mut tx = attachment.begin(world.memory.rooms.at(room));
    let mut state = read_state(&tx);
    state[COUNT_AT] = state[COUNT_AT].wrapping_add(1);
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
    for company in Company::ALL {
        bare_transactions(&mut group, company);
        whole_acts(&mut group, company);
        with_lmdb(&mut group, company, "lmdb", Lmdb::update);
        with_redis(&mut group, company, "redis", Redis::update);
    }
    group.finish();
}

fn bare_transactions(group: &mut BenchmarkGroup<'_, WallTime>, company: Company) {
    let world = world();
    let mut attachment = world.memory.attach();
    for room in [MINE, OTHER] {
        let record = world.memory.rooms.at(room);
        record.lock().prepare();
        let mut tx = attachment.begin(record);
        write_state(&mut tx, &[0; ROOM_BYTES], 1);
        tx.commit().expect("it fits the journal");
    }
    let rival = company.start(|room| {
        let mut attachment = world.memory.attach();
        move || update(&mut attachment, world, room)
    });
    let name = format!("forkade, the transaction/{}", company.name());
    group.bench_function(name, |bench| {
        bench.iter(|| update(&mut attachment, world, MINE));
    });
    drop(rival);
}

fn whole_acts(group: &mut BenchmarkGroup<'_, WallTime>, company: Company) {
    let world = world();
    let (mut mine, my_room) = with_room(world, 0);
    let rival = company.start(|room| {
        let mut other = match room {
            MINE => {
                let mut guest = Actor::greeted(world, 1, "guest");
                let [join, _] = join_and_leave(my_room);
                guest.asks(&join);
                guest.hear();
                guest
            }
            _ => with_room(world, 1).0,
        };
        move || {
            black_box(handle(&mut other, &[act()]));
        }
    });
    let (name, act) = (format!("forkade, the whole frame/{}", company.name()), [act()]);
    group.bench_function(name, |bench| {
        bench.iter_custom(|iterations| times(iterations, || handle(&mut mine, &act)));
    });
    drop(rival);
}

fn joins_and_leaves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a join and a leave");
    for company in [Company::None, Company::InAnotherRoom] {
        let world = world();
        // Both rooms are kept open by their owners.
        let rooms = [0, 1].map(|slot| with_room(world, slot));
        let messages = [0, 1].map(|place: usize| join_and_leave(rooms[place].1));
        let mut mine = Actor::greeted(world, 2, "mine");
        let rival = company.start(|room| {
            let mut other = Actor::greeted(world, 3, "other");
            let messages = messages[room as usize].clone();
            move || {
                black_box(handle(&mut other, &messages));
            }
        });
        let name = format!("forkade, both frames/{}", company.name());
        group.bench_function(name, |bench| {
            bench.iter_custom(|iterations| times(iterations, || handle(&mut mine, &messages[0])));
        });
        drop(rival);
        with_lmdb(&mut group, company, "lmdb", |lmdb, room| {
            lmdb.set_place(room, room, true)?;
            lmdb.set_place(room, room, false)
        });
        with_redis(&mut group, company, "redis", |redis, room| {
            redis.set_place(room, room, true)?;
            redis.set_place(room, room, false)
        });
    }
    group.finish();
}

fn with_lmdb(
    group: &mut BenchmarkGroup<'_, WallTime>,
    company: Company,
    name: &str,
    work: impl Fn(&Lmdb, u32) -> heed::Result<()> + Copy,
) {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    // The rival first: a process may open the file only once, and a fork must not use its parent's.
    let rival = company.start(|room| {
        let lmdb = Lmdb::open(directory.path(), RECORDS).expect("LMDB opens");
        move || work(&lmdb, room).expect("LMDB works")
    });
    let lmdb = Lmdb::open(directory.path(), RECORDS).expect("LMDB opens");
    group.bench_function(format!("{name}/{}", company.name()), |bench| {
        bench.iter(|| work(&lmdb, MINE).expect("LMDB works"));
    });
    drop(rival);
}

fn with_redis(
    group: &mut BenchmarkGroup<'_, WallTime>,
    company: Company,
    name: &str,
    work: impl Fn(&mut Redis, u32) -> redis::RedisResult<()> + Copy,
) {
    let Some(server) = RedisServer::start(RECORDS) else {
        return;
    };
    let rival = company.start(|room| {
        let mut redis = server.connect().expect("Redis answers");
        move || work(&mut redis, room).expect("Redis works")
    });
    let mut redis = server.connect().expect("Redis answers");
    group.bench_function(format!("{name}, unix socket/{}", company.name()), |bench| {
        bench.iter(|| work(&mut redis, MINE).expect("Redis works"));
    });
    drop(rival);
}

criterion_group!(benches, state_updates, joins_and_leaves);
criterion_main!(benches);
