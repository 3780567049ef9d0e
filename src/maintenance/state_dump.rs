//! Dumps of shared state as text, for proofs that compare the state before and after a change.
//!
//! A dump holds everything that can be observed: two states with equal dumps are the same state. Unreferenced bytes,
//! counters and timestamps are left out. Only [`recover_all`] changes anything. A dump needs a mapping that no other
//! process changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shmem::event_log::{EventLog, Read};
use shmem::sys::memory::SharedBytes;
use shmem::transaction::{Attachment, Record};

use crate::limits::FRAME_TOTAL_BYTES_MAX;
use crate::lobby::ownership::bans;
use crate::maintenance::check::present_players;
use crate::session::Session;
use crate::session::transport::ByteCounts;
use crate::state::connections::{ConnectionRecord, Phase};
use crate::state::handle::StateHandle;
use crate::state::layout::{Memory, PlayerRef};
use crate::state::players::PlayerRecord;
use crate::state::room_label::room_number;
use crate::state::rooms::{RoomLife, occupants, read_state, seats_in};

/// The number of undelivered events that a dump shows of each log, the latest ones. Older ones may be overwritten
/// before the transaction that needs their space is decided.
const EVENTS_SHOWN: usize = 4;

/// Recovers what dead processes have left under any lock, by taking and releasing each.
pub fn recover_all(state: &mut StateHandle) {
    let memory = state.memory;
    state.attachment.recover(memory.directory.record);
    state.attachment.recover(memory.chat);
    for (_, player) in memory
        .players
        .iter()
        .filter(|(_, player)| player.lock().is_prepared())
    {
        state.attachment.recover(player);
    }
    for (_, room) in memory.rooms.iter().filter(|(_, room)| room.lock().is_prepared()) {
        state.attachment.recover(room);
    }
}

/// Dumps everything. `byte_counts` holds the bytes passed on each connection, from the first slot on.
pub fn dump_all(state: &mut StateHandle, byte_counts: &[ByteCounts]) -> Vec<String> {
    let memory = state.memory;
    let mut lines = Vec::new();
    // By the room's index: the lowest cursor of its members in its log.
    let mut needed = BTreeMap::new();
    let mut chat_needed = u64::MAX;
    for player in present_players(state) {
        lines.push(dump_identity(state, player));
        let record = memory.players.at(player.index());
        state.attachment.acquire(record);
        lines.push(dump_player(&state.attachment, record));
        if let Some((room, _)) = state.attachment.read_own(&record.membership).place() {
            let from = needed.entry(room.index()).or_insert(u64::MAX);
            *from = state.attachment.read_own(&record.log_cursor).min(*from);
        }
        chat_needed = state.attachment.read_own(&record.chat_cursor).min(chat_needed);
        state.attachment.release(record);
    }
    lines.push(dump_remembered_accounts(state));
    lines.push(dump_sanctions(state));
    lines.push(dump_sources(state.memory));
    lines.extend(dump_chat(state, chat_needed));
    for index in 0..state.rooms_touched() {
        dump_room(
            state,
            index,
            needed.get(&index).copied().unwrap_or(u64::MAX),
            &mut lines,
        );
    }
    for (index, byte_counts) in (0..).zip(byte_counts) {
        let record = memory.connections.at(index);
        state.attachment.acquire(record);
        let player = state.attachment.read_own(&record.player);
        let player_record = memory.players.at(player.index());
        // A connection that is still resuming does not own the player's record.
        let carried = player.is_some() && state.attachment.read_own(&record.phase) != Phase::RESUMING.raw();
        if carried {
            state.attachment.acquire(player_record);
        }
        lines.push(format!(
            "connection {index} {}",
            dump_connection(&state.attachment, record, *byte_counts)
        ));
        lines.extend(carried.then(|| dump_input(&state.attachment, record, player_record, *byte_counts)));
        state.attachment.release(player_record);
        state.attachment.release(record);
    }
    lines
}

