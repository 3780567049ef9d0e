//! The table of commands: what `help` says of each.

/// A command as `help` describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) usage: &'static str,
    summary: &'static str,
    more: &'static [&'static str],
}

/// All commands, in the order in which they are listed.
pub(crate) const COMMANDS: [Description; 20] = [
    Description {
        name: "help",
        usage: "help [COMMAND]",
        summary: "what can be said here, or more about one command",
        more: &[
            "Every reply ends in a line `OK` or `ERR <why>`. What a player chose is shown escaped.",
            "An empty line is answered with a hint and `OK`.",
            "--json behind a query gives one line of JSON instead of a table.",
        ],
    },
    Description {
        name: "status",
        usage: "status [--json]",
        summary: "the server's counters",
        more: &[
            "`…_total` counts since the server was started; the others are what is there now.",
            "handlers: processes that serve players, one per connection; consoles have their own.",
            "draining: new players are refused, and the server ends when its matches have: see `help drain`.",
            "takeovers_total: handlers that were replaced on a living connection.",
            "recoveries_total: locks whose holder died, and whose transaction was undone or found complete.",
            "blamed_total: connections closed because their handler kept dying over the same input.",
        ],
    },
    Description {
        name: "processes",
        usage: "processes [--memory] [--json]",
        summary: "all processes of the server, and the player each one serves",
        more: &[
            "role: supervisor, ticker, keeper, listener, handler (of a player), console (a handler of an operator).",
            "number: which one of its kind, for roles of which there are several.",
            "restarts: how often the supervisor has started it again.",
            "--memory adds each one's state (R running, S sleeping, T stopped …) and its share of memory in KiB (PSS);",
            "with many processes that takes the kernel a while.",
        ],
    },
    Description {
        name: "players",
        usage: "players [--json]",
        summary: "who is here, connected or not, and where",
        more: &[
            "presence: connected; away (the connection is lost, the seat is kept for the grace); leaving.",
            "seconds: since the connection was accepted, or since it was lost.",
        ],
    },
    Description {
        name: "player",
        usage: "player ID|NAME [--json]",
        summary: "everything about one player",
        more: &[
            "The name may have spaces; upper and lower case are the same. A number that is somebody's id goes before a name.",
            "idle_seconds: since the last whole frame came from the client.",
            "input_waiting: bytes received and not handled yet. output_unsent: bytes that the client's system does not take.",
            "output_kept: bytes kept until the client confirms them, for a resume; both rings' sizes stand behind the slash.",
        ],
    },
    Description {
        name: "rooms",
        usage: "rooms [--json]",
        summary: "the rooms, their games and who plays",
        more: &["events: how many the room has had; its clients count the same."],
    },
    Description {
        name: "room",
        usage: "room ID [--seat N] [--json]",
        summary: "everything about one room, and the game as a spectator sees it",
        more: &[
            "ROOM ids are those of `rooms`, or the short numbers that players at terminals call rooms by.",
            "--seat shows the game as that seat sees it, hidden cards and all.",
            "log: offsets of the oldest event kept, of the newest, and of the newest that the doorbell was rung for.",
            "next_tick_ms: when the game's next tick is due; nothing in a game that goes on by moves alone.",
        ],
    },
    Description {
        name: "locks",
        usage: "locks [--all] [--json]",
        summary: "the locks that were ever waited for or left by a dead process, and those held now",
        more: &[
            "holder, role, held_ms: the process that holds it now, and for how long.",
            "taken: how often. waits: how often somebody found it taken. long_waits: how many of them lasted 250 ms.",
            "recoveries: how often its holder died and the next taker decided the transaction.",
            "record: index of the player's or room's record. The last line sums up all locks, shown or not.",
            "--all shows those of which there is nothing to tell, too.",
        ],
    },
    Description {
        name: "config",
        usage: "config [--json]",
        summary: "the settings, and where each value came from",
        more: &[
            "source: default, file, environment or command line; from: the file, variable or option itself.",
            "They hold until the server ends; only the log's level can be changed meanwhile: see `help log`.",
        ],
    },
    Description {
        name: "ping",
        usage: "ping [--json]",
        summary: "pong, and how long each role's process takes to answer",
        more: &[
            "Each process of the supervisor's is woken and shows that it comes round to it. One that is stopped or stuck",
            "shows as `no answer` after a second. (The ticker is not woken: it comes round by itself every 10 ms.)",
        ],
    },
    Description {
        name: "watch",
        usage: "watch ROOM [--hidden]",
        summary: "a room's events as they happen, until you press Enter",
        more: &[
            "One line each: the event's number and what happened. The room is not slowed: who falls behind is told how many",
            "events were missed. --hidden shows also what is for one seat alone.",
            "Any line ends it, and is not obeyed; so do Ctrl-C and the room's end.",
        ],
    },
    Description {
        name: "trace",
        usage: "trace ID|NAME",
        summary: "a player's frames in both directions as they pass, until you press Enter",
        more: &[
            "One line each: seconds since the trace began, `>` from the client or `<` to it, and the message.",
            "Passcodes, tokens and invite codes are not shown. The player is not slowed: what was overwritten before it could be",
            "looked at is counted. A handler that dies and a connection that is resumed are told, and the trace goes on.",
            "Any line ends it, and is not obeyed; so do Ctrl-C and the player's end.",
        ],
    },
    Description {
        name: "log",
        usage: "log [off|error|warn|info|debug|trace]",
        summary: "shows or changes what is logged, by all processes, at once",
        more: &["It holds until it is changed again or the server ends."],
    },
    Description {
        name: "say",
        usage: "say TEXT",
        summary: "tells everybody on the server, in the server's own name",
        more: &[
            "It is a line of the lobby's chat that nobody has said; who is away hears it on coming back.",
            "The text is all that follows, cleaned as players' own lines are.",
        ],
    },
    Description {
        name: "kick",
        usage: "kick PLAYER",
        summary: "sends a player out of the server, for good (a new greeting is welcome)",
        more: &["The name is all that follows, spaces included; upper and lower case are the same."],
    },
    Description {
        name: "drain",
        usage: "drain [SECONDS|off]",
        summary: "refuses new players and matches, and stops when those have ended",
        more: &[
            "Who is here stays and plays on, and may come back after a lost connection. When no match is under way, or after so",
            "many seconds, the server ends in order, as by `stop`. Without a number it waits for as long as it takes. No room is",
            "opened and no match begins meanwhile, but a room of a game without an end is never over.",
            "Said again, it changes the time; `drain off` takes it back.",
        ],
    },
    Description {
        name: "upgrade",
        usage: "upgrade",
        summary: "puts the program that lies where this one was started from in its place",
        more: &[
            "It is looked at first, and refused with the reason if it cannot go on with what is here. Sockets, lobby and",
            "connections stay. Your own connection goes on with the old program until it ends.",
        ],
    },
    Description {
        name: "stop",
        usage: "stop",
        summary: "ends the server in order, as SIGTERM does",
        more: &[
            "Clients are told and what waits for them is sent. Said a second time, it ends the server at once.",
        ],
    },
    Description {
        name: "edit",
        usage: "edit [on|off]",
        summary: "line editing and history, for telnet",
        more: &[
            "Asks the telnet client for character mode; netcat and scripts have none, and get bytes they do not expect. It is",
            "asked by itself if the first line is just Enter in telnet, or if the client begins to negotiate.",
            "Keys: arrows, Home, End, Delete; Ctrl-A start, Ctrl-E end, Ctrl-K cut to the end, Ctrl-U cut to the start, Ctrl-W cut",
            "a word, Ctrl-L redraw, Up and Down history, Ctrl-C cancel, Ctrl-D on an empty line quit.",
            "The history is this process's: when it is replaced, it begins anew.",
        ],
    },
    Description {
        name: "quit",
        usage: "quit",
        summary: "ends this connection",
        more: &[],
    },
];

impl Description {
    /// The command's line in the list of all.
    pub(crate) fn line(&self) -> String {
        format!("{:<40}{}", self.usage, self.summary)
    }

    /// The command, explained.
    pub(crate) fn explanation(&self) -> Vec<String> {
        let more = self.more.iter().map(ToString::to_string);
        [format!("{}: {}", self.usage, self.summary)]
            .into_iter()
            .chain(more)
            .collect()
    }
}
