//! The blocking client against a server that loses connections, refuses, and falls silent.

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

/// Longer than any of these tests should take on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the server looks for what the test wants of it.
const LOOK: Duration = Duration::from_millis(2);

/// The model server behind a listening socket, in a thread of its own. It serves one connection at a time.
struct TestServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    model: Mutex<ModelServer>,
    /// Resets so many connections as soon as something has come from them.
    resets: AtomicUsize,
    /// Cuts every connection after it has carried so many bytes in both directions together.
    cut_after_bytes: AtomicUsize,
    /// Reads, but does not answer.
    silent: AtomicBool,
    accepted: AtomicUsize,
    stop: AtomicBool,
}

impl TestServer {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            model: Mutex::new(ModelServer::new(usize::MAX)),
            resets: AtomicUsize::new(0),
            cut_after_bytes: AtomicUsize::new(usize::MAX),
            silent: AtomicBool::new(false),
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
        Client::connect(self.address, "Ann", options()).expect("the server greets")
    }

    fn model(&self) -> MutexGuard<'_, ModelServer> {
        self.shared.model.lock().expect("the server's thread lives")
    }

    fn say(&self, number: u64) {
        let event = RoomEvent::Game { data: vec![0; 100] };
        self.model().say(&ServerMessage::Event { number, event });
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let result = self.thread.take().expect("it is joined once").join();
        assert!(
            result.is_ok() || std::thread::panicking(),
            "the server found a fault in the client"
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
                    stream.set_read_timeout(Some(LOOK)).expect("it can be set");
                    self.model.lock().expect("no test panics with it").accept();
                    self.serve(stream);
                    self.model
                        .lock()
                        .expect("no test panics with it")
                        .connection_lost();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut carried = 0;
        let mut buffer = [0; 4096];
        while !self.stop.load(Ordering::Relaxed) {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if self.resets.load(Ordering::Relaxed) > 0 {
                        self.resets.fetch_sub(1, Ordering::Relaxed);
                        return reset(&stream);
                    }
                    carried += count;
                    self.model
                        .lock()
                        .expect("no test panics with it")
                        .receive(&buffer[..count]);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
            if self.silent.load(Ordering::Relaxed) {
                continue;
            }
            let (bytes, closing) = {
                let mut model = self.model.lock().expect("no test panics with it");
                (model.send(4096), model.is_closing())
            };
            carried += bytes.len();
            if stream.write_all(&bytes).is_err() || closing {
                return;
            }
            if carried >= self.cut_after_bytes.load(Ordering::Relaxed) {
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
        connect_timeout: PATIENCE,
        reconnect_timeout: PATIENCE,
        reply_timeout: PATIENCE,
        ..ClientOptions::default()
    }
}

fn next_event(client: &mut Client) -> u64 {
    match client.receive(PATIENCE).expect("the session goes on") {
        Some(ServerMessage::Event { number, .. }) => number,
        other => panic!("not an event: {other:?}"),
    }
}

#[test]
fn a_client_is_greeted() {
    let server = TestServer::start();
    let client = server.connect();
    assert!(client.is_connected());
    assert_eq!(client.token(), TOKEN);
    let info = client.session_info().expect("it was welcomed");
    assert_eq!(info.name, "Ann");
    assert_eq!(info.games[0].name, "relay");
    assert!(client.local_addr().is_some());
}

#[test]
fn a_connection_that_is_reset_before_the_greeting_is_tried_again() {
    let server = TestServer::start();
    server.shared.resets.store(5, Ordering::Relaxed);
    let client = server.connect();
    assert!(client.is_connected());
    assert_eq!(server.shared.accepted.load(Ordering::Relaxed), 6);
}

#[test]
fn a_name_taken_by_our_own_lost_hello_is_waited_for() {
    let server = TestServer::start();
    server.shared.resets.store(1, Ordering::Relaxed);
    server.model().refuse = Some((3, ErrorCode::NameTaken));
    assert!(server.connect().is_connected());
}

#[test]
fn a_refusal_is_an_error_at_once() {
    let server = TestServer::start();
    for code in [ErrorCode::NameTaken, ErrorCode::ServerFull] {
        server.model().refuse = Some((1, code));
        let error = Client::connect(server.address, "Ann", options()).expect_err("it was refused");
        assert_eq!(error.error_code(), Some(code), "{error}");
    }
    let error = Client::resume(server.address, Token([0; 16]), options()).expect_err("nobody has this token");
    assert_eq!(error.error_code(), Some(ErrorCode::TokenUnknown), "{error}");
}

#[test]
fn nobody_listening_is_an_error_at_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let error = Client::connect(address, "Ann", options()).expect_err("nobody is there");
    assert!(
        matches!(error, ClientError::Connect { address: tried, .. } if tried == address),
        "{error}"
    );
}

#[test]
fn a_server_that_never_greets_is_given_up() {
    let server = TestServer::start();
    server.shared.silent.store(true, Ordering::Relaxed);
    let options = ClientOptions {
        connect_timeout: Duration::from_millis(50),
        ..options()
    };
    let error = Client::connect(server.address, "Ann", options).expect_err("nobody answers");
    assert!(
        matches!(error, ClientError::Timeout(_) | ClientError::ReconnectTimeout(..)),
        "{error}"
    );
}

#[test]
fn nothing_is_lost_or_doubled_while_connections_are_cut_again_and_again() {
    const MESSAGES: u32 = 500;
    let server = TestServer::start();
    let mut client = server.connect();
    server.shared.cut_after_bytes.store(3000, Ordering::Relaxed);
    for number in 0..MESSAGES {
        server.say(number.into());
        client
            .send(&ClientMessage::Act {
                request: number,
                action: vec![0; 100],
            })
            .expect("there is room");
        if number % 10 == 9 {
            for expected in number - 9..=number {
                assert_eq!(next_event(&mut client), u64::from(expected));
            }
        }
    }
    client.ping().expect("the server answers in the end");
    let taken_in: Vec<_> = server
        .model()
        .messages
        .iter()
        .filter_map(ClientMessage::request)
        .collect();
    assert_eq!(taken_in, (0..MESSAGES).collect::<Vec<_>>());
    assert!(client.counters().resumes > 10, "{:?}", client.counters());
    assert_eq!(client.counters().gaps, 0);
}

#[test]
fn an_abrupt_disconnect_is_resumed_by_the_next_call_that_waits() {
    let server = TestServer::start();
    let mut client = server.connect();
    for number in 0..5 {
        client.disconnect_abruptly();
        assert!(!client.is_connected());
        assert_eq!(client.local_addr(), None);
        server.say(number);
        assert_eq!(next_event(&mut client), number);
        assert!(client.is_connected());
    }
    assert_eq!(client.counters().resumes, 5);
}

#[test]
fn a_client_may_come_back_from_another_address() {
    let server = TestServer::start();
    let mut client = server.connect();
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2).into();
    client.disconnect_abruptly();
    client.set_local_address(Some(elsewhere));
    client.ping().expect("the session goes on");
    assert_eq!(client.local_addr().expect("it is connected").ip(), elsewhere);
}

