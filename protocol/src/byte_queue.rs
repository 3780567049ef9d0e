//! Bytes in at the end, out at the front, in one piece for whoever reads them.

/// A queue whose content is always one slice. Taking from the front costs nothing by itself; the gap is closed when
/// it is as long as what is left, so that each byte is moved once on average.
#[derive(Default, Debug)]
pub(crate) struct ByteQueue {
    bytes: Vec<u8>,
    front: usize,
}

/// An empty queue gives memory beyond this back: thousands of sessions are mostly empty.
const IDLE_CAPACITY_BYTES_MAX: usize = 4096;

impl ByteQueue {
    /// All that is queued.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.front..]
    }

    /// Bytes queued.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.front
    }

    /// Forgets the first `count` bytes, which must be there.
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

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_CAPACITY_BYTES_MAX);
        self.front = 0;
    }

    /// Forgets all but the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.front + length);
    }

    /// The vector behind the queue, for appending to it only.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}
