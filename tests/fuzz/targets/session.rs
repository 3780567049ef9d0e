//! Any bytes from a client, binary or text: the player's state machine neither panics nor leaks records, and the lobby
//! is consistent afterwards. The first byte determines where the stream is split, and whether the handler dies there.
#![no_main]

#[path = "../../harness/mod.rs"]
mod harness;

use std::sync::OnceLock;

use harness::{Actor, World};
use forkade::testing::state::connections::Phase;
use forkade::testing::state::layout::Capacity;
use forkade::testing::frontends::dispatch::{FrameOutcome, HandshakeOutcome};
use libfuzzer_sys::fuzz_target;

fn world() -> World {
    static WORLD: OnceLock<World> = OnceLock::new();
    *WORLD.get_or_init(|| {
        World::new(Capacity {
            players: 4,
            rooms: 4,
            keepers: 1,
        })
    })
}

fn process_input(actor: &mut Actor) {
    actor.send(&[]);
    if actor.session.phase() == Phase::HANDSHAKE {
        match actor.process_handshake() {
            HandshakeOutcome::Refused(farewell) => actor.session.close(false, &farewell),
            HandshakeOutcome::Incomplete | HandshakeOutcome::Resuming(_) => return,
            _ => {}
        }
    }
    while actor.session.phase() == Phase::OPEN {
        actor.send(&[]);
        match actor.handle() {
            FrameOutcome::Handled => {}
            FrameOutcome::Wait => break,
            FrameOutcome::Close { leaves, reason } => actor.session.close(leaves, &reason),
        }
    }
    actor.receive_messages();
}

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let (first, second) = stream.split_at(usize::from(*cut / 2).min(stream.len()));
    let world = world();
    let mut actor = Actor::connect(world, 0);
    actor.send(first);
    process_input(&mut actor);
    if cut % 2 == 1 {
        actor.replace_handler(world);
    }
    if actor.session.phase() != Phase::CLOSING {
        actor.send(second);
        process_input(&mut actor);
    }
    actor.end();
    let mut lobby = world.lobby();
    // The grace time of all players has ended.
    forkade::testing::maintenance::expiry::expire_players(&mut lobby, u64::MAX);
    forkade::testing::maintenance::expiry::free_closed_rooms(&mut lobby);
    let faults = forkade::testing::maintenance::check::check_all(&mut lobby);
    assert!(faults.is_empty(), "{faults:#?}");
});
