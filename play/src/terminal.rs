//! The terminal: taken when a [`Terminal`] is created, and restored when that is dropped.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::BorrowedFd;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::queue;
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen,
};
use rustix::process::{Signal, kill_current_process_group};

use crate::screen::ScreenContents;
use crate::styled::{Line, Style};

/// The terminal marks pasted text, so that a line end in it sends nothing.
const BRACKETED_PASTE_ON: &str = "\x1b[?2004h";
const BRACKETED_PASTE_OFF: &str = "\x1b[?2004l";

/// The terminal while this program has it.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The lines on the screen.
    shown: Vec<Line>,
}

impl Terminal {
    /// Whether input and output are a terminal.
    pub(crate) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Takes the terminal: raw mode, on the alternate screen.
    ///
    /// # Errors
    ///
    /// Those of tcsetattr(3) and write(2).
    pub(crate) fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        // From here on, a failure restores the terminal.
        let mut terminal = Self { shown: Vec::new() };
        terminal.enter()?;
        Ok(terminal)
    }

    /// Columns and rows; 80 and 24 if the terminal does not know them or reports 0.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = rustix::termios::tcgetwinsize(io::stdout());
        match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }

    /// The descriptor of the input.
    pub(crate) fn input(&self) -> BorrowedFd<'static> {
        rustix::stdio::stdin()
    }

    /// The bytes of pressed keys. `None`: the terminal is gone.
    ///
    /// # Errors
    ///
    /// Those of read(2), except EIO, which means that the terminal is gone.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = [0; 1024];
        match rustix::io::read(self.input(), &mut bytes) {
            Ok(0) | Err(rustix::io::Errno::IO) => Ok(None),
            Ok(length) => Ok(Some(bytes[..length].to_vec())),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Some(Vec::new())),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows the contents: writes the lines that differ from those on the screen.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub(crate) fn draw(&mut self, contents: ScreenContents) -> io::Result<()> {
        let mut bytes = Vec::new();
        queue!(bytes, Hide)?;
        if self.shown.len() != contents.lines.len() {
            self.shown.clear();
            queue!(bytes, Clear(ClearType::All))?;
        }
        for (row, line) in (0_u16..).zip(&contents.lines) {
            if self.shown.get(usize::from(row)) != Some(line) {
                // Cleared before it is written: after a full line the cursor is still on its last column.
                queue!(bytes, MoveTo(0, row), Clear(ClearType::CurrentLine))?;
                write_line(&mut bytes, line)?;
            }
        }
        if let Some((column, row)) = contents.cursor {
            queue!(bytes, MoveTo(column, row), Show)?;
        }
        self.shown = contents.lines;
        write_all(&bytes)
    }

    /// Makes the next [`draw`](Self::draw) write all lines: the size has changed, or another program has written on the
    /// screen.
    pub(crate) fn redraw_all(&mut self) {
        self.shown.clear();
    }

    /// Restores the terminal, stops this job as Ctrl-Z does for other programs, and takes the terminal again once the
    /// job continues.
    ///
    /// # Errors
    ///
    /// Those of taking a terminal, or of kill(2).
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        self.leave();
        // This may not be the only process of the shell's job.
        kill_current_process_group(Signal::TSTP)?;
        terminal::enable_raw_mode()?;
        self.enter()
    }

    fn enter(&mut self) -> io::Result<()> {
        self.shown.clear();
        let mut bytes = Vec::new();
        queue!(
            bytes,
            EnterAlternateScreen,
            DisableLineWrap,
            Print(BRACKETED_PASTE_ON),
            Clear(ClearType::All)
        )?;
        write_all(&bytes)
    }

    fn leave(&mut self) {
        let mut bytes = Vec::new();
        // Errors are ignored: a terminal that is gone needs no restoring.
        let _ = queue!(
            bytes,
            ResetColor,
            SetAttribute(Attribute::Reset),
            Print(BRACKETED_PASTE_OFF),
            EnableLineWrap,
            LeaveAlternateScreen,
            Show
        );
        let _ = write_all(&bytes);
        let _ = terminal::disable_raw_mode();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.leave();
    }
}

fn write_line(bytes: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    for (style, text) in line.spans() {
        match style {
            Style::Plain => {}
            Style::Dim => queue!(bytes, SetAttribute(Attribute::Dim))?,
            Style::Strong => queue!(bytes, SetAttribute(Attribute::Bold))?,
            Style::Selected => queue!(bytes, SetAttribute(Attribute::Reverse))?,
            Style::Good => queue!(bytes, SetForegroundColor(Color::Green))?,
            Style::Bad => queue!(bytes, SetForegroundColor(Color::Red))?,
        }
        queue!(bytes, Print(text), SetAttribute(Attribute::Reset))?;
    }
    Ok(())
}

/// Writes without waiting for a line end, at which the standard library's buffer would flush.
fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
