//! Another program in a process's place: what it keeps open over `execve(2)`, and how the program finds it again.
//!
//! All that this program opens is closed on exec. [`keep_open`] makes an exception, and the program that follows
//! [takes](take_inherited) it by its number: a descriptor that is open and *not* closed on exec can only have been left by its
//! predecessor, so no other part of the new program owns it.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// Leaves a descriptor open for the program that follows; gives the number by which it can claim it.
///
/// # Errors
///
/// Those of fcntl(2).
pub fn keep_open(descriptor: BorrowedFd<'_>) -> io::Result<RawFd> {
    fcntl_setfd(descriptor, fcntl_getfd(descriptor)? - FdFlags::CLOEXEC)?;
    Ok(descriptor.as_raw_fd())
}

/// There is no program that follows, after all.
///
/// # Errors
///
/// Those of fcntl(2).
pub fn close_on_exec(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_setfd(
        descriptor,
        fcntl_getfd(descriptor)? | FdFlags::CLOEXEC,
    )?)
}

/// The descriptor of this number, which the program before this one has [kept open](keep_open). From now on it is closed on exec,
/// so that it can be claimed only once.
///
/// # Errors
///
/// It is a standard stream, not open, or something that this program has opened itself.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: only asked for its flags, which fails harmlessly if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    if fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC) {
        let text = format!("descriptor {number} was not handed over");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    close_on_exec(borrowed)?;
    // SAFETY: open, and nobody owns it: what this program opens is closed on exec, and what was claimed before is now, too.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Replaces the program that this process runs by the one in the file that `program` is open on: same process, same children, same
/// blocked and pending signals; nothing open but the standard streams and what was [kept](keep_open). Returns only if it fails.
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
    fn what_this_program_opened_itself_cannot_be_claimed() {
        let (reader, writer) = io::pipe().expect("descriptors");
        assert!(take_inherited(reader.as_raw_fd()).is_err());
        assert!(
            take_inherited(0).is_err() && take_inherited(-1).is_err() && take_inherited(RawFd::MAX).is_err()
        );
        drop(writer);
    }

    #[test]
    fn what_was_kept_open_is_claimed_once() {
        let (reader, _writer) = io::pipe().expect("descriptors");
        let number = keep_open(reader.as_fd()).expect("it is open");
        std::mem::forget(reader);
        let claimed = take_inherited(number).expect("it was kept open");
        assert_eq!(claimed.as_raw_fd(), number);
        assert!(take_inherited(number).is_err());
    }
}
