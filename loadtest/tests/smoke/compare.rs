//! A small comparison of Forkade with other servers, which names the peers that are missing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{run, temporary};

const PYTHON_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/python/echo_server.py");

/// The Forkade servers that are measured by default: one process per client, and many clients per process.
const FORKADE: &str = "forkade";
const SHARED_HANDLERS: &str = "forkade --clients-per-handler 256";

fn python_runs() -> bool {
    Command::new("python3")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

#[test]
fn a_comparison_measures_installed_peers_and_names_the_others() {
    // A directory of peers without the packages of Colyseus.
    let peers = temporary("peers", "d");
    fs::create_dir_all(peers.join("python")).expect("a directory");
    fs::copy(PYTHON_SERVER, peers.join("python/echo_server.py")).expect("the server is there");
    let page = temporary("compare", "html");
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let (peers, to) = (text(&peers), text(&page));
    let arguments = "compare --clients 2,4 --duration 0.5 --rate 20 --peers-dir";
    let arguments: Vec<&str> = arguments
        .split(' ')
        .chain([peers.as_str(), "--report", &to])
        .collect();
    let run = run("compare", &arguments);
    assert_eq!(run.status, Some(0), "{}\n{}", run.stdout, run.stderr);

    let (installed, skipped) = match python_runs() {
        true => (
            &[FORKADE, SHARED_HANDLERS, "floor", "python"][..],
            &["colyseus"][..],
        ),
        false => (
            &[FORKADE, SHARED_HANDLERS, "floor"][..],
            &["python", "colyseus"][..],
        ),
    };
    let told: Vec<&str> = run.json["skipped"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(told.len(), skipped.len(), "{told:?}");
    for (told, peer) in told.iter().zip(skipped) {
        assert!(told.starts_with(&format!("{peer} is not installed")), "{told}");
        assert!(run.stdout.contains(&format!("skipped: {told}")), "{}", run.stdout);
    }
    let summaries = run.json["summaries"].as_array().expect("a list");
    assert_eq!(summaries.len(), 2 * installed.len());
    for (summary, entrant) in summaries.iter().zip(installed.iter().cycle()) {
        assert_eq!(summary["entrant"], *entrant);
        for figure in [
            "joins_per_second",
            "paced_p50_ms",
            "paced_p99_ms",
            "messages_in_per_second",
            "cpu_us_per_message",
            "memory_kib_per_client",
        ] {
            let measured = summary[figure].as_f64();
            // The memory of so few clients may be less than what the process frees meanwhile.
            let may_be_less = figure == "memory_kib_per_client";
            assert!(
                measured.is_some_and(|measured| measured > 0.0 || may_be_less),
                "{entrant}: {figure} is {measured:?}"
            );
        }
    }
    for measurement in run.json["measurements"].as_array().expect("a list") {
        for broken in ["lost", "duplicated", "reordered", "mismatches", "disconnects"] {
            assert_eq!(measurement["figures"][broken], 0, "{broken}: {measurement:#}");
        }
    }
    let page = fs::read_to_string(&page).expect("a page");
    assert!(page.contains("Memory per client") && page.trim_end().ends_with("</html>"));
}

#[test]
fn a_server_that_does_not_start_fails_the_comparison_but_no_other_measurement() {
    let arguments = "compare --clients 2 --duration 0.2 --peers floor --forkade --players-max=0";
    let run = run("compare_failed", &arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(run.status, Some(3), "{}\n{}", run.stdout, run.stderr);
    assert!(
        run.stdout
            .contains("FAILED: forkade --players-max=0 was not measured"),
        "{}",
        run.stdout
    );
    assert!(run.number("/summaries/1/messages_in_per_second") > 0.0);
}

#[test]
fn a_peer_refuses_what_it_cannot_do() {
    for (arguments, reason) in [
        (
            "--peer python --room-size 2",
            "a room of python has at most 1 members",
        ),
        ("--peer floor --workload chat", "floor cannot do chat"),
        ("--peer floor --chaos handler=1/s", "floor has no console"),
        (
            "--peer colyseus --peers-dir /nowhere",
            "colyseus is not installed",
        ),
        (
            "compare --clients 3",
            "rooms have two members, so the number must be even",
        ),
    ] {
        let run = run("refused_peer", &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(run.status, Some(2), "{arguments}: {}", run.stderr);
        assert!(run.stderr.contains(reason), "{arguments}: {}", run.stderr);
    }
}
