//! The robust process-shared mutex of the C library.
//!
//! When its holder dies, the kernel marks the mutex, and the next taker is told so. Robustness frees the lock, not the data:
//! taking it therefore gives either [`Acquired::Clean`] or [`Acquired::Abandoned`], and only an abandoned one that was declared
//! repaired becomes a [`Held`]. Unlocking without repair would make the mutex unusable for good, so an [`Abandoned`] that is
//! dropped aborts the process: the next taker then finds the mutex abandoned again.
//!
//! A mutex of zeroes is not yet one; [`RobustMutex::initialise`] makes it one, in place. It never moves.

use std::cell::UnsafeCell;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::mutants::Mutant;
use crate::sys::memory::Shared;

/// A mutex in shared memory that survives the death of its holder.
#[repr(transparent)]
pub struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: the C library's mutex is made to be used from many threads and processes at once.
unsafe impl Sync for RobustMutex {}
// SAFETY: it is only touched through the C library; zeroes are a valid (plain, unlocked) mutex.
unsafe impl Shared for RobustMutex {}

/// What taking the mutex gave.
pub enum Acquired<'a> {
    /// The previous holder released it.
    Clean(Held<'a>),
    /// The previous holder died while holding it.
    Abandoned(Abandoned<'a>),
}

/// Why the mutex was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody held it all the time.
    #[error("the lock was held by somebody else for {0:?}")]
    TimedOut(Duration),
    /// An earlier holder unlocked it without repair; it can never be taken again.
    #[error("the lock was released without repair and is unusable")]
    Unusable,
    /// The C library refused.
    #[error("the C library refused the lock")]
    Refused(#[source] io::Error),
}

impl RobustMutex {
    /// Makes the bytes a robust process-shared mutex that nobody holds.
    ///
    /// To be called once, before anybody else can reach it, or on the copy of a mapping that is nobody else's.
    ///
    /// # Errors
    ///
    /// What the C library reports; on Linux with the GNU library nothing is known to fail.
    pub fn initialise(&self) -> io::Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the pointer is to space for one attribute object.
        checked(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: the attribute object was initialised above.
        checked(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        checked(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: the mutex lies in memory that never moves; by the caller's promise nobody holds it or waits for it.
        checked(unsafe { libc::pthread_mutex_init(self.0.get(), attributes) })?;
        // SAFETY: the attribute object was initialised above and is not used again.
        checked(unsafe { libc::pthread_mutexattr_destroy(attributes) })
    }

    /// Takes the mutex if nobody holds it; `None` if somebody does.
    ///
    /// # Errors
    ///
    /// [`LockError::Unusable`] or [`LockError::Refused`].
    pub fn try_lock(&self) -> Result<Option<Acquired<'_>>, LockError> {
        // SAFETY: the mutex was initialised before anybody could reach it.
        match unsafe { libc::pthread_mutex_trylock(self.0.get()) } {
            libc::EBUSY => Ok(None),
            code => self.acquired(code).map(Some),
        }
    }

    /// Takes the mutex, waiting for at most `limit` of wall time.
    ///
    /// # Errors
    ///
    /// [`LockError::TimedOut`] when somebody else held it for all of `limit`.
    pub fn lock(&self, limit: Duration) -> Result<Acquired<'_>, LockError> {
        // `pthread_mutex_timedlock` counts by the real-time clock: a clock set back lengthens one wait, once.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let nanoseconds = now.tv_nsec + i64::from(limit.subsec_nanos());
        let deadline = libc::timespec {
            tv_sec: now.tv_sec
                + i64::try_from(limit.as_secs()).unwrap_or(i64::from(u32::MAX))
                + nanoseconds / 1_000_000_000,
            tv_nsec: nanoseconds % 1_000_000_000,
        };
        // SAFETY: the mutex was initialised before anybody could reach it, and the deadline outlives the call.
        match unsafe { libc::pthread_mutex_timedlock(self.0.get(), &raw const deadline) } {
            libc::ETIMEDOUT => Err(LockError::TimedOut(limit)),
            code => self.acquired(code),
        }
    }

    /// Who holds the mutex at this moment, from the moment that the kernel counts it as theirs; `None` if nobody does, or the last
    /// holder died.
    ///
    /// The mutex's first word holds the holder's thread id, which in a process of one thread is its pid.
    pub fn holder(&self) -> Option<u32> {
        let holder = self.first_word().load(Ordering::Acquire) & libc::FUTEX_TID_MASK;
        (holder != 0).then_some(holder)
    }

    /// In a copy of a mapping: does to the mutex what the kernel does to the original when its holder dies.
    ///
    /// The copy must be nobody else's.
    #[doc(hidden)]
    pub fn abandon_copy(&self) {
        let word = self.first_word();
        let value = word.load(Ordering::Relaxed);
        if value & libc::FUTEX_TID_MASK != 0 {
            word.store(
                value & libc::FUTEX_WAITERS | libc::FUTEX_OWNER_DIED,
                Ordering::Relaxed,
            );
        }
    }

    /// All that the kernel looks at: the holder's thread id and two flags (`futex(2)`; the C library's robust mutexes keep to it).
    fn first_word(&self) -> &AtomicU32 {
        const { assert!(size_of::<libc::pthread_mutex_t>() >= size_of::<AtomicU32>()) };
        // SAFETY: inside the mutex, aligned as it is (8), and any bits are a number.
        unsafe { AtomicU32::from_ptr(self.0.get().cast()) }
    }

    fn acquired(&self, code: i32) -> Result<Acquired<'_>, LockError> {
        match code {
            0 => Ok(Acquired::Clean(Held {
                mutex: self,
                not_send: PhantomData,
            })),
            libc::EOWNERDEAD => Ok(Acquired::Abandoned(Abandoned { mutex: self })),
            libc::ENOTRECOVERABLE => Err(LockError::Unusable),
            code => Err(LockError::Refused(io::Error::from_raw_os_error(code))),
        }
    }
}

