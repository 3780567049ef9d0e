//! The name and version that its author gives the program.

/// The name and version of the program that offers the games, as players and operators see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    name: &'static str,
    version: &'static str,
}

/// The version of Forkade.
const FORKADE_VERSION: &str = env!("CARGO_PKG_VERSION");

impl Program {
    /// A program that has no other name.
    pub(crate) const FORKADE: Self = Self {
        name: "forkade",
        version: FORKADE_VERSION,
    };

    /// Longest name, and longest version, in bytes.
    pub const TEXT_BYTES_MAX: usize = 32;

    /// `None` unless both texts have 1 to [`TEXT_BYTES_MAX`](Self::TEXT_BYTES_MAX) visible ASCII characters.
    pub(crate) fn new(name: &'static str, version: &'static str) -> Option<Self> {
        let is_plain = |text: &str| {
            (1..=Self::TEXT_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        (is_plain(name) && is_plain(version)).then_some(Self { name, version })
    }

    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The name by which the players' welcome calls the program.
    pub fn title(&self) -> String {
        match *self {
            Self::FORKADE => "Forkade".to_owned(),
            Self { name, version } => format!("{name} {version}"),
        }
    }

    /// Its version, and that of Forkade if it is another program.
    pub fn version(&self) -> String {
        match *self {
            Self::FORKADE => FORKADE_VERSION.to_owned(),
            Self { version, .. } => format!("{version} (Forkade {FORKADE_VERSION})"),
        }
    }
}
