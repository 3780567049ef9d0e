//! The words of the model checker, and variants that leave out what the memory model demands.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use loom::sync::atomic::{AtomicU64, fence};
use shmem::word::Word;

/// A word that models can make.
pub(crate) trait ModelWord: Word + Send + Sync + 'static {
    fn new(value: u64) -> Self;
}

/// As the processes have it.
pub(crate) struct Sound(AtomicU64);

/// Its fences do nothing.
pub(crate) struct Unfenced(AtomicU64);

/// Its fences do nothing, and all orders are relaxed.
pub(crate) struct Unordered(AtomicU64);

macro_rules! words {
    ($($name:ident: $order:expr, $fence:expr;)*) => {
        $(
            impl ModelWord for $name {
                fn new(value: u64) -> Self {
                    Self(AtomicU64::new(value))
                }
            }

            impl Word for $name {
                fn load(&self, order: Ordering) -> u64 {
                    self.0.load($order(order))
                }

                fn store(&self, value: u64, order: Ordering) {
                    self.0.store(value, $order(order));
                }

                fn compare_exchange(
                    &self,
                    current: u64,
                    new: u64,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<u64, u64> {
                    self.0.compare_exchange(current, new, $order(success), $order(failure))
                }

                fn fence(order: Ordering) {
                    $fence(order);
                }
            }
        )*
    };
}

words! {
    Sound: |order| order, fence;
    Unfenced: |order| order, |_: Ordering| ();
    Unordered: |_| Ordering::Relaxed, |_: Ordering| ();
}

/// Most preemptions of a thread in one execution. Each additional one multiplies the executions; all mistakes that the
/// broken models contain show with fewer. `FORKADE_MODEL_PREEMPTIONS` sets another number.
const PREEMPTIONS_MAX: usize = 2;

/// Runs a model through all its executions with at most [`PREEMPTIONS_MAX`] preemptions.
///
/// # Panics
///
/// If an assertion in the model fails in one of them.
pub(crate) fn holds(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let (began, executions) = (Instant::now(), std::sync::Arc::new(AtomicUsize::new(0)));
    let counted = std::sync::Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    let preemptions = std::env::var("FORKADE_MODEL_PREEMPTIONS");
    builder.preemption_bound =
        Some(preemptions.map_or(PREEMPTIONS_MAX, |text| text.parse().expect("a number")));
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let executions = executions.load(Ordering::Relaxed);
    println!(
        "{name}: {executions} executions, {} ms",
        began.elapsed().as_millis()
    );
}

/// Checks that a model that is broken on purpose fails.
pub(crate) fn fails(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let run = std::panic::AssertUnwindSafe(|| holds(name, model));
    let failed = std::panic::catch_unwind(run).is_err();
    assert!(failed, "{name}: the model does not notice");
}
