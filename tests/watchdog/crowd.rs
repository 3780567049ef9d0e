//! A machine on which no process is scheduled for long.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use forkade_protocol::client::{Client, NewRoom};

use crate::common::Server;
use crate::games::{Deed, use_processor};
use crate::{ANY_PORTS, number, send, this_program};

pub(crate) fn on_a_crowded_machine_no_innocent_process_is_killed() {
    let crowd = std::env::var("FORKADE_TEST_CROWD").map_or(300, |crowd| crowd.parse().expect("a number"));
    // Of the same low priority as the crowd, so that it waits for the processor with them.
    let server = Server::run(
        unimportant()
            .args(["serve", "--heartbeat-timeout-ms", "3600000"])
            .args(ANY_PORTS),
    );
    let mut rooms: Vec<[Client; 2]> = (0..4)
        .map(|pair| {
            let (mut one, mut other) = (
                server.client(&format!("one {pair}")),
                server.client(&format!("other {pair}")),
            );
            let room = one
                .create_room(NewRoom::new("sticky", "market"))
                .expect("a room is free");
            other.join_room(room.room, None).expect("a seat is free");
            [one, other]
        })
        .collect();
    let crowd = Crowd::gather(crowd);
    let began = Instant::now();
    let mut sums = vec![0; rooms.len()];
    // All work under their room's lock for many turns of the scheduler, and nearly always a process waits for it.
    while began.elapsed() < Duration::from_secs(10) {
        for clients in &mut rooms {
            for client in clients {
                send(client, &Deed::Work(20));
            }
        }
        for (clients, sum) in rooms.iter_mut().zip(&mut sums) {
            for client in clients {
                assert_eq!([number(client), number(client)], [*sum + 1, *sum + 2]);
            }
            *sum += 2;
        }
    }
    drop(crowd);
    assert!(
        server.status("lock_waits_reported_total") > 0,
        "there was nothing to be wrong about: the machine was not crowded"
    );
    assert_eq!(server.status("watchdog_kills_total"), 0, "{}", server.log());
    assert_eq!(server.status("takeovers_total"), 0);
}

/// What starts this program such that it, and all that it starts in turn, has to wait for whatever else the machine has
/// to do.
fn unimportant() -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(this_program());
    command
}

/// Uses all the processor time that it gets, until the process that started it is gone.
pub(crate) fn be_busy() -> ! {
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        use_processor(Duration::from_millis(10));
    }
    std::process::exit(0)
}

/// Busy processes, as unimportant to the rest of the machine as can be.
struct Crowd(Vec<Child>);

impl Crowd {
    fn gather(count: usize) -> Self {
        let busy = |_| {
            unimportant()
                .arg("be-busy")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .expect("this machine can run so many processes")
        };
        Self((0..count).map(busy).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}
