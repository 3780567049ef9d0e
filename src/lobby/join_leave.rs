//! Coming into rooms and leaving them. Who gets the last seat is decided by the room's lock.

use forkade_games::{Games, Start};
use forkade_protocol::{Phase as MatchPhase, RejectCode, RoomEvent, RoomId, RoomSettings, ServerMessage};
use shmem::transaction::Record;

use crate::limits::REMOVAL_TEXT_BYTES;
use crate::lobby::delivery::Events;
use crate::lobby::invites::random_secret;
use crate::lobby::match_play::{self, GameCalls};
use crate::lobby::ownership::{self, elect_owner, is_banned};
use crate::lobby::reservations::{claim_reservation, seat_reserved_for};
use crate::lobby::room_view::snapshot;
use crate::lobby::settings::{self, CheckedSettings, allows_spectators};
use crate::lobby::turns::{self, start_turn_clock};
use crate::session::rejection::Rejection;
use crate::session::{CURSOR_LOST, PlayerTx, Session};
use crate::state::handle::StateHandle;
use crate::state::layout::{PlayerRef, RoomRef};
use crate::state::players::Membership;
use crate::state::rooms::{
    RoomLife, RoomName, RoomTx, Seat, game_of, is_member, is_open, phase_of, raw_phase, write_state,
};

/// What a room is to be like.
#[derive(Debug, Clone)]
pub struct NewRoom<'a> {
    /// Name of the game.
    pub game: &'a str,
    /// Name of the room, validated.
    pub name: &'a str,
    /// What its owner chooses.
    pub settings: &'a RoomSettings,
}

/// What a client is told whose seat was taken from it.
const REMOVED: &str = "the room's owner has taken your seat";
const _: () = assert!(REMOVED.len() <= REMOVAL_TEXT_BYTES);

/// What a transaction on the room that the player is in can use.
pub(crate) struct RoomContext<'l> {
    pub(crate) player_tx: PlayerTx,
    pub(crate) player: PlayerRef,
    pub(crate) room: RoomRef,
    /// `None`: watching.
    pub(crate) seat: Option<u8>,
    pub(crate) calls: GameCalls<'l>,
}

impl RoomContext<'_> {
    /// The player's seat.
    ///
    /// # Errors
    ///
    /// For who only watches.
    pub(crate) fn ensure_seat(&self) -> Result<u8, Rejection> {
        self.seat
            .ok_or_else(|| Rejection::new(RejectCode::Spectating, "you are only watching"))
    }
}

/// How a seat became free.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveReason {
    /// Its player has left, or its grace is over.
    Left,
    /// The room's owner has taken it.
    Kicked,
}

