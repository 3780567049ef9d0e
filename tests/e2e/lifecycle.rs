//! Promise: the server starts and stops cleanly, replaces every process that dies, and leaves no process,
//! zombie, descriptor or port behind.

use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::control_pair::ControlPair;
use crate::common::footprint::{Footprint, held, processes, running, sockets};
use crate::common::liveness::expect_no_pending_work;
use crate::common::raw_client::{End, RawClient, frame};
use crate::common::{Server, WAIT_MAX, children, eventually, is_alive, of_name, processes_below};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ClientMessage, RoomEvent, RoomId, RoomSettings, ServerMessage};
use nix::sys::signal::Signal;

/// Pids of all processes of a role.
fn pids(server: &Server, role: &str) -> Vec<u32> {
    let processes = server.ask_json("processes");
    let of_role = processes
        .as_array()
        .expect("a list")
        .iter()
        .filter(|process| process["role"] == role);
    of_role
        .map(|process| u32::try_from(process["pid"].as_u64().expect("a pid")).expect("a pid"))
        .collect()
}

fn is_zombie(pid: &u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn expect_no_zombies(server: &Server) {
    eventually("all that has ended is reaped", || {
        !processes_below(server.pid()).iter().any(is_zombie)
    });
}

#[test]
fn a_stop_answers_received_requests_tells_every_client_and_exits_with_success() {
    let mut server = Server::start(&[]);
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("relay", "den"))
        .expect("a room is free");
    let mut silent = RawClient::connect(&server);
    // The client sends many requests, and reads only after the server was told to stop.
    let mut behind = RawClient::connect_as(&server, "Behind");
    let pings: Vec<u8> = (1..=4000)
        .flat_map(|nonce| frame(&ClientMessage::Ping { nonce }))
        .collect();
    behind.send(&pings);
    let first = behind.next_message();
    assert!(
        matches!(first, Ok(ServerMessage::Pong { nonce: 1, .. })),
        "{first:?}"
    );

    server.signal(server.pid(), Signal::SIGTERM);
    let (mut words, end) = behind.rest();
    let last = words.pop();
    assert!(
        matches!(last, Some(ServerMessage::ShuttingDown { .. })),
        "{last:?}"
    );
    assert_eq!(end, End::Closed);
    for (nonce, word) in (2..).zip(words) {
        assert!(
            matches!(word, ServerMessage::Pong { nonce: answered, .. } if answered == nonce),
            "{word:?}"
        );
    }
    let (words, end) = silent.rest();
    assert!(
        matches!(words[..], [ServerMessage::ShuttingDown { .. }]) && end == End::Closed,
        "{words:?} {end:?}"
    );
    let is_last_word = |message: &ServerMessage| matches!(message, ServerMessage::ShuttingDown { .. });
    assert!(
        ann.receive_where(WAIT_MAX, is_last_word)
            .expect("told before the end")
            .is_some()
    );
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_interrupt_from_a_terminal_to_all_processes_stops_the_server_cleanly() {
    let mut server = Server::start(&[]);
    let mut ann = server.client("Ann");
    for process in processes_below(server.pid()).into_iter().chain([server.pid()]) {
        server.signal(process, Signal::SIGINT);
    }
    let is_last_word = |message: &ServerMessage| matches!(message, ServerMessage::ShuttingDown { .. });
    assert!(ann.receive_where(WAIT_MAX, is_last_word).expect("told").is_some());
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_second_stop_signal_does_not_wait_for_handlers() {
    // The watchdog ignores stopped processes.
    let mut server = Server::start(&["--drain-timeout-ms", "3600000", "--watchdog-cpu-ms", "0"]);
    let (mut ann, _bob) = (server.client("Ann"), server.client("Bob"));
    let stuck = server.handler_of("Bob").expect("he is served");
    let everybody = processes_below(server.pid());
    server.signal(stuck, Signal::SIGSTOP);
    server.signal(server.pid(), Signal::SIGTERM);
    let is_last_word = |message: &ServerMessage| matches!(message, ServerMessage::ShuttingDown { .. });
    assert!(
        ann.receive_where(WAIT_MAX, is_last_word)
            .expect("told before the end")
            .is_some()
    );
    assert!(is_alive(server.pid()) && is_alive(stuck), "once told, it waits");
    server.signal(server.pid(), Signal::SIGTERM);
    server.expect_any_end();
    server.wait();
    eventually("nothing is left running", || {
        !everybody.iter().any(|pid| is_alive(*pid))
    });
}

#[test]
fn a_hung_handler_is_killed_at_the_end_of_the_drain() {
    // The watchdog ignores stopped processes.
    let mut server = Server::start(&["--drain-timeout-ms", "300", "--watchdog-cpu-ms", "0"]);
    let _bob = server.client("Bob");
    server.signal(server.handler_of("Bob").expect("he is served"), Signal::SIGSTOP);
    server.signal(server.pid(), Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    server.expect_logged("did not exit in time: killed");
}

#[test]
fn signals_ignored_by_the_parent_work_as_usual_except_sighup() {
    let plain = crate::common::command(&[]);
    let mut shell = Command::new("bash");
    shell
        .args(["-c", "trap '' HUP QUIT CHLD; exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args());
    let server = Server::run(&mut shell);
    assert!(!ignored(server.pid(), Signal::SIGCHLD));
    let mut ann = server.client("Ann");
    let handler = server.handler_of("Ann").expect("she has one");
    server.signal(handler, Signal::SIGQUIT);
    eventually("the handler is replaced", || {
        server.status("takeovers_total") == 1
    });
    ann.ping().expect("she plays on");
    // As under nohup(1).
    assert!(ignored(server.pid(), Signal::SIGHUP));
    server.signal(server.pid(), Signal::SIGHUP);
    let _bob = server.client("Bob");
    expect_no_zombies(&server);
}

fn ignored(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = u64::from_str_radix(mask.expect("as in proc(5)").trim(), 16).expect("a mask");
    mask & 1 << (signal as i32 - 1) != 0
}

#[test]
fn the_port_can_be_bound_again_at_once() {
    let mut server = Server::start(&[]);
    let (game, console) = (server.game.to_string(), server.console.to_string());
    for _ in 0..3 {
        let clients = ["Ann", "Bob"].map(|name| server.client(name));
        assert_eq!(server.stop().code(), Some(0));
        // The server closed first, so the kernel keeps the connections in TIME_WAIT.
        server = Server::start(&["--listen", &game, "--console", &console]);
        drop(clients);
    }
    server.client("Ann").goodbye().expect("served");
}

#[test]
fn a_supervisor_that_is_killed_leaves_nothing_running() {
    // No client is removed for being silent.
    let forever = "86400000";
    let mut server = Server::start(&[
        "--heartbeat-timeout-ms",
        forever,
        "--handshake-timeout-ms",
        forever,
    ]);
    // Only the supervisor's own: a process has its parent's name until it sets its own.
    let of_role = |name| of_name(&children(server.pid()), name);
    let keepers = of_role("keeper");
    let tickers = of_role("ticker").len();
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("relay", "den"))
        .expect("a room is free");
    let _bob = server.client("Bob");
    let _silent = RawClient::connect(&server);
    let _operator = std::net::TcpStream::connect(server.console).expect("the console accepts");
    // From the kernel, because a console process would be among those counted.
    let all_are_there = || {
        let served_by = ["handler", "console", "reception"].map(|name| running(&server, name).len());
        let roles = ["keeper", "listener", "ticker"].map(|name| of_role(name).len());
        served_by[..2] == [2, 1] && served_by[2] >= keepers.len() && roles == [keepers.len(), 1, tickers]
    };
    // A connection in transfer to a keeper would be lost with it.
    eventually("all are served", all_are_there);
    // Orphaned handlers are the supervisor's own children.
    server.kill(keepers[0]);
    // Until its replacement is forked, the process is missing.
    eventually("the keeper is replaced", || {
        !of_role("keeper").contains(&keepers[0]) && all_are_there()
    });
    let everybody = processes_below(server.pid());
    assert!(everybody.len() >= keepers.len() + 1 + tickers + 3 + keepers.len());
    server.kill(server.pid());
    server.expect_any_end();
    server.wait();
    eventually("nothing is left running", || {
        !everybody.iter().any(|pid| is_alive(*pid))
    });
    let refused = std::net::TcpStream::connect(server.game).expect_err("the listener is gone");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Kills the processes of a role in turn, while a control pair plays. Afterwards the footprint is as before.
fn killed_and_replaced(role: &str) {
    let server = Server::start(&["--seat-grace-ms", "100"]);
    let control_pair = ControlPair::start(&server);
    let before = Footprint::settled(&server);
    for (round, victim) in pids(&server, role).into_iter().cycle().take(4).enumerate() {
        // The victims of the first turn have replacements by the second.
        let victim = if is_alive(victim) {
            victim
        } else {
            pids(&server, role)[0]
        };
        server.kill(victim);
        // A client that connects now may have to wait, and is served.
        let mut guest = server.client(&format!("Guest {round}"));
        guest
            .create_room(NewRoom::new("relay", "den"))
            .expect("a room is free");
        guest.act(vec![1]).expect("legal");
        guest.goodbye().expect("served");
        control_pair.expect_progress();
        let filled = || {
            pids(&server, role)
                .iter()
                .filter(|pid| **pid != 0 && **pid != victim && is_alive(**pid))
                .count()
        };
        eventually("the post is filled again", || {
            filled() == before.processes[role].0
        });
    }
    eventually("only connected clients are counted", || {
        held(&server) == before.held
    });
    expect_no_zombies(&server);
    control_pair.finish();
    expect_no_pending_work(&server);
    eventually("all resources are released", || held(&server) == [0, 0, 0]);
    eventually("no handler is left", || {
        !processes(&server).contains_key("handler")
    });
    expect_no_zombies(&server);
    server.expect_logged(&format!("the {role}"));
}

#[test]
fn a_listener_that_is_killed_is_replaced_and_nobody_notices() {
    killed_and_replaced("listener");
}

#[test]
fn a_ticker_that_is_killed_is_replaced_and_nobody_notices() {
    killed_and_replaced("ticker");
}

#[test]
fn a_keeper_that_is_killed_is_replaced_and_its_players_continue() {
    killed_and_replaced("keeper");
}

#[test]
fn connections_of_dead_keepers_are_counted_until_they_end() {
    let server = Server::start(&[
        "--connections-max",
        "8",
        "--keepers",
        "2",
        "--seat-grace-ms",
        "100",
    ]);
    for _ in 0..3 {
        let clients: Vec<Client> = (0..6)
            .map(|number| server.client(&format!("Client {number}")))
            .collect();
        let keepers = pids(&server, "keeper");
        keepers.iter().for_each(|keeper| server.kill(*keeper));
        eventually("the keepers are replaced", || {
            let now = pids(&server, "keeper");
            now.len() == 2 && now.iter().all(|keeper| *keeper != 0 && !keepers.contains(keeper))
        });
        let more: Vec<Client> = (6..8)
            .map(|number| server.client(&format!("Client {number}")))
            .collect();
        eventually("all are counted", || held(&server)[2] == 8);
        RawClient::connect(&server).expect_error(forkade_protocol::ErrorCode::ServerFull);
        for client in clients.into_iter().chain(more) {
            client.goodbye().expect("served to the end");
        }
        eventually("all connections are given back", || held(&server) == [0, 0, 0]);
    }
}

#[test]
fn adopted_handlers_that_all_die_at_once_get_one_replacement_each() {
    const CLIENTS: u64 = 24;
    let server = Server::start(&["--keepers", "1", "--connections-max", "64"]);
    let of_its_own = sockets(running(&server, "keeper")[0]);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| server.client(&format!("Client {number}")))
        .collect();
    let mut takeovers = 0;
    for round in 0..8 {
        eventually("every client has a handler", || {
            running(&server, "handler").len() == clients.len()
        });
        let handlers = running(&server, "handler");
        let keeper = running(&server, "keeper")[0];
        server.kill(keeper);
        eventually("another keeper holds their sockets", || {
            let keepers = running(&server, "keeper");
            keepers.len() == 1 && keepers[0] != keeper && sockets(keepers[0]) == of_its_own + handlers.len()
        });
        // Their deaths are reported twice: when they die, and when the supervisor, now their parent, has
        // reaped them.
        server.signal(server.pid(), Signal::SIGSTOP);
        for handler in handlers {
            server.kill(handler);
        }
        std::thread::sleep(Duration::from_millis(round));
        server.signal(server.pid(), Signal::SIGCONT);
        for client in &mut clients {
            client.ping().expect("served");
        }
        takeovers += CLIENTS;
        eventually("all successors are counted", || {
            server.status("takeovers_total") >= takeovers
        });
        assert_eq!(server.status("takeovers_total"), takeovers, "round {round}");
    }
    expect_no_pending_work(&server);
    for client in clients {
        assert_eq!(client.counters().resumes, 0, "a connection was lost");
        client.goodbye().expect("served");
    }
    expect_no_zombies(&server);
}

/// How a client can end.
#[derive(Debug, Clone, Copy)]
enum Way {
    Goodbye,
    Close,
    Reset,
    HalfClose,
    Silence,
}

#[test]
fn a_client_that_ends_in_any_way_releases_all_its_resources() {
    let server = Server::start(&["--seat-grace-ms", "300", "--heartbeat-timeout-ms", "4000"]);
    let mut host = server.client("Host");
    let room = host
        .create_room(NewRoom {
            settings: RoomSettings {
                seats: 2,
                ..RoomSettings::default()
            },
            ..NewRoom::new("relay", "den")
        })
        .expect("a room is free")
        .room;
    let heard = all_events(host);
    let before = Footprint::settled(&server);
    for way in [Way::Goodbye, Way::Close, Way::Reset, Way::HalfClose, Way::Silence] {
        // The same name and the only seat each time: both must be free again.
        let guest = guest_in(&server, room);
        let went_at = Instant::now();
        match way {
            Way::Goodbye => {
                let mut guest = guest;
                guest.send_message(&ClientMessage::Goodbye);
                assert_eq!(guest.rest().1, End::Closed);
            }
            Way::Close => drop(guest),
            Way::Reset => guest.reset(),
            Way::HalfClose => {
                guest.half_close();
                let mut guest = guest;
                assert_eq!(guest.rest().1, End::Closed);
            }
            Way::Silence => {
                let mut guest = guest;
                guest.expect_error(forkade_protocol::ErrorCode::Silent);
            }
        }
        let mut seen = Vec::new();
        while !seen.contains(&RoomEvent::Left { seat: 1 }) {
            seen.push(heard.recv_timeout(WAIT_MAX).expect("the host hears of it"));
        }
        let joined = RoomEvent::Joined {
            seat: 1,
            name: "Guest".to_owned(),
        };
        let lost = RoomEvent::Connection {
            seat: 1,
            connected: false,
        };
        let left = RoomEvent::Left { seat: 1 };
        match way {
            Way::Goodbye => assert_eq!(seen, [joined, left]),
            _ => {
                assert_eq!(seen, [joined, lost, left], "{way:?}");
                assert!(
                    // The server counts in whole milliseconds.
                    went_at.elapsed() >= Duration::from_millis(298),
                    "the seat was kept for the grace"
                );
            }
        }
        before.expect_again(&server);
    }
    expect_no_zombies(&server);
}

/// The events in the client's room, which a thread receives while it sends heartbeats.
fn all_events(mut client: Client) -> Receiver<RoomEvent> {
    let (events, heard) = channel();
    std::thread::spawn(move || {
        while let Ok(message) = client.receive(WAIT_MAX) {
            if let Some(ServerMessage::Event { event, .. }) = message
                && events.send(event).is_err()
            {
                return;
            }
        }
    });
    heard
}

fn guest_in(server: &Server, room: RoomId) -> RawClient {
    let mut guest = RawClient::connect_as(server, "Guest");
    guest.send_message(&ClientMessage::JoinRoom {
        request: 1,
        room,
        passcode: None,
    });
    let joined = guest.next_message();
    assert!(matches!(joined, Ok(ServerMessage::Joined { .. })), "{joined:?}");
    guest
}
