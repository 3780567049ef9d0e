//! Rooms and players in LMDB, shared by several processes: a file in shared memory with one writer at a time, where
//! each change is a transaction. Nothing is synced to a disk, so the data survives what Forkade's lobby survives: the
//! death of a process, but not of the machine.

use std::path::Path;

use heed::byteorder::NativeEndian;
use heed::types::{Bytes, U32};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use crate::{COUNT_INDEX, PLAYER_BYTES, ROOM_BYTES, TAKEN_INDEX};

const MAP_BYTES: usize = 64 * 1024 * 1024;

type Records = Database<U32<NativeEndian>, Bytes>;

/// Access of one process. A forked process has to open its own.
pub struct Lmdb {
    env: Env<WithoutTls>,
    rooms: Records,
    players: Records,
}

impl Lmdb {
    /// Opens the database in `directory`, or creates it with `records` rooms and players.
    ///
    /// # Errors
    /// If LMDB fails.
    #[allow(unsafe_code, reason = "opening a mapped file")]
    pub fn open(directory: &Path, records: u32) -> heed::Result<Self> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(2);
        let flags = EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC | EnvFlags::WRITE_MAP;
        // SAFETY: with these flags a crash of the machine can corrupt the file; the file is temporary and private to
        // the benchmark.
        unsafe { options.flags(flags) };
        // SAFETY: only LMDB changes the file, and each process opens it once.
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
    /// If LMDB fails.
    pub fn update(&self, room: u32) -> heed::Result<()> {
        let mut txn = self.env.write_txn()?;
        let mut state = read::<ROOM_BYTES>(self.rooms.get(&txn, &room)?);
        state[COUNT_INDEX] = state[COUNT_INDEX].wrapping_add(1);
        self.rooms.put(&mut txn, &room, &state)?;
        txn.commit()
    }

    /// A player joins a room (or leaves it): both records change together.
    ///
    /// # Errors
    /// If LMDB fails.
    pub fn set_membership(&self, room: u32, player: u32, is_member: bool) -> heed::Result<()> {
        let mut txn = self.env.write_txn()?;
        let mut state = read::<ROOM_BYTES>(self.rooms.get(&txn, &room)?);
        let mut membership = read::<PLAYER_BYTES>(self.players.get(&txn, &player)?);
        state[TAKEN_INDEX] = u8::from(is_member);
        membership[TAKEN_INDEX] = u8::from(is_member);
        self.rooms.put(&mut txn, &room, &state)?;
        self.players.put(&mut txn, &player, &membership)?;
        txn.commit()
    }
}

fn read<const BYTES: usize>(record: Option<&[u8]>) -> [u8; BYTES] {
    record
        .and_then(|bytes| bytes.try_into().ok())
        .expect("`open` has created the record")
}
