//! Coming into rooms and leaving them. Who gets the last seat is decided by the room's lock.

use forkade_protocol::{Phase as MatchPhase, RejectCode, RoomEvent, RoomId, ServerMessage};

use super::delivery::Events;
use super::memory::{PlayerRef, RoomRef};
use super::players::Membership;
use super::rooms::{
    Passcode, RoomLife, RoomName, RoomOptions, RoomTx, Seat, game_of, is_open, occupants, phase_of,
    raw_phase, snapshot, write_state,
};
use super::session::Session;
use super::{Lobby, Rejection, scratch};
use crate::games::{ErasedOutbox, GameError, Games, Start};
use crate::limits::{GAME_OPTIONS_BYTES_MAX, SEATS_MAX};
use crate::shm::transaction::Record;

/// What a room is to be like.
#[derive(Debug, Clone)]
pub struct NewRoom<'a> {
    /// Name of the game.
    pub game: &'a str,
    /// Name of the room, validated.
    pub name: &'a str,
    /// What others must say to come in.
    pub passcode: Option<&'a str>,
    /// How many seats; 0 for as many as the game allows.
    pub seats: u8,
    /// The game's options, as it encodes them; empty for its defaults.
    pub options: &'a [u8],
}

impl Session {
    /// Opens a room and takes its first seat.
    ///
    /// # Errors
    ///
    /// The game unknown, its options or the number of seats not to its liking, no room record free, or already in a room.
    pub fn create_room(&mut self, request: u32, wish: &NewRoom<'_>) -> Result<(), Rejection> {
        let Some((player, own)) = self.player().zip(self.own()) else {
            return Ok(());
        };
        self.must_be_in_lobby()?;
        let (memory, games) = (self.lobby.memory, self.lobby.games);
        let (game_index, game) = games.find(wish.game).ok_or_else(|| {
            Rejection::new(
                RejectCode::UnknownGame,
                format!("no game is called \"{}\"", wish.game.escape_debug()),
            )
        })?;
        let seats = if wish.seats == 0 {
            (*game.seats().end()).min(SEATS_MAX)
        } else {
            wish.seats
        };
        if seats > SEATS_MAX {
            return Err(Rejection::new(
                RejectCode::SeatsOutOfRange,
                format!("a room has at most {SEATS_MAX} seats"),
            ));
        }
        let options = RoomOptions::new(wish.options).ok_or_else(|| {
            Rejection::new(
                RejectCode::BadOptions,
                format!("options have at most {GAME_OPTIONS_BYTES_MAX} bytes"),
            )
        })?;
        let name = RoomName::new(wish.name)
            .ok_or_else(|| Rejection::new(RejectCode::RoomNameInvalid, "the room's name is too long"))?;
        // The game says now, before anything is changed, whether it likes options and seats.
        let seed = fresh_seed()?;
        let (first_state, first_outcome) = scratch::with_state(|state| {
            let first = game.start(wish.options, seats, seed, state)?;
            Ok::<_, GameError>((state[..first.state_bytes].to_vec(), first.outcome))
        })?;
        let passcode = wish.passcode.map_or(Passcode::NONE, Passcode::new);

        let room = self.take_room(player)?;
        let player_name = self.name();
        let mut tx = self.lobby.hand.begin(memory.rooms.at(room.index()));
        let record = tx.record();
        tx.set(&record.generation, room.generation());
        tx.set(&record.life, RoomLife::OPEN.raw());
        tx.set(&record.game, u32::from(game_index));
        tx.set(&record.capacity, u32::from(seats));
        tx.set(&record.spectators, 0);
        tx.set(&record.taken, 1);
        tx.set(&record.connected, 1);
        tx.set(&record.ready, 0);
        tx.set(&record.has_state, 0);
        tx.set(&record.next_tick_at_ms, u64::MAX);
        tx.set(&record.name, name);
        tx.set(&record.passcode, passcode);
        tx.set(&record.options, options);
        tx.set(&record.seats[0], Seat::of(player, player_name));
        record.log.reset(&mut tx);
        if game.start_rule() == Start::AtOnce {
            write_state(&mut tx, &first_state);
            tx.set(&record.phase, raw_phase(MatchPhase::Playing));
            super::play::schedule_first_tick(&mut tx, game.ticks_per_second());
            if let Some(outcome) = first_outcome {
                super::play::finish(&mut tx, outcome)?;
            }
        } else {
            tx.set(&record.phase, raw_phase(MatchPhase::Waiting));
        }
        tx.set(&own.player.membership, Membership::in_room(room, Some(0)));
        tx.set(&own.player.log_cursor, record.log.head(&tx));
        let snapshot = snapshot(&tx, room, games, Some(0), &mut self.lobby.faults);
        own.reply(&mut tx, &ServerMessage::Joined { request, snapshot });
        own.consume(&mut tx);
        tx.commit()?;
        Ok(())
    }

