//! Which connections are admitted, and to which keeper: a pure decision from the load.

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
}

impl Refusal {
    /// For people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Full => "the server is full; try again later",
            Self::Stopping => "the server is stopping",
            Self::NoResources => "the server's machine is short of resources; try again later",
        }
    }
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
