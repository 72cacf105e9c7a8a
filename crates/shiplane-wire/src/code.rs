//! Application codes of connection closes and stream resets (SPEC 8).

use core::fmt;

/// What a close or a reset says about its reason.
///
/// A code is a hint for the other side's error message and for its decision to retry. It is never proof
/// of success: not even [`Code::NoError`] ends a stream in success (SPEC 1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The connection is closed in order.
    NoError = 0,
    /// The application of the side that sends this gave up. Retrying is up to the user.
    Cancelled = 1,
    /// The peer broke the protocol. Retrying does not help.
    Protocol = 2,
    /// Something was announced that is over a limit. Send less.
    TooLarge = 3,
    /// A deadline for the peer's next bytes passed. Retrying may help.
    Timeout = 4,
    /// The peer may not do what it tried. Get a ticket or be added as a peer.
    Unauthorised = 5,
    /// The source changed while it was read. Ask for it again.
    SourceChanged = 6,
    /// The source could not be read.
    SourceFailed = 7,
    /// The receiver could not store the data: disk full, permission, an error of the disk.
    SinkFailed = 8,
    /// The side is at its limit of work. Retry later.
    Busy = 9,
    /// The stream named a transfer that was not claimed.
    Unclaimed = 10,
    /// The stream's kind is not known here: the peer may be newer.
    UnknownKind = 11,
    /// The side is about to end. Retry elsewhere or later.
    ShuttingDown = 12,
    /// The peer's right was withdrawn during the session.
    Revoked = 13,
    /// Another connection to the same peer was kept. Use that one.
    DuplicateConnection = 14,
    /// Data or a confirmation did not match its digest. The chunk may be tried again.
    Integrity = 15,
    /// A path was refused (SPEC 4.5).
    PathRefused = 16,
}

impl Code {
    /// Every code, in order of its number.
    pub const ALL: [Self; 17] = [
        Self::NoError,
        Self::Cancelled,
        Self::Protocol,
        Self::TooLarge,
        Self::Timeout,
        Self::Unauthorised,
        Self::SourceChanged,
        Self::SourceFailed,
        Self::SinkFailed,
        Self::Busy,
        Self::Unclaimed,
        Self::UnknownKind,
        Self::ShuttingDown,
        Self::Revoked,
        Self::DuplicateConnection,
        Self::Integrity,
        Self::PathRefused,
    ];

    /// The number on the wire; it always fits QUIC's 62 bits.
    pub const fn as_u64(self) -> u64 {
        self as u64
    }

    /// Reads a peer's code. An unknown one is [`Code::Protocol`] (SPEC 8): a newer peer's reason is not
    /// ours to guess, and it must not look like a known one that invites a retry.
    pub fn from_u64(code: u64) -> Self {
        let known = usize::try_from(code).ok().and_then(|index| Self::ALL.get(index));
        known.copied().unwrap_or(Self::Protocol)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoError => "no error",
            Self::Cancelled => "cancelled",
            Self::Protocol => "protocol violation",
            Self::TooLarge => "too large",
            Self::Timeout => "timeout",
            Self::Unauthorised => "unauthorised",
            Self::SourceChanged => "source changed",
            Self::SourceFailed => "source failed",
            Self::SinkFailed => "sink failed",
            Self::Busy => "busy",
            Self::Unclaimed => "unclaimed transfer",
            Self::UnknownKind => "unknown stream kind",
            Self::ShuttingDown => "shutting down",
            Self::Revoked => "revoked",
            Self::DuplicateConnection => "duplicate connection",
            Self::Integrity => "integrity",
            Self::PathRefused => "path refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_numbers_of_the_specification() {
        for (number, code) in (0..).zip(Code::ALL) {
            assert_eq!(code.as_u64(), number);
            assert_eq!(Code::from_u64(number), code);
        }
        assert_eq!(Code::SourceChanged.as_u64(), 6);
        assert_eq!(Code::PathRefused.as_u64(), 16);
    }

    #[test]
    fn an_unknown_code_is_a_violation() {
        for number in [17, 256, u64::MAX] {
            assert_eq!(Code::from_u64(number), Code::Protocol);
        }
    }
}
