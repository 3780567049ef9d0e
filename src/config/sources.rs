//! The configuration from its sources: command line, environment, file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches};
use toml::de::{DeTable, DeValue};

use crate::config::{
    AUTOMATIC, Config, ConfigError, ConfigSource, Problem, SETTINGS, Setting, Settings, Subcommand,
};
use crate::limits::CONFIG_FILE_BYTES_MAX;
use forkade_play;

/// Before the name of each environment variable.
pub(crate) const VARIABLE_PREFIX: &str = "FORKADE_";

const CONFIG_FLAG: &str = "config";
const CONFIG_VARIABLE: &str = "FORKADE_CONFIG";

/// Reads the command line (program name first), the environment and the file that one of them names.
///
/// # Errors
///
/// [`ConfigError::CommandLine`] for a command line that clap does not understand and for `--help` and `--version`;
/// [`ConfigError::Invalid`] with all other mistakes, those of the file and the environment included.
pub fn load(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Subcommand, Settings), ConfigError> {
    let matches = command_line().try_get_matches_from(arguments)?;
    let (command, matches) = match matches.subcommand() {
        Some(("check", matches)) => (Subcommand::Check, matches),
        Some(("upgrade", matches)) => (Subcommand::Upgrade, matches),
        // It was not the first word, or it would not have come here.
        Some(("play", _)) => return Err(misplaced_play_error().into()),
        Some((_, matches)) => (Subcommand::Serve, matches),
        None => (Subcommand::Serve, &matches),
    };
    let mut loader = Loader::default();
    let environment = loader.environment(environment);
    let file = matches.get_one::<PathBuf>(CONFIG_FLAG).cloned();
    let file = file.or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
    // From the weakest to the strongest.
    if let Some(path) = &file {
        loader.file(path);
    }
    loader.variables(&environment);
    loader.options(matches);
    Ok((command, loader.finish(file)?))
}

fn command_line() -> clap::Command {
    let config = Arg::new(CONFIG_FLAG)
        .long(CONFIG_FLAG)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help(format!(
            "TOML file with any of these settings (as players_max = 500) [env: {CONFIG_VARIABLE}]"
        ));
    let settings = SETTINGS.iter().map(|setting| {
        let (default, variable) = (setting.format_value(Config::default()), setting.variable());
        Arg::new(setting.flag)
            .long(setting.flag)
            .value_name(setting.value_name)
            .help(format!("{} [default: {default}] [env: {variable}]", setting.help))
    });
    clap::Command::new("forkade")
        .about("A multi-process TCP game server: kill any process at any instruction, and no player notices")
        .version(env!("CARGO_PKG_VERSION"))
        // So that a script can add an option behind those that it has already.
        .args_override_self(true)
        .args(
            std::iter::once(config)
                .chain(settings)
                .map(|argument| argument.global(true)),
        )
        .subcommand(clap::Command::new("serve").about("Runs the server; so does leaving the command out"))
        .subcommand(
            clap::Command::new("check")
                .about("Says what is wrong with the configuration, and whether this machine can hold it"),
        )
        .subcommand(
            clap::Command::new("upgrade")
                .about("Lets the server whose console this is (--console) go on in a new program, without dropping anybody"),
        )
        .subcommand(forkade_play::command())
}

fn misplaced_play_error() -> clap::Error {
    let text = "the options of a server mean nothing to `forkade play`: leave them out, or put them behind `play` if they are its own";
    command_line().error(clap::error::ErrorKind::ArgumentConflict, text)
}

/// A configuration that is being put together.
struct Loader {
    config: Config,
    sources: [ConfigSource; SETTINGS.len()],
    warnings: Vec<Problem>,
    errors: Vec<Problem>,
}

impl Default for Loader {
    fn default() -> Self {
        Loader {
            config: Config::default(),
            sources: [ConfigSource::Default; SETTINGS.len()],
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }
}

impl Loader {
    fn set(&mut self, index: usize, text: &str, source: ConfigSource, origin: &str) {
        match SETTINGS[index].set(&mut self.config, text) {
            Ok(()) => self.sources[index] = source,
            Err(expected) => {
                self.errors.push(Problem::error(
                    format!("{origin}: {text:?} will not do"),
                    format!("give {expected}"),
                ));
            }
        }
    }

