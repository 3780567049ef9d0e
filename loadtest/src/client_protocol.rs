//! What a client says and hears, as bytes: Forkade's protocol, or that of a [peer](crate::server::peer), translated. So all servers meet the
//! same workloads, the same loop and the same checks.

mod colyseus;
mod echo;

use std::collections::VecDeque;
use std::fmt::Debug;

use bytes::{Buf, BytesMut};
use forkade_protocol::session::Counters;
use forkade_protocol::{
    ClientMessage, ClientSession, GameInfo, Limits, Phase, PlayerId, RoomEvent, RoomId, RoomRules,
    RoomSettings, ServerMessage, SessionError, Snapshot, Token, codec,
};

use self::colyseus::Colyseus;
use self::echo::Echo;
use crate::server::peer::Protocol;

/// One client's side of the conversation. It holds no socket; see [`ClientSession`], whose ways it has.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "in a run all are of one kind, and mostly of the large one"
)]
pub(crate) enum ProtocolSession {
    Forkade(ClientSession),
    Peer {
        session: Box<dyn PeerSession>,
        /// The name that it would have at a Forkade server.
        name: String,
        state: State,
    },
}

/// How far a foreign session is. It cannot come back: none of the peers keeps what was sent meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    NotStarted,
    Connected,
    Ended,
}

/// A protocol that is translated.
pub(crate) trait PeerSession: Debug + Send {
    /// Queues what the message means here.
    fn send(&mut self, message: &ClientMessage) -> Result<(), PeerError>;
    /// Takes what arrived.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), PeerError>;
    /// What is to be written, and what was understood.
    fn queues(&mut self) -> &mut Queues;
    /// The same, to look at.
    fn output(&self) -> &[u8];
}

/// What lies between a translator and the client.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub output: BytesMut,
    pub messages: VecDeque<ServerMessage>,
}

/// Why a session of whichever kind cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// Why a conversation with a peer cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("the session has ended")]
    Ended,
    #[error("there is nothing like {0} in this peer's protocol")]
    Unsupported(&'static str),
    #[error("the peer's answer is not what was expected: {0}")]
    UnexpectedAnswer(String),
    #[error("the web socket failed: {0}")]
    WebSocket(#[from] Box<tungstenite::Error>),
}

impl ProtocolError {
    /// Whether the session has ended, and nothing else is wrong.
    pub(crate) fn is_session_end(&self) -> bool {
        matches!(
            self,
            Self::Session(SessionError::Ended) | Self::Peer(PeerError::Ended)
        )
    }

    /// Whether there is more to send than the session may hold now.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Session(SessionError::BufferFull { .. }))
    }
}

impl ProtocolSession {
    /// A client of this name that has not begun.
    pub(crate) fn new(protocol: Protocol, name: String) -> Self {
        let session: Box<dyn PeerSession> = match protocol {
            Protocol::Forkade => {
                let client = concat!("forkade-loadtest ", env!("CARGO_PKG_VERSION"));
                return Self::Forkade(ClientSession::new(name, client));
            }
            Protocol::Echo => Box::<Echo>::default(),
            Protocol::Colyseus => Box::<Colyseus>::default(),
        };
        let state = State::NotStarted;
        Self::Peer { session, name, state }
    }

    /// A connection stands.
    pub(crate) fn begin(&mut self) -> Result<(), ProtocolError> {
        match self {
            Self::Forkade(session) => Ok(session.begin()?),
            Self::Peer { session, name, state } => {
                *state = State::Connected;
                session.queues().messages.push_back(welcome(name.clone()));
                Ok(())
            }
        }
    }

    pub(crate) fn connection_lost(&mut self) {
        match self {
            Self::Forkade(session) => session.connection_lost(),
            Self::Peer { state, .. } if *state == State::Connected => *state = State::Ended,
            Self::Peer { .. } => {}
        }
    }

