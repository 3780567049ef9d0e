//! One client's connection: input until a frame is complete, output as far as the kernel accepts it.

use std::io::{self, Read, Write};

use forkade_protocol::{ServerMessage, frame};
use mio::net::TcpStream;

/// See the module's documentation.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The start of an incomplete frame.
    pub(crate) input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of the output that the kernel has accepted.
    sent: usize,
    /// The preamble has arrived.
    pub(crate) is_opened: bool,
    pub(crate) room: Option<usize>,
    /// Bytes of the client's stream that were handled, for the answers to pings.
    pub(crate) handled_bytes: u64,
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
            handled_bytes: 0,
        }
    }

    /// Reads all available input.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) fn read(&mut self, buffer: &mut [u8], end_announced: bool) -> io::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    // Edge-triggered events: a short read shows that nothing is left, except the end of the
                    // stream.
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

    /// Queues an encoded frame, which goes to many recipients.
    pub(crate) fn queue_frame(&mut self, frame: &[u8]) {
        self.output.extend_from_slice(frame);
    }

    /// Writes the queued output as far as the kernel accepts it. The poll reports when it accepts more.
    ///
    /// # Errors
    /// When the connection is lost.
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
