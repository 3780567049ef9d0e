//! The robust process-shared mutex of the C library.
//!
//! When its holder dies, the kernel marks the mutex, and the next process that locks it learns of the death. That frees
//! the lock but repairs no data. Hence locking returns [`Acquired::Clean`] or [`Acquired::Abandoned`], and an abandoned
//! mutex becomes a [`Held`] one only by [`Abandoned::repair`]. Unlocking without repair would make the mutex unusable
//! for good. So dropping an [`Abandoned`] aborts the process, and the next one finds the mutex abandoned again.
//!
//! Zeroed memory is not yet a mutex. [`RobustMutex::initialise`] makes it one in place; it never moves.
//!
//! A thread holds at most one mutex. A second one would be a second transaction: locking it panics, and so does locking
//! after a [`Held`] was forgotten.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::mutants::Mutant;
use crate::sys::memory::{LayoutText, Shared};

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
compile_error!(
    "a mutex's owner is read from its first word, and a mutex is made from its bytes, as the GNU C library on Linux lays them out"
);

unsafe extern "C" {
    /// Like `pthread_mutex_timedlock`, with a deadline on the given clock (glibc 2.30).
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: libc::clockid_t,
        deadline: *const libc::timespec,
    ) -> libc::c_int;
}

thread_local! {
    /// This thread holds a mutex.
    static HOLDS_ONE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread holds a mutex.
#[inline]
pub(crate) fn is_one_held() -> bool {
    HOLDS_ONE.get()
}

/// A mutex in shared memory that survives the death of its holder.
#[repr(transparent)]
pub(crate) struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: the C library's mutex is made to be used from many threads and processes at once.
unsafe impl Sync for RobustMutex {}
// SAFETY: it is only touched through the C library, and by atomics; zeroes are a valid (plain, unlocked) mutex.
unsafe impl Shared for RobustMutex {
    fn describe(layout: &mut LayoutText) {
        layout.add(format_args!("pthread_mutex_t of {} bytes", size_of::<Self>()));
    }
}

/// The words of a mutex.
const WORDS: usize = size_of::<libc::pthread_mutex_t>() / size_of::<u32>();

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
    /// Makes zeroed memory a robust process-shared mutex that is unlocked. Does nothing to one that is in use.
    ///
    /// A fresh mutex differs from zeroed memory only in words that never change while the mutex is used: its kind. They
    /// alone are stored. So a caller that is killed half-way, or calls too late, does no harm.
    ///
    /// # Errors
    ///
    /// Those of the C library; on Linux with the GNU library none is known.
    pub(crate) fn initialise(&self) -> io::Result<()> {
        for (word, fresh) in self.words().iter().zip(Self::fresh_words()?) {
            if fresh != 0 {
                word.store(fresh, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// The words of a mutex that the C library has initialised, over zeroes.
    fn fresh_words() -> io::Result<[u32; WORDS]> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the pointer is to space for one attribute object.
        checked(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: the attribute object was initialised above.
        checked(unsafe { libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED) })?;
        // SAFETY: as above.
        checked(unsafe { libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST) })?;
        // SAFETY: zeroes are a valid mutex, if a plain one.
        let fresh = Self(UnsafeCell::new(unsafe { std::mem::zeroed() }));
        // SAFETY: the mutex is this function's own.
        checked(unsafe { libc::pthread_mutex_init(fresh.0.get(), attributes) })?;
        // SAFETY: the attribute object was initialised above and is not used again.
        checked(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
        Ok(fresh.words().each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// Locks the mutex if it is unlocked; `None` if it is held.
    ///
    /// # Errors
    ///
    /// [`LockError::Unusable`] or [`LockError::Refused`].
    ///
    /// # Panics
    ///
    /// If this thread holds a mutex.
    pub(crate) fn try_lock(&self) -> Result<Option<Acquired<'_>>, LockError> {
        expect_none_held();
        // SAFETY: the mutex was initialised before any process could reach it.
        match unsafe { libc::pthread_mutex_trylock(self.0.get()) } {
            libc::EBUSY => Ok(None),
            code => self.acquired(code).map(Some),
        }
    }

    /// Locks the mutex; waits for at most `limit`, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError`]; [`LockError::TimedOut`] when other processes held it for all of `limit`.
    ///
    /// # Panics
    ///
    /// If this thread holds a mutex.
    pub(crate) fn lock(&self, limit: Duration) -> Result<Acquired<'_>, LockError> {
        expect_none_held();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let nanoseconds = now.tv_nsec + i64::from(limit.subsec_nanos());
        let deadline = libc::timespec {
            tv_sec: now.tv_sec
                + i64::try_from(limit.as_secs()).unwrap_or(i64::from(u32::MAX))
                + nanoseconds / 1_000_000_000,
            tv_nsec: nanoseconds % 1_000_000_000,
        };
        // SAFETY: the mutex was initialised before any process could reach it, and the deadline outlives the call.
        match unsafe { pthread_mutex_clocklock(self.0.get(), libc::CLOCK_MONOTONIC, &raw const deadline) } {
            libc::ETIMEDOUT => Err(LockError::TimedOut(limit)),
            code => self.acquired(code),
        }
    }

    /// The thread that holds the mutex now; `None` if it is unlocked or its holder died.
    pub(crate) fn holding_thread(&self) -> Option<u32> {
        let holder = self.first_word().load(Ordering::Acquire) & libc::FUTEX_TID_MASK;
        (holder != 0).then_some(holder)
    }

    /// In a private copy of a mapping: does to the mutex what the kernel does to the original when its holder dies.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn abandon_copy(&self, _: &crate::sys::memory::PrivateCopy) {
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
        &self.words()[0]
    }

    #[inline]
    fn words(&self) -> &[AtomicU32; WORDS] {
        let words: *const [AtomicU32; WORDS] = self.0.get().cast_const().cast();
        // SAFETY: the mutex itself, which is aligned to more than words are; any bits are numbers. The C library, too,
        // accesses by atomic words what several threads change.
        unsafe { &*words }
    }

    fn acquired(&self, code: i32) -> Result<Acquired<'_>, LockError> {
        match code {
            0 => Ok(Acquired::Clean(Held::new(self))),
            libc::EOWNERDEAD => Ok(Acquired::Abandoned(Abandoned {
                mutex: self,
                not_send: PhantomData,
            })),
            libc::ENOTRECOVERABLE => Err(LockError::Unusable),
            code => Err(LockError::Refused(io::Error::from_raw_os_error(code))),
        }
    }
}

#[inline]
fn expect_none_held() {
    assert!(
        !is_one_held(),
        "this thread holds a lock: a second one would be a second transaction"
    );
}

/// The mutex is held, and the data under it is consistent. Dropping this unlocks it.
pub(crate) struct Held<'a> {
    mutex: &'a RobustMutex,
    /// Only the thread that locked the mutex may unlock it.
    not_send: PhantomData<*const ()>,
}

