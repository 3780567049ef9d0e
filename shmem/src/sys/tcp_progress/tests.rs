//! The kernel's figures against what was really sent and received.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use proptest::prelude::*;
use socket2::SockRef;

use super::*;
use crate::sys::sockets::{ListenOptions, Received, Sent, listen, receive_into, send_from};

/// An accepted connection, its peer, and counts of what both have done.
struct Connection {
    socket: TcpStream,
    peer: TcpStream,
    received: u64,
    sent: u64,
    fin_sent: bool,
    fin_received: bool,
}

impl Connection {
    fn open() -> Self {
        let options = ListenOptions {
            backlog: 8,
            send_buffer_bytes: 64 * 1024,
        };
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::through(&listen(any_port, options).expect("a free port"))
    }

    fn through(listener: &TcpListener) -> Self {
        listener.set_nonblocking(false).expect("fcntl");
        let peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (socket, _) = listener.accept().expect("accepts");
        peer.set_nonblocking(true).expect("fcntl");
        Self {
            socket,
            peer,
            received: 0,
            sent: 0,
            fin_sent: false,
            fin_received: false,
        }
    }

    fn receive(&mut self, bytes: usize) {
        if let Received::Bytes(received) = receive_into(&self.socket, &mut vec![0; bytes]) {
            self.received += received as u64;
        }
    }

    fn send(&mut self, bytes: usize) -> bool {
        match send_from(&self.socket, &vec![7; bytes]) {
            Sent::Bytes(sent) => self.sent += sent as u64,
            Sent::WouldBlock => return false,
            Sent::Gone(error) => assert!(self.fin_sent, "{error}"),
        }
        true
    }

    /// Sends until the kernel takes no more. The peer reads none of it.
    fn fill(&mut self) {
        while self.send(100_000) {}
    }

    fn peer_sends(&mut self, bytes: usize) {
        if let Sent::Gone(error) = send_from(&self.peer, &vec![9; bytes]) {
            assert!(self.fin_received, "{error}");
        }
    }

    fn end(&mut self) {
        self.fin_sent = true;
        self.socket.shutdown(Shutdown::Write).expect("connected");
    }

    fn peer_ends(&mut self) {
        self.fin_received = true;
        self.peer.shutdown(Shutdown::Write).expect("connected");
    }

