//! A client that moves to another handler because it has joined a room there. Whatever process dies during
//! the move, the client is served by one handler, on the same connection.
//!
//! Processes are stopped to hold the move at the point where one of them is killed.
//! `FORKADE_TEST_ROLE_KILLS=100` kills more keepers in the last test.

use std::net::SocketAddr;
use std::time::Duration;

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ClientMessage, ServerMessage};
use nix::sys::signal::Signal;

use crate::common::liveness::expect_no_pending_work;
use crate::common::pair::Pair;
use crate::common::random::{Random, seed};
use crate::common::raw_client::{RawClient, frame};
use crate::common::{Server, children, eventually, is_alive, is_asleep, of_name};

const HOST: &str = "Client0";
const MOVER: &str = "Client7";
/// One keeper, whose handlers serve eight clients each. The watchdog ignores stopped processes here.
const SERVER: [&str; 8] = [
    "--connections-max",
    "900",
    "--keepers",
    "1",
    "--clients-per-handler",
    "8",
    "--watchdog-cpu-ms",
    "0",
];
/// A keeper that dies sooner than this is restarted with a growing delay.
const LIFE: Duration = Duration::from_millis(510);

/// A client in the middle of a move: the target handler expects it, and the stopped source handler has not
/// yet read that it is to release it.
struct Move {
    server: Server,
    pair: Pair,
    /// Other clients of the target handler.
    beside: Vec<Client>,
    ports: [Option<SocketAddr>; 2],
    keeper: u32,
    from: u32,
    to: u32,
}

impl Move {
    fn begin() -> Self {
        let server = Server::start(&SERVER);
        // Seven clients fill a handler except for the slot that is reserved for moves.
        let mut beside: Vec<Client> = (0..8).map(|nth| server.client(&format!("Client{nth}"))).collect();
        let (mut mover, mut host) = (beside.pop().expect("8"), beside.remove(0));
        let room = host
            .create_room(NewRoom::new("relay", "a pair"))
            .expect("a room is free");
        let handler_of = |name| server.handler_of(name).expect("it is served");
        let (from, to) = (handler_of(MOVER), handler_of(HOST));
        assert_ne!(from, to);
        let keeper = server.keeper();
        // The keeper must not ask the source to release the client before the source is stopped.
        server.signal(keeper, Signal::SIGSTOP);
        mover.join_room(room.room, None).expect("a seat is free");
        eventually("the present process has asked for the move", || is_asleep(from));
        server.signal(from, Signal::SIGSTOP);
        server.signal(keeper, Signal::SIGCONT);
        eventually("the keeper has done what it can", || is_asleep(keeper));
        Self {
            ports: [host.local_addr(), mover.local_addr()],
            pair: Pair::in_room([host, mover]),
            server,
            beside,
            keeper,
            from,
            to,
        }
    }

    fn kill_keeper(&mut self) {
        self.server.kill(self.keeper);
        self.keeper = self.server.keeper_after(self.keeper);
    }

    fn kill(&self, handler: u32) {
        self.server.kill(handler);
        eventually("it is dead", || !is_alive(handler));
    }

    fn continue_process(&self, process: u32) {
        self.server.signal(process, Signal::SIGCONT);
    }

