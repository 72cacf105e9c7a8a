//! Why a text is no target.

use shiplane_access::internals::{AddressError, NameError, TicketError};
use shiplane_reach::internals::SshAddressError;
use shiplane_transport::internals::PeerIdError;
use shiplane_wire::PathRefused;

use super::diagnosis::{Diagnosis, ErrorKind, here};

/// Why a text is no target. Shows nothing of a text that may contain a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("the ticket is wrong: {0}")]
    Ticket(#[from] TicketError),
    #[error("this is neither a ticket URL nor NAME/PATH, NAME@HOST:PORT/PATH or, over ssh, HOST:PATH")]
    Unknown,
    #[error("{typed} is neither a ticket URL nor NAME/PATH, NAME@HOST:PORT/PATH or, over ssh, HOST:PATH")]
    NoTarget { typed: String },
    #[error("invalid address for ssh: {0}")]
    Ssh(#[from] SshAddressError),
    #[error("invalid peer id: {0}")]
    Id(#[from] PeerIdError),
    #[error("the name is wrong: {0}")]
    Name(#[from] NameError),
    #[error("the address is wrong: {0}")]
    Address(#[from] AddressError),
    #[error("invalid path: {0}")]
    Path(PathRefused),
}

pub(super) fn target(error: &TargetError) -> Diagnosis {
    here(
        ErrorKind::Usage,
        match error {
            TargetError::Ticket(_) => {
                "copy the whole ticket as shiplane serve printed it, and put it in single quotes"
            }
            TargetError::Ssh(_) => {
                "give [USER@]HOST:PATH or ssh://[USER@]HOST[:PORT]/PATH; for a file with a colon in its name, ./NAME"
            }
            TargetError::Id(_) => "copy the id again; shiplane id prints it on that machine",
            TargetError::Unknown
            | TargetError::NoTarget { .. }
            | TargetError::Name(_)
            | TargetError::Address(_)
            | TargetError::Path(_) => {
                "give a ticket URL, NAME@HOST:PORT/PATH with a peer's name or id, NAME/PATH with the name of a peer whose \
                 address is known, or HOST:PATH to go over ssh"
            }
        },
    )
}
