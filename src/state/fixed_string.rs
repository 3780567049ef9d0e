//! Short texts and byte strings as plain data.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// At most `BYTES` bytes, stored in place.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ShortBytes<const BYTES: usize> {
    length: u8,
    bytes: [u8; BYTES],
}

impl<const BYTES: usize> ShortBytes<BYTES> {
    /// No bytes.
    pub const EMPTY: Self = Self {
        length: 0,
        bytes: [0; BYTES],
    };

    /// Stores `bytes`; `None` if they are more than `BYTES`.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut held = Self::EMPTY;
        held.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        held.length = u8::try_from(bytes.len()).ok()?;
        Some(held)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// At most `BYTES` bytes of UTF-8, stored in place.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Text<const BYTES: usize>(ShortBytes<BYTES>);

impl<const BYTES: usize> Text<BYTES> {
    /// No text.
    pub const EMPTY: Self = Self(ShortBytes::EMPTY);

    /// Stores `text`; `None` if it is longer than `BYTES` bytes.
    pub fn new(text: &str) -> Option<Self> {
        ShortBytes::new(text.as_bytes()).map(Self)
    }

    /// The text. Invalid UTF-8, which only a compromised process could write, reads as empty.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.0.as_slice()).unwrap_or_default()
    }
}

impl<const BYTES: usize> std::fmt::Debug for Text<BYTES> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ShortBytes, Text};

    #[test]
    fn text_is_held_up_to_its_bytes_and_not_beyond() {
        assert_eq!(Text::<4>::new("löw").expect("four bytes").as_str(), "löw");
        assert!(Text::<4>::new("löwe").is_none());
        assert_eq!(Text::<4>::EMPTY.as_str(), "");
    }

    proptest! {
        #[test]
        fn what_fits_is_held_as_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "\\PC{0,20}") {
            let held = ShortBytes::<24>::new(&bytes);
            prop_assert_eq!(held.as_ref().map(ShortBytes::as_slice), (bytes.len() <= 24).then_some(&bytes[..]));
            let held = Text::<24>::new(&text);
            prop_assert_eq!(held.as_ref().map(Text::as_str), (text.len() <= 24).then_some(&text[..]));
        }

        #[test]
        fn any_bytes_in_memory_are_some_text(bytes in proptest::collection::vec(any::<u8>(), 25)) {
            use zerocopy::FromBytes;
            let held = Text::<24>::read_from_bytes(&bytes).expect("the size is right");
            prop_assert!(held.as_str().len() <= 24);
        }
    }
}
