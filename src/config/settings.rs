//! The table of settings, and the text form of their values.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use ipnet::IpNet;
use log::LevelFilter;

use crate::config::{AUTOMATIC, Config, EarlyRefusal, List, ListenAddress, Span, sources};
use crate::limits::{
    CLIENTS_PER_HANDLER_MAX, CONNECTIONS_PER_KEEPER_MAX, KEEPERS_MAX, LISTEN_ADDRESSES_MAX,
    PLAYERS_OR_ROOMS_MAX, RESERVED_NAMES_MAX, SPARE_HANDLERS_MAX, TICKERS_MAX, TICKERS_MIN,
    TRUSTED_PROXIES_MAX, UNIX_PATH_BYTES_MAX,
};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The option without its `--`. The key in the file has `_` for `-`; the variable is the key in capitals after
    /// `FORKADE_`.
    pub flag: &'static str,
    pub(super) value_name: &'static str,
    pub(super) help: &'static str,
    kind: ValueKind,
}

/// The kind of a setting's values, their range, and the field of [`Config`] that holds them.
#[derive(Debug)]
enum ValueKind {
    /// Where clients connect: addresses and names of hosts.
    Listen,
    /// Networks.
    TrustedProxies,
    /// Where operators connect: an address, a unix socket, both, or neither.
    Consoles,
    PathOrNone(fn(&mut Config) -> &mut Option<&'static Path>),
    Number(fn(&mut Config) -> &mut u32, RangeInclusive<u32>),
    NumberOrAutomatic(fn(&mut Config) -> &mut u32, RangeInclusive<u32>),
    /// Two numbers up to a maximum, as `MIN..MAX`.
    Span(fn(&mut Config) -> &mut Span, u32),
    Names(fn(&mut Config) -> &mut List<String>),
    EarlyRefusal,
    Level(fn(&mut Config) -> &mut LevelFilter),
}

const DAY_MS: u32 = 86_400_000;
const HOUR_MS: u32 = 3_600_000;

/// All settings.
pub const SETTINGS: [Setting; 44] = [
    Setting {
        flag: "listen",
        value_name: "HOST:PORT",
        help: "Where clients connect: an address, or a host name, which is looked up once (may be given several times); port 0 lets the system choose a port",
        kind: ValueKind::Listen,
    },
    Setting {
        flag: "trusted-proxy",
        value_name: "CIDR|none",
        help: "Address or network of proxies (may be given several times): connections from there must begin with a PROXY header, which names the client",
        kind: ValueKind::TrustedProxies,
    },
    Setting {
        flag: "console",
        value_name: "IP:PORT|unix:PATH",
        help: "Where operators connect: an address, a unix socket, both (give it twice), or `none`",
        kind: ValueKind::Consoles,
    },
    Setting {
        flag: "console-password-file",
        value_name: "FILE",
        help: "Password of the console's address, in a file; required unless that is a loopback address",
        kind: ValueKind::PathOrNone(|config| &mut config.console_password_file),
    },
    Setting {
        flag: "audit-log",
        value_name: "FILE",
        help: "File to which one line of JSON is appended for each act of an operator",
        kind: ValueKind::PathOrNone(|config| &mut config.audit_log),
    },
    Setting {
        flag: "players-max",
        value_name: "NUMBER",
        help: "Most players at once, connected or within their grace",
        kind: ValueKind::Number(|config| &mut config.players_max, 1..=PLAYERS_OR_ROOMS_MAX),
    },
    Setting {
        flag: "rooms-max",
        value_name: "NUMBER",
        help: "Most rooms at once",
        kind: ValueKind::Number(|config| &mut config.rooms_max, 1..=PLAYERS_OR_ROOMS_MAX),
    },
    Setting {
        flag: "connections-max",
        value_name: "NUMBER|auto",
        help: "Most connections at once; `auto`: players-max and some more",
        kind: ValueKind::NumberOrAutomatic(
            |config| &mut config.connections_max,
            1..=number(KEEPERS_MAX) * CONNECTIONS_PER_KEEPER_MAX,
        ),
    },
    Setting {
        flag: "keepers",
        value_name: "NUMBER|auto",
        help: "Keeper processes, with 1000 connections each at most; `auto`: one per core, or more if needed",
        kind: ValueKind::NumberOrAutomatic(|config| &mut config.keepers, 1..=number(KEEPERS_MAX)),
    },
    Setting {
        flag: "tickers",
        value_name: "NUMBER|auto",
        help: "Processes that run what happens by time, in any room; `auto`: one per core, 2 to 4",
        kind: ValueKind::NumberOrAutomatic(
            |config| &mut config.tickers,
            number(TICKERS_MIN)..=number(TICKERS_MAX),
        ),
    },
    Setting {
        flag: "clients-per-handler",
        value_name: "NUMBER",
        help: "Most clients that one process serves at once: 1 isolates each client, more need less memory",
        kind: ValueKind::Number(
            |config| &mut config.clients_per_handler,
            1..=CLIENTS_PER_HANDLER_MAX,
        ),
    },
    Setting {
        flag: "handler-life",
        value_name: "CLIENTS|auto",
        help: "Most clients that one process serves before it ends; `auto`: clients-per-handler, so that no place is used twice",
        kind: ValueKind::NumberOrAutomatic(|config| &mut config.handler_life, 1..=u32::MAX),
    },
    Setting {
        flag: "spare-handlers",
        value_name: "MIN..MAX",
        help: "Processes that each keeper forks in advance: MIN while few clients connect, up to MAX when many do",
        kind: ValueKind::Span(|config| &mut config.spare_handlers, SPARE_HANDLERS_MAX),
    },
    Setting {
        flag: "backlog",
        value_name: "NUMBER",
        help: "Most connections that wait in the kernel to be accepted",
        kind: ValueKind::Number(|config| &mut config.backlog, 1..=65_535),
    },
    Setting {
        flag: "heartbeat-timeout-ms",
        value_name: "MS",
        help: "Silence after which a client counts as gone",
        kind: ValueKind::Number(|config| &mut config.heartbeat_timeout_ms, 100..=DAY_MS),
    },
    Setting {
        flag: "text-idle-timeout-ms",
        value_name: "MS",
        help: "Silence after which a player in text mode counts as gone",
        kind: ValueKind::Number(|config| &mut config.text_idle_timeout_ms, 100..=DAY_MS),
    },
    Setting {
        flag: "seat-grace-ms",
        value_name: "MS",
        help: "How long a seat is kept for a player who lost the connection",
        kind: ValueKind::Number(|config| &mut config.seat_grace_ms, 0..=DAY_MS),
    },
    Setting {
        flag: "seat-reservation-ms",
        value_name: "MS",
        help: "How long a seat is kept for a player whom the room's owner invited",
        kind: ValueKind::Number(|config| &mut config.seat_reservation_ms, 100..=HOUR_MS),
    },
    Setting {
        flag: "reader-wait-ms",
        value_name: "MS",
        help: "How long moves wait, in 10 s, for each player of their room who has fallen behind",
        kind: ValueKind::Number(|config| &mut config.reader_wait_ms, 0..=5000),
    },
    Setting {
        flag: "handshake-timeout-ms",
        value_name: "MS",
        help: "Time for a connection's handshake",
        kind: ValueKind::Number(|config| &mut config.handshake_timeout_ms, 100..=DAY_MS),
    },
    Setting {
        flag: "banner-after-ms",
        value_name: "MS",
        help: "When a client that sends nothing is told what people do; 0: never",
        kind: ValueKind::Number(|config| &mut config.banner_after_ms, 0..=DAY_MS),
    },
    Setting {
        flag: "drain-timeout-ms",
        value_name: "MS",
        help: "How long an orderly stop waits for output on its way to clients",
        kind: ValueKind::Number(|config| &mut config.drain_timeout_ms, 0..=DAY_MS),
    },
    Setting {
        flag: "chat-burst",
        value_name: "NUMBER",
        help: "Chat lines that a player may send at once, in all scopes together",
        kind: ValueKind::Number(|config| &mut config.chat_burst, 1..=1000),
    },
    Setting {
        flag: "chat-per-minute",
        value_name: "NUMBER",
        help: "Chat lines that a player may send per minute in the long run; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.chat_per_minute, 0..=60_000),
    },
    Setting {
        flag: "requests-burst",
        value_name: "NUMBER",
        help: "Rate-limited requests (to open, enter or change a room) that a player may make at once",
        kind: ValueKind::Number(|config| &mut config.requests_burst, 1..=100_000),
    },
    Setting {
        flag: "requests-per-minute",
        value_name: "NUMBER",
        help: "Rate-limited requests that a player may make per minute in the long run; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.requests_per_minute, 0..=6_000_000),
    },
    Setting {
        flag: "failures-burst",
        value_name: "NUMBER",
        help: "Requests of a player that may be rejected in a row before the next one has to wait",
        kind: ValueKind::Number(|config| &mut config.failures_burst, 1..=100_000),
    },
    Setting {
        flag: "failures-per-minute",
        value_name: "NUMBER",
        help: "Requests of a player that may be rejected per minute in the long run; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.failures_per_minute, 0..=6_000_000),
    },
    Setting {
        flag: "guesses-per-minute",
        value_name: "NUMBER",
        help: "Wrong passcodes, and as many wrong invite codes, that a room judges per minute; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.guesses_per_minute, 0..=6_000_000),
    },
    Setting {
        flag: "lobby-fanout",
        value_name: "NUMBER",
        help: "Deliveries of lobby lines per second, to all players together; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.lobby_fanout, 0..=1_000_000),
    },
    Setting {
        flag: "room-fanout",
        value_name: "NUMBER",
        help: "Deliveries of a room's events per second, moves apart, to its members together; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.room_fanout, 0..=1_000_000),
    },
    Setting {
        flag: "server-fanout",
        value_name: "NUMBER",
        help: "Deliveries of the events of all rooms per second, moves apart; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.server_fanout, 0..=1_000_000),
    },
    Setting {
        flag: "source-connections",
        value_name: "NUMBER",
        help: "Connections that one source (an address, or an IPv6 network) may have at once; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.source_connections, 0..=1_000_000),
    },
    Setting {
        flag: "source-connects",
        value_name: "NUMBER",
        help: "Connections that one source may open per second in the long run; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.source_connects_per_second, 0..=1_000_000),
    },
    Setting {
        flag: "source-guesses",
        value_name: "NUMBER",
        help: "Wrong passcodes and invite codes that are judged per minute from one source; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.source_guesses_per_minute, 0..=6_000_000),
    },
    Setting {
        flag: "source-messages",
        value_name: "NUMBER",
        help: "Messages that one source's players may send per second in the long run; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.source_messages_per_second, 0..=1_000_000),
    },
    Setting {
        flag: "source-kib",
        value_name: "KIB",
        help: "Kibibytes that one source's players may send per second in the long run; 0: no limit",
        kind: ValueKind::Number(|config| &mut config.source_kib_per_second, 0..=60_000),
    },
    Setting {
        flag: "ipv4-source-prefix",
        value_name: "BITS",
        help: "Bits of an IPv4 address that name its source",
        kind: ValueKind::Number(|config| &mut config.ipv4_source_prefix, 8..=32),
    },
    Setting {
        flag: "ipv6-source-prefix",
        value_name: "BITS",
        help: "Bits of an IPv6 address that name its source",
        kind: ValueKind::Number(|config| &mut config.ipv6_source_prefix, 16..=64),
    },
    Setting {
        flag: "early-refusal",
        value_name: "NUMBERS",
        help: "START:PERCENT:FULL: when START connections have not greeted, PERCENT of the next are refused, up to all at FULL; `auto`, or `none`",
        kind: ValueKind::EarlyRefusal,
    },
    Setting {
        flag: "watchdog-cpu-ms",
        value_name: "MS",
        help: "Processor time after which a hung process, or one that blocks others, is killed; 0: never",
        kind: ValueKind::Number(|config| &mut config.watchdog_cpu_ms, 0..=DAY_MS),
    },
    Setting {
        flag: "send-buffer-bytes",
        value_name: "BYTES",
        help: "Kernel buffer for output to one client (SO_SNDBUF)",
        kind: ValueKind::Number(|config| &mut config.send_buffer_bytes, 4096..=16 << 20),
    },
    Setting {
        flag: "reserved-names",
        value_name: "NAME,…|none",
        help: "Names that players cannot have, nor any that looks like one of them",
        kind: ValueKind::Names(|config| &mut config.reserved_names),
    },
    Setting {
        flag: "log",
        value_name: "LEVEL",
        help: "Level of the log on stderr: off, error, warn, info, debug or trace",
        kind: ValueKind::Level(|config| &mut config.log),
    },
];

impl Setting {
    /// Whether the option may be given several times, and be a list in the file.
    pub(super) fn is_repeatable(&self) -> bool {
        matches!(
            self.kind,
            ValueKind::Listen | ValueKind::TrustedProxies | ValueKind::Consoles
        )
    }

