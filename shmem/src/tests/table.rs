//! References and the places of tables.

use proptest::prelude::*;

use crate::sys::memory::{Guarded, LayoutPlan, Mapping};
use crate::table::{Reference, Table};

/// Whatever a reference refers to.
struct Anything;

proptest! {
    #[test]
    fn a_reference_is_its_index_and_its_generation_and_so_is_its_id(index in any::<u32>(), generation in any::<u32>()) {
        let reference = Reference::<Anything>::new(index, generation);
        prop_assert_eq!((reference.index(), reference.generation()), (index, generation));
        prop_assert_eq!(Reference::from_id(reference.to_id()), reference);
        prop_assert_eq!(reference.is_some(), generation != 0);
        prop_assert_ne!(Reference::new(index, generation.wrapping_add(1)), reference);
        prop_assert_ne!(Reference::new(index.wrapping_add(1), generation), reference);
    }

    #[test]
    fn tables_begin_at_pages_and_never_overlap(lengths in proptest::collection::vec(0..2000_u32, 1..8)) {
        let mut plan = LayoutPlan::default();
        let tables: Vec<(usize, usize)> = lengths
            .iter()
            .map(|len| {
                let offset = plan.reserve::<Guarded<[u8; 12]>>(*len).offset();
                (offset, offset + 12 * *len as usize)
            })
            .collect();
        for pair in tables.windows(2) {
            prop_assert!(pair[0].1 <= pair[1].0);
        }
        prop_assert!(tables.iter().all(|(start, end)| start % 4096 == 0 && *end <= plan.bytes()));
    }

    #[test]
    fn an_offset_names_the_record_that_begins_there_and_no_other(len in 1..50_u32, offset in 0..2000_u64) {
        let mut plan = LayoutPlan::default();
        let place = plan.reserve::<Guarded<[u64; 3]>>(len);
        let mapping = Mapping::create("table", &plan).expect("two pages");
        let table = Table::new(mapping, place);
        let found = table.index_of_offset(4096 + offset);
        let expected = u32::try_from(offset / 24).expect("few");
        prop_assert_eq!(found, (offset % 24 == 0 && expected < len).then_some(expected));
        prop_assert_eq!(table.index_of_offset(4095 - offset), None);
        prop_assert!(table.get(len).is_none() && table.get(len - 1).is_some());
        for (index, record) in table.iter() {
            prop_assert_eq!(mapping.offset_of(record.address()), 4096 + 24 * index as usize);
        }
    }
}
