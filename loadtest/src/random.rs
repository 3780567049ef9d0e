//! A small repeatable generator (SplitMix64): equal seeds give equal runs, on every machine.

/// A generator of pseudo-random numbers; not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The sequence of `seed` and `stream`; the streams of one seed are independent.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self {
            state: seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03),
        };
        random.next();
        random
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("below the bound")
    }

    /// One of `items`, or `None` if there are none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = (!items.is_empty()).then(|| self.below(items.len() as u64))?;
        items.get(usize::try_from(index).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_streams_differ() {
        let numbers = |seed, stream| {
            let mut random = Random::new(seed, stream);
            std::iter::repeat_with(move || random.next())
                .take(8)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(7, 1), numbers(7, 1));
        assert_ne!(numbers(7, 1), numbers(7, 2));
        assert_ne!(numbers(7, 1), numbers(8, 1));
    }

    #[test]
    fn every_item_is_picked_about_equally_often() {
        let mut random = Random::new(1, 1);
        let mut picked = [0_u32; 9];
        for _ in 0..9_000 {
            picked[*random.pick(&[0_usize, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap()] += 1;
        }
        assert!(
            picked.iter().all(|times| (800..1_200).contains(times)),
            "{picked:?}"
        );
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
