//! How late the ticks of real-time games are, as the server itself counts them: rooms of a game with ten ticks per
//! second, one player in each, and if wanted, kills of a ticker.
//!
//! ```text
//! cargo run --release --example tick_lateness -- 500 75       # 500 rooms for 75 s
//! cargo run --release --example tick_lateness -- 500 75 1     # and each second a ticker is killed
//! ```
//!
//! The figures are about the last 60 to 70 s. In a shorter run they contain the start of the rooms' processes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use forkade::games::{Game, Outbox, Outcome, Rejection, Start, Viewer};
use forkade_protocol::client::{Client, ClientOptions, NewRoom};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Counts its ticks, and tells its player.
#[derive(Serialize, Deserialize)]
struct Clock(u32);

impl Game for Clock {
    type Options = ();
    type Action = ();
    type Event = u32;
    type View = u32;
    const NAME: &'static str = "clock";
    const SEATS: RangeInclusive<u8> = 1..=1;
    const TICKS_PER_SECOND: u16 = 10;
    const START: Start = Start::AtOnce;

    fn new((): (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self(0))
    }

    fn act(&mut self, _seat: u8, (): (), _out: &mut Outbox<u32>) -> Result<(), Rejection> {
        Ok(())
    }

    fn tick(&mut self, out: &mut Outbox<u32>) {
        self.0 += 1;
        out.to_all(&self.0);
    }

    fn view(&self, _viewer: Viewer) -> u32 {
        self.0
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(_text: &str, _view: Option<&Self::View>) -> Result<(), Rejection> {
        Ok(())
    }

    fn draw(view: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        format!("{view}\n")
    }
}

/// Ended when the measurement is over, however it ends.
struct Server {
    process: Child,
    game: SocketAddr,
    console: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// This program, as a server.
    fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"])
            // The players read nothing.
            .args(["--heartbeat-timeout-ms", "3600000"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut ready)?;
        let ready: Value = serde_json::from_str(&ready)?;
        let address = |key: &str| ready[key].as_str().unwrap_or_default().parse();
        Ok(Self {
            game: address("game")?,
            console: address("console")?,
            process,
        })
    }

    fn ask(&self, query: &str) -> Result<Value, Box<dyn std::error::Error>> {
        let mut console = TcpStream::connect(self.console)?;
        writeln!(console, "{query} --json")?;
        let mut answer = String::new();
        BufReader::new(console).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    fn kill_a_ticker(&self, number: usize) -> Result<(), Box<dyn std::error::Error>> {
        let processes = self.ask("processes")?;
        let processes = processes.as_array().ok_or("no list")?.iter();
        let tickers: Vec<_> = processes.filter(|process| process["role"] == "ticker").collect();
        if let Some(pid) = tickers.get(number % tickers.len().max(1)) {
            let pid = i32::try_from(pid["pid"].as_i64().ok_or("no pid")?)?;
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        Ok(())
    }
}

fn measure(rooms: usize, seconds: u64, kills_per_second: u32) -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::start()?;
    let mut players = Vec::with_capacity(rooms);
    for number in 0..rooms {
        let mut player = Client::connect(server.game, format!("p{number}"), ClientOptions::default())?;
        player.create_room(NewRoom::new("clock", "tower"))?;
        players.push(player);
    }
    let (end, mut kills) = (Instant::now() + Duration::from_secs(seconds), 0);
    while Instant::now() < end {
        match kills_per_second {
            0 => std::thread::sleep(end.saturating_duration_since(Instant::now())),
            rate => {
                std::thread::sleep(Duration::from_secs(1) / rate);
                server.kill_a_ticker(kills)?;
                kills += 1;
            }
        }
    }
    let status = server.ask("status")?;
    println!(
        "{rooms} rooms, {kills} kills: p50 {} ms, p99 {} ms, max {} ms; {} ticks, {} left out",
        status["tick_lateness_p50_ms"],
        status["tick_lateness_p99_ms"],
        status["tick_lateness_max_ms"],
        status["ticks_total"],
        status["ticks_missed_total"],
    );
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "serve") {
        return forkade::Server::new().game::<Clock>().main();
    }
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u32>().ok());
    let (Some(rooms), Some(seconds)) = (number(0), number(1)) else {
        eprintln!("usage: tick_lateness ROOMS SECONDS [KILLS_PER_SECOND]");
        return ExitCode::FAILURE;
    };
    match measure(rooms as usize, seconds.into(), number(2).unwrap_or(0)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
