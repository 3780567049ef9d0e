//! Passcodes and invite codes leave shared memory once the frame that contains them is handled: its bytes would
//! otherwise lie in the input ring until others overwrite them.

use crate::session::Session;

/// Where the bytes of the current frame lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FramePlace {
    from: u64,
    end: u64,
    base: u64,
}

impl Session<'_> {
    /// Where the bytes of the current frame lie, header included; `None` without a frame. To be asked for before the
    /// frame is handled: that may rebase the ring.
    pub(crate) fn frame_place(&self) -> Option<FramePlace> {
        let ((_, player), end) = (self.player?, self.frame_end?);
        let attachment = &self.state.attachment;
        Some(FramePlace {
            from: attachment.read_own(&player.consumed),
            end,
            base: player.input.base(attachment),
        })
    }

    /// Overwrites a frame that was handled, if it was consumed. `replace` gets its bytes.
    pub(crate) fn overwrite_frame(&self, place: FramePlace, replace: impl FnOnce(&mut [u8])) {
        let Some((_, player)) = self.player else { return };
        let Ok(length) = usize::try_from(place.end - place.from) else {
            return;
        };
        if self.state.attachment.read_own(&player.consumed) < place.end {
            return;
        }
        let view = player.input.view_from(place.base);
        let mut frame = vec![0; length];
        view.read(place.from, &mut frame);
        replace(&mut frame);
        let range = view.range(place.from, length);
        let (first, second) = frame.split_at(range.len());
        view.bytes().copy_in(range.start, first);
        if !second.is_empty() {
            view.bytes().copy_in(0, second);
        }
    }
}
