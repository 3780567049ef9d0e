//! Loads the configuration from its sources: command line, environment, file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches};
use toml::de::{DeTable, DeValue};

use crate::config::{
    AUTOMATIC, Config, ConfigError, ConfigSource, Problem, SETTINGS, Setting, Settings, Subcommand,
};
use crate::limits::{CONFIG_FILE_BYTES_MAX, PASSWORD_FILE_BYTES_MAX};
use forkade_games::Program;

/// Prefix of each environment variable.
pub(crate) const VARIABLE_PREFIX: &str = "FORKADE_";

const CONFIG_FLAG: &str = "config";
const CONFIG_VARIABLE: &str = "FORKADE_CONFIG";

/// Reads the command line (program name first), the environment, and the file that one of them names.
///
/// # Errors
///
/// [`ConfigError::CommandLine`] for a command line that clap rejects, and for `--help` and `--version`.
/// [`ConfigError::Invalid`] with all other mistakes, including those in the file and the environment.
pub fn load(
    program: Program,
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Subcommand, Settings), ConfigError> {
    let matches = command_line(program).try_get_matches_from(arguments)?;
    let (command, matches) = match matches.subcommand() {
        Some(("check", matches)) => (Subcommand::Check, matches),
        Some(("upgrade", matches)) => (Subcommand::Upgrade, matches),
        // `play` as the first argument does not come here: the caller handles it.
        Some(("play", _)) => return Err(misplaced_play_error(program).into()),
        Some((_, matches)) => (Subcommand::Serve, matches),
        None => (Subcommand::Serve, &matches),
    };
    let mut loader = Loader::default();
    let environment = loader.environment(environment);
    let file = matches.get_one::<PathBuf>(CONFIG_FLAG).cloned();
    let file = file.or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
    // In ascending precedence: later values replace earlier ones.
    if let Some(path) = &file {
        loader.file(path);
    }
    loader.variables(&environment);
    loader.options(matches);
    Ok((command, loader.finish(file)?))
}

fn command_line(program: Program) -> clap::Command {
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
            .action(match setting.is_repeatable() {
                true => ArgAction::Append,
                false => ArgAction::Set,
            })
    });
    // Once in the life of a process.
    let version: &'static str = program.version().leak();
    clap::Command::new(program.name())
        .bin_name(program.name())
        .about("A multi-process TCP game server: any process can be killed at any instruction, and no player notices")
        .version(version)
        // The last value counts, so that a script can append an option to those it has already.
        .args_override_self(true)
        .args(
            std::iter::once(config)
                .chain(settings)
                .map(|argument| argument.global(true)),
        )
        .subcommand(clap::Command::new("serve").about("Run the server (the default command)"))
        .subcommand(
            clap::Command::new("check")
                .about("Check the configuration, and whether this machine can hold its capacity"),
        )
        .subcommand(
            clap::Command::new("upgrade")
                .about("Upgrade the running server whose console is at --console in place, without dropping connections"),
        )
        .subcommand(forkade_play::command())
}

fn misplaced_play_error(program: Program) -> clap::Error {
    let text =
        "the options of the server do not apply to `play`: leave them out, or put options of `play` after it";
    command_line(program).error(clap::error::ErrorKind::ArgumentConflict, text)
}

/// A configuration that is being loaded.
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
                    format!("{origin}: {text:?} is not valid"),
                    format!("give {expected}"),
                ));
            }
        }
    }

    /// The variables that are settings. Other `FORKADE_*` variables are warned of.
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
                        .push(Problem::error(what, "unset it, or set it to UTF-8 text"));
                }
                // Not an error: Kubernetes sets such variables for a service of that name.
                _ => self.warnings.push(Problem::warning(
                    format!("{name} is set, but there is no such setting"),
                    format!(
                        "unset it or correct its name; there are {}",
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
            if let Some(values) = matches.get_many::<String>(setting.flag) {
                let text = values.map(String::as_str).collect::<Vec<_>>().join(",");
                self.set(
                    index,
                    &text,
                    ConfigSource::CommandLine,
                    &format!("--{}", setting.flag),
                );
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let shown = path.display();
        let text = match read_bounded(path, CONFIG_FILE_BYTES_MAX) {
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
                DeValue::Array(values)
                    if SETTINGS[index].is_repeatable()
                        && !values.is_empty()
                        && values.iter().all(|value| value.get_ref().is_str()) =>
                {
                    let texts: Vec<_> = values
                        .iter()
                        .filter_map(|value| value.get_ref().as_str())
                        .collect();
                    self.set(index, &texts.join(","), ConfigSource::File, &origin);
                }
                _ => {
                    let what = match SETTINGS[index].is_repeatable() {
                        true => format!("{origin}: neither a text nor a list of texts"),
                        false => format!("{origin}: neither a text nor a whole number"),
                    };
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
        let password = self.config.console_password_file.map(read_password);
        let console_password = match password.transpose() {
            Ok(password) => password,
            Err(problem) => {
                self.errors.push(problem);
                None
            }
        };
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
                console_password,
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

/// SHA-256 of the password in a file.
fn read_password(path: &Path) -> Result<[u8; 32], Problem> {
    let text = password_in(path).map_err(|cause| {
        let what = format!("cannot use the password file {}: {cause}", path.display());
        Problem::error(
            what,
            "write the password into it as one line, without spaces or tabs at its ends",
        )
    })?;
    Ok(password_digest(&text))
}

/// The password in a file.
///
/// # Errors
///
/// The file cannot be read, or is not one line that can be entered at a console.
pub(crate) fn password_in(path: &Path) -> io::Result<String> {
    let text = read_bounded(path, PASSWORD_FILE_BYTES_MAX)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    if password.contains(char::is_control) || password.trim() != password {
        return Err(io::Error::other("a console cannot be sent this"));
    }
    Ok(password.to_owned())
}

/// SHA-256 of a password, by which two are compared.
pub(crate) fn password_digest(password: &str) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(password).into()
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it is longer than {bytes_max} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
