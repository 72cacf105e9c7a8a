//! Why a dataset cannot be listed or changed.

use thiserror::Error;

use super::{base::BaseError, scan::ScanError};
use crate::error::{DestinationError, SourceError};

/// Why this machine's side of a sync failed. Whatever was done is done, nothing is lost, and the next sync goes on from
/// there.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// Another sync of the same directory is at work on this machine. Wait for it.
    #[error("another sync of this directory is running here; wait for it or stop it")]
    Busy,
    /// The directory cannot be listed.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The directory cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The directory cannot be changed.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// What was common cannot be remembered.
    #[error(transparent)]
    Base(#[from] BaseError),
}
