//! How far a TCP connection has come, asked of the kernel: what a dead process had received and sent is known nowhere else.
//!
//! The kernel counts the stream's bytes, but also what is none: a FIN counts as one byte of the direction it ends, from the moment
//! it arrives (or, our own, is queued). And it counts per question, so that bytes which arrive between two
//! questions make two answers that do not belong together.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::mutants::Mutant;

/// Readings that are taken before giving up. Nobody receives from the socket meanwhile, so what keeps changing is bounded by its
/// buffers; this is some 10 ms.
const READINGS_MAX: u32 = 10_000;

/// How far an accepted connection has come, in bytes since it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpProgress {
    /// Bytes that processes have received from the socket.
    pub received: u64,
    /// Bytes that processes have handed to the kernel for sending, acknowledged by the peer or not.
    pub sent: u64,
    /// Bytes that have arrived and that nobody has received yet.
    pub unread: u64,
    /// Bytes handed over that the peer has not acknowledged yet.
    pub unacknowledged: u64,
    /// The peer's FIN has arrived: behind the unread bytes, nothing comes.
    pub fin_received: bool,
    /// This side was shut down for sending.
    pub fin_sent: bool,
}

/// Why there are no cursors.
#[derive(Debug, thiserror::Error)]
pub enum TcpProgressError {
    /// Reset, timed out, or ended by both sides: the kernel has forgotten how far it had come.
    #[error("the connection is over")]
    ConnectionOver,
    /// A socket that listens, or is being connected.
    #[error("the socket is not connected (TCP state {0})")]
    NotConnected(u8),
    /// Without `SO_OOBINLINE` an urgent byte makes the kernel's count of unread bytes wrong.
    #[error("the socket keeps urgent bytes out of line: its unread bytes cannot be counted")]
    UrgentOutOfLine,
    /// The figures changed at every look. Somebody is using the socket.
    #[error("the connection did not stand still for one of {READINGS_MAX} readings")]
    Unsettled,
    /// This kernel (before Linux 4.1) does not count the bytes.
    #[error("the kernel's TCP_INFO has no byte counts")]
    NotCounted,
    /// The named step failed.
    #[error("{step} failed: {source}")]
    System {
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl TcpProgress {
    /// Asks the kernel. The socket must have been accepted (one that was connected from here counts its SYN), from a listening
    /// socket with `SO_OOBINLINE`, and nobody else may be receiving or sending on it meanwhile.
    ///
    /// # Errors
    ///
    /// [`TcpProgressError`]. None of them leaves a way to take the connection over.
    pub fn read(socket: &impl AsFd) -> Result<Self, TcpProgressError> {
        let socket = socket.as_fd();
        if !rustix::net::sockopt::socket_oobinline(socket).map_err(failed("getsockopt(SO_OOBINLINE)"))? {
            return Err(TcpProgressError::UrgentOutOfLine);
        }
        let mut before = Counted::read(socket)?;
        before.ended()?;
        for _ in 0..READINGS_MAX {
            let queued_in = rustix::io::ioctl_fionread(socket).map_err(failed("ioctl(SIOCINQ)"))?;
            let queued_out = queued_out(socket)?;
            let after = Counted::read(socket)?;
            // These counts only ever grow. So if they are the same before and after, then nothing arrived and nothing was
            // acknowledged in between, and the queues belong to them.
            if before == after {
                return after.cursors(queued_in, queued_out);
            }
            before = after;
        }
        Err(TcpProgressError::Unsettled)
    }
}

/// What one TCP_INFO says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counted {
    state: u8,
    received: u64,
    acknowledged: u64,
}

// The states of a connection, numbered as in the kernel's include/net/tcp_states.h; libc names them for some targets only.
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

impl Counted {
    fn read(socket: BorrowedFd<'_>) -> Result<Self, TcpProgressError> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).expect("a small structure");
        // SAFETY: the kernel writes at most `length` bytes to `info`, and how many it wrote to `length`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(failed("getsockopt(TCP_INFO)")(io::Error::last_os_error()));
        }
        let needed = std::mem::offset_of!(libc::tcp_info, tcpi_bytes_received) + size_of::<u64>();
        if usize::try_from(length).is_ok_and(|length| length < needed) {
            return Err(TcpProgressError::NotCounted);
        }
        // SAFETY: all of it was zeroed, then partly overwritten, and it consists of integers.
        let info = unsafe { info.assume_init() };
        Ok(Self {
            state: info.tcpi_state,
            received: info.tcpi_bytes_received,
            acknowledged: info.tcpi_bytes_acked,
        })
    }

    /// Whether the peer, and whether we, have ended this connection.
    fn ended(self) -> Result<(bool, bool), TcpProgressError> {
        match self.state {
            ESTABLISHED => Ok((false, false)),
            CLOSE_WAIT => Ok((true, false)),
            FIN_WAIT1 | FIN_WAIT2 => Ok((false, true)),
            CLOSING | LAST_ACK => Ok((true, true)),
            CLOSE | TIME_WAIT => Err(TcpProgressError::ConnectionOver),
            state => Err(TcpProgressError::NotConnected(state)),
        }
    }