    /// Its key in the configuration file.
    pub fn key(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("{}{}", sources::VARIABLE_PREFIX, self.key().to_uppercase())
    }

    /// Its value in `config`, spelt as on the command line.
    pub fn format_value(&self, mut config: Config) -> String {
        match &self.kind {
            ValueKind::Listen => config.listen.to_string(),
            ValueKind::TrustedProxies => config.trusted_proxies.to_string(),
            ValueKind::Consoles => {
                let address = config.console.map(|address| address.to_string());
                let unix = config
                    .console_unix
                    .map(|path| format!("{UNIX_PREFIX}{}", path.display()));
                match (address, unix) {
                    (None, None) => "none".to_owned(),
                    (Some(one), None) | (None, Some(one)) => one,
                    (Some(address), Some(unix)) => format!("{address},{unix}"),
                }
            }
            ValueKind::PathOrNone(field) => {
                field(&mut config).map_or("none".to_owned(), |path| path.display().to_string())
            }
            ValueKind::NumberOrAutomatic(field, _) if *field(&mut config) == AUTOMATIC => "auto".to_owned(),
            ValueKind::Number(field, _) | ValueKind::NumberOrAutomatic(field, _) => {
                field(&mut config).to_string()
            }
            ValueKind::Span(field, _) => field(&mut config).to_string(),
            ValueKind::Names(field) => field(&mut config).to_string(),
            ValueKind::EarlyRefusal => config.early_refusal.to_string(),
            ValueKind::Level(field) => field(&mut config).to_string().to_lowercase(),
        }
    }

