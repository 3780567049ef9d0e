use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::limits::{LISTEN_ADDRESSES_MAX, TRUSTED_PROXIES_MAX};

fn loaded(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(Subcommand, Settings), ConfigError> {
    let arguments = std::iter::once("forkade")
        .chain(arguments.iter().copied())
        .map(OsString::from);
    load(
        forkade_games::Games::new().program(),
        arguments,
        environment
            .iter()
            .map(|&(name, value)| (name.into(), value.into())),
    )
}

fn config(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
    loaded(arguments, environment)
        .expect("a good configuration")
        .1
        .config
}

/// All mistakes, one text each.
fn mistakes(arguments: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    match loaded(arguments, environment) {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("not invalid: {other:?}"),
    }
}

/// Runs `test` with the path of a file that contains `text`.
fn with_file<R>(text: &str, test: impl FnOnce(&str) -> R) -> R {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "forkade-config-{}-{}.toml",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).expect("a temporary file");
    let result = test(path.to_str().expect("a plain path"));
    std::fs::remove_file(&path).expect("removed");
    result
}

#[test]
fn without_any_source_the_defaults_apply() {
    let (command, settings) = loaded(&[], &[]).expect("a good configuration");
    assert_eq!(
        (command, settings.sources),
        (Subcommand::Serve, [ConfigSource::Default; SETTINGS.len()])
    );
    let config = settings.config;
    assert_eq!(config.listen.to_string(), "127.0.0.1:4000");
    assert_eq!(
        config.console.map(|address| address.to_string()).as_deref(),
        Some("127.0.0.1:4001")
    );
    assert_eq!((config.connections_max, config.keepers >= 3), (2100, true));
}

#[test]
fn the_command_line_takes_precedence_over_the_environment_and_that_over_the_file() {
    with_file(
        "players_max = 1\nrooms_max = 1\nbacklog = 1\nconsole = \"none\"\n",
        |path| {
            let environment = [
                ("FORKADE_PLAYERS_MAX", "2"),
                ("FORKADE_ROOMS_MAX", "2"),
                ("HOME", "/"),
            ];
            let arguments = ["--players-max", "3", "--config", path];
            let (_, settings) = loaded(&arguments, &environment).expect("a good configuration");
            let config = settings.config;
            assert_eq!(
                (
                    config.players_max,
                    config.rooms_max,
                    config.backlog,
                    config.console
                ),
                (3, 2, 1, None)
            );
            let source = |flag| {
                settings
                    .iter()
                    .find(|(setting, ..)| setting.flag == flag)
                    .map(|(.., source)| source)
            };
            assert_eq!(source("players-max"), Some(ConfigSource::CommandLine));
            assert_eq!(source("rooms-max"), Some(ConfigSource::Environment));
            assert_eq!(source("backlog"), Some(ConfigSource::File));
            assert_eq!(source("listen"), Some(ConfigSource::Default));
            assert_eq!(config_file_of(&settings), path);
        },
    );
}

fn config_file_of(settings: &Settings) -> &str {
    settings
        .file
        .as_deref()
        .and_then(Path::to_str)
        .expect("there is one")
}

#[test]
fn the_environment_can_name_the_file() {
    with_file("backlog = 7", |path| {
        assert_eq!(config(&[], &[("FORKADE_CONFIG", path)]).backlog, 7)
    });
}

#[test]
fn options_may_stand_before_and_after_the_command_and_the_last_one_counts() {
    assert_eq!(config(&["--backlog", "1", "serve"], &[]).backlog, 1);
    assert_eq!(
        config(&["serve", "--backlog", "1", "--backlog=2"], &[]).backlog,
        2
    );
    assert!(matches!(
        loaded(&["check", "--backlog", "1"], &[]),
        Ok((Subcommand::Check, _))
    ));
}

