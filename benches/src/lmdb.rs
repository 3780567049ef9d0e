//! Rooms and players in LMDB, as one might keep them so that several processes share them: a file in shared memory, one writer at a
//! time, each change a transaction. Nothing is forced to a disk, so that it survives what Forkade's lobby survives: any process's
//! death, and not the machine's.

use std::path::Path;

use heed::byteorder::NativeEndian;
use heed::types::{Bytes, U32};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use crate::{COUNT_AT, PLAYER_BYTES, ROOM_BYTES, TAKEN_AT};

const MAP_BYTES: usize = 64 * 1024 * 1024;

type Records = Database<U32<NativeEndian>, Bytes>;

/// One process's access. (A fork needs its own.)
pub struct Lmdb {
    env: Env<WithoutTls>,
    rooms: Records,
    players: Records,
}

impl Lmdb {
    /// Opens what lies in `directory`, and makes it if there is nothing, with so many rooms and players.
    ///
    /// # Errors
    /// When LMDB says so.
    #[allow(unsafe_code, reason = "opening a mapped file")]
    pub fn open(directory: &Path, records: u32) -> heed::Result<Self> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(2);
        let flags = EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::WRITE_MAP;
        // SAFETY: with these flags a crash of the machine may leave the file broken; it is temporary, and nobody else's.
        unsafe { options.flags(flags) };
        // SAFETY: nobody else changes the file, and each process opens it once.
        let env = unsafe { options.open(directory)? };
        let mut txn = env.write_txn()?;
        let rooms: Records = env.create_database(&mut txn, Some("rooms"))?;
        let players: Records = env.create_database(&mut txn, Some("players"))?;
        for number in 0..records {
            if rooms.get(&txn, &number)?.is_none() {
                rooms.put(&mut txn, &number, &[0; ROOM_BYTES])?;
                players.put(&mut txn, &number, &[0; PLAYER_BYTES])?;
            }
        }
        txn.commit()?;
        Ok(Self { env, rooms, players })
    }

    /// Reads a room's state, changes it and writes it.
    ///
    /// # Errors
    /// When LMDB says so.
    pub fn update(&self, room: u32) -> heed::Result<()> {
        let mut txn = self.env.write_txn()?;
        let mut state = read::<ROOM_BYTES>(self.rooms.get(&txn, &room)?);
        state[COUNT_AT] = state[COUNT_AT].wrapping_add(1);
        self.rooms.put(&mut txn, &room, &state)?;
        txn.commit()
    }

    /// A player joins a room (or leaves it): both records change together.
    ///
    /// # Errors
    /// When LMDB says so.
    pub fn set_place(&self, room: u32, player: u32, inside: bool) -> heed::Result<()> {
        let mut txn = self.env.write_txn()?;
        let mut state = read::<ROOM_BYTES>(self.rooms.get(&txn, &room)?);
        let mut place = read::<PLAYER_BYTES>(self.players.get(&txn, &player)?);
        state[TAKEN_AT] = u8::from(inside);
        place[TAKEN_AT] = u8::from(inside);
        self.rooms.put(&mut txn, &room, &state)?;
        self.players.put(&mut txn, &player, &place)?;
        txn.commit()
    }
}

fn read<const BYTES: usize>(record: Option<&[u8]>) -> [u8; BYTES] {
    record
        .and_then(|bytes| bytes.try_into().ok())
        .expect("it was made when the file was opened")
}
