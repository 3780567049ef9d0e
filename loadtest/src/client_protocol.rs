//! The protocols that clients speak, as bytes in and out: Forkade's, or that of a
//! [peer](crate::server::peer), translated to and from Forkade's messages. So the same workloads, loop and
//! checks measure all servers.

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

/// One client's session. It holds no socket. Its methods follow those of [`ClientSession`].
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "all sessions of a run are of one kind, usually the large one"
)]
pub(crate) enum ProtocolSession {
    Forkade(ClientSession),
    Peer {
        session: Box<dyn PeerSession>,
        /// The name that the player would have on a Forkade server.
        name: String,
        state: State,
    },
}

/// State of a session with a peer. It cannot be resumed: no peer keeps what is sent while a client is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    NotStarted,
    Connected,
    Ended,
}

/// A protocol of a peer, translated.
pub(crate) trait PeerSession: Debug + Send {
    /// Queues the peer's equivalent of `message`.
    fn send(&mut self, message: &ClientMessage) -> Result<(), PeerError>;
    /// Decodes received bytes.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), PeerError>;
    /// The output to be written, and the messages that were decoded.
    fn queues(&mut self) -> &mut Queues;
    /// The output to be written, for reading only.
    fn output(&self) -> &[u8];
}

/// The queues between a translated protocol and its client.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    pub output: BytesMut,
    pub messages: VecDeque<ServerMessage>,
}

/// Why a session of either kind cannot continue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// Why a session with a peer cannot continue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("the session has ended")]
    Ended,
    #[error("this peer's protocol has no equivalent of {0}")]
    Unsupported(&'static str),
    #[error("unexpected answer of the peer: {0}")]
    UnexpectedAnswer(String),
    #[error("the WebSocket failed: {0}")]
    WebSocket(#[from] Box<tungstenite::Error>),
}

impl ProtocolError {
    /// Whether the only error is that the session has ended.
    pub(crate) fn is_session_end(&self) -> bool {
        matches!(
            self,
            Self::Session(SessionError::Ended) | Self::Peer(PeerError::Ended)
        )
    }

    /// Whether the session holds as much unconfirmed output as it may.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Session(SessionError::BufferFull { .. }))
    }
}

impl ProtocolSession {
    /// A session for a player named `name` that has not begun.
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

    /// A connection has been established.
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

    /// The output to be written.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Forkade(session) => session.bytes(),
            Self::Peer { session, .. } => session.output(),
        }
    }

    /// The first `count` bytes of the output were written.
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

    /// Queues a heartbeat, unless none is needed.
    pub(crate) fn ping(&mut self) {
        if let Self::Forkade(session) = self
            && session.is_established()
        {
            // The only errors are a full buffer and the end of the session; neither needs a heartbeat.
            let _ = session.ping();
        }
    }

    /// Whether the session cannot be resumed.
    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::Forkade(session) => session.is_ended(),
            Self::Peer { state, .. } => *state == State::Ended,
        }
    }

    /// Whether the server has created a player for this client.
    pub(crate) fn has_player(&self) -> bool {
        match self {
            Self::Forkade(session) => session.token().is_some(),
            Self::Peer { state, .. } => *state == State::Connected,
        }
    }

    /// Whether another connection can ask again for a lost answer to the greeting.
    pub(crate) fn can_greet_again(&self) -> bool {
        matches!(self, Self::Forkade(session) if session.can_greet_again())
    }

    /// The player's name, as the server normalized it.
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

/// The message with which the first member of room `number` creates it.
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

/// The welcome of a Forkade server. A peer announces nothing but that it relays.
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

/// The answer of a Forkade server to a client that joins a room.
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

/// The event of a Forkade server for a relayed message.
fn relayed(payload: &[u8]) -> Result<ServerMessage, PeerError> {
    let data =
        codec::encode(&(0_u8, payload)).map_err(|error| PeerError::UnexpectedAnswer(error.to_string()))?;
    let event = RoomEvent::Game { data };
    Ok(ServerMessage::Event { number: 0, event })
}
