//! Where clients connect: an address, or the name of a host, with a port.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::limits::HOST_NAME_BYTES_MAX;

/// One value of `listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address; port 0 lets the kernel choose.
    Address(SocketAddr),
    /// The name of a host, whose addresses are looked up when the server starts, and a port.
    Name(String, u16),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(out, "{address}"),
            Self::Name(name, port) => write!(out, "{name}:{port}"),
        }
    }
}

/// A text is neither an address nor a name, or has no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoListenAddress;

impl FromStr for ListenAddress {
    type Err = NoListenAddress;

    fn from_str(text: &str) -> Result<Self, NoListenAddress> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (name, port) = text.rsplit_once(':').ok_or(NoListenAddress)?;
        let port = port.parse().map_err(|_| NoListenAddress)?;
        match is_host_name(name) {
            true => Ok(Self::Name(name.to_owned(), port)),
            false => Err(NoListenAddress),
        }
    }
}

/// Whether the text can be the name of a host. One whose last label is a number is a mistyped address.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.bytes().all(is_allowed)
    };
    let labels = text.strip_suffix('.').unwrap_or(text);
    let last = labels.rsplit('.').next().unwrap_or_default();
    text.len() <= HOST_NAME_BYTES_MAX
        && labels.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_name_are_told_apart_and_written_as_they_were_read() {
        for text in ["127.0.0.1:4000", "[::1]:0"] {
            let address = text.parse::<ListenAddress>();
            assert!(matches!(address, Ok(ListenAddress::Address(_))), "{text}");
            assert_eq!(address.map(|it| it.to_string()).as_deref(), Ok(text));
        }
        for text in ["localhost:4000", "play.example.org.:1", "a_b-c:65535", "4me:1"] {
            let name = text.parse::<ListenAddress>();
            assert!(matches!(name, Ok(ListenAddress::Name(..))), "{text}");
            assert_eq!(name.map(|it| it.to_string()).as_deref(), Ok(text));
        }
        let long = format!("{}:1", "a".repeat(HOST_NAME_BYTES_MAX + 1));
        for text in [
            "",
            ":1",
            "localhost",
            "localhost:",
            "localhost:65536",
            "127.0.0.1:70000",
            "300.0.0.1:1",
            "::1:1",
            "[::1]",
            "a..b:1",
            ".:1",
            "a b:1",
            "unix:/x",
            &long,
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(NoListenAddress), "{text}");
        }
    }
}