    /// The variables that are ours.
    fn environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> BTreeMap<String, String> {
        let mut ours = BTreeMap::new();
        for (name, value) in environment {
            let Ok(name) = name.into_string() else { continue };
            if !name.starts_with(VARIABLE_PREFIX) {
                continue;
            }
            let known = name == CONFIG_VARIABLE || SETTINGS.iter().any(|setting| setting.variable() == name);
            match value.into_string() {
                Ok(value) if known => {
                    ours.insert(name, value);
                }
                Err(value) if known => {
                    let what = format!("{name}: {value:?} is not UTF-8");
                    self.errors
                        .push(Problem::error(what, "unset it, or set it to a text"));
                }
                // No error: Kubernetes, for one, sets such variables for a service of that name.
                _ => self.warnings.push(Problem::warning(
                    format!("{name} is set, but there is no such setting"),
                    format!(
                        "unset it if it is misspelt; there are {}",
                        list_all(Setting::variable)
                    ),
                )),
            }
        }
        ours
    }

    fn variables(&mut self, environment: &BTreeMap<String, String>) {
        for (index, setting) in SETTINGS.iter().enumerate() {
            let variable = setting.variable();
            if let Some(text) = environment.get(&variable) {
                self.set(index, text, ConfigSource::Environment, &variable);
            }
        }
    }