/// Opens a room and takes its first seat.
///
/// # Errors
///
/// The game unknown, its options or the number of seats not to its liking, no room record free, already in a room, or a server that
/// is about to stop.
pub fn create_room(session: &mut Session<'_>, request: u32, new_room: &NewRoom<'_>) -> Result<(), Rejection> {
    let Some((player, player_tx)) = session.player().zip(session.player_tx()) else {
        return Ok(());
    };
    ensure_in_lobby(session)?;
    let (memory, games) = (session.state.memory, session.state.games);
    match_play::ensure_not_draining(memory.header)?;
    let (game_index, game) = games.find(new_room.game).ok_or_else(|| {
        Rejection::new(
            RejectCode::UnknownGame,
            format!("no game is called \"{}\"", new_room.game.escape_debug()),
        )
    })?;
    let name = RoomName::new(new_room.name)
        .ok_or_else(|| Rejection::new(RejectCode::RoomNameInvalid, "the room's name is too long"))?;
    // The game says now, before anything is changed, whether it likes options and seats.
    let (settings, first) = CheckedSettings::check(game, new_room.settings)?;

    let invite_secret = random_secret()?;

    let room = allocate_room(session, player)?;
    let clean_player_name = session.name();
    let mut tx = session.state.attachment.begin(memory.rooms.at(room.index()));
    let record = tx.record();
    tx.set(&record.generation, room.generation());
    tx.set(&record.life, RoomLife::OPEN.raw());
    tx.set(&record.game, u32::from(game_index));
    settings.enter(&mut tx);
    tx.set(&record.owner, 0);
    tx.set(&record.bans, ownership::NO_BANS);
    tx.set(&record.invite_secret, invite_secret);
    tx.set(&record.reserved, 0);
    tx.set(&record.turn_seat, turns::NO_TURN);
    tx.set(&record.turn_ends_at_ms, u64::MAX);
    tx.set(&record.spectators, 0);
    tx.set(&record.taken, 1);
    tx.set(&record.connected, 1);
    tx.set(&record.ready, 0);
    tx.set(&record.match_seats, 0);
    tx.set(&record.next_tick_at_ms, u64::MAX);
    tx.set(&record.name, name);
    tx.set(&record.seats[0], Seat::of(player, clean_player_name));
    record.log.reset(&mut tx);
    record.reset_subscribers();
    if game.start_rule() == Start::AtOnce {
        let seats = tx.get(&record.capacity);
        write_state(&mut tx, &first.state, seats);
        tx.set(&record.phase, raw_phase(MatchPhase::Playing));
        match_play::schedule_first_tick(&mut tx, game.ticks_per_second());
        start_turn_clock(&mut tx, first.step.to_move);
        if let Some(outcome) = first.step.outcome {
            match_play::finish(&mut tx, outcome)?;
        }
    } else {
        tx.set(&record.phase, raw_phase(MatchPhase::Waiting));
    }
    tx.set(&player_tx.player.membership, Membership::in_room(room, Some(0)));
    tx.set(&player_tx.player.log_cursor, record.log.head(&tx));
    let snapshot = snapshot(&tx, room, games, Some(0), &mut session.state.faults);
    player_tx.reply(&mut tx, &ServerMessage::Joined { request, snapshot });
    player_tx.consume(&mut tx);
    tx.commit()?;
    Ok(())
}

/// Takes a seat in a room, or with `watch` a place to look on.
///
/// # Errors
///
/// No such room, no seat free, the match under way, a wrong passcode, sent out before, nobody to watch, or already in a room.
pub fn join_room(
    session: &mut Session<'_>,
    request: u32,
    room: RoomId,
    passcode: Option<&str>,
    watch: bool,
) -> Result<(), Rejection> {
    let passcode = settings::check_passcode_length(passcode)?;
    join(
        session,
        request,
        Some(RoomRef::from_id(room.0)),
        watch,
        |tx, _, is_expected| {
            if is_expected || tx.get(&tx.record().passcode).admits(passcode) {
                return Ok(());
            }
            let text = if passcode.is_some() {
                "wrong passcode"
            } else {
                "this room asks for a passcode"
            };
            Err(Rejection::new(RejectCode::WrongPasscode, text))
        },
    )
}

