//! Processes are killed by SIGKILL at random moments, in transactions and outside of them, a few thousand times:
//! nothing is lost, nothing happens twice, nothing is ever seen half done, and no lock stays taken.
//!
//! Here the kernel does the killing and releases the locks, which the [instruction sweep](instruction_sweep) only
//! imitates; there every instruction has its turn, here chance decides. The seed is printed, but the moments depend on
//! the machine.
//!
//! ```text
//! FORKADE_TEST_KILLS=100000 cargo test --release --test robust_lock
//! ```
//!
//! These tests fork, which only a process with one thread may do: hence no test harness. An argument selects by name.

mod harness;
#[path = "lobby_model/random.rs"]
mod random;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forkade::games::relay::Relayed;
use forkade_protocol::{ClientMessage, RoomEvent, RoomSettings, ServerMessage, codec};
use harness::{Actor, World};
use nix::sys::signal::Signal;
use random::Random;
use shmem::sys::memory::Mapping;
use shmem::sys::process::{Exit, ProcessId, fork};
use shmem::transaction::{Attachment, Record};

use forkade::testing::frontends::dispatch::{self, FrameOutcome};
use forkade::testing::lobby::delivery;
use forkade::testing::maintenance::check::check_all;
use forkade::testing::maintenance::state_dump::recover_all;
use forkade::testing::session::Session;
use forkade::testing::session::transport::ByteCounts;
use forkade::testing::state::directory::Name;
use forkade::testing::state::layout::{Capacity, PlayerRef};
use forkade::testing::state::rooms::{RoomRecord, RoomTx, Seat};

const KILLS_DEFAULT: usize = 2000;
const WORKERS: usize = 4;
/// The longest time that a process lives before it may be killed: enough for some transactions.
const LIFE_MICROSECONDS_MAX: usize = 400;

fn main() {
    let selection = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let kills =
        std::env::var("FORKADE_TEST_KILLS").map_or(KILLS_DEFAULT, |text| text.parse().expect("a number"));
    type Claim = fn(&mut Killer);
    let claims: [(&str, Claim); 2] = [
        (
            "transactions_are_whole_and_counted_once",
            transactions_are_whole_and_counted_once,
        ),
        (
            "frames_are_handled_once_and_events_delivered_once",
            frames_are_handled_once_and_events_delivered_once,
        ),
    ];
    for (name, claim) in claims.iter().filter(|(name, _)| name.contains(&selection)) {
        let seed = getrandom::u64().expect("the kernel gives random bytes");
        let mut killer = Killer {
            random: Random::new(seed),
            kills: 0,
            kills_wanted: kills / claims.len(),
        };
        claim(&mut killer);
        println!("{name} ... ok, {} kills, seed {seed}", killer.kills);
    }
}

/// Forks workers, kills them, and forks others in their place.
struct Killer {
    random: Random,
    kills: usize,
    kills_wanted: usize,
}

impl Killer {
    fn has_killed_enough(&self) -> bool {
        self.kills >= self.kills_wanted
    }

    /// Waits for a moment, then kills one of the workers, unless it has ended by itself. Gives which one, and how it
    /// ended.
    fn kill_one(&mut self, workers: &[Option<ProcessId>]) -> (usize, Exit) {
        let alive: Vec<usize> = (0..workers.len())
            .filter(|number| workers[*number].is_some())
            .collect();
        let number = self.random.pick(&alive).expect("a worker");
        let worker = workers[number].expect("alive");
        let moment = Duration::from_micros(self.random.below(LIFE_MICROSECONDS_MAX) as u64);
        let begun = Instant::now();
        while begun.elapsed() < moment {
            // Sleeping takes far longer than that.
            std::thread::yield_now();
        }
        worker.send_signal(Signal::SIGKILL).expect("our own child");
        let exit = worker.wait().expect("a killed child ends");
        self.kills += usize::from(exit == Exit::Signal(Signal::SIGKILL as i32));
        (number, exit)
    }
}

