//! Create, join, spectate and leave a room.
//!
//! The lock of the room decides which of two players gets the last seat: [`join`] looks for a free seat and takes it in
//! the same transaction, which also writes the player's membership, the reply, and that the frame is consumed. After a
//! crash the player is in the room and has the reply, or neither.
//!
//! Creating takes two transactions: one under the lobby's lock allocates a room record and notes it in the player's
//! membership ([`Membership::opening`]), one under the room's lock opens it. The handler that takes over between them
//! opens the same record, or frees it if the player does something else. Leaving an otherwise empty room marks it as
//! [`RoomLife::CLOSING`]; its record is freed in a second transaction, by the leaving player's process or else by the
//! ticker.

use std::time::Duration;

use forkade_games::{Games, Start};
use forkade_protocol::{Phase as MatchPhase, RejectCode, RoomEvent, RoomId, RoomSettings, ServerMessage};
use shmem::transaction::Record;

use crate::limits::REMOVAL_TEXT_BYTES;
use crate::lobby::delivery::Events;
use crate::lobby::fanout::{self, Cause, Payer};
use crate::lobby::guesses::Guesser;
use crate::lobby::invites::random_secret;
use crate::lobby::match_play::{self, GameCalls};
use crate::lobby::news::Before;
use crate::lobby::ownership::{elect_owner, is_banned};
use crate::lobby::reservations::{claim_reservation, seat_reserved_for};
use crate::lobby::room_view::snapshot;
use crate::lobby::settings::{self, CheckedSettings, allows_spectators};
use crate::lobby::turns::{self, start_turn_clock};
use crate::session::rejection::Rejection;
use crate::session::{CURSOR_LOST, PlayerTx, Session};
use crate::state::connections::ConnectionRecord;
use crate::state::handle::StateHandle;
use crate::state::layout::{PlayerRef, RoomRef};
use crate::state::players::Membership;
use crate::state::room_label::RoomLabel;
use crate::state::rooms::{
    RoomLife, RoomName, RoomTx, Seat, game_of, is_member, is_open, phase_of, raw_phase, write_state,
};
use crate::state::shown_game::ShownGame;

/// The game, name and settings of a room to create.
#[derive(Debug, Clone)]
pub struct NewRoom<'a> {
    /// Name of the game.
    pub game: &'a str,
    /// Name of the room, cleaned.
    pub name: &'a str,
    /// The settings that its owner chooses.
    pub settings: &'a RoomSettings,
}

/// The text for a client whose player was kicked.
const REMOVED: &str = "the room's owner has taken your seat";
const _: () = assert!(REMOVED.len() <= REMOVAL_TEXT_BYTES);

/// The events that a player is charged for when it takes a seat: its coming and its leaving.
const VISIT_EVENTS: u64 = 2;

/// The context of a transaction on the player's room.
pub(crate) struct RoomContext<'l> {
    pub(crate) player_tx: PlayerTx,
    pub(crate) player: PlayerRef,
    pub(crate) room: RoomRef,
    /// `None` for a spectator.
    pub(crate) seat: Option<u8>,
    /// The player's connection.
    pub(crate) connection: &'static ConnectionRecord,
    /// Who pays for what the player causes in the room.
    pub(crate) payer: Payer,
    pub(crate) calls: GameCalls<'l>,
}

impl RoomContext<'_> {
    /// Marks that the room's game is about to run in order to show its match.
    pub(crate) fn mark_shown(&self, tx: &RoomTx<'_>) -> ShownGame {
        ShownGame::mark(Some(self.connection), tx.record(), self.room)
    }

    /// Charges an event that the player causes in the room.
    ///
    /// # Errors
    ///
    /// [`RejectCode::TooFast`], if the room has too much to deliver.
    pub(crate) fn charge_event(&self, tx: &RoomTx<'_>) -> Result<(), Rejection> {
        fanout::charge_room(tx, self.payer, (Cause::member(self.seat), 1), RejectCode::TooFast)
    }

    /// Returns the player's seat.
    ///
    /// # Errors
    ///
    /// If the player is a spectator.
    pub(crate) fn ensure_seat(&self) -> Result<u8, Rejection> {
        self.seat
            .ok_or_else(|| Rejection::new(RejectCode::Spectating, "you are only watching"))
    }
}

