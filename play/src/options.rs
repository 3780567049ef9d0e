//! The command line of `forkade play`.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgGroup};
use forkade_protocol::text::clean_player_name;

use crate::app::StartupAction;

/// The default address of a server.
const SERVER_DEFAULT: &str = "127.0.0.1:4000";

/// The name of a player whose user name cannot be used.
const NAME_DEFAULT: &str = "Player";

/// Names to try, if none was given with `--name`.
const NAMES_MAX: usize = 9;

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Address and port.
    pub server: String,
    /// Names to try in this order.
    pub names: Vec<String>,
    /// What to do after the handshake.
    pub startup_action: StartupAction,
}

/// The subcommand as `--help` shows it.
pub fn command() -> clap::Command {
    clap::Command::new("play")
        .about("Plays in this terminal: lists rooms, plays any of the games, chats, and reconnects by itself")
        .long_about(
            "Plays in this terminal. In the lobby, choose a room or a game with the arrow keys and press Enter; in a match, type your \
             move. F1 shows all commands and keys.\n\n\
             When the connection is lost, or the server's process for you is killed, it continues by itself where it was. The \
             games that can be played are those that this program was built with.",
        )
        .after_help(
            "Scripts have no terminal: they talk to the same port in text mode, as in `nc 127.0.0.1 4000`.\n\n\
             Exit status: 0 after quitting, 1 if the session ended otherwise, 2 if the command line or the terminal is at fault, \
             128 and the signal's number after a signal.",
        )
        .arg(
            Arg::new("server")
                .value_name("ADDRESS")
                .default_value(SERVER_DEFAULT)
                .help("The server: an address or a host's name, with its port"),
        )
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("NAME")
                .help("What others call you [default: your name on this machine, with a number if it is taken]"),
        )
        .arg(
            Arg::new("game")
                .long("game")
                .value_name("GAME")
                .help("Take a seat in any room of this game, or open one"),
        )
        .arg(
            Arg::new("room")
                .long("room")
                .value_name("NUMBER")
                .value_parser(clap::value_parser!(u64))
                .help("Take a seat in this room"),
        )
        .arg(
            Arg::new("invite")
                .long("invite")
                .value_name("CODE")
                .help("Take a seat in the room with this invite code"),
        )
        .group(ArgGroup::new("where").args(["game", "room", "invite"]))
        .arg(
            Arg::new("watch")
                .long("watch")
                .action(ArgAction::SetTrue)
                .conflicts_with("game")
                .requires("where")
                .help("With --room or --invite: watch instead of taking a seat"),
        )
}

/// Parses `arguments`; the first two are the names of program and subcommand.
///
/// # Errors
///
/// An invalid command line, and `--help`.
pub(crate) fn parse(arguments: &[OsString], user: Option<&str>) -> Result<Options, clap::Error> {
    let mut command = command().bin_name("forkade play");
    let matches = command.try_get_matches_from_mut(arguments.iter().skip(1))?;
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let watch = matches.get_flag("watch");
    let startup_action = if let Some(game) = text("game") {
        StartupAction::QuickMatch(game)
    } else if let Some(number) = matches.get_one::<u64>("room") {
        StartupAction::Join {
            number: *number,
            watch,
        }
    } else if let Some(code) = text("invite") {
        StartupAction::JoinByInvite { code, watch }
    } else {
        StartupAction::ShowLobby
    };
    let names = match text("name") {
        Some(name) => vec![clean_player_name(&name).map_err(|error| {
            command.error(
                clap::error::ErrorKind::ValueValidation,
                format!("the name cannot be used: {error}"),
            )
        })?],
        None => names_of(user),
    };
    let server = text("server").unwrap_or_default();
    Ok(Options {
        server,
        names,
        startup_action,
    })
}

/// The user's name, and the same with a number.
fn names_of(user: Option<&str>) -> Vec<String> {
    let user = user.and_then(|user| clean_player_name(user).ok());
    let user = user.unwrap_or_else(|| NAME_DEFAULT.to_owned());
    let numbered = (2..=NAMES_MAX).filter_map(|number| clean_player_name(&format!("{user} {number}")).ok());
    std::iter::once(user.clone()).chain(numbered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, clap::Error> {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(&arguments, Some("ann"))
    }

    #[test]
    fn the_command_line_selects_server_name_and_action() {
        let options = parsed("forkade play").expect("nothing is needed");
        assert_eq!(options.server, SERVER_DEFAULT);
        assert_eq!(options.names[..2], ["ann", "ann 2"]);
        assert_eq!(options.startup_action, StartupAction::ShowLobby);
        let options = parsed("forkade play [::1]:5 --name Bob --room 3 --watch").expect("it makes sense");
        let room = StartupAction::Join {
            number: 3,
            watch: true,
        };
        assert_eq!(
            (options.server.as_str(), options.startup_action),
            ("[::1]:5", room)
        );
        assert_eq!(options.names, ["Bob"]);
        let game = parsed("forkade play --game connect4")
            .expect("it makes sense")
            .startup_action;
        assert_eq!(game, StartupAction::QuickMatch("connect4".into()));
    }

    #[test]
    fn an_invalid_command_line_is_refused() {
        for line in [
            "forkade play --watch",
            "forkade play --game a --room 1",
            "forkade play --game a --watch",
            "forkade play --room x",
            "forkade play --name \u{200b}",
            "forkade play a b",
            "forkade play --listen 127.0.0.1:0",
        ] {
            assert_eq!(parsed(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_user_without_a_usable_name_is_a_player() {
        assert_eq!(names_of(Some("\u{1b}"))[0], NAME_DEFAULT);
        assert_eq!(names_of(None)[0], NAME_DEFAULT);
        assert_eq!(names_of(Some(&"x".repeat(24))).len(), 1, "a number would not fit");
    }
}
