//! Every bound of the wire protocol, in one place, with its unit in its name.
//!
//! The server re-uses these for its own limits; what may differ between servers is told to the client in
//! [`Limits`](crate::messages::Limits).

/// Bytes of a frame's header: the length of its body, as a little-endian `u32`.
pub const FRAME_HEADER_BYTES: usize = 4;

/// Bytes of a frame's body (one encoded message), in either direction. A longer one ends the connection.
pub const FRAME_BYTES_MAX: usize = 8192;

/// Bytes of a whole frame: header and the longest body.
pub const FRAME_TOTAL_BYTES_MAX: usize = FRAME_HEADER_BYTES + FRAME_BYTES_MAX;

/// Bytes of the greeting that a client opens a connection with: preamble and first frame together.
pub const HANDSHAKE_BYTES_MAX: usize = 512;

/// Bytes that decoding one message may account for. The codec charges an integer at its full width (8 bytes for a
/// length) even where it takes one byte on the wire, so that eight times the frame accepts every frame.
pub const DECODE_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;

/// Bytes of server stream after which a client confirms at the latest.
pub const CONFIRM_EVERY_BYTES: u32 = 4096;

/// Characters of a player's name, after cleaning.
pub const PLAYER_NAME_CHARACTERS_MAX: usize = 24;

/// Bytes of a player's name in UTF-8, after cleaning.
pub const PLAYER_NAME_BYTES_MAX: usize = 96;

/// Characters of a room's name, after cleaning.
pub const ROOM_NAME_CHARACTERS_MAX: usize = 40;

/// Bytes of a room's name in UTF-8, after cleaning.
pub const ROOM_NAME_BYTES_MAX: usize = 120;

/// Bytes of a room's passcode.
pub const PASSCODE_BYTES_MAX: usize = 64;

/// Bytes of an invite code as the server writes it: twelve letters and digits in groups of four.
pub const INVITE_CODE_BYTES: usize = 14;

/// Seconds that a turn may be given by a room's settings.
pub const TURN_SECONDS_MAX: u16 = 3600;

/// Bytes of one chat text in UTF-8, after cleaning.
pub const CHAT_BYTES_MAX: usize = 500;

/// Bytes of a game's name.
pub const GAME_NAME_BYTES_MAX: usize = 32;

/// Bytes of what a client says about itself (program and version) in its greeting.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// Bytes of the answer to a greeting: the frame `Welcome`, `Resumed` or `Error`.
pub const GREETING_BYTES_MAX: usize = 1024;

/// Bytes of the frame that ends a connection: an `Error` or `ShuttingDown` with its text.
pub const FAREWELL_BYTES_MAX: usize = 256;

/// Rooms in one answer to `ListRooms`.
pub const ROOMS_PER_PAGE_MAX: usize = 40;
