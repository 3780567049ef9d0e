//! Processes of the server are killed during the load, and every message still arrives once and in order.

use super::{Server, run};

#[test]
fn killed_handlers_lose_no_message_and_no_connection() {
    let run = run(
        "kills",
        &[
            "--clients",
            "10",
            "--rate",
            "50",
            "--duration",
            "3",
            "--kill-handlers-per-second",
            "5",
        ],
    );
    run.assert_flawless();
    assert!(run.number("/handlers_killed") >= 1.0);
    assert!(run.number("/takeovers") >= 1.0);
}

#[test]
fn every_role_may_be_killed_without_a_loss() {
    let run = run(
        "chaos",
        &[
            "--clients",
            "20",
            "--rate",
            "20",
            "--duration",
            "4",
            "--chaos",
            "handler=5/s,listener=1/s,ticker=1/s",
        ],
    );
    run.assert_flawless();
    for role in ["handler", "listener", "ticker"] {
        assert!(
            run.number(&format!("/chaos/killed/{role}")) >= 1.0,
            "{role}: {}",
            run.stdout
        );
    }
    for role in ["listener", "ticker"] {
        let killed = run.number(&format!("/chaos/killed/{role}"));
        assert_eq!(
            run.number(&format!("/chaos/restarts/{role}")),
            killed,
            "{}",
            run.stdout
        );
    }
}

#[test]
fn keepers_may_be_killed_while_players_join_and_leave() {
    let run = run(
        "chaos_lobby",
        &[
            "--workload",
            "lobby",
            "--clients",
            "20",
            "--rate",
            "10",
            "--duration",
            "4",
            "--chaos",
            "keeper=0.5/s,listener=2/s",
            "--max-lost",
            "0",
        ],
    );
    assert_eq!(run.status, Some(0), "{}\n{}", run.stdout, run.stderr);
    for figure in [
        "/lost",
        "/mismatches",
        "/rejected",
        "/disconnects",
        "/sessions_lost",
    ] {
        assert_eq!(run.number(figure), 0.0, "{figure}: {}", run.stdout);
    }
    assert!(run.number("/chaos/killed/keeper") >= 1.0, "{}", run.stdout);
    assert!(
        run.number("/workloads/0/details/came_back_as_new") >= 1.0,
        "{}",
        run.stdout
    );
}

#[test]
fn an_unknown_role_cannot_be_killed() {
    let run = run(
        "no_such_role",
        &["--clients", "2", "--duration", "1", "--chaos", "dragon=1/s"],
    );
    assert_eq!(run.status, Some(3), "{}", run.stderr);
    assert!(
        run.stderr.contains("no process of the role dragon; it has: "),
        "{}",
        run.stderr
    );
}

#[test]
fn processes_of_a_running_server_on_this_machine_can_be_killed() {
    let server = Server::start();
    let run = run(
        "running_server_chaos",
        &[
            "--server",
            server.address("game"),
            "--console",
            server.address("console"),
            "--clients",
            "6",
            "--duration",
            "2",
            "--chaos",
            "handler=5/s",
        ],
    );
    run.assert_flawless();
    assert!(run.number("/handlers_killed") >= 1.0);
}
