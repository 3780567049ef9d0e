//! Games that hang.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use forkade::games::{Game, Outbox, Rejection, Start, Viewer};
use forkade_protocol::Outcome;
use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Serialize};

/// A sum that every player adds to, and many ways to hang over it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sticky {
    sum: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Deed {
    Add(u32),
    /// Hang in every process that tries it.
    Stick(How),
    /// Hang if there is this file, which is removed first. What comes after, adds 1.
    StickOnce(How, PathBuf),
    /// Use so many milliseconds of processor time, and then add 1.
    Work(u32),
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum How {
    Stopped,
    Looping,
    Asleep,
}

impl How {
    fn stick(self) {
        match self {
            How::Stopped => raise(Signal::SIGSTOP).expect("anybody may stop itself"),
            How::Looping => loop {
                std::hint::spin_loop();
            },
            How::Asleep => std::thread::sleep(Duration::from_secs(86_400)),
        }
    }
}

impl Game for Sticky {
    type Options = ();
    type Action = Deed;
    type Event = u32;
    type View = u32;

    const NAME: &'static str = "sticky";
    const SEATS: RangeInclusive<u8> = 1..=8;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::AtOnce;

    fn new((): (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self { sum: 0 })
    }

    fn act(&mut self, _seat: u8, deed: Deed, out: &mut Outbox<u32>) -> Result<(), Rejection> {
        // What a process that hangs has changed must be undone.
        let before = self.sum;
        self.sum += 1_000_000;
        let addend = match deed {
            Deed::Add(addend) => addend,
            Deed::Stick(how) => {
                how.stick();
                1
            }
            Deed::StickOnce(how, token) => {
                if std::fs::remove_file(token).is_ok() {
                    how.stick();
                }
                1
            }
            Deed::Work(milliseconds) => {
                use_processor(Duration::from_millis(milliseconds.into()));
                1
            }
        };
        self.sum = before + addend;
        out.to_all(&self.sum);
        Ok(())
    }

    fn leave(&mut self, _seat: u8, _out: &mut Outbox<u32>) {}

    fn view(&self, _viewer: Viewer) -> u32 {
        self.sum
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(_text: &str, _view: Option<&Self::View>) -> Result<Deed, Rejection> {
        Err(Rejection::bad_action("this game is not for people"))
    }

    fn draw(_view: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        String::new()
    }
}

/// Counts its ticks, and hangs in its third, if its options say so.
#[derive(Serialize, Deserialize)]
pub(crate) struct Metronome {
    ticks: u32,
    sticks: Option<How>,
}

impl Game for Metronome {
    type Options = Option<How>;
    type Action = Deed;
    type Event = u32;
    type View = u32;

    const NAME: &'static str = "metronome";
    const SEATS: RangeInclusive<u8> = 1..=2;
    const TICKS_PER_SECOND: u16 = 50;
    const START: Start = Start::AtOnce;

    fn new(sticks: Option<How>, _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self { ticks: 0, sticks })
    }

    fn act(&mut self, _seat: u8, deed: Deed, _out: &mut Outbox<u32>) -> Result<(), Rejection> {
        if let Deed::StickOnce(how, token) = deed
            && std::fs::remove_file(token).is_ok()
        {
            how.stick();
        }
        Ok(())
    }

    fn tick(&mut self, out: &mut Outbox<u32>) {
        self.ticks += 1;
        if self.ticks == 3 {
            self.sticks.into_iter().for_each(How::stick);
        }
        out.to_all(&self.ticks);
    }

    fn view(&self, _viewer: Viewer) -> u32 {
        self.ticks
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(_text: &str, _view: Option<&Self::View>) -> Result<Deed, Rejection> {
        Err(Rejection::bad_action("this game is not for people"))
    }

    fn draw(view: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        format!("{view}\n")
    }
}

/// Returns when this process has used so much processor time.
pub(crate) fn use_processor(time: Duration) {
    let used = || {
        let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
        Duration::from(used.expect("every process has this clock"))
    };
    let until = used() + time;
    while used() < until {
        std::hint::spin_loop();
    }
}
