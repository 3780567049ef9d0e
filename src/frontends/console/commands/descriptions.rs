//! The table of commands, with the texts of `help`.

/// The texts of `help` about one command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) name: &'static str,
    pub(crate) usage: &'static str,
    summary: &'static str,
    more: &'static [&'static str],
}

/// All commands, in the order in which they are listed.
pub(crate) const COMMANDS: [Description; 30] = [
    Description {
        name: "help",
        usage: "help [COMMAND]",
        summary: "lists the commands, or explains one",
        more: &[
            "Every reply ends in a line `OK` or `ERR <why>`. Texts that players chose are shown escaped.",
            "An empty line lists the commands, too.",
            "With --json a query replies with one line of JSON instead of a table.",
        ],
    },
    Description {
        name: "status",
        usage: "status [--json]",
        summary: "shows the server's counters",
        more: &[
            "`…_total` counts since the start of the server; the others are current values.",
            "handlers: processes that serve players; those of consoles are not counted.",
            "draining: new players are refused, and the server stops when its matches have ended: see `help drain`.",
            "takeovers_total: handlers that were replaced while their connection stayed open.",
            "recoveries_total: locks whose holder died, and whose transaction was rolled back or found committed.",
            "blamed_total: connections closed because the same input killed their handler repeatedly.",
            "rooms_blamed_total: rooms whose game crashed tickers (the match was abandoned), or handlers that showed it (it is",
            "not shown any more).",
        ],
    },
    Description {
        name: "processes",
        usage: "processes [--memory] [--json]",
        summary: "lists the server's processes, and the player that each one serves",
        more: &[
            "role: supervisor, ticker, keeper, listener, handler (serves a player), console (serves an operator).",
            "number: index among the processes of the same role.",
            "restarts: how often the supervisor has restarted it.",
            "--memory adds the state (R running, S sleeping, T stopped …) and the proportional share of memory (PSS) in KiB;",
            "with many processes this takes the kernel some time.",
        ],
    },
    Description {
        name: "players",
        usage: "players [--json]",
        summary: "lists the players, connected or not, and their rooms",
        more: &[
            "presence: connected; away (the connection is lost, the seat is kept for the grace); leaving.",
            "seconds: since the connection was accepted, or since it was lost.",
        ],
    },
    Description {
        name: "player",
        usage: "player ID|NAME [--json]",
        summary: "shows everything about one player",
        more: &[
            "The name may have spaces; upper and lower case are the same. A number that is a player's id is taken as the id.",
            "idle_seconds: since the last complete frame from the client.",
            "input_waiting: bytes received and not handled yet. output_unsent: bytes that the kernel has not taken yet.",
            "output_kept: bytes kept for a resume until the client confirms them. input_ring, output_ring: sizes of the rings.",
        ],
    },
    Description {
        name: "rooms",
        usage: "rooms [--json]",
        summary: "lists the rooms, their games and players",
        more: &[
            "room: the number by which players, the log and this console refer to the room. It is used again once the room is",
            "gone. events: number of the room's last event, as its clients count them. In JSON, id is the id on the wire.",
        ],
    },
    Description {
        name: "room",
        usage: "room NUMBER [--seat N] [--json]",
        summary: "shows everything about one room, and the game as a spectator sees it",
        more: &[
            "NUMBER is the room's number from `rooms`, which players see, too. The long id by which programs name the room on the",
            "wire (`id` in JSON) does as well.",
            "--seat shows the game as that seat sees it, including hidden cards.",
            "log: offsets of the oldest event kept, of the newest, and of the newest that the doorbell was rung for.",
            "next_tick_ms: time until the game's next tick; none in a game without ticks.",
        ],
    },
    Description {
        name: "closes",
        usage: "closes [--json]",
        summary: "lists why the server has closed connections, and how often",
        more: &[
            "reason: the error code that the client was told. refused: connections whose client had no session there, such as",
            "greetings that failed. ended: connections with a session. seconds_ago: since the last one.",
            "The log has a line about each, with the address and the text, up to a bounded number a second.",
        ],
    },
    Description {
        name: "events",
        usage: "events [COUNT] [--json]",
        summary: "lists what has died, was refused, has left or has failed lately, the latest first",
        more: &[
            "kind: death (a process died), takeover (another one goes on with its connections), refusal (a connection was closed",
            "with an error), departure (a player left or lost the connection), failure (a game's code failed).",
            "The last 512 of each kind are kept; COUNT is 20 if it is left out.",
        ],
    },
    Description {
        name: "locks",
        usage: "locks [--all] [--json]",
        summary: "lists the locks that are held now, were ever contended, or were left by a dead process",
        more: &[
            "holder, role, held_ms: the process that holds the lock now, and for how long.",
            "taken: how often it was taken. waits: how often a process had to wait. long_waits: waits of 250 ms or more.",
            "recoveries: how often its holder died and the next holder recovered the transaction.",
            "number: the room's number; of a player, the place in the table of players, from 1. The last line is the total of all",
            "locks, shown or not.",
            "--all shows all locks.",
        ],
    },
    Description {
        name: "config",
        usage: "config [--json]",
        summary: "lists the settings and the source of each value",
        more: &[
            "source: default, file, environment or command line; from: the file, variable or option itself.",
            "Only the level of the log can be changed while the server runs: see `help log`.",
        ],
    },
    Description {
        name: "ping",
        usage: "ping [--json]",
        summary: "shows how long each of the supervisor's processes takes to answer",
        more: &[
            "Each process is woken and answers in its next loop iteration. A stopped or hung process",
            "shows as `no answer` after a second. (Tickers are not woken: they iterate by themselves.)",
        ],
    },
    Description {
        name: "top",
        usage: "top [SECONDS] [--json]",
        summary: "shows the busiest rooms, and the players who send most, over a second",
        more: &[
            "Per second, the ten of each with most; SECONDS: at most 60. changes_s: how often the room's lock was taken, for a",
            "change or a look. bytes_in_s: handled input of a player. bytes_out_s: output to a player, or events of a room.",
        ],
    },
    Description {
        name: "watch",
        usage: "watch ROOM [--hidden]",
        summary: "follows a room's events until you press Enter",
        more: &[
            "One line each: the event's number and what happened. The room does not wait: if you read too slowly, you are told",
            "how many events were missed. --hidden also shows what is for one seat only.",
            "Any line ends it, and is not executed; so do Ctrl-C and the end of the room.",
        ],
    },
    Description {
        name: "trace",
        usage: "trace ID|NAME",
        summary: "follows a player's frames in both directions until you press Enter",
        more: &[
            "One line each: seconds since the trace began, `>` from the client or `<` to it, and the message.",
            "Passcodes, tokens and invite codes are not shown. The player does not wait: bytes that are overwritten before they are",
            "read are counted as missed. A takeover or a resume is shown, and the trace continues.",
            "Any line ends it, and is not executed; so do Ctrl-C and the end of the session.",
        ],
    },
    Description {
        name: "log",
        usage: "log [off|error|warn|info|debug|trace]",
        summary: "shows or sets the level of the log, for all processes at once",
        more: &["It applies until it is set again or the server ends."],
    },
    Description {
        name: "say",
        usage: "say TEXT",
        summary: "sends a line to all players, in the server's name",
        more: &[
            "It is a line of the lobby's chat without an author. Players who are away get it when they return.",
            "The text is the rest of the line, cleaned like lines of players.",
        ],
    },
    Description {
        name: "kick",
        usage: "kick PLAYER",
        summary: "removes a player from the server (who may connect again as a new player)",
        more: &["The name is the rest of the line, spaces included; upper and lower case are the same."],
    },
    Description {
        name: "ban",
        usage: "ban NAME|ADDRESS [TIME]",
        summary: "keeps a name or an address off the server for a time, and removes the players who have it",
        more: &[
            "TIME is a number with s, m, h or d (seconds, minutes, hours, days), as in `ban Ann Lee 10m`: a day if it is left",
            "out, at most 30 days. It replaces an earlier ban of the name. A name that ends like a time stands in quotes.",
            "An IP address bans all connections from its source: see `sources`. A name that looks like an address stands in",
            "quotes.",
            "It holds for the name in any case and for names that look like it, not for the person: see docs/console.md.",
        ],
    },
    Description {
        name: "mute",
        usage: "mute NAME [TIME]",
        summary: "keeps whoever has a name from chatting, for a time",
        more: &[
            "In rooms, in the lobby and to single players; nor may it invite players. TIME as for `ban`; an hour if it is left out.",
        ],
    },
    Description {
        name: "unban",
        usage: "unban NAME|ADDRESS",
        summary: "lifts the ban and the mute of a name, or the ban and the penalties of an address",
        more: &[],
    },
    Description {
        name: "bans",
        usage: "bans [--json]",
        summary: "lists the bans and mutes, and how long they still hold",
        more: &[],
    },
    Description {
        name: "sources",
        usage: "sources [--json]",
        summary: "lists the addresses that clients connect from",
        more: &[
            "A source is an IPv4 address, or the first 64 bits of an IPv6 address. `greeting` counts the connections that",
            "have not greeted, `players` also those who are away. `penalty`, `refused` and `banned` are seconds left: a",
            "source is refused while its penalty is more than 30 s. `ban` and `unban` take an address.",
        ],
    },
    Description {
        name: "penalties",
        usage: "penalties [--json]",
        summary: "lists the sources that are penalised for bad connections, as `sources` does",
        more: &[
            "5 s for first bytes that are no greeting, 10 s for no greeting in time, 90 s for input that kills its process",
            "again and again. `unban ADDRESS` lifts a penalty.",
        ],
    },
    Description {
        name: "drain",
        usage: "drain [SECONDS|off]",
        summary: "refuses new players and matches, and stops when the last match has ended",
        more: &[
            "Present players stay, and may return after a lost connection. When no match is under way, or after SECONDS, the",
            "server stops as by `stop`. Without SECONDS it waits for any time. Meanwhile no room is opened and no match",
            "begins. A match of a game without an end never ends by itself.",
            "A second `drain` changes the time; `drain off` cancels it.",
        ],
    },
    Description {
        name: "upgrade",
        usage: "upgrade",
        summary: "replaces the program in place by the one at the path that it was started from",
        more: &[
            "The new program is checked first, and refused with the reason if it cannot take over. Sockets, lobby and",
            "connections stay. Your own connection stays with the old program until it ends.",
        ],
    },
    Description {
        name: "stop",
        usage: "stop",
        summary: "stops the server in order, as SIGTERM does",
        more: &["Clients are told, and pending output is sent. A second `stop` ends the server at once."],
    },
    Description {
        name: "password",
        usage: "password WORD",
        summary: "gives the console's password, where one is needed",
        more: &[
            "On an address with a password (console-password-file) no other command is executed before. A guess takes a",
            "second, right or wrong, and three wrong ones end the connection. A console on a unix socket needs none.",
        ],
    },
    Description {
        name: "edit",
        usage: "edit [on|off]",
        summary: "switches line editing and history, for telnet",
        more: &[
            "Asks the telnet client for character mode. Netcat and scripts do not support it and get unexpected bytes. It is",
            "requested automatically if the first line is just Enter in telnet, or if the client begins to negotiate.",
            "Keys: arrows, Home, End, Delete; Ctrl-A start, Ctrl-E end, Ctrl-K cut to the end, Ctrl-U cut to the start, Ctrl-W cut",
            "a word, Ctrl-L redraw, Up and Down history, Ctrl-C cancel, Ctrl-D on an empty line quit.",
            "The history is lost when this console's process is replaced.",
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

    /// The command with its explanation.
    pub(crate) fn explanation(&self) -> Vec<String> {
        let more = self.more.iter().map(ToString::to_string);
        [format!("{}: {}", self.usage, self.summary)]
            .into_iter()
            .chain(more)
            .collect()
    }
}
