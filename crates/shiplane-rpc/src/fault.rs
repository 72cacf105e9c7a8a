//! Faults: error answers with a code for programs and a message for people.

use std::fmt;

use shiplane_wire::escape_truncated;

/// A refusal or failure that is returned to the caller.
///
/// The code decides what the caller does; the message is for a person, who sees it escaped. Put no
/// secret and no local path in it that the peer may not know.
///
/// ```
/// use shiplane_rpc::{Fault, FaultCode};
/// let fault = Fault::new(FaultCode::NotFound, "no such file: \u{1b}[31mred");
/// assert_eq!(fault.to_string(), r"not found: no such file: \x1b[31mred");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What the caller's program acts on.
    pub code: FaultCode,
    message: String,
}

impl Fault {
    /// A fault with a message of at most [`MAX_FAULT_MESSAGE_LEN_BYTES`]; a longer one is cut.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_FAULT_MESSAGE_LEN_BYTES {
            let fits = |end: &usize| message.is_char_boundary(*end);
            let end = (0..=MAX_FAULT_MESSAGE_LEN_BYTES).rev().find(fits).unwrap_or(0);
            message.truncate(end);
            // A peer's message may have come with a buffer of a whole frame.
            message.shrink_to_fit();
        }
        Self { code, message }
    }

    /// The message as it was sent. From a peer it may hold anything: print the fault itself, which
    /// escapes it, not this.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.message.is_empty() {
            write!(f, ": {}", escape_truncated(self.message.as_bytes(), MAX_SHOWN_LEN_BYTES))?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// Names the codes once, so that number, text and parsing cannot drift apart.
macro_rules! fault_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal;)+) => {
        /// The kind of a fault. It is sent as a number (`u32`); one that this version does not
        /// know is kept as [`Other`](Self::Other).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FaultCode {
            $($(#[doc = $doc])+ $name,)+
            /// A number from a newer peer; get it by [`from_u32`](FaultCode::from_u32) only, so that
            /// a known number is never hidden in it. Treat it as [`Internal`](FaultCode::Internal).
            Other(u32),
        }

        impl FaultCode {
            /// Every code that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The number on the wire.
            #[must_use]
            pub const fn as_u32(self) -> u32 {
                match self {
                    $(Self::$name => $number,)+
                    Self::Other(number) => number,
                }
            }

            /// The code with this number.
            #[must_use]
            pub const fn from_u32(number: u32) -> Self {
                match number {
                    $($number => Self::$name,)+
                    other => Self::Other(other),
                }
            }
        }

        impl fmt::Display for FaultCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)+
                    Self::Other(number) => write!(f, "fault {number}"),
                }
            }
        }
    };
}

fault_codes! {
    /// Something broke at the peer, such as a handler that panicked. Its log says more.
    Internal = 0, "internal failure";
    /// The peer has no such method: it is older, newer or something else.
    UnknownMethod = 1, "unknown method";
    /// The body is not what the method takes.
    InvalidRequest = 2, "invalid request";
    /// Too many calls at a time, or too much else to do. Try again later.
    Busy = 3, "busy";
    /// The deadline that came with the call has passed.
    DeadlineExceeded = 4, "deadline exceeded";
    /// This key may not do that.
    Unauthorised = 5, "not authorised";
    /// There is no such thing.
    NotFound = 6, "not found";
    /// The path is invalid, or leaves the served root.
    PathRefused = 7, "path refused";
    /// Over a limit of the peer's. Send less, or send it down the lane.
    TooLarge = 8, "too large";
    /// It was there, but is not any more, such as a transfer that has ended.
    Gone = 9, "gone";
    /// Digests differ: what arrived is not what was sent.
    Integrity = 10, "digests differ";
    /// It exists already and was not to be replaced.
    Exists = 11, "exists already";
    /// The peer's disk or quota is full.
    NoSpace = 12, "no space left";
    /// The peer could not read its source.
    SourceIo = 13, "cannot read";
    /// The peer could not write to its destination.
    SinkIo = 14, "cannot write";
    /// The source changed while it was being read.
    SourceChanged = 15, "source changed";
    /// The peer serves this for reading only.
    ReadOnly = 16, "read only";
    /// The peer is closing down. Try another, or later.
    ShuttingDown = 17, "shutting down";
    /// The ticket that came with the call is unknown, spent or expired. Ask for a new one.
    TicketRefused = 18, "ticket refused";
    /// More would be deleted than without the caller's consent.
    MassDeletion = 19, "too much to delete";
    /// The peer carries no owners, access lists and extended attributes, or takes none from others.
    AttributesRefused = 20, "attributes refused";
    /// What was kept before an interruption is gone, and the source cannot be read twice.
    NotResumable = 21, "cannot be resumed";
}

/// 1 KiB: a sentence or two with a path of middling length.
pub const MAX_FAULT_MESSAGE_LEN_BYTES: usize = 1024;

/// 512 bytes of a peer's text on a terminal or in a log: enough to understand, too little to flood.
const MAX_SHOWN_LEN_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number() {
        for (number, code) in FaultCode::ALL.iter().enumerate() {
            assert_eq!(code.as_u32() as usize, number, "numbers are dense and never reused");
            assert_eq!(FaultCode::from_u32(code.as_u32()), *code);
        }
    }

    #[test]
    fn an_unknown_number_is_kept() {
        let newer = FaultCode::from_u32(70_000);
        assert_eq!(newer, FaultCode::Other(70_000));
        assert_eq!(newer.as_u32(), 70_000);
        assert_eq!(newer.to_string(), "fault 70000");
    }

    #[test]
    fn a_hostile_message_is_escaped_and_cut() {
        let fault = Fault::new(FaultCode::Internal, "\u{202e}\n\u{1b}]52;c;x\u{7}");
        let shown = fault.to_string();
        assert!(shown.chars().all(|c| (' '..='~').contains(&c)), "{shown}");

        let long = Fault::new(FaultCode::Internal, "é".repeat(1 << 20));
        assert!(long.message().len() <= MAX_FAULT_MESSAGE_LEN_BYTES);
        assert!(long.to_string().len() < 4 * MAX_SHOWN_LEN_BYTES);
    }

    #[test]
    fn a_fault_without_words_shows_its_code_alone() {
        assert_eq!(Fault::new(FaultCode::Busy, "").to_string(), "busy");
    }
}
