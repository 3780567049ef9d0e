//! `forkade upgrade`: asks a running server, through its console, to continue in the program that lies where it was
//! started from.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use crate::limits::{CONSOLE_LINE_BYTES_MAX, UPGRADE_PROBE_TIMEOUT_MS};

/// Why the result of the upgrade is not known.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("the server has no console to be asked by (`--console`); send its supervisor SIGUSR2 instead")]
    NoConsole,
    #[error("cannot ask the server on {console}: {source}")]
    Connection {
        console: SocketAddr,
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
pub(crate) fn run(console: Option<SocketAddr>) -> ExitCode {
    match ask(console) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forkade: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(console: Option<SocketAddr>) -> Result<(), RequestError> {
    let console = console.ok_or(RequestError::NoConsole)?;
    let failed = |source| RequestError::Connection { console, source };
    // The server sends something at least after the probe, and after each step.
    let poll_timeout = Duration::from_millis(2 * UPGRADE_PROBE_TIMEOUT_MS);
    let mut stream = TcpStream::connect_timeout(&console, poll_timeout).map_err(failed)?;
    stream.set_read_timeout(Some(poll_timeout)).map_err(failed)?;
    stream.write_all(b"upgrade\n").map_err(failed)?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let length = io::Read::take(&mut lines, CONSOLE_LINE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if length == 0 {
            return Err(RequestError::NoAnswer);
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim_end() {
            "OK" => return Ok(()),
            line => match line.strip_prefix("ERR ") {
                Some(why) => return Err(RequestError::Refused(why.to_owned())),
                None => println!("{}", forkade_text::escape::Escaped(line)),
            },
        }
    }
}
