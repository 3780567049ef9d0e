//! A player's mailbox: whispers and invitations that wait for the player, as whole frames, under the lobby's lock.
//!
//! The sender sets the attention flag of the addressee's handler, which moves the mail to the output when there is
//! space. A player without a connection gets the mail when it resumes. The flag is set before the commit, but under
//! the lock that the handler waits for. If the sender dies before it rings, the ticker rings for the flag.

use forkade_protocol::{ServerMessage, frame};

use crate::limits::{FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX, MAILBOX_BYTES};
use crate::state::buffers;
use crate::state::directory::{Identity, LobbyTx, Presence};
use crate::state::layout::{Memory, PlayerRef};
use shmem::shared_record;
use shmem::sys::memory::SharedBytes;

shared_record! {
    /// The bytes of one player's mail; the [`Identity`] says which of them count. The byte at `offset` lies at
    /// `offset mod MAILBOX_BYTES`. Offsets restart at 0 when the mailbox is empty, so that little mail touches little
    /// memory.
    pub struct Mailbox {
        bytes: SharedBytes<{ MAILBOX_BYTES / 8 }>,
    }
}

impl Mailbox {
    fn copy_out(&self, offset: u64, target: &mut [u8]) {
        let start = position(offset);
        let (first, second) = target.split_at_mut(target.len().min(MAILBOX_BYTES - start));
        self.bytes.copy_out(start, first);
        self.bytes.copy_out(0, second);
    }
}

/// Why a message was not posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The player has left or is leaving.
    #[error("the player has left")]
    Gone,
    /// The mailbox is full.
    #[error("too many messages wait for this player already")]
    Full,
}

impl Memory {
    /// Posts a message to a player as part of the transaction. Returns the keeper whose doorbell must be rung after
    /// the commit; `None` if the player has no connection.
    ///
    /// # Errors
    ///
    /// [`PostError`]; nothing was changed.
    pub(crate) fn post(
        &self,
        tx: &mut LobbyTx<'_>,
        player: PlayerRef,
        message: &ServerMessage,
    ) -> Result<Option<u32>, PostError> {
        let identity = self.directory.identity(tx, player).ok_or(PostError::Gone)?;
        let presence = Presence::from_raw(tx.get(&identity.presence));
        if presence == Presence::EXPIRING || tx.get(&identity.kicked) != 0 {
            return Err(PostError::Gone);
        }
        let (mut tail, mut head) = (tx.get(&identity.mail_tail), tx.get(&identity.mail_head));
        if tail == head {
            (tail, head) = (0, 0);
        }
        let mailbox = self.directory.mailboxes.at(player.index());
        buffers::with_frame(|buffer| {
            let length = frame::write_frame_into(message, buffer).expect("every message fits a frame");
            let next = head + length as u64;
            if next - tail > MAILBOX_BYTES as u64 {
                return Err(PostError::Full);
            }
            let start = position(head);
            let (first, second) = buffer[..length].split_at(length.min(MAILBOX_BYTES - start));
            tx.write(&mailbox.bytes, start, first);
            tx.write(&mailbox.bytes, 0, second);
            tx.set(&identity.mail_tail, tail);
            tx.set(&identity.mail_head, next);
            Ok(())
        })?;
        let connection = tx.get(&identity.connection);
        Ok(connection.is_some().then(|| self.raise_attention(connection)))
    }

    /// Checks that a frame of this many bytes could be posted now.
    ///
    /// # Errors
    ///
    /// The [`PostError`] that posting it would return.
    pub(crate) fn check_mailbox_space(
        &self,
        tx: &LobbyTx<'_>,
        player: PlayerRef,
        bytes: usize,
    ) -> Result<(), PostError> {
        let identity = self.directory.identity(tx, player).ok_or(PostError::Gone)?;
        let waiting = tx.get(&identity.mail_head) - tx.get(&identity.mail_tail);
        if waiting + bytes as u64 > MAILBOX_BYTES as u64 {
            return Err(PostError::Full);
        }
        Ok(())
    }

    /// The frames of a player's mail, for the consistency check and proofs; `None` if they are not whole frames.
    pub(crate) fn mail_of(&self, tx: &LobbyTx<'_>, index: u32) -> Option<Vec<Vec<u8>>> {
        let identity = self.directory.identities.at(index);
        let (mut offset, head) = (tx.get(&identity.mail_tail), tx.get(&identity.mail_head));
        let mut frames = Vec::new();
        while offset != head {
            let mut frame = [0; FRAME_TOTAL_BYTES_MAX];
            let length = self.first_frame(index, offset..head, &mut frame)?;
            frames.push(frame[..length].to_vec());
            offset += length as u64;
        }
        Some(frames)
    }

    /// Copies the first frame in a player's mailbox and returns its length; `None` if it is not whole.
    pub(crate) fn first_frame(
        &self,
        index: u32,
        mail: std::ops::Range<u64>,
        target: &mut [u8; FRAME_TOTAL_BYTES_MAX],
    ) -> Option<usize> {
        let waiting = usize::try_from(mail.end.checked_sub(mail.start)?).ok()?;
        let mailbox = self.directory.mailboxes.at(index);
        let mut header = [0; FRAME_HEADER_BYTES];
        mailbox.copy_out(mail.start, &mut header);
        let length = usize::try_from(u32::from_le_bytes(header)).ok()? + FRAME_HEADER_BYTES;
        if waiting > MAILBOX_BYTES || length > waiting || length > target.len() {
            return None;
        }
        mailbox.copy_out(mail.start, &mut target[..length]);
        Some(length)
    }
}

/// Whether the player has mail.
pub(crate) fn has_mail(tx: &LobbyTx<'_>, identity: &Identity) -> bool {
    tx.get(&identity.mail_tail) != tx.get(&identity.mail_head)
}

fn position(offset: u64) -> usize {
    usize::try_from(offset % MAILBOX_BYTES as u64).expect("a position in a mailbox is small")
}
