//! What people type and read: everything between bytes at a terminal and the protocol's messages. Pure: it has no sockets, and knows
//! no server.
//!
//! * [`input`]: the next line in what a player at telnet or netcat has sent; [`telnet`]: telnet's commands between the bytes;
//! * [`commands`]: what a typed line asks for;
//! * [`render`]: what a message of the server looks like to a reader;
//! * [`escape`]: text from outside, made harmless.

pub mod commands;
pub mod escape;
pub mod input;
pub mod limits;
pub mod render;
pub mod telnet;
