//! A player alone in a relay room: every byte of its streams is known beforehand, because the relay returns
//! what it sends.
//!
//! Both streams are written and read byte by byte on a bare socket, in pieces unrelated to frames.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forkade_protocol::frame::{Split, append_frame, split};
use forkade_protocol::limits::FRAME_BYTES_MAX;
use forkade_protocol::{ClientMessage, Phase, RoomEvent, RoomSettings, ServerMessage, codec};
use socket2::SockRef;

use super::random::Random;
use super::raw_client::{frame, handshake};

/// The payloads to send: numbered, of random lengths.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    seed: u64,
    payload_bytes_max: usize,
}

impl Script {
    /// A payload has at least 8 bytes: its number.
    pub fn new(seed: u64, payload_bytes_max: usize) -> Self {
        Self {
            seed,
            payload_bytes_max,
        }
    }

    /// The payload with this number.
    pub fn payload(&self, number: u64) -> Vec<u8> {
        let mut random = Random::new(self.seed, number);
        let filler = random.below(self.payload_bytes_max - 7);
        let mut payload = number.to_le_bytes().to_vec();
        payload.extend((0..filler).map(|_| random.next().to_le_bytes()[0]));
        payload
    }

    /// The client's frame that sends this payload.
    pub fn said(&self, number: u64) -> Vec<u8> {
        frame(&ClientMessage::Act {
            request: 0,
            action: self.payload(number),
        })
    }

    /// The server's frame that returns this payload to a player alone in a room, on seat 0.
    pub fn heard(&self, number: u64) -> Vec<u8> {
        let data = codec::encode(&(0_u8, self.payload(number))).expect("it can be encoded");
        let mut bytes = Vec::new();
        let event = ServerMessage::Event {
            number: number + 1,
            event: RoomEvent::Game { data },
        };
        append_frame(&event, &mut bytes).expect("the event fits a frame");
        bytes
    }
}

/// What a new player sends first: the handshake and a request for a relay room of its own.
pub fn handshake_and_room(name: &str) -> Vec<u8> {
    let create = ClientMessage::CreateRoom {
        request: 1,
        game: "relay".into(),
        name: "alone".into(),
        settings: RoomSettings {
            seats: 1,
            ..RoomSettings::default()
        },
    };
    [handshake(name), frame(&create)].concat()
}

/// How a [`Sender`] sends and a [`Receiver`] reads.
#[derive(Debug, Clone, Copy)]
pub struct Pacing {
    /// Longest piece that is written or read at once.
    pub piece_bytes_max: usize,
    /// Percentage of pieces that follow a pause.
    pub pauses_percent: usize,
    /// Percentage of written pieces whose last byte is urgent.
    pub urgent_percent: usize,
}

impl Pacing {
    /// As fast as possible.
    pub const FAST: Self = Self {
        piece_bytes_max: 5000,
        pauses_percent: 2,
        urgent_percent: 0,
    };

    fn pause(self, random: &mut Random) {
        if random.chance(self.pauses_percent) {
            std::thread::sleep(Duration::from_micros(random.below(1500) as u64));
        }
    }
}

/// Sender and receiver of a player alone in a room, for tests that alternate between them.
pub struct SoloPlayer {
    pub speaker: Sender,
    pub listener: Receiver,
    said: u64,
}

impl SoloPlayer {
    /// A new player, in a room of its own.
    pub fn enter(stream: TcpStream, name: &str, random: &Random, manner: Pacing, script: Script) -> Self {
        let mut alone = Self::connected(stream, random, manner, script);
        alone.speaker.send(&handshake_and_room(name));
        alone.listener.expect_welcome();
        alone
    }

    /// A connection on which nothing was sent yet.
    pub fn connected(stream: TcpStream, random: &Random, manner: Pacing, script: Script) -> Self {
        stream.set_nodelay(true).expect("an option can be set");
        let (mut random, other) = (random.clone(), stream.try_clone().expect("a descriptor"));
        Self {
            speaker: Sender {
                stream: other,
                random: Random::new(random.next(), 1),
                manner,
            },
            listener: Receiver::new(stream, Random::new(random.next(), 2), manner, script),
            said: 0,
        }
    }

    /// Sends the next payload.
    pub fn send_next(&mut self) {
        self.speaker.send(&self.listener.script.said(self.said));
        self.said += 1;
    }