    /// All clients are served, and again after all their handlers were killed: the keeper knows which handler
    /// serves which client.
    fn expect_all_are_served(mut self) {
        for killed in [false, true] {
            if killed {
                for handler in [HOST, MOVER].map(|name| self.server.handler_of(name).expect("it is served")) {
                    // Both may have the same handler.
                    if is_alive(handler) {
                        self.kill(handler);
                    }
                }
            }
            self.pair.send(20);
            self.pair.receive();
            for client in &mut self.beside {
                client.ping().expect("the session lives");
            }
        }
        let ports = self.pair.clients.each_ref().map(Client::local_addr);
        assert_eq!(ports, self.ports, "no client has reconnected");
        assert_eq!(self.server.status("resumes_total"), 0);
        expect_no_pending_work(&self.server);
        for client in self.beside.into_iter().chain(self.pair.clients) {
            client.goodbye().expect("the session lives");
        }
        eventually("no client is left", || {
            [HOST, MOVER].map(|name| self.server.handler_of(name)) == [None; 2]
        });
        eventually("all handlers have ended", || {
            let all = children(self.server.pid());
            let keepers = of_name(&all, "keeper");
            let beneath = keepers
                .iter()
                .flat_map(|keeper| children(*keeper))
                .collect::<Vec<_>>();
            of_name(&all, "handler").is_empty() && of_name(&beneath, "reception") == beneath
        });
        self.server.expect_no_errors();
    }
}

#[test]
fn a_client_moves_to_another_handler() {
    let it = Move::begin();
    it.continue_process(it.from);
    eventually("both are served by one process", || {
        it.server.handler_of(MOVER) == Some(it.to)
    });
    it.expect_all_are_served();
}

#[test]
fn a_move_completes_although_the_keeper_dies_before_the_source_releases_the_client() {
    let mut it = Move::begin();
    it.kill_keeper();
    it.continue_process(it.from);
    eventually("both are served by one process", || {
        it.server.handler_of(MOVER) == Some(it.to)
    });
    it.expect_all_are_served();
}

#[test]
fn a_move_is_kept_although_the_keeper_dies_before_it_is_told() {
    let mut it = Move::begin();
    it.server.signal(it.keeper, Signal::SIGSTOP);
    it.continue_process(it.from);
    // The clients are served without the keeper.
    it.pair.send(20);
    it.pair.receive();
    eventually("the processes have nothing to do", || {
        is_asleep(it.from) && is_asleep(it.to)
    });
    it.kill_keeper();
    eventually("both are served by one process", || {
        it.server.handler_of(MOVER) == Some(it.to)
    });
    it.expect_all_are_served();
}

#[test]
fn a_client_is_served_although_the_target_of_its_move_dies_first() {
    let it = Move::begin();
    it.kill(it.to);
    it.continue_process(it.from);
    it.expect_all_are_served();
}

#[test]
fn a_client_is_served_although_the_target_of_its_move_dies_without_having_accepted_it() {
    let it = Move::begin();
    it.server.signal(it.to, Signal::SIGSTOP);
    it.server.signal(it.keeper, Signal::SIGSTOP);
    it.continue_process(it.from);
    eventually("its source handler has released it", || is_asleep(it.from));
    it.kill(it.to);
    it.continue_process(it.keeper);
    it.expect_all_are_served();
}

#[test]
fn a_client_is_served_although_the_source_of_its_move_dies_before_it_releases_the_client() {
    let it = Move::begin();
    it.kill(it.from);
    it.expect_all_are_served();
}

#[test]
fn a_client_is_served_although_the_source_of_its_move_dies_before_the_keeper_is_told() {
    let it = Move::begin();
    it.server.signal(it.keeper, Signal::SIGSTOP);
    it.continue_process(it.from);
    eventually("its source handler has released it", || is_asleep(it.from));
    it.kill(it.from);
    it.continue_process(it.keeper);
    it.expect_all_are_served();
}

#[test]
fn a_client_is_served_although_source_and_target_die_before_the_keeper_is_told() {
    let mut it = Move::begin();
    it.server.signal(it.keeper, Signal::SIGSTOP);
    it.continue_process(it.from);
    it.pair.send(20);
    it.pair.receive();
    it.kill(it.to);
    it.kill(it.from);
    it.continue_process(it.keeper);
    it.expect_all_are_served();
}

