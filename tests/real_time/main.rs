//! Promise: a real-time match is drawn for a player in text mode when it looks different, at a bounded rate, and a move
//! is answered. A killed handler's successor goes on: no drawing is lost, and none comes twice.
//!
//! This program runs without the test harness because it is also the server: started with `serve`, it offers a
//! real-time game that says nothing in events.

#[path = "../common/mod.rs"]
mod common;

use std::num::NonZero;
use std::ops::RangeInclusive;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use common::text_client::TextClient;
use common::{Server, eventually};
use forkade::games::{Game, Outbox, Outcome, Rejection, Start, Viewer};
use serde::{Deserialize, Serialize};

/// A number that players set, and that each tick increases once it runs.
#[derive(Default, Serialize, Deserialize)]
struct Counter {
    number: u32,
    is_running: bool,
}

#[derive(Clone, Serialize, Deserialize)]
enum Deed {
    Set(u32),
    Run,
    Nothing,
}

impl Game for Counter {
    type Options = ();
    type Action = Deed;
    type Event = ();
    type View = u32;

    const NAME: &'static str = "counter";
    const SEATS: RangeInclusive<u8> = 1..=2;
    const TICKS_PER_SECOND: u16 = 50;
    const START: Start = Start::AtOnce;

    fn new((): (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self::default())
    }

    fn act(&mut self, _seat: u8, deed: Deed, _out: &mut Outbox<()>) -> Result<(), Rejection> {
        match deed {
            Deed::Set(number) => self.number = number,
            Deed::Run => self.is_running = true,
            Deed::Nothing => {}
        }
        Ok(())
    }

    fn tick(&mut self, _out: &mut Outbox<()>) {
        self.number += u32::from(self.is_running);
    }

    fn view(&self, _viewer: Viewer) -> u32 {
        self.number
    }

    fn outcome(&self) -> Option<Outcome> {
        None
    }

    fn parse_action(text: &str, _view: Option<&u32>) -> Result<Deed, Rejection> {
        match (text, text.parse()) {
            (_, Ok(number)) => Ok(Deed::Set(number)),
            ("run", _) => Ok(Deed::Run),
            ("nothing", _) => Ok(Deed::Nothing),
            _ => Err(Rejection::bad_action("a number, run or nothing")),
        }
    }

    fn draw(number: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        format!("The counter\nis at {number}.\n")
    }
}

/// As in `forkade`'s limits.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

fn start() -> Server {
    let this_program = std::env::current_exe().expect("a running program has a file");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"];
    Server::run(Command::new(this_program).args(arguments))
}

/// Ann in a room of her own.
fn ann(server: &Server) -> TextClient {
    let mut ann = TextClient::named(server, "Ann");
    ann.type_line("create counter");
    ann.read_until("The counter\r\nis at 0.\r\n> ");
    ann
}

/// The drawing as lines, with the prompt behind it.
fn drawing(number: u32) -> String {
    format!("The counter\r\nis at {number}.\r\n> ")
}

fn a_change_is_drawn_for_all_and_a_move_is_answered() {
    let server = start();
    let mut ann = ann(&server);
    let mut bob = TextClient::named(&server, "Bob");
    bob.type_line("watch 1");
    bob.read_until("is at 0.\r\nYou are watching.\r\n> ");
    ann.type_line("7");
    // The room was drawn when they came in; that drawing does not come again.
    assert_eq!(ann.read_until(&drawing(7)), "\r");
    assert_eq!(bob.read_until(&drawing(7)), "\r");
    // It changes nothing, and is answered all the same; Bob, who did nothing, sees nothing.
    ann.type_line("nothing");
    assert_eq!(ann.read_until(&drawing(7)), "\r");
    ann.type_line("8");
    ann.read_until(&drawing(8));
    assert_eq!(bob.read_until(&drawing(8)), "\r");
    server.expect_no_errors();
}

fn a_match_that_changes_all_the_time_is_drawn_at_a_bounded_rate() {
    let server = start();
    let mut ann = ann(&server);
    let (began, drawings) = (Instant::now(), 8);
    ann.type_line("run");
    for _ in 0..drawings {
        ann.read_until("The counter\r\nis at ");
    }
    let least = REDRAW_INTERVAL * (drawings - 1);
    assert!(
        began.elapsed() >= least,
        "{drawings} drawings in {:?}",
        began.elapsed()
    );
    server.expect_no_errors();
}

fn a_killed_handler_loses_no_drawing_and_repeats_none() {
    let server = start();
    let mut ann = ann(&server);
    for number in 1..=20 {
        // The handler dies before it has drawn, or after it.
        ann.type_line(&number.to_string());
        if number % 2 == 0 {
            assert_eq!(ann.read_until(&drawing(number)), "\r");
        }
        let handler = server.handler_of("Ann").expect("she is connected");
        server.kill(handler);
        eventually("Ann's handler has a successor", || {
            server
                .handler_of("Ann")
                .is_some_and(|successor| successor != handler)
        });
        if number % 2 == 1 {
            assert_eq!(ann.read_until(&drawing(number)), "\r");
        }
    }
}

fn a_terminal_that_can_is_drawn_in_place() {
    let server = start();
    let mut ann = ann(&server);
    let mut screen = vt100::Parser::new(
        const { NonZero::new(24).unwrap() },
        const { NonZero::new(80).unwrap() },
        0,
    );
    let row = |screen: &vt100::Parser, row: usize| screen.screen().rows(0, 80).nth(row).unwrap_or_default();
    ann.type_line("ansi on");
    ann.read_until("drawn at the top of the screen now.\r\n> ");
    for number in [5, 60, 7] {
        ann.type_line(&number.to_string());
        ann.read_until(&format!("is at {number}.\u{1b}[K"));
        ann.read_until("> ");
        // What is said scrolls the drawing away, and it is drawn again.
        ann.type_line("say hello");
        ann.read_until("hello\r\n> ");
        ann.read_until(&format!("is at {number}.\u{1b}[K\r\n\u{1b}8"));
        screen.process(&ann.take_read());
        assert_eq!(row(&screen, 0), "The counter");
        assert_eq!(row(&screen, 1), format!("is at {number}."));
        assert_eq!(screen.screen().cursor_position(), (23, 2), "behind the prompt");
    }
    ann.type_line("ansi off");
    ann.read_until("drawn as lines now.\r\n> ");
    ann.type_line("8");
    ann.read_until(&drawing(8));
    server.expect_no_errors();
}

fn program() -> forkade::Server {
    forkade::Server::new().game::<Counter>()
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return program().main();
    }
    let part = std::env::args().nth(1).unwrap_or_default();
    let tests: [(&str, fn()); 4] = [
        (
            "a_change_is_drawn_for_all_and_a_move_is_answered",
            a_change_is_drawn_for_all_and_a_move_is_answered,
        ),
        (
            "a_match_that_changes_all_the_time_is_drawn_at_a_bounded_rate",
            a_match_that_changes_all_the_time_is_drawn_at_a_bounded_rate,
        ),
        (
            "a_killed_handler_loses_no_drawing_and_repeats_none",
            a_killed_handler_loses_no_drawing_and_repeats_none,
        ),
        (
            "a_terminal_that_can_is_drawn_in_place",
            a_terminal_that_can_is_drawn_in_place,
        ),
    ];
    for (name, test) in tests {
        if name.contains(&part) {
            println!("test {name} ...");
            test();
        }
    }
    ExitCode::SUCCESS
}
