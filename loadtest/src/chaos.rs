//! Kills random handler processes of the server that was started here.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::console::{Console, ConsoleError};
use crate::proc_figures;
use crate::random::Random;
use crate::schedule::Schedule;

/// The process list is asked for anew when it is older than this. Its replacements for the killed ones are fair game.
const LIST_AGE_MAX: Duration = Duration::from_secs(1);

/// Kills handlers on a schedule.
#[derive(Debug)]
pub(crate) struct HandlerKiller {
    root: u32,
    began: Instant,
    schedule: Schedule,
    random: Random,
    victims: Vec<u32>,
    listed: Option<Instant>,
    killed: u64,
}

impl HandlerKiller {
    /// A killer of `rate` handlers per second from now on, below the server's root process.
    pub(crate) fn new(root: u32, rate: f64, seed: u64) -> Self {
        Self {
            root,
            began: Instant::now(),
            schedule: Schedule::new(0, rate),
            random: Random::new(seed, u64::MAX - 1),
            victims: Vec::new(),
            listed: None,
            killed: 0,
        }
    }

    /// How long it is until the next kill.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_nanos(self.schedule.intended()).saturating_sub(self.began.elapsed())
    }

    /// Handlers killed so far.
    pub(crate) fn killed(&self) -> u64 {
        self.killed
    }

    /// Kills what is due.
    ///
    /// # Errors
    /// When the console does not say which processes there are.
    pub(crate) fn kill_due(&mut self, console: &mut Console) -> Result<(), ConsoleError> {
        while self.pause().is_zero() {
            self.schedule.advance();
            if self.victims.is_empty() || self.listed.is_none_or(|listed| listed.elapsed() > LIST_AGE_MAX) {
                // Handlers without a player are consoles, such as the one that answers here, or have only just begun.
                let processes = console.processes()?.into_iter();
                let handlers =
                    processes.filter(|process| process.role == "handler" && process.player.is_some());
                self.victims = handlers.map(|handler| handler.pid).collect();
                self.listed = Some(Instant::now());
            }
            if let Some(victim) = self.random.pick(&self.victims).copied() {
                self.victims.retain(|pid| *pid != victim);
                self.killed += u64::from(kill_descendant(self.root, victim).is_ok());
            }
        }
        Ok(())
    }
}

/// Kills `pid` if it is `root`'s descendant. The descriptor is taken first: a number that has gone to a stranger since it
/// was listed is found out, and one that goes to a stranger later is not hit.
fn kill_descendant(root: u32, pid: u32) -> io::Result<()> {
    let target = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(target, PidfdFlags::empty())?;
    if pid == root || !proc_figures::is_member(root, pid) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(pidfd_send_signal(process, Signal::KILL)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn only_descendants_are_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        assert!(kill_descendant(own, own).is_err());
        assert!(kill_descendant(child.id(), own).is_err());
        assert!(kill_descendant(own, 1).is_err());
        kill_descendant(own, child.id()).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
