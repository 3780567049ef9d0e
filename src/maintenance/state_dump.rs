//! Pictures of the lobby, for proofs that compare what it was before a change and what it is after.
//!
//! A picture is everything that somebody could notice, as text: two states with equal pictures are the same state. Left out is
//! what means nothing: unreferenced bytes, figures, marks of time. Take one at a moment at which nobody changes anything.

use std::collections::{BTreeMap, VecDeque};

use shmem::event_log::{EventLog, Read};
use shmem::sys::memory::SharedBytes;
use shmem::transaction::{Attachment, Record};

use crate::limits::FRAME_TOTAL_BYTES_MAX;
use crate::maintenance::check::present_players;
use crate::session::Session;
use crate::session::transport::ByteCounts;
use crate::state::connections::{ConnectionRecord, Phase};
use crate::state::handle::StateHandle;
use crate::state::layout::PlayerRef;
use crate::state::players::PlayerRecord;
use crate::state::rooms::{RoomLife, occupants, read_state, seats_in};

/// Events that a picture shows of each room, of those that a player has yet to be given. The oldest may go for good before the
/// transaction that needs their place is decided.
const EVENTS_SHOWN: usize = 4;

/// Decides what dead processes have left under any lock, by taking and releasing them all.
pub fn recover_all(lobby: &mut StateHandle) {
    let memory = lobby.memory;
    lobby.attachment.recover(memory.directory.record);
    lobby.attachment.recover(memory.chat);
    for (_, player) in memory
        .players
        .iter()
        .filter(|(_, player)| player.lock().is_prepared())
    {
        lobby.attachment.recover(player);
    }
    for (_, room) in memory.rooms.iter().filter(|(_, room)| room.lock().is_prepared()) {
        lobby.attachment.recover(room);
    }
}

/// The picture of all of it. `passed` is what has passed on each connection, from the first slot on.
pub fn dump_all(lobby: &mut StateHandle, passed: &[ByteCounts]) -> Vec<String> {
    let memory = lobby.memory;
    let mut lines = Vec::new();
    // By the room's index: the offset in its log from which on somebody needs the events.
    let mut needed = BTreeMap::new();
    let mut chat_needed = u64::MAX;
    for player in present_players(lobby) {
        lines.push(identity(lobby, player));
        let record = memory.players.at(player.index());
        lobby.attachment.acquire(record);
        lines.push(of_player(&lobby.attachment, record));
        if let Some((room, _)) = lobby.attachment.read_own(&record.membership).place() {
            let from = needed.entry(room.index()).or_insert(u64::MAX);
            *from = lobby.attachment.read_own(&record.log_cursor).min(*from);
        }
        chat_needed = lobby.attachment.read_own(&record.chat_cursor).min(chat_needed);
        lobby.attachment.release(record);
    }
    lines.extend(of_chat(lobby, chat_needed));
    for index in 0..lobby.rooms_touched() {
        of_room(
            lobby,
            index,
            needed.get(&index).copied().unwrap_or(u64::MAX),
            &mut lines,
        );
    }
    for (index, passed) in (0..).zip(passed) {
        let record = memory.connections.at(index);
        lobby.attachment.acquire(record);
        let player = lobby.attachment.read_own(&record.player);
        let player_record = memory.players.at(player.index());
        // A player who is only asked for is animated by another process.
        let carried = player.is_some() && lobby.attachment.read_own(&record.phase) != Phase::RESUMING.raw();
        if carried {
            lobby.attachment.acquire(player_record);
        }
        lines.push(format!(
            "connection {index} {}",
            of_connection(&lobby.attachment, record, *passed)
        ));
        lines.extend(carried.then(|| pending_input(&lobby.attachment, record, player_record, *passed)));
        lobby.attachment.release(player_record);
        lobby.attachment.release(record);
    }
    lines
}

/// What one session's read_own records show, without any lock: a successor sees this when it has attached.
pub fn dump_session(session: &Session<'_>) -> Vec<String> {
    let attachment = &session.state.attachment;
    let mut lines = vec![of_connection(attachment, session.record, session.byte_counts)];
    if let Some((_, player)) = session.player {
        lines.push(of_player(attachment, player));
        lines.push(pending_input(
            attachment,
            session.record,
            player,
            session.byte_counts,
        ));
    }
    lines
}

fn identity(lobby: &mut StateHandle, player: PlayerRef) -> String {
    let directory = lobby.memory.directory;
    let tx = lobby.attachment.begin(directory.record);
    let identity = directory.identities.at(player.index());
    format!(
        "player {player:?} {:?} presence {} kicked {} connection {:?} claimant {:?} newest {} token {:?} mail {:?}",
        tx.get(&identity.name),
        tx.get(&identity.presence),
        tx.get(&identity.kicked),
        tx.get(&identity.connection),
        tx.get(&identity.claimant),
        tx.get(&identity.newest),
        tx.get(&identity.token_hash),
        lobby.memory.mail_of(&tx, player.index()),
    )
}

fn of_player(attachment: &Attachment, record: &PlayerRecord) -> String {
    let kept = record.kept_output(attachment);
    let published = kept
        .start
        .max(kept.end.saturating_sub(FRAME_TOTAL_BYTES_MAX as u64))..kept.end;
    let mut output =
        vec![0; usize::try_from(published.end.saturating_sub(published.start)).expect("at most a frame")];
    record.output.view(attachment).read(published.start, &mut output);
    let text = (attachment.read_own(&record.is_text) != 0).then(|| {
        (
            attachment.read_own(&record.input_state),
            attachment.read_own(&record.telnet_refused),
            attachment.read_own(&record.telnet_answered),
        )
    });
    // When it was is another matter each time.
    let paid = [&record.chat_paid_until_us, &record.requests_paid_until_us]
        .map(|until_us| attachment.read_own(until_us) != 0);
    format!(
        "  {:?} membership {:?} cursor {} chat {} line {} paid {paid:?} consumed {} text {text:?} output up to {}: {output:?}",
        attachment.read_own(&record.name),
        attachment.read_own(&record.membership),
        attachment.read_own(&record.log_cursor),
        attachment.read_own(&record.chat_cursor),
        attachment.read_own(&record.chat_line),
        attachment.read_own(&record.consumed),
        published.end,
    )
}

