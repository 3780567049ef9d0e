//! Promise: the isolation dial. One handler serves as many clients as configured, with the guarantees of a
//! handler of one: a killed handler costs none of its clients a byte, a client that kills its handler is soon
//! served alone, and clients in one room meet in one handler.

use std::collections::BTreeMap;

use forkade_protocol::client::Client;

use crate::common::footprint::sockets;
use crate::common::operator::Operator;
use crate::common::pair::Pair;
use crate::common::raw_client::{RawClient, handshake};
use crate::common::{Server, command, eventually, processes_below};

/// One keeper, so that the handlers can be counted.
const ONE_KEEPER: [&str; 4] = ["--connections-max", "900", "--keepers", "1"];

fn start(arguments: &[&str]) -> Server {
    Server::start(&[&ONE_KEEPER[..], arguments].concat())
}

/// Number of clients of each handler, when all clients that have greeted have left the reception.
fn served(server: &Server) -> BTreeMap<u64, usize> {
    let mut served = BTreeMap::new();
    eventually("all have left the reception", || {
        let processes = server.ask_json("processes");
        let processes = processes.as_array().expect("a list");
        served.clear();
        for process in processes.iter().filter(|process| process["role"] == "handler") {
            *served.entry(process["pid"].as_u64().expect("a pid")).or_default() += 1;
        }
        !processes
            .iter()
            .any(|process| process["role"] == "reception" && process["player"].is_string())
    });
    served
}

fn connect_clients(server: &Server, count: usize) -> Vec<Client> {
    (0..count)
        .map(|nth| server.client(&format!("Client{nth}")))
        .collect()
}

#[test]
fn clients_share_handlers_up_to_the_limit_with_room_left_for_moves() {
    let server = start(&["--clients-per-handler", "8"]);
    let clients = connect_clients(&server, 20);
    let served = served(&server);
    let mut counts: Vec<usize> = served.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [6, 7, 7]);
    for client in clients {
        client.goodbye().expect("the session lives");
    }
    eventually("all places are free again", || self::served(&server).is_empty());
    server.expect_no_errors();
}

#[test]
fn by_default_each_client_has_its_own_handler_and_there_are_no_spares() {
    let server = start(&[]);
    let clients = connect_clients(&server, 5);
    assert_eq!(served(&server).into_values().collect::<Vec<_>>(), [1; 5]);
    assert_eq!(server.status("spare_handlers"), 0);
    drop(clients);
}

#[test]
fn a_killed_handler_loses_no_message_of_any_of_its_clients() {
    let server = start(&["--clients-per-handler", "16"]);
    let mut clients = connect_clients(&server, 14).into_iter();
    let mut pairs = Vec::new();
    while let (Some(one), Some(other)) = (clients.next(), clients.next()) {
        pairs.push(Pair::in_new_room(one, other));
    }
    let ports: Vec<_> = pairs.iter().map(|pair| pair.clients[0].local_addr()).collect();
    for round in 1..=10 {
        let served = served(&server);
        assert_eq!(served.len(), 1, "all are in one process again");
        pairs.iter_mut().for_each(|pair| pair.send(5));
        for pid in served.keys() {
            server.kill(u32::try_from(*pid).expect("a pid"));
        }
        pairs.iter_mut().for_each(|pair| pair.send(5));
        pairs.iter_mut().for_each(Pair::receive);
        assert_eq!(server.status("takeovers_total"), round);
    }
    let ports_now: Vec<_> = pairs.iter().map(|pair| pair.clients[0].local_addr()).collect();
    assert_eq!(ports_now, ports, "no client had to reconnect");
    server.expect_no_errors();
}

#[test]
fn clients_of_one_handler_survive_the_death_of_their_keeper_and_then_of_the_handler() {
    let server = start(&["--clients-per-handler", "8"]);
    let of_its_own = sockets(server.keeper());
    let mut clients = connect_clients(&server, 6).into_iter();
    let mut pairs = Vec::new();
    while let (Some(one), Some(other)) = (clients.next(), clients.next()) {
        pairs.push(Pair::in_new_room(one, other));
    }
    for _ in 0..3 {
        let killed = server.keeper();
        pairs.iter_mut().for_each(|pair| pair.send(3));
        server.kill(killed);
        pairs.iter_mut().for_each(|pair| pair.send(3));
        pairs.iter_mut().for_each(Pair::receive);
        let keeper = server.keeper_after(killed);
        eventually("it has adopted all", || sockets(keeper) == of_its_own + 6);
        let (before, takeovers) = (served(&server), server.status("takeovers_total"));
        for pid in before.keys() {
            server.kill(u32::try_from(*pid).expect("a pid"));
        }
        pairs.iter_mut().for_each(|pair| pair.send(3));
        pairs.iter_mut().for_each(Pair::receive);
        assert_eq!(server.status("takeovers_total"), takeovers + 1);
    }
    assert_eq!(server.status("resumes_total"), 0);
    let mut newcomer = server.client("Newcomer");
    newcomer.ping().expect("new clients are served");
}

