//! The blocking client against a server that loses connections, refuses clients, and stops answering.

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use forkade_protocol::{
    Client, ClientError, ClientMessage, ClientOptions, ErrorCode, RejectCode, RoomEvent, RoomFilter,
    ServerMessage, SessionError, Token,
};
use socket2::SockRef;
use support::{ModelServer, REJECTED_ACTION, TOKEN};

/// Longer than any of these tests takes on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often the server's thread checks the test's requests.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The model server behind a listening socket, in its own thread. It serves one connection at a time.
struct TestServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    model: Mutex<ModelServer>,
    /// Number of connections to reset as soon as a byte arrives from them.
    resets_pending: AtomicUsize,
    /// Resets each connection after this number of bytes in both directions together.
    cut_after_bytes: AtomicUsize,
    /// Whether the server reads but does not answer.
    mute: AtomicBool,
    accepted: AtomicUsize,
    stop: AtomicBool,
}

impl TestServer {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            model: Mutex::new(ModelServer::new(usize::MAX)),
            resets_pending: AtomicUsize::new(0),
            cut_after_bytes: AtomicUsize::new(usize::MAX),
            mute: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(&listener)
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> Client {
        Client::connect(self.address, "Ann", options()).expect("the server accepts the client")
    }

    fn model(&self) -> MutexGuard<'_, ModelServer> {
        self.shared
            .model
            .lock()
            .expect("the server's thread has not panicked")
    }

    fn send_event(&self, number: u64) {
        let event = RoomEvent::Game { data: vec![0; 100] };
        self.model().queue(&ServerMessage::Event { number, event });
    }
}

#[test]
fn pauses_are_forgotten_only_after_a_connection_has_proved_itself() {
    let server = TestServer::start();
    let mut client = server.connect();
    // Every connection is lost right after its handshake.
    server.shared.cut_after_bytes.store(30, Ordering::Relaxed);
    let before = server.shared.accepted.load(Ordering::Relaxed);
    client.disconnect_abruptly();
    assert_eq!(
        client.receive(Duration::from_secs(2)).expect("the session lives"),
        None
    );
    let attempts = server.shared.accepted.load(Ordering::Relaxed) - before;
    // Pauses of 10, 20, 40 ms and so on, of which half is random, up to a second.
    assert!((3..=15).contains(&attempts), "{attempts} attempts in two seconds");
    server.shared.cut_after_bytes.store(usize::MAX, Ordering::Relaxed);
    server.send_event(1);
    let event = client.receive(TIMEOUT).expect("the session lives");
    assert!(
        matches!(event, Some(ServerMessage::Event { number: 1, .. })),
        "{event:?}"
    );
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let result = self.thread.take().expect("it is joined once").join();
        assert!(
            result.is_ok() || std::thread::panicking(),
            "the server found an error in the client"
        );
    }
}

impl Shared {
    fn run(&self, listener: &TcpListener) {
        listener.set_nonblocking(true).expect("it can be set");
        while !self.stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    stream.set_nonblocking(false).expect("it can be set");
                    stream
                        .set_read_timeout(Some(POLL_INTERVAL))
                        .expect("it can be set");
                    self.model
                        .lock()
                        .expect("no test panics while it holds the lock")
                        .accept();
                    self.serve(stream);
                    self.model
                        .lock()
                        .expect("no test panics while it holds the lock")
                        .connection_lost();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(POLL_INTERVAL),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut transferred = 0;
        let mut buffer = [0; 4096];
        while !self.stop.load(Ordering::Relaxed) {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if self.resets_pending.load(Ordering::Relaxed) > 0 {
                        self.resets_pending.fetch_sub(1, Ordering::Relaxed);
                        return reset(&stream);
                    }
                    transferred += count;
                    self.model
                        .lock()
                        .expect("no test panics while it holds the lock")
                        .receive(&buffer[..count]);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
            if self.mute.load(Ordering::Relaxed) {
                continue;
            }
            let (bytes, closing) = {
                let mut model = self.model.lock().expect("no test panics while it holds the lock");
                (model.send(4096), model.is_closing())
            };
            transferred += bytes.len();
            if stream.write_all(&bytes).is_err() || closing {
                return;
            }
            if transferred >= self.cut_after_bytes.load(Ordering::Relaxed) {
                return reset(&stream);
            }
        }
    }
}

/// Closes with a reset.
fn reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .expect("it can be set");
}

fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: TIMEOUT,
        reconnect_timeout: TIMEOUT,
        reply_timeout: TIMEOUT,
        ..ClientOptions::default()
    }
}

