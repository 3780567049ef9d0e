//! Whether shared state is consistent: what can be derived is derived again and compared.
//!
//! [`check_directory`] holds the lobby's lock and may be called on a living server. [`check_all`] also compares what lies under
//! different locks, which is only true at a moment at which nobody changes anything: on a copy, or when all is quiet.
//! [`picture`] is everything a player could notice, for comparing states before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::Lobby;
use super::directory::{LobbyTx, Presence};
use super::memory::{PlayerRef, RoomRef};
use super::rooms::{RoomLife, is_open, occupants, read_state};
use crate::limits::{FRAME_TOTAL_BYTES_MAX, GAME_STATE_BYTES_MAX, OUTPUT_RING_BYTES};
use crate::shm::event_log::Read;


/// Rebuilds the free lists, counts and the index of names from the identities and room entries, under the lobby's lock, and
/// gives a sentence for each difference.
pub fn check_directory(lobby: &mut Lobby) -> Vec<String> {
    let directory = lobby.memory.directory;
    let tx = lobby.hand.begin(directory.record);
    let mut faults = Faults::default();

    let touched = tx.get(&directory.record.identities_touched);
    let present: BTreeSet<u32> = (0..touched)
        .filter(|index| tx.get(&directory.identities.at(*index).presence) != Presence::FREE.raw())
        .collect();
    faults.compare("players present", present.len(), tx.get(&directory.record.players_present) as usize);
    let next_of = |index: u32| tx.get(&directory.identities.at(index).next);
    let free = faults.walk("free identities", tx.get(&directory.record.free_identity), touched, next_of);
    faults.compare("free identities", free.into_iter().collect(), (0..touched).filter(|i| !present.contains(i)).collect::<BTreeSet<_>>());

    let mut indexed = BTreeMap::new();
    for (bucket, head) in directory.name_buckets.iter() {
        for index in faults.walk("names in a bucket", tx.get(head), touched, next_of) {
            indexed.insert(index, bucket);
        }
    }
    faults.compare("names in the index", indexed.keys().copied().collect(), present.clone());
    let mut names = BTreeSet::new();
    for index in &present {
        let name = tx.get(&directory.identities.at(*index).name);
        let bucket = indexed.get(index).map(|bucket| directory.name_buckets.at(*bucket).address());
        faults.compare("bucket of a name", bucket, Some(directory.bucket(name.as_str()).address()));
        if !names.insert(name.as_str().to_lowercase()) {
            faults.0.push(format!("the name {name:?} is taken twice"));
        }
    }
    check_room_entries(lobby.memory.directory, &tx, &mut faults);
    faults.0
}

fn check_room_entries(directory: super::directory::Directory, tx: &LobbyTx<'_>, faults: &mut Faults) {
    let touched = tx.get(&directory.record.rooms_touched);
    let given: BTreeSet<u32> = (0..touched).filter(|index| tx.get(&directory.rooms.at(*index).given) != 0).collect();
    faults.compare("rooms given out", given.len(), tx.get(&directory.record.rooms_given) as usize);
    let next_of = |index: u32| tx.get(&directory.rooms.at(index).next);
    let free = faults.walk("free rooms", tx.get(&directory.record.free_room), touched, next_of);
    faults.compare("free rooms", free.into_iter().collect(), (0..touched).filter(|i| !given.contains(i)).collect::<BTreeSet<_>>());
}

/// Checks everything, on a mapping that nobody else changes meanwhile.
pub fn check_all(lobby: &mut Lobby) -> Vec<String> {
    let mut faults = Faults(check_directory(lobby));
    let memory = lobby.memory;
    let players = present_players(lobby);
    let mut places = BTreeMap::new();
    let mut opening = BTreeSet::new();
    for player in &players {
        let record = memory.players.at(player.index());
        lobby.hand.animate(record);
        let membership = lobby.hand.own(&record.membership);
        if let Some((room, seat)) = membership.place() {
            places.insert(player.to_id(), (room, seat));
        }
        opening.extend(membership.being_opened().map(RoomRef::index));
        let kept = record.kept_output(&lobby.hand);
        if kept.start > kept.end || kept.end - kept.start > OUTPUT_RING_BYTES as u64 {
            faults.0.push(format!("player {player:?} keeps the output {kept:?}"));
        }
        lobby.hand.let_go(record);
    }
    for index in 0..lobby.rooms_touched() {
        check_room(lobby, index, &opening, &mut places, &mut faults);
    }
    for (player, place) in places {
        faults.0.push(format!("player {player:x} believes to be in {place:?}, which does not know"));
    }
    faults.0
}

