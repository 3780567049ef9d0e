//! The runs of the reference state machine in `vectors.json`: the state machine of `WIRE.md` and the library's session
//! write the same bytes.

use forkade_protocol::frame::{Split, append_frame, split};
use forkade_protocol::limits::{CONFIRM_EVERY_BYTES, FRAME_BYTES_MAX};
use forkade_protocol::{ClientMessage, ClientSession, ServerMessage, Token, codec, preamble};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    resume: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    about: String,
    keeps_half_frames: bool,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Connect(String),
    Read(String),
    Send(String),
    Written(String),
    Handled(usize),
    Lost(
        #[expect(
            dead_code,
            reason = "the step has no content, and JSON has no key without one"
        )]
        bool,
    ),
}

/// The state machine of section 6, line by line.
#[derive(Default)]
struct Machine {
    keeps_half_frames: bool,
    token: Option<Token>,
    out: Vec<u8>,
    out_from: u64,
    buf: Vec<u8>,
    got: u64,
    confirmed: u64,
    established: bool,
    /// Bytes read before the answer to the handshake is complete.
    answer: Vec<u8>,
    wire: Vec<u8>,
    handled: usize,
}

impl Machine {
    fn connected(&mut self) {
        self.established = false;
        self.answer.clear();
        self.wire = preamble::build(1, 1).to_vec();
        let received = self.got;
        let first = match self.token {
            Some(token) => ClientMessage::Resume { token, received },
            None => hello(),
        };
        append_frame(&first, &mut self.wire).expect("it fits");
    }

    fn answered(&mut self, answer: ServerMessage) {
        match answer {
            ServerMessage::Welcome { token, .. } => self.token = Some(token),
            ServerMessage::Resumed {
                received,
                resuming_at,
            } => {
                self.drop_before(received);
                if resuming_at > self.got {
                    self.buf.clear();
                }
                self.got = resuming_at;
                self.confirmed = resuming_at;
            }
            other => panic!("no answer: {other:?}"),
        }
        self.established = true;
        self.wire.extend_from_slice(&self.out);
    }

    fn drop_before(&mut self, offset: u64) {
        let count = usize::try_from(offset - self.out_from).expect("small");
        self.out.drain(..count);
        self.out_from = offset;
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if !self.established {
            self.answer.append(&mut bytes);
            let Split::Frame { body, total } = split(&self.answer, FRAME_BYTES_MAX) else {
                return;
            };
            let answer = codec::decode(body).expect("an answer");
            bytes = self.answer.split_off(total);
            self.answered(answer);
        }
        self.got += bytes.len() as u64;
        self.buf.append(&mut bytes);
        while let Split::Frame { body, total } = split(&self.buf, FRAME_BYTES_MAX) {
            let message: ServerMessage = codec::decode(body).expect("a message");
            self.buf.drain(..total);
            if let ServerMessage::Pong { received, .. } = message {
                self.drop_before(received);
            }
            self.handled += 1;
        }
        let received = self.got - self.buf.len() as u64;
        if received - self.confirmed >= u64::from(CONFIRM_EVERY_BYTES) {
            self.confirmed = received;
            self.send(&ClientMessage::Confirm { received });
        }
    }

    fn send(&mut self, message: &ClientMessage) {
        let start = self.out.len();
        append_frame(message, &mut self.out).expect("it fits");
        if self.established {
            self.wire.extend_from_slice(&self.out[start..]);
        }
    }

    fn lost(&mut self) {
        self.established = false;
        if !self.keeps_half_frames {
            self.got -= self.buf.len() as u64;
            self.buf.clear();
        }
    }
}

fn hello() -> ClientMessage {
    ClientMessage::Hello {
        name: "Ann".into(),
        client: "demo 1.0".into(),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect(hex))
        .collect()
}

fn message(hex: &str) -> ClientMessage {
    codec::decode(&bytes(hex)[4..]).expect("a message of the client")
}

fn runs() -> Vec<Run> {
    let vectors: Vectors = serde_json::from_str(include_str!("../vectors.json")).expect("it is valid");
    assert!(vectors.resume.len() >= 5);
    vectors.resume
}

#[test]
fn the_reference_state_machine_runs_as_in_the_vectors() {
    for run in runs() {
        let mut machine = Machine {
            keeps_half_frames: run.keeps_half_frames,
            ..Machine::default()
        };
        for step in &run.steps {
            match step {
                Step::Connect(hex) => {
                    machine.connected();
                    assert_eq!(std::mem::take(&mut machine.wire), bytes(hex), "{}", run.about);
                }
                Step::Read(hex) => machine.read(&bytes(hex)),
                Step::Send(hex) => machine.send(&message(hex)),
                Step::Written(hex) => {
                    assert_eq!(std::mem::take(&mut machine.wire), bytes(hex), "{}", run.about);
                }
                Step::Handled(count) => assert_eq!(machine.handled, *count, "{}", run.about),
                Step::Lost(_) => machine.lost(),
            }
        }
    }
}

/// Takes all that the session has to write.
fn written(session: &mut ClientSession) -> Vec<u8> {
    let mut all = Vec::new();
    while !session.bytes().is_empty() {
        all.extend_from_slice(session.bytes());
        session.advance(session.bytes().len());
    }
    all
}

#[test]
fn the_library_runs_as_in_the_vectors() {
    // It discards half a frame.
    for run in runs().into_iter().filter(|run| !run.keeps_half_frames) {
        let mut session = ClientSession::new("Ann", "demo 1.0").with_version_max(1);
        let mut handled = 0;
        for step in &run.steps {
            match step {
                Step::Connect(hex) => {
                    session.begin().expect("it continues");
                    assert_eq!(written(&mut session), bytes(hex), "{}", run.about);
                }
                Step::Read(hex) => {
                    session.receive(&bytes(hex)).expect("there is space");
                    while let Some(message) = session.next_message().expect("the server keeps the rules") {
                        let is_answer = matches!(
                            message,
                            ServerMessage::Welcome { .. } | ServerMessage::Resumed { .. }
                        );
                        handled += usize::from(!is_answer);
                    }
                }
                Step::Send(hex) => session.send(&message(hex)).expect("there is space"),
                Step::Written(hex) => assert_eq!(written(&mut session), bytes(hex), "{}", run.about),
                Step::Handled(count) => assert_eq!(handled, *count, "{}", run.about),
                Step::Lost(_) => session.connection_lost(),
            }
        }
    }
}