#[test]
fn every_default_is_a_valid_value() {
    let (_, settings) = loaded(&[], &[]).expect("a good configuration");
    for setting in &SETTINGS {
        for config in [Config::default(), settings.config] {
            let mut again = config;
            assert_eq!(
                setting.set(&mut again, &setting.format_value(config)),
                Ok(()),
                "{}",
                setting.flag
            );
            assert_eq!(again, config);
        }
    }
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_place_and_remedy() {
    let file = "# comment\nplayers_max = 0\nplayer_max = 5\nlisten = true\n";
    let errors = with_file(file, |path| {
        mistakes(
            &["--listen", "localhost", "--config", path],
            &[("FORKADE_LOG", "loud")],
        )
    });
    assert_eq!(errors.len(), 5, "{errors:#?}");
    assert!(
        errors[0].contains(".toml:4: listen: neither a text nor a list"),
        "{errors:#?}"
    );
    assert!(
        errors[1].contains(".toml:3: player_max: there is no such setting"),
        "{errors:#?}"
    );
    assert!(
        errors[1].contains(
            "there are listen, trusted_proxy, console, console_password_file, audit_log, players_max"
        ),
        "{errors:#?}"
    );
    assert!(
        errors[2].ends_with(".toml:2: players_max: \"0\" is not valid\n  give a number from 1 to 100000"),
        "{errors:#?}"
    );
    assert_eq!(
        errors[3],
        "error: FORKADE_LOG: \"loud\" is not valid\n  give one of off, error, warn, info, debug and trace"
    );
    assert!(
        errors[4]
            .starts_with("error: --listen: \"localhost\" is not valid\n  give up to 16 of these: an address"),
        "{errors:#?}"
    );
}

#[test]
fn absurd_values_are_rejected() {
    let absurd = [
        ("--players-max", "100001"),
        ("--rooms-max", "-1"),
        ("--connections-max", "0"),
        ("--keepers", "129"),
        ("--backlog", "1e3"),
        ("--heartbeat-timeout-ms", "99999999999999999999"),
        ("--send-buffer-bytes", ""),
        ("--console", "nobody"),
        ("--listen", "127.0.0.1:70000"),
    ];
    for (flag, value) in absurd {
        let errors = mistakes(&[&format!("{flag}={value}")], &[]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].starts_with(&format!("error: {flag}: {value:?} is not valid\n  give ")),
            "{errors:?}"
        );
    }
}

#[test]
fn values_that_contradict_each_other_are_rejected() {
    let errors = mistakes(&["--keepers", "2", "--connections-max", "2001"], &[]);
    assert!(errors[0].contains("set keepers to 3 or more"), "{errors:?}");
    for (listen, console) in [
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("0.0.0.0:5000", "127.0.0.1:5000"),
        ("127.0.0.1:4000,[::]:5000", "[::1]:5000"),
    ] {
        let errors = mistakes(&["--listen", listen, "--console", console], &[]);
        assert!(errors[0].contains("want the same port"), "{errors:?}");
    }
    config(&["--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"], &[]);
    config(&["--listen", "[::]:5000", "--console", "127.0.0.1:5000"], &[]);
}

#[test]
fn unusable_configuration_files_are_rejected() {
    let errors = mistakes(&["--config", "/nowhere/at/all"], &[]);
    assert!(
        errors[0].contains("cannot read the configuration file /nowhere/at/all: No such file"),
        "{errors:?}"
    );
    let errors = mistakes(&["--config", "/dev/zero"], &[]);
    assert!(errors[0].contains("longer than"), "{errors:?}");
    let errors = with_file("backlog = 1\n\nlisten = [\n", |path| {
        mistakes(&["--config", path], &[])
    });
    assert!(errors[0].contains(".toml:3: not TOML: "), "{errors:?}");
    let errors = with_file("[server]\nbacklog = 1\n", |path| {
        mistakes(&["--config", path], &[])
    });
    assert!(
        errors[0].contains(".toml:1: server: there is no such setting"),
        "{errors:?}"
    );
}

#[test]
fn an_unknown_variable_is_a_warning() {
    let (_, settings) = loaded(&[], &[("FORKADE_LISTN", "x")]).expect("a good configuration");
    assert!(
        settings.warnings[0]
            .to_string()
            .contains("FORKADE_LISTN is set, but there is no such setting")
    );
}

#[test]
fn clap_rejects_an_invalid_command_line() {
    for bad in [&["--playersmax", "5"][..], &["run"], &["--backlog"]] {
        assert!(
            matches!(loaded(bad, &[]), Err(ConfigError::CommandLine(_))),
            "{bad:?}"
        );
    }
    let help = loaded(&["--help"], &[])
        .expect_err("help is no configuration")
        .to_string();
    assert!(
        help.contains("[default: 127.0.0.1:4000] [env: FORKADE_LISTEN]"),
        "{help}"
    );
}

#[test]
fn consoles_can_be_given_together_and_the_last_of_each_kind_counts() {
    let consoles = |arguments: &[&str]| {
        let config = config(arguments, &[]);
        (
            config.console.map(|address| address.port()),
            config.console_unix.and_then(Path::to_str),
        )
    };
    let (one, other) = (["--console", "127.0.0.1:1"], ["--console", "127.0.0.1:2"]);
    let unix = ["--console", "unix:/run/a b"];
    assert_eq!(consoles(&[]), (Some(4001), None));
    assert_eq!(
        consoles(&unix),
        (None, Some("/run/a b")),
        "it replaces the default"
    );
    assert_eq!(
        consoles(&[one, unix, other].concat()),
        (Some(2), Some("/run/a b"))
    );
    assert_eq!(
        consoles(&[one, ["--console", "none"], unix].concat()),
        (None, Some("/run/a b"))
    );
    assert_eq!(consoles(&[unix, ["--console", "none"]].concat()), (None, None));
    let environment = [("FORKADE_CONSOLE", "unix:/x,127.0.0.1:3")];
    let (_, settings) = loaded(&[], &environment).expect("a good configuration");
    let shown = settings.iter().find(|(setting, ..)| setting.flag == "console");
    assert_eq!(
        shown.map(|(_, value, _)| value).as_deref(),
        Some("127.0.0.1:3,unix:/x")
    );
    let long = format!("unix:/{}", "x".repeat(107));
    for wrong in ["unix:", "somewhere", &long] {
        assert!(
            mistakes(&["--console", wrong], &[])[0].contains("is not valid"),
            "{wrong}"
        );
    }
}

