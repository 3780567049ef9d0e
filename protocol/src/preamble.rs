//! The first bytes of a connection: a magic number, and the protocol versions that the client speaks.
//!
//! The first byte is neither ASCII nor telnet's `0xFF`, so that a person's first keystroke on the game port is told
//! from a program's preamble by one byte.

/// Bytes of a preamble: magic number, lowest and highest version as little-endian `u16`.
pub const PREAMBLE_BYTES: usize = 8;

/// How every preamble begins.
pub const MAGIC: [u8; 4] = [0xF7, b'F', b'K', b'D'];

/// The lowest protocol version that this crate speaks.
pub const VERSION_MIN: u16 = 1;

/// The highest protocol version that this crate speaks.
pub const VERSION_MAX: u16 = 1;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PreambleResult {
    /// A preamble so far, but not all of it.
    Incomplete,
    /// A whole preamble; the first frame begins after its [`PREAMBLE_BYTES`] bytes.
    Preamble {
        /// Lowest version that the client speaks.
        min: u16,
        /// Highest version that the client speaks, not below the lowest.
        max: u16,
    },
    /// It begins like a preamble and is none.
    Invalid,
    /// Anything else: text mode.
    Text(u8),
}

/// The preamble of a client that speaks the versions `min` to `max`.
pub fn build(min: u16, max: u16) -> [u8; PREAMBLE_BYTES] {
    let mut preamble = [0; PREAMBLE_BYTES];
    preamble[..4].copy_from_slice(&MAGIC);
    preamble[4..6].copy_from_slice(&min.to_le_bytes());
    preamble[6..].copy_from_slice(&max.to_le_bytes());
    preamble
}

/// Says what the first bytes of a connection are, as early as they can be told. Bytes after the preamble are ignored.
pub fn classify(bytes: &[u8]) -> PreambleResult {
    match bytes.first() {
        None => return PreambleResult::Incomplete,
        Some(&first) if first != MAGIC[0] => return PreambleResult::Text(first),
        Some(_) => {}
    }
    if !bytes.iter().zip(&MAGIC).all(|(byte, expected)| byte == expected) {
        return PreambleResult::Invalid;
    }
    let Some(&[_, _, _, _, min_low, min_high, max_low, max_high]) = bytes.first_chunk() else {
        return PreambleResult::Incomplete;
    };
    let (min, max) = (
        u16::from_le_bytes([min_low, min_high]),
        u16::from_le_bytes([max_low, max_high]),
    );
    if min <= max {
        PreambleResult::Preamble { min, max }
    } else {
        PreambleResult::Invalid
    }
}

/// The highest version that a client speaking `min` to `max` has in common with this crate.
pub fn negotiate(min: u16, max: u16) -> Option<u16> {
    let version = max.min(VERSION_MAX);
    (version >= min.max(VERSION_MIN)).then_some(version)
}
