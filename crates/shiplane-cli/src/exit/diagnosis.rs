//! Exit codes, and what a failure is diagnosed as.

use shiplane::Side;

/// The exit codes that scripts rely on, and the class of a failure in `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Other = 1,
    Usage = 2,
    Unreachable = 3,
    Identity = 4,
    Integrity = 5,
    Refused = 6,
    LocalIo = 7,
    LeftOut = 9,
    Interrupted = 130,
}

/// The exit code, side and hint of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    pub(crate) class: Class,
    pub(crate) side: Side,
    pub(crate) hint: &'static str,
}

pub(super) fn here(class: Class, hint: &'static str) -> Diagnosis {
    Diagnosis { class, side: Side::ThisMachine, hint }
}

impl Class {
    /// Its place in the order in which exit codes count, if several apply.
    pub(super) fn rank(self) -> u8 {
        match self {
            Self::Usage => 0,
            Self::Interrupted => 1,
            Self::Identity => 2,
            Self::Integrity => 3,
            Self::LocalIo => 4,
            Self::Refused => 5,
            Self::Unreachable => 6,
            Self::Other => 7,
            Self::LeftOut => 8,
        }
    }

    /// The name in events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Other => "failure",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::Identity => "identity",
            Self::Integrity => "integrity",
            Self::Refused => "refused",
            Self::LocalIo => "local_io",
            Self::LeftOut => "left_out",
            Self::Interrupted => "interrupted",
        }
    }
}
