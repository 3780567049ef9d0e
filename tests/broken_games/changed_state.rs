//! A new program in which a game's state has another form, although its `STATE_VERSION` is the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::codec;
use nix::sys::signal::Signal;

use crate::common::{Server, eventually};
use crate::games::Ledger;
use crate::number;

/// While there is this file in the server's folder, the program that is started has the other form.
const CHANGED: &str = "changed";

/// Adds the game in one of its two forms.
pub(crate) fn with_ledger(server: forkade::Server) -> forkade::Server {
    match Path::new(CHANGED).exists() {
        true => server.game::<Ledger<[u16; 2]>>(),
        false => server.game::<Ledger<u16>>(),
    }
}

pub(crate) fn a_program_that_cannot_read_a_running_match_is_refused_with_game_and_room() {
    let folder = std::env::temp_dir().join(format!("forkade-ledger-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder can be made");
    let this_program = std::env::current_exe().expect("a running program has a file");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"];
    let server = Server::run(Command::new(this_program).args(arguments).current_dir(&folder));
    let mut clients = [server.client("Ann"), server.client("Bob")];
    for (nth, client) in clients.iter_mut().enumerate() {
        let game = ["relay", "ledger"][nth];
        client
            .create_room(NewRoom::new(game, "books"))
            .expect("a room is free");
    }
    let [_, bob] = &mut clients;
    let add = |client: &mut Client| {
        client
            .act(codec::encode(&7_u32).expect("encodes"))
            .expect("legal");
        number(client)
    };
    assert_eq!(add(bob), 7);
    fs::write(folder.join(CHANGED), "").expect("a file can be written");
    server.signal(server.pid(), Signal::SIGUSR2);
    server.expect_logged("is refused, and nothing has changed: the match of ledger in room 2 cannot go on");
    assert_eq!(add(bob), 14, "the old program goes on");
    fs::remove_file(folder.join(CHANGED)).expect("it is there");
    server.signal(server.pid(), Signal::SIGUSR2);
    eventually("the upgrade is done", || {
        server.log().contains("upgraded: all processes run")
    });
    assert_eq!(add(bob), 21);
    assert_eq!(bob.counters().resumes, 0);
    let _ = fs::remove_dir_all(&folder);
}
