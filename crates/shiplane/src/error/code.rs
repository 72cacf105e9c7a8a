//! Errors of sending and receiving by a code.

use shiplane_reach::internals::{CodeError, ProveError, SeekError};

use super::{
    diagnosis::{Diagnosis, ErrorKind, here, there, unreachable_by_network},
    transfer,
};

/// Why a code does not lead to anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodeFailure {
    #[error(transparent)]
    Text(CodeError),
    #[error(transparent)]
    Proof(ProveError),
    #[error("no sender was found")]
    NoSender,
    #[error(transparent)]
    Seek(SeekError),
    #[error("the code has expired: it was not used in time")]
    Expired,
    #[error("the code is void after three wrong guesses")]
    Guessed,
    #[error("the receiver does not want it")]
    Declined,
    #[error("the system's random source failed, so there is no code")]
    NoRandomness,
    #[error("the text has more than {max_bytes} bytes")]
    TextTooLong { max_bytes: usize },
}

impl CodeFailure {
    pub(super) fn diagnosis(&self) -> Diagnosis {
        use ErrorKind::{Identity, Other, Refused, Unreachable, Usage};
        match self {
            Self::Text(_) => {
                here(Usage, "type the code as the sender's machine shows it, e.g. 7-crossover-clockwork")
            }
            Self::Proof(ProveError::WrongCode) => there(
                Identity,
                "compare the code with what the sender's machine shows; three wrong tries make it void",
            ),
            Self::Proof(ProveError::Closed) => {
                there(Identity, "ask the sender to send again, for a new code")
            }
            Self::Proof(ProveError::Malformed) => there(Other, "update shiplane on both machines"),
            Self::Proof(ProveError::Call(error)) => transfer::method_call(error),
            Self::NoSender | Self::Seek(_) => unreachable_by_network(NO_SENDER),
            Self::Expired => there(Unreachable, "send again for a new code"),
            Self::Guessed => there(Identity, GUESSED),
            Self::Declined => there(Refused, "send again if that was a mistake"),
            Self::NoRandomness => here(Other, "try again"),
            Self::TextTooLong { .. } => here(Usage, "put the text into a file, and send that"),
        }
    }
}

const NO_SENDER: &str = "check that the sender still waits and is on the same network; if a firewall drops multicast or \
                         UDP there, name the sender's machine with --at HOST:PORT";

const GUESSED: &str = "send again for a new code; if these were not typing mistakes, somebody on the network tries \
                       codes: use --code-words 4";
