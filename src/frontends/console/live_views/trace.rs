//! `trace`: follows a player's frames, which it reads from the player's rings (see [`crate::state::stream_tap`]). It
//! does not involve the player's process, so it continues across takeovers and resumes.

use forkade_protocol::frame;

use crate::frontends::console::format_frame;
use crate::frontends::console::live_views::transcript::Transcript;
use crate::frontends::console::live_views::{LINES_PER_STEP_MAX, Progress};
use crate::frontends::console::queries::{NotFound, PlayerSummary, find_player};
use crate::frontends::console::replies::Reply;
use crate::limits::{FOLLOW_POLL_MS, FRAME_BYTES_MAX, TRACE_POLL_MS};
use crate::state::connections::ConnectionRecord;
use crate::state::handle::StateHandle;
use crate::state::layout::{ConnectionRef, PlayerRef};
use crate::state::players::PlayerRecord;
use crate::state::stream_tap::{Direction, Look};
use forkade_text::escape::Escaped;
use shmem::sys::clock::now_ms;
use shmem::sys::process::ProcessId;

/// A trace of one player.
pub(crate) struct Trace {
    player: PlayerRef,
    record: &'static PlayerRecord,
    began_at_ms: u64,
    /// Stream offsets of the next frame in each direction, as in [`DIRECTIONS`].
    cursors: [u64; 2],
    /// The connection and handler that were last reported.
    reported: Option<(ConnectionRef, ProcessId)>,
    summary_due_at_ms: u64,
    /// The player is in text mode.
    is_text: bool,
    transcript: Transcript,
}

const DIRECTIONS: [Direction; 2] = [Direction::In, Direction::Out];

impl Trace {
    /// Begins with the next frame in each direction.
    ///
    /// # Errors
    ///
    /// [`NotFound::Player`].
    pub(crate) fn begin(lobby: &mut StateHandle, id_or_name: &str) -> Result<Self, NotFound> {
        let player = find_player(lobby, id_or_name)?;
        let record = lobby.memory.players.at(player.index());
        record.traced.follow();
        let stream_status = record.stream_status(player);
        Ok(Self {
            player,
            record,
            began_at_ms: now_ms(),
            // A player without published streams has no bytes yet.
            cursors: stream_status.map_or([0, 0], |stream_status| {
                [stream_status.consumed, stream_status.output_head]
            }),
            reported: None,
            summary_due_at_ms: 0,
            is_text: false,
            transcript: Transcript::new(),
        })
    }

    pub(crate) fn advance(&mut self, lobby: &mut StateHandle) -> Progress {
        let now = now_ms();
        self.record.traced.follow();
        let mut lines = Vec::new();
        if self.summary_due_at_ms <= now {
            self.summary_due_at_ms = now + FOLLOW_POLL_MS;
            let Some(summary) = PlayerSummary::of(lobby, self.player) else {
                return Progress::Finished(Reply::lines(vec![self.line(now, '*', "the player has left")]));
            };
            let connection = summary.connection(lobby);
            self.report_connection(&mut lines, &summary, connection, now);
        }
        // `None` only before the player's first bytes.
        self.is_text = self
            .record
            .stream_status(self.player)
            .is_some_and(|stream_status| stream_status.is_text);
        for (index, direction) in DIRECTIONS.into_iter().enumerate() {
            self.read_stream(&mut lines, index, direction, now);
        }
        if lines.is_empty() {
            Progress::Wait {
                until_ms: now + TRACE_POLL_MS,
            }
        } else {
            Progress::Output(lines)
        }
    }

    fn report_connection(
        &mut self,
        lines: &mut Vec<String>,
        summary: &PlayerSummary,
        connection: Option<&ConnectionRecord>,
        now: u64,
    ) {
        let is_first = self.began_at_ms == now && self.reported.is_none();
        let handler = connection.and_then(ConnectionRecord::handler);
        let reported = handler.map(|handler| (summary.connection, handler));
        let change = match (self.reported, reported, connection) {
            (Some((_, before)), Some((_, handler)), _) if before == handler => None,
            (Some((former, before)), Some((present, handler)), _) if former == present => {
                Some(format!("handler {before} was replaced by {handler}"))
            }
            (_, Some((_, handler)), Some(connection)) => {
                Some(format!("connected from {}, handler {handler}", connection.peer()))
            }
            (None, _, _) if !is_first => None,
            _ => Some("not connected".to_owned()),
        };
        self.reported = reported;
        if let Some(change) = change {
            let name = Escaped(summary.name.as_str());
            lines.push(self.line(now, '*', &format!("{name}: {change}")));
        }
    }

    fn read_stream(&mut self, lines: &mut Vec<String>, index: usize, direction: Direction, now: u64) {
        let mark = match direction {
            Direction::In => '>',
            Direction::Out => '<',
        };
        let from = self.cursors[index];
        match self.record.look(self.player, direction, from) {
            Look::Bytes(bytes) if bytes.is_empty() => {}
            Look::Bytes(bytes) if self.is_text => {
                let said = match direction {
                    Direction::In => self.transcript.typed(&bytes),
                    Direction::Out => Transcript::shown(&bytes),
                };
                lines.extend(said.iter().map(|text| self.line(now, mark, text)));
                self.cursors[index] += bytes.len() as u64;
            }
            Look::Bytes(bytes) => {
                let mut rest = &bytes[..];
                while lines.len() < LINES_PER_STEP_MAX && !rest.is_empty() {
                    let (text, length) = match frame::split(rest, FRAME_BYTES_MAX) {
                        frame::Split::Frame { body, total } => (format_body(direction, body), total),
                        // Cannot happen: cursors advance by complete frames.
                        _ => (format!("({} bytes that are no frame)", rest.len()), rest.len()),
                    };
                    lines.push(self.line(now, mark, &text));
                    self.cursors[index] += length as u64;
                    rest = &rest[length..];
                }
            }
            Look::Missed { goes_on_at } => {
                let missed = format!("(missed {} bytes)", goes_on_at - from);
                lines.push(self.line(now, mark, &missed));
                self.cursors[index] = goes_on_at;
                if direction == Direction::In {
                    self.transcript = Transcript::new();
                }
            }
            // The next look at the directory reports that the player has left.
            Look::Gone => {}
        }
    }

    fn line(&self, now: u64, mark: char, text: &str) -> String {
        let after_ms = now - self.began_at_ms;
        format!("{:>5}.{:03} {mark} {text}", after_ms / 1000, after_ms % 1000)
    }
}

fn format_body(direction: Direction, body: &[u8]) -> String {
    match direction {
        Direction::In => format_frame::client_frame(body),
        Direction::Out => format_frame::server_frame(body),
    }
}
