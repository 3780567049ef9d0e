//! The simplest server that relays messages: one process, one mio loop, no lobby and no isolation.
//!
//! It implements only the part of the wire protocol that the relay workload needs: the handshake, creating
//! and joining a room, acting, pings and the goodbye. It checks only what keeps it running: any client may
//! join any room, sessions cannot be resumed, streams are not stored, no client times out, and the output of
//! a client that does not read grows without limit. A client that breaks the protocol loses its connection.
//! The difference to Forkade is the cost of Forkade's features.

#![forbid(unsafe_code)]

mod connection;
mod relay;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::connection::Connection;
use crate::relay::Relay;

const LISTENER: Token = Token(usize::MAX);
const EVENTS_AT_ONCE: usize = 1024;
const READ_BYTES: usize = 64 * 1024;
/// The backlog of Forkade.
const BACKLOG: i32 = 1024;

/// Serves on a free port of 127.0.0.1 until a signal ends the process. Prints a ready line in JSON with the
/// address on stdout.
pub fn main() -> ExitCode {
    match serve() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("the floor failed: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Never {}

fn serve() -> io::Result<Never> {
    let mut listener = listen()?;
    let mut poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let ready = serde_json::json!({
        "event": "ready", "game": listener.local_addr()?.to_string(), "pid": std::process::id(),
    });
    writeln!(io::stdout(), "{ready}")?;
    let mut relay = Relay::default();
    let mut events = Events::with_capacity(EVENTS_AT_ONCE);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut relay)?,
                Token(client) => relay.ready(client, event, &mut buffer),
            }
        }
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

fn accept(listener: &TcpListener, poll: &Poll, relay: &mut Relay) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nodelay(true)?;
                let client = relay.free_index();
                poll.registry().register(
                    &mut stream,
                    Token(client),
                    Interest::READABLE | Interest::WRITABLE,
                )?;
                relay.enter(client, Connection::new(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Without descriptors nothing can be measured.
            Err(error) => return Err(error),
        }
    }
}