    /// Parses `text` and stores the value in `config`.
    ///
    /// # Errors
    ///
    /// A description of valid values.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        const ADDRESS: &str = "an address with its port, like 127.0.0.1:4000, 0.0.0.0:4000 or [::1]:4000";
        let number = |range: &RangeInclusive<u32>| text.parse().ok().filter(|value| range.contains(value));
        let numbers =
            |range: &RangeInclusive<u32>| format!("a number from {} to {}", range.start(), range.end());
        match &self.kind {
            ValueKind::Listen => {
                let addresses: Result<List<ListenAddress>, _> = text.split(',').map(str::parse).collect();
                let expected = || {
                    format!(
                        "up to {LISTEN_ADDRESSES_MAX} of these: {ADDRESS}, or a host name with its port, like localhost:4000"
                    )
                };
                config.listen = addresses
                    .ok()
                    .filter(|addresses| addresses.0.len() <= LISTEN_ADDRESSES_MAX)
                    .ok_or_else(expected)?;
            }
            ValueKind::TrustedProxies => config.trusted_proxies = networks(text)?,
            ValueKind::Consoles => {
                (config.console, config.console_unix) = (None, None);
                // The last one of each kind counts, as for all options.
                for part in text.split(',') {
                    if part == "none" {
                        (config.console, config.console_unix) = (None, None);
                    } else if let Some(path) = part.strip_prefix(UNIX_PREFIX) {
                        config.console_unix = Some(unix_path(path)?);
                    } else {
                        let address = part.parse();
                        config.console =
                            Some(address.map_err(|_| format!("{ADDRESS}, `unix:PATH`, or `none`"))?);
                    }
                }
            }
            ValueKind::PathOrNone(field) => {
                *field(config) = match text {
                    "" => return Err("the path of a file, or `none`".to_owned()),
                    "none" => None,
                    path => Some(leaked(path)),
                }
            }
            ValueKind::Number(field, range) => {
                *field(config) = number(range).ok_or_else(|| numbers(range))?
            }
            ValueKind::NumberOrAutomatic(field, range) => {
                *field(config) = match text {
                    "auto" => AUTOMATIC,
                    _ => number(range).ok_or_else(|| numbers(range) + ", or `auto`")?,
                }
            }
            ValueKind::Span(field, max) => {
                let ends = text.split_once("..").unwrap_or((text, text));
                let number = |text: &str| text.parse().ok().filter(|value| value <= max);
                let span = number(ends.0)
                    .zip(number(ends.1))
                    .filter(|(min, max)| min <= max)
                    .map(|(min, max)| Span { min, max });
                *field(config) = span
                    .ok_or_else(|| format!("two numbers up to {max}, the smaller one first, like 2..16"))?;
            }
            ValueKind::Names(field) => *field(config) = names(text)?,
            ValueKind::EarlyRefusal => config.early_refusal = early_refusal(text)?,
            ValueKind::Level(field) => {
                let level = text
                    .parse()
                    .map_err(|_| "one of off, error, warn, info, debug and trace".to_owned());
                *field(config) = level?;
            }
        }
        Ok(())
    }
}

