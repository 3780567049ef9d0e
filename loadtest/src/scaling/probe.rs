//! Single clients that do one operation at a time and measure how long it takes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forkade_protocol::{
    Client, ClientError, ClientMessage, ClientOptions, RoomEvent, RoomFilter, ServerMessage, codec,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::client_protocol::create_room;
use crate::latency::{Latency, Percentiles};
use crate::server::console::{Console, ConsoleError};
use crate::server::process::ServerProcess;

/// An answer that takes longer counts as missing.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Payload of each message.
const PAYLOAD_BYTES: usize = 32;
/// Pause between two kills, so that the server is idle again.
const TAKEOVER_PAUSE: Duration = Duration::from_millis(50);

/// What the probes have measured.
#[derive(Debug, Serialize)]
pub(crate) struct Probes {
    /// From connecting to having joined a room of its own.
    pub join_ms: Option<Percentiles>,
    /// From sending to receiving the own copy.
    pub message_ms: Option<Percentiles>,
    /// The first page of all rooms.
    pub listing_ms: Option<Percentiles>,
    /// A search for a text that no room's name contains.
    pub search_ms: Option<Percentiles>,
    /// From the kill of the handler to receiving a message through its successor.
    pub takeover_ms: Option<Percentiles>,
}

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error("the server has not answered {what} in {seconds} seconds", what = .0, seconds = ANSWER_TIMEOUT.as_secs())]
    NoAnswer(&'static str),
    #[error("the server refused {0}: {1}")]
    Refused(&'static str, String),
    #[error("the console does not say which process serves {0}")]
    NoHandler(String),
    #[error("cannot kill handler {pid}: {cause}")]
    Kill { pid: u32, cause: rustix::io::Errno },
}

/// Measures all operations.
///
/// # Errors
/// When the server does not answer as expected.
pub(super) fn run(
    server: &ServerProcess,
    probes: u32,
    takeovers: u32,
    interrupted: &AtomicBool,
) -> Result<Probes, ProbeError> {
    let game = server.game();
    let mut join = Latency::new();
    for number in repeated(probes, interrupted) {
        let began = Instant::now();
        let client = join_own_room(game, &format!("probe {number}"))?;
        join.record(elapsed_ns(began));
        client.goodbye()?;
    }
    let mut client = join_own_room(game, "probe")?;
    let mut message = Latency::new();
    for number in repeated(probes, interrupted) {
        let began = Instant::now();
        send_and_receive(&mut client, number)?;
        message.record(elapsed_ns(began));
    }
    let listing = measure_listings(&mut client, probes, interrupted, None)?;
    let search = measure_listings(&mut client, probes, interrupted, Some("no room is called so"))?;
    let takeover = match server.console() {
        Some(address) => measure_takeovers(
            &mut client,
            &mut Console::connect(address)?,
            takeovers,
            probes,
            interrupted,
        )?,
        None => Latency::new(),
    };
    client.goodbye()?;
    Ok(Probes {
        join_ms: join.percentiles(),
        message_ms: message.percentiles(),
        listing_ms: listing.percentiles(),
        search_ms: search.percentiles(),
        takeover_ms: takeover.percentiles(),
    })
}

fn repeated(times: u32, interrupted: &AtomicBool) -> impl Iterator<Item = u32> {
    (0..times).take_while(|_| !interrupted.load(Ordering::Relaxed))
}

/// Connects a new player, which creates a room.
fn join_own_room(game: SocketAddr, name: &str) -> Result<Client, ProbeError> {
    let mut client = Client::connect(game, name, ClientOptions::default())?;
    client.send(&create_room(0, "relay", 0, 1))?;
    let answer = client.receive_where(ANSWER_TIMEOUT, |message| {
        matches!(
            message,
            ServerMessage::Joined { .. } | ServerMessage::Rejected { .. }
        )
    })?;
    match answer {
        Some(ServerMessage::Joined { .. }) => Ok(client),
        Some(ServerMessage::Rejected { text, .. }) => Err(ProbeError::Refused("a room", text)),
        _ => Err(ProbeError::NoAnswer("a room")),
    }
}

fn send_and_receive(client: &mut Client, number: u32) -> Result<(), ProbeError> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(PAYLOAD_BYTES, 0);
    client.send(&ClientMessage::Act {
        request: number,
        action: payload.clone(),
    })?;
    let own = |message: &ServerMessage| match message {
        ServerMessage::Event {
            event: RoomEvent::Game { data },
            ..
        } => codec::decode::<(u8, Vec<u8>)>(data).is_ok_and(|(_, relayed)| relayed == payload),
        _ => false,
    };
    match client.receive_where(ANSWER_TIMEOUT, own)? {
        Some(_) => Ok(()),
        None => Err(ProbeError::NoAnswer("a message")),
    }
}

fn measure_listings(
    client: &mut Client,
    probes: u32,
    interrupted: &AtomicBool,
    name_contains: Option<&str>,
) -> Result<Latency, ProbeError> {
    let mut listing = Latency::new();
    for request in repeated(probes, interrupted) {
        let began = Instant::now();
        client.send(&ClientMessage::ListRooms {
            request,
            filter: RoomFilter {
                name_contains: name_contains.map(str::to_owned),
                ..RoomFilter::default()
            },
            after: None,
        })?;
        let is_answer = |message: &ServerMessage| matches!(message, ServerMessage::Rooms { request: of, .. } if *of == request);
        if client.receive_where(ANSWER_TIMEOUT, is_answer)?.is_none() {
            return Err(ProbeError::NoAnswer("a list of rooms"));
        }
        listing.record(elapsed_ns(began));
    }
    Ok(listing)
}

/// Kills the client's own handler repeatedly. `first` is the number of the next message.
fn measure_takeovers(
    client: &mut Client,
    console: &mut Console,
    takeovers: u32,
    first: u32,
    interrupted: &AtomicBool,
) -> Result<Latency, ProbeError> {
    let name = client
        .session_info()
        .map_or_else(String::new, |info| info.name.clone());
    let mut takeover = Latency::new();
    for number in repeated(takeovers, interrupted) {
        let processes = console.processes()?;
        let handler = processes
            .iter()
            .find(|process| process.player.as_deref() == Some(name.as_str()));
        let pid = handler.map(|handler| handler.pid).unwrap_or(0);
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let target = target.ok_or_else(|| ProbeError::NoHandler(name.clone()))?;
        let began = Instant::now();
        kill_process(target, Signal::KILL).map_err(|cause| ProbeError::Kill { pid, cause })?;
        send_and_receive(client, first + number)?;
        takeover.record(elapsed_ns(began));
        std::thread::sleep(TAKEOVER_PAUSE);
    }
    Ok(takeover)
}

fn elapsed_ns(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