    /// Takes a seat in a room, or with `watch` a place to look on.
    ///
    /// # Errors
    ///
    /// No such room, no seat free, the match under way, a wrong passcode, or already in a room.
    pub fn join_room(
        &mut self,
        request: u32,
        room: RoomId,
        passcode: Option<&str>,
        watch: bool,
    ) -> Result<(), Rejection> {
        let Some((player, own)) = self.player().zip(self.own()) else {
            return Ok(());
        };
        self.must_be_in_lobby()?;
        self.give_up_opening()?;
        let (room, games, name) = (RoomRef::from_id(room.0), self.lobby.games, self.name());
        let not_found = || Rejection::new(RejectCode::RoomNotFound, "there is no such room (any more)");
        let record = self.lobby.memory.rooms.get(room.index()).ok_or_else(not_found)?;
        // A record that was never opened has no lock to take.
        record.open_generation().ok_or_else(not_found)?;

        let mut tx = self.lobby.hand.begin(record);
        if !is_open(&tx, room) {
            return Err(not_found());
        }
        if !tx.get(&record.passcode).admits(passcode) {
            let text = if passcode.is_some() {
                "wrong passcode"
            } else {
                "this room asks for a passcode"
            };
            return Err(Rejection::new(RejectCode::WrongPasscode, text));
        }
        let seat = if watch { None } else { Some(free_seat(&tx, games)?) };
        let mut events = Events::begin(&mut tx);
        if let Some(number) = seat {
            tx.set(&record.seats[usize::from(number)], Seat::of(player, name));
            tx.set(&record.taken, tx.get(&record.taken) | 1 << number);
            tx.set(&record.connected, tx.get(&record.connected) | 1 << number);
            tx.set(&record.ready, tx.get(&record.ready) & !(1 << number));
            events.tell_all(
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
        tx.set(&own.player.membership, Membership::in_room(room, seat));
        tx.set(&own.player.log_cursor, record.log.head(&tx));
        let snapshot = snapshot(&tx, room, games, seat, &mut self.lobby.faults);
        own.reply(&mut tx, &ServerMessage::Joined { request, snapshot });
        own.consume(&mut tx);
        tx.commit()?;
        self.bells.push(room.index());
        Ok(())
    }

    /// Leaves the room.
    ///
    /// # Errors
    ///
    /// If the player is in none.
    pub fn leave_room(&mut self, request: u32) -> Result<(), Rejection> {
        let Some((player, own)) = self.player().zip(self.own()) else {
            return Ok(());
        };
        let (room, seat) = self.must_be_in_room()?;
        let lobby = &mut self.lobby;
        let mut tx = lobby.hand.begin(lobby.memory.rooms.at(room.index()));
        vacate(
            &mut tx,
            lobby.games,
            (&mut lobby.outbox, &mut lobby.faults),
            room,
            player,
            seat,
        )?;
        let closing = tx.get(&tx.record().life) == RoomLife::CLOSING.raw();
        tx.set(&own.player.membership, Membership::LOBBY);
        tx.set(&own.player.log_cursor, 0);
        own.reply(&mut tx, &ServerMessage::Left { request });
        own.consume(&mut tx);
        tx.commit()?;
        self.bells.push(room.index());
        if closing {
            self.lobby.take_room_back(room);
        }
        Ok(())
    }

    /// The room that the player is in, and the seat unless watching.
    ///
    /// # Errors
    ///
    /// If the player is in none.
    pub(super) fn must_be_in_room(&self) -> Result<(RoomRef, Option<u8>), Rejection> {
        self.membership()
            .place()
            .ok_or_else(|| Rejection::new(RejectCode::NotInRoom, "you are in no room"))
    }

    fn must_be_in_lobby(&self) -> Result<(), Rejection> {
        match self.membership().place() {
            None => Ok(()),
            Some(_) => Err(Rejection::new(
                RejectCode::AlreadyInRoom,
                "leave the room you are in first",
            )),
        }
    }

    /// Gives back the room record that a predecessor was given and did not open: the player goes elsewhere, or the record would be
    /// nobody's for ever.
    fn give_up_opening(&mut self) -> Result<(), Rejection> {
        let Some((own, room)) = self.own().zip(self.membership().being_opened()) else {
            return Ok(());
        };
        let directory = self.lobby.memory.directory;
        let mut tx = self.lobby.hand.begin(directory.record);
        directory.take_room_back(&mut tx, room.index(), room.generation());
        tx.set(&own.player.membership, Membership::LOBBY);
        Ok(tx.commit()?)
    }

    /// A room record for this player to open. If a predecessor died between taking and opening, it is the same one.
    fn take_room(&mut self, player: PlayerRef) -> Result<RoomRef, Rejection> {
        if let Some(room) = self.membership().being_opened() {
            return Ok(room);
        }
        let (memory, own) = (self.lobby.memory, self.own());
        let mut tx = self.lobby.hand.begin(memory.directory.record);
        let (index, generation) = memory
            .directory
            .give_room(&mut tx, player)
            .ok_or_else(|| Rejection::new(RejectCode::RoomsFull, "the server has no room left for rooms"))?;
        memory.rooms.at(index).lock().prepare();
        let room = RoomRef::new(index, generation);
        if let Some(own) = own {
            tx.set(&own.player.membership, Membership::opening(room));
        }
        tx.commit()?;
        Ok(room)
    }
}

impl Lobby {
    /// Takes back the record of a room that has closed, if nobody has done so yet.
    pub(super) fn take_room_back(&mut self, room: RoomRef) {
        let directory = self.memory.directory;
        let mut tx = self.hand.begin(directory.record);
        directory.take_room_back(&mut tx, room.index(), room.generation());
        tx.commit().expect("taking a room back fits the journal");
    }

    /// Enters into the room whether a player's connection is alive, and tells all. Says whether that was news.
    pub(super) fn show_connected(
        &mut self,
        player: PlayerRef,
        room: RoomRef,
        seat: u8,
        connected: bool,
    ) -> bool {
        let mut tx = self.hand.begin(self.memory.rooms.at(room.index()));
        let record = tx.record();
        let bit = 1 << seat;
        let known = tx.get(&record.connected) & bit != 0;
        if known == connected
            || !is_open(&tx, room)
            || tx.get(&record.seats[usize::from(seat)]).player != player
        {
            return false;
        }
        let bits = tx.get(&record.connected);
        tx.set(
            &record.connected,
            if connected { bits | bit } else { bits & !bit },
        );
        let mut events = Events::begin(&mut tx);
        let told = events.tell_all(&mut tx, RoomEvent::Connection { seat, connected });
        events.finish(&mut tx);
        told.is_ok() && tx.commit().is_ok()
    }
}

/// Frees a player's seat or place. In a match that is being played, the game decides what it means. The last one closes the room.
pub(super) fn vacate(
    tx: &mut RoomTx<'_>,
    games: &Games,
    (outbox, faults): (&mut ErasedOutbox, &mut Vec<GameError>),
    room: RoomRef,
    player: PlayerRef,
    seat: Option<u8>,
) -> Result<(), Rejection> {
    let record = tx.record();
    if !is_open(tx, room) {
        return Ok(());
    }
    if let Some(number) = seat {
        let cell = &record.seats[usize::from(number)];
        if tx.get(cell).player != player {
            return Ok(());
        }
        tx.set(cell, Seat::FREE);
        tx.set(&record.taken, tx.get(&record.taken) & !(1 << number));
        tx.set(&record.connected, tx.get(&record.connected) & !(1 << number));
        tx.set(&record.ready, tx.get(&record.ready) & !(1 << number));
        let mut events = Events::begin(tx);
        events.tell_all(tx, RoomEvent::Left { seat: number })?;
        events.finish(tx);
        if phase_of(tx.get(&record.phase)) == MatchPhase::Playing {
            super::play::player_left(tx, games, (outbox, faults), number)?;
        }
    } else {
        tx.set(&record.spectators, tx.get(&record.spectators).saturating_sub(1));
    }
    if occupants(tx).next().is_none() && tx.get(&record.spectators) == 0 {
        tx.set(&record.life, RoomLife::CLOSING.raw());
    }
    Ok(())
}

fn free_seat(tx: &RoomTx<'_>, games: &Games) -> Result<u8, Rejection> {
    let record = tx.record();
    let playing = phase_of(tx.get(&record.phase)) == MatchPhase::Playing;
    if playing && game_of(tx, games).start_rule() == Start::WhenSeatsReady {
        return Err(Rejection::new(
            RejectCode::AlreadyStarted,
            "the match has begun; you may watch it",
        ));
    }
    let capacity = tx.get(&record.capacity) as usize;
    (0..)
        .zip(record.seats.iter().take(capacity))
        .find(|(_, seat)| !tx.get(seat).player.is_somebody())
        .map(|(number, _)| number)
        .ok_or_else(|| Rejection::new(RejectCode::RoomFull, "all seats are taken"))
}

/// A seed for a match, from the kernel: forked processes would draw the same from a generator of their own.
pub(super) fn fresh_seed() -> Result<u64, Rejection> {
    getrandom::u64().map_err(|error| {
        Rejection::new(
            RejectCode::GameFailed,
            format!("the kernel gave no random seed: {error}"),
        )
    })
}
