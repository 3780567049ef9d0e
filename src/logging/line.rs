//! One log record as one line of text. It is bounded, and nothing in it can end the line, move a cursor or reorder
//! text.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use forkade_text::escape::Escaper;
use log::Level;

use crate::limits::LOG_RECORD_BYTES_MAX;

/// Ends a message that was too long. Space for it and for the longest report of dropped records is kept free.
const CUT: &str = "… [cut]";
const END_BYTES_MAX: usize = CUT.len()
    + " [18446744073709551615 more like this were left out]".len()
    + " [18446744073709551615 records dropped before this one]\n".len();

/// A line under construction. The order of calls is `head`, `message`, `end`.
pub(crate) struct Line {
    bytes: [u8; LOG_RECORD_BYTES_MAX],
    length: usize,
    /// Bytes that the line may have at this point.
    limit: usize,
}

impl Line {
    pub(crate) fn new() -> Self {
        Line {
            bytes: [0; LOG_RECORD_BYTES_MAX],
            length: 0,
            limit: LOG_RECORD_BYTES_MAX - END_BYTES_MAX,
        }
    }

    /// Writes time, level, role, pid, player and target.
    pub(crate) fn head(&mut self, level: Level, role: &str, player: Option<&str>, target: &str) {
        // This always fits: role and target are the server's own texts, and a player's name is bounded.
        let _ = write!(
            self,
            "{} {level:<5} {role}[{}] ",
            Timestamp::now(),
            std::process::id()
        );
        if let Some(player) = player {
            let player = player.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = write!(Escaper(&mut *self), "player=\"{player}\" ");
        }
        let _ = write!(Escaper(&mut *self), "{target}: ");
    }

    /// Writes the message, escaped, or as much of it as fits.
    pub(crate) fn message(&mut self, message: &fmt::Arguments<'_>) {
        // The error stops the formatting of a long message when the line is full.
        let complete = Escaper(&mut *self).write_fmt(*message).is_ok();
        self.limit = LOG_RECORD_BYTES_MAX;
        if !complete {
            let _ = self.write_str(CUT);
        }
    }

    /// Writes how many records of its kind were left out and how many of any kind were dropped before this one, and
    /// ends the line.
    pub(crate) fn end(&mut self, dropped: u64, left_out: u64) {
        self.limit = LOG_RECORD_BYTES_MAX;
        if left_out > 0 {
            let _ = write!(self, " [{left_out} more like this were left out]");
        }
        let _ = match dropped {
            0 => self.write_str("\n"),
            1 => self.write_str(" [1 record dropped before this one]\n"),
            _ => writeln!(self, " [{dropped} records dropped before this one]"),
        };
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        if end > self.limit {
            return Err(fmt::Error);
        }
        self.bytes[self.length..end].copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// A time in UTC with milliseconds: `2026-01-31T23:59:59.999Z`.
pub(crate) struct Timestamp {
    ms_since_1970: u64,
}

impl Timestamp {
    pub(crate) fn now() -> Self {
        // A clock that is set before 1970 shows 1970.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp {
            ms_since_1970: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.ms_since_1970 / 1000, self.ms_since_1970 % 1000);
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            out,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        )
    }
}

/// Year, month and day of the date `days` after 1970-01-01. This is Howard Hinnant's `civil_from_days`: its years begin
/// in March, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(player: Option<&str>, message: &str, dropped: u64) -> String {
        let mut line = Line::new();
        line.head(Level::Warn, "handler", player, "forkade::handler");
        line.message(&format_args!("{message}"));
        line.end(dropped, dropped);
        String::from_utf8(line.as_bytes().to_vec()).expect("a line is UTF-8")
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_and_marked() {
        let text = line(None, &"é".repeat(10_000), u64::MAX);
        assert!(text.ends_with(
            "é… [cut] [18446744073709551615 more like this were left out] \
             [18446744073709551615 records dropped before this one]\n"
        ));
        assert!(text.len() <= LOG_RECORD_BYTES_MAX && text.len() > LOG_RECORD_BYTES_MAX - 4);
    }

    #[test]
    fn times_are_shown_in_utc() {
        let at = |ms_since_1970| Timestamp { ms_since_1970 }.to_string();
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_769_903_999_999), "2026-01-31T23:59:59.999Z");
        assert_eq!(at(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    proptest! {
        #[test]
        fn any_message_stays_inside_one_line(
            player in proptest::option::of(proptest::collection::vec(any::<char>(), 0..24)),
            message in proptest::collection::vec(any::<char>(), 0..6000),
            dropped in any::<u64>(),
        ) {
            let player = player.map(|characters| characters.into_iter().collect::<String>());
            let text = line(player.as_deref(), &message.into_iter().collect::<String>(), dropped);
            prop_assert!(text.len() <= LOG_RECORD_BYTES_MAX);
            let body = text.strip_suffix('\n').expect("a line ends");
            prop_assert!(!body.chars().any(forkade_text::escape::is_harmful), "{body:?}");
        }
    }
}