fn transactions_are_whole_and_counted_once(killer: &mut Killer) {
    let world = World::new(Capacity {
        players: 1,
        rooms: 1,
        keepers: 1,
    });
    let room = world.memory.rooms.at(0);
    room.lock().prepare();
    // What each worker knows to be committed.
    let acknowledged: &'static [AtomicU64; WORKERS] = Mapping::create_record("acknowledged").expect("a page");
    let spawn = |number: usize| {
        let work = || count_up(&mut world.memory.attach(), room, acknowledged, number);
        fork(|| eprintln!("a worker has panicked"), move |_| work()).expect("a worker can be forked")
    };
    let mut workers: Vec<_> = (0..WORKERS).map(|number| Some(spawn(number))).collect();
    let mut mine = world.memory.attach();
    while !killer.has_killed_enough() {
        let (number, exit) = killer.kill_one(&workers);
        assert_eq!(
            exit,
            Exit::Signal(Signal::SIGKILL as i32),
            "a worker has found a broken state"
        );
        if killer.random.one_in(4) {
            // Sometimes it is this process that recovers.
            counts(&mut mine, room);
        }
        workers[number] = Some(spawn(number));
    }
    for worker in workers.into_iter().flatten() {
        worker.send_signal(Signal::SIGKILL).expect("our own child");
        worker.wait().expect("a killed child ends");
    }
    let counts = counts(&mut mine, room);
    for (count, acknowledged) in counts.iter().zip(acknowledged) {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        assert!(
            [acknowledged, acknowledged + 1].contains(count),
            "{count} of {acknowledged}"
        );
    }
    let figures = room.lock().stats();
    let recoveries = world.memory.header.recoveries_total.load(Ordering::Relaxed);
    println!(
        "{} transactions, {recoveries} deaths in the lock",
        counts.iter().sum::<u64>()
    );
    assert!(
        recoveries > 0,
        "nobody was killed in a transaction: this proves nothing"
    );
    assert!(figures.recoveries.abs_diff(recoveries) <= killer.kills as u64);
}

/// Adds one to its own count and to all sums, over and over again, and sees to it that they agree.
fn count_up(
    attachment: &mut Attachment,
    room: &'static RoomRecord,
    acknowledged: &[AtomicU64; WORKERS],
    number: usize,
) -> u8 {
    loop {
        let (count, known) = (
            counts(attachment, room)[number],
            acknowledged[number].load(Ordering::Relaxed),
        );
        assert!(
            count == known || count == known + 1,
            "{count} are counted, {known} are known"
        );
        acknowledged[number].store(count, Ordering::Relaxed);
        // The first one comes to nothing.
        drop(add_one(attachment, room, number));
        add_one(attachment, room, number)
            .commit()
            .expect("a few cells fit the journal");
        acknowledged[number].store(count + 1, Ordering::Relaxed);
    }
}

fn add_one<'h>(attachment: &'h mut Attachment, room: &'static RoomRecord, number: usize) -> RoomTx<'h> {
    let mut tx = attachment.begin(room);
    let sum = tx.get(&room.connected) + 1;
    let count = tx.get(&room.seats[number]).player.to_id() + 1;
    tx.set(&room.connected, sum);
    tx.set(
        &room.seats[number],
        Seat::of(PlayerRef::from_id(count), Name::EMPTY),
    );
    tx.set(&room.ready, sum);
    tx.set(&room.next_tick_at_us, sum);
    tx
}

/// The counts of all workers, under the lock.
fn counts(attachment: &mut Attachment, room: &'static RoomRecord) -> [u64; WORKERS] {
    let tx = attachment.begin(room);
    let counts: [u64; WORKERS] = std::array::from_fn(|number| tx.get(&room.seats[number]).player.to_id());
    let sums = [
        tx.get(&room.connected),
        tx.get(&room.ready),
        tx.get(&room.next_tick_at_us),
    ];
    assert_eq!(
        sums,
        [counts.iter().sum::<u64>(); 3],
        "a transaction is half there"
    );
    counts
}

fn frames_are_handled_once_and_events_delivered_once(killer: &mut Killer) {
    let world = World::new(Capacity {
        players: PLAYERS,
        rooms: 1,
        keepers: 1,
    });
    let mut rounds = 0;
    while !killer.has_killed_enough() {
        play_a_round(killer, world);
        rounds += 1;
    }
    let recoveries = world.memory.header.recoveries_total.load(Ordering::Relaxed);
    println!(
        "{rounds} rounds of {} frames, {recoveries} deaths in a lock",
        WORKERS * FRAMES
    );
    assert!(
        recoveries > 0,
        "nobody was killed in a transaction: this proves nothing"
    );
}