/// The mutex is held, and what it guards is whole. Dropping it unlocks.
pub struct Held<'a> {
    mutex: &'a RobustMutex,
    /// Only the thread that locked may unlock.
    not_send: PhantomData<*const ()>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread holds the mutex: a `Held` is made only by locking, and does not leave the thread.
        let code = unsafe { libc::pthread_mutex_unlock(self.mutex.0.get()) };
        debug_assert_eq!(code, 0, "unlocking a mutex that is held cannot fail");
    }
}

/// The mutex is held, but its last holder died, and what it guards may be half changed.
pub struct Abandoned<'a> {
    mutex: &'a RobustMutex,
}

impl<'a> Abandoned<'a> {
    /// Repairs what the mutex guards and makes it usable again.
    ///
    /// A panic in `repair` aborts the process. The repairer may itself be killed at any instruction: then the next taker repairs.
    pub fn repair(self, repair: impl FnOnce(&Held<'a>)) -> Held<'a> {
        let held = Held {
            mutex: self.mutex,
            not_send: PhantomData,
        };
        std::mem::forget(self);
        // Declared after `held`, so dropped before it: unwinding aborts and never unlocks.
        let unrepaired = AbortUnlessRepaired;
        repair(&held);
        if !Mutant::NeverConsistent.is_on() {
            // SAFETY: this thread holds the mutex, whose owner had died.
            let code = unsafe { libc::pthread_mutex_consistent(held.mutex.0.get()) };
            assert_eq!(code, 0, "a mutex taken from a dead owner can be made consistent");
        }
        std::mem::forget(unrepaired);
        held
    }
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        drop(AbortUnlessRepaired);
    }
}

/// Ends the process, without unlocking anything, if the repair unwinds.
struct AbortUnlessRepaired;

impl Drop for AbortUnlessRepaired {
    fn drop(&mut self) {
        std::process::abort();
    }
}

fn checked(code: i32) -> io::Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}
