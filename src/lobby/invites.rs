//! Invite codes: a substitute for a room's id and passcode, short enough to be read aloud.
//!
//! A code holds the slot of the room's record and a secret of 40 bits, which the record repeats. So it needs no index,
//! and a code that was renewed or whose room has closed is invalid. [`guesses`](crate::lobby::guesses) says how fast
//! codes may be tried. The secret is part of the room, under the room's lock; renewing it is one transaction.

use std::fmt;

use forkade_protocol::limits::INVITE_CODE_BYTES;
use forkade_protocol::{RejectCode, ServerMessage};

use crate::limits::PLAYERS_OR_ROOMS_MAX;
use crate::lobby::guesses::Guesser;
use crate::lobby::join_leave;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::layout::RoomRef;
use crate::state::rooms::RoomTx;
use forkade_text::code;

/// Letters and digits of a code, 5 bits each.
const DIGITS: u32 = 12;
const SECRET_BITS: u32 = 40;
const ROOM_BITS: u32 = 5 * DIGITS - SECRET_BITS;
const _: () = assert!(PLAYERS_OR_ROOMS_MAX <= 1 << ROOM_BITS);
const _: () = assert!(INVITE_CODE_BYTES == (DIGITS + DIGITS / 4 - 1) as usize);

/// A decoded code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InviteCode {
    /// Index of the room's record.
    pub room: u32,
    /// The secret, equal to the one in the room's record.
    pub secret: u64,
}

impl InviteCode {
    /// Parses a [code](forkade_text::code::parse). Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let bits = u64::try_from(code::parse(text, DIGITS)?).ok()?;
        Some(Self {
            room: u32::try_from(bits >> SECRET_BITS).ok()?,
            secret: bits & ((1 << SECRET_BITS) - 1),
        })
    }
}

impl fmt::Display for InviteCode {
    /// Formats the code for people: `00B7-Q2HM-ZK4T`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u64::from(self.room) << SECRET_BITS | self.secret;
        formatter.write_str(&code::format(bits.into(), DIGITS))
    }
}

/// Tells the owner the room's invite code; with `renew`, a new one that makes the old one invalid.
///
/// # Errors
///
/// If the player is in no room, or not the owner.
pub fn invite(session: &mut Session<'_>, request: u32, renew: bool) -> Result<(), Rejection> {
    let secret = random_secret()?;
    join_leave::change_room(session, |tx, context| {
        context.ensure_owner(tx)?;
        if renew {
            tx.set(&tx.record().invite_secret, secret);
        }
        let code = code_of(tx, context.room).to_string();
        context
            .player_tx
            .reply(tx, &ServerMessage::Invitation { request, code });
        Ok(())
    })
}

/// Joins the room that has this code, or with `watch` joins it as a spectator. No passcode is needed.
///
/// # Errors
///
/// If no room has the code, or those of joining.
pub fn join_by_invite(
    session: &mut Session<'_>,
    request: u32,
    code: &str,
    watch: bool,
) -> Result<(), Rejection> {
    let unknown = || {
        let text = "no room has this invite code (any more)";
        Rejection::new(RejectCode::InviteUnknown, text)
    };
    let code = InviteCode::parse(code);
    let room = code.and_then(|code| {
        let generation = session.state.memory.rooms.get(code.room)?.open_generation()?;
        Some(RoomRef::new(code.room, generation))
    });
    let guesser = Guesser::of(session);
    join_leave::join(session, request, (room, None), watch, |tx, room, _| {
        let is_right = Some(code_of(tx, room)) == code;
        guesser.judge(&tx.record().invite_guesses, is_right, unknown())
    })
    .map_err(|rejection| match rejection.code {
        RejectCode::RoomNotFound => unknown(),
        _ => rejection,
    })
}

/// Returns the room's invite code.
pub(crate) fn code_of(tx: &RoomTx<'_>, room: RoomRef) -> InviteCode {
    InviteCode {
        room: room.index(),
        secret: tx.get(&tx.record().invite_secret),
    }
}

/// Returns a random secret for a new code, from the kernel: a generator in user space would give the same numbers to
/// forked processes.
pub(crate) fn random_secret() -> Result<u64, Rejection> {
    let random = getrandom::u64().map_err(|error| {
        let text = format!("the kernel gave no random bytes: {error}");
        Rejection::new(RejectCode::InviteUnknown, text)
    })?;
    Ok(random & ((1 << SECRET_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code() -> impl Strategy<Value = InviteCode> {
        (0..1_u32 << ROOM_BITS, 0..1_u64 << SECRET_BITS)
            .prop_map(|(room, secret)| InviteCode { room, secret })
    }

    #[test]
    fn a_code_looks_as_documented() {
        let code = InviteCode {
            room: 0x167,
            secret: 0xB8_A34F_CC9A,
        };
        assert_eq!(code.to_string(), "00B7-Q2HM-ZK4T");
        let last = InviteCode {
            room: (1 << ROOM_BITS) - 1,
            secret: (1 << SECRET_BITS) - 1,
        };
        assert_eq!(last.to_string(), "ZZZZ-ZZZZ-ZZZZ");
    }

    #[test]
    fn what_is_no_code_is_none() {
        for text in [
            "",
            "-",
            "00B7-Q2HM-ZK4",
            "00B7-Q2HM-ZK4T0",
            "00B7-Q2HM-ZK4U",
            "00B7_Q2HM_ZK4T",
            "00B7-Q2HM-ZK4\u{e9}",
            "00B7-Q2HM-ZK4\u{ff14}",
            &"0".repeat(1000),
        ] {
            assert_eq!(InviteCode::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_code_is_understood_however_it_is_typed(code in code(), typing: [u8; 12], ends in "[- ]{0,3}") {
            let mut typed = ends.clone();
            for (letter, how) in code.to_string().chars().filter(|letter| *letter != '-').zip(typing) {
                typed.push(match (letter, how % 4) {
                    ('0', 0) => 'O',
                    ('0', 1) => 'o',
                    ('1', 0) => 'I',
                    ('1', 1) => 'l',
                    (other, 2) => other.to_ascii_lowercase(),
                    (other, _) => other,
                });
                if how > 200 {
                    typed.push('-');
                }
            }
            typed.push_str(&ends);
            prop_assert_eq!(InviteCode::parse(&typed), Some(code), "{}", typed);
            prop_assert_eq!(InviteCode::parse(&code.to_string()), Some(code));
            prop_assert_eq!(code.to_string().len(), INVITE_CODE_BYTES);
        }

        #[test]
        fn any_text_is_a_code_or_not(text in "\\PC{0,20}") {
            if let Some(code) = InviteCode::parse(&text) {
                prop_assert_eq!(InviteCode::parse(&code.to_string()), Some(code));
            }
        }
    }
}
