//! What clients and operators say, turned into calls of the layers below: binary frames, text mode and the console.

pub(crate) mod console;
pub mod dispatch;
pub(crate) mod room_doorbell;
mod text_dispatch;
