//! The sockets on which clients connect: one for each address that is configured, or that a configured name has.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};

use crate::config::ListenAddress;
use crate::limits::LISTEN_ADDRESSES_MAX;
use shmem::sys::sockets::{ListenError, ListenOptions, listen};

/// Why clients cannot connect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GameSocketsError {
    /// It cannot listen on one of the addresses.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// A name has no address.
    #[error(
        "cannot resolve {name}: {source}; write the address in its place, or a name that this machine knows"
    )]
    Resolve {
        /// As configured.
        name: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The names have too many addresses.
    #[error("listen stands for {0} addresses, and a server has at most {LISTEN_ADDRESSES_MAX}")]
    TooMany(usize),
}

/// Listens on all addresses.
///
/// # Errors
///
/// [`GameSocketsError`]; then the server listens on none.
pub(crate) fn open(
    configured: &[ListenAddress],
    options: ListenOptions,
) -> Result<Vec<TcpListener>, GameSocketsError> {
    let addresses = resolve(configured)?;
    if addresses.len() > LISTEN_ADDRESSES_MAX {
        return Err(GameSocketsError::TooMany(addresses.len()));
    }
    let open = |address| Ok(listen(address, options)?);
    addresses.into_iter().map(open).collect()
}

/// The addresses, each once; where the kernel chooses the port, as often as they are named.
fn resolve(configured: &[ListenAddress]) -> Result<Vec<SocketAddr>, GameSocketsError> {
    let mut addresses = Vec::new();
    for one in configured {
        let resolved = match one {
            ListenAddress::Address(address) => vec![*address],
            ListenAddress::Name(name, port) => (name.as_str(), *port)
                .to_socket_addrs()
                .map_err(|source| GameSocketsError::Resolve {
                    name: name.clone(),
                    source,
                })?
                .collect(),
        };
        for address in resolved {
            if address.port() == 0 || !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(configured: &[&str]) -> Result<Vec<SocketAddr>, GameSocketsError> {
        let configured: Vec<ListenAddress> = configured
            .iter()
            .map(|text| text.parse().expect("an address or a name"))
            .collect();
        resolve(&configured)
    }

    #[test]
    fn an_address_is_listened_on_once_however_often_it_is_named() {
        let addresses = resolved(&["127.0.0.1:7", "localhost:7", "127.0.0.1:7"]).expect("known names");
        let v4 = "127.0.0.1:7".parse().expect("an address");
        assert_eq!(addresses.iter().filter(|address| **address == v4).count(), 1);
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn a_name_that_does_not_resolve_is_in_the_error() {
        let error = resolved(&["127.0.0.1:7", "nobody.invalid:7"]).expect_err("RFC 6761 reserves the name");
        assert!(
            error.to_string().starts_with("cannot resolve nobody.invalid: "),
            "{error}"
        );
    }
}