#[test]
fn clients_can_connect_in_several_places() {
    let listen =
        |arguments: &[&str], environment: &[(&str, &str)]| config(arguments, environment).listen.to_string();
    let both = ["--listen", "127.0.0.1:1", "--listen", "localhost:2"];
    assert_eq!(listen(&both, &[]), "127.0.0.1:1,localhost:2");
    let environment = [("FORKADE_LISTEN", "[::1]:3,127.0.0.1:3")];
    assert_eq!(listen(&[], &environment), "[::1]:3,127.0.0.1:3");
    assert_eq!(
        listen(&both[..2], &environment),
        "127.0.0.1:1",
        "the command line replaces them"
    );
    with_file("listen = [\"127.0.0.1:4\", \"a.example:5\"]", |path| {
        assert_eq!(listen(&["--config", path], &[]), "127.0.0.1:4,a.example:5");
    });
    for wrong in ["listen = []", "listen = [4]", "backlog = [\"1\"]"] {
        let errors = with_file(wrong, |path| mistakes(&["--config", path], &[]));
        assert!(errors[0].contains("neither a text nor a "), "{errors:?}");
    }
    let many = vec!["127.0.0.1:0"; LISTEN_ADDRESSES_MAX + 1].join(",");
    let errors = mistakes(&["--listen", &many], &[]);
    assert!(errors[0].contains("give up to 16 of these"), "{errors:?}");
}

#[test]
fn proxies_are_trusted_by_address_or_network() {
    let trusted = |arguments: &[&str], environment: &[(&str, &str)]| config(arguments, environment);
    assert_eq!(trusted(&[], &[]).trusted_proxies.to_string(), "none");
    let flags = ["--trusted-proxy", "192.0.2.7", "--trusted-proxy", "10.1.0.0/16"];
    let flags = trusted(&flags, &[]);
    assert_eq!(flags.trusted_proxies.to_string(), "192.0.2.7/32,10.1.0.0/16");
    let is_trusted = |address: &str| flags.is_trusted_proxy(address.parse().expect("an address"));
    assert!(is_trusted("192.0.2.7") && is_trusted("10.1.255.255"));
    assert!(!is_trusted("192.0.2.8") && !is_trusted("10.2.0.0") && !is_trusted("::1"));
    let environment = [("FORKADE_TRUSTED_PROXY", "2001:db8::/32,::1")];
    let networks = trusted(&[], &environment).trusted_proxies;
    assert_eq!(networks.to_string(), "2001:db8::/32,::1/128");
    with_file("trusted_proxy = [\"10.0.0.0/8\", \"::1\"]", |path| {
        let networks = trusted(&["--config", path], &[]).trusted_proxies;
        assert_eq!(networks.to_string(), "10.0.0.0/8,::1/128");
    });
    let many = vec!["::1"; TRUSTED_PROXIES_MAX + 1].join(",");
    for wrong in ["", "localhost", "10.0.0.0/33", "10.0.0.0/8,", "none,::1", &many] {
        let errors = mistakes(&[&format!("--trusted-proxy={wrong}")], &[]);
        assert!(
            errors[0].contains("give up to 64 addresses or networks"),
            "{errors:?}"
        );
    }
}

#[test]
fn a_console_off_loopback_needs_a_password_file_with_one_line() {
    for address in ["0.0.0.0:1", "192.0.2.7:1", "[::]:1"] {
        assert!(
            mistakes(&["--console", address], &[])[0].contains("could stop the server"),
            "{address}"
        );
    }
    for (text, is_good) in [
        ("secret word\n", true),
        ("secret", true),
        ("", false),
        ("two\nlines\n", false),
        (" spaces ", false),
    ] {
        with_file(text, |path| {
            let arguments = ["--console", "0.0.0.0:1", "--console-password-file", path];
            match loaded(&arguments, &[]) {
                Ok((_, settings)) => assert!(is_good && settings.console_password.is_some(), "{text:?}"),
                Err(error) => assert!(!is_good && error.to_string().contains(path), "{text:?}: {error}"),
            }
        });
    }
}
