//! Benchmarks of the parts below the lobby: codec and frames, rings, a room's event log, recovery of a lock.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use forkade::limits::FRAME_BYTES_MAX;
use forkade::testing::state::layout::{Capacity, Memory};
use forkade_protocol::frame::{self, Split};
use forkade_protocol::{ClientMessage, RoomEvent, ServerMessage, codec};
use shmem::event_log::Read;
use shmem::sys::memory::PrivateCopy;
use shmem::transaction::{Attachment, Record};

const CAPACITY: Capacity = Capacity {
    players: 1,
    rooms: 1,
    keepers: 1,
};
/// Bytes of a relayed payload, as in the load test.
const PAYLOAD_BYTES: usize = 32;
/// Bytes of an event with that payload.
const EVENT_BYTES: usize = 48;

fn messages() -> (ClientMessage, ServerMessage) {
    let action = vec![7; PAYLOAD_BYTES];
    let data = codec::encode(&(1_u8, &action)).expect("it is encoded");
    let event = ServerMessage::Event {
        number: 1000,
        event: RoomEvent::Game { data },
    };
    (
        ClientMessage::Act {
            request: 1000,
            action,
        },
        event,
    )
}

fn codecs(criterion: &mut Criterion) {
    let (act, event) = messages();
    let mut group = criterion.benchmark_group("codec, 32-byte payload");
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    group.bench_function("frame of an event, written", |bench| {
        bench.iter(|| frame::write_frame_into(black_box(&event), &mut buffer).expect("it fits"));
    });
    let mut framed = Vec::new();
    frame::append_frame(&act, &mut framed).expect("it fits");
    group.bench_function("frame of an act, split and decoded", |bench| {
        bench.iter(|| match frame::split(black_box(&framed), FRAME_BYTES_MAX) {
            Split::Frame { body, .. } => codec::decode::<ClientMessage>(body).expect("it is one"),
            other => panic!("{other:?}"),
        });
    });
    group.finish();
}

fn memory() -> (&'static Memory, Attachment) {
    let memory = Memory::create(CAPACITY).expect("memory for a small lobby");
    memory.rooms.at(0).lock().prepare();
    memory.players.at(0).lock().prepare();
    (memory, memory.imitate_attachment())
}

fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rings, 48 bytes");
    let (memory, mut attachment) = memory();
    let player = memory.players.at(0);
    let mut target = [0; EVENT_BYTES];
    group.bench_function("output ring: written in a transaction, read back", |bench| {
        let mut offset = 0;
        bench.iter(|| {
            let mut tx = attachment.begin(player);
            player.output.write(&mut tx, offset, &[7; EVENT_BYTES]);
            tx.commit().expect("nothing is journaled");
            // The ring's origin was never moved.
            player.output.view_from(0).read(offset, &mut target);
            offset += EVENT_BYTES as u64;
            black_box(target[0])
        });
    });
    let room = memory.rooms.at(0);
    group.bench_function("room's log: pushed in a transaction", |bench| {
        bench.iter(|| push(&mut attachment, memory));
    });
    let cursor = push(&mut attachment, memory);
    push(&mut attachment, memory);
    let mut target = [0; EVENT_BYTES];
    group.bench_function("room's log: one event read", |bench| {
        bench.iter(|| match room.log.read(black_box(cursor), &mut target) {
            Read::Entry { next, .. } => next,
            other => panic!("{other:?}"),
        });
    });
    group.finish();
}

/// Pushes an event, and returns the offset behind it.
fn push(attachment: &mut Attachment, memory: &'static Memory) -> u64 {
    let room = memory.rooms.at(0);
    let mut tx = attachment.begin(room);
    let mut log = room.log.append(&mut tx, false);
    log.push(&mut tx, u32::MAX, &[7; EVENT_BYTES])
        .expect("a small one");
    log.finish(&mut tx);
    let head = room.log.head(&tx);
    tx.commit().expect("it fits the journal");
    head
}

/// Leaves a transaction incomplete, so that its journal has to be rolled back.
fn leave_incomplete(attachment: &mut Attachment, memory: &'static Memory, cells: usize) {
    let room = memory.rooms.at(0);
    let mut tx = attachment.begin(room);
    for cell in room
        .reserved_until_ms
        .iter()
        .chain(std::iter::repeat(&room.ready))
        .take(cells)
    {
        tx.set(cell, 1);
    }
    // Nothing is rolled back here.
    tx.imitate_death();
}

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    for cells in [1, 32, 200] {
        let (original, mut dead) = memory();
        leave_incomplete(&mut dead, original, cells);
        let (copy, mut attachment) = memory();
        let everything = 0..original.mapping.bytes();
        // SAFETY: it is used for the copy alone, after which no lock of the original is taken.
        let private = unsafe { PrivateCopy::new() };
        let name = format!("lock of a dead process taken, {cells} cells put back");
        group.bench_function(name, |bench| {
            bench.iter_custom(|iterations| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    // SAFETY: no process uses either, and the copy's locks are free between two iterations.
                    unsafe {
                        copy.mapping
                            .copy_from(original.mapping, everything.clone());
                    };
                    copy.abandon_copy(&private);
                    let started = Instant::now();
                    attachment.recover(copy.rooms.at(0));
                    elapsed += started.elapsed();
                }
                elapsed
            });
        });
    }
    let (memory, mut attachment) = memory();
    group.bench_function("for comparison: a lock taken and released", |bench| {
        bench.iter(|| attachment.recover(memory.rooms.at(0)));
    });
    group.finish();
}

criterion_group!(benches, codecs, rings, recovery);
criterion_main!(benches);
