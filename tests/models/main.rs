//! Models of what the server's processes do without a lock: see the models of the crate `shmem`, of which these are the
//! continuation.

#[path = "../../shmem/tests/models/words.rs"]
mod words;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use forkade::testing::state::connection_counts::Counts;
use forkade::testing::state::connections::{exchange_then_look, load_after_store};
use forkade::testing::state::header::Editions;
use forkade::testing::state::stream_tap::{Look, Ownership, copy, mark_overwritten};
use loom::sync::Arc;
use loom::thread;
use words::{ModelWord, Sound, Unfenced, Unordered, fails, holds};

const FIRST: u64 = 1;
const SECOND: u64 = 2;

/// The record of one player is given to another. All values of a player are its own number.
fn published_streams<W: ModelWord>() {
    struct Published<W> {
        player: W,
        values: [W; 2],
    }
    let published = Arc::new(Published {
        player: W::new(FIRST),
        values: [W::new(FIRST), W::new(FIRST)],
    });
    let owner = thread::spawn({
        let published = Arc::clone(&published);
        move || {
            Ownership(&published.player).begin(SECOND);
            published
                .values
                .iter()
                .for_each(|value| value.store(SECOND, Relaxed));
            Ownership(&published.player).end(SECOND);
        }
    });
    for player in [FIRST, SECOND] {
        let ownership = Ownership(&published.player);
        if ownership.is_of(player) {
            let values = published.values.each_ref().map(|value| value.load(Relaxed));
            assert!(
                !ownership.is_of(player) || values == [player; 2],
                "of player {player}: {values:?}"
            );
        }
    }
    owner.join().expect("no panic");
}

/// A ring of one word is overwritten while it is read.
fn ring_is_tapped<W: ModelWord>() {
    struct Ring<W> {
        base: W,
        end: W,
        overwritten: W,
        byte: W,
    }
    let ring = Arc::new(Ring {
        base: W::new(0),
        end: W::new(1),
        overwritten: W::new(0),
        byte: W::new(10),
    });
    let owner = thread::spawn({
        let ring = Arc::clone(&ring);
        move || {
            mark_overwritten(&ring.overwritten, 1);
            ring.byte.store(11, Relaxed);
            ring.end.store(2, Release);
        }
    });
    for (from, expected) in [(0, 10), (1, 11)] {
        let look = copy(
            (&ring.base, &ring.end),
            from,
            1,
            || ring.overwritten.load(Relaxed),
            |_, length| (length == 1).then(|| ring.byte.load(Relaxed)),
        );
        match look {
            Look::Bytes(Some(byte)) => assert_eq!(byte, expected, "at {from}"),
            Look::Bytes(None) | Look::Missed { .. } | Look::Gone => {}
        }
    }
    owner.join().expect("no panic");
}

#[test]
fn a_reader_of_a_players_streams_gets_what_is_that_players_and_whole() {
    holds("published streams", published_streams::<Sound>);
    fails("published streams, without fences", published_streams::<Unfenced>);
    fails(
        "published streams, without orders",
        published_streams::<Unordered>,
    );
    holds("tapped ring", ring_is_tapped::<Sound>);
    fails("tapped ring, without fences", ring_is_tapped::<Unfenced>);
}

const HELD: u64 = 1;
const ABANDONED: u64 = 2;

/// A handler enters itself and looks at the claim; the ticker abandons the claim and looks for a handler.
fn claims<W: ModelWord>() {
    struct Connection<W> {
        claim: W,
        handler: W,
    }
    let connection = Arc::new(Connection {
        claim: W::new(HELD),
        handler: W::new(0),
    });
    let handler = thread::spawn({
        let connection = Arc::clone(&connection);
        move || {
            connection.handler.store(7, Release);
            load_after_store(&connection.claim) == HELD
        }
    });
    assert!(exchange_then_look(&connection.claim, HELD, ABANDONED));
    let is_orphan = connection.handler.load(Acquire) == 0;
    let is_served = handler.join().expect("no panic");
    assert!(
        !(is_orphan && is_served),
        "the ticker frees a connection that a handler serves"
    );
}

#[test]
fn a_connection_is_not_freed_while_a_handler_starts_to_serve_it() {
    holds("claims", claims::<Sound>);
    fails("claims, without fences", claims::<Unfenced>);
}