/// Why a seat becomes free.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaveReason {
    /// Its player has left, or the player's grace is over.
    Left,
    /// The room's owner has kicked its player.
    Kicked,
}

/// Opens a room and takes its first seat.
///
/// # Errors
///
/// If the game is unknown or refuses the options or the number of seats, no room record is free, the player is in a
/// room already, or the server drains.
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
    // The game checks options and seats before anything is changed.
    let (settings, first) = CheckedSettings::check(game, new_room.settings)?;

    let invite_secret = random_secret()?;

    let room = allocate_room(session, player)?;
    let clean_player_name = session.name();
    let mut tx = session.state.attachment.begin(memory.rooms.at(room.index()));
    let record = tx.record();
    tx.set(&record.generation, room.generation());
    tx.set(&record.life, RoomLife::OPEN.raw());
    tx.set(&record.game, u32::from(game_index));
    settings.store(&mut tx);
    tx.set(&record.owner, 0);
    tx.set(&record.kicks, 0);
    tx.set(&record.invite_secret, invite_secret);
    tx.set(&record.reserved, 0);
    tx.set(&record.turn_seat, turns::NO_TURN);
    tx.set(&record.turn_ends_at_ms, u64::MAX);
    tx.set(&record.spectators, 0);
    tx.set(&record.taken, 1);
    tx.set(&record.connected, 1);
    tx.set(&record.ready, 0);
    tx.set(&record.match_seats, 0);
    tx.set(&record.next_tick_at_us, u64::MAX);
    tx.set(&record.name, name);
    tx.set(&record.seats[0], Seat::of(player, clean_player_name));
    record.log.reset(&mut tx);
    record.reset_subscribers();
    record.deliveries.reset();
    record.passcode_guesses.reset();
    record.invite_guesses.reset();
    let before = Before::of_new_room(&tx);
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
    let head = record.log.head(&tx);
    tx.set(&player_tx.player.log_cursor, head);
    let shown = ShownGame::mark(session.state.serving, record, room);
    let snapshot = snapshot(&tx, &shown, games, Some(0), &mut session.state.faults);
    player_tx.reply(&mut tx, &ServerMessage::Joined { request, snapshot });
    player_tx.consume(&mut tx);
    let news = before.compare(&tx, games, room);
    tx.commit()?;
    record.begin_reading(0, head);
    log::info!("{} was opened", RoomLabel::published(memory, games, room.index()));
    if let Some(news) = news {
        news.log(memory);
    }
    Ok(())
}

/// Takes a seat in a room, or with `watch` joins as a spectator.
///
/// # Errors
///
/// If there is no such room, no seat is free, the match has begun, the passcode is wrong, the player is banned, the
/// room allows no spectators, or the player is in a room already.
pub fn join_room(
    session: &mut Session<'_>,
    request: u32,
    room: RoomId,
    passcode: Option<&str>,
    watch: bool,
) -> Result<(), Rejection> {
    let passcode = settings::check_passcode_length(passcode)?;
    let guesser = Guesser::of(session);
    join(
        session,
        request,
        (Some(RoomRef::from_id(room.0)), None),
        watch,
        admit_with(guesser, passcode),
    )
}

/// Takes a seat in a room without a passcode, if the room's lock can be had within `patience`.
///
/// # Errors
///
/// As for [`join_room`]; and `RoomFull` if other processes held the lock all the time.
pub(crate) fn join_open_room(
    session: &mut Session<'_>,
    request: u32,
    room: RoomRef,
    patience: Duration,
) -> Result<(), Rejection> {
    let (place, guesser) = ((Some(room), Some(patience)), Guesser::of(session));
    join(session, request, place, false, admit_with(guesser, None))
}