#[test]
fn a_token_alone_brings_the_player_back() {
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
fn a_request_waits_for_its_answer_and_keeps_what_else_comes() {
    let server = TestServer::start();
    let mut client = server.connect();
    server.say(0);
    assert_eq!(
        client
            .list_rooms(RoomFilter::default(), None)
            .expect("it is answered"),
        (Vec::new(), None)
    );
    server.say(1);
    client.act(vec![7]).expect("it is accepted");
    assert_eq!(next_event(&mut client), 0);
    assert_eq!(next_event(&mut client), 1);
    assert_eq!(client.receive(Duration::ZERO).expect("the session goes on"), None);
}

#[test]
fn a_rejection_is_a_typed_error() {
    let server = TestServer::start();
    let mut client = server.connect();
    let error = client.act(REJECTED_ACTION.to_vec()).expect_err("it is rejected");
    assert_eq!(error.reject_code(), Some(RejectCode::IllegalAction), "{error}");
    client.act(vec![7]).expect("the next is not");
    assert_eq!(client.receive(Duration::ZERO).expect("the session goes on"), None);
}

#[test]
fn an_idle_client_gives_signs_of_life() {
    let server = TestServer::start();
    server.model().heartbeat_timeout_ms = 30;
    let mut client = server.connect();
    while server.model().pings < 3 {
        assert_eq!(
            client
                .receive(Duration::from_millis(5))
                .expect("the session goes on"),
            None
        );
    }
}

#[test]
fn a_server_that_falls_silent_is_left_and_found_again() {
    let server = TestServer::start();
    let options = ClientOptions {
        heartbeat: Some(Duration::from_millis(20)),
        ..options()
    };
    let mut client = Client::connect(server.address, "Ann", options).expect("the server greets");
    server.shared.silent.store(true, Ordering::Relaxed);
    while client.is_connected() {
        assert_eq!(
            client
                .receive(Duration::from_millis(5))
                .expect("the session goes on"),
            None
        );
    }
    server.shared.silent.store(false, Ordering::Relaxed);
    server.say(0);
    assert_eq!(next_event(&mut client), 0);
}

#[test]
fn a_server_that_takes_in_nothing_does_not_fill_the_clients_memory() {
    let server = TestServer::start();
    let mut client = Client::connect(
        server.address,
        "Ann",
        ClientOptions {
            reply_timeout: Duration::from_millis(20),
            ..options()
        },
    )
    .expect("the server greets");
    server.shared.silent.store(true, Ordering::Relaxed);
    let message = ClientMessage::Act {
        request: 0,
        action: vec![0; 8000],
    };
    let error = (0..100)
        .find_map(|_| client.send(&message).err())
        .expect("it stops");
    assert!(matches!(error, ClientError::Timeout(_)), "{error}");
}

#[test]
fn a_server_that_stays_away_is_given_up() {
    let server = TestServer::start();
    let options = ClientOptions {
        reconnect_timeout: Duration::from_millis(50),
        ..options()
    };
    let mut client = Client::connect(server.address, "Ann", options).expect("the server greets");
    drop(server);
    let error = client.receive(PATIENCE).expect_err("nobody is there");
    assert!(matches!(error, ClientError::ReconnectTimeout(..)), "{error}");
}

#[test]
fn a_goodbye_waits_until_the_server_has_closed() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.act(vec![7]).expect("it is accepted");
    server.say(0);
    client.goodbye().expect("the server closes");
    assert!(server.model().said_goodbye);
}

#[test]
fn after_an_error_that_ends_the_session_every_call_tells_it() {
    let server = TestServer::start();
    let mut client = server.connect();
    server.say(0);
    server.model().refuse = Some((1, ErrorCode::Kicked));
    assert_eq!(next_event(&mut client), 0);
    client.disconnect_abruptly();
    for _ in 0..2 {
        let error = client.receive(PATIENCE).expect_err("the player was kicked");
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
