//! The banner: a line for people whose terminal waits to be spoken to.
//!
//! It is part of what a connection carries before the stream, so it is noted in the record before it is sent: a
//! successor sends what is left of it, and nothing twice.

use std::sync::atomic::Ordering;

use crate::session::Session;
use crate::state::connections::Phase;
use forkade_text::render;

impl Session<'_> {
    /// When a client that sends nothing is spoken to, in milliseconds of the monotonic clock, if that is `after_ms`
    /// after the accept. `None`: it has sent something behind the PROXY header that a proxy sends for it, or was spoken
    /// to, or `after_ms` is 0.
    pub fn banner_due_ms(&self, after_ms: u32) -> Option<u64> {
        let noted = self.state.attachment.read_own(&self.record.handshake_reply_bytes);
        let is_silent = self.phase() == Phase::HANDSHAKE
            && !self.awaits_proxy_header()
            && self.byte_counts.received <= self.proxy_header_bytes() as u64;
        let accepted_at_ms = self.record.accepted_at_ms.load(Ordering::Relaxed);
        (is_silent && noted == 0 && after_ms != 0).then(|| accepted_at_ms + u64::from(after_ms))
    }

    /// Notes that the banner is sent on this connection before anything else.
    pub fn note_banner(&mut self) {
        let (memory, record) = (self.state.memory, self.record);
        let mut tx = self.state.attachment.begin(memory.directory.record);
        tx.write(&record.handshake_reply, 0, render::BANNER.as_bytes());
        tx.set(
            &record.handshake_reply_bytes,
            u32::try_from(render::BANNER.len()).expect("the banner is short"),
        );
        tx.commit().expect("a banner fits the journal");
    }
}
