//! Checks that shared state is consistent: derives what can be derived, and compares it with what is stored. Changes
//! nothing.
//!
//! [`check_directory`] takes the lobby's lock once and may run on a live server. [`check_all`] also compares records
//! under different locks, so it needs a mapping that no other process changes: a copy, or an idle server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::Ordering;

use forkade_protocol::text::names::name_keys;
use forkade_protocol::{Phase as MatchPhase, ServerMessage, codec};
use shmem::event_log::{EventLog, Read};

use crate::limits::{FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX, OUTPUT_RING_BYTES};
use crate::lobby::ownership::{is_banned, owner_of};
use crate::lobby::reservations::seat_reserved_for;
use crate::lobby::turns;
use crate::session::CURSOR_LOST;
use crate::state::chat::ChatCursor;
use crate::state::connections::{Claim, Phase};
use crate::state::directory::{Directory, LobbyTx, NAME_KEYS, Name, NameHashes, NameLink, Presence};
use crate::state::handle::StateHandle;
use crate::state::layout::{ConnectionRef, PlayerRef, RoomRef};
use crate::state::rooms::{HAS_PASSCODE, RoomLife, RoomTx, occupants, phase_of, seats_in};
use crate::state::sanctions::SanctionKind;

/// Derives free lists, counts and the index of names from the identities and room entries, under the lobby's lock.
/// Returns a sentence for each difference.
pub fn check_directory(state: &mut StateHandle) -> Vec<String> {
    let directory = state.memory.directory;
    let tx = state.attachment.begin(directory.record);
    let mut faults = Faults::default();

    let touched = tx.get(&directory.record.identities_touched);
    let present: BTreeSet<u32> = (0..touched)
        .filter(|index| tx.get(&directory.identities.at(*index).presence) != Presence::FREE.raw())
        .collect();
    faults.compare(
        "players present",
        present.len(),
        tx.get(&directory.record.players_present) as usize,
    );
    let published = directory.record.players_published.load(Ordering::Relaxed);
    faults.compare("players present, as published", published, present.len() as u64);
    let mutes_end_ms = directory.record.mutes_end_published_ms.load(Ordering::Relaxed);
    faults.compare(
        "end of the mutes, as published",
        mutes_end_ms,
        tx.get(&directory.record.mutes_end_ms),
    );
    let places = 0..tx.get(&directory.record.sanctions_touched);
    for sanction in places.filter_map(|index| directory.sanction(&tx, index, mutes_end_ms)) {
        if sanction.kind == SanctionKind::MUTE {
            faults
                .0
                .push(format!("{:?} is muted for longer than all", sanction.name));
        }
    }
    let next_of = |index: u32| tx.get(&directory.identities.at(index).next);
    let free = faults.walk(
        "free identities",
        tx.get(&directory.record.free_identity),
        touched,
        next_of,
    );
    faults.compare(
        "free identities",
        free.into_iter().collect(),
        (0..touched)
            .filter(|i| !present.contains(i))
            .collect::<BTreeSet<_>>(),
    );

    let mut indexed = BTreeMap::new();
    let next_of_link = |number: u32| {
        let (index, key) = NameLink(number + 1).target().expect("it is a link");
        tx.get(&directory.identities.at(index).next_of_key[key])
    };
    for (bucket, head) in directory.name_buckets.iter() {
        for number in faults.walk("names in a bucket", tx.get(head), 2 * touched, next_of_link) {
            indexed.insert(NameLink(number + 1).target(), bucket);
        }
    }
    faults.compare(
        "names in the index",
        indexed.keys().copied().collect::<BTreeSet<_>>(),
        present
            .iter()
            .flat_map(|index| (0..NAME_KEYS).map(|key| Some((*index, key))))
            .collect(),
    );
    let mut keys_taken = BTreeSet::new();
    for index in &present {
        let name = tx.get(&directory.identities.at(*index).name);
        for (which, key) in name_keys(name.as_str()).into_iter().enumerate() {
            let bucket = indexed
                .get(&Some((*index, which)))
                .map(|bucket| directory.name_buckets.at(*bucket).address());
            faults.compare(
                "bucket of a name",
                bucket,
                Some(directory.bucket(which, &key).address()),
            );
            if !keys_taken.insert((which, key)) {
                faults.0.push(format!("the name {name:?} is taken twice"));
            }
        }
    }
    check_room_entries(state.memory.directory, &tx, &mut faults);
    for index in present {
        let is_message =
            |frame: &Vec<u8>| codec::decode::<ServerMessage>(&frame[FRAME_HEADER_BYTES..]).is_ok();
        let mail = state.memory.mail_of(&tx, index);
        if !mail.is_some_and(|frames| frames.iter().all(is_message)) {
            faults.0.push(format!(
                "the mailbox of player {index} holds more than whole messages"
            ));
        }
    }
    faults.0
}