/// Admits a player that gives this passcode or has a reservation.
fn admit_with(
    guesser: Guesser,
    passcode: Option<&str>,
) -> impl FnOnce(&RoomTx<'_>, RoomRef, bool) -> Result<(), Rejection> {
    move |tx, _, has_reservation| {
        if has_reservation || !settings::has_passcode(tx) {
            return Ok(());
        }
        let Some(passcode) = passcode else {
            let text = "this room asks for a passcode";
            return Err(Rejection::new(RejectCode::WrongPasscode, text));
        };
        let record = tx.record();
        let stored = tx.get(&record.passcode);
        let wrong = Rejection::new(RejectCode::WrongPasscode, "wrong passcode");
        guesser.judge(&record.passcode_guesses, stored.admits(passcode), wrong)
    }
}

/// Takes a seat in a room, or with `watch` joins as a spectator, unless `admit` refuses. Its last argument says whether
/// a seat is reserved for the player. Waits for the room's lock without limit, or for at most `patience`.
pub(crate) fn join(
    session: &mut Session<'_>,
    request: u32,
    (room, patience): (Option<RoomRef>, Option<Duration>),
    watch: bool,
    admit: impl FnOnce(&RoomTx<'_>, RoomRef, bool) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let Some((player, player_tx)) = session.player().zip(session.player_tx()) else {
        return Ok(());
    };
    ensure_in_lobby(session)?;
    abandon_opening(session)?;
    let (games, name, payer) = (session.state.games, session.name(), Payer::of(session));
    let directory = session.state.memory.directory;
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

    let attachment = &mut session.state.attachment;
    let mut tx = match patience {
        None => attachment.begin(record),
        Some(patience) => attachment
            .try_begin(record, patience)
            .ok_or_else(|| Rejection::new(RejectCode::RoomFull, "the room is busy"))?,
    };
    if !is_open(&tx, room) {
        return Err(not_found());
    }
    let reserved = seat_reserved_for(&tx, player).filter(|_| !watch);
    admit(&tx, room, reserved.is_some())?;
    if is_banned(&tx, player, || directory.hashes_of(name.as_str())) {
        let text = "the owner of this room has sent you out";
        return Err(Rejection::new(RejectCode::Banned, text));
    }
    if watch && !allows_spectators(&tx) {
        let text = "nobody may watch this room";
        return Err(Rejection::new(RejectCode::NoSpectators, text));
    }
    let seat = match reserved {
        Some(seat) => Some(seat),
        None if watch => None,
        None => Some(first_free_seat(&tx, games)?),
    };
    if watch {
        fanout::charge_look(&tx, payer, None)?;
    } else {
        // A seat that is reserved for the player counts like one that it has.
        let cause = Cause::member(reserved);
        fanout::charge_room(&tx, payer, (cause, VISIT_EVENTS), RejectCode::TooFast)?;
    }
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
    let head = record.log.head(&tx);
    tx.set(&player_tx.player.log_cursor, head);
    let shown = ShownGame::mark(session.state.serving, record, room);
    let snapshot = snapshot(&tx, &shown, games, seat, &mut session.state.faults);
    player_tx.reply(&mut tx, &ServerMessage::Joined { request, snapshot });
    player_tx.consume(&mut tx);
    tx.commit()?;
    if let Some(seat) = seat {
        record.begin_reading(seat, head);
    }
    session.doorbells.push(room.index());
    Ok(())
}

/// Leaves the room.
///
/// # Errors
///
/// If the player is in no room.
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

/// Runs `change` in a transaction on the player's room that also consumes the frame, and has the room's doorbell rung
/// afterwards.
///
/// # Errors
///
/// If the player is in no room (any more), or those of `change`.
pub(crate) fn change_room<R>(
    session: &mut Session<'_>,
    change: impl FnOnce(&mut RoomTx<'_>, &mut RoomContext<'_>) -> Result<R, Rejection>,
) -> Result<R, Rejection> {
    let (room, _) = current_room(session)?;
    let (result, news) = with_room(session, |mut tx, context| {
        let before = Before::of(&tx);
        let result = change(&mut tx, context)?;
        context.player_tx.consume(&mut tx);
        let news = before.compare(&tx, context.calls.games, context.room);
        tx.commit()?;
        Ok((result, news))
    })?;
    if let Some(news) = news {
        news.log(session.state.memory);
    }
    session.doorbells.push(room.index());
    Ok(result)
}

