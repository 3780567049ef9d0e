//! Frames: a little-endian `u32` length, then that many bytes, which are one encoded message.
//!
//! Nothing here allocates: frames are found where they lie, and written where they shall go. (A message that owns
//! text or bytes allocates them when it is decoded.)

use serde::Serialize;

use crate::{
    codec::{self, CodecError},
    limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX},
};

/// What the beginning of a buffer holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split<'a> {
    /// No whole frame yet: the buffer must come to hold at least this many bytes in all before one more look is
    /// worth it.
    Incomplete {
        /// Bytes in all, not bytes more.
        needed: usize,
    },
    /// A whole frame.
    Frame {
        /// The encoded message.
        body: &'a [u8],
        /// Bytes of header and body: where the next frame begins.
        total: usize,
    },
    /// The header announces more than `max`: whatever follows cannot be trusted.
    TooLarge {
        /// Bytes announced.
        announced: usize,
    },
}

/// Looks for one frame, with a body of at most `max` bytes, at the beginning of `buffer`.
pub fn split(buffer: &[u8], max: usize) -> Split<'_> {
    let Some((header, rest)) = buffer.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Split::Incomplete {
            needed: FRAME_HEADER_BYTES,
        };
    };
    let length = u32::from_le_bytes(*header) as usize;
    if length > max {
        return Split::TooLarge { announced: length };
    }
    let total = FRAME_HEADER_BYTES + length;
    match rest.get(..length) {
        Some(body) => Split::Frame { body, total },
        None => Split::Incomplete { needed: total },
    }
}

/// Writes `message` as a frame into the beginning of `buffer` and returns the frame's length, header included.
/// A buffer of [`FRAME_TOTAL_BYTES_MAX`] bytes has room for every valid frame.
///
/// # Errors
/// [`CodecError::MessageTooLarge`] if the message is longer than [`FRAME_BYTES_MAX`], [`CodecError::BufferFull`] if it
/// is longer than the buffer. What the buffer holds then is unspecified.
pub fn write_frame_into<T: Serialize + ?Sized>(message: &T, buffer: &mut [u8]) -> Result<usize, CodecError> {
    let capacity = buffer.len();
    let buffer = &mut buffer[..capacity.min(FRAME_TOTAL_BYTES_MAX)];
    let Some((header, body)) = buffer.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else {
        return Err(CodecError::BufferFull { capacity });
    };
    let length = codec::encode_into(message, body).map_err(|error| match error {
        CodecError::BufferFull { .. } if capacity >= FRAME_TOTAL_BYTES_MAX => too_large(),
        CodecError::BufferFull { .. } => CodecError::BufferFull { capacity },
        other => other,
    })?;
    *header = header_of(length)?;
    Ok(FRAME_HEADER_BYTES + length)
}

/// Adds `message` as a frame to the end of `buffer` and returns the frame's length, header included. After an error
/// the buffer is as before.
///
/// # Errors
/// [`CodecError::MessageTooLarge`] if the message is longer than [`FRAME_BYTES_MAX`].
pub fn append_frame<T: Serialize + ?Sized>(message: &T, buffer: &mut Vec<u8>) -> Result<usize, CodecError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let result = codec::append(message, buffer).and_then(|length| {
        buffer[start..start + FRAME_HEADER_BYTES].copy_from_slice(&header_of(length)?);
        Ok(FRAME_HEADER_BYTES + length)
    });
    if result.is_err() {
        buffer.truncate(start);
    }
    result
}

fn header_of(length: usize) -> Result<[u8; FRAME_HEADER_BYTES], CodecError> {
    match u32::try_from(length) {
        Ok(header) if length <= FRAME_BYTES_MAX => Ok(header.to_le_bytes()),
        _ => Err(too_large()),
    }
}

fn too_large() -> CodecError {
    CodecError::MessageTooLarge {
        bytes_max: FRAME_BYTES_MAX,
    }
}
