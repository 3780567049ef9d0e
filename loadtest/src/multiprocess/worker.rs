//! One worker process: commands arrive as lines on stdin, messages leave as lines on stdout.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};

use super::messages::{GO, Message, STOP, WorkerCounts, WorkerOutcome};
use crate::clients::{ClientRun, ClientRunError, Milestone, Outcome, Proceed};
use crate::options::Options;
use crate::plan::WorkloadPlan;
use crate::run_state::RunState;
use crate::{open_files, progress};

/// Runs this worker's clients from start to end.
pub(crate) fn run(options: &Options, server: SocketAddr, plans: Vec<WorkloadPlan>) -> ExitCode {
    let ended = drive(options, server, plans);
    let message = match ended.map(WorkerOutcome::of) {
        Ok(Some(outcome)) => Message::Ended(Box::new(outcome)),
        Ok(None) => Message::Failed {
            reason: "it had no workload".to_owned(),
        },
        Err(reason) => Message::Failed { reason },
    };
    match send(&message) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn drive(options: &Options, server: SocketAddr, plans: Vec<WorkloadPlan>) -> Result<Outcome, String> {
    let state = Arc::new(RunState::default());
    open_files::raise().map_err(|error| error.to_string())?;
    let client_run =
        ClientRun::new(server, options, plans, state.clone()).map_err(|error| error.to_string())?;
    let (milestone_sender, milestones) = mpsc::channel();
    let (commands, command_receiver) = mpsc::channel();
    read_commands(commands, state.clone());
    let client_run = std::thread::spawn(move || client_run.run(&milestone_sender, &command_receiver));
    loop {
        let message = match milestones.recv_timeout(progress::INTERVAL) {
            Ok(Milestone::AllJoined { seconds }) => Message::AllJoined { seconds },
            Ok(Milestone::LoadEnded { .. }) => Message::LoadEnded,
            Ok(Milestone::Settled) => Message::Settled,
            Err(RecvTimeoutError::Timeout) => Message::Counts(counts(&state)),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        send(&message).map_err(|error| error.to_string())?;
    }
    let outcome: Result<Outcome, ClientRunError> = client_run
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    outcome.map_err(|error| error.to_string())
}

/// Reads commands in a thread of its own. Without its parent the worker exits.
fn read_commands(commands: Sender<Proceed>, state: Arc<RunState>) {
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            match line.as_str() {
                // A client thread that has failed reports that itself.
                GO => drop(commands.send(Proceed)),
                STOP => state.interrupted.store(true, Ordering::Relaxed),
                _ => break,
            }
        }
        std::process::exit(1);
    });
}

fn counts(state: &RunState) -> WorkerCounts {
    WorkerCounts {
        joined: state.joined.load(Ordering::Relaxed),
        sent: state.sent.load(Ordering::Relaxed),
        received: state.received.load(Ordering::Relaxed),
        disconnects: state.disconnects.load(Ordering::Relaxed),
    }
}

fn send(message: &Message) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, message)?;
    writeln!(stdout)?;
    stdout.flush()
}
