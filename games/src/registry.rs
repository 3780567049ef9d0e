//! The games of a server.

use std::fmt;

use forkade_protocol::GameInfo;
use thiserror::Error;

use crate::erased::Erased;
use crate::limits::{CATCH_UP_TICKS_MAX, GAMES_MAX, SEATS_MAX, TICKS_PER_SECOND_MAX};
use crate::{AnyGame, Game, Program};
use forkade_protocol::limits::GAME_NAME_BYTES_MAX;

/// Why a game cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GamesError {
    /// Another game has this name, so clients could not tell the two apart.
    #[error("two games are called {name:?}: give one of them another NAME")]
    NameTaken {
        /// The name of both.
        name: &'static str,
    },
    /// There are [`GAMES_MAX`] games already; more would not fit the `Welcome` message.
    #[error("a server offers at most {GAMES_MAX} games: leave {name:?} out")]
    TooMany {
        /// The game that was to be added.
        name: &'static str,
    },
    /// The program's name or version is empty, too long, or has other than visible ASCII characters.
    #[error(
        "{name:?} {version:?} is no name and version of a program: 1 to {} visible ASCII characters each",
        Program::TEXT_BYTES_MAX
    )]
    BadProgram {
        /// The name.
        name: &'static str,
        /// The version.
        version: &'static str,
    },
}

/// The games that a server offers, in the order in which they were added. It is complete before the server starts.
///
/// A room keeps the index of its game in shared memory. Every process has the same list, because it is made before the
/// first fork.
#[derive(Default)]
pub struct Games {
    games: Vec<Box<dyn AnyGame>>,
    program: Option<Program>,
}