fn early_refusal(text: &str) -> Result<EarlyRefusal, String> {
    match text {
        "auto" => return Ok(EarlyRefusal::Automatic),
        "none" => return Ok(EarlyRefusal::Never),
        _ => {}
    }
    let numbers: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
    match numbers.as_deref() {
        Ok([start, percent @ 0..=100, full]) if start < full => Ok(EarlyRefusal::From {
            start: *start,
            percent: *percent,
            full: *full,
        }),
        _ => Err("START:PERCENT:FULL with START below FULL, like 100:30:1000; `auto`, or `none`".to_owned()),
    }
}

fn networks(text: &str) -> Result<List<IpNet>, String> {
    if text == "none" {
        return Ok(List(&[]));
    }
    let network = |text: &str| {
        let one = || text.parse().ok().map(|address: IpAddr| address.into());
        text.parse().ok().or_else(one)
    };
    let networks: Option<List<IpNet>> = text.split(',').map(network).collect();
    networks
        .filter(|networks| networks.0.len() <= TRUSTED_PROXIES_MAX)
        .ok_or_else(|| {
            format!(
                "up to {TRUSTED_PROXIES_MAX} addresses or networks, like 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32, or `none`"
            )
        })
}

fn names(text: &str) -> Result<List<String>, String> {
    if text == "none" {
        return Ok(List(&[]));
    }
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
    // Only letters and digits are compared.
    if names.len() > RESERVED_NAMES_MAX || !names.iter().all(|name| name.contains(char::is_alphanumeric)) {
        return Err(format!(
            "up to {RESERVED_NAMES_MAX} names with letters or digits and a comma between two, or `none`"
        ));
    }
    Ok(List(names.leak()))
}

/// What the path of a unix socket begins with.
const UNIX_PREFIX: &str = "unix:";

fn unix_path(path: &str) -> Result<&'static Path, String> {
    match path.len() {
        1..=UNIX_PATH_BYTES_MAX => Ok(leaked(path)),
        _ => Err(format!(
            "a path of 1 to {UNIX_PATH_BYTES_MAX} bytes after `unix:`"
        )),
    }
}

/// A path that lives as long as the process, as the configuration does.
fn leaked(path: &str) -> &'static Path {
    Path::new(Box::leak(Box::<str>::from(path)))
}

/// A limit in the type of a setting's value.
pub(super) const fn number(limit: usize) -> u32 {
    assert!(limit <= u32::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let number = limit as u32;
    number
}
