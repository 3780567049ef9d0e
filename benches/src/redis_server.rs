//! Rooms and players in Redis, as one might keep them so that several processes share them: a server of the bench's own on a unix
//! socket, each change a script that runs there as a whole. Nothing is written to a disk.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult};
use tempfile::TempDir;

use crate::{PLAYER_BYTES, ROOM_BYTES};

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Places count from 1 in Lua.
const UPDATE: &str = "
    local state = redis.call('GET', KEYS[1])
    local count = (string.byte(state, 1) + 1) % 256
    redis.call('SET', KEYS[1], string.char(count) .. string.sub(state, 2))
    return 1";
const SET_PLACE: &str = "
    local state = redis.call('GET', KEYS[1])
    local place = redis.call('GET', KEYS[2])
    redis.call('SET', KEYS[1], string.sub(state, 1, 1) .. ARGV[1] .. string.sub(state, 3))
    redis.call('SET', KEYS[2], string.sub(place, 1, 1) .. ARGV[1] .. string.sub(place, 3))
    return 1";

/// A running server. Dropping it kills it.
pub struct RedisServer {
    child: Child,
    directory: TempDir,
}

/// One process's connection.
pub struct Redis {
    connection: Connection,
    update: String,
    set_place: String,
}

impl RedisServer {
    /// Starts one, and fills it with so many rooms and players. Nothing if Redis is not installed, which is said.
    ///
    /// # Panics
    /// When it is installed and does not start.
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
                "\nSKIPPED: Redis is not measured, for there is no redis-server (apt-get install redis-server)\n"
            );
            return None;
        };
        let server = Self { child, directory };
        let began = Instant::now();
        let mut connection = loop {
            match server.connection() {
                Ok(connection) => break connection,
                Err(error) => assert!(
                    began.elapsed() < START_TIMEOUT,
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

    /// A connection for the calling process.
    ///
    /// # Errors
    /// When Redis says so.
    pub fn connect(&self) -> RedisResult<Redis> {
        let mut connection = self.connection()?;
        let mut load = |script: &str| {
            redis::cmd("SCRIPT")
                .arg("LOAD")
                .arg(script)
                .query(&mut connection)
        };
        let (update, set_place) = (load(UPDATE)?, load(SET_PLACE)?);
        Ok(Redis {
            connection,
            update,
            set_place,
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
            eprintln!("cannot end redis-server, pid {}: {error}", self.child.id());
        }
    }
}

impl Redis {
    /// Reads a room's state, changes it and writes it.
    ///
    /// # Errors
    /// When Redis says so.
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
    /// When Redis says so.
    pub fn set_place(&mut self, room: u32, player: u32, inside: bool) -> RedisResult<()> {
        redis::cmd("EVALSHA")
            .arg(&self.set_place)
            .arg(2)
            .arg(room_key(room))
            .arg(player_key(player))
            .arg(if inside { "1" } else { "0" })
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