fn check_room_entries(directory: Directory, tx: &LobbyTx<'_>, faults: &mut Faults) {
    let touched = tx.get(&directory.record.rooms_touched);
    let given: BTreeSet<u32> = (0..touched)
        .filter(|index| tx.get(&directory.rooms.at(*index).in_use) != 0)
        .collect();
    faults.compare(
        "rooms given out",
        given.len(),
        tx.get(&directory.record.rooms_in_use) as usize,
    );
    let published = directory.record.rooms_published.load(Ordering::Relaxed);
    faults.compare("rooms given out, as published", published, given.len() as u64);
    let visited: BTreeSet<u32> = directory.visited_rooms(0).collect();
    faults.compare(
        "rooms given out that are not visited",
        given.difference(&visited).collect(),
        Vec::new(),
    );
    let next_of = |index: u32| tx.get(&directory.rooms.at(index).next);
    let free = faults.walk(
        "free rooms",
        tx.get(&directory.record.free_room),
        touched,
        next_of,
    );
    faults.compare(
        "free rooms",
        free.into_iter().collect(),
        (0..touched)
            .filter(|i| !given.contains(i))
            .collect::<BTreeSet<_>>(),
    );
}

/// Checks everything, on a mapping that no other process changes. Returns a sentence for each inconsistency.
///
/// States between the transactions of one operation are consistent: a player that is [opening a
/// room](crate::state::players::Membership::opening), a [room that closes](RoomLife::CLOSING), a player that is
/// [expiring](Presence::EXPIRING). What dead processes left under a lock must have been recovered before.
pub fn check_all(state: &mut StateHandle) -> Vec<String> {
    let mut faults = Faults(check_directory(state));
    let mut recorded = RecordedByPlayers::default();
    let mut carried = carried_players(state, &mut faults);
    for player in present_players(state) {
        check_player(state, player, &mut carried, &mut recorded, &mut faults);
    }
    for (player, connection) in carried {
        faults.0.push(format!(
            "connection {connection:?} carries player {player:x}, whose identity names another"
        ));
    }
    for index in 0..state.rooms_touched() {
        check_room(state, index, &mut recorded, &mut faults);
    }
    check_chat(state, &recorded, &mut faults);
    for (index, record) in state.memory.touched_connections() {
        let is_counted =
            state.memory.sources.of_connection(index).is_some() || state.memory.is_greeting(index);
        if record.claimed() == Claim::Free && is_counted {
            faults.0.push(format!(
                "connection {index} is free, and counts as one of a source"
            ));
        }
    }
    for (player, (room, seat)) in recorded.places {
        // A kicked player has yet to read the kick in the room's log, or to find that the log has overwritten it.
        let cursor = recorded.cursors[&player];
        let log = &state.memory.rooms.at(room.index()).log;
        let will_learn = seat.is_some() && (cursor == CURSOR_LOST || !log.ends_at(cursor));
        if !will_learn {
            faults.0.push(format!(
                "player {player:x} is in {room:?} at {seat:?} by its own record only"
            ));
        }
    }
    faults.0
}

/// What the players' records hold.
#[derive(Default)]
struct RecordedByPlayers {
    /// By the player's id: room and seat.
    places: BTreeMap<u64, (RoomRef, Option<u8>)>,
    /// By the player's id: the cursor in the room's log.
    cursors: BTreeMap<u64, u64>,
    names: BTreeMap<u64, Name>,
    /// By the player's id: the cursor in the lobby's chat.
    chat: BTreeMap<u64, ChatCursor>,
    /// By the room's index: the room that is being opened, and the player that opens it.
    opening: BTreeMap<u32, (RoomRef, PlayerRef)>,
}

