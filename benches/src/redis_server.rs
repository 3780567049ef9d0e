//! Rooms and players in Redis, shared by several processes: the benchmark's own server on a unix socket, where each
//! change is a script that Redis runs atomically. Nothing is written to a disk.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult};
use tempfile::TempDir;

use crate::{PLAYER_BYTES, ROOM_BYTES};

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Indices count from 1 in Lua.
const UPDATE: &str = "
    local state = redis.call('GET', KEYS[1])
    local count = (string.byte(state, 1) + 1) % 256
    redis.call('SET', KEYS[1], string.char(count) .. string.sub(state, 2))
    return 1";
const SET_MEMBERSHIP: &str = "
    local state = redis.call('GET', KEYS[1])
    local membership = redis.call('GET', KEYS[2])
    redis.call('SET', KEYS[1], string.sub(state, 1, 1) .. ARGV[1] .. string.sub(state, 3))
    redis.call('SET', KEYS[2], string.sub(membership, 1, 1) .. ARGV[1] .. string.sub(membership, 3))
    return 1";

/// A running server. Dropping it kills it.
pub struct RedisServer {
    child: Child,
    directory: TempDir,
}

/// Connection of one process.
pub struct Redis {
    connection: Connection,
    update: String,
    set_membership: String,
}

impl RedisServer {
    /// Starts a server with `records` rooms and players. If Redis is not installed, prints that and returns `None`.
    ///
    /// # Panics
    /// If Redis is installed but does not start.
    pub fn start(records: u32) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory for the socket");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(directory.path())
            .arg("--unixsocket")
            .arg(socket_in(directory.path()))
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!(
                "\nSKIPPED: Redis is not measured, because redis-server is not installed (apt-get install redis-server)\n"
            );
            return None;
        };
        let server = Self { child, directory };
        let started = Instant::now();
        let mut connection = loop {
            match server.connection() {
                Ok(connection) => break connection,
                Err(error) => assert!(
                    started.elapsed() < START_TIMEOUT,
                    "redis-server does not answer: {error}"
                ),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        for number in 0..records {
            let mut set = redis::pipe();
            set.set(room_key(number), vec![0_u8; ROOM_BYTES]).ignore();
            set.set(player_key(number), vec![0_u8; PLAYER_BYTES]).ignore();
            set.query::<()>(&mut connection).expect("an empty Redis");
        }
        Some(server)
    }

    /// Connects the calling process.
    ///
    /// # Errors
    /// If Redis fails.
    pub fn connect(&self) -> RedisResult<Redis> {
        let mut connection = self.connection()?;
        let mut load = |script: &str| {
            redis::cmd("SCRIPT")
                .arg("LOAD")
                .arg(script)
                .query(&mut connection)
        };
        let (update, set_membership) = (load(UPDATE)?, load(SET_MEMBERSHIP)?);
        Ok(Redis {
            connection,
            update,
            set_membership,
        })
    }

    fn connection(&self) -> RedisResult<Connection> {
        let socket = socket_in(self.directory.path());
        redis::Client::open(format!("unix://{}", socket.display()))?.get_connection()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("cannot stop redis-server, pid {}: {error}", self.child.id());
        }
    }
}

impl Redis {
    /// Reads a room's state, changes it and writes it.
    ///
    /// # Errors
    /// If Redis fails.
    pub fn update(&mut self, room: u32) -> RedisResult<()> {
        redis::cmd("EVALSHA")
            .arg(&self.update)
            .arg(1)
            .arg(room_key(room))
            .query(&mut self.connection)
    }

    /// A player joins a room (or leaves it): both records change together.
    ///
    /// # Errors
    /// If Redis fails.
    pub fn set_membership(&mut self, room: u32, player: u32, is_member: bool) -> RedisResult<()> {
        redis::cmd("EVALSHA")
            .arg(&self.set_membership)
            .arg(2)
            .arg(room_key(room))
            .arg(player_key(player))
            .arg(if is_member { "1" } else { "0" })
            .query(&mut self.connection)
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("redis.sock")
}

fn room_key(number: u32) -> String {
    format!("room:{number}")
}

fn player_key(number: u32) -> String {
    format!("player:{number}")
}