/// Takes a seat in a room, or a place to look on, unless `admit` refuses, which is told whether a seat is kept for the player.
pub(crate) fn join(
    session: &mut Session<'_>,
    request: u32,
    room: Option<RoomRef>,
    watch: bool,
    admit: impl FnOnce(&RoomTx<'_>, RoomRef, bool) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let Some((player, player_tx)) = session.player().zip(session.player_tx()) else {
        return Ok(());
    };
    ensure_in_lobby(session)?;
    abandon_opening(session)?;
    let (games, name) = (session.state.games, session.name());
    let not_found = || Rejection::new(RejectCode::RoomNotFound, "there is no such room (any more)");
    let room = room.ok_or_else(not_found)?;
    let record = session
        .state
        .memory
        .rooms
        .get(room.index())
        .ok_or_else(not_found)?;
    // A record that was never opened has no lock to take.
    record.open_generation().ok_or_else(not_found)?;

    let mut tx = session.state.attachment.begin(record);
    if !is_open(&tx, room) {
        return Err(not_found());
    }
    let kept = seat_reserved_for(&tx, player).filter(|_| !watch);
    admit(&tx, room, kept.is_some())?;
    if is_banned(&tx, player) {
        let text = "the owner of this room has sent you out";
        return Err(Rejection::new(RejectCode::Banned, text));
    }
    if watch && !allows_spectators(&tx) {
        let text = "nobody may watch this room";
        return Err(Rejection::new(RejectCode::NoSpectators, text));
    }
    let seat = match kept {
        Some(seat) => Some(seat),
        None if watch => None,
        None => Some(first_free_seat(&tx, games)?),
    };
    let mut events = Events::begin(&mut tx);
    if let Some(number) = seat {
        claim_reservation(&mut tx, number);
        tx.set(&record.seats[usize::from(number)], Seat::of(player, name));
        tx.set(&record.taken, tx.get(&record.taken) | 1 << number);
        tx.set(&record.connected, tx.get(&record.connected) | 1 << number);
        tx.set(&record.ready, tx.get(&record.ready) & !(1 << number));
        events.push_to_all(
            &mut tx,
            RoomEvent::Joined {
                seat: number,
                name: name.as_str().to_owned(),
            },
        )?;
    } else {
        tx.set(&record.spectators, tx.get(&record.spectators).saturating_add(1));
    }
    events.finish(&mut tx);
    elect_owner(&mut tx)?;
    tx.set(&player_tx.player.membership, Membership::in_room(room, seat));
    tx.set(&player_tx.player.log_cursor, record.log.head(&tx));
    let snapshot = snapshot(&tx, room, games, seat, &mut session.state.faults);
    player_tx.reply(&mut tx, &ServerMessage::Joined { request, snapshot });
    player_tx.consume(&mut tx);
    tx.commit()?;
    session.doorbells.push(room.index());
    Ok(())
}

/// Leaves the room.
///
/// # Errors
///
/// If the player is in none.
pub fn leave_room(session: &mut Session<'_>, request: u32) -> Result<(), Rejection> {
    let left = change_room(session, |tx, context| {
        let RoomContext { player_tx, room, .. } = *context;
        remove_member(tx, &mut context.calls, room, context.player, context.seat)?;
        tx.set(&player_tx.player.membership, Membership::LOBBY);
        tx.set(&player_tx.player.log_cursor, 0);
        player_tx.reply(tx, &ServerMessage::Left { request });
        Ok((tx.get(&tx.record().life) == RoomLife::CLOSING.raw()).then_some(room))
    })?;
    if let Some(closing) = left {
        free_room(session.state, closing);
    }
    Ok(())
}

/// Does something about the room that the player is in, in one transaction that consumes the frame. The others are to be told.
///
/// # Errors
///
/// If the player is in none (any more), or what `change` says.
pub(crate) fn change_room<R>(
    session: &mut Session<'_>,
    change: impl FnOnce(&mut RoomTx<'_>, &mut RoomContext<'_>) -> Result<R, Rejection>,
) -> Result<R, Rejection> {
    let (room, _) = current_room(session)?;
    let result = with_room(session, |mut tx, context| {
        let result = change(&mut tx, context)?;
        context.player_tx.consume(&mut tx);
        tx.commit()?;
        Ok(result)
    })?;
    session.doorbells.push(room.index());
    Ok(result)
}