impl<'a> Held<'a> {
    fn new(mutex: &'a RobustMutex) -> Self {
        HOLDS_ONE.set(true);
        Self {
            mutex,
            not_send: PhantomData,
        }
    }

    /// For tests: this thread may lock another mutex, as if the holder were another thread, which died. The caller
    /// forgets this value.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn imitate_death(&self) {
        HOLDS_ONE.set(false);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread holds the mutex: only locking makes a `Held`, which cannot leave the thread, nor be
        // inherited by a forked process: `fork` refuses.
        let code = unsafe { libc::pthread_mutex_unlock(self.mutex.0.get()) };
        debug_assert_eq!(code, 0, "unlocking a mutex that is held cannot fail");
        HOLDS_ONE.set(false);
    }
}

/// The mutex is held, but its last holder died, and the data under it may be half changed.
pub(crate) struct Abandoned<'a> {
    mutex: &'a RobustMutex,
    /// Only the thread that locked the mutex may make it consistent.
    not_send: PhantomData<*const ()>,
}

impl<'a> Abandoned<'a> {
    /// Repairs the data under the mutex and makes the mutex usable again.
    ///
    /// A panic in `repair` aborts the process. The process may be killed at any instruction; the next holder then
    /// repairs.
    pub(crate) fn repair(self, repair: impl FnOnce(&Held<'a>)) -> Held<'a> {
        let held = Held::new(self.mutex);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::Mapping;

    /// `Abandoned` and `Held` must not be `Send`: if one were, both implementations would apply, and the call would be
    /// ambiguous.
    trait NotSend<Marker> {
        fn check() {}
    }
    impl<T: ?Sized> NotSend<()> for T {}
    impl<T: ?Sized + Send> NotSend<u8> for T {}

    #[test]
    fn what_a_thread_has_locked_cannot_leave_it() {
        <Abandoned<'static> as NotSend<_>>::check();
        <Held<'static> as NotSend<_>>::check();
    }

    fn mutex() -> &'static RobustMutex {
        let mutex: &RobustMutex = Mapping::create_record("mutex").expect("a page");
        mutex.initialise().expect("the library does it");
        mutex
    }

    fn lock(mutex: &RobustMutex) -> Held<'_> {
        match mutex.try_lock().expect("it is usable") {
            Some(Acquired::Clean(held)) => held,
            Some(Acquired::Abandoned(_)) => panic!("nobody has died"),
            None => panic!("nobody holds it"),
        }
    }

    #[test]
    fn a_mutex_in_use_cannot_be_initialised_again() {
        let mutex = mutex();
        let held = lock(mutex);
        mutex.initialise().expect("it does nothing");
        std::thread::scope(|scope| {
            let other = scope.spawn(|| mutex.try_lock().expect("it is usable").is_none());
            assert!(other.join().expect("no panic"), "it is not held any more");
        });
        drop(held);
        drop(lock(mutex));
    }

    #[test]
    fn a_thread_cannot_hold_two_mutexes() {
        let (one, other) = (mutex(), mutex());
        let panics = |run: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err();
        let held = lock(one);
        assert!(panics(&|| drop(other.try_lock())));
        assert!(panics(&|| drop(other.lock(Duration::from_millis(1)))));
        drop(held);
        // Forgotten, it is still held.
        std::mem::forget(lock(one));
        assert!(panics(&|| drop(other.try_lock())));
    }

    #[test]
    fn a_wait_ends_after_its_limit() {
        let mutex = mutex();
        let _held = lock(mutex);
        std::thread::scope(|scope| {
            let limit = Duration::from_millis(20);
            let waits = scope.spawn(move || {
                let began = std::time::Instant::now();
                let result = mutex.lock(limit).err();
                (result, began.elapsed())
            });
            let (result, waited) = waits.join().expect("no panic");
            assert!(matches!(result, Some(LockError::TimedOut(_))) && waited >= limit);
        });
    }
}