/// Returns the connection that carries the session, by the player's id.
fn carried_players(state: &mut StateHandle, faults: &mut Faults) -> BTreeMap<u64, ConnectionRef> {
    let mut carried = BTreeMap::new();
    for (index, record) in state
        .memory
        .touched_connections()
        .filter(|(_, record)| record.claimed() != Claim::Free)
    {
        let connection = record.reference(index);
        state.attachment.acquire(record);
        let (occupant, phase) = (
            state.attachment.read_own(&record.occupant),
            Phase::from_raw(state.attachment.read_own(&record.phase)),
        );
        let player = state.attachment.read_own(&record.player);
        state.attachment.release(record);
        if occupant != connection.generation() || !player.is_some() || phase == Phase::RESUMING {
            continue;
        }
        if let Some(other) = carried.insert(player.to_id(), connection) {
            faults.0.push(format!(
                "connections {other:?} and {connection:?} both carry player {player:?}"
            ));
        }
    }
    carried
}

fn check_player(
    state: &mut StateHandle,
    player: PlayerRef,
    carried: &mut BTreeMap<u64, ConnectionRef>,
    recorded: &mut RecordedByPlayers,
    faults: &mut Faults,
) {
    let (memory, id) = (state.memory, player.to_id());
    let tx = state.attachment.begin(memory.directory.record);
    let identity = memory.directory.identities.at(player.index());
    let (presence, connection) = (
        Presence::from_raw(tx.get(&identity.presence)),
        tx.get(&identity.connection),
    );
    let name = tx.get(&identity.name);
    drop(tx);
    let carrier = carried.remove(&id).unwrap_or(ConnectionRef::NONE);
    faults.compare("connection that carries a player", carrier, connection);
    if presence == Presence::ATTACHED && !connection.is_some()
        || presence == Presence::DETACHED && connection.is_some()
    {
        faults.0.push(format!(
            "player {player:?} is {presence:?} with connection {connection:?}"
        ));
    }

    let record = memory.players.at(player.index());
    state.attachment.acquire(record);
    let (membership, cursor) = (
        state.attachment.read_own(&record.membership),
        state.attachment.read_own(&record.log_cursor),
    );
    faults.compare(
        "name of a player",
        state.attachment.read_own(&record.name).as_str(),
        name.as_str(),
    );
    let chat = ChatCursor {
        cursor: state.attachment.read_own(&record.chat_cursor),
        line: state.attachment.read_own(&record.chat_line),
    };
    recorded.chat.insert(id, chat);
    let kept = record.kept_output(&state.attachment);
    state.attachment.release(record);
    if kept.start > kept.end || kept.end - kept.start > OUTPUT_RING_BYTES as u64 {
        faults
            .0
            .push(format!("player {player:?} keeps the output {kept:?}"));
    }
    if let Some((room, seat)) = membership.place() {
        recorded.places.insert(id, (room, seat));
        recorded.cursors.insert(id, cursor);
        recorded.names.insert(id, name);
    }
    if let Some(room) = membership.being_opened()
        && let Some((_, other)) = recorded.opening.insert(room.index(), (room, player))
    {
        faults.0.push(format!(
            "players {player:?} and {other:?} are both opening room {room:?}"
        ));
    }
}

fn check_room(state: &mut StateHandle, index: u32, recorded: &mut RecordedByPlayers, faults: &mut Faults) {
    let memory = state.memory;
    let tx = state.attachment.begin(memory.directory.record);
    let entry = memory.directory.rooms.at(index);
    let (given, generation, opener) = (
        tx.get(&entry.in_use) != 0,
        tx.get(&entry.generation),
        tx.get(&entry.opener),
    );
    drop(tx);
    let room = RoomRef::new(index, generation);
    let record = memory.rooms.at(index);
    let tx = state.attachment.begin(record);
    let life = RoomLife::from_raw(tx.get(&record.life));
    let current = tx.get(&record.generation) == generation;
    let opening = recorded.opening.remove(&index);
    match (given, life) {
        (false, RoomLife::OPEN) => faults
            .0
            .push(format!("room {room:?} is open but in the free list")),
        (true, RoomLife::OPEN | RoomLife::CLOSING) if current && opening.is_none() => {}
        (true, _) if !current && opening == Some((room, opener)) => {}
        (true, _) => faults.0.push(format!(
            "room {room:?} is given out, but neither open nor being opened"
        )),
        (false, _) => {}
    }
    if let Some((opened, player)) = opening.filter(|opening| *opening != (room, opener)) {
        faults.0.push(format!(
            "player {player:?} is opening {opened:?}, which is {room:?} and given to {opener:?}"
        ));
    }
    let open = life == RoomLife::OPEN;
    faults.compare(
        "published generation of a room",
        record.open_generation(),
        open.then_some(generation),
    );
    if let Some(published) = record.published() {
        let numbers = published.numbers;
        faults.compare(
            "published numbers of a room",
            [
                numbers.game.into(),
                numbers.seats.into(),
                numbers.taken.into(),
                numbers.phase.into(),
                numbers.spectators,
                numbers.has_passcode.into(),
            ],
            [
                tx.get(&record.game),
                tx.get(&record.capacity),
                u32::try_from(occupants(&tx).count()).unwrap_or(u32::MAX),
                tx.get(&record.phase),
                tx.get(&record.spectators),
                u32::from(tx.get(&record.flags) & HAS_PASSCODE != 0),
            ],
        );
        faults.compare(
            "published name of a room",
            published.name.as_str(),
            tx.get(&record.name).as_str(),
        );
    }
    check_log(&record.log, record.log.head(&tx), faults);
    if open {
        check_open_room(&tx, room, recorded, faults);
    }
}