/// Opens a transaction on the room that the player is in, for sure.
///
/// # Errors
///
/// If the player is in none (any more), or what `look` says.
pub(crate) fn with_room<R>(
    session: &mut Session<'_>,
    look: impl FnOnce(RoomTx<'_>, &mut RoomContext<'_>) -> Result<R, Rejection>,
) -> Result<R, Rejection> {
    let (room, seat) = current_room(session)?;
    let (player, player_tx) = session
        .player()
        .zip(session.player_tx())
        .ok_or_else(not_in_room)?;
    let state = &mut session.state;
    let tx = state.attachment.begin(state.memory.rooms.at(room.index()));
    if !is_member(&tx, room, player, seat) {
        drop(tx);
        apply_kick(session)?;
        return Err(not_in_room());
    }
    let mut context = RoomContext {
        player_tx,
        player,
        room,
        seat,
        calls: GameCalls {
            games: state.games,
            outbox: &mut state.outbox,
            faults: &mut state.faults,
        },
    };
    look(tx, &mut context)
}

/// The room that the player is in, and the seat unless watching. The seat may have been lost meanwhile.
///
/// # Errors
///
/// If the player is in none.
pub(crate) fn current_room(session: &Session<'_>) -> Result<(RoomRef, Option<u8>), Rejection> {
    session.membership().place().ok_or_else(not_in_room)
}

pub(crate) fn ensure_in_lobby(session: &mut Session<'_>) -> Result<(), Rejection> {
    let is_in_room = || Rejection::new(RejectCode::AlreadyInRoom, "leave the room you are in first");
    if session.membership().place().is_none() {
        return Ok(());
    }
    match with_room(session, |_, _| Ok(())) {
        Ok(()) => Err(is_in_room()),
        // The seat was lost, and the player was told.
        Err(Rejection {
            code: RejectCode::NotInRoom,
            ..
        }) => Ok(()),
        Err(other) => Err(other),
    }
}

/// The player's seat was taken from it: puts right where the player is, and tells the client.
///
/// # Errors
///
/// A transaction that does not fit, which is a mistake of this program's.
pub(crate) fn apply_kick(session: &mut Session<'_>) -> Result<(), Rejection> {
    let Some((player_tx, (room, _))) = session.player_tx().zip(session.membership().place()) else {
        return Ok(());
    };
    let mut tx = session.state.attachment.begin(player_tx.player);
    tx.set(&player_tx.player.membership, Membership::LOBBY);
    // Who lost bytes is still owed the word that there is no room.
    if tx.get(&player_tx.player.log_cursor) != CURSOR_LOST {
        tx.set(&player_tx.player.log_cursor, 0);
    }
    let removed = ServerMessage::Removed {
        room: RoomId(room.to_id()),
        text: REMOVED.to_owned(),
    };
    player_tx.reply(&mut tx, &removed);
    Ok(tx.commit()?)
}

/// Gives back the room record that a predecessor was given and did not open: the player goes elsewhere, or the record would be
/// nobody's for ever.
fn abandon_opening(session: &mut Session<'_>) -> Result<(), Rejection> {
    let Some((player_tx, room)) = session.player_tx().zip(session.membership().being_opened()) else {
        return Ok(());
    };
    let directory = session.state.memory.directory;
    let mut tx = session.state.attachment.begin(directory.record);
    directory.free_room(&mut tx, room.index(), room.generation());
    tx.set(&player_tx.player.membership, Membership::LOBBY);
    Ok(tx.commit()?)
}

/// A room record for this player to open. If a predecessor died between taking and opening, it is the same one.
fn allocate_room(session: &mut Session<'_>, player: PlayerRef) -> Result<RoomRef, Rejection> {
    if let Some(room) = session.membership().being_opened() {
        return Ok(room);
    }
    let (memory, player_tx) = (session.state.memory, session.player_tx());
    let mut tx = session.state.attachment.begin(memory.directory.record);
    let (index, generation) = memory
        .directory
        .add_room(&mut tx, player)
        .ok_or_else(|| Rejection::new(RejectCode::RoomsFull, "the server has no room left for rooms"))?;
    memory.rooms.at(index).lock().prepare();
    let room = RoomRef::new(index, generation);
    if let Some(player_tx) = player_tx {
        tx.set(&player_tx.player.membership, Membership::opening(room));
    }
    tx.commit()?;
    Ok(room)
}

