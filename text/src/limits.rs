//! The limits of typed and rendered text, with their units in their names.

use forkade_protocol::limits::FRAME_TOTAL_BYTES_MAX;

/// The size of a player's input ring: input that is received and not handled yet.
pub const INPUT_RING_BYTES: usize = 16 * 1024;

/// A line in text mode, after erased characters and telnet's commands are removed.
pub const TEXT_LINE_BYTES_MAX: usize = 1024;

/// The same line as it was received, with erased characters and telnet's commands: it waits in the input ring for its
/// end.
pub const TEXT_LINE_RAW_BYTES_MAX: usize = INPUT_RING_BYTES / 2;

/// A telnet subnegotiation that is not ended. What follows is text again: 255 and 250 may have been typed.
pub const SUBNEGOTIATION_BYTES_MAX: u32 = 1024;

/// Bytes without meaning in front of a line are consumed once there are this many; fewer are not worth a transaction.
pub const TEXT_SKIP_BYTES_MIN: usize = 1024;

/// Replies to telnet's commands are sent once there are this many bytes of them. The last reply may exceed it.
pub const TELNET_REPLY_BATCH_BYTES: usize = 1024;

/// Text that a text player is sent at once: a frame's size, less what may be sent with it (the prompt, the message that
/// a seat was lost).
pub const TEXT_OUTPUT_BYTES_MAX: usize = FRAME_TOTAL_BYTES_MAX - 128;

/// Rows of a drawing in place at the top of a terminal; more are left out. The last rows of a terminal of 24 are for
/// what is said and typed.
pub const DRAWING_ROWS_MAX: usize = 20;