    /// Receives all payloads sent so far, and compares every byte.
    pub fn receive_sent(&mut self) {
        self.listener.receive(&AtomicU64::new(self.said));
    }

    /// Says goodbye. The server closes the connection and sends nothing more.
    pub fn leave(mut self) {
        self.speaker.send(&frame(&ClientMessage::Goodbye));
        self.listener.expect_end();
    }
}

/// Writes bytes in random pieces.
pub struct Sender {
    pub stream: TcpStream,
    pub random: Random,
    pub manner: Pacing,
}

impl Sender {
    /// Sends all bytes.
    pub fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.manner.pause(&mut self.random);
            let length = 1 + self.random.below(self.manner.piece_bytes_max.min(bytes.len()));
            let sent = if self.random.chance(self.manner.urgent_percent) {
                SockRef::from(&self.stream).send_out_of_band(&bytes[..length])
            } else {
                self.stream.write(&bytes[..length])
            };
            bytes = &bytes[sent.expect("the connection lives")..];
        }
    }
}

/// Reads the server's bytes and compares them with the expected ones.
pub struct Receiver {
    pub stream: TcpStream,
    pub random: Random,
    pub manner: Pacing,
    script: Script,
    /// Number of payloads received so far.
    pub payloads: u64,
    /// The expected rest of the current frame.
    expected: VecDeque<u8>,
    /// Bytes of the stream received so far; shared with the sender, which confirms them.
    received: Arc<AtomicU64>,
}

impl Receiver {
    pub fn new(stream: TcpStream, random: Random, manner: Pacing, script: Script) -> Self {
        Self {
            stream,
            random,
            manner,
            script,
            payloads: 0,
            expected: VecDeque::new(),
            received: Arc::default(),
        }
    }

    /// Bytes of the stream received so far.
    pub fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Reads `Welcome` and `Joined`, which must describe the requested room.
    pub fn expect_welcome(&mut self) {
        let mut read = Vec::new();
        let (welcome, _) = self.read_frame(&mut read);
        assert!(matches!(welcome, ServerMessage::Welcome { .. }), "{welcome:?}");
        let (joined, bytes) = self.read_frame(&mut read);
        let ServerMessage::Joined { request: 1, snapshot } = joined else {
            panic!("instead of the room: {joined:?}");
        };
        assert_eq!(
            (snapshot.seat, snapshot.event, snapshot.phase),
            (Some(0), 0, Phase::Playing)
        );
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.compare(&read);
    }

    /// Reads until `count` payloads have arrived, comparing every byte. `count` may change meanwhile.
    pub fn receive(&mut self, count: &AtomicU64) {
        let mut buffer = vec![0; self.manner.piece_bytes_max];
        while self.payloads < count.load(Ordering::SeqCst) {
            self.manner.pause(&mut self.random);
            let length = 1 + self.random.below(buffer.len());
            let count = self
                .stream
                .read(&mut buffer[..length])
                .expect("bytes come in time");
            assert_ne!(count, 0, "the server closed after {} payloads", self.payloads);
            self.compare(&buffer[..count]);
        }
    }

    /// The server closes the connection and sends nothing more.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("no reset");
        assert!(rest.is_empty(), "{} bytes too many", rest.len());
        assert!(self.expected.is_empty(), "the server closed within a frame");
    }

    fn compare(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.expected.is_empty() {
                self.expected.extend(self.script.heard(self.payloads));
            }
            let at = self.received.fetch_add(1, Ordering::Relaxed);
            assert_eq!(
                Some(*byte),
                self.expected.pop_front(),
                "byte {at} of the stream, in the event of payload {}",
                self.payloads
            );
            self.payloads += u64::from(self.expected.is_empty());
        }
    }

    /// Takes a whole frame off `read`, reading more as needed. Returns the message and the frame's length in
    /// bytes.
    fn read_frame(&mut self, read: &mut Vec<u8>) -> (ServerMessage, u64) {
        loop {
            if let Split::Frame { body, total } = split(read, FRAME_BYTES_MAX) {
                let message = codec::decode(body).expect("the server sends messages");
                read.drain(..total);
                return (message, total as u64);
            }
            let mut buffer = [0; 100];
            let count = self.stream.read(&mut buffer).expect("bytes come in time");
            assert_ne!(count, 0, "the server closed within the greeting: {read:?}");
            read.extend_from_slice(&buffer[..count]);
        }
    }
}
