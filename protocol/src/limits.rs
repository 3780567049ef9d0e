//! All limits of the wire protocol, each with its unit in its name.
//!
//! The server uses these as its own limits. The server sends limits that can differ between servers in
//! [`Limits`](crate::messages::Limits).

/// Bytes of a frame's header: the length of its body, as a little-endian `u32`.
pub const FRAME_HEADER_BYTES: usize = 4;

/// Bytes of a frame's body (one encoded message), in either direction. A longer body ends the connection.
pub const FRAME_BYTES_MAX: usize = 8192;

/// Bytes of the largest frame: header and body.
pub const FRAME_TOTAL_BYTES_MAX: usize = FRAME_HEADER_BYTES + FRAME_BYTES_MAX;

/// Bytes of a client's handshake: preamble and first frame together.
pub const HANDSHAKE_BYTES_MAX: usize = 512;

/// Bytes that the codec may charge for decoding one message. The codec charges an integer at its full width (8 bytes
/// for a length) even if it takes one byte on the wire, so eight times the frame's size accepts every frame.
pub const DECODE_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;

/// Bytes of the server's stream after which a client must send a `Confirm`.
pub const CONFIRM_EVERY_BYTES: u32 = 4096;

/// Characters of a player's name, after cleaning.
pub const PLAYER_NAME_CHARACTERS_MAX: usize = 24;

/// Bytes of a player's name in UTF-8, after cleaning.
pub const PLAYER_NAME_BYTES_MAX: usize = 96;

/// General combining marks on one letter. Precomposed letters count as letters.
pub const MARKS_ON_A_LETTER_MAX: usize = 2;

/// Combining marks that belong to the letter's own script, on one letter: some scripts write vowels and tones so.
pub const MARKS_OF_A_SCRIPT_MAX: usize = 4;

/// Characters of a room's name, after cleaning.
pub const ROOM_NAME_CHARACTERS_MAX: usize = 40;

/// Bytes of a room's name in UTF-8, after cleaning.
pub const ROOM_NAME_BYTES_MAX: usize = 120;

/// Bytes of a room's passcode.
pub const PASSCODE_BYTES_MAX: usize = 64;

/// Bytes of an invite code as the server formats it: twelve letters and digits in groups of four.
pub const INVITE_CODE_BYTES: usize = 14;

/// Longest turn that a room's settings can allow, in seconds.
pub const TURN_SECONDS_MAX: u16 = 3600;

/// Bytes of a chat text in UTF-8, after cleaning.
pub const CHAT_BYTES_MAX: usize = 500;

/// Bytes of a game's name.
pub const GAME_NAME_BYTES_MAX: usize = 32;

/// Bytes of the client's program name and version in `Hello`.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// Bytes of the line of text that a client may receive before the answer to its greeting, with its line end.
pub const BANNER_BYTES_MAX: usize = 128;

/// Bytes of the answer to a greeting: the frame `Welcome`, `Resumed` or `Error`.
pub const HANDSHAKE_REPLY_BYTES_MAX: usize = 1024;

/// Bytes of the frame that ends a connection: an `Error` or `ShuttingDown` with its text.
pub const CLOSE_MESSAGE_BYTES_MAX: usize = 256;

/// Rooms in one answer to `ListRooms`.
pub const ROOMS_PER_PAGE_MAX: usize = 40;