fn check_open_room(tx: &RoomTx<'_>, room: RoomRef, recorded: &mut RecordedByPlayers, faults: &mut Faults) {
    let record = tx.record();
    let (connected, ready) = (tx.get(&record.connected), tx.get(&record.ready));
    let head = record.log.head(tx);
    let mut taken = 0_u64;
    for (number, seat) in occupants(tx) {
        taken |= 1 << number;
        let id = seat.player.to_id();
        faults.compare(
            "place of a player in a seat",
            recorded.places.remove(&id),
            Some((room, Some(number))),
        );
        let name = recorded.names.get(&id).map(Name::as_str);
        faults.compare("name on a seat", seat.name.as_str(), name.unwrap_or_default());
        faults.check_cursor(room, recorded.cursors.get(&id), head);
    }
    faults.compare("seats taken", tx.get(&record.taken), taken);
    if owner_of(tx).map_or(taken != 0, |owner| taken >> owner & 1 == 0) {
        faults.0.push(format!(
            "room {room:?} is owned by {:?} of {taken:b}",
            owner_of(tx)
        ));
    }
    if let Some((_, seat)) = occupants(tx).find(|(_, seat)| is_banned(tx, seat.player, || NameHashes::NONE)) {
        faults.0.push(format!(
            "{:?} has a seat in room {room:?}, and is banned",
            seat.name
        ));
    }
    if (connected | ready) & !taken != 0 {
        faults.0.push(format!(
            "room {room:?} has free seats that are connected or ready"
        ));
    }
    let watching: Vec<u64> = recorded
        .places
        .iter()
        .filter(|(_, place)| **place == (room, None))
        .map(|(player, _)| *player)
        .collect();
    faults.compare("spectators", watching.len(), tx.get(&record.spectators) as usize);
    if taken == 0 && watching.is_empty() {
        faults.0.push(format!("room {room:?} is open and empty"));
    }
    for player in watching {
        recorded.places.remove(&player);
        faults.check_cursor(room, recorded.cursors.get(&player), head);
    }
    let reserved = tx.get(&record.reserved);
    if reserved & taken != 0 || reserved >> tx.get(&record.capacity) != 0 {
        faults.0.push(format!(
            "room {room:?} reserves the seats {reserved:b}, and {taken:b} are taken"
        ));
    }
    for seat in seats_in(reserved) {
        let reserved_for = tx.get(&record.reserved_for[usize::from(seat)]);
        if is_banned(tx, reserved_for.player, || NameHashes::NONE)
            || seat_reserved_for(tx, reserved_for.player) != Some(seat)
        {
            faults.0.push(format!(
                "room {room:?} reserves seat {seat} for {:?}, who is banned or has another",
                reserved_for.name
            ));
        }
    }
    let playing = phase_of(tx.get(&record.phase)) == MatchPhase::Playing;
    let (turn_seat, turn_ends_at_ms) = (tx.get(&record.turn_seat), tx.get(&record.turn_ends_at_ms));
    let has_clock = playing && tx.get(&record.turn_seconds) > 0;
    if (turn_seat == turns::NO_TURN) != (turn_ends_at_ms == u64::MAX)
        || turn_seat != turns::NO_TURN && (!has_clock || turn_seat >= tx.get(&record.match_seats))
    {
        faults.0.push(format!(
            "room {room:?} waits for seat {turn_seat} until {turn_ends_at_ms}"
        ));
    }
    let due_us = seats_in(reserved)
        .map(|seat| tx.get(&record.reserved_until_ms[usize::from(seat)]))
        .chain([turn_ends_at_ms])
        .map(|due_ms| due_ms.saturating_mul(1000))
        .chain([tx.get(&record.next_tick_at_us)])
        .min();
    faults.compare(
        "time of the next timer",
        record.due_us(),
        due_us.unwrap_or(u64::MAX),
    );
    if playing && tx.get(&record.match_seats) == 0 {
        faults.0.push(format!("room {room:?} plays without a state"));
    }
    if !playing && tx.get(&record.next_tick_at_us) != u64::MAX {
        faults.0.push(format!("room {room:?} is ticked without a match"));
    }
}

