//! A byte ring against the stream that passes through it.

use proptest::prelude::*;

use crate::byte_ring::ByteRing;
use crate::tests::{WORDS, bench, panics};

const BYTES: usize = WORDS * 8;

#[derive(Debug, Clone)]
enum Step {
    /// The writer adds as many bytes as there is space for, up to this many.
    Write(usize),
    /// The same, in a transaction that comes to nothing.
    WriteInVain(usize),
    /// The reader takes up to this many.
    Take(usize),
    /// The process that finds the ring empty moves its base.
    Rebase,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..=BYTES).prop_map(Step::Write),
        1 => (0..=BYTES).prop_map(Step::WriteInVain),
        4 => (0..=BYTES).prop_map(Step::Take),
        1 => Just(Step::Rebase),
    ]
}

proptest! {
    #[test]
    fn the_stream_comes_out_as_it_went_in(
        start in 0..u64::MAX / 2,
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let (_, memory, mut attachment) = bench();
        let ring: &ByteRing<WORDS> = &memory.owned.ring;
        let mut tx = attachment.begin(&memory.bench);
        ring.rebase(&mut tx, start);
        tx.commit().expect("one cell fits");
        // The ring holds the stream from `taken` to `end`; byte number n of it is `n * 7` (its lowest byte).
        let (mut taken, mut end) = (start, start);
        let stream = |from: u64, length: usize| -> Vec<u8> {
            (from..).take(length).map(|offset| offset.wrapping_mul(7).to_le_bytes()[0]).collect()
        };
        for step in steps {
            let held = usize::try_from(end - taken).expect("at most the ring");
            match step {
                Step::Write(most) => {
                    let length = most.min(BYTES - held);
                    let mut tx = attachment.begin(&memory.bench);
                    ring.write(&mut tx, end, &stream(end, length));
                    tx.commit().expect("nothing is journaled");
                    end += length as u64;
                }
                Step::WriteInVain(most) => {
                    let length = most.min(BYTES - held);
                    let mut tx = attachment.begin(&memory.bench);
                    ring.write(&mut tx, end, &vec![0xEE; length]);
                }
                Step::Take(most) => {
                    let mut bytes = vec![0; most.min(held)];
                    ring.view(&attachment).read(taken, &mut bytes);
                    prop_assert_eq!(&bytes, &stream(taken, bytes.len()));
                    taken += bytes.len() as u64;
                }
                Step::Rebase if held == 0 => {
                    let mut tx = attachment.begin(&memory.bench);
                    ring.rebase(&mut tx, end);
                    tx.commit().expect("one cell fits");
                    prop_assert_eq!(ring.view(&attachment).range(end, BYTES), 0..BYTES, "a fresh ring begins at its first byte");
                }
                Step::Rebase => {}
            }
            // All that is held can be read, and in at most two stretches.
            let held = usize::try_from(end - taken).expect("at most the ring");
            let placement = ring.view(&attachment);
            let first = placement.range(taken, held);
            let second = placement.range(taken + first.len() as u64, held - first.len());
            prop_assert_eq!(first.len() + second.len(), held);
            let mut bytes = vec![0; held];
            placement.read(taken, &mut bytes);
            prop_assert_eq!(bytes, stream(taken, held));
        }
    }
}

#[test]
fn more_than_the_ring_holds_is_a_mistake_of_the_caller() {
    let (_, memory, mut attachment) = bench();
    let mut tx = attachment.begin(&memory.bench);
    assert!(panics(|| memory.owned.ring.write(&mut tx, 0, &[0; BYTES + 1])));
    drop(tx);
    assert!(panics(|| memory.owned.ring.view(&attachment).range(0, BYTES + 1)));
}

#[test]
fn a_ring_holds_what_was_written_at_every_offset() {
    let (_, memory, mut attachment) = bench();
    let ring: &ByteRing<WORDS> = &memory.owned.ring;
    // The base is anywhere in a word, also where offsets are about to exceed what fits 63 bits.
    for base in [0, 3, (1 << 63) - 5] {
        let mut tx = attachment.begin(&memory.bench);
        ring.rebase(&mut tx, base);
        tx.commit().expect("one cell fits");
        for position in 0..BYTES {
            for length in [1, 7, 8, 9, BYTES - 1, BYTES] {
                let offset = base + position as u64;
                let bytes: Vec<u8> = (0..length)
                    .map(|index| (position + index).to_le_bytes()[0])
                    .collect();
                let mut tx = attachment.begin(&memory.bench);
                ring.write(&mut tx, offset, &bytes);
                tx.commit().expect("nothing is journaled");
                let mut read = vec![0; length];
                ring.view(&attachment).read(offset, &mut read);
                assert_eq!(read, bytes, "{length} bytes at {offset}");
            }
        }
    }
}