    fn options(&mut self, matches: &ArgMatches) {
        for (index, setting) in SETTINGS.iter().enumerate() {
            if let Some(text) = matches.get_one::<String>(setting.flag) {
                self.set(
                    index,
                    text,
                    ConfigSource::CommandLine,
                    &format!("--{}", setting.flag),
                );
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let shown = path.display();
        let text = match read_bounded(path) {
            Ok(text) => text,
            Err(cause) => {
                let what = format!("cannot read the configuration file {shown}: {cause}");
                let remedy =
                    format!("name a readable TOML file with --{CONFIG_FLAG} or {CONFIG_VARIABLE}, or none");
                return self.errors.push(Problem::error(what, remedy));
            }
        };
        let line = |offset: usize| text[..offset].lines().count().max(1);
        let table = match DeTable::parse(&text) {
            Ok(table) => table.into_inner(),
            Err(cause) => {
                let line = cause.span().map_or(1, |span| line(span.start + 1));
                let what = format!("{shown}:{line}: not TOML: {}", cause.message());
                return self.errors.push(Problem::error(
                    what,
                    "write settings as players_max = 500, one per line",
                ));
            }
        };
        for (key, value) in &table {
            let origin = format!("{shown}:{}: {}", line(key.span().end), key.get_ref());
            let Some(index) = SETTINGS
                .iter()
                .position(|setting| setting.key() == **key.get_ref())
            else {
                let what = format!("{origin}: there is no such setting");
                self.errors.push(Problem::error(
                    what,
                    format!("there are {}", list_all(Setting::key)),
                ));
                continue;
            };
            match value.get_ref() {
                DeValue::String(text) => self.set(index, text, ConfigSource::File, &origin),
                DeValue::Integer(integer) => {
                    self.set(index, &integer.to_string(), ConfigSource::File, &origin)
                }
                _ => {
                    let what = format!("{origin}: neither a text nor a whole number");
                    let example = SETTINGS[index].format_value(Config::default());
                    self.errors.push(Problem::error(
                        what,
                        format!("give {} as in {example:?}", SETTINGS[index].value_name),
                    ));
                }
            }
        }
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Settings, ConfigError> {
        if self.errors.is_empty() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            self.config
                .derive_automatic(u32::try_from(cores).unwrap_or(u32::MAX));
            debug_assert!(self.config.keepers != AUTOMATIC && self.config.connections_max != AUTOMATIC);
            self.errors = self.config.conflicts();
        }
        if self.errors.is_empty() {
            let Loader {
                config,
                sources,
                warnings,
                ..
            } = self;
            Ok(Settings {
                config,
                sources,
                file,
                warnings,
            })
        } else {
            self.errors.extend(self.warnings);
            Err(ConfigError::Invalid(self.errors))
        }
    }
}

fn list_all(name: fn(&Setting) -> String) -> String {
    SETTINGS.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(CONFIG_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it is longer than {CONFIG_FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn loaded(
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<(Subcommand, Settings), ConfigError> {
        let arguments = std::iter::once("forkade")
            .chain(arguments.iter().copied())
            .map(OsString::from);
        load(
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

    /// What is wrong, one text for each mistake.
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
    fn without_anything_there_are_the_defaults() {
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
    fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
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
    fn options_go_before_and_behind_the_command_and_the_last_one_counts() {
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
    fn every_default_is_a_value_that_can_be_given() {
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
    fn all_mistakes_are_told_at_once_with_their_place_and_what_to_do() {
        let file = "# comment\nplayers_max = 0\nplayer_max = 5\nlisten = true\n";
        let told = with_file(file, |path| {
            mistakes(
                &["--listen", "localhost:4000", "--config", path],
                &[("FORKADE_LOG", "loud")],
            )
        });
        assert_eq!(told.len(), 5, "{told:#?}");
        assert!(
            told[0].contains(".toml:4: listen: neither a text nor"),
            "{told:#?}"
        );
        assert!(
            told[1].contains(".toml:3: player_max: there is no such setting"),
            "{told:#?}"
        );
        assert!(
            told[1].contains("there are listen, console, players_max"),
            "{told:#?}"
        );
        assert!(
            told[2].ends_with(".toml:2: players_max: \"0\" will not do\n  give a number from 1 to 100000"),
            "{told:#?}"
        );
        assert_eq!(
            told[3],
            "error: FORKADE_LOG: \"loud\" will not do\n  give one of off, error, warn, info, debug and trace"
        );
        assert!(
            told[4].starts_with("error: --listen: \"localhost:4000\" will not do\n  give an address"),
            "{told:#?}"
        );
    }

    #[test]
    fn absurd_values_are_refused_wherever_they_come_from() {
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
            let told = mistakes(&[&format!("{flag}={value}")], &[]);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(
                told[0].starts_with(&format!("error: {flag}: {value:?} will not do\n  give ")),
                "{told:?}"
            );
        }
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        let told = mistakes(&["--keepers", "2", "--connections-max", "2001"], &[]);
        assert!(told[0].contains("set keepers to 3 or more"), "{told:?}");
        for (listen, console) in [
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("0.0.0.0:5000", "127.0.0.1:5000"),
        ] {
            let told = mistakes(&["--listen", listen, "--console", console], &[]);
            assert!(told[0].contains("want the same port"), "{told:?}");
        }
        config(&["--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"], &[]);
    }

    #[test]
    fn files_that_are_none_are_refused() {
        let told = mistakes(&["--config", "/nowhere/at/all"], &[]);
        assert!(
            told[0].contains("cannot read the configuration file /nowhere/at/all: No such file"),
            "{told:?}"
        );
        let told = mistakes(&["--config", "/dev/zero"], &[]);
        assert!(told[0].contains("longer than"), "{told:?}");
        let told = with_file("backlog = 1\n\nlisten = [\n", |path| {
            mistakes(&["--config", path], &[])
        });
        assert!(told[0].contains(".toml:3: not TOML: "), "{told:?}");
        let told = with_file("[server]\nbacklog = 1\n", |path| {
            mistakes(&["--config", path], &[])
        });
        assert!(
            told[0].contains(".toml:1: server: there is no such setting"),
            "{told:?}"
        );
    }

    #[test]
    fn a_variable_nobody_knows_is_a_warning() {
        let (_, settings) = loaded(&[], &[("FORKADE_LISTN", "x")]).expect("a good configuration");
        assert!(
            settings.warnings[0]
                .to_string()
                .contains("FORKADE_LISTN is set, but there is no such setting")
        );
    }

    #[test]
    fn the_command_line_is_clap_s_to_refuse() {
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
}
