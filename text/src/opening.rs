//! What a connection that sends no preamble speaks, from its first bytes. Pure.
//!
//! A web page, a port scanner or a misconfigured proxy also connects. What it sends must not become a player, and none
//! of it may be obeyed as a command.

/// A protocol that the server does not speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignProtocol {
    /// A request line of HTTP.
    Http,
    /// A `ClientHello` of TLS.
    Tls,
    /// The identification of an SSH client.
    Ssh,
    /// The header of a proxy, in version 1 (text) or 2 (binary).
    Proxy,
}

impl std::fmt::Display for ForeignProtocol {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Ssh => "SSH",
            Self::Proxy => "the PROXY protocol",
        })
    }
}

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// More bytes are needed.
    Incomplete,
    /// Nothing but Enter, which is also how the header of a proxy and some requests of HTTP begin: more may follow at
    /// once, or nothing.
    Enter,
    /// Another protocol.
    Foreign(ForeignProtocol),
    /// A person at a terminal.
    Person,
}

/// How a header of the PROXY protocol, version 2, begins.
const PROXY_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest method of HTTP, in bytes. The longest that is registered has 17.
const METHOD_BYTES_MAX: usize = 24;

/// Classifies the first bytes of a connection. `is_complete`: no more bytes can be waited for, because the client sends
/// none or the buffer is full.
pub fn classify(bytes: &[u8], is_complete: bool) -> Opening {
    let undecided = match is_complete {
        false => Opening::Incomplete,
        true => Opening::Person,
    };
    if bytes.starts_with(PROXY_SIGNATURE) {
        return Opening::Foreign(ForeignProtocol::Proxy);
    }
    let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
    match bytes {
        [] => return Opening::Incomplete,
        [0x16, 0x03, ..] => return Opening::Foreign(ForeignProtocol::Tls),
        [0x16] => return undecided,
        _ if !is_complete && bytes.iter().all(is_blank) => return Opening::Enter,
        _ if PROXY_SIGNATURE.starts_with(bytes) => return undecided,
        _ => {}
    }
    // An HTTP client may send empty lines in front of its request.
    let blank_bytes = bytes.iter().take_while(|byte| is_blank(byte)).count();
    let rest = &bytes[blank_bytes..];
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let line = &rest[..end.unwrap_or(rest.len())];
    if let Some(protocol) = foreign_line(line) {
        return Opening::Foreign(protocol);
    }
    let may_be_continued = line.first().is_some_and(u8::is_ascii_alphabetic) && end.is_none();
    match may_be_continued {
        true if is_complete && begins_http_request(line) => Opening::Foreign(ForeignProtocol::Http),
        true => undecided,
        // A byte is no greeting: a person presses Enter.
        false if end.is_none() && blank_bytes == 0 => undecided,
        false => Opening::Person,
    }
}

/// The protocol that a first line shows, if it is none of the server's.
pub fn foreign_line(line: &[u8]) -> Option<ForeignProtocol> {
    if line.starts_with(&[0x16, 0x03]) {
        Some(ForeignProtocol::Tls)
    } else if line.starts_with(b"SSH-") {
        Some(ForeignProtocol::Ssh)
    } else if line.starts_with(b"PROXY ") {
        Some(ForeignProtocol::Proxy)
    } else {
        is_http_request(line).then_some(ForeignProtocol::Http)
    }
}

/// Whether a line is the header `Host:`, which every request of a browser has.
pub fn is_host_header(line: &[u8]) -> bool {
    line.trim_ascii_start()
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"host:"))
}

/// Whether a line is a method, a target and `HTTP/`.
fn is_http_request(line: &[u8]) -> bool {
    words(line).next().is_some_and(is_method) && names_http_version(line)
}

/// Whether a word behind the first begins with `HTTP/`. A request may have any word as its method.
pub fn names_http_version(line: &[u8]) -> bool {
    const VERSION: &[u8] = b"http/";
    words(line).skip(1).any(|word| {
        word.get(..VERSION.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(VERSION))
    })
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
}

/// Whether an unfinished line can only be a request: a method and a target.
fn begins_http_request(line: &[u8]) -> bool {
    let Some(space) = line.iter().position(|byte| *byte == b' ') else {
        return false;
    };
    let (method, target) = (&line[..space], line[space..].trim_ascii_start());
    is_method(method) && (matches!(target.first(), Some(b'/' | b'*')) || target.starts_with(b"http"))
}

