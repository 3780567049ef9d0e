//! Files that figures go to.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {cause}")]
pub(crate) struct OutputError {
    path: PathBuf,
    cause: io::Error,
}

/// A file that the figures go to.
pub(crate) struct Output<'a> {
    path: &'a PathBuf,
    file: File,
}

impl<'a> Output<'a> {
    /// Opened before anything is measured: a path that cannot be written to should not show only when the run is over.
    ///
    /// # Errors
    /// When it cannot be opened.
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

    /// Fills it.
    ///
    /// # Errors
    /// When that fails.
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
}
