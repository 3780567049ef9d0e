//! The bounds of what people type and read, with their units in their names.

use forkade_protocol::limits::FRAME_TOTAL_BYTES_MAX;

/// What a player has sent and nobody has processed yet.
pub const INPUT_RING_BYTES: usize = 16 * 1024;

/// A line that somebody types in text mode, when all that was taken back is gone.
pub const TEXT_LINE_BYTES_MAX: usize = 1024;

/// The same with all that was taken back, and with telnet's commands in between: it waits in the input ring for its end.
pub const TEXT_LINE_RAW_BYTES_MAX: usize = INPUT_RING_BYTES / 2;

/// So many bytes of telnet's commands in front of a line are worth a transaction that takes them in.
pub const TEXT_SKIP_BYTES_MIN: usize = 1024;

/// Answers to telnet's commands that go out together, and not many more.
pub const TELNET_REPLY_BATCH_BYTES: usize = 1024;

/// What a text player is shown at once: what a frame would take, less what may come with it (the prompt, the word that a seat was
/// lost).
pub const TEXT_OUTPUT_BYTES_MAX: usize = FRAME_TOTAL_BYTES_MAX - 128;
