//! Games that fail.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use forkade::games::{Game, Outbox, Rejection, Start, Viewer};
use forkade_protocol::Outcome;
use serde::{Deserialize, Serialize};
use shmem::sys::clock::ThreadUsage;

/// A sum that every player adds to, with many ways to fail.
#[derive(Serialize, Deserialize)]
pub(crate) struct Fragile {
    sum: u32,
    fails_in: FailsIn,
    padding: Vec<u8>,
}

/// A call that fails although no action leads to the failure.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailsIn {
    #[default]
    Nothing,
    New,
    View,
    Leave,
    Timeout,
}

const SEAT_9_WINS: u32 = u32::MAX - 9;

/// The sum at which no seat is to move.
pub(crate) const NOBODYS_TURN: u32 = 77;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Deed {
    Add(u32),
    Panic(String),
    PanicAfterEvents,
    GrowTooLarge,
    SaySoMuch,
    WinWithoutASeat,
    /// Seat 9 wins.
    WinForSeat9,
    /// Seat 9 gets an event.
    TellSeat9,
    Sleep,
    Loop,
    Abort,
    /// Aborts if this file exists, and removes it first. Otherwise adds 1.
    AbortOnce(PathBuf),
}

impl Game for Fragile {
    type Options = FailsIn;
    type Action = Deed;
    type Event = u32;
    type View = u32;

    const NAME: &'static str = "fragile";
    const SEATS: RangeInclusive<u8> = 1..=4;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::AtOnce;

    fn new(fails_in: FailsIn, _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        assert!(fails_in != FailsIn::New, "cannot be made");
        Ok(Self {
            sum: 0,
            fails_in,
            padding: Vec::new(),
        })
    }

    fn act(&mut self, _seat: u8, deed: Deed, out: &mut Outbox<u32>) -> Result<(), Rejection> {
        // The change made before the failure must be rolled back.
        self.sum += 1000;
        match deed {
            Deed::Add(addend) => {
                self.sum = self.sum - 1000 + addend;
                out.to_all(&self.sum);
            }
            Deed::Panic(text) => panic!("{text}"),
            Deed::PanicAfterEvents => {
                out.to_all(&self.sum);
                self.sum = self
                    .padding
                    .first()
                    .copied()
                    .map(u32::from)
                    .expect("nothing is there");
            }
            Deed::GrowTooLarge => self.padding.resize(1 << 20, 0),
            Deed::SaySoMuch => (0..100_000).for_each(|number| out.to_all(&number)),
            Deed::WinWithoutASeat => self.sum = u32::MAX,
            Deed::WinForSeat9 => self.sum = SEAT_9_WINS,
            Deed::TellSeat9 => out.to_seat(9, &self.sum),
            Deed::Sleep => std::thread::sleep(std::time::Duration::from_millis(1500)),
            Deed::AbortOnce(file) => {
                if std::fs::remove_file(file).is_ok() {
                    std::process::abort();
                }
                self.sum = self.sum - 1000 + 1;
                out.to_all(&self.sum);
            }
            Deed::Abort => std::process::abort(),
            Deed::Loop => loop {
                std::hint::spin_loop();
            },
        }
        Ok(())
    }

    fn leave(&mut self, _seat: u8, _out: &mut Outbox<u32>) {
        assert!(self.fails_in != FailsIn::Leave, "cannot be left");
    }

    fn to_move(&self) -> Option<u8> {
        (self.sum != NOBODYS_TURN).then_some(0)
    }

    fn turn_timed_out(&mut self, _seat: u8, _out: &mut Outbox<u32>) {
        assert!(self.fails_in != FailsIn::Timeout, "cannot be waited for");
    }

    fn view(&self, _viewer: Viewer) -> u32 {
        assert!(self.fails_in != FailsIn::View, "cannot be seen");
        self.sum
    }

    fn outcome(&self) -> Option<Outcome> {
        let seat = match self.sum {
            u32::MAX => 200,
            SEAT_9_WINS => 9,
            _ => return None,
        };
        Some(Outcome::Won { seats: vec![seat] })
    }

    fn parse_action(text: &str, view: Option<&Self::View>) -> Result<Deed, Rejection> {
        match (text, view) {
            ("the same again", Some(sum)) => Ok(Deed::Add(*sum)),
            ("panic", _) => panic!("unspeakable"),
            _ => Err(Rejection::bad_action("the same again, or panic")),
        }
    }

    fn draw(_view: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        String::new()
    }
}

/// Counts its ticks, and panics in the tick that its options name.
#[derive(Serialize, Deserialize)]
pub(crate) struct Clock {
    ticks: u32,
    fails_at: u32,
}

impl Game for Clock {
    type Options = u32;
    type Action = ();
    type Event = u32;
    type View = u32;

    const NAME: &'static str = "clock";
    const SEATS: RangeInclusive<u8> = 1..=2;
    const TICKS_PER_SECOND: u16 = 100;
    const START: Start = Start::AtOnce;

    fn new(fails_at: u32, _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self { ticks: 0, fails_at })
    }

    fn act(&mut self, _seat: u8, (): (), _out: &mut Outbox<u32>) -> Result<(), Rejection> {
        Ok(())
    }

    fn tick(&mut self, out: &mut Outbox<u32>) {
        self.ticks += 1;
        assert!(self.ticks != self.fails_at, "the spring is broken");
        out.to_all(&self.ticks);
    }

    fn view(&self, _viewer: Viewer) -> u32 {
        self.ticks
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(_text: &str, _view: Option<&Self::View>) -> Result<(), Rejection> {
        Ok(())
    }

    fn draw(view: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        format!("{view}\n")
    }
}