/// Runs `run` with a transaction on the player's room, after a check under the room's lock that the player still is a
/// member.
///
/// # Errors
///
/// If the player is in no room (any more), or those of `run`.
pub(crate) fn with_room<R>(
    session: &mut Session<'_>,
    run: impl FnOnce(RoomTx<'_>, &mut RoomContext<'_>) -> Result<R, Rejection>,
) -> Result<R, Rejection> {
    let (room, seat) = current_room(session)?;
    let (player, player_tx) = session
        .player()
        .zip(session.player_tx())
        .ok_or_else(not_in_room)?;
    let payer = Payer::of(session);
    let (state, connection) = (&mut session.state, session.record);
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
        connection,
        payer,
        calls: GameCalls {
            games: state.games,
            outbox: &mut state.outbox,
            faults: &mut state.faults,
            room,
        },
    };
    run(tx, &mut context)
}

/// Returns the player's room, and the seat unless spectating, as the player's own record has it. The owner may have
/// kicked the player since.
///
/// # Errors
///
/// If the player is in no room.
pub(crate) fn current_room(session: &Session<'_>) -> Result<(RoomRef, Option<u8>), Rejection> {
    session.membership().place().ok_or_else(not_in_room)
}

/// Checks that the player is in no room. If the owner has kicked the player, that is applied first.
///
/// # Errors
///
/// If the player is in a room.
pub(crate) fn ensure_in_lobby(session: &mut Session<'_>) -> Result<(), Rejection> {
    let is_in_room = || Rejection::new(RejectCode::AlreadyInRoom, "leave the room you are in first");
    if session.membership().place().is_none() {
        return Ok(());
    }
    match with_room(session, |_, _| Ok(())) {
        Ok(()) => Err(is_in_room()),
        // The player had been kicked, which `with_room` has applied.
        Err(Rejection {
            code: RejectCode::NotInRoom,
            ..
        }) => Ok(()),
        Err(other) => Err(other),
    }
}

/// Applies the owner's kick to the player's own record: the player is in the lobby, and the client is told.
///
/// # Errors
///
/// If the transaction does not fit. That is a bug in the server.
pub(crate) fn apply_kick(session: &mut Session<'_>) -> Result<(), Rejection> {
    let Some((player_tx, (room, _))) = session.player_tx().zip(session.membership().place()) else {
        return Ok(());
    };
    let mut tx = session.state.attachment.begin(player_tx.player);
    tx.set(&player_tx.player.membership, Membership::LOBBY);
    // A player that lost bytes must still get the `Resync` which says that there is no room.
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

/// Frees the room record that a previous handler allocated and did not open. The player joins another room, so nothing
/// else would free the record.
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

/// Allocates a room record for this player to open. If a previous handler died between allocating and opening, returns
/// the same one.
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

/// Frees the record of a room that has closed, unless that is done already.
pub(crate) fn free_room(state: &mut StateHandle, room: RoomRef) {
    let directory = state.memory.directory;
    let mut tx = state.attachment.begin(directory.record);
    directory.free_room(&mut tx, room.index(), room.generation());
    tx.commit().expect("freeing a room record fits the journal");
}

/// Removes a player or spectator from the room. In a running match, the game decides what that means. The last member
/// to leave closes the room.
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

/// Frees a taken seat, and tells the room and the game.
pub(crate) fn free_seat(
    tx: &mut RoomTx<'_>,
    calls: &mut GameCalls<'_>,
    number: u8,
    how: LeaveReason,
) -> Result<(), Rejection> {
    let record = tx.record();
    // The name stays, for text players that are yet to be told which player left.
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

/// Returns the lowest seat that is neither taken nor reserved.
///
/// # Errors
///
/// If no seat is free, or the match has begun.
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

/// Returns a random seed for a match, from the kernel: a generator in user space would give the same numbers to forked
/// processes.
pub(crate) fn random_seed() -> Result<u64, Rejection> {
    getrandom::u64().map_err(|error| {
        Rejection::new(
            RejectCode::GameFailed,
            format!("the kernel gave no random seed: {error}"),
        )
    })
}