    /// What these counts and queue lengths mean in this state.
    fn cursors(self, queued_in: u64, queued_out: u64) -> Result<TcpProgress, TcpProgressError> {
        let (fin_received, fin_sent) = self.ended()?;
        // The peer's FIN counts as arrived, though never as unread. Our own counts as queued until the peer has acknowledged
        // it (which only FIN_WAIT2 says), and as acknowledged from then on.
        let fin_is_subtracted = fin_received && !Mutant::FinCounted.is_on();
        let arrived = self.received.saturating_sub(u64::from(fin_is_subtracted));
        let queued_and_acknowledged = self.acknowledged + queued_out;
        let our_fin_is_queued = fin_sent && self.state != FIN_WAIT2;
        Ok(TcpProgress {
            received: arrived.saturating_sub(queued_in),
            sent: queued_and_acknowledged.saturating_sub(u64::from(fin_sent)),
            unread: queued_in,
            unacknowledged: queued_out.saturating_sub(u64::from(our_fin_is_queued)),
            fin_received,
            fin_sent,
        })
    }
}

/// Bytes handed over and not acknowledged, our own FIN included.
fn queued_out(socket: BorrowedFd<'_>) -> Result<u64, TcpProgressError> {
    let mut queued: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ for a socket) writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    if result != 0 {
        return Err(failed("ioctl(SIOCOUTQ)")(io::Error::last_os_error()));
    }
    Ok(u64::from(queued.cast_unsigned()))
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> TcpProgressError {
    move |source| TcpProgressError::System {
        step,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

    use proptest::prelude::*;
    use socket2::SockRef;

    use super::*;
    use crate::sys::sockets::{ListenOptions, Received, Sent, listen, receive_into, send_from};

    /// An accepted connection, its peer, and what both have really done.
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

        /// Sends until nothing more is taken: the peer reads none of it.
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

        /// Compares the kernel's figures with what was done; gives them.
        fn check(&self) -> Option<TcpProgress> {
            match TcpProgress::read(&self.socket) {
                Ok(cursors) => {
                    assert_eq!(cursors.received, self.received, "{cursors:?}");
                    assert_eq!(cursors.sent, self.sent, "{cursors:?}");
                    assert_eq!(cursors.fin_sent, self.fin_sent);
                    assert!(!cursors.fin_received || self.fin_received);
                    Some(cursors)
                }
                Err(TcpProgressError::ConnectionOver) => {
                    assert!(self.fin_sent && self.fin_received, "over before its time");
                    None
                }
                Err(error) => panic!("{error}"),
            }
        }

        /// Checks all along until `done`: what the peer has sent arrives in the kernel's time.
        fn check_until(&self, done: impl Fn(&TcpProgress) -> bool) {
            while !done(&self.check().expect("not over")) {
                std::thread::yield_now();
            }
        }

        fn state(&self) -> u8 {
            Counted::read(self.socket.as_fd()).expect("a socket").state
        }
    }

    #[test]
    fn a_new_connection_has_done_nothing() {
        let connection = Connection::open();
        let cursors = connection.check().expect("open");
        assert_eq!((cursors.unread, cursors.unacknowledged), (0, 0));
    }

    #[test]
    fn a_fin_is_no_byte_whether_read_or_not() {
        let mut connection = Connection::open();
        connection.peer_sends(5);
        connection.peer_ends();
        connection.check_until(|cursors| cursors.fin_received);
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
    fn our_own_fin_is_no_byte_whether_acknowledged_or_not() {
        let mut connection = Connection::open();
        connection.send(10);
        connection.end();
        connection.check();
        connection.check_until(|cursors| cursors.unacknowledged == 0);
        while connection.state() != FIN_WAIT2 {
            connection.check();
        }
        connection.peer_sends(4);
        connection.check_until(|cursors| cursors.unread == 4);
        connection.receive(4);
        connection.check();
    }

    #[test]
    fn a_peer_that_never_reads_hides_nothing() {
        let mut connection = Connection::open();
        connection.fill();
        assert!(connection.check().expect("open").unacknowledged > 0);
        connection.end();
        assert_eq!(connection.state(), FIN_WAIT1);
        connection.peer_sends(6);
        connection.check_until(|cursors| cursors.unread == 6);
        connection.peer_ends();
        connection.check_until(|cursors| cursors.fin_received);
        assert_eq!(connection.state(), CLOSING);
        connection.receive(6);
        connection.check();
    }

    #[test]
    fn both_ends_are_told_apart_while_our_last_bytes_are_under_way() {
        let mut connection = Connection::open();
        connection.peer_sends(6);
        connection.peer_ends();
        connection.check_until(|cursors| cursors.fin_received);
        connection.fill();
        connection.end();
        assert_eq!(connection.state(), LAST_ACK);
        connection.check();
        connection.receive(2);
        assert_eq!(connection.check().expect("our bytes are under way").unread, 4);
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
            let counted = Counted {
                state,
                received: 0,
                acknowledged,
            };
            let cursors = counted.cursors(0, queued_out).expect("connected");
            assert_eq!(cursors.sent, 150, "in state {state}");
            assert_eq!(
                cursors.unacknowledged,
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
        connection.check_until(|cursors| cursors.unread == 11);
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
        connection.check_until(|cursors| cursors.unread == 5);
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
    fn what_is_not_connected_has_no_cursors() {
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
    fn a_flood_from_the_peer_does_not_blur_the_reading() {
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
        fn cursors_are_exact_after_any_steps(steps in prop::collection::vec(step(), 1..60)) {
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
}
