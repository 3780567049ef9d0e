//! Promise: the server treats a client's input alike however it is fragmented and however often the handler
//! dies between the fragments.

use crate::harness::{Actor, World};
use forkade::testing::frontends::dispatch::{FrameOutcome, HandshakeOutcome};
use forkade::testing::session::CloseReason;
use forkade::testing::state::layout::Capacity;
use forkade_protocol::{
    ChatScope, ClientMessage, RoomFilter, RoomSettings, ServerMessage, Token, frame, preamble,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// The result of a client's input. The interleaving of answers and room events depends on when the handler
/// runs; nothing else does.
#[derive(Debug, PartialEq, Default)]
struct Outcome {
    answers: Vec<ServerMessage>,
    events: Vec<ServerMessage>,
    farewell: Option<(bool, CloseReason)>,
}

impl Outcome {
    fn take(&mut self, messages: Vec<ServerMessage>) {
        for message in messages {
            match message {
                ServerMessage::Event { .. } | ServerMessage::Started { .. } => self.events.push(message),
                // The token is random in each session.
                ServerMessage::Welcome {
                    version,
                    player,
                    name,
                    limits,
                    games,
                    ..
                } => self.answers.push(ServerMessage::Welcome {
                    version,
                    token: Token([0; 16]),
                    player,
                    name,
                    limits,
                    games,
                }),
                answer => self.answers.push(answer),
            }
        }
    }
}

/// A client sends the pieces in order. Its handler dies before the pieces that `dies` selects.
fn run(pieces: &[&[u8]], dies: &[bool]) -> Outcome {
    let world = World::new(Capacity {
        players: 4,
        rooms: 4,
        keepers: 1,
    });
    let mut actor = Actor::connect(world, 0);
    let mut outcome = Outcome::default();
    let mut greeted = false;
    for (piece, dies) in pieces.iter().zip(dies.iter().chain(std::iter::repeat(&false))) {
        actor.send(piece);
        if *dies {
            actor.replace_handler(world);
        }
        if !greeted {
            match actor.process_handshake() {
                HandshakeOutcome::Incomplete => continue,
                HandshakeOutcome::Greeted => greeted = true,
                HandshakeOutcome::Refused(farewell) => {
                    outcome.farewell = Some((false, farewell));
                    break;
                }
                other => panic!("not asked for: {other:?}"),
            }
        }
        // The handshake reads at most its own limit from the socket.
        actor.send(&[]);
        outcome.farewell = handle_all(&mut actor);
        outcome.take(actor.receive_messages());
        if outcome.farewell.is_some() {
            break;
        }
    }
    outcome
}

fn handle_all(actor: &mut Actor) -> Option<(bool, CloseReason)> {
    loop {
        match actor.handle() {
            FrameOutcome::Handled => {}
            FrameOutcome::Wait => return None,
            FrameOutcome::Close { leaves, reason } => return Some((leaves, reason)),
        }
    }
}

fn request() -> impl Strategy<Value = ClientMessage> {
    let request = any::<u32>();
    prop_oneof![
        request.prop_map(|request| ClientMessage::CreateRoom {
            request,
            game: "relay".into(),
            name: "here".into(),
            settings: RoomSettings::default(),
        }),
        request.prop_map(|request| ClientMessage::QuickMatch {
            request,
            game: "clock".into(),
            options: Vec::new(),
        }),
        request.prop_map(|request| ClientMessage::ListRooms {
            request,
            filter: RoomFilter::default(),
            after: None,
        }),
        request.prop_map(|request| ClientMessage::Leave { request }),
        (request, vec(any::<u8>(), 0..200))
            .prop_map(|(request, action)| ClientMessage::Act { request, action }),
        (request, "\\PC{0,30}").prop_map(|(request, text)| ClientMessage::Chat {
            request,
            scope: ChatScope::Room,
            text,
        }),
        any::<(u32, bool)>().prop_map(|(request, ready)| ClientMessage::Ready { request, ready }),
        any::<u64>().prop_map(|nonce| ClientMessage::Ping { nonce }),
        Just(ClientMessage::Confirm { received: 0 }),
        Just(ClientMessage::Goodbye),
    ]
}

/// A client's input: a handshake and requests, sometimes followed by invalid bytes.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let framed = |message: &ClientMessage| {
        let mut bytes = Vec::new();
        frame::append_frame(message, &mut bytes).expect("a message fits a frame");
        bytes
    };
    let part = prop_oneof![
        20 => request().prop_map(move |message| framed(&message)),
        1 => vec(any::<u8>(), 1..20),
    ];
    let name = prop_oneof![9 => "[a-z]{1,10}", 1 => "\\PC{0,40}"];
    (name, vec(part, 0..20)).prop_map(move |(name, parts)| {
        let hello = ClientMessage::Hello {
            name,
            client: "test".into(),
        };
        [preamble::build(1, 1).to_vec(), framed(&hello), parts.concat()].concat()
    })
}

/// The fragments of the stream.
fn cut<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_fragmentation_of_the_input_gives_the_same_result(
        stream in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..30),
        dies in vec(any::<bool>(), 0..30),
    ) {
        let whole = run(&[&stream], &[]);
        let pieces = cut(&stream, &cuts);
        prop_assert_eq!(&run(&pieces, &[]), &whole);
        prop_assert_eq!(&run(&pieces, &dies), &whole);
    }

    #[test]
    fn a_handshake_may_arrive_byte_by_byte(stream in stream()) {
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(run(&bytes, &[]), run(&[&stream], &[]));
    }
}
