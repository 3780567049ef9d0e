//! Frames: a little-endian `u32` length, then that many bytes, which are one encoded message.
//!
//! Splitting and writing frames does not allocate. (Decoding a message that owns text or bytes does.)

use serde::Serialize;

use crate::{
    codec::{self, CodecError},
    limits::{BANNER_BYTES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX},
};

/// The result of [`split`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split<'a> {
    /// The frame is not complete. Splitting again cannot succeed before the buffer holds `needed` bytes.
    Incomplete {
        /// Bytes in total, including those already in the buffer.
        needed: usize,
    },
    /// A complete frame.
    Frame {
        /// The encoded message.
        body: &'a [u8],
        /// Bytes of header and body. The next frame begins at this offset.
        total: usize,
    },
    /// The header announces more than `max` bytes. The frame boundaries after it are unknown.
    TooLarge {
        /// Announced bytes of the body.
        announced: usize,
    },
}

/// Splits one frame, with a body of at most `max` bytes, off the beginning of `buffer`.
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

/// Bytes of the line of text that precedes the answer to a greeting on a connection whose client was slow to greet; 0
/// if there is none. `None`: more bytes are needed to tell.
///
/// The line's first four bytes are visible characters, and so not the length of a frame.
pub fn banner(beginning: &[u8]) -> Option<usize> {
    let header = beginning.first_chunk::<FRAME_HEADER_BYTES>()?;
    if u32::from_le_bytes(*header) as usize <= FRAME_BYTES_MAX || !header.iter().all(u8::is_ascii_graphic) {
        return Some(0);
    }
    let line = &beginning[..beginning.len().min(BANNER_BYTES_MAX)];
    match line.iter().position(|byte| *byte == b'\n') {
        Some(end) => Some(end + 1),
        None if line.len() < BANNER_BYTES_MAX => None,
        None => Some(0),
    }
}

/// Writes `message` as a frame to the beginning of `buffer` and returns the frame's length, including its header.
/// Every valid frame fits into a buffer of [`FRAME_TOTAL_BYTES_MAX`] bytes.
///
/// # Errors
/// [`CodecError::MessageTooLarge`] if the message is longer than [`FRAME_BYTES_MAX`], [`CodecError::BufferFull`] if the
/// frame is longer than the buffer. After an error the content of the buffer is unspecified.
pub fn write_frame_into<T: Serialize + ?Sized>(message: &T, buffer: &mut [u8]) -> Result<usize, CodecError> {
    let capacity = buffer.len();
    let buffer = &mut buffer[..capacity.min(FRAME_TOTAL_BYTES_MAX)];
    let Some((header, body)) = buffer.split_first_chunk_mut::<FRAME_HEADER_BYTES>() else {
        return Err(CodecError::BufferFull { capacity });
    };
    let length = codec::encode_into(message, body).map_err(|error| match error {
        CodecError::BufferFull { .. } if capacity >= FRAME_TOTAL_BYTES_MAX => message_too_large(),
        CodecError::BufferFull { .. } => CodecError::BufferFull { capacity },
        other => other,
    })?;
    *header = encode_header(length)?;
    Ok(FRAME_HEADER_BYTES + length)
}

/// Appends `message` as a frame to `buffer` and returns the frame's length, including its header. After an error the
/// buffer is unchanged.
///
/// # Errors
/// [`CodecError::MessageTooLarge`] if the message is longer than [`FRAME_BYTES_MAX`].
pub fn append_frame<T: Serialize + ?Sized>(message: &T, buffer: &mut Vec<u8>) -> Result<usize, CodecError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let result = codec::append(message, buffer).and_then(|length| {
        buffer[start..start + FRAME_HEADER_BYTES].copy_from_slice(&encode_header(length)?);
        Ok(FRAME_HEADER_BYTES + length)
    });
    if result.is_err() {
        buffer.truncate(start);
    }
    result
}

fn encode_header(length: usize) -> Result<[u8; FRAME_HEADER_BYTES], CodecError> {
    match u32::try_from(length) {
        Ok(header) if length <= FRAME_BYTES_MAX => Ok(header.to_le_bytes()),
        _ => Err(message_too_large()),
    }
}

fn message_too_large() -> CodecError {
    CodecError::MessageTooLarge {
        bytes_max: FRAME_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banner_is_told_from_every_frame() {
        assert_eq!(banner(b"Thi"), None, "it may be a length");
        assert_eq!(banner(b"This is a ga"), None, "its end is still to come");
        assert_eq!(banner(b"This is it\r\n\x02\0\0\0"), Some(12));
        assert_eq!(banner(&[b'x'; BANNER_BYTES_MAX]), Some(0), "it has no end");
        let longest = u32::try_from(FRAME_BYTES_MAX).expect("it is small");
        for length in 0..=longest {
            let frame = [&length.to_le_bytes()[..], b"\n"].concat();
            assert_eq!(banner(&frame), Some(0), "{length}");
        }
    }
}
