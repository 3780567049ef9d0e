//! The console's bytes in and out: what is received, processed, written and sent.

use std::io;
use std::sync::atomic::Ordering;

use crate::frontends::console::live_views::{LiveView, Progress};
use crate::frontends::console::terminal::Input;
use crate::frontends::console::{Console, Stage, Step, replies};
use crate::limits::CONSOLE_LINE_BYTES_MAX;
use crate::session::ControlRequest;
use crate::state::connections::OperatorFlag;
use forkade_text::opening::{self, ForeignProtocol};
use forkade_text::render;
use shmem::sys::clock::now_ms;
use shmem::sys::sockets::{Received, Sent, receive_into, send_from};

/// The first byte of TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// Most bytes that one call receives.
const RECEIVE_BYTES: usize = 4096;

impl Console<'_> {
    pub(super) fn send(&mut self) -> Step {
        match send_from(&self.socket, self.output.as_slices().0) {
            Sent::Bytes(bytes) => {
                self.output.drain(..bytes);
                self.record_activity();
                Step::Continue
            }
            Sent::WouldBlock => Step::Wait,
            Sent::Gone(_) => Step::Done,
        }
    }

    pub(super) fn receive(&mut self) -> Step {
        let record = self.session.record();
        // Set before bytes are taken from the kernel, so that a successor notices every loss. The time distinguishes
        // one piece of work from the next: the connection is given up only if its processes keep dying in the same one.
        record.current_frame.store(now_ms().max(1), Ordering::Release);
        let mut buffer = [0; RECEIVE_BYTES];
        match receive_into(&self.socket, &mut buffer) {
            Received::Bytes(bytes) => {
                self.input.extend(&buffer[..bytes]);
                Step::Continue
            }
            Received::WouldBlock => {
                if self.terminal.is_between_lines() && self.live_view.is_none() {
                    record.current_frame.store(0, Ordering::Release);
                }
                Step::Wait
            }
            // All complete lines were answered. A line without an end may be incomplete, so it is not executed.
            Received::Ended => self.enter(Stage::Closing),
            Received::Gone(_) => Step::Done,
        }
    }

    /// Processes received bytes, up to the first command that needs a reply.
    pub(super) fn process_input(&mut self) -> io::Result<Step> {
        let accepts_more = |console: &Self| {
            console.output.is_empty()
                && console.reply.is_none()
                && console.guess.is_none()
                && console.stage == Stage::Open
                && console.live_view.as_ref().is_none_or(LiveView::ends_on_input)
        };
        let is_new = !self.session.record().has_operator_flag(OperatorFlag::Commands);
        if is_new && self.input.front() == Some(&TLS_HANDSHAKE) {
            self.refuse_protocol(ForeignProtocol::Tls);
        }
        while accepts_more(self) {
            let Some(byte) = self.input.pop_front() else { break };
            let is_viewing = self.live_view.is_some();
            let Some(input) = self.terminal.push(byte, is_viewing, &mut self.output) else {
                continue;
            };
            self.record_activity();
            if let Input::Line(line) = &input
                && let Some(protocol) = self.foreign_protocol(line)
            {
                self.refuse_protocol(protocol);
                break;
            }
            match input {
                Input::TooLong => {
                    self.write_error(&format!("line too long: at most {CONSOLE_LINE_BYTES_MAX} bytes"))
                }
                _ if is_viewing => {
                    self.end_view()?;
                    self.write_line(replies::OK);
                }
                Input::Line(line) => self.execute_line(&line),
                Input::Interrupt => {}
                Input::End => {
                    self.enter(Stage::Closing);
                }
            }
        }
        // A successor restores the terminal's mode from this.
        let mode = self.terminal.mode();
        self.session.record().terminal.store(mode, Ordering::Release);
        Ok(Step::Continue)
    }

    /// The protocol of another kind of client that a line shows, if it does.
    fn foreign_protocol(&self, line: &[u8]) -> Option<ForeignProtocol> {
        let record = self.session.record();
        if opening::is_host_header(line) {
            return Some(ForeignProtocol::Http);
        }
        if line.is_empty() || record.has_operator_flag(OperatorFlag::Commands) {
            return None;
        }
        // A request may have any word as its method; no first command of an operator says `HTTP/` by chance.
        let protocol = match opening::names_http_version(line) {
            true => Some(ForeignProtocol::Http),
            false => opening::foreign_line(line),
        };
        record.set_operator_flag(OperatorFlag::Commands, protocol.is_none());
        protocol
    }

    /// Writes the live view's next lines.
    pub(super) fn advance_view(&mut self) -> io::Result<Step> {
        let Some(live_view) = &mut self.live_view else {
            return Ok(Step::Wait);
        };
        match live_view.advance(self.session.state, &self.poll)? {
            Progress::Output(lines) => {
                // The time that the operator has for reading begins now, however long the view had no output.
                self.last_active_ms = now_ms();
                for line in lines {
                    // A player's text must not wrap at the terminal's edge and look like a record of its own.
                    match self.terminal.columns() {
                        Some(columns) => render::wrap_to("", &line, columns.saturating_sub(1))
                            .lines()
                            .for_each(|row| self.write_line(row)),
                        None => self.write_line(&line),
                    }
                }
            }
            Progress::Wait { until_ms } => {
                self.view_due_at_ms = until_ms;
                return Ok(Step::Wait);
            }
            Progress::Finished(reply) => {
                self.end_view()?;
                self.set_reply(reply);
            }
            Progress::Failed(why) => {
                self.end_view()?;
                self.write_error(&why);
            }
        }
        Ok(Step::Continue)
    }

    pub(super) fn write_line(&mut self, line: &str) {
        self.output.extend(line.as_bytes());
        self.output.extend(self.terminal.line_end().as_bytes());
    }

    pub(super) fn write_error(&mut self, why: &str) {
        self.write_line(&format!("ERR {why}"));
    }

    pub(super) fn drain_input(&mut self) -> Step {
        match receive_into(&self.socket, &mut [0; RECEIVE_BYTES]) {
            Received::Bytes(_) => Step::Continue,
            // An idle operator does not delay the end of the server.
            Received::WouldBlock if self.session.control_request() != ControlRequest::Stop => Step::Wait,
            _ => Step::Done,
        }
    }
}
