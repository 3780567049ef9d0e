//! Delivers a player's mailbox to the player's output.
//!
//! The mailbox is guarded by the lobby's lock. One transaction removes frames from it and appends them to the output,
//! so a crash neither loses nor repeats a message.

use crate::limits::FRAME_TOTAL_BYTES_MAX;
use crate::lobby::ignoring::Ignored;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::buffers;

/// Moves the player's mail to the output, as far as there is space. Returns whether any moved.
pub(crate) fn deliver_mail(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let (Some((player, _)), Some(player_tx)) = (session.player, session.player_tx()) else {
        return Ok(false);
    };
    let space = session.space_for_events();
    if !session.mail_waits || space < FRAME_TOTAL_BYTES_MAX as u64 {
        return Ok(false);
    }
    let (memory, ignored) = (session.state.memory, Ignored::by(session));
    let mut tx = session.state.attachment.begin(memory.directory.record);
    let identity = memory.directory.identities.at(player.index());
    let (tail, head) = (tx.get(&identity.mail_tail), tx.get(&identity.mail_head));
    let (mut offset, mut output) = (tail, player_tx.begin_output(&tx));
    let space_end = output.head() + space;
    buffers::with_frame(|buffer| {
        while offset != head && space_end - output.head() >= FRAME_TOTAL_BYTES_MAX as u64 {
            let length = memory
                .first_frame(player.index(), offset..head, buffer)
                .expect("a mailbox holds whole frames");
            if !ignored.hides_frame(&buffer[..length]) {
                output.put(&mut tx, &buffer[..length]);
            }
            offset += length as u64;
        }
    });
    if offset != tail {
        output.finish(&mut tx);
        tx.set(&identity.mail_tail, offset);
        tx.commit()?;
    }
    session.mail_waits = offset != head;
    Ok(offset != tail)
}
