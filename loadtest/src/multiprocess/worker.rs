//! One process of a fleet: a swarm that is told by lines on stdin when to go on, and says on stdout how far it is.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};

use super::messages::{Counted, GO, PartOutcome, STOP, Word};
use crate::clients::{Go, Milestone, Outcome, Swarm, SwarmError};
use crate::open_files;
use crate::options::Options;
use crate::plan::Part;
use crate::progress;
use crate::run_state::RunState;

/// Drives this process's clients from the beginning to the end.
pub(crate) fn run(options: &Options, server: SocketAddr, parts: Vec<Part>) -> ExitCode {
    let ended = drive(options, server, parts);
    let word = match ended.map(PartOutcome::of) {
        Ok(Some(outcome)) => Word::Ended(Box::new(outcome)),
        Ok(None) => Word::Failed {
            reason: "it had nothing to do".to_owned(),
        },
        Err(reason) => Word::Failed { reason },
    };
    match say(&word) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn drive(options: &Options, server: SocketAddr, parts: Vec<Part>) -> Result<Outcome, String> {
    let state = Arc::new(RunState::default());
    open_files::raise().map_err(|error| error.to_string())?;
    let swarm = Swarm::new(server, options, parts, state.clone()).map_err(|error| error.to_string())?;
    let (milestone_sender, milestones) = mpsc::channel();
    let (orders, order_receiver) = mpsc::channel();
    listen(orders, state.clone());
    let swarm = std::thread::spawn(move || swarm.run(&milestone_sender, &order_receiver));
    loop {
        let word = match milestones.recv_timeout(progress::INTERVAL) {
            Ok(Milestone::Inside { seconds }) => Word::Inside { seconds },
            Ok(Milestone::LoadEnded { .. }) => Word::LoadEnded,
            Ok(Milestone::Settled) => Word::Settled,
            Err(RecvTimeoutError::Timeout) => Word::Counted(counted(&state)),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        say(&word).map_err(|error| error.to_string())?;
    }
    let outcome: Result<Outcome, SwarmError> = swarm
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    outcome.map_err(|error| error.to_string())
}

/// Takes orders in a thread of its own. Without whoever gives them nothing here makes sense.
fn listen(orders: Sender<Go>, state: Arc<RunState>) {
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            match line.as_str() {
                // A swarm that has failed tells so itself.
                GO => drop(orders.send(Go)),
                STOP => state.interrupted.store(true, Ordering::Relaxed),
                _ => break,
            }
        }
        std::process::exit(1);
    });
}

fn counted(state: &RunState) -> Counted {
    Counted {
        inside: state.joined.load(Ordering::Relaxed),
        sent: state.sent.load(Ordering::Relaxed),
        received: state.received.load(Ordering::Relaxed),
        disconnects: state.disconnects.load(Ordering::Relaxed),
    }
}

fn say(word: &Word) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, word)?;
    writeln!(stdout)?;
    stdout.flush()
}