/// Takes back the record of a room that has closed, if nobody has done so yet.
pub(crate) fn free_room(state: &mut StateHandle, room: RoomRef) {
    let directory = state.memory.directory;
    let mut tx = state.attachment.begin(directory.record);
    directory.free_room(&mut tx, room.index(), room.generation());
    tx.commit().expect("taking a room back fits the journal");
}

/// Frees a player's seat or place. In a match that is being played, the game decides what it means. The last one closes the room.
pub(crate) fn remove_member(
    tx: &mut RoomTx<'_>,
    calls: &mut GameCalls<'_>,
    room: RoomRef,
    player: PlayerRef,
    seat: Option<u8>,
) -> Result<(), Rejection> {
    let record = tx.record();
    if !is_open(tx, room) {
        return Ok(());
    }
    if let Some(number) = seat {
        if tx.get(&record.seats[usize::from(number)]).player != player {
            return Ok(());
        }
        free_seat(tx, calls, number, LeaveReason::Left)?;
    } else {
        tx.set(&record.spectators, tx.get(&record.spectators).saturating_sub(1));
    }
    if tx.get(&record.taken) == 0 && tx.get(&record.spectators) == 0 {
        tx.set(&record.life, RoomLife::CLOSING.raw());
    }
    Ok(())
}

/// Frees a taken seat for good.
pub(crate) fn free_seat(
    tx: &mut RoomTx<'_>,
    calls: &mut GameCalls<'_>,
    number: u8,
    how: LeaveReason,
) -> Result<(), Rejection> {
    let record = tx.record();
    // The name stays, for those who are yet to be told that its bearer has left.
    let cell = &record.seats[usize::from(number)];
    tx.set(cell, Seat::of(PlayerRef::NONE, tx.get(cell).name));
    tx.set(&record.taken, tx.get(&record.taken) & !(1 << number));
    tx.set(&record.connected, tx.get(&record.connected) & !(1 << number));
    tx.set(&record.ready, tx.get(&record.ready) & !(1 << number));
    let mut events = Events::begin(tx);
    match how {
        LeaveReason::Left => events.push_to_all(tx, RoomEvent::Left { seat: number })?,
        LeaveReason::Kicked => events.push_kick(tx, number)?,
    }
    events.finish(tx);
    elect_owner(tx)?;
    if phase_of(tx.get(&record.phase)) == MatchPhase::Playing {
        match_play::player_left(tx, calls, number)?;
    }
    Ok(())
}

fn not_in_room() -> Rejection {
    Rejection::new(RejectCode::NotInRoom, "you are in no room")
}

/// The seat that anybody who comes now would get.
///
/// # Errors
///
/// None is free, or the match is under way.
pub(crate) fn first_free_seat(tx: &RoomTx<'_>, games: &Games) -> Result<u8, Rejection> {
    let record = tx.record();
    let playing = phase_of(tx.get(&record.phase)) == MatchPhase::Playing;
    if playing && game_of(tx, games).start_rule() == Start::WhenSeatsReady {
        return Err(Rejection::new(
            RejectCode::AlreadyStarted,
            "the match has begun; you may watch it",
        ));
    }
    let occupied = tx.get(&record.taken) | tx.get(&record.reserved);
    u8::try_from(occupied.trailing_ones())
        .ok()
        .filter(|seat| u32::from(*seat) < tx.get(&record.capacity))
        .ok_or_else(|| Rejection::new(RejectCode::RoomFull, "all seats are taken or kept for somebody"))
}

/// A seed for a match, from the kernel: forked processes would draw the same from a generator of their own.
pub(crate) fn random_seed() -> Result<u64, Rejection> {
    getrandom::u64().map_err(|error| {
        Rejection::new(
            RejectCode::GameFailed,
            format!("the kernel gave no random seed: {error}"),
        )
    })
}