    /// Compares the kernel's counts with what was done, and returns them; `None` if the connection is over.
    fn check(&self) -> Option<TcpProgress> {
        match TcpProgress::read(&self.socket) {
            Ok(progress) => {
                assert_eq!(progress.received, self.received, "{progress:?}");
                assert_eq!(progress.sent, self.sent, "{progress:?}");
                assert_eq!(progress.fin_sent, self.fin_sent);
                assert!(!progress.fin_received || self.fin_received);
                Some(progress)
            }
            Err(TcpProgressError::ConnectionOver) => {
                assert!(self.fin_sent && self.fin_received, "over before its time");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Checks repeatedly until `done`: the kernel needs time to deliver what the peer has sent.
    fn check_until(&self, done: impl Fn(&TcpProgress) -> bool) {
        while !done(&self.check().expect("not over")) {
            std::thread::yield_now();
        }
    }

    fn state(&self) -> u8 {
        TcpInfo::read(self.socket.as_fd()).expect("a socket").state
    }
}

#[test]
fn a_new_connection_has_no_progress() {
    let connection = Connection::open();
    let progress = connection.check().expect("open");
    assert_eq!((progress.unread, progress.unacknowledged), (0, 0));
}

#[test]
fn the_peers_fin_is_not_counted_as_a_byte() {
    let mut connection = Connection::open();
    connection.peer_sends(5);
    connection.peer_ends();
    connection.check_until(|progress| progress.fin_received);
    assert_eq!(connection.check().expect("half open").unread, 5);
    connection.receive(3);
    connection.check();
    connection.receive(3);
    connection.check();
    assert!(matches!(
        receive_into(&connection.socket, &mut [0]),
        Received::Ended
    ));
    assert_eq!(connection.check().expect("half open").unread, 0);
    connection.send(11);
    connection.check();
}

#[test]
fn our_own_fin_is_not_counted_as_a_byte() {
    let mut connection = Connection::open();
    connection.send(10);
    connection.end();
    connection.check();
    connection.check_until(|progress| progress.unacknowledged == 0);
    while connection.state() != FIN_WAIT2 {
        connection.check();
    }
    connection.peer_sends(4);
    connection.check_until(|progress| progress.unread == 4);
    connection.receive(4);
    connection.check();
}

#[test]
fn counts_are_exact_with_a_peer_that_never_reads() {
    let mut connection = Connection::open();
    connection.fill();
    assert!(connection.check().expect("open").unacknowledged > 0);
    connection.end();
    assert_eq!(connection.state(), FIN_WAIT1);
    connection.peer_sends(6);
    connection.check_until(|progress| progress.unread == 6);
    connection.peer_ends();
    connection.check_until(|progress| progress.fin_received);
    assert_eq!(connection.state(), CLOSING);
    connection.receive(6);
    connection.check();
}

#[test]
fn both_fins_are_told_apart_while_our_last_bytes_are_in_flight() {
    let mut connection = Connection::open();
    connection.peer_sends(6);
    connection.peer_ends();
    connection.check_until(|progress| progress.fin_received);
    connection.fill();
    connection.end();
    assert_eq!(connection.state(), LAST_ACK);
    connection.check();
    connection.receive(2);
    assert_eq!(connection.check().expect("our bytes are in flight").unread, 4);
}

#[test]
fn our_fin_is_not_among_the_unacknowledged_bytes() {
    for (state, acknowledged, queued_out) in [
        (ESTABLISHED, 100, 50),
        (CLOSE_WAIT, 100, 50),
        (FIN_WAIT1, 100, 51),
        (CLOSING, 100, 51),
        (LAST_ACK, 100, 51),
        (FIN_WAIT2, 151, 0),
    ] {
        let info = TcpInfo {
            state,
            received: 0,
            acknowledged,
        };
        let progress = info.progress(0, queued_out).expect("connected");
        assert_eq!(progress.sent, 150, "in state {state}");
        assert_eq!(
            progress.unacknowledged,
            if state == FIN_WAIT2 { 0 } else { 50 },
            "in state {state}"
        );
    }
}

#[test]
fn an_urgent_byte_counts_like_any_other() {
    let mut connection = Connection::open();
    connection.peer_sends(5);
    SockRef::from(&connection.peer)
        .send_out_of_band(b"!")
        .expect("sends");
    connection.peer_sends(5);
    connection.check_until(|progress| progress.unread == 11);
    while connection.received < 11 {
        connection.receive(4);
        connection.check();
    }
}

#[test]
fn urgent_bytes_out_of_line_are_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let connection = Connection::through(&listener);
    assert!(matches!(
        TcpProgress::read(&connection.socket),
        Err(TcpProgressError::UrgentOutOfLine)
    ));
}

#[test]
fn a_reset_connection_is_over() {
    let mut connection = Connection::open();
    connection.peer_sends(5);
    connection.check_until(|progress| progress.unread == 5);
    SockRef::from(&connection.peer)
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("an option");
    let Connection { socket, peer, .. } = connection;
    drop(peer);
    while TcpProgress::read(&socket).is_ok() {
        std::thread::yield_now();
    }
    assert!(matches!(
        TcpProgress::read(&socket),
        Err(TcpProgressError::ConnectionOver)
    ));
}

#[test]
fn a_listening_socket_has_no_progress() {
    let options = ListenOptions {
        backlog: 1,
        send_buffer_bytes: 4096,
    };
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options).expect("a free port");
    assert!(matches!(
        TcpProgress::read(&listener),
        Err(TcpProgressError::NotConnected(_))
    ));
}

#[test]
fn counts_are_exact_while_the_peer_sends_without_pause() {
    let mut connection = Connection::open();
    let mut peer = connection.peer.try_clone().expect("a descriptor");
    peer.set_nonblocking(false).expect("fcntl");
    let flood = std::thread::spawn(move || {
        for _ in 0..200_000 {
            if peer.write_all(&[1; 37]).is_err() {
                return;
            }
        }
    });
    while !flood.is_finished() || connection.check().expect("open").unread > 0 {
        connection.receive(5000);
        connection.check();
    }
    flood.join().expect("no panic");
    assert_eq!(connection.received, 200_000 * 37);
}

#[derive(Clone, Debug)]
enum Step {
    Receive(usize),
    Send(usize),
    PeerReceives(usize),
    PeerSends(usize),
    PeerSendsUrgently,
    End,
    PeerEnds,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..40_000_usize).prop_map(Step::Receive),
        6 => (1..40_000_usize).prop_map(Step::Send),
        6 => (1..40_000_usize).prop_map(Step::PeerReceives),
        6 => (1..40_000_usize).prop_map(Step::PeerSends),
        2 => Just(Step::PeerSendsUrgently),
        1 => Just(Step::End),
        1 => Just(Step::PeerEnds),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn progress_is_exact_after_any_steps(steps in prop::collection::vec(step(), 1..60)) {
        let mut connection = Connection::open();
        for step in steps {
            match step {
                Step::Receive(bytes) => connection.receive(bytes),
                Step::Send(bytes) if !connection.fin_sent => { connection.send(bytes); }
                Step::PeerReceives(bytes) => { let _ = connection.peer.read(&mut vec![0; bytes]); }
                Step::PeerSends(bytes) if !connection.fin_received => connection.peer_sends(bytes),
                Step::PeerSendsUrgently if !connection.fin_received => {
                    let _ = SockRef::from(&connection.peer).send_out_of_band(b"!");
                }
                Step::End if !connection.fin_sent => connection.end(),
                Step::PeerEnds if !connection.fin_received => connection.peer_ends(),
                _ => {}
            }
            if connection.check().is_none() {
                break;
            }
        }
    }
}
