//! The robust process-shared mutex of the C library.
//!
//! When its holder dies, the kernel marks the mutex, and the next process that locks it learns of the death. That frees
//! the lock but repairs no data. Hence locking returns [`Acquired::Clean`] or [`Acquired::Abandoned`], and an abandoned
//! mutex becomes a [`Held`] one only by [`Abandoned::repair`]. Unlocking without repair would make the mutex unusable
//! for good. So dropping an [`Abandoned`] aborts the process, and the next one finds the mutex abandoned again.
//!
//! Zeroed memory is not yet a mutex. [`RobustMutex::initialise`] makes it one in place; it never moves.

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
pub(crate) struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: the C library's mutex is made to be used from many threads and processes at once.
unsafe impl Sync for RobustMutex {}
// SAFETY: it is only touched through the C library; zeroes are a valid (plain, unlocked) mutex.
unsafe impl Shared for RobustMutex {}

/// A mutex that was locked.
pub(crate) enum Acquired<'a> {
    /// The previous holder unlocked it.
    Clean(Held<'a>),
    /// The previous holder died while holding it.
    Abandoned(Abandoned<'a>),
}

/// Why the mutex was not locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Other processes held it all the time.
    #[error("another process held the lock for {0:?}")]
    TimedOut(Duration),
    /// An earlier holder unlocked it without repair. It can never be locked again.
    #[error("the lock was released without repair and is unusable")]
    Unusable,
    /// The C library refused.
    #[error("the C library refused the lock")]
    Refused(#[source] io::Error),
}

impl RobustMutex {
    /// Makes the bytes a robust process-shared mutex that is unlocked.
    ///
    /// Call it once, before any other process can reach the mutex.
    ///
    /// # Errors
    ///
    /// Those of the C library; on Linux with the GNU library none is known.
    pub(crate) fn initialise(&self) -> io::Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the pointer is to space for one attribute object.
        checked(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: the attribute object was initialised above.
        checked(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        checked(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: the mutex lies in memory that never moves, and by the caller's contract no process uses it yet.
        checked(unsafe { libc::pthread_mutex_init(self.0.get(), attributes) })?;
        // SAFETY: the attribute object was initialised above and is not used again.
        checked(unsafe { libc::pthread_mutexattr_destroy(attributes) })
    }

    /// Locks the mutex if it is unlocked; `None` if it is held.
    ///
    /// # Errors
    ///
    /// [`LockError::Unusable`] or [`LockError::Refused`].
    pub(crate) fn try_lock(&self) -> Result<Option<Acquired<'_>>, LockError> {
        // SAFETY: the mutex was initialised before any process could reach it.
        match unsafe { libc::pthread_mutex_trylock(self.0.get()) } {
            libc::EBUSY => Ok(None),
            code => self.acquired(code).map(Some),
        }
    }

    /// Locks the mutex; waits for at most `limit` of wall time.
    ///
    /// # Errors
    ///
    /// [`LockError`]; [`LockError::TimedOut`] when other processes held it for all of `limit`.
    pub(crate) fn lock(&self, limit: Duration) -> Result<Acquired<'_>, LockError> {
        // `pthread_mutex_timedlock` uses the real-time clock. If that is set back, one wait becomes longer, once.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let nanoseconds = now.tv_nsec + i64::from(limit.subsec_nanos());
        let deadline = libc::timespec {
            tv_sec: now.tv_sec
                + i64::try_from(limit.as_secs()).unwrap_or(i64::from(u32::MAX))
                + nanoseconds / 1_000_000_000,
            tv_nsec: nanoseconds % 1_000_000_000,
        };
        // SAFETY: the mutex was initialised before any process could reach it, and the deadline outlives the call.
        match unsafe { libc::pthread_mutex_timedlock(self.0.get(), &raw const deadline) } {
            libc::ETIMEDOUT => Err(LockError::TimedOut(limit)),
            code => self.acquired(code),
        }
    }

    /// The pid of the process that holds the mutex now; `None` if it is unlocked or its holder died.
    ///
    /// The mutex's first word holds the thread id of its holder, which in a process of one thread is the pid.
    pub(crate) fn holder(&self) -> Option<u32> {
        let holder = self.first_word().load(Ordering::Acquire) & libc::FUTEX_TID_MASK;
        (holder != 0).then_some(holder)
    }

    /// In a private copy of a mapping: does to the mutex what the kernel does to the original when its holder dies.
    pub(crate) fn abandon_copy(&self) {
        let word = self.first_word();
        let value = word.load(Ordering::Relaxed);
        if value & libc::FUTEX_TID_MASK != 0 {
            word.store(
                value & libc::FUTEX_WAITERS | libc::FUTEX_OWNER_DIED,
                Ordering::Relaxed,
            );
        }
    }

    /// The word that the kernel reads and writes: the holder's thread id and two flags (futex(2), robust futexes).
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

/// The mutex is held, and the data under it is consistent. Dropping this unlocks it.
pub(crate) struct Held<'a> {
    mutex: &'a RobustMutex,
    /// Only the thread that locked the mutex may unlock it.
    not_send: PhantomData<*const ()>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread holds the mutex: only locking makes a `Held`, which cannot leave the thread.
        let code = unsafe { libc::pthread_mutex_unlock(self.mutex.0.get()) };
        debug_assert_eq!(code, 0, "unlocking a mutex that is held cannot fail");
    }
}

/// The mutex is held, but its last holder died, and the data under it may be half changed.
pub(crate) struct Abandoned<'a> {
    mutex: &'a RobustMutex,
}

impl<'a> Abandoned<'a> {
    /// Repairs the data under the mutex and makes the mutex usable again.
    ///
    /// A panic in `repair` aborts the process. The process may be killed at any instruction; the next holder then
    /// repairs.
    pub(crate) fn repair(self, repair: impl FnOnce(&Held<'a>)) -> Held<'a> {
        let held = Held {
            mutex: self.mutex,
            not_send: PhantomData,
        };
        std::mem::forget(self);
        // Declared after `held`, so dropped before it: unwinding aborts and never unlocks.
        let unrepaired = AbortUnlessRepaired;
        repair(&held);
        if !Mutant::NeverConsistent.is_active() {
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

/// Aborts the process, without unlocking anything, if the repair unwinds.
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
