//! `forkade upgrade`: asks a running server, through its console, to continue in the program that lies where it was
//! started from.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Config, password_in};
use crate::limits::{CONSOLE_LINE_BYTES_MAX, UPGRADE_PROBE_TIMEOUT_MS};

/// Why the result of the upgrade is not known.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the server has no console to be asked by (`--console`); send its supervisor SIGUSR2 instead")]
    NoConsole,
    #[error("cannot ask the server on {console}: {source}")]
    Connection {
        console: String,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Refused(String),
    #[error("the server's console ended the connection without an answer")]
    NoAnswer,
}

/// Asks, and prints what the server replies until the upgrade is done or refused. Exit status 0 means that all
/// processes run the new program.
pub(crate) fn run(config: &Config) -> ExitCode {
    match ask(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forkade: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(config: &Config) -> Result<(), RequestError> {
    // The server sends something at least after the probe, and after each step.
    let poll_timeout = Duration::from_millis(2 * UPGRADE_PROBE_TIMEOUT_MS);
    if let Some(path) = config.console_unix {
        let failed = connection_error(format!("unix:{}", path.display()));
        let stream = UnixStream::connect(path).map_err(&failed)?;
        stream.set_read_timeout(Some(poll_timeout)).map_err(&failed)?;
        return request_upgrade(stream, None, failed);
    }
    let console = config.console.ok_or(RequestError::NoConsole)?;
    let failed = connection_error(console.to_string());
    let password = config.console_password_file.map(password_in).transpose();
    let password = password.map_err(&failed)?;
    let stream = TcpStream::connect_timeout(&console, poll_timeout).map_err(&failed)?;
    stream.set_read_timeout(Some(poll_timeout)).map_err(&failed)?;
    request_upgrade(stream, password.as_deref(), failed)
}

fn connection_error(console: String) -> impl Fn(io::Error) -> RequestError {
    move |source| RequestError::Connection {
        console: console.clone(),
        source,
    }
}

fn request_upgrade(
    mut stream: impl io::Read + Write,
    password: Option<&str>,
    failed: impl Fn(io::Error) -> RequestError,
) -> Result<(), RequestError> {
    let login = password.map(|password| format!("password {password}\n"));
    let is_login = login.is_some();
    let request = login.unwrap_or_default() + "upgrade\n";
    stream.write_all(request.as_bytes()).map_err(&failed)?;
    let mut lines = BufReader::new(stream);
    let mut replies_before = u32::from(is_login);
    loop {
        let mut line = Vec::new();
        let length = io::Read::take(&mut lines, CONSOLE_LINE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .map_err(&failed)?;
        if length == 0 {
            return Err(RequestError::NoAnswer);
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim_end() {
            "OK" if replies_before > 0 => replies_before -= 1,
            "OK" => return Ok(()),
            line => match line.strip_prefix("ERR ") {
                Some(why) => return Err(RequestError::Refused(why.to_owned())),
                None => println!("{}", forkade_text::escape::Escaped(line)),
            },
        }
    }
}
