//! Each workload, and several at once, for a short time: every message arrives, and the counts add up.

use serde_json::Value;

use super::{run, temporary};

#[test]
fn ten_relay_clients_receive_everything_once_and_in_order() {
    let run = run(
        "relay",
        &[
            "--clients",
            "10",
            "--rate",
            "20",
            "--duration",
            "2",
            "--payload",
            "200",
        ],
    );
    run.assert_flawless();
    assert_eq!(run.number("/sent"), 10.0 * 20.0 * 2.0);
    assert_eq!(run.number("/received"), 2.0 * run.number("/sent"));
    assert!(run.number("/joins_per_second") > 0.0);
    for pair in ["p50", "p90", "p99", "p999", "max"].windows(2) {
        let percentile = |name| run.number(&format!("/latency_ms/{name}"));
        assert!(percentile(pair[0]) <= percentile(pair[1]));
    }
    assert!(run.number("/latency_ms/p50") > 0.0);
    assert!(
        run.number("/server/processes") >= 10.0 + 4.0,
        "one for each client, and the roles"
    );
    assert!(run.number("/server/memory_kib_per_client") > 10.0);
    assert!(run.number("/server/cpu_percent") >= 0.0);
    assert_eq!(run.number("/takeovers"), 0.0);
    assert!(
        run.stdout.contains("0 lost, 0 duplicated, 0 reordered"),
        "{}",
        run.stdout
    );
}

#[test]
fn large_rooms_and_a_closed_loop_lose_nothing() {
    let run = run(
        "closed_loop",
        &[
            "--rooms",
            "2",
            "--room-size",
            "5",
            "--rate",
            "0",
            "--duration",
            "2",
        ],
    );
    run.assert_flawless();
    assert!(run.number("/sent") > 10.0);
    assert_eq!(run.number("/received"), 5.0 * run.number("/sent"));
}

#[test]
fn pairs_play_matches_to_correct_results() {
    for game in ["tictactoe", "connect4"] {
        let run = run(
            game,
            &[
                "--workload",
                game,
                "--clients",
                "10",
                "--rate",
                "0",
                "--duration",
                "2",
            ],
        );
        run.assert_flawless();
        assert!(run.number("/matches") >= 5.0, "{}", run.stdout);
        assert_eq!(run.number("/received"), 2.0 * run.number("/sent"));
    }
}

#[test]
fn the_lobby_answers_every_request_consistently() {
    let run = run(
        "lobby",
        &[
            "--workload",
            "lobby",
            "--clients",
            "20",
            "--rate",
            "0",
            "--duration",
            "3",
        ],
    );
    run.assert_flawless();
    assert_eq!(run.number("/received"), run.number("/sent"));
    for what in [
        "created",
        "joined",
        "watched",
        "matched_quickly",
        "left",
        "found",
        "listed",
        "came_back_as_new",
    ] {
        assert!(
            run.number(&format!("/workloads/0/details/{what}")) >= 1.0,
            "{what}: {}",
            run.stdout
        );
    }
}

#[test]
fn every_chat_line_reaches_each_recipient_once_and_in_order() {
    let run = run(
        "chat",
        &[
            "--workload",
            "chat",
            "--clients",
            "12",
            "--room-size",
            "4",
            "--rate",
            "2",
            "--duration",
            "3",
        ],
    );
    run.assert_flawless();
    // In turn to a room of four, to the lobby of twelve, and to one client.
    let lines = run.number("/sent") / 12.0;
    assert_eq!(lines, 6.0);
    assert_eq!(run.number("/received"), 12.0 * (2.0 * 4.0 + 2.0 * 12.0 + 2.0));
}

#[test]
fn chat_above_the_rate_limit_is_refused_and_nothing_else_is_lost() {
    let run = run(
        "chat_too_fast",
        &[
            "--workload",
            "chat",
            "--clients",
            "4",
            "--rate",
            "20",
            "--duration",
            "2",
            "--say",
            "whisper",
        ],
    );
    run.assert_flawless();
    let too_fast = run.number("/workloads/0/details/chat_too_fast");
    assert!(too_fast > 0.0, "{}", run.stdout);
    assert_eq!(run.number("/received"), run.number("/sent") - too_fast);
}

#[test]
fn workloads_of_a_file_run_side_by_side_and_are_counted_separately() {
    let mix = temporary("mix", "toml");
    let text = "[[workload]]\nkind = \"relay\"\nclients = 6\nroom_size = 3\nrate = 20\npayload = 100\n\
                [[workload]]\nkind = \"connect4\"\nrooms = 2\n\
                [[workload]]\nkind = \"lobby\"\nclients = 5\n";
    std::fs::write(&mix, text).expect("a file");
    let mix = mix.to_str().expect("a path in UTF-8");
    let run = run("mix", &["--mix", mix, "--duration", "2", "--ramp", "0.5"]);
    run.assert_flawless();
    assert_eq!(run.number("/clients"), 15.0);
    assert!(run.number("/join_seconds") >= 0.4, "{}", run.stdout);
    assert_eq!(
        run.number("/workloads/0/received"),
        3.0 * run.number("/workloads/0/sent")
    );
    assert_eq!(run.number("/workloads/0/sent"), 6.0 * 20.0 * 2.0);
    let sums = [0, 1, 2].map(|part| run.number(&format!("/workloads/{part}/received")));
    assert!(sums.iter().all(|received| *received > 0.0), "{sums:?}");
    assert_eq!(sums.iter().sum::<f64>(), run.number("/received"));
}

#[test]
fn the_timeline_has_every_second_and_the_page_shows_it() {
    let page = temporary("timeline", "html");
    let to = page.to_str().expect("a path in UTF-8");
    let run = run(
        "timeline",
        &[
            "--clients",
            "4",
            "--rate",
            "20",
            "--duration",
            "3",
            "--report",
            to,
        ],
    );
    let page = std::fs::read_to_string(&page).expect("a page");
    assert!(page.contains("Latency over time") && page.trim_end().ends_with("</html>"));
    run.assert_flawless();
    run.assert_timeline();
    let points = run.json["timeline"].as_array().expect("a list");
    let is_above_zero = |point: &Value, figure| point.pointer(figure).and_then(Value::as_f64) > Some(0.0);
    let later = &points[usize::from(points.len() > 1)..];
    for figure in ["/received_per_second", "/latency_ms/p99"] {
        assert!(
            later.iter().any(|point| is_above_zero(point, figure)),
            "{figure}: {points:#?}"
        );
    }
    assert!(run.number("/server_timeline/0/memory_kib") > 1000.0);
}
