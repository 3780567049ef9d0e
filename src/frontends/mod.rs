//! Bytes from clients and operators, turned into calls of the layers below.
//!
//! * [`dispatch`]: the handshake, and one call for each frame; the way in for every player;
//! * [`text_dispatch`]: the same for lines typed in text mode;
//! * [`room_doorbell`]: how a process listens to one room;
//! * [`console`] for operators.

pub(crate) mod console;
pub mod dispatch;
pub(crate) mod room_doorbell;
mod text_dispatch;
