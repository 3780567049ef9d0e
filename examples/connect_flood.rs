//! Floods a server on this machine with connections that say nothing and with connections that are reset at once, from
//! several addresses of the loopback network. Run it beside a load test, to see what others notice:
//!
//! ```text
//! cargo run --release --example connect_flood -- 127.0.0.1:4000 10000 5000 20
//! ```
//!
//! The arguments: the server, how many silent connections to hold, connects per second, and seconds. It prints what
//! it did, and the processor time that it used.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use socket2::{Domain, Socket, Type};

/// The flood comes from 127.0.0.3 and the addresses behind it.
const ADDRESSES: u8 = 10;
/// It rests so often, for the rest of the time.
const ROUNDS_PER_SECOND: u32 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, silent, per_second, seconds] = &arguments[..] else {
        eprintln!("usage: connect_flood IP:PORT SILENT CONNECTS_PER_SECOND SECONDS");
        return ExitCode::from(2);
    };
    let parsed = (
        server.parse(),
        silent.parse(),
        per_second.parse(),
        seconds.parse(),
    );
    match parsed {
        (Ok(server), Ok(silent), Ok(per_second), Ok(seconds)) if is_allowed(server, seconds) => {
            flood(server, silent, per_second, Duration::from_secs(seconds));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("the server must be in 127.0.0.0/8, and the time 1 to 60 s");
            ExitCode::from(2)
        }
    }
}

fn is_allowed(server: SocketAddr, seconds: u64) -> bool {
    server.is_ipv4() && server.ip().is_loopback() && (1..=60).contains(&seconds)
}

fn flood(server: SocketAddr, silent_max: usize, per_second: u32, time: Duration) {
    // Each silent connection is an open file.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let began = Instant::now();
    let mut silent = VecDeque::new();
    let (mut opened, mut failed, mut number) = (0_u64, 0_u64, 0_u8);
    for round in 1.. {
        if began.elapsed() >= time {
            break;
        }
        for _ in 0..per_second / ROUNDS_PER_SECOND {
            number = (number + 1) % ADDRESSES;
            let Ok(socket) = connect(server, Ipv4Addr::new(127, 0, 0, 3 + number)) else {
                failed += 1;
                continue;
            };
            opened += 1;
            silent.push_back(socket);
            if silent.len() > silent_max {
                // The oldest one is reset.
                silent.pop_front();
            }
        }
        let next = began + Duration::from_secs(1) * round / ROUNDS_PER_SECOND;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is known");
    let cpu_ms = |time: nix::sys::time::TimeVal| time.tv_sec() * 1000 + time.tv_usec() / 1000;
    println!(
        "opened {opened} connections in {:.1} s, {failed} failed, held up to {silent_max}; processor time {} ms",
        began.elapsed().as_secs_f64(),
        cpu_ms(usage.user_time()) + cpu_ms(usage.system_time()),
    );
}

/// Connects from an address. The connection is reset when the socket is dropped.
fn connect(server: SocketAddr, from: Ipv4Addr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    // One that waits in a full backlog is given up.
    socket.connect_timeout(&server.into(), Duration::from_millis(100))?;
    Ok(socket)
}
