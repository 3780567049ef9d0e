//! Values to bytes and back. The only file that names bincode, so that the crate can be replaced.
//!
//! The format is bincode 2's standard configuration over serde, spelled out in `WIRE.md`. Games use it too, for
//! their actions, events, views, options and states. What a peer sends is decoded within a limit and never panics.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::limits::DECODE_BYTES_MAX;

/// Why a value could not be encoded or decoded.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CodecError {
    /// The encoded value does not fit the buffer.
    #[error("the encoded value does not fit into {capacity} bytes")]
    BufferFull {
        /// Bytes there were.
        capacity: usize,
    },
    /// The encoded message is longer than a frame may be.
    #[error("the encoded message is longer than the {bytes_max} bytes that a frame may have")]
    MessageTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The type cannot be encoded in this format.
    #[error("the value cannot be encoded: {0}")]
    Unencodable(String),
    /// The bytes end before the value does.
    #[error("the bytes end before the value does")]
    Truncated,
    /// Bytes are left over after the value.
    #[error("{count} bytes follow the end of the value")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// The value claims more than the decode limit.
    #[error("the value claims more than the limit of {bytes_max} bytes")]
    LimitExceeded {
        /// The limit.
        bytes_max: usize,
    },
    /// The bytes are no value of the expected type.
    #[error("the bytes are no value of the expected type: {0}")]
    Malformed(String),
}

/// Encodes into the beginning of `buffer` and returns the number of bytes written.
///
/// # Errors
/// [`CodecError::BufferFull`] if the value needs more bytes; [`CodecError::Unencodable`] for types outside the format.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut [u8]) -> Result<usize, CodecError> {
    let capacity = buffer.len();
    bincode::serde::encode_into_slice(value, buffer, bincode::config::standard())
        .map_err(|error| encode_error(error, capacity))
}

/// Encodes into a new vector. For paths that are seldom taken and for tests; see [`encode_into`].
///
/// # Errors
/// [`CodecError::Unencodable`] for types outside the format.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| encode_error(error, usize::MAX))
}

/// Encodes at the end of `buffer` and returns the number of bytes added; after an error the buffer is as before.
///
/// # Errors
/// [`CodecError::Unencodable`] for types outside the format.
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, buffer: &mut Vec<u8>) -> Result<usize, CodecError> {
    let before = buffer.len();
    bincode::serde::encode_into_std_write(value, buffer, bincode::config::standard()).map_err(|error| {
        buffer.truncate(before);
        encode_error(error, usize::MAX)
    })
}

/// Decodes one value that takes up all of `bytes`, within the limit for messages ([`DECODE_BYTES_MAX`]).
///
/// # Errors
/// Any of the decoding variants of [`CodecError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<DECODE_BYTES_MAX, T>(bytes)
}

/// Decodes one value that takes up all of `bytes`, within a limit of the caller's own. The limit counts integers and
/// lengths at their full width (up to eight times what they take encoded), everything else at its encoded size.
///
/// # Errors
/// Any of the decoding variants of [`CodecError`].
pub fn decode_within<const BYTES_MAX: usize, T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
    let (value, consumed) = bincode::serde::borrow_decode_from_slice(bytes, config)
        .map_err(|error| decode_error(error, BYTES_MAX))?;
    match bytes.len() - consumed {
        0 => Ok(value),
        count => Err(CodecError::TrailingBytes { count }),
    }
}

fn encode_error(error: bincode::error::EncodeError, capacity: usize) -> CodecError {
    match error {
        bincode::error::EncodeError::UnexpectedEnd => CodecError::BufferFull { capacity },
        other => CodecError::Unencodable(other.to_string()),
    }
}

fn decode_error(error: bincode::error::DecodeError, bytes_max: usize) -> CodecError {
    use bincode::error::DecodeError;
    match error {
        DecodeError::UnexpectedEnd { .. } => CodecError::Truncated,
        DecodeError::LimitExceeded => CodecError::LimitExceeded { bytes_max },
        DecodeError::OtherString(reason) => CodecError::Malformed(reason),
        other => CodecError::Malformed(other.to_string()),
    }
}

/// `#[serde(with = "bytes")]`: a `Vec<u8>` as its length and its bytes in one piece. Serde's default gives the same
/// encoding, but byte by byte.
pub(crate) mod bytes {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{Error, SeqAccess, Visitor},
    };

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor)
    }

    struct BytesVisitor;

    impl<'de> Visitor<'de> for BytesVisitor {
        type Value = Vec<u8>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        // Formats for people, such as the JSON of the test vectors, have no bytes but lists of numbers.
        fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Vec<u8>, A::Error> {
            super::list::collect(sequence)
        }
    }
}

/// `#[serde(with = "list")]`: a `Vec` that grows with what is really there. Serde's own reserves up to a mebibyte
/// because of a length that a peer merely announced.
pub(crate) mod list {
    use std::{fmt, marker::PhantomData};

    use serde::{
        Deserialize, Deserializer, Serialize, Serializer,
        de::{SeqAccess, Visitor},
    };

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        list: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        list.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }

    pub(super) fn collect<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
        mut sequence: A,
    ) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = sequence.next_element()? {
            list.push(element);
        }
        Ok(list)
    }

    struct ListVisitor<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Vec<T>, A::Error> {
            collect(sequence)
        }
    }
}