fn next_event(client: &mut Client) -> u64 {
    match client.receive(TIMEOUT).expect("the session continues") {
        Some(ServerMessage::Event { number, .. }) => number,
        other => panic!("not an event: {other:?}"),
    }
}

#[test]
fn connecting_completes_the_handshake() {
    let server = TestServer::start();
    let client = server.connect();
    assert!(client.is_connected());
    assert_eq!(client.token(), TOKEN);
    let info = client.session_info().expect("the handshake is complete");
    assert_eq!(info.name, "Ann");
    assert_eq!(info.games[0].name, "relay");
    assert!(client.local_addr().is_some());
}

#[test]
fn a_connection_that_is_reset_during_the_handshake_is_retried() {
    let server = TestServer::start();
    server.shared.resets_pending.store(5, Ordering::Relaxed);
    let client = server.connect();
    assert!(client.is_connected());
    assert_eq!(server.shared.accepted.load(Ordering::Relaxed), 6);
}

#[test]
fn a_client_retries_while_its_own_lost_hello_holds_the_name() {
    let server = TestServer::start();
    server.shared.resets_pending.store(1, Ordering::Relaxed);
    server.model().refusals = Some((3, ErrorCode::NameTaken));
    assert!(server.connect().is_connected());
}

#[test]
fn a_refusal_is_an_error_at_once() {
    let server = TestServer::start();
    for code in [ErrorCode::NameTaken, ErrorCode::ServerFull] {
        server.model().refusals = Some((1, code));
        let error = Client::connect(server.address, "Ann", options()).expect_err("the server refused it");
        assert_eq!(error.error_code(), Some(code), "{error}");
    }
    let error =
        Client::resume(server.address, Token([0; 16]), options()).expect_err("no player has this token");
    assert_eq!(error.error_code(), Some(ErrorCode::TokenUnknown), "{error}");
}

#[test]
fn a_refused_connection_is_an_error_at_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let error = Client::connect(address, "Ann", options()).expect_err("no server listens");
    assert!(
        matches!(error, ClientError::Connect { address: tried, .. } if tried == address),
        "{error}"
    );
}

#[test]
fn connecting_to_a_server_that_never_answers_times_out() {
    let server = TestServer::start();
    server.shared.mute.store(true, Ordering::Relaxed);
    let options = ClientOptions {
        connect_timeout: Duration::from_millis(50),
        ..options()
    };
    let error = Client::connect(server.address, "Ann", options).expect_err("the server does not answer");
    assert!(
        matches!(error, ClientError::Timeout(_) | ClientError::ReconnectTimeout(..)),
        "{error}"
    );
}

#[test]
fn no_message_is_lost_or_repeated_while_connections_are_cut_repeatedly() {
    const MESSAGES: u32 = 500;
    let server = TestServer::start();
    let mut client = server.connect();
    server.shared.cut_after_bytes.store(3000, Ordering::Relaxed);
    for number in 0..MESSAGES {
        server.send_event(number.into());
        client
            .send(&ClientMessage::Act {
                request: number,
                action: vec![0; 100],
            })
            .expect("there is space");
        if number % 10 == 9 {
            for expected in number - 9..=number {
                assert_eq!(next_event(&mut client), u64::from(expected));
            }
        }
    }
    client.ping().expect("the server answers");
    let processed: Vec<_> = server
        .model()
        .messages
        .iter()
        .filter_map(ClientMessage::request)
        .collect();
    assert_eq!(processed, (0..MESSAGES).collect::<Vec<_>>());
    assert!(client.counters().resumes > 10, "{:?}", client.counters());
    assert_eq!(client.counters().gaps, 0);
}

#[test]
fn the_next_call_that_waits_resumes_after_an_abrupt_disconnect() {
    let server = TestServer::start();
    let mut client = server.connect();
    for number in 0..5 {
        client.disconnect_abruptly();
        assert!(!client.is_connected());
        assert_eq!(client.local_addr(), None);
        server.send_event(number);
        assert_eq!(next_event(&mut client), number);
        assert!(client.is_connected());
    }
    assert_eq!(client.counters().resumes, 5);
}

#[test]
fn a_client_can_resume_from_another_address() {
    let server = TestServer::start();
    let mut client = server.connect();
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2).into();
    client.disconnect_abruptly();
    client.set_local_address(Some(elsewhere));
    client.ping().expect("the session continues");
    assert_eq!(client.local_addr().expect("it is connected").ip(), elsewhere);
}