#[test]
fn a_client_that_changes_rooms_without_waiting_is_served_by_one_handler() {
    const HOPS: usize = 5000;
    let server = Server::start(&SERVER);
    let mut clients: Vec<Client> = (0..21)
        .map(|nth| server.client(&format!("Client{nth}")))
        .collect();
    // Two rooms whose clients meet in one handler, and one room in another.
    let rooms = [0, 1, 8].map(|nth| {
        let host: &mut Client = &mut clients[nth];
        let room = host.create_room(NewRoom::new("relay", format!("room {nth}")));
        room.expect("a room is free").room
    });
    let mut hopper = RawClient::connect_as(&server, "hopper");
    let mut random = Random::new(seed(), 0);
    let hop = |room| {
        let join = ClientMessage::JoinRoom {
            request: 1,
            room,
            passcode: None,
        };
        [frame(&join), frame(&ClientMessage::Leave { request: 2 })].concat()
    };
    for nonce in 0..HOPS as u64 {
        let hops: Vec<u8> = (0..1 + random.below(3))
            .flat_map(|_| hop(*random.choose(&rooms)))
            .collect();
        hopper.send(&hops);
        hopper.send_message(&ClientMessage::Ping { nonce });
        hopper.next_where(
            |message| matches!(message, ServerMessage::Pong { nonce: back, .. } if *back == nonce),
        );
    }
    let served_by = server.ask_json("processes");
    let is_hopper = |process: &&serde_json::Value| process["player"] == "hopper";
    assert_eq!(
        served_by
            .as_array()
            .expect("a list")
            .iter()
            .filter(is_hopper)
            .count(),
        1
    );
    assert_eq!(server.status("resumes_total"), 0);
    for mut client in clients {
        client.ping().expect("the session lives");
    }
    server.expect_no_errors();
}

#[test]
fn a_client_is_served_although_source_and_target_of_its_move_die() {
    let it = Move::begin();
    it.server.signal(it.keeper, Signal::SIGSTOP);
    it.kill(it.from);
    it.kill(it.to);
    it.continue_process(it.keeper);
    it.expect_all_are_served();
}

#[test]
fn clients_are_served_while_keepers_die_during_many_moves() {
    const PAIRS: usize = 7;
    let deaths =
        std::env::var("FORKADE_TEST_ROLE_KILLS").map_or(12, |deaths| deaths.parse().expect("a number"));
    let server = Server::start(&SERVER);
    let mut random = Random::new(seed(), 0);
    for round in 0..deaths {
        // Handlers that were adopted receive no new clients: each round has new ones.
        let come = |nth| server.client(&format!("Client{round}-{nth}"));
        let clients: Vec<Client> = (0..2 * PAIRS).map(come).collect();
        let ports: Vec<Option<SocketAddr>> = clients.iter().map(Client::local_addr).collect();
        let keeper = server.keeper();
        let pause = Duration::from_micros(random.below(5000) as u64);
        let kill = {
            let server = &server;
            move || {
                std::thread::sleep(pause);
                server.kill(keeper);
            }
        };
        let mut pairs = std::thread::scope(|scope| {
            scope.spawn(kill);
            let mut others = clients;
            let firsts: Vec<Client> = others.drain(..PAIRS).collect();
            let pairs = firsts.into_iter().zip(others);
            pairs
                .map(|(one, other)| Pair::in_new_room(one, other))
                .collect::<Vec<Pair>>()
        });
        server.keeper_after(keeper);
        pairs.iter_mut().for_each(|pair| pair.send(20));
        pairs.iter_mut().for_each(Pair::receive);
        let now = pairs.iter().map(|pair| pair.clients[0].local_addr());
        let now: Vec<Option<SocketAddr>> = now
            .chain(pairs.iter().map(|pair| pair.clients[1].local_addr()))
            .collect();
        assert_eq!(now, ports, "a client has reconnected");
        std::thread::sleep(LIFE);
        expect_no_pending_work(&server);
        for client in pairs.into_iter().flat_map(|pair| pair.clients) {
            client.goodbye().expect("the session lives");
        }
    }
    assert_eq!(server.status("resumes_total"), 0);
    server.expect_no_errors();
}
