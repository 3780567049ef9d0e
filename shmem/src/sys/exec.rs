//! Replacing the program of a process: descriptors that stay open over execve(2), and how the new program finds them.
//!
//! Everything that this program opens is closed on exec. [`keep_open`] makes an exception, and the new program
//! [takes](take_inherited) the descriptor by its number. What a program has inherited is listed before any of its own
//! code runs. So a number on the list has no owner, and taking it removes it from the list.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

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

/// The descriptors that this program has inherited and that were not taken yet.
static INHERITED: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Lists what is open before `main`, and before anything else of this program could open a descriptor.
extern "C" fn list_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        // Then nothing can be taken.
        return;
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut open: Vec<RawFd> = numbers.filter(|number| *number > 2).collect();
    // The directory itself was open, too.
    open.retain(|number| is_open(*number));
    *inherited() = open;
}

// SAFETY: the C library calls the functions of this section before `main`, in the only thread, with arguments that a
// function without parameters ignores.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = list_inherited;

/// Called in a process just forked, when its parent's descriptors are closed: nothing can be taken any more.
pub(super) fn forget_inherited() {
    inherited().clear();
}

fn inherited() -> MutexGuard<'static, Vec<RawFd>> {
    INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: reads flags, and fails without harm if it is not open.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Takes the descriptor of this number, which the old program has [kept open](keep_open). It is then closed on exec.
///
/// # Errors
///
/// The number is a standard stream, was not inherited, or was taken already.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    let mut inherited = inherited();
    let Some(place) = inherited.iter().position(|entry| *entry == number) else {
        let text = format!("descriptor {number} was not handed over");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    };
    inherited.swap_remove(place);
    // SAFETY: it was open before any value of this program owned a descriptor, and was not taken. So it has no owner,
    // and was not closed.
    let taken = unsafe { OwnedFd::from_raw_fd(number) };
    close_on_exec(taken.as_fd())?;
    Ok(taken)
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
    fn a_descriptor_that_this_program_has_kept_open_cannot_be_taken() {
        let (reader, _writer) = io::pipe().expect("descriptors");
        let number = keep_open(reader.as_fd()).expect("it is open");
        assert!(take_inherited(number).is_err(), "it would have two owners");
    }

    /// The test's program is run again, with a descriptor that is not closed on exec.
    #[test]
    fn a_descriptor_that_was_inherited_is_taken_once() {
        const NUMBER: &str = "FORKADE_TEST_INHERITED";
        if let Ok(number) = std::env::var(NUMBER) {
            let number = number.parse().expect("a number");
            let taken = take_inherited(number).expect("it was inherited");
            assert_eq!(taken.as_raw_fd(), number);
            assert!(take_inherited(number).is_err());
            drop(taken);
            assert!(take_inherited(number).is_err());
            return;
        }
        let (reader, _writer) = io::pipe().expect("descriptors");
        let number = keep_open(reader.as_fd()).expect("it is open");
        let program = std::env::current_exe().expect("a process knows its program");
        let output = std::process::Command::new(program)
            .args([
                "--exact",
                "sys::exec::tests::a_descriptor_that_was_inherited_is_taken_once",
            ])
            .env(NUMBER, number.to_string())
            .output()
            .expect("it starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
}