/// A sum that cannot be shown once it is not 0.
#[derive(Serialize, Deserialize)]
pub(crate) struct Unseen {
    sum: u32,
    fault: (Shows, Way),
}

/// A call that shows the match.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shows {
    #[default]
    Nothing,
    View,
    Draw,
    Describe,
    Options,
}

/// How a call ends its process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    #[default]
    Loops,
    Aborts,
}

impl Unseen {
    fn fail(shows: Shows, (sum, fault): (u32, (Shows, Way))) {
        match fault {
            (at, Way::Loops) if at == shows && sum != 0 => loop {
                std::hint::spin_loop();
            },
            (at, Way::Aborts) if at == shows && sum != 0 => std::process::abort(),
            _ => {}
        }
    }
}

impl Game for Unseen {
    type Options = (Shows, Way);
    type Action = u32;
    type Event = (u32, (Shows, Way));
    type View = (u32, (Shows, Way));

    const NAME: &'static str = "unseen";
    const SEATS: RangeInclusive<u8> = 1..=4;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::AtOnce;

    fn new(fault: (Shows, Way), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self { sum: 0, fault })
    }

    fn act(&mut self, _seat: u8, addend: u32, out: &mut Outbox<Self::Event>) -> Result<(), Rejection> {
        self.sum += addend;
        out.to_all(&(self.sum, self.fault));
        Ok(())
    }

    fn view(&self, _viewer: Viewer) -> Self::View {
        Self::fail(Shows::View, (self.sum, self.fault));
        (self.sum, self.fault)
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(text: &str, _view: Option<&Self::View>) -> Result<u32, Rejection> {
        text.parse().map_err(|_| Rejection::bad_action("a number"))
    }

    fn describe_options((shows, way): &Self::Options) -> String {
        Self::fail(Shows::Options, (1, (*shows, *way)));
        format!("{shows:?} {way:?}")
    }

    fn draw(view: &Self::View, name_of: &dyn Fn(u8) -> String) -> String {
        Self::fail(Shows::Draw, *view);
        format!("the sum of {} is {}\n", name_of(0), view.0)
    }

    fn describe(event: &Self::Event, _name_of: &dyn Fn(u8) -> String) -> String {
        Self::fail(Shows::Describe, *event);
        format!("now {}", event.0)
    }
}

/// A sum, and something else that belongs to the state.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ledger<T> {
    sum: u32,
    more: T,
}

impl<T: Default + Serialize + serde::de::DeserializeOwned + 'static> Game for Ledger<T> {
    type Options = ();
    type Action = u32;
    type Event = u32;
    type View = u32;

    const NAME: &'static str = "ledger";
    const SEATS: RangeInclusive<u8> = 1..=2;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::AtOnce;

    fn new((): (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self {
            sum: 0,
            more: T::default(),
        })
    }

    fn act(&mut self, _seat: u8, addend: u32, out: &mut Outbox<u32>) -> Result<(), Rejection> {
        self.sum += addend;
        out.to_all(&self.sum);
        Ok(())
    }

    fn view(&self, _viewer: Viewer) -> u32 {
        self.sum
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(_text: &str, _view: Option<&Self::View>) -> Result<u32, Rejection> {
        Err(Rejection::bad_action("this game is not for people"))
    }

    fn draw(view: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        format!("{view}\n")
    }
}

/// Counts its ticks, which do what its options say.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sluggish {
    ticks: u32,
    way: Pace,
}

/// How long a tick takes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pace {
    #[default]
    Prompt,
    /// Each sleeps.
    Sleeps,
    /// Each computes as long.
    Computes,
    /// The second one never ends.
    Loops,
    /// The second one sleeps for ever.
    FallsAsleep,
    /// The second one ends the process.
    Aborts,
}

/// How long a slow tick takes.
const SLUGGISH_MS: u64 = 300;

impl Game for Sluggish {
    type Options = Pace;
    type Action = ();
    type Event = u32;
    type View = u32;

    const NAME: &'static str = "sluggish";
    const SEATS: RangeInclusive<u8> = 1..=2;
    const TICKS_PER_SECOND: u16 = 10;
    const START: Start = Start::AtOnce;

    fn new(way: Pace, _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self { ticks: 0, way })
    }

    fn act(&mut self, _seat: u8, (): (), _out: &mut Outbox<u32>) -> Result<(), Rejection> {
        Ok(())
    }

    fn tick(&mut self, out: &mut Outbox<u32>) {
        self.ticks += 1;
        match self.way {
            Pace::Sleeps => std::thread::sleep(Duration::from_millis(SLUGGISH_MS)),
            Pace::Computes => {
                let end = ThreadUsage::now().cpu_us + SLUGGISH_MS * 1000;
                while ThreadUsage::now().cpu_us < end {
                    std::hint::spin_loop();
                }
            }
            Pace::Loops if self.ticks == 2 => loop {
                std::hint::spin_loop();
            },
            Pace::FallsAsleep if self.ticks == 2 => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Pace::Aborts if self.ticks == 2 => std::process::abort(),
            Pace::Prompt | Pace::Loops | Pace::FallsAsleep | Pace::Aborts => {}
        }
        out.to_all(&self.ticks);
    }

    fn view(&self, _viewer: Viewer) -> u32 {
        self.ticks
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(_text: &str, _view: Option<&Self::View>) -> Result<(), Rejection> {
        Ok(())
    }

    fn draw(view: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        format!("{view}\n")
    }
}
