//! Replacing the program of a process: descriptors that stay open over execve(2), and how the new program finds them.
//!
//! Everything that this program opens is closed on exec. [`keep_open`] makes an exception, and the new program
//! [takes](take_inherited) the descriptor by its number. A descriptor that is open and *not* closed on exec was left by
//! the old program, so no other part of the new program owns it.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// Keeps a descriptor open over execve(2). Returns the number by which the new program takes it.
///
/// # Errors
///
/// Those of fcntl(2).
pub fn keep_open(descriptor: BorrowedFd<'_>) -> io::Result<RawFd> {
    fcntl_setfd(descriptor, fcntl_getfd(descriptor)? - FdFlags::CLOEXEC)?;
    Ok(descriptor.as_raw_fd())
}

fn close_on_exec(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_setfd(
        descriptor,
        fcntl_getfd(descriptor)? | FdFlags::CLOEXEC,
    )?)
}

/// Takes the descriptor of this number, which the old program has [kept open](keep_open). It is then closed on exec, so
/// that it can be taken only once.
///
/// # Errors
///
/// The number is a standard stream, is not open, or was opened by this program.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: used only to read and set its flags, which fails without harm if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC) {
        let text = format!("descriptor {number} was not handed over");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    close_on_exec(borrowed)?;
    // SAFETY: it is open and has no owner: it was not closed on exec, as all are that this program opens or has taken.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Replaces the program of this process by the one in the file that `program` refers to. The process, its children, its
/// blocked and its pending signals stay. Only the standard streams and what was [kept open](keep_open) stay open.
/// Returns only on failure: an error of fexecve(3), or a NUL byte in an argument.
pub fn execute(
    program: BorrowedFd<'_>,
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> io::Error {
    let text = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::other);
    let variable = |(name, value): (OsString, OsString)| {
        let mut variable = name;
        variable.push("=");
        variable.push(value);
        text(variable)
    };
    let prepared = || {
        let arguments = arguments.into_iter().map(text).collect::<io::Result<Vec<_>>>()?;
        let environment = environment
            .into_iter()
            .map(variable)
            .collect::<io::Result<Vec<_>>>()?;
        Ok::<_, io::Error>((arguments, environment))
    };
    match prepared() {
        Err(error) => error,
        Ok((arguments, environment)) => match nix::unistd::fexecve(program.as_fd(), &arguments, &environment)
        {
            Err(errno) => errno.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_of_this_program_cannot_be_taken() {
        let (reader, writer) = io::pipe().expect("descriptors");
        assert!(take_inherited(reader.as_raw_fd()).is_err());
        assert!(
            take_inherited(0).is_err() && take_inherited(-1).is_err() && take_inherited(RawFd::MAX).is_err()
        );
        drop(writer);
    }

    #[test]
    fn a_descriptor_that_was_kept_open_is_taken_once() {
        let (reader, _writer) = io::pipe().expect("descriptors");
        let number = keep_open(reader.as_fd()).expect("it is open");
        std::mem::forget(reader);
        let claimed = take_inherited(number).expect("it was kept open");
        assert_eq!(claimed.as_raw_fd(), number);
        assert!(take_inherited(number).is_err());
    }
}
