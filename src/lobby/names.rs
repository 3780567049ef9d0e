//! Which name a player may choose.

use forkade_protocol::text::names::is_reserved;
use forkade_protocol::text::{TextError, clean_player_name};

use crate::state::directory::Name;
use crate::state::handle::StateHandle;

/// The name as players see it. Whether another player has it is decided where it is taken.
///
/// # Errors
///
/// Those of [`clean_player_name`]; [`TextError::Reserved`] for a name that looks like one of the operator's list.
pub fn player_name(state: &StateHandle, name: &str) -> Result<Name, TextError> {
    let name = clean_name(name)?;
    match is_reserved(name.as_str(), state.reserved_names) {
        true => Err(TextError::Reserved),
        false => Ok(name),
    }
}

/// The name as the directory keeps it.
///
/// # Errors
///
/// Those of [`clean_player_name`].
pub(crate) fn clean_name(name: &str) -> Result<Name, TextError> {
    let name = clean_player_name(name)?;
    Ok(Name::new(&name).expect("a clean name fits the record"))
}
