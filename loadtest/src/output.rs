//! Files that figures are written to.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde::Serialize;

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {cause}")]
pub(crate) struct OutputError {
    path: PathBuf,
    cause: io::Error,
}

/// A file that the figures are written to.
pub(crate) struct Output<'a> {
    path: &'a PathBuf,
    file: File,
}

impl<'a> Output<'a> {
    /// Opens `path`. Called before anything is measured, so that an unusable path is reported before the run.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(path: Option<&'a PathBuf>) -> Result<Option<Self>, OutputError> {
        let Some(path) = path else { return Ok(None) };
        match File::create(path) {
            Ok(file) => Ok(Some(Self { path, file })),
            Err(cause) => Err(OutputError {
                path: path.clone(),
                cause,
            }),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(
        self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let mut file = BufWriter::new(self.file);
        write(&mut file)
            .and_then(|()| file.flush())
            .map_err(|cause| OutputError {
                path: self.path.clone(),
                cause,
            })
    }

    /// Writes `figures` as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_json(self, figures: &impl Serialize) -> Result<(), OutputError> {
        self.write(|file| {
            serde_json::to_writer_pretty(&mut *file, figures)?;
            writeln!(file)
        })
    }
}

/// Prints `table` on stdout. A closed stdout is no error: its reader does not want the table.
pub(crate) fn print(table: &impl Display) {
    let _ = write!(io::stdout(), "{table}");
}