/// Players of a round, each with a worker.
const PLAYERS: u32 = 4;
const _: () = assert!(PLAYERS as usize == WORKERS);
/// Frames of each client in a round: what they lead to fits the output ring of every player, for nothing is sent
/// meanwhile.
const FRAMES: usize = 250;

/// Some players are in one room, and each has sent all its frames. Their handlers are killed again and again while they
/// handle them; and at the end every player has every frame's event, once, and those of each player in order.
fn play_a_round(killer: &mut Killer, world: World) {
    let mut actors: Vec<Actor> = (0..PLAYERS)
        .map(|slot| Actor::connect_as(world, slot, &format!("player {slot}")))
        .collect();
    let (game, name) = ("relay".to_owned(), "Here".to_owned());
    actors[0].request(&ClientMessage::CreateRoom {
        request: 1,
        game,
        name,
        settings: RoomSettings::default(),
    });
    let room = match &actors[0].receive_messages()[..] {
        [ServerMessage::Joined { snapshot, .. }] => snapshot.room,
        other => panic!("instead of joining: {other:?}"),
    };
    for actor in &mut actors[1..] {
        actor.request(&ClientMessage::JoinRoom {
            request: 1,
            room,
            passcode: None,
        });
    }
    for actor in &mut actors {
        actor.receive_messages();
        for number in 0..FRAMES {
            actor.send_message(&ClientMessage::Act {
                request: 2,
                action: parse_action(number),
            });
        }
    }
    let handlers: Vec<(u32, ByteCounts)> = actors
        .iter()
        .map(|actor| (actor.slot, actor.session.byte_counts))
        .collect();
    let spawn = |number: usize| {
        let (slot, passed) = handlers[number];
        let handler = fork(
            || eprintln!("a handler has panicked"),
            move |_| handle_all(world, slot, passed),
        );
        handler.expect("a handler can be forked")
    };
    let mut workers: Vec<_> = (0..WORKERS).map(|number| Some(spawn(number))).collect();
    while workers.iter().any(Option::is_some) {
        let (number, exit) = killer.kill_one(&workers);
        workers[number] = match exit {
            Exit::Code(0) => None,
            Exit::Signal(_) => Some(spawn(number)),
            Exit::Code(code) => panic!("a handler has ended with {code}"),
        };
    }
    let mut lobby = world.lobby();
    recover_all(&mut lobby);
    assert_eq!(check_all(&mut lobby), Vec::<String>::new());
    for actor in &mut actors {
        actor.replace_handler(world);
        check_what_was_heard(&actor.receive_messages());
    }
    actors.iter_mut().for_each(Actor::leave_for_good);
}

/// What a handler does, without a socket: handles the frames and delivers events, until nothing is left.
fn handle_all(world: World, connection: u32, passed: ByteCounts) -> u8 {
    let mut lobby = world.lobby();
    let (mut session, plausible) = Session::attach(&mut lobby, connection, passed);
    plausible.expect("what has passed is what was counted");
    loop {
        match dispatch::handle_next_frame(&mut session) {
            FrameOutcome::Handled => {}
            FrameOutcome::Wait if !delivery::deliver(&mut session).expect("events fit") => return 0,
            FrameOutcome::Wait => {}
            FrameOutcome::Close { reason, .. } => panic!("the connection is closed with {reason:?}"),
        }
    }
}

fn parse_action(number: usize) -> Vec<u8> {
    u32::try_from(number).expect("few").to_le_bytes().to_vec()
}

/// All frames of all players are there, and those of each in order.
fn check_what_was_heard(messages: &[ServerMessage]) {
    let (mut next_number, mut next_frame) = (None, [0; WORKERS]);
    for message in messages {
        let ServerMessage::Event { number, event } = message else {
            panic!("{message:?}")
        };
        assert_eq!(
            *number,
            next_number.unwrap_or(*number),
            "an event was lost or repeated"
        );
        next_number = Some(number + 1);
        let RoomEvent::Game { data } = event else {
            panic!("{event:?}")
        };
        let Relayed { seat, payload } = codec::decode(data).expect("what was relayed");
        let frame = &mut next_frame[usize::from(seat)];
        assert_eq!(
            payload,
            parse_action(*frame),
            "a frame was lost, or handled twice"
        );
        *frame += 1;
    }
    assert_eq!(next_frame, [FRAMES; WORKERS], "frames are missing");
}
