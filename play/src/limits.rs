//! The limits of the terminal client, with their units in their names.

/// Characters of the input line: more than the longest chat text has.
pub(crate) const PLAY_INPUT_CHARACTERS_MAX: usize = 600;

/// Entered lines that can be recalled.
pub(crate) const PLAY_HISTORY_LINES_MAX: usize = 100;

/// Lines of chat and events that can be scrolled back.
pub(crate) const PLAY_LOG_LINES_MAX: usize = 500;

/// Rooms that are shown: pages of the list are requested until there are so many.
pub(crate) const PLAY_ROOMS_MAX: usize = 10 * forkade_protocol::limits::ROOMS_PER_PAGE_MAX;
