//! The PROXY header, by which a trusted proxy says whose connection it passes on. Pure.
//!
//! It comes in two versions, a line of text and a binary form, and is the first that is sent on the connection. The
//! fields that a proxy may append to the binary form (TLVs) are skipped.

use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, Protocol};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// How version 1 begins.
const TEXT_PREFIX: &[u8] = b"PROXY ";
/// Bytes of version 1: no line is longer.
const TEXT_BYTES_MAX: usize = 107;
/// How version 2 begins.
const BINARY_PREFIX: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 in front of the addresses. The last two are the number of bytes that follow.
const BINARY_FIXED_BYTES: usize = BINARY_PREFIX.len() + 4;

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its length.
    pub bytes: u32,
    /// The client's address; `None` if the proxy speaks for itself, or does not know the client's address in a network.
    pub client: Option<SocketAddr>,
}

/// Why the first bytes from a trusted proxy are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// They are something else.
    #[error("connections from a trusted proxy begin with a PROXY header")]
    Missing,
    /// A header was begun, and is wrong.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// It is longer than what can be taken in.
    #[error("the PROXY header has {0} bytes, and at most {PROXY_HEADER_BYTES_MAX} are taken in")]
    TooLong(usize),
    /// It says that the client does not speak TCP.
    #[error("the PROXY header is of a client that does not speak TCP")]
    NotTcp,
}

