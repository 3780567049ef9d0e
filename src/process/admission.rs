//! Which connections are admitted, and to which keeper: pure decisions, from the load and from what is known of the
//! connection's source.

use std::borrow::Cow;

use forkade_protocol::ErrorCode;

use crate::config::EarlyRefusal;
use forkade_text::render;

/// What the listener knows when it has accepted a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    /// The server has begun to stop.
    pub(crate) stopping: bool,
    /// Connections of each keeper, consoles included.
    pub(crate) keepers: &'a [u32],
    /// Most connections of one keeper.
    pub(crate) keeper_max: u32,
    /// Open connections of the same kind.
    pub(crate) open: u64,
    /// Most connections of that kind.
    pub(crate) open_max: u64,
    /// Fill one keeper after another: where clients share handlers, those that play together should have the same
    /// keeper.
    pub(crate) fill_in_order: bool,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It goes to this keeper.
    Admit {
        /// Index of the keeper.
        keeper: u32,
    },
    /// It is told why not, and closed.
    Refuse(Refusal),
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many connections as the server is configured for.
    Full,
    /// The server is stopping.
    Stopping,
    /// No process or no descriptor is left on the machine.
    NoResources,
    /// Too many connections have not greeted yet.
    Early,
    /// The source has as many connections as it may have.
    SourceFull,
    /// The source connects too often.
    SourceTooFast,
    /// The source is penalised for so many seconds more.
    Penalised {
        /// The seconds.
        seconds: u64,
    },
    /// An operator has banned the source, for so many milliseconds more.
    Banned {
        /// The milliseconds.
        left_ms: u64,
    },
}

impl Refusal {
    /// For programs.
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::Stopping => ErrorCode::ShuttingDown,
            Self::Banned { .. } => ErrorCode::Kicked,
            Self::Full
            | Self::NoResources
            | Self::Early
            | Self::SourceFull
            | Self::SourceTooFast
            | Self::Penalised { .. } => ErrorCode::ServerFull,
        }
    }

    /// For people.
    pub(crate) fn text(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Full => "the server is full; try again later",
            Self::Stopping => "the server is stopping",
            Self::NoResources => "the server's machine is short of resources; try again later",
            Self::Early => "too many clients are connecting; try again later",
            Self::SourceFull => "too many connections are open from your address",
            Self::SourceTooFast => "too many connections are opened from your address; try again later",
            Self::Penalised { seconds } => {
                return format!("your address made too many bad connections; wait {seconds} s").into();
            }
            Self::Banned { left_ms } => return render::address_banned(left_ms).into(),
        })
    }
}

/// What is known of the source of a new connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SourceLoad {
    /// Milliseconds for which it is still banned.
    pub(crate) ban_left_ms: Option<u64>,
    /// Microseconds for which its connections are refused because of its penalties.
    pub(crate) refused_for_us: u64,
    /// It opens connections faster than it may.
    pub(crate) is_too_fast: bool,
    /// Its connections, without the new one.
    pub(crate) connections: u32,
    /// Most connections that it may have; 0: no limit.
    pub(crate) connections_max: u32,
    /// One of its players was disconnected and may be coming back: what others at the same address do must not cost a
    /// player its match.
    pub(crate) may_return: bool,
}

/// Decides whether a source may have one connection more. A player that may be coming back has one beyond the limit,
/// whatever the source's rate and penalties are.
pub(crate) fn judge_source(load: SourceLoad) -> Result<(), Refusal> {
    if let Some(left_ms) = load.ban_left_ms {
        return Err(Refusal::Banned { left_ms });
    }
    let connections_max = load.connections_max.saturating_add(load.may_return.into());
    if load.connections_max != 0 && load.connections >= connections_max {
        return Err(Refusal::SourceFull);
    }
    match load {
        _ if load.may_return => Ok(()),
        _ if load.refused_for_us > 0 => Err(Refusal::Penalised {
            seconds: load.refused_for_us.div_ceil(1_000_000),
        }),
        _ if load.is_too_fast => Err(Refusal::SourceTooFast),
        _ => Ok(()),
    }
}

/// The chance that a connection is refused early, of 2^32, when so many others have not greeted.
pub(crate) fn early_refusal_chance(early: EarlyRefusal, greeting: u32) -> u64 {
    let EarlyRefusal::From { start, percent, full } = early else {
        return 0;
    };
    if greeting < start {
        return 0;
    }
    if greeting >= full {
        return 1 << 32;
    }
    let (beyond, span) = (u64::from(greeting - start), u64::from(full - start));
    let percent = u64::from(percent);
    ((percent * span + (100 - percent) * beyond) << 32) / (100 * span)
}