/// Dumps the records that one session owns, without any lock: what the next handler sees after it has attached.
pub fn dump_session(session: &Session<'_>) -> Vec<String> {
    let attachment = &session.state.attachment;
    let mut lines = vec![dump_connection(attachment, session.record, session.byte_counts)];
    if let Some((_, player)) = session.player {
        lines.push(dump_player(attachment, player));
        lines.push(dump_input(
            attachment,
            session.record,
            player,
            session.byte_counts,
        ));
    }
    lines
}

fn dump_identity(state: &mut StateHandle, player: PlayerRef) -> String {
    let directory = state.memory.directory;
    let tx = state.attachment.begin(directory.record);
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
        state.memory.mail_of(&tx, player.index()),
    )
}

fn dump_remembered_accounts(state: &mut StateHandle) -> String {
    let directory = state.memory.directory;
    let tx = state.attachment.begin(directory.record);
    let remembered = directory.all_remembered_accounts(&tx);
    // As for players, the times differ in each run.
    let settled = remembered
        .into_iter()
        .map(|(name_hash, paid)| (name_hash, paid.map(|until_us| until_us != 0)));
    format!("remembered accounts {:?}", settled.collect::<Vec<_>>())
}

fn dump_sanctions(state: &mut StateHandle) -> String {
    let directory = state.memory.directory;
    let tx = state.attachment.begin(directory.record);
    let places = 0..tx.get(&directory.record.sanctions_touched);
    // The times differ in each run.
    let sanctions = places
        .map(|index| directory.sanction(&tx, index, 0))
        .map(|found| found.map(|sanction| (sanction.kind, sanction.name)));
    let mutes_end_ms = tx.get(&directory.record.mutes_end_ms);
    format!(
        "sanctions {:?} mutes {}",
        sanctions.collect::<Vec<_>>(),
        mutes_end_ms != 0
    )
}

fn dump_sources(memory: &Memory) -> String {
    // The times differ in each run, and so does the order of the places.
    let banned: BTreeSet<_> = memory.sources.bans().map(|(key, _)| key).collect();
    let penalised: BTreeSet<_> = memory.sources.penalties().map(|(key, _)| key).collect();
    format!("addresses banned {banned:?} penalised {penalised:?}")
}

fn dump_player(attachment: &Attachment, record: &PlayerRecord) -> String {
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
    let ignored: Vec<_> = record
        .ignored_names(attachment)
        .map(|ignored| attachment.read_own(&ignored.name))
        .collect();
    // Whether a charge is outstanding; the time differs in each run.
    let paid = record
        .paid_until_us
        .each_ref()
        .map(|until_us| attachment.read_own(until_us) != 0);
    // Without the time at which it was looked at.
    let drawing = attachment.read_own(&record.last_drawing);
    let drawing = (drawing.hash, drawing.output_head, drawing.rows, drawing.is_owed);
    format!(
        "  {:?} membership {:?} cursor {} chat {} line {} paid {paid:?} ignores {ignored:?} consumed {} text {text:?} drawn {drawing:?} output up to {}: {output:?}",
        attachment.read_own(&record.name),
        attachment.read_own(&record.membership),
        attachment.read_own(&record.log_cursor),
        attachment.read_own(&record.chat_cursor),
        attachment.read_own(&record.chat_line),
        attachment.read_own(&record.consumed),
        published.end,
    )
}

fn dump_connection(attachment: &Attachment, record: &ConnectionRecord, byte_counts: ByteCounts) -> String {
    let proxy_header_bytes = attachment.read_own(&record.proxy_header_bytes);
    format!(
        "occupant {} phase {} leaves {} proxy header {} of {:?} handshake {} player {:?} bases {} {} end {} passed {byte_counts:?} greeting {:?} farewell {:?}",
        attachment.read_own(&record.occupant),
        attachment.read_own(&record.phase),
        attachment.read_own(&record.leaves),
        proxy_header_bytes,
        // Until the header is read, the address may be half entered.
        (proxy_header_bytes != 0).then(|| record.peer()),
        attachment.read_own(&record.handshake_bytes),
        attachment.read_own(&record.player),
        attachment.read_own(&record.input_base),
        attachment.read_own(&record.output_base),
        attachment.read_own(&record.stream_end),
        prefix_of(
            &record.handshake_reply,
            attachment.read_own(&record.handshake_reply_bytes)
        ),
        prefix_of(
            &record.close_message,
            attachment.read_own(&record.close_message_bytes)
        ),
    )
}