fn check_room(
    lobby: &mut Lobby,
    index: u32,
    opening: &BTreeSet<u32>,
    places: &mut BTreeMap<u64, (RoomRef, Option<u8>)>,
    faults: &mut Faults,
) {
    let memory = lobby.memory;
    let (given, generation) = {
        let tx = lobby.hand.begin(memory.directory.record);
        let entry = memory.directory.rooms.at(index);
        (tx.get(&entry.given) != 0, tx.get(&entry.generation))
    };
    let record = memory.rooms.at(index);
    let tx = lobby.hand.begin(record);
    let life = RoomLife::from_raw(tx.get(&record.life));
    let current = tx.get(&record.generation) == generation;
    match (given, life) {
        (false, RoomLife::OPEN) => faults.0.push(format!("room {index} is open but in the free list")),
        (true, RoomLife::OPEN | RoomLife::CLOSING) if current => {}
        (true, _) if opening.contains(&index) => {}
        (true, _) => faults.0.push(format!("room {index} is given out, but neither open nor being opened")),
        (false, _) => {}
    }
    if life != RoomLife::OPEN {
        return;
    }
    let room = RoomRef::new(index, generation);
    let (connected, ready) = (tx.get(&record.connected), tx.get(&record.ready));
    let mut taken = 0_u64;
    for (number, seat) in occupants(&tx) {
        taken |= 1 << number;
        let believed = places.remove(&seat.player.to_id());
        faults.compare("place of a player in a seat", believed, Some((room, Some(number))));
    }
    if (connected | ready) & !taken != 0 {
        faults.0.push(format!("room {index} has free seats that are connected or ready"));
    }
    let watching: Vec<u64> =
        places.iter().filter(|(_, place)| **place == (room, None)).map(|(player, _)| *player).collect();
    faults.compare("spectators", watching.len(), tx.get(&record.spectators) as usize);
    for player in watching {
        places.remove(&player);
    }
}

fn present_players(lobby: &mut Lobby) -> Vec<PlayerRef> {
    let directory = lobby.memory.directory;
    let tx = lobby.hand.begin(directory.record);
    let touched = tx.get(&directory.record.identities_touched);
    (0..touched)
        .filter(|index| tx.get(&directory.identities.at(*index).presence) != Presence::FREE.raw())
        .map(|index| PlayerRef::new(index, tx.get(&directory.identities.at(index).generation)))
        .collect()
}

/// Everything that somebody could notice, as text: two states with equal pictures are the same state.
///
/// Left out is what means nothing: unreferenced bytes, figures, marks of time. Events are shown only from `log_from` (room
/// index → offset) on, because the window's beginning may move without anything having happened.
#[doc(hidden)]
pub fn picture(lobby: &mut Lobby, connection: u32) -> Vec<String> {
    let memory = lobby.memory;
    let mut lines = Vec::new();
    for player in present_players(lobby) {
        let tx = lobby.hand.begin(memory.directory.record);
        let identity = memory.directory.identities.at(player.index());
        lines.push(format!(
            "player {player:?} {:?} presence {} kicked {} connection {:?} claimant {:?} token {:?}",
            tx.get(&identity.name),
            tx.get(&identity.presence),
            tx.get(&identity.kicked),
            tx.get(&identity.connection),
            tx.get(&identity.claimant),
            tx.get(&identity.token_hash),
        ));
        drop(tx);
        lines.push(picture_of_player(lobby, player));
    }
    for index in 0..lobby.rooms_touched() {
        lines.extend(picture_of_room(lobby, index));
    }
    let record = memory.connections.at(connection);
    lobby.hand.animate(record);
    let hand = &lobby.hand;
    lines.push(format!(
        "connection phase {} leaves {} handshake {} greeting {} farewell {} player {:?} bases {} {} end {}",
        hand.own(&record.phase),
        hand.own(&record.leaves),
        hand.own(&record.handshake_bytes),
        hand.own(&record.greeting_bytes),
        hand.own(&record.farewell_bytes),
        hand.own(&record.player),
        hand.own(&record.input_base),
        hand.own(&record.output_base),
        hand.own(&record.stream_end),
    ));
    lobby.hand.let_go(record);
    lines
}

