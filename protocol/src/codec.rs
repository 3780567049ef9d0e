//! Encoding and decoding of values. Only this file uses bincode, so that bincode can be replaced.
//!
//! The format is bincode 2's standard configuration over serde, as `WIRE.md` describes it. Games use it too, for
//! their actions, events, views, options and states. Decoding a peer's input is limited and never panics.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::limits::DECODE_BYTES_MAX;

/// Why a value could not be encoded or decoded.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CodecError {
    /// The encoded value does not fit into the buffer.
    #[error("the encoded value does not fit into {capacity} bytes")]
    BufferFull {
        /// Size of the buffer in bytes.
        capacity: usize,
    },
    /// The encoded message is longer than a frame's body may be.
    #[error("the encoded message is longer than the limit of {bytes_max} bytes for a frame")]
    MessageTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The type cannot be encoded in this format.
    #[error("the value cannot be encoded: {0}")]
    Unencodable(String),
    /// The bytes end before the value is complete.
    #[error("the bytes end before the value is complete")]
    Truncated,
    /// Bytes follow the value.
    #[error("{count} bytes follow the end of the value")]
    TrailingBytes {
        /// Number of these bytes.
        count: usize,
    },
    /// The value needs more than the decode limit.
    #[error("the value needs more than the decode limit of {bytes_max} bytes")]
    LimitExceeded {
        /// The limit.
        bytes_max: usize,
    },
    /// The bytes do not encode a value of the expected type.
    #[error("the bytes do not encode a value of the expected type: {0}")]
    Malformed(String),
}

/// Encodes `value` to the beginning of `buffer` and returns the number of bytes written.
///
/// # Errors
/// [`CodecError::BufferFull`] if the value needs more bytes; [`CodecError::Unencodable`] for types outside the format.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, buffer: &mut [u8]) -> Result<usize, CodecError> {
    let capacity = buffer.len();
    bincode::serde::encode_into_slice(value, buffer, bincode::config::standard())
        .map_err(|error| encode_error(error, capacity))
}

/// Encodes `value` into a new vector. [`encode_into`] does not allocate and suits hot paths better.
///
/// # Errors
/// [`CodecError::Unencodable`] for types outside the format.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| encode_error(error, usize::MAX))
}

/// Appends the encoded `value` to `buffer` and returns the number of bytes added. After an error the buffer is
/// unchanged.
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

/// Decodes one value, which must take up all of `bytes`, within the limit for messages ([`DECODE_BYTES_MAX`]).
///
/// # Errors
/// Any of the decoding variants of [`CodecError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<DECODE_BYTES_MAX, T>(bytes)
}

/// Decodes one value, which must take up all of `bytes`, within the caller's limit. Integers and lengths count at their
/// full width (up to eight times their encoded size), everything else at its encoded size.
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

/// `#[serde(with = "bytes")]`: encodes the bytes of a `Vec<u8>` in one call. Serde's default gives the same encoding,
/// but byte by byte.
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

        // Text formats, such as the JSON of the test vectors, represent bytes as lists of numbers.
        fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Vec<u8>, A::Error> {
            super::list::collect(sequence)
        }
    }
}

/// `#[serde(with = "list")]`: a `Vec` that grows with the elements received. Serde's own implementation reserves up to
/// a mebibyte for a length that the peer only announced.
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