/// Whether a word is a method: of those that browsers send, in any case, or any other in capitals.
fn is_method(word: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
    ];
    let is_in_capitals = || word.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
    !word.is_empty()
        && word.len() <= METHOD_BYTES_MAX
        && (METHODS.iter().any(|method| method.eq_ignore_ascii_case(word)) || is_in_capitals())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOREIGN: [(&[u8], ForeignProtocol); 10] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ForeignProtocol::Http),
        (b"POST /stop HTTP/1.0\r\n\r\nstop\r\n", ForeignProtocol::Http),
        (b"M-SEARCH * HTTP/1.1\r\n", ForeignProtocol::Http),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ForeignProtocol::Http),
        (b"\r\nOPTIONS * HTTP/1.1\r\n", ForeignProtocol::Http),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", ForeignProtocol::Tls),
        (b"SSH-2.0-x\r\n", ForeignProtocol::Ssh),
        (
            b"PROXY TCP4 203.0.113.7 127.0.0.1 55555 4000\r\nwho\r\n",
            ForeignProtocol::Proxy,
        ),
        (b"PROXY UNKNOWN\r\n", ForeignProtocol::Proxy),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
            ForeignProtocol::Proxy,
        ),
    ];

    #[test]
    fn an_opening_of_another_protocol_is_recognised_and_no_part_of_it_is_a_person() {
        for (bytes, protocol) in FOREIGN {
            assert_eq!(classify(bytes, false), Opening::Foreign(protocol), "{bytes:?}");
            for cut in 0..bytes.len() {
                let part = classify(&bytes[..cut], false);
                assert!(
                    [Opening::Incomplete, Opening::Enter, Opening::Foreign(protocol)].contains(&part),
                    "{:?} is {part:?}",
                    &bytes[..cut]
                );
            }
        }
    }

    #[test]
    fn a_person_is_recognised_at_the_end_of_the_first_line_at_the_latest() {
        for line in [
            "get",
            "GET",
            "GET /",
            "help",
            "name HTTP/1.1",
            "say we play over HTTP/2 now",
            "SSH",
            "PROXY",
            "3",
            "\u{e9}t\u{e9}",
        ] {
            for end in ["\r\n", "\n", "\r"] {
                assert_eq!(
                    classify(format!("{line}{end}").as_bytes(), false),
                    Opening::Person,
                    "{line:?}"
                );
            }
        }
        for enter in [&b"\r\n"[..], b"\n", b"\r\0", b"\r\n\r\n"] {
            assert_eq!(classify(enter, false), Opening::Enter);
        }
        assert_eq!(classify(b"\r\nh", false), Opening::Incomplete);
        let negotiates = [255, 251, 31];
        assert_eq!(classify(&negotiates, false), Opening::Incomplete);
        let and_enters = [&negotiates[..], b"\r\n"].concat();
        assert_eq!(classify(&and_enters, false), Opening::Person);
    }

    #[test]
    fn no_byte_but_enter_is_a_greeting() {
        for byte in (0..=u8::MAX).filter(|byte| !b"\r\n\0".contains(byte)) {
            assert_eq!(classify(&[byte], false), Opening::Incomplete, "{byte}");
        }
    }

    #[test]
    fn without_more_bytes_to_come_the_rest_is_a_person_unless_it_begins_a_request() {
        for bytes in [&b"\r\n"[..], b"who", b"\x16", b"GET", b"\r\n\r\n\0\r\nQU"] {
            assert_eq!(classify(bytes, true), Opening::Person, "{bytes:?}");
        }
        let long = [b"GET /".as_slice(), &[b'a'; 507]].concat();
        assert_eq!(classify(&long, true), Opening::Foreign(ForeignProtocol::Http));
    }

    #[test]
    fn a_host_header_is_recognised_in_any_case() {
        for (line, is_one) in [
            ("Host: x", true),
            ("HOST:x", true),
            (" host: x", true),
            ("hosts:", false),
            ("say Host: x", false),
            ("", false),
        ] {
            assert_eq!(is_host_header(line.as_bytes()), is_one, "{line:?}");
        }
    }

    proptest! {
        /// A decision never changes by bytes that arrive later, so it does not matter how the stream is cut.
        #[test]
        fn a_decision_is_final(
            start in prop_oneof![
                Just(Vec::new()),
                (0..FOREIGN.len(), 0_usize..12).prop_map(|(nth, cut)| FOREIGN[nth].0[..cut.min(FOREIGN[nth].0.len())].to_vec()),
            ],
            rest in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"\r\n\0 /HTPG".to_vec())], 0..40),
        ) {
            let bytes = [start, rest].concat();
            let whole = classify(&bytes, false);
            for cut in 0..bytes.len() {
                let part = classify(&bytes[..cut], false);
                prop_assert!(
                    [Opening::Incomplete, Opening::Enter].contains(&part) || part == whole,
                    "{part:?} at {cut} became {whole:?}"
                );
            }
        }
    }
}