/// The listener sends a connection, the keeper receives it, and another process counts. `receives_first` counts it as
/// received before it is held.
fn connection_counts<W: ModelWord>(receives_first: bool) {
    struct Keeper<W> {
        sent: W,
        counts: W,
    }
    let keeper = Arc::new(Keeper {
        sent: W::new(1),
        counts: W::new(0),
    });
    let receiver = thread::spawn({
        let keeper = Arc::clone(&keeper);
        move || {
            let received = || Counts::change(&keeper.counts, |counts| counts.with_received_up_to(1));
            if receives_first {
                received();
            }
            Counts::change(&keeper.counts, Counts::with_new);
            received();
        }
    });
    // The next one is on its way.
    let listener = thread::spawn({
        let keeper = Arc::clone(&keeper);
        move || keeper.sent.store(2, Release)
    });
    let open = |keeper: &Keeper<W>| {
        let sent = u32::try_from(keeper.sent.load(Acquire)).expect("small");
        Counts::of(keeper.counts.load(Acquire)).open(sent)
    };
    let seen = open(&keeper);
    assert!((1..=2).contains(&seen), "{seen} connections are seen");
    listener.join().expect("no panic");
    receiver.join().expect("no panic");
    assert_eq!(open(&keeper), 2);
}

/// The ticker counts the orphans while a new keeper adopts one of two. `looks_again` takes the word that it compares
/// with after it has counted.
fn orphans<W: ModelWord>(looks_again: bool) {
    struct Keeper<W> {
        counts: W,
        /// By connection: 1 once it was adopted.
        adopted: [W; 2],
    }
    let keeper = Arc::new(Keeper {
        counts: W::new(0),
        adopted: [W::new(0), W::new(0)],
    });
    Counts::change(&keeper.counts, |counts| counts.with_orphaned(2));
    let adopter = thread::spawn({
        let keeper = Arc::clone(&keeper);
        move || {
            keeper.adopted[0].store(1, Release);
            Counts::change(&keeper.counts, Counts::with_adopted);
        }
    });
    let mut since = keeper.counts.load(Acquire);
    let orphans = keeper
        .adopted
        .iter()
        .map(|adopted| 1 - adopted.load(Acquire))
        .sum::<u64>();
    if looks_again {
        since = keeper.counts.load(Acquire);
    }
    Counts::set_orphaned(&keeper.counts, u16::try_from(orphans).expect("few"), since);
    adopter.join().expect("no panic");
    let open = Counts::of(keeper.counts.load(Acquire)).open(0);
    assert!((1..=2).contains(&open), "{open} of 2 connections");
}

#[test]
fn no_connection_is_counted_twice_or_forgotten() {
    holds("connections received", || connection_counts::<Sound>(false));
    fails("connections received before they are held", || {
        connection_counts::<Sound>(true);
    });
    holds("orphans counted", || orphans::<Sound>(false));
    fails("orphans counted, compared with a later word", || {
        orphans::<Sound>(true)
    });
}

/// Two editions are published while one is read.
fn editions<W: ModelWord>() {
    struct Upgrade<W> {
        editions: W,
        stages: [W; 2],
        texts: [W; 2],
    }
    let upgrade = Arc::new(Upgrade {
        editions: W::new(0),
        stages: [W::new(10), W::new(0)],
        texts: [W::new(10), W::new(0)],
    });
    let writer = thread::spawn({
        let upgrade = Arc::clone(&upgrade);
        move || {
            for edition in [11, 12] {
                Editions(&upgrade.editions).publish(|place| {
                    upgrade.texts[place].store(edition, Relaxed);
                    upgrade.stages[place].store(edition, Relaxed);
                });
            }
        }
    });
    let (stage, text) = Editions(&upgrade.editions).read(|place| {
        (
            upgrade.stages[place].load(Relaxed),
            upgrade.texts[place].load(Relaxed),
        )
    });
    assert_eq!(stage, text, "a stage with the text of another one");
    writer.join().expect("no panic");
}

#[test]
fn the_stage_of_an_upgrade_is_read_with_its_own_text() {
    holds("editions", editions::<Sound>);
    fails("editions, without fences", editions::<Unfenced>);
    fails("editions, without orders", editions::<Unordered>);
}
