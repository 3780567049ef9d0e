//! The table of commands, as `help` describes them.

/// A command as `help` describes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Description {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    summary: &'static str,
    more: &'static [&'static str],
}

impl Description {
    /// The command's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The line in the list of commands.
    pub fn line(&self) -> String {
        format!("{:30}{}", self.usage, self.summary)
    }

    /// The lines of `help NAME`.
    pub fn explanation(&self) -> impl Iterator<Item = &'static str> {
        [self.usage, self.summary]
            .into_iter()
            .chain(self.more.iter().copied())
    }
}

const SETTINGS: &str =
    "passcode=WORD seats=NUMBER turn=SECONDS unlisted=yes|no spectators=yes|no options=WORD (the game's own)";

const COMMANDS: &[Description] = &[
    Description {
        name: "help",
        usage: "help [COMMAND]",
        summary: "this list, or more about one command",
        more: &[],
    },
    Description {
        name: "name",
        usage: "name NEW",
        summary: "change your name; only in the lobby",
        more: &["A name has at most 24 characters, and no other player here may have it."],
    },
    Description {
        name: "resume",
        usage: "resume WORD",
        summary: "your seat, after a lost connection; only in the lobby",
        more: &[
            "You were shown the word when you came in, and \"whoami\" shows it. Each word works",
            "once: you are shown another one when you are back.",
        ],
    },
    Description {
        name: "whoami",
        usage: "whoami",
        summary: "your name, and the word for \"resume\"",
        more: &[],
    },
    Description {
        name: "games",
        usage: "games",
        summary: "the games that can be played here",
        more: &[],
    },
    Description {
        name: "rooms",
        usage: "rooms [GAME] [after N]",
        summary: "rooms where people play or wait for players",
        more: &["A list shows one page, and how to ask for the next one."],
    },
    Description {
        name: "who",
        usage: "who",
        summary: "the players who are here",
        more: &[],
    },
    Description {
        name: "quick",
        usage: "quick GAME",
        summary: "a seat in any room of the game, or a new room",
        more: &[],
    },
    Description {
        name: "create",
        usage: "create GAME [NAME] [OPTIONS]",
        summary: "open a room and take its first seat",
        more: &["Options, each of which may be omitted:", SETTINGS],
    },
    Description {
        name: "join",
        usage: "join N|CODE [PASSCODE]",
        summary: "take a seat in room N, or in the room of an invite code",
        more: &[],
    },
    Description {
        name: "watch",
        usage: "watch N|CODE [PASSCODE]",
        summary: "watch room N, without a seat",
        more: &[],
    },
    Description {
        name: "look",
        usage: "look",
        summary: "the room with its board, or the lobby",
        more: &[],
    },
    Description {
        name: "ansi",
        usage: "ansi on|off",
        summary: "draw a real-time match in place, at the top of the screen",
        more: &[
            "Your terminal must understand ANSI's control sequences. Without it, a match is drawn as lines.",
        ],
    },
    Description {
        name: "ready",
        usage: "ready",
        summary: "say that the match may begin; it does when all are ready",
        more: &[],
    },
    Description {
        name: "unready",
        usage: "unready",
        summary: "take that back",
        more: &[],
    },
    Description {
        name: "move",
        usage: "move MOVE",
        summary: "make a move; \"move\" may be omitted, as in \"4\"",
        more: &["What a move looks like depends on the game. A line that is no command is taken for a move."],
    },
    Description {
        name: "rematch",
        usage: "rematch",
        summary: "another match with the same people, once one is over",
        more: &[],
    },
    Description {
        name: "leave",
        usage: "leave",
        summary: "back to the lobby; your seat is given up",
        more: &[],
    },
    Description {
        name: "say",
        usage: "say TEXT",
        summary: "talk to all in the room",
        more: &[],
    },
    Description {
        name: "shout",
        usage: "shout TEXT",
        summary: "talk to all on the server",
        more: &[],
    },
    Description {
        name: "tell",
        usage: "tell NAME TEXT",
        summary: "talk to one player",
        more: &["A name with a space in it stands in quotes: tell \"Ann Lee\" hello"],
    },
    Description {
        name: "ignore",
        usage: "ignore [NAME]",
        summary: "see no more of what players of that name say; or the list",
        more: &[
            "Neither in the room nor in the lobby nor to you alone, nor their invitations. They are not told. It",
            "holds until you leave the server, and not for another name.",
        ],
    },
    Description {
        name: "unignore",
        usage: "unignore NAME",
        summary: "see again what players of that name say",
        more: &[],
    },
    Description {
        name: "invite",
        usage: "invite [new]",
        summary: "the invite code of your room; \"new\" replaces it by another",
        more: &[],
    },
    Description {
        name: "reserve",
        usage: "reserve NAME",
        summary: "keep a free seat of your room for a player",
        more: &[],
    },
    Description {
        name: "kick",
        usage: "kick NAME",
        summary: "remove a player from your room for good",
        more: &["Others of that name cannot come in for ten minutes, either."],
    },
    Description {
        name: "owner",
        usage: "owner NAME",
        summary: "make another player the owner of your room",
        more: &[],
    },
    Description {
        name: "set",
        usage: "set OPTIONS",
        summary: "change your room, while no match is on",
        more: &[
            "Options; those that you omit do not change:",
            SETTINGS,
            "\"passcode=\" removes the passcode.",
        ],
    },
    Description {
        name: "quit",
        usage: "quit",
        summary: "leave the server",
        more: &[],
    },
];

/// Other names of commands.
const ALIASES: &[(&str, &str)] = &[
    ("?", "help"),
    ("nick", "name"),
    ("whisper", "tell"),
    ("spectate", "watch"),
    ("exit", "quit"),
    ("bye", "quit"),
];

/// The lines of the list of commands.
pub fn overview() -> impl Iterator<Item = String> {
    all().map(Description::line)
}

/// All commands.
pub fn all() -> impl Iterator<Item = &'static Description> {
    COMMANDS.iter()
}

/// The command with this name or alias, in any case, with or without `/`.
pub(super) fn find(word: &str) -> Option<&'static Description> {
    let word = word.strip_prefix('/').unwrap_or(word).to_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == word);
    let name = alias.map_or(word.as_str(), |(_, name)| name);
    COMMANDS.iter().find(|command| command.name == name)
}