fn of_connection(attachment: &Attachment, record: &ConnectionRecord, passed: ByteCounts) -> String {
    format!(
        "occupant {} phase {} leaves {} handshake {} player {:?} bases {} {} end {} passed {passed:?} greeting {:?} farewell {:?}",
        attachment.read_own(&record.occupant),
        attachment.read_own(&record.phase),
        attachment.read_own(&record.leaves),
        attachment.read_own(&record.handshake_bytes),
        attachment.read_own(&record.player),
        attachment.read_own(&record.input_base),
        attachment.read_own(&record.output_base),
        attachment.read_own(&record.stream_end),
        beginning_of(
            &record.handshake_reply,
            attachment.read_own(&record.handshake_reply_bytes)
        ),
        beginning_of(
            &record.close_message,
            attachment.read_own(&record.close_message_bytes)
        ),
    )
}

/// What the client has sent and nobody has handled yet.
fn pending_input(
    attachment: &Attachment,
    record: &ConnectionRecord,
    player: &PlayerRecord,
    passed: ByteCounts,
) -> String {
    let handshake = u64::from(attachment.read_own(&record.handshake_bytes));
    let received = attachment.read_own(&record.input_base) + passed.received.saturating_sub(handshake);
    let consumed = attachment.read_own(&player.consumed);
    let mut input = vec![0; usize::try_from(received.saturating_sub(consumed)).expect("at most a ring")];
    player.input.view(attachment).read(consumed, &mut input);
    format!("  input up to {received}: {input:?}")
}

fn beginning_of<const WORDS: usize>(bytes: &SharedBytes<WORDS>, length: u32) -> Vec<u8> {
    let mut beginning = vec![0; length as usize];
    bytes.copy_out(0, &mut beginning);
    beginning
}

fn of_room(lobby: &mut StateHandle, index: u32, needed_from: u64, lines: &mut Vec<String>) {
    let memory = lobby.memory;
    let entry = memory.directory.rooms.at(index);
    let tx = lobby.attachment.begin(memory.directory.record);
    let given = (
        tx.get(&entry.given),
        tx.get(&entry.generation),
        tx.get(&entry.opener),
    );
    drop(tx);
    let record = memory.rooms.at(index);
    let tx = lobby.attachment.begin(record);
    let life = RoomLife::from_raw(tx.get(&record.life));
    let generation = tx.get(&record.generation);
    lines.push(format!(
        "room {index} given {given:?} {life:?} generation {generation} seen {:?} log up to {} number {}",
        record.open_generation(),
        record.log.head(&tx),
        record.log.next_number(&tx),
    ));
    if life != RoomLife::OPEN {
        // Nobody is there who could read the log of a closed room.
        return;
    }
    lines.push(format!(
        "  phase {} game {} capacity {} owner {} flags {} turn {} bans {:?} spectators {} connected {:b} ready {:b} name {:?} passcode {:?} options {:?} state of {} {:?} tick {} turn of {}",
        tx.get(&record.phase),
        tx.get(&record.game),
        tx.get(&record.capacity),
        tx.get(&record.owner),
        tx.get(&record.flags),
        tx.get(&record.turn_seconds),
        tx.get(&record.bans),
        tx.get(&record.spectators),
        tx.get(&record.connected),
        tx.get(&record.ready),
        tx.get(&record.name),
        tx.get(&record.passcode),
        tx.get(&record.options).as_slice(),
        tx.get(&record.match_seats),
        read_state(&tx),
        tx.get(&record.next_tick_at_ms) != u64::MAX,
        tx.get(&record.turn_seat),
    ));
    lines.extend(seats_in(tx.get(&record.reserved)).map(|number| {
        let reserved_for = tx.get(&record.reserved_for[usize::from(number)]);
        format!("  seat {number} is kept for {reserved_for:?}")
    }));
    lines.extend(occupants(&tx).map(|(number, seat)| format!("  seat {number} {seat:?}")));
    drop(tx);
    lines.extend(of_log(&record.log, needed_from));
}

/// What was said to the lobby.
fn of_chat(lobby: &mut StateHandle, needed_from: u64) -> Vec<String> {
    let tx = lobby.attachment.begin(lobby.memory.chat);
    let log = &tx.record().log;
    let mut lines = vec![format!(
        "chat up to {} line {}",
        log.head(&tx),
        log.last_number(&tx)
    )];
    lines.extend(of_log(log, needed_from));
    lines
}

/// The last of the events that somebody has yet to be given.
fn of_log<const WORDS: usize>(log: &EventLog<WORDS>, needed_from: u64) -> Vec<String> {
    let (mut cursor, _) = log.window();
    let mut event = [0; FRAME_TOTAL_BYTES_MAX];
    let mut events = VecDeque::new();
    while let Read::Entry {
        audience,
        length,
        next,
    } = log.read(cursor, &mut event)
    {
        if cursor >= needed_from {
            events.push_back((cursor, audience, event[..length].to_vec()));
            if events.len() > EVENTS_SHOWN {
                events.pop_front();
            }
        }
        cursor = next;
    }
    let show = |(cursor, audience, event)| format!("  event at {cursor} for {audience}: {event:?}");
    events.into_iter().map(show).collect()
}