fn picture_of_player(lobby: &mut Lobby, player: PlayerRef) -> String {
    let record = lobby.memory.players.at(player.index());
    lobby.hand.animate(record);
    let hand = &lobby.hand;
    let head = hand.own(&record.output_head);
    // The window's beginning moves for good, outside the transaction; the bytes before the head are the promise.
    let last = usize::try_from(head).unwrap_or(usize::MAX).min(FRAME_TOTAL_BYTES_MAX);
    let mut output = vec![0; last];
    record.output.placement(hand).read(head - last as u64, &mut output);
    let line = format!(
        "  membership {:?} cursor {} consumed {} head {head} output {output:?}",
        hand.own(&record.membership),
        hand.own(&record.log_cursor),
        hand.own(&record.consumed),
    );
    lobby.hand.let_go(record);
    line
}

fn picture_of_room(lobby: &mut Lobby, index: u32) -> Vec<String> {
    let memory = lobby.memory;
    let entry = memory.directory.rooms.at(index);
    let tx = lobby.hand.begin(memory.directory.record);
    let given = (tx.get(&entry.given), tx.get(&entry.generation), tx.get(&entry.opener));
    drop(tx);
    let record = memory.rooms.at(index);
    let tx = lobby.hand.begin(record);
    let mut lines = vec![format!("room {index} given {given:?} life {}", tx.get(&record.life))];
    if is_open(&tx, RoomRef::new(index, tx.get(&record.generation))) {
        let mut state = [0; GAME_STATE_BYTES_MAX];
        lines.push(format!(
            "  phase {} game {} capacity {} spectators {} connected {:b} ready {:b} name {:?} has state {} {:?} tick {}",
            tx.get(&record.phase),
            tx.get(&record.game),
            tx.get(&record.capacity),
            tx.get(&record.spectators),
            tx.get(&record.connected),
            tx.get(&record.ready),
            tx.get(&record.name),
            tx.get(&record.has_state),
            read_state(&tx, &mut state),
            tx.get(&record.next_tick_at_ms) != u64::MAX,
        ));
        lines.extend(occupants(&tx).map(|(number, seat)| format!("  seat {number} {seat:?}")));
    }
    let head = record.log.head(&tx);
    drop(tx);
    lines.push(format!("  log up to {head}"));
    let (mut cursor, _) = record.log.window();
    let mut event = [0; FRAME_TOTAL_BYTES_MAX];
    let mut events = Vec::new();
    while let Read::Entry { audience, length, next } = record.log.read(cursor, &mut event) {
        events.push(format!("  at {cursor} for {audience}: {:?}", &event[..length]));
        cursor = next;
    }
    // The oldest events may go for good before the transaction that needs their place is decided.
    let recent = events.len().saturating_sub(4);
    lines.extend(events.split_off(recent));
    lines
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn compare<T: PartialEq + Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.0.push(format!("{what}: {found:?} where {expected:?} was derived"));
        }
    }

    /// The indices of a linked list of `index + 1`, which must end before it has named every record once.
    fn walk(&mut self, what: &str, first: u32, touched: u32, next_of: impl Fn(u32) -> u32) -> Vec<u32> {
        let mut indices = Vec::new();
        let mut link = first;
        while let Some(index) = link.checked_sub(1) {
            if index >= touched || indices.len() >= touched as usize {
                self.0.push(format!("{what}: the list leads to {index} after {} links", indices.len()));
                break;
            }
            indices.push(index);
            link = next_of(index);
        }
        indices
    }
}