/// Reads the header at the beginning of `bytes`. `Ok(None)`: more bytes are needed.
///
/// # Errors
///
/// [`ProxyHeaderError`]; more bytes change nothing.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let may_begin_with = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected);
    if !may_begin_with(TEXT_PREFIX) && !may_begin_with(BINARY_PREFIX) {
        return Err(ProxyHeaderError::Missing);
    }
    let is_text = may_begin_with(TEXT_PREFIX);
    let length = if is_text {
        // A line that is too long is so wherever the stream is cut.
        bytes.len().min(TEXT_BYTES_MAX)
    } else {
        let Some([.., high, low]) = bytes.first_chunk::<BINARY_FIXED_BYTES>() else {
            return Ok(None);
        };
        let length = BINARY_FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        if length > PROXY_HEADER_BYTES_MAX {
            return Err(ProxyHeaderError::TooLong(length));
        }
        if length > bytes.len() {
            return Ok(None);
        }
        length
    };
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let (header, length) = match proxy_header::ProxyHeader::parse(&bytes[..length], config) {
        Ok(parsed) => parsed,
        Err(Error::BufferTooShort) if is_text => return Ok(None),
        Err(_) => return Err(ProxyHeaderError::Malformed),
    };
    let client = header.proxied_address();
    if client.is_some_and(|client| client.protocol != Protocol::Stream) {
        return Err(ProxyHeaderError::NotTcp);
    }
    Ok(Some(ProxyHeader {
        bytes: u32::try_from(length).map_err(|_| ProxyHeaderError::TooLong(length))?,
        client: client.map(|client| client.source),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2: command, family and protocol, and what follows the length.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("a length of two bytes");
        [BINARY_PREFIX, &[command, family], &length.to_be_bytes(), rest].concat()
    }

    const V4: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0xd9, 0x03, 0x0f, 0xa0];

    fn v6() -> Vec<u8> {
        let mut addresses = vec![0; 36];
        addresses[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        addresses[15] = 7;
        addresses[32..34].copy_from_slice(&[0xd9, 0x03]);
        addresses
    }

    /// Whole headers, and the client's address in each.
    fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let v4 = Some("203.0.113.7:55555");
        let v6_address = Some("[2001:db8::7]:55555");
        let tlvs = [&[0x04, 0x01, 0x00][..], &[0; 256], &[0x05, 0, 2, 1, 2]].concat();
        let longest = [
            V4,
            &vec![0; PROXY_HEADER_BYTES_MAX - BINARY_FIXED_BYTES - V4.len()],
        ]
        .concat();
        vec![
            (b"PROXY TCP4 203.0.113.7 192.0.2.1 55555 4000\r\n".to_vec(), v4),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 55555 4000\r\n".to_vec(),
                v6_address,
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), None),
            (binary(0x21, 0x11, V4), v4),
            (binary(0x21, 0x21, &v6()), v6_address),
            (binary(0x21, 0x11, &[V4, &tlvs].concat()), v4),
            (binary(0x21, 0x11, &longest), v4),
            // The health check of a proxy, and clients on a unix socket or of no family.
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, V4), None),
            (binary(0x21, 0x00, &tlvs), None),
            (binary(0x21, 0x31, &[b'/'; 216]), None),
        ]
    }

    #[test]
    fn a_whole_header_tells_the_clients_address_and_its_own_length() {
        for (bytes, client) in headers() {
            let client = client.map(|address| address.parse().expect("an address"));
            let length = u32::try_from(bytes.len()).expect("short");
            let expected = Ok(Some(ProxyHeader {
                bytes: length,
                client,
            }));
            assert_eq!(parse(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_that_begin_no_header_are_refused_as_soon_as_that_is_certain() {
        for bytes in [
            &b"\xF7FKD"[..],
            b"q",
            b"proxy ",
            b"PROXy",
            b"PROXYTCP4",
            b"\n",
            b"\r\nq",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
        ] {
            assert_eq!(parse(bytes), Err(ProxyHeaderError::Missing), "{bytes:?}");
        }
    }

    #[test]
    fn a_malformed_header_is_refused() {
        let malformed = [
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 2\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\r".to_vec(),
            b"PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n".to_vec(),
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 92], b"\r\n".to_vec()].concat(),
            // Another version, command, family or transport.
            binary(0x11, 0x11, V4),
            binary(0x22, 0x11, V4),
            binary(0x21, 0x41, V4),
            binary(0x21, 0x13, V4),
            // Too short for the addresses of the family.
            binary(0x21, 0x11, &V4[..11]),
            binary(0x21, 0x21, V4),
            binary(0x21, 0x31, V4),
        ];
        for bytes in malformed {
            assert_eq!(parse(&bytes), Err(ProxyHeaderError::Malformed), "{bytes:?}");
        }
        assert_eq!(parse(&binary(0x21, 0x12, V4)), Err(ProxyHeaderError::NotTcp));
    }

    #[test]
    fn a_header_that_announces_too_much_is_refused_before_it_arrives() {
        let beyond = PROXY_HEADER_BYTES_MAX - BINARY_FIXED_BYTES + 1;
        let whole = binary(0x21, 0x11, &vec![0; beyond]);
        let expected = Err(ProxyHeaderError::TooLong(PROXY_HEADER_BYTES_MAX + 1));
        assert_eq!(parse(&whole[..BINARY_FIXED_BYTES]), expected);
        assert_eq!(parse(&whole), expected);
    }

    proptest! {
        /// However a stream is cut: no part of a header is anything but incomplete, and what follows changes nothing.
        #[test]
        fn a_header_is_found_wherever_it_is_cut(nth in 0..headers().len(), behind in any::<Vec<u8>>()) {
            let (header, _) = headers().swap_remove(nth);
            let whole = parse(&header);
            for cut in 0..header.len() {
                prop_assert_eq!(parse(&header[..cut]), Ok(None), "cut at {}", cut);
            }
            prop_assert_eq!(parse(&[header, behind].concat()), whole);
        }

        /// No decision is changed by bytes that arrive later.
        #[test]
        fn a_decision_is_final(
            (nth, kept) in (0..headers().len(), any::<prop::sample::Index>()),
            rest in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n\0 :.QTCP46".to_vec())], 0..60),
        ) {
            let (header, _) = headers().swap_remove(nth);
            let bytes = [&header[..kept.index(header.len())], &rest].concat();
            let whole = parse(&bytes);
            for cut in 0..bytes.len() {
                let part = parse(&bytes[..cut]);
                prop_assert!(part == Ok(None) || part == whole, "{:?} at {} became {:?}", part, cut, whole);
            }
        }
    }
}