#[test]
fn a_token_alone_resumes_the_session() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.act(vec![1]).expect("it is accepted");
    let token = client.token();
    drop(client);
    let mut client = Client::resume(server.address, token, options()).expect("the token is known");
    client.act(vec![2]).expect("it is accepted");
    assert_eq!(server.model().messages.len(), 2);
}

#[test]
fn a_request_waits_for_its_answer_and_queues_other_messages() {
    let server = TestServer::start();
    let mut client = server.connect();
    server.send_event(0);
    assert_eq!(
        client
            .list_rooms(RoomFilter::default(), None)
            .expect("it is answered"),
        (Vec::new(), None)
    );
    server.send_event(1);
    client.act(vec![7]).expect("it is accepted");
    assert_eq!(next_event(&mut client), 0);
    assert_eq!(next_event(&mut client), 1);
    assert_eq!(
        client.receive(Duration::ZERO).expect("the session continues"),
        None
    );
}

#[test]
fn a_rejection_is_a_typed_error() {
    let server = TestServer::start();
    let mut client = server.connect();
    let error = client.act(REJECTED_ACTION.to_vec()).expect_err("it is rejected");
    assert_eq!(error.reject_code(), Some(RejectCode::IllegalAction), "{error}");
    client.act(vec![7]).expect("the next action is accepted");
    assert_eq!(
        client.receive(Duration::ZERO).expect("the session continues"),
        None
    );
}

#[test]
fn an_idle_client_sends_heartbeats() {
    let server = TestServer::start();
    server.model().heartbeat_timeout_ms = 30;
    let mut client = server.connect();
    while server.model().pings < 3 {
        assert_eq!(
            client
                .receive(Duration::from_millis(5))
                .expect("the session continues"),
            None
        );
    }
}

#[test]
fn a_client_reconnects_when_the_server_stops_answering() {
    let server = TestServer::start();
    let options = ClientOptions {
        heartbeat: Some(Duration::from_millis(20)),
        ..options()
    };
    let mut client = Client::connect(server.address, "Ann", options).expect("the server accepts the client");
    server.shared.mute.store(true, Ordering::Relaxed);
    while client.is_connected() {
        assert_eq!(
            client
                .receive(Duration::from_millis(5))
                .expect("the session continues"),
            None
        );
    }
    server.shared.mute.store(false, Ordering::Relaxed);
    server.send_event(0);
    assert_eq!(next_event(&mut client), 0);
}

#[test]
fn a_server_that_processes_nothing_does_not_fill_the_clients_memory() {
    let server = TestServer::start();
    let mut client = Client::connect(
        server.address,
        "Ann",
        ClientOptions {
            reply_timeout: Duration::from_millis(20),
            ..options()
        },
    )
    .expect("the server accepts the client");
    server.shared.mute.store(true, Ordering::Relaxed);
    let message = ClientMessage::Act {
        request: 0,
        action: vec![0; 8000],
    };
    let error = (0..100)
        .find_map(|_| client.send(&message).err())
        .expect("the buffer fills up");
    assert!(matches!(error, ClientError::Timeout(_)), "{error}");
}

#[test]
fn reconnecting_to_a_stopped_server_times_out() {
    let server = TestServer::start();
    let options = ClientOptions {
        reconnect_timeout: Duration::from_millis(50),
        ..options()
    };
    let mut client = Client::connect(server.address, "Ann", options).expect("the server accepts the client");
    drop(server);
    let error = client.receive(TIMEOUT).expect_err("no server listens");
    assert!(matches!(error, ClientError::ReconnectTimeout(..)), "{error}");
}

#[test]
fn a_goodbye_waits_until_the_server_has_closed() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.act(vec![7]).expect("it is accepted");
    server.send_event(0);
    client.goodbye().expect("the server closes");
    assert!(server.model().received_goodbye);
}

#[test]
fn after_an_error_that_ends_the_session_every_call_returns_it() {
    let server = TestServer::start();
    let mut client = server.connect();
    server.send_event(0);
    server.model().refusals = Some((1, ErrorCode::Kicked));
    assert_eq!(next_event(&mut client), 0);
    client.disconnect_abruptly();
    for _ in 0..2 {
        let error = client.receive(TIMEOUT).expect_err("the player was kicked");
        assert_eq!(error.error_code(), Some(ErrorCode::Kicked), "{error}");
    }
    let error = client
        .send(&ClientMessage::Leave { request: 1 })
        .expect_err("the player was kicked");
    assert!(
        matches!(error, ClientError::Session(SessionError::Closed { .. })),
        "{error}"
    );
}
