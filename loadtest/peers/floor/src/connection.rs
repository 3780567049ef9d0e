//! One client's connection: bytes in until a frame is whole, bytes out as far as the kernel takes them.

use std::io::{self, Read, Write};

use forkade_protocol::ServerMessage;
use forkade_protocol::frame;
use mio::net::TcpStream;

/// See the module's documentation.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The beginning of what is not whole yet.
    pub(crate) input: Vec<u8>,
    output: Vec<u8>,
    /// So much of the output the kernel has.
    sent: usize,
    /// The preamble has come.
    pub(crate) is_opened: bool,
    pub(crate) room: Option<usize>,
    /// Bytes of the client's stream that were dealt with, for the answers to pings.
    pub(crate) taken_in: u64,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            is_opened: false,
            room: None,
            taken_in: 0,
        }
    }

    /// Reads all there is.
    ///
    /// # Errors
    /// When the connection is over.
    pub(crate) fn read(&mut self, buffer: &mut [u8], end_announced: bool) -> io::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    // As in every edge-triggered loop: a short read says that nothing is left, unless the end is.
                    if count < buffer.len() && !end_announced {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues a message.
    ///
    /// # Errors
    /// When it is too long for a frame.
    pub(crate) fn queue(&mut self, message: &ServerMessage) -> io::Result<()> {
        frame::append_frame(message, &mut self.output).map_err(io::Error::other)?;
        Ok(())
    }

    /// Queues a frame that is ready, for one of many recipients.
    pub(crate) fn queue_frame(&mut self, frame: &[u8]) {
        self.output.extend_from_slice(frame);
    }

    /// Writes what is queued, as far as the kernel takes it. (The poll reports when it takes more.)
    ///
    /// # Errors
    /// When the connection is over.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }
}
