//! Sockets: listening, the bytes of a connection, and channels between processes. No function here waits.

mod channel;

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub use crate::sys::sockets::channel::{
    Channel, ChannelError, DESCRIPTORS_PER_MESSAGE_MAX, ReceiveOutcome, SendOutcome,
};

// --- Listening ---------------------------------------------------------------------------------------------------

/// Options of a listening socket. The accepted connections inherit all but the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted. The kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Size of the send buffer, in bytes. The kernel doubles it for its bookkeeping. It bounds the memory that a client
    /// uses that never reads.
    pub send_buffer_bytes: u32,
}

/// Why [`listen`] failed.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program listens there.
    #[error("{0} is in use by another program: stop that one, or choose another port (0 takes a free one)")]
    AddressInUse(SocketAddr),
    /// No interface of this machine has the address.
    #[error("this machine has no address {}: choose one that `ip address` shows", .0.ip())]
    AddressNotHere(SocketAddr),
    /// No permission, usually for a port below 1024.
    #[error("not allowed to listen on {0}: ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one")]
    NotAllowed(SocketAddr),
    /// The named step failed.
    #[error("cannot listen on {address}: {step} failed: {source}")]
    System {
        /// The system call.
        step: &'static str,
        /// The address to listen on.
        address: SocketAddr,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

/// Listens on `address`, non-blocking; port 0 takes a free one. An IPv6 address takes no IPv4 connections. Accepted
/// connections have `TCP_NODELAY`, urgent bytes in line (which [`TcpProgress`](crate::sys::tcp_progress::TcpProgress)
/// needs) and a bounded send buffer. A port with old connections in TIME_WAIT can be used again at once.
///
/// # Errors
///
/// [`ListenError`].
pub fn listen(address: SocketAddr, options: ListenOptions) -> Result<TcpListener, ListenError> {
    let failed = |step| {
        move |source: io::Error| match source.kind() {
            ErrorKind::AddrInUse => ListenError::AddressInUse(address),
            ErrorKind::AddrNotAvailable => ListenError::AddressNotHere(address),
            ErrorKind::PermissionDenied => ListenError::NotAllowed(address),
            _ => ListenError::System {
                step,
                address,
                source,
            },
        }
    };
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )
    .map_err(failed("socket"))?;
    socket
        .set_reuse_address(true)
        .map_err(failed("setsockopt(SO_REUSEADDR)"))?;
    if address.is_ipv6() {
        socket
            .set_only_v6(true)
            .map_err(failed("setsockopt(IPV6_V6ONLY)"))?;
    }
    socket
        .set_out_of_band_inline(true)
        .map_err(failed("setsockopt(SO_OOBINLINE)"))?;
    socket
        .set_tcp_nodelay(true)
        .map_err(failed("setsockopt(TCP_NODELAY)"))?;
    let send_buffer_bytes = usize::try_from(options.send_buffer_bytes).unwrap_or(usize::MAX);
    socket
        .set_send_buffer_size(send_buffer_bytes)
        .map_err(failed("setsockopt(SO_SNDBUF)"))?;
    socket.bind(&address.into()).map_err(failed("bind"))?;
    socket
        .listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))
        .map_err(failed("listen"))?;
    Ok(socket.into())
}

// --- Bytes of a connection ---------------------------------------------------------------------------------------

/// The result of receiving.
#[must_use]
#[derive(Debug)]
pub enum Received {
    /// This many bytes, at least one.
    Bytes(usize),
    /// No bytes have arrived.
    WouldBlock,
    /// The peer has sent a FIN, and all bytes before it were received.
    Ended,
    /// The connection is lost: reset, timed out, unreachable.
    Gone(io::Error),
}

/// The result of sending.
#[must_use]
#[derive(Debug)]
pub enum Sent {
    /// The kernel took this many bytes, at least one.
    Bytes(usize),
    /// The send buffer is full; no byte was taken.
    WouldBlock,
    /// The connection is lost: reset, timed out, unreachable, or shut down for sending.
    Gone(io::Error),
}

/// Receives what has arrived, up to the buffer's length, without waiting.
///
/// # Panics
///
/// If the buffer is empty: zero bytes received would look like a FIN.
pub fn receive_into(socket: &impl AsFd, buffer: &mut [u8]) -> Received {
    assert!(!buffer.is_empty(), "receiving into an empty buffer");
    rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT))
        .map(|(bytes, _)| bytes)
        .map_err(io::Error::from)
        .into()
}

/// Sends as many of the bytes as the kernel takes, without waiting and without SIGPIPE.
///
/// # Panics
///
/// If there are no bytes.
pub fn send_from(socket: &impl AsFd, bytes: &[u8]) -> Sent {
    assert!(!bytes.is_empty(), "sending no bytes");
    rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL))
        .map_err(io::Error::from)
        .into()
}