/// Checks that the log's entries lead from its tail to its head, which is published. Returns each entry's audience, and
/// the offset behind it.
fn check_log<const WORDS: usize>(log: &EventLog<WORDS>, head: u64, faults: &mut Faults) -> Vec<(u32, u64)> {
    let (mut cursor, published) = log.window();
    faults.compare("end of a log", published, head);
    let (mut event, mut entries) = ([0; FRAME_TOTAL_BYTES_MAX], Vec::new());
    loop {
        match log.read(cursor, &mut event) {
            Read::Entry { audience, next, .. } => {
                entries.push((audience, next));
                cursor = next;
            }
            Read::End => return entries,
            Read::Lost => {
                faults
                    .0
                    .push(format!("the log cannot be read at {cursor} of {published}"));
                return entries;
            }
        }
    }
}

/// Checks that the lines of the lobby's chat are numbered without a gap, and that each reader has the number of the
/// line it read last.
fn check_chat(state: &mut StateHandle, recorded: &RecordedByPlayers, faults: &mut Faults) {
    let tx = state.attachment.begin(state.memory.chat);
    let log = &tx.record().log;
    let (head, last_number) = (log.head(&tx), log.last_number(&tx));
    let entries = check_log(log, head, faults);
    let mut numbers = BTreeMap::new();
    for ((audience, next), number) in entries.iter().rev().zip((0..=last_number).rev()) {
        faults.compare("number of a line", u64::from(*audience), number);
        numbers.insert(*next, number);
    }
    for (player, place) in &recorded.chat {
        if place.cursor > head || place.line > last_number {
            faults.0.push(format!(
                "player {player:x} has read the chat up to {place:?}, beyond the end {head}, line {last_number}"
            ));
        }
        if let Some(number) = numbers.get(&place.cursor) {
            faults.compare("line that a reader is at", place.line, *number);
        }
    }
}

/// Returns all players that have an identity, attached or not.
pub(crate) fn present_players(state: &mut StateHandle) -> Vec<PlayerRef> {
    let directory = state.memory.directory;
    let tx = state.attachment.begin(directory.record);
    let touched = tx.get(&directory.record.identities_touched);
    (0..touched)
        .filter(|index| tx.get(&directory.identities.at(*index).presence) != Presence::FREE.raw())
        .map(|index| PlayerRef::new(index, tx.get(&directory.identities.at(index).generation)))
        .collect()
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn check_cursor(&mut self, room: RoomRef, cursor: Option<&u64>, head: u64) {
        if cursor.is_some_and(|cursor| *cursor > head && *cursor != CURSOR_LOST) {
            self.0.push(format!(
                "a reader of room {room:?} is at {cursor:?}, beyond the end {head}"
            ));
        }
    }

    fn compare<T: PartialEq + Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.0
                .push(format!("{what}: {found:?} where {expected:?} was derived"));
        }
    }

    /// Follows a linked list, whose links are `index + 1` and 0 at the end. Returns its indices. Longer than `touched`
    /// is a fault.
    fn walk(&mut self, what: &str, first: u32, touched: u32, next_of: impl Fn(u32) -> u32) -> Vec<u32> {
        let mut indices = Vec::new();
        let mut link = first;
        while let Some(index) = link.checked_sub(1) {
            if index >= touched || indices.len() >= touched as usize {
                self.0.push(format!(
                    "{what}: the list leads to {index} after {} links",
                    indices.len()
                ));
                break;
            }
            indices.push(index);
            link = next_of(index);
        }
        indices
    }
}