/// Dumps the input that was received and not handled yet.
fn dump_input(
    attachment: &Attachment,
    record: &ConnectionRecord,
    player: &PlayerRecord,
    byte_counts: ByteCounts,
) -> String {
    let handshake = u64::from(attachment.read_own(&record.handshake_bytes));
    let received = attachment.read_own(&record.input_base) + byte_counts.received.saturating_sub(handshake);
    let consumed = attachment.read_own(&player.consumed);
    let mut input = vec![0; usize::try_from(received.saturating_sub(consumed)).expect("at most a ring")];
    player.input.view(attachment).read(consumed, &mut input);
    format!("  input up to {received}: {input:?}")
}

fn prefix_of<const WORDS: usize>(bytes: &SharedBytes<WORDS>, length: u32) -> Vec<u8> {
    let mut prefix = vec![0; length as usize];
    bytes.copy_out(0, &mut prefix);
    prefix
}

fn dump_room(state: &mut StateHandle, index: u32, needed_from: u64, lines: &mut Vec<String>) {
    let memory = state.memory;
    let entry = memory.directory.rooms.at(index);
    let tx = state.attachment.begin(memory.directory.record);
    let given = (
        tx.get(&entry.in_use),
        tx.get(&entry.generation),
        tx.get(&entry.opener),
    );
    drop(tx);
    let record = memory.rooms.at(index);
    let tx = state.attachment.begin(record);
    let life = RoomLife::from_raw(tx.get(&record.life));
    let generation = tx.get(&record.generation);
    lines.push(format!(
        "room {} given {given:?} {life:?} generation {generation} seen {:?} log up to {} number {}",
        room_number(index),
        record.open_generation(),
        record.log.head(&tx),
        record.log.next_number(&tx),
    ));
    if life != RoomLife::OPEN {
        // No player can read the log of a closed room.
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
        // The hashes and times differ in each run.
        bans(&tx).map(|place| tx.get(place).player).collect::<Vec<_>>(),
        tx.get(&record.spectators),
        tx.get(&record.connected),
        tx.get(&record.ready),
        tx.get(&record.name),
        tx.get(&record.passcode),
        tx.get(&record.options).as_slice(),
        tx.get(&record.match_seats),
        read_state(&tx),
        tx.get(&record.next_tick_at_us) != u64::MAX,
        tx.get(&record.turn_seat),
    ));
    lines.extend(seats_in(tx.get(&record.reserved)).map(|number| {
        let reserved_for = tx.get(&record.reserved_for[usize::from(number)]);
        format!("  seat {number} is reserved for {reserved_for:?}")
    }));
    lines.extend(occupants(&tx).map(|(number, seat)| format!("  seat {number} {seat:?}")));
    drop(tx);
    lines.extend(dump_log(&record.log, needed_from));
}

/// Dumps the lobby's chat.
fn dump_chat(state: &mut StateHandle, needed_from: u64) -> Vec<String> {
    let tx = state.attachment.begin(state.memory.chat);
    let log = &tx.record().log;
    let mut lines = vec![format!(
        "chat up to {} line {}",
        log.head(&tx),
        log.last_number(&tx)
    )];
    lines.extend(dump_log(log, needed_from));
    lines
}

/// Dumps the latest events at or behind `needed_from`.
fn dump_log<const WORDS: usize>(log: &EventLog<WORDS>, needed_from: u64) -> Vec<String> {
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