/// Bytes that have arrived and were not received yet.
///
/// # Errors
///
/// Those of ioctl(2) with SIOCINQ.
pub fn unread_bytes(socket: &impl AsFd) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(socket)?)
}

/// True if the cause of this error is the peer or the network, as happens every day, and not a shortage on this
/// machine.
pub fn is_remote_failure(error: &io::Error) -> bool {
    use ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
        NotConnected, TimedOut,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | TimedOut
    )
}

/// Shuts down one direction of a connection or both, for all processes that have a descriptor of it. Does nothing if
/// the connection is over.
///
/// # Errors
///
/// The descriptor is not a connection.
pub fn shut_down(socket: &impl AsFd, which: Shutdown) -> io::Result<()> {
    match SockRef::from(socket).shutdown(which) {
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// From the result of recv(2) into a buffer that is not empty.
impl From<io::Result<usize>> for Received {
    fn from(result: io::Result<usize>) -> Self {
        match result {
            Ok(0) => Self::Ended,
            Ok(bytes) => Self::Bytes(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Self::WouldBlock,
            Err(error) => Self::Gone(error),
        }
    }
}

/// From the result of send(2) with at least one byte.
impl From<io::Result<usize>> for Sent {
    fn from(result: io::Result<usize>) -> Self {
        match result {
            Ok(bytes) => Self::Bytes(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Self::WouldBlock,
            Err(error) => Self::Gone(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    const OPTIONS: ListenOptions = ListenOptions {
        backlog: 8,
        send_buffer_bytes: 32 * 1024,
    };

    #[test]
    fn accepted_connections_inherit_the_options() {
        let listener = listen(loopback(0), OPTIONS).expect("a free port");
        let error = listener.accept().expect_err("no client yet");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let accepted = loop {
            if let Ok((accepted, _)) = listener.accept() {
                break accepted;
            }
        };
        let options = SockRef::from(&accepted);
        assert!(options.out_of_band_inline().expect("an option"));
        assert!(options.tcp_nodelay().expect("an option"));
        assert_eq!(options.send_buffer_size().expect("an option"), 2 * 32 * 1024);
    }

    #[test]
    fn the_same_port_can_be_listened_on_for_both_families() {
        let any = |ip: std::net::IpAddr, port| SocketAddr::from((ip, port));
        // Without IPv6 there is nothing to tell apart.
        let Ok(v6) = listen(any(std::net::Ipv6Addr::UNSPECIFIED.into(), 0), OPTIONS) else {
            return;
        };
        let port = v6.local_addr().expect("bound").port();
        listen(any(Ipv4Addr::UNSPECIFIED.into(), port), OPTIONS).expect("the other family's port is free");
    }

    #[test]
    fn an_address_that_cannot_be_listened_on_is_named_with_a_remedy() {
        let listener = listen(loopback(0), OPTIONS).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let error = listen(address, OPTIONS).expect_err("in use");
        assert!(matches!(error, ListenError::AddressInUse(at) if at == address));
        assert!(error.to_string().starts_with(&format!("{address} is in use")));
        // TEST-NET-1 (RFC 5737) belongs to no machine.
        let error = listen(SocketAddr::from(([192, 0, 2, 1], 0)), OPTIONS).expect_err("not here");
        assert!(matches!(error, ListenError::AddressNotHere(_)));
    }

    #[test]
    fn receiving_and_sending_tell_a_fin_from_a_lost_connection() {
        let listener = listen(loopback(0), OPTIONS).expect("a free port");
        listener.set_nonblocking(false).expect("fcntl");
        let open = || {
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
            (listener.accept().expect("accepts").0, client)
        };
        let arrived = |socket: &TcpStream| loop {
            match receive_into(socket, &mut [0; 16]) {
                Received::WouldBlock => std::thread::yield_now(),
                other => return other,
            }
        };

        let (socket, client) = open();
        assert!(matches!(
            receive_into(&socket, &mut [0; 16]),
            Received::WouldBlock
        ));
        assert!(matches!(send_from(&client, b"four"), Sent::Bytes(4)));
        assert!(matches!(arrived(&socket), Received::Bytes(4)));
        shut_down(&client, Shutdown::Write).expect("connected");
        assert!(matches!(arrived(&socket), Received::Ended));
        while let Sent::Bytes(_) = send_from(&socket, &[0; 10_000]) {}
        assert!(matches!(send_from(&socket, b"more"), Sent::WouldBlock));

        let (socket, client) = open();
        SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("an option");
        drop(client);
        assert!(
            matches!(arrived(&socket), Received::Gone(error) if error.kind() == ErrorKind::ConnectionReset)
        );
        assert!(matches!(send_from(&socket, b"late"), Sent::Gone(_)));
        shut_down(&socket, Shutdown::Both).expect("over already is no error");
    }
}
