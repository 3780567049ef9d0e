//! Handlers that serve several clients, one of which kills them.

use std::process::Command;

use forkade_protocol::ClientMessage;

use crate::common::{Server, eventually};
use crate::games::Deed;
use crate::{deed, number, together};

pub(crate) fn a_client_that_kills_a_shared_handler_is_soon_isolated_and_the_others_continue() {
    let server = start_with_processes_of_many();
    let (mut ann, mut bob, _) = together(&server);
    let (mut cid, mut dan) = (server.client("Cid"), server.client("Dan"));
    assert_eq!(
        server.handler_of("Ann"),
        server.handler_of("Dan"),
        "all are in one process"
    );
    ann.send(&ClientMessage::Act {
        request: 9,
        action: deed(&Deed::Abort),
    })
    .expect("the session lives");
    eventually("the frame was refused", || server.status("blamed_total") == 1);
    bob.act(deed(&Deed::Add(2))).expect("legal");
    assert_eq!(number(&mut bob), 2);
    for client in [&mut bob, &mut cid, &mut dan] {
        client.ping().expect("the session lives");
        assert_eq!(client.counters().resumes, 0);
    }
    assert_eq!(
        server.handler_of("Bob"),
        server.handler_of("Dan"),
        "they are still together"
    );
    // The other clients lost one process: the second and third served the culprit alone.
    let deaths = || server.log().matches("died (SIGABRT): replaced").count();
    eventually("three deaths are in the log", || deaths() >= 3);
    assert_eq!(deaths(), 3, "{}", server.log());
}

pub(crate) fn a_client_that_killed_a_shared_handler_stays_isolated_under_the_next_keeper() {
    let server = start_with_processes_of_many();
    let (mut ann, mut bob, _) = together(&server);
    let file = std::env::temp_dir().join(format!("forkade-abort-once-{}", std::process::id()));
    std::fs::write(&file, "").expect("a file can be written");
    ann.act(deed(&Deed::AbortOnce(file)))
        .expect("the successor does it");
    assert_eq!((number(&mut ann), number(&mut bob)), (1, 1));
    assert_ne!(server.handler_of("Ann"), server.handler_of("Bob"), "she is alone");
    let keeper = server.keeper();
    server.kill(keeper);
    server.keeper_after(keeper);
    eventually("it has adopted both processes", || server.status("handlers") == 2);
    for name in ["Ann", "Bob"] {
        let handler = server.handler_of(name).expect("it is served");
        server.kill(handler);
        eventually("it has a successor", || {
            server.handler_of(name).is_some_and(|pid| pid != handler)
        });
    }
    let others = ["Eve", "Fay", "Gil"].map(|name| server.client(name));
    for name in ["Eve", "Fay", "Gil"] {
        assert_eq!(
            server.handler_of(name),
            server.handler_of("Bob"),
            "there is a place"
        );
        assert_ne!(server.handler_of(name), server.handler_of("Ann"));
    }
    for client in [ann, bob].into_iter().chain(others) {
        assert_eq!(client.counters().resumes, 0);
        client.goodbye().expect("the session lives");
    }
}

/// One keeper, whose handlers serve up to sixteen clients each.
fn start_with_processes_of_many() -> Server {
    Server::run(
        Command::new(std::env::current_exe().expect("this program has a path"))
            .args(["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"])
            .args([
                "--clients-per-handler",
                "16",
                "--connections-max",
                "900",
                "--keepers",
                "1",
            ]),
    )
}
