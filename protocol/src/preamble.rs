//! The preamble: the first bytes of a connection, with a magic number and the protocol versions that the client speaks.
//!
//! The first byte is neither ASCII nor telnet's `0xFF`, so one byte distinguishes a program's preamble from text that a
//! person types on the game port.

/// Bytes of a preamble: magic number, lowest and highest version as little-endian `u16`.
pub const PREAMBLE_BYTES: usize = 8;

/// The magic number at the beginning of every preamble.
pub const MAGIC: [u8; 4] = [0xF7, b'F', b'K', b'D'];

/// The lowest protocol version that this crate speaks.
pub const VERSION_MIN: u16 = 1;

/// The highest protocol version that this crate speaks.
pub const VERSION_MAX: u16 = 3;

/// The result of [`classify`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PreambleResult {
    /// The bytes can be the beginning of a preamble; more bytes are needed.
    Incomplete,
    /// A complete preamble. The first frame follows its [`PREAMBLE_BYTES`] bytes.
    Preamble {
        /// Lowest version that the client speaks.
        min: u16,
        /// Highest version that the client speaks, not below the lowest.
        max: u16,
    },
    /// The first byte is a preamble's, but the rest is not.
    Invalid,
    /// The first byte is not a preamble's: the connection uses text mode.
    Text(u8),
}

/// Encodes the preamble of a client that speaks the versions `min` to `max`.
pub fn build(min: u16, max: u16) -> [u8; PREAMBLE_BYTES] {
    let mut preamble = [0; PREAMBLE_BYTES];
    preamble[..4].copy_from_slice(&MAGIC);
    preamble[4..6].copy_from_slice(&min.to_le_bytes());
    preamble[6..].copy_from_slice(&max.to_le_bytes());
    preamble
}

/// Classifies the first bytes of a connection, as soon as they are unambiguous. Bytes after the preamble are ignored.
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

/// The highest version that both this crate and a client of versions `min` to `max` speak, if there is one.
pub fn negotiate(min: u16, max: u16) -> Option<u16> {
    let version = max.min(VERSION_MAX);
    (version >= min.max(VERSION_MIN)).then_some(version)
}
