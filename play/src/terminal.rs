//! The terminal: taken when a value of [`Terminal`] is made, given back as it was when that is dropped.

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

/// Pasted text is marked as such, so that a line end in it sends nothing.
const BRACKETED_PASTE_ON: &str = "\x1b[?2004h";
const BRACKETED_PASTE_OFF: &str = "\x1b[?2004l";

/// A screen of ours.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// What is on it.
    shown: Vec<Line>,
}

impl Terminal {
    /// Whether input and output are a terminal at all.
    pub(crate) fn is_there() -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// Takes the terminal: every key is a byte at once, and the screen is another one.
    ///
    /// # Errors
    ///
    /// Those of tcsetattr(3) and write(2).
    pub(crate) fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        // From here on a failure gives back what was taken.
        let mut terminal = Self { shown: Vec::new() };
        terminal.enter()?;
        Ok(terminal)
    }

    /// Columns and rows. Where the terminal does not know, or says that it has none, those of the first ones there were.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = rustix::termios::tcgetwinsize(io::stdout());
        match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        }
    }

    /// Where keys come from.
    pub(crate) fn input(&self) -> BorrowedFd<'static> {
        rustix::stdio::stdin()
    }

    /// The bytes of keys that were pressed. `None`: the terminal is gone.
    ///
    /// # Errors
    ///
    /// Those of read(2), but for the one by which a terminal says that it is gone.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = [0; 1024];
        match rustix::io::read(self.input(), &mut bytes) {
            Ok(0) | Err(rustix::io::Errno::IO) => Ok(None),
            Ok(length) => Ok(Some(bytes[..length].to_vec())),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Some(Vec::new())),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows a contents: writes the lines that differ from what is there.
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
                // Cleared before it is written: behind a full line the cursor still stands on its last column.
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

    /// Forgets what is on the screen: it is another size now, or somebody else wrote on it.
    pub(crate) fn redraw_all(&mut self) {
        self.shown.clear();
    }

    /// Gives the terminal back, stops this job as the key Ctrl-Z does elsewhere, and takes the terminal again once the job goes on.
    ///
    /// # Errors
    ///
    /// Those of taking a terminal, or of kill(2).
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        self.leave();
        // The shell that started us stops with its whole job, of which we may not be the only process.
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
        // A terminal that is gone needs nothing back, and there is nobody to be told.
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

/// In one write, past the line buffer of the standard library.
fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
