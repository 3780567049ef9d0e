//! Descriptions of the first errors.

/// Most errors that are described.
const EXAMPLES_MAX: usize = 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Examples(Vec<String>);

impl Examples {
    /// Keeps the example if there is room.
    pub(super) fn add(&mut self, example: String) {
        if self.0.len() < EXAMPLES_MAX {
            self.0.push(example);
        }
    }

    /// All examples, followed by `more` if there is room.
    pub(super) fn with(&self, more: impl Iterator<Item = String>) -> Vec<String> {
        self.0.iter().cloned().chain(more).take(EXAMPLES_MAX).collect()
    }
}