#[test]
fn a_client_that_joins_a_room_moves_to_the_handler_of_the_others_during_play() {
    let server = start(&["--clients-per-handler", "8"]);
    let mut clients = connect_clients(&server, 14);
    let (last, first) = (clients.pop().expect("14"), clients.remove(0));
    let (first_name, last_name) = ("Client0", "Client13");
    assert_ne!(server.handler_of(first_name), server.handler_of(last_name));
    let port = last.local_addr();
    let mut pair = Pair::in_new_room(first, last);
    pair.send(50);
    pair.receive();
    eventually("both are served by one process", || {
        pair.send(2);
        pair.receive();
        server.handler_of(first_name) == server.handler_of(last_name)
    });
    pair.send(50);
    pair.receive();
    assert_eq!(pair.clients[1].local_addr(), port);
    assert_eq!(
        (server.status("takeovers_total"), server.status("resumes_total")),
        (0, 0),
        "no process died of it"
    );
    server.expect_no_errors();
}

#[test]
fn clients_of_a_room_meet_in_one_handler_while_all_handlers_are_killed() {
    let server = start(&["--clients-per-handler", "6"]);
    let mut clients = connect_clients(&server, 24);
    let late = clients.split_off(12);
    let mut pairs: Vec<Pair> = Vec::new();
    for (one, other) in clients.into_iter().zip(late) {
        pairs.push(Pair::in_new_room(one, other));
        for pid in served(&server).into_keys() {
            // Some handlers have ended by themselves, having no client left.
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        pairs.iter_mut().for_each(|pair| pair.send(4));
        pairs.iter_mut().for_each(Pair::receive);
    }
    assert_eq!(server.status("resumes_total"), 0, "no connection was lost");
    for pair in pairs {
        for client in pair.clients {
            client.goodbye().expect("the session lives");
        }
    }
    eventually("no player is left", || server.status("connections") == 0);
}

#[test]
fn a_console_process_that_took_over_serves_no_players() {
    let server = start(&["--clients-per-handler", "8"]);
    let mut operator = Operator::new(&server);
    operator.ask("status");
    let processes = operator.ask_json("processes");
    let console = processes.as_array().expect("a list").iter();
    let console = console.clone().find(|process| process["role"] == "console");
    let pid = console
        .and_then(|console| console["pid"].as_u64())
        .expect("there is one");
    server.kill(u32::try_from(pid).expect("a pid"));
    operator.ask("status");
    for mut client in connect_clients(&server, 20) {
        client.ping().expect("it is served");
    }
}

#[test]
fn empty_handlers_end_and_a_stop_does_not_wait_for_them() {
    let mut server = start(&["--clients-per-handler", "8", "--drain-timeout-ms", "3600000"]);
    let mut clients = connect_clients(&server, 14);
    // The clients of the second handler move one after another to the first, and leave from there.
    while clients.len() > 1 {
        let (last, first) = (clients.pop().expect("two"), clients.remove(0));
        let mut pair = Pair::in_new_room(first, last);
        pair.send(10);
        pair.receive();
        for client in pair.clients {
            client.goodbye().expect("the session lives");
        }
    }
    eventually("no player is left", || server.status("connections") == 0);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn spare_handlers_are_forked_ahead_within_their_limits() {
    let server = start(&["--spare-handlers", "2..8"]);
    let spares = || {
        eventually("as many are ready as should be", || {
            server.status("spare_handlers") >= 2
        });
        processes_below(server.pid())
    };
    for nth in 0..6 {
        let before = spares();
        let name = format!("Client{nth}");
        let client = server.client(&name);
        let handler = server.handler_of(&name).expect("it is served");
        assert!(before.contains(&handler), "{handler} was not among {before:?}");
        client.goodbye().expect("the session lives");
        eventually("its process is not used again", || {
            !processes_below(server.pid()).contains(&handler)
        });
    }
    // More at once than there are spares.
    let mut many: Vec<_> = (0..100).map(|_| RawClient::connect(&server)).collect();
    for (nth, client) in many.iter_mut().enumerate() {
        client.send(&handshake(&format!("crowd {nth}")));
    }
    eventually("under pressure there are more", || {
        server.status("spare_handlers") == 8
    });
    drop(many);
    eventually("when it is quiet they go", || {
        server.status("spare_handlers") == 2
    });
    server.expect_no_errors();
}

#[test]
fn a_handler_is_reused_for_as_many_clients_as_its_limit_allows() {
    let server = start(&["--handler-life", "3"]);
    let mut pids = Vec::new();
    for nth in 0..7 {
        let name = format!("Client{nth}");
        let mut client = server.client(&name);
        client.ping().expect("the session lives");
        pids.push(server.handler_of(&name).expect("it is served"));
        let handlers = server.status("handlers");
        client.goodbye().expect("the session lives");
        eventually("its place is free", || {
            server.status("connections") == 0 && server.status("handlers") <= handlers
        });
    }
    let (first, second, third) = (pids[0], pids[3], pids[6]);
    assert_eq!(pids, [first, first, first, second, second, second, third]);
    assert!(first != second && second != third);
    server.expect_no_errors();
}

#[test]
fn a_killed_spare_handler_affects_nobody() {
    let server = start(&["--spare-handlers", "3..3"]);
    eventually("they are ready", || server.status("spare_handlers") == 3);
    let of_keeper = |server: &Server| {
        let processes = server.ask_json("processes");
        let keeper = processes.as_array().expect("a list").iter();
        let keeper = keeper.clone().find(|process| process["role"] == "keeper");
        let pid = keeper
            .and_then(|keeper| keeper["pid"].as_u64())
            .expect("there is one");
        processes_below(u32::try_from(pid).expect("a pid"))
    };
    let consoles: Vec<u32> = server
        .ask_json("processes")
        .as_array()
        .expect("a list")
        .iter()
        .filter(|process| process["role"] == "console")
        .filter_map(|process| u32::try_from(process["pid"].as_u64()?).ok())
        .collect();
    for pid in of_keeper(&server)
        .into_iter()
        .filter(|pid| !consoles.contains(pid))
    {
        let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    let mut clients = connect_clients(&server, 5);
    for client in &mut clients {
        client.ping().expect("it is served");
    }
    eventually("others are ready", || server.status("spare_handlers") == 3);
}

#[test]
fn an_invalid_isolation_setting_is_refused_with_the_reason() {
    for (arguments, reason) in [
        (vec!["--clients-per-handler", "0"], "a number from 1 to 256"),
        (vec!["--clients-per-handler", "257"], "a number from 1 to 256"),
        (
            vec!["--clients-per-handler", "8", "--handler-life", "7"],
            "cannot serve 8 clients at once and 7 in its lifetime",
        ),
        (vec!["--spare-handlers", "5..2"], "the smaller one first"),
        (vec!["--spare-handlers", "many"], "two numbers up to 250"),
        (vec!["--spare-handlers", "0..251"], "two numbers up to 250"),
    ] {
        let output = command(&arguments).output().expect("it can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

#[test]
fn silent_connections_occupy_a_slot_and_no_handler_of_their_own() {
    for dial in ["1", "256"] {
        let server = start(&["--clients-per-handler", dial, "--handshake-timeout-ms", "600000"]);
        let processes = processes_below(server.pid()).len();
        // More than one reception has room for.
        let silent: Vec<_> = (0..300).map(|_| server.connect()).collect();
        eventually("all are there", || server.status("connections") == 300);
        let mut client = server.client("Speaker");
        for _ in 0..100 {
            client.ping().expect("no player is in the way");
        }
        assert_eq!(served(&server).len(), 1);
        let receptions = server.status("receptions");
        assert!((2..=3).contains(&receptions), "{receptions} receptions");
        eventually("no other process was forked", || {
            // One reception was there before; the speaker has a handler.
            processes_below(server.pid()).len() as u64 == processes as u64 + receptions
        });
        drop(silent);
        eventually("their places are free", || server.status("connections") == 1);
        eventually("one reception is enough", || server.status("receptions") == 1);
        client.ping().expect("the session lives");
        server.expect_no_errors();
    }
}
