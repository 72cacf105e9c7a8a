//! What each failure is diagnosed as: its kind, its side and a hint.

use crate::event::Side;

/// The kinds of failures. The program's exit codes follow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The arguments are invalid.
    Usage,
    /// The peer is not reachable, silent, or busy. Try again later.
    Unreachable,
    /// A key, a ticket or a permission is missing or wrong.
    Identity,
    /// Received data differs from what was sent.
    Integrity,
    /// Refused by a rule: a path, a limit, an existing file.
    Refused,
    /// This machine's disk or system failed, is full, or does not permit it.
    LocalIo,
    /// Done except for some paths; [`Error::report`](crate::Error::report) names them.
    LeftOut,
    /// The job was cancelled.
    Interrupted,
    /// Any other failure.
    Other,
}

/// The kind, side and hint of a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnosis {
    pub(super) kind: ErrorKind,
    pub(super) side: Side,
    pub(super) hint: &'static str,
}

pub(super) fn here(kind: ErrorKind, hint: &'static str) -> Diagnosis {
    Diagnosis { kind, side: Side::ThisMachine, hint }
}

pub(super) fn there(kind: ErrorKind, hint: &'static str) -> Diagnosis {
    Diagnosis { kind, side: Side::Peer, hint }
}

pub(super) fn unreachable_by_network(hint: &'static str) -> Diagnosis {
    Diagnosis { kind: ErrorKind::Unreachable, side: Side::Network, hint }
}

pub(super) const RESUME: &str = "run the same command again to resume";