/// Decides about one connection: it goes to the keeper with the fewest, so that forking is spread over the cores; or,
/// where clients share handlers, to the first that has room.
pub(crate) fn decide(load: Load<'_>) -> Admission {
    if load.stopping {
        return Admission::Refuse(Refusal::Stopping);
    }
    if load.open >= load.open_max {
        return Admission::Refuse(Refusal::Full);
    }
    (0..)
        .zip(load.keepers)
        .filter(|(_, connections)| **connections < load.keeper_max)
        .min_by_key(|(_, connections)| if load.fill_in_order { 0 } else { **connections })
        .map_or(Admission::Refuse(Refusal::Full), |(keeper, _)| Admission::Admit {
            keeper,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Load<'_> = Load {
        stopping: false,
        keepers: &[2, 1, 1],
        keeper_max: 3,
        open: 4,
        open_max: 5,
        fill_in_order: false,
    };

    #[test]
    fn the_least_busy_keeper_gets_the_connection() {
        assert_eq!(decide(QUIET), Admission::Admit { keeper: 1 });
        assert_eq!(
            decide(Load {
                keepers: &[3, 2],
                ..QUIET
            }),
            Admission::Admit { keeper: 1 }
        );
    }

    const KNOWN: SourceLoad = SourceLoad {
        ban_left_ms: None,
        refused_for_us: 0,
        is_too_fast: false,
        connections: 9,
        connections_max: 10,
        may_return: false,
    };
    const FULL: SourceLoad = SourceLoad {
        connections: 10,
        ..KNOWN
    };
    const PENALISED: SourceLoad = SourceLoad {
        refused_for_us: 1_000_001,
        ..KNOWN
    };
    const TOO_FAST: SourceLoad = SourceLoad {
        is_too_fast: true,
        ..KNOWN
    };

    #[test]
    fn a_source_is_refused_beyond_each_of_its_limits() {
        assert_eq!(judge_source(KNOWN), Ok(()));
        assert_eq!(judge_source(FULL), Err(Refusal::SourceFull));
        let unlimited = SourceLoad {
            connections_max: 0,
            ..FULL
        };
        assert_eq!(judge_source(unlimited), Ok(()));
        assert_eq!(judge_source(TOO_FAST), Err(Refusal::SourceTooFast));
        assert_eq!(judge_source(PENALISED), Err(Refusal::Penalised { seconds: 2 }));
    }

    #[test]
    fn a_player_that_may_be_coming_back_has_one_connection_beyond_the_limits_but_not_past_a_ban() {
        let returning = |load| SourceLoad {
            may_return: true,
            ..load
        };
        for load in [FULL, PENALISED, TOO_FAST] {
            assert_eq!(judge_source(returning(load)), Ok(()));
        }
        let beyond = SourceLoad {
            connections: 11,
            ..FULL
        };
        assert_eq!(judge_source(returning(beyond)), Err(Refusal::SourceFull), "one");
        let banned = SourceLoad {
            ban_left_ms: Some(7),
            ..KNOWN
        };
        assert_eq!(
            judge_source(returning(banned)),
            Err(Refusal::Banned { left_ms: 7 })
        );
    }

    #[test]
    fn early_refusals_begin_at_the_start_and_grow_to_certainty() {
        let early = EarlyRefusal::From {
            start: 10,
            percent: 30,
            full: 110,
        };
        let percent = |greeting| early_refusal_chance(early, greeting) * 100 / (1 << 32);
        assert_eq!([9, 10, 60, 109, 110, 500].map(percent), [0, 29, 64, 99, 100, 100]);
        assert_eq!(early_refusal_chance(EarlyRefusal::Never, u32::MAX), 0);
    }

    #[test]
    fn no_connection_is_admitted_beyond_a_limit() {
        assert_eq!(
            decide(Load { open: 5, ..QUIET }),
            Admission::Refuse(Refusal::Full)
        );
        assert_eq!(
            decide(Load {
                keepers: &[3, 3],
                ..QUIET
            }),
            Admission::Refuse(Refusal::Full)
        );
        assert_eq!(
            decide(Load {
                keepers: &[],
                ..QUIET
            }),
            Admission::Refuse(Refusal::Full)
        );
        assert_eq!(
            decide(Load {
                stopping: true,
                ..QUIET
            }),
            Admission::Refuse(Refusal::Stopping)
        );
    }
}
