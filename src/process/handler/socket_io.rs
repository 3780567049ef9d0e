//! Bytes between a client's socket and shared memory, and how a connection is shut down.

use std::io;
use std::net::Shutdown;

use crate::limits::{CLOSING_TIMEOUT_MS, LINGER_BYTES_MAX};
use crate::process::handler::drive::{DriveOutcome, Driver};
use crate::session::transport::Receipt;
use shmem::sys::sockets::{Received, is_remote_failure, receive_into, shut_down};

/// How often bytes are received and discarded in one run.
const DISCARDS_PER_TURN: u32 = 64;

impl Driver<'_> {
    /// Receives what has arrived, as far as there is space for it. Says whether anything came.
    pub(crate) fn receive(&mut self) -> bool {
        let mut moved = false;
        while self.client.readiness.readable {
            match self.session.receive(&self.client.socket) {
                Ok(Some(Receipt { bytes: 0, .. })) => {
                    self.client.readiness.client_has_ended = true;
                    self.client.readiness.readable = false;
                }
                Ok(Some(receipt)) => {
                    moved = true;
                    self.session.record_typing();
                    self.client.readiness.readable =
                        !receipt.socket_drained || self.client.readiness.more_behind;
                }
                // Full: what is there must be handled first.
                Ok(None) => break,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.client.readiness.readable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        self.lose_connection(&error);
                        return true;
                    }
                },
            }
        }
        moved
    }

    /// Sends what there is, as far as the kernel takes it. Says whether anything went.
    pub(crate) fn send(&mut self) -> bool {
        let mut moved = false;
        while self.client.readiness.writable {
            match self.session.send(&self.client.socket) {
                Ok(None) => break,
                Ok(Some(_)) => moved = true,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.client.readiness.writable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        self.lose_connection(&error);
                        return true;
                    }
                },
            }
        }
        if moved || (self.session.all_sent() && !self.session.waits_for_confirm()) {
            self.client.readiness.last_taken_ms = self.now_ms;
        }
        if moved {
            self.session.discard_sent();
        }
        moved
    }

    /// The connection is broken. The client may resume the session on another one.
    fn lose_connection(&mut self, error: &io::Error) {
        if !is_remote_failure(error) {
            let peer = self.session.record().peer();
            log::warn!("the connection from {peer} is lost: {error}");
        }
        self.end();
    }

    /// Shuts the connection down, and reads on for a moment: if it were closed with bytes unread, the kernel would
    /// send a reset, and the client could lose what it has not read yet.
    pub(crate) fn linger(&mut self) -> io::Result<DriveOutcome> {
        let socket = &self.client.socket;
        let until_ms = match self.client.linger_until_ms {
            Some(until_ms) => until_ms,
            None => {
                // For all duplicates: the keeper's would keep the connection open.
                shut_down(socket, Shutdown::Write)?;
                *self
                    .client
                    .linger_until_ms
                    .insert(self.now_ms + CLOSING_TIMEOUT_MS)
            }
        };
        match self.discard(until_ms) {
            DriveOutcome::Finished => shut_down(&self.client.socket, Shutdown::Both)?,
            wait_or_more => return Ok(wait_or_more),
        }
        Ok(DriveOutcome::Finished)
    }

    /// Reads what the client still sends, and discards it. (Not inlined: the buffer would lie on the stack of every
    /// process, and clearing it would turn that into resident memory.)
    #[inline(never)]
    fn discard(&mut self, until_ms: u64) -> DriveOutcome {
        let readiness = &mut self.client.readiness;
        let mut ignored = [0; 4096];
        for _ in 0..DISCARDS_PER_TURN {
            if readiness.client_has_ended || self.now_ms >= until_ms {
                return DriveOutcome::Finished;
            }
            match receive_into(&self.client.socket, &mut ignored) {
                Received::Bytes(bytes) => {
                    self.client.lingered_bytes += bytes;
                    if self.client.lingered_bytes > LINGER_BYTES_MAX {
                        return DriveOutcome::Finished;
                    }
                }
                Received::WouldBlock => return DriveOutcome::Wait,
                Received::Ended => readiness.client_has_ended = true,
                Received::Gone(error) => {
                    if !is_remote_failure(&error) {
                        log::warn!("the connection is closed with unread input: {error}");
                    }
                    readiness.client_has_ended = true;
                }
            }
        }
        match readiness.client_has_ended {
            true => DriveOutcome::Finished,
            false => DriveOutcome::More,
        }
    }
}
