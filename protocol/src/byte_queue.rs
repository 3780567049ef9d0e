//! A byte queue whose content is contiguous.

/// A queue whose content is always one slice. Consuming only advances an index. The remaining bytes are moved to the
/// front once the gap is at least as long as they are, so each byte is moved at most once on average.
#[derive(Default, Debug)]
pub(crate) struct ByteQueue {
    bytes: Vec<u8>,
    front: usize,
}

/// An empty queue frees its capacity beyond this, because most of a program's sessions have empty queues.
const IDLE_CAPACITY_BYTES_MAX: usize = 4096;

impl ByteQueue {
    /// All queued bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.front..]
    }

    /// Number of queued bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.front
    }

    /// Removes the first `count` bytes.
    ///
    /// # Panics
    /// If fewer bytes are queued.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "only queued bytes can be consumed");
        self.front += count;
        if self.len() == 0 {
            self.clear();
        } else if self.front >= self.len() {
            self.bytes.drain(..self.front);
            self.front = 0;
        }
    }

    /// Removes all bytes.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_CAPACITY_BYTES_MAX);
        self.front = 0;
    }

    /// Removes all but the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.front + length);
    }

    /// The underlying vector. The caller may only append to it.
    pub(crate) fn tail_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}
