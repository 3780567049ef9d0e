//! What people type and read: the translation between bytes at a terminal and the protocol's messages. Pure: no
//! sockets, no clock, no server.
//!
//! Reading order, in the direction of the data:
//!
//! 1. [`telnet`]: bytes from a telnet client to events and lines, and the answers to its options.
//! 2. [`input`]: the next token in what a player in text mode has sent.
//! 3. [`commands`]: a typed line to a [`Command`](commands::Command).
//! 4. [`render`]: a message of the server to text.
//! 5. [`escape`]: text from outside made harmless, for terminals and logs.
//!
//! [`opening`] tells a person from a program of another protocol, before any of it.
//!
//! [`code`] has the notation of codes that people type.
//!
//! For terminals that send single keys (the console in character mode, `forkade play`): [`keys`] decodes bytes into
//! keys, [`line_editor`] applies keys to a line, and [`columns`] measures text.
#![deny(unsafe_code)]

pub mod code;
pub mod columns;
pub mod commands;
pub mod escape;
pub mod input;
pub mod keys;
pub mod limits;
pub mod line_editor;
pub mod opening;
pub mod render;
pub mod telnet;
