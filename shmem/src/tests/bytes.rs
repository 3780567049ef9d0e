//! Shared bytes against a vector.

use proptest::prelude::*;

use crate::shared_record;
use crate::sys::memory::{Guarded, Mapping, Plain, SharedBytes};
use crate::tests::panics;

const WORDS: usize = 6;
const BYTES: usize = SharedBytes::<WORDS>::BYTES;

fn shared() -> &'static SharedBytes<WORDS> {
    Mapping::create_record("bytes").expect("a page")
}

proptest! {
    #[test]
    fn bytes_are_found_where_they_were_put_and_nowhere_else(
        writes in proptest::collection::vec((0..=BYTES, proptest::collection::vec(any::<u8>(), 0..=BYTES)), 1..20),
        (start, end) in (0..=BYTES, 0..=BYTES),
    ) {
        let (shared, mut model) = (shared(), vec![0; BYTES]);
        for (at, bytes) in writes {
            let bytes = &bytes[..bytes.len().min(BYTES - at)];
            shared.copy_in(at, bytes);
            model[at..at + bytes.len()].copy_from_slice(bytes);
        }
        let range = start.min(end)..start.max(end);
        let mut read = vec![0xEE; range.len()];
        shared.copy_out(range.start, &mut read);
        prop_assert_eq!(&read, &model[range]);
    }
}

#[test]
fn nothing_is_read_or_written_beyond_the_end() {
    let shared = shared();
    assert!(panics(|| shared.copy_in(BYTES - 1, &[1, 2])));
    assert!(panics(|| shared.copy_in(BYTES + 1, &[])));
    assert!(panics(|| shared.copy_in(usize::MAX, &[1])));
    assert!(panics(|| shared.copy_out(BYTES, &mut [0])));
    assert!(panics(|| shared.copy_out(usize::MAX, &mut [0; 8])));
    let mut all = [0xEE; BYTES];
    shared.copy_out(0, &mut all);
    assert_eq!(all, [0; BYTES], "a refused write has written");
    shared.copy_in(BYTES, &[]);
    shared.copy_out(BYTES, &mut []);
}

shared_record! {
    /// Cells of every alignment, each between two others.
    struct Cells {
        odd: [Guarded<[u8; 3]>; 9],
        pairs: [Guarded<[u16; 3]>; 5],
        quads: [Guarded<[u32; 3]>; 5],
        wide: [Guarded<[u64; 3]>; 3],
        long: [Guarded<[u8; 33]>; 9],
    }
}

proptest! {
    #[test]
    fn a_cell_holds_its_value_and_leaves_its_neighbours_alone(byte in 1..=u8::MAX) {
        fn check<T: Plain + PartialEq, const N: usize>(cells: &[Guarded<T>; N], byte: u8) {
            let value = T::read_from_bytes(&vec![byte; size_of::<T>()]).expect("its size");
            for chosen in 0..N {
                cells[chosen].store(value);
                for (index, cell) in cells.iter().enumerate() {
                    assert_eq!(cell.load() == value, index == chosen, "{index}, {chosen}");
                }
                cells[chosen].store(T::new_zeroed());
            }
        }
        let cells: &Cells = Mapping::create_record("cells").expect("a page");
        check(&cells.odd, byte);
        check(&cells.pairs, byte);
        check(&cells.quads, byte);
        check(&cells.wide, byte);
        check(&cells.long, byte);
    }
}
