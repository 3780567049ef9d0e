//! Client runs with several worker processes, broadcasts, and single clients beside many.

use super::run;

fn split(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[test]
fn several_worker_processes_give_the_figures_of_one_run() {
    let run = run(
        "workers",
        &split("--clients 14 --swarm-processes 3 --rate 20 --duration 2"),
    );
    run.assert_flawless();
    // Seven rooms of two: the workers have 3, 2 and 2 of them.
    assert_eq!(run.number("/clients"), 14.0);
    assert_eq!(run.number("/sent"), 14.0 * 20.0 * 2.0);
    assert_eq!(run.number("/received"), 2.0 * run.number("/sent"));
    assert!(run.number("/server/processes") >= 14.0 + 4.0);
    assert!(run.number("/latency_ms/p99") > 0.0);
    run.assert_timeline();
}

#[test]
fn a_worker_process_that_fails_ends_the_run_with_its_reason() {
    let run = run(
        "worker_failed",
        &split(
            "--clients 20 --swarm-processes 2 --duration 1 --server-arg=--players-max=10 --join-timeout 3",
        ),
    );
    assert_eq!(run.status, Some(3), "{}\n{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("worker process "), "{}", run.stderr);
}

#[test]
fn a_broadcast_reaches_every_recipient() {
    for (workload, more) in [
        ("broadcast", ""),
        ("announce", " --server-arg=--chat-per-minute=0"),
    ] {
        let text = format!("--workload {workload} --clients 40 --rate 10 --duration 2{more}");
        let run = run(workload, &split(&text));
        run.assert_flawless();
        assert_eq!(run.number("/sent"), 20.0, "one client sends: {}", run.stdout);
        assert_eq!(run.number("/received"), 40.0 * 20.0);
        assert!(run.number("/to_the_last_ms/p50") >= run.number("/latency_ms/p50"));
        assert!(run.stdout.contains("last recipient"), "{}", run.stdout);
    }
}

#[test]
fn growth_measures_beside_each_number_of_players() {
    let run = run(
        "growth",
        &split("growth --players 4,10 --probes 20 --takeovers 2 --rate 5"),
    );
    assert_eq!(run.status, Some(0), "{}\n{}", run.stdout, run.stderr);
    for (step, players) in [(0, 4.0), (1, 10.0)] {
        let number = |name: &str| run.number(&format!("/steps/{step}/{name}"));
        assert_eq!((number("players"), number("lost")), (players, 0.0));
        for probe in ["join_ms", "message_ms", "listing_ms", "search_ms", "takeover_ms"] {
            assert!(number(&format!("probes/{probe}/p50")) > 0.0, "{probe}");
        }
        assert!(number("population_ms/p50") > 0.0 && number("memory_kib_per_client") > 0.0);
    }
}