    /// What is to be written.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Forkade(session) => session.bytes(),
            Self::Peer { session, .. } => session.output(),
        }
    }

    /// So much of it was written.
    pub(crate) fn advance(&mut self, count: usize) {
        match self {
            Self::Forkade(session) => session.advance(count),
            Self::Peer { session, .. } => session.queues().output.advance(count),
        }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        match self {
            Self::Forkade(session) => Ok(session.receive(bytes)?),
            Self::Peer { session, .. } => Ok(session.receive(bytes)?),
        }
    }

    pub(crate) fn next_message(&mut self) -> Result<Option<ServerMessage>, ProtocolError> {
        match self {
            Self::Forkade(session) => Ok(session.next_message()?),
            Self::Peer { session, .. } => Ok(session.queues().messages.pop_front()),
        }
    }

    pub(crate) fn send(&mut self, message: &ClientMessage) -> Result<(), ProtocolError> {
        match self {
            Self::Forkade(session) => Ok(session.send(message)?),
            Self::Peer { state, .. } if *state != State::Connected => Err(PeerError::Ended.into()),
            Self::Peer { session, .. } => Ok(session.send(message)?),
        }
    }

    /// A sign of life, unless none is needed.
    pub(crate) fn ping(&mut self) {
        if let Self::Forkade(session) = self
            && session.is_established()
        {
            // The only errors are a full buffer and the session's end, and both make a ping needless.
            let _ = session.ping();
        }
    }

    /// Whether no connection can bring this session back.
    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::Forkade(session) => session.is_ended(),
            Self::Peer { state, .. } => *state == State::Ended,
        }
    }

    /// Whether the server has made a player of this client.
    pub(crate) fn has_player(&self) -> bool {
        match self {
            Self::Forkade(session) => session.token().is_some(),
            Self::Peer { state, .. } => *state == State::Connected,
        }
    }

    /// The player's name, as the server has it.
    pub(crate) fn player_name(&self) -> Option<&str> {
        match self {
            Self::Forkade(session) => session.session_info().map(|info| info.name.as_str()),
            Self::Peer { .. } => None,
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        match self {
            Self::Forkade(session) => session.counters(),
            Self::Peer { .. } => Counters::default(),
        }
    }
}

/// The message with which the first member of room `number` makes it.
pub(crate) fn create_room(request: u32, game: &str, number: u32, seats: u8) -> ClientMessage {
    let name = format!("load {number}");
    ClientMessage::CreateRoom {
        request,
        game: game.to_owned(),
        name,
        settings: RoomSettings {
            seats,
            ..RoomSettings::default()
        },
    }
}

/// What a Forkade server would say to a new player. Of a peer nothing is known but that it relays.
pub(crate) fn welcome(name: String) -> ServerMessage {
    ServerMessage::Welcome {
        version: 0,
        token: Token([0; 16]),
        player: PlayerId(0),
        name,
        limits: Limits {
            frame_bytes_max: 0,
            name_bytes_max: 0,
            chat_bytes_max: 0,
            confirm_every_bytes: 0,
            heartbeat_timeout_ms: u32::MAX,
            seat_grace_ms: 0,
        },
        games: vec![GameInfo {
            name: "relay".to_owned(),
            seats_min: 1,
            seats_max: u8::MAX,
            ticks_per_second: 0,
        }],
    }
}

/// What a Forkade server would say to whoever comes into a room.
pub(crate) fn joined(request: u32, room: RoomId) -> ServerMessage {
    let snapshot = Snapshot {
        room,
        game: "relay".to_owned(),
        name: String::new(),
        phase: Phase::Playing,
        seat: None,
        seats: Vec::new(),
        spectators: 0,
        event: 0,
        view: Vec::new(),
        owner: None,
        rules: RoomRules::default(),
        reservations: Vec::new(),
        turn: None,
    };
    ServerMessage::Joined { request, snapshot }
}

/// What a Forkade server would say of a relayed message.
fn relayed(payload: &[u8]) -> Result<ServerMessage, PeerError> {
    let data =
        codec::encode(&(0_u8, payload)).map_err(|error| PeerError::UnexpectedAnswer(error.to_string()))?;
    let event = RoomEvent::Game { data };
    Ok(ServerMessage::Event { number: 0, event })
}
