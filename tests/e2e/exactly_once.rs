//! Promise: each direction between a player and the server is one byte stream that outlives connections. A
//! client that lost its connection returns with its token and the number of bytes received, and both sides
//! continue at the exact byte.

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::common::byte_exact::Script;
use crate::common::cutting_proxy::CuttingProxy;
use crate::common::killer::{Killer, kills};
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::raw_client::frame;
use crate::common::stream_client::{Cut, StreamClient};
use crate::common::{Server, WAIT_MAX, patient};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::limits::CONFIRM_EVERY_BYTES;
use forkade_protocol::{ClientMessage, RoomEvent, RoomSettings, ServerMessage, codec};

const ELSEWHERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));

/// A player alone in a room that resumes after each of its connections is cut anywhere.
struct Wanderer {
    streams: StreamClient,
    script: Script,
    random: Random,
    said: u64,
    heard: u64,
    last_event: Option<u64>,
    is_shown_connected: bool,
    /// Former connections that the server may still believe to be alive.
    abandoned: Vec<TcpStream>,
}

impl Wanderer {
    fn enter(server: &Server, mut random: Random) -> Self {
        let mut streams = StreamClient::enter(server.game, "Wanderer");
        streams.append(&frame(&ClientMessage::CreateRoom {
            request: 1,
            game: "relay".into(),
            name: "alone".into(),
            settings: RoomSettings {
                seats: 1,
                ..RoomSettings::default()
            },
        }));
        Self {
            streams,
            script: Script::new(random.next(), 400),
            random,
            said: 0,
            heard: 0,
            last_event: None,
            is_shown_connected: true,
            abandoned: Vec::new(),
        }
    }

    /// Sends and receives over this many connections.
    fn wander(&mut self, connections: usize) {
        for _ in 0..connections {
            for _ in 0..self.random.below(40) {
                self.step();
            }
            self.change_connection();
        }
        while self.heard < self.said {
            let message = self.streams.wait_for_message();
            self.take(&message);
            if self.streams.processed() >= self.streams.confirmed() + u64::from(CONFIRM_EVERY_BYTES) {
                self.streams.confirm();
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..4 => {
                self.streams.append(&self.script.said(self.said));
                self.said += 1;
            }
            4..6 => {
                self.streams.write(1 + self.random.below(600));
            }
            6..9 => self.streams.read(1 + self.random.below(3000), Duration::ZERO),
            _ => self.streams.confirm(),
        }
        while let Some(message) = self.streams.next_message() {
            self.take(&message);
        }
    }

    fn change_connection(&mut self) {
        let cut = *self.random.choose(&Cut::ALL);
        self.abandoned.extend(self.streams.cut(cut));
        if self.random.chance(30) {
            std::thread::sleep(Duration::from_micros(self.random.below(3000) as u64));
        }
        let (kept_from, received) = (self.streams.confirmed(), self.streams.received());
        let from = match self.random.below(4) {
            // The end of a frame, as the client library does.
            0 => self.streams.processed().max(kept_from),
            // A position that was received already, so that bytes are repeated.
            1 => kept_from + self.random.next() % (received - kept_from + 1),
            _ => received,
        };
        while self.random.chance(25) {
            let bytes = self.random.below(60);
            self.streams.resume_and_cut(bytes, from);
        }
        let local = if self.random.chance(50) { ELSEWHERE } else { None };
        let resumed = self.streams.resume(local, from).expect("the token is good");
        assert_eq!(resumed.resuming_at, from, "bytes were lost");
    }

    /// Everything arrives once and in order.
    fn take(&mut self, message: &ServerMessage) {
        match (message, self.last_event) {
            (ServerMessage::Joined { request: 1, snapshot }, None) => self.last_event = Some(snapshot.event),
            (ServerMessage::Event { number, event }, Some(last)) => {
                assert_eq!(*number, last + 1);
                self.last_event = Some(*number);
                match event {
                    RoomEvent::Game { data } => {
                        let said = codec::encode(&(0_u8, self.script.payload(self.heard)));
                        assert_eq!(*data, said.expect("it can be encoded"), "payload {}", self.heard);
                        self.heard += 1;
                    }
                    RoomEvent::Connection { seat: 0, connected } => {
                        assert_ne!(*connected, self.is_shown_connected);
                        self.is_shown_connected = *connected;
                    }
                    other => panic!("event {number} is {other:?}"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_byte_arrives_exactly_once_over_connections_that_are_cut_anywhere() {
    let server = Server::start(&[]);
    let mut wanderer = Wanderer::enter(&server, Random::new(seed(), 1));
    wanderer.wander(kills(30));
    println!(
        "{} payloads, {} bytes",
        wanderer.heard,
        wanderer.streams.received()
    );
    server.expect_no_errors();
}

#[test]
fn every_byte_arrives_exactly_once_while_all_handlers_are_killed() {
    let server = Server::start(&[]);
    let random = Random::new(seed(), 2);
    let mut wanderer = Wanderer::enter(&server, random.clone());
    let killer = Killer::start(&server, random, usize::MAX, Duration::from_millis(4));
    wanderer.wander(kills(10));
    println!(
        "{} handlers killed over {} payloads, {} bytes",
        killer.stop(),
        wanderer.heard,
        wanderer.streams.received()
    );
    expect_no_pending_work(&server);
    server.expect_no_errors();
}

#[test]
fn the_client_library_resumes_by_itself_over_an_unreliable_network() {
    const PAYLOADS: u64 = 400;
    let server = Server::start(&[]);
    let proxy = CuttingProxy::start(server.game, Random::new(seed(), 3), 6000);
    let mut players = ["Ann", "Bob"]
        .map(|name| Client::connect(proxy.address, name, patient()).expect("the proxy is gentle"));
    let room = players[0]
        .create_room(NewRoom::new("relay", "Two"))
        .expect("a room")
        .room;
    players[1].join_room(room, None).expect("a seat is free");
    proxy.set_cutting(true);
    let talks = players.map(|mut player| {
        std::thread::spawn(move || {
            let mut heard = [0; 2];
            for number in 0..PAYLOADS {
                let action = [&number.to_le_bytes()[..], &[7; 50]].concat();
                player
                    .send(&ClientMessage::Act { request: 0, action })
                    .expect("the session lives");
                while let Some(message) = player
                    .receive(Duration::from_micros(200))
                    .expect("the session lives")
                {
                    count_word(&message, &mut heard);
                }
            }
            while heard != [PAYLOADS; 2] {
                let message = player.receive(WAIT_MAX).expect("the session lives");
                count_word(&message.expect("an event in time"), &mut heard);
            }
            player
        })
    });
    let players = talks.map(|talk| talk.join().expect("everything came once and in order"));
    proxy.set_cutting(false);
    for player in players {
        let counters = player.counters();
        assert!(counters.resumes > 0);
        assert_eq!((counters.gaps, counters.resyncs), (0, 0));
        println!("{} resumes, {} cuts", counters.resumes, proxy.cuts());
        player.goodbye().expect("said in order");
    }
    server.expect_no_errors();
}

/// Each seat's payloads arrive once and in order.
fn count_word(message: &ServerMessage, heard: &mut [u64; 2]) {
    if let ServerMessage::Event {
        event: RoomEvent::Game { data },
        ..
    } = message
    {
        let (seat, payload): (u8, Vec<u8>) = codec::decode(data).expect("an event of the relay");
        let heard = &mut heard[usize::from(seat)];
        assert_eq!(payload[..8], heard.to_le_bytes(), "from seat {seat}");
        *heard += 1;
    }
}