impl Games {
    /// A list without games.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a game. The compiler rejects a [name](Game::NAME), [number of seats](Game::SEATS), [rate of
    /// ticks](Game::TICKS_PER_SECOND) or [number of ticks to make up for](Game::MISSED_TICKS) that is not valid:
    ///
    /// ```compile_fail,E0080
    /// # use forkade::games::*;
    /// # use std::ops::RangeInclusive;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Misnamed;
    /// # impl Game for Misnamed {
    /// #     type Options = (); type Action = (); type Event = (); type View = ();
    /// const NAME: &'static str = "No spaces, no capitals!";
    /// #     const SEATS: RangeInclusive<u8> = 1..=2;
    /// #     const TICKS_PER_SECOND: u16 = 0;
    /// #     const START: Start = Start::AtOnce;
    /// #     fn new(_: (), _: u8, _: u64) -> Result<Self, Rejection> { Ok(Misnamed) }
    /// #     fn act(&mut self, _: u8, _: (), _: &mut Outbox<()>) -> Result<(), Rejection> { Ok(()) }
    /// #     fn view(&self, _: Viewer) {}
    /// #     fn outcome(&self) -> Option<Outcome> { None }
    /// #     fn parse_action(_: &str, _view: Option<&Self::View>) -> Result<(), Rejection> { Ok(()) }
    /// #     fn draw(_: &(), _name_of: &dyn Fn(u8) -> String) -> String { String::new() }
    /// # }
    /// # fn main() {
    /// Games::new().add::<Misnamed>();
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use forkade::games::*;
    /// # use std::ops::RangeInclusive;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct TooFast;
    /// # impl Game for TooFast {
    /// #     type Options = (); type Action = (); type Event = (); type View = ();
    /// #     const NAME: &'static str = "too-fast";
    /// #     const SEATS: RangeInclusive<u8> = 1..=2;
    /// const TICKS_PER_SECOND: u16 = limits::TICKS_PER_SECOND_MAX + 1;
    /// #     const START: Start = Start::AtOnce;
    /// #     fn new(_: (), _: u8, _: u64) -> Result<Self, Rejection> { Ok(TooFast) }
    /// #     fn act(&mut self, _: u8, _: (), _: &mut Outbox<()>) -> Result<(), Rejection> { Ok(()) }
    /// #     fn view(&self, _: Viewer) {}
    /// #     fn outcome(&self) -> Option<Outcome> { None }
    /// #     fn parse_action(_: &str, _view: Option<&Self::View>) -> Result<(), Rejection> { Ok(()) }
    /// #     fn draw(_: &(), _name_of: &dyn Fn(u8) -> String) -> String { String::new() }
    /// # }
    /// # fn main() {
    /// Games::new().add::<TooFast>();
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`GamesError`]; the list does not change.
    pub fn add<G: Game>(&mut self) -> Result<(), GamesError> {
        const {
            assert!(
                is_valid_name(G::NAME),
                "Game::NAME: 1 to 32 bytes of a-z, 0-9, - and _"
            );
            assert!(
                1 <= *G::SEATS.start() && *G::SEATS.start() <= *G::SEATS.end(),
                "Game::SEATS: at least one"
            );
            assert!(
                *G::SEATS.end() <= SEATS_MAX,
                "Game::SEATS: at most limits::SEATS_MAX"
            );
            assert!(
                G::TICKS_PER_SECOND <= TICKS_PER_SECOND_MAX,
                "Game::TICKS_PER_SECOND: at most limits::TICKS_PER_SECOND_MAX"
            );
            assert!(
                G::MISSED_TICKS.made_up_for() <= CATCH_UP_TICKS_MAX,
                "Game::MISSED_TICKS: at most limits::CATCH_UP_TICKS_MAX"
            );
        }
        if self.find(G::NAME).is_some() {
            return Err(GamesError::NameTaken { name: G::NAME });
        }
        if self.games.len() == GAMES_MAX {
            return Err(GamesError::TooMany { name: G::NAME });
        }
        self.games.push(Box::new(Erased::<G>::new()));
        Ok(())
    }

    /// Sets name and version of the program that offers the games.
    ///
    /// # Errors
    ///
    /// [`GamesError::BadProgram`].
    pub fn set_program(&mut self, name: &'static str, version: &'static str) -> Result<(), GamesError> {
        let program = Program::new(name, version).ok_or(GamesError::BadProgram { name, version })?;
        self.program = Some(program);
        Ok(())
    }

    /// The program that offers the games; Forkade itself if it has no other name.
    pub fn program(&self) -> Program {
        self.program.unwrap_or(Program::FORKADE)
    }

    /// The game with this index.
    #[doc(hidden)]
    pub fn get(&self, index: u16) -> Option<&dyn AnyGame> {
        self.games.get(usize::from(index)).map(Box::as_ref)
    }

    /// The game with this name, and its index.
    #[doc(hidden)]
    pub fn find(&self, name: &str) -> Option<(u16, &dyn AnyGame)> {
        self.iter().find(|(_, game)| game.name() == name)
    }

    /// All games with their indices.
    #[doc(hidden)]
    pub fn iter(&self) -> impl Iterator<Item = (u16, &dyn AnyGame)> {
        (0..).zip(self.games.iter().map(Box::as_ref))
    }

    /// What clients learn about the games.
    pub fn infos(&self) -> Vec<GameInfo> {
        self.games.iter().map(|game| game.info()).collect()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.games.is_empty()
    }
}

impl fmt::Debug for Games {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list()
            .entries(self.games.iter().map(|game| game.name()))
            .finish()
    }
}

const fn is_valid_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if !matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') {
            return false;
        }
        index += 1;
    }
    !bytes.is_empty() && bytes.len() <= GAME_NAME_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Relay;
    use crate::tictactoe::TicTacToe;

    #[test]
    fn games_are_found_by_name_and_by_index() {
        let mut games = Games::new();
        games.add::<Relay>().expect("the first");
        games.add::<TicTacToe>().expect("the second");
        let (index, game) = games.find("tictactoe").expect("it is there");
        assert_eq!((index, game.name(), game.seats()), (1, "tictactoe", 2..=2));
        assert_eq!(games.get(0).expect("it is there").name(), "relay");
        assert!(games.get(2).is_none() && games.find("chess").is_none());
        assert_eq!(games.infos().len(), 2);
    }

    #[test]
    fn a_name_is_taken_once() {
        let mut games = Games::new();
        games.add::<Relay>().expect("the first");
        assert_eq!(games.add::<Relay>(), Err(GamesError::NameTaken { name: "relay" }));
        assert_eq!(games.infos().len(), 1);
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(is_valid_name("relay") && is_valid_name("4-in_a-row") && is_valid_name(&"x".repeat(32)));
        for bad in ["", "Relay", "tic tac", "spiel\n", "é", &"x".repeat(33)] {
            assert!(!is_valid_name(bad), "{bad:?}");
        }
    }
}
