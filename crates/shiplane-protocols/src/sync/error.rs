//! Errors of syncs, sorted by whose fault they are.

use shiplane_files::internals::sync::{ChangesError, DatasetError, PlanError};
use shiplane_rpc::{CallError, Fault, FaultCode};
use shiplane_transport::{RecvChunkError, SendChunkError};
use thiserror::Error;

use crate::transfer::TransferError;

/// Why a sync failed. Whatever was done is done, nothing is lost, and the next sync goes on from there.
#[derive(Debug, Error)]
pub enum SyncError {
    /// The peer does not take part; the fault says why: `Busy`, `Unauthorised`, `ReadOnly`, `NotFound`, ...
    /// Nothing was changed on either side.
    #[error(transparent)]
    Refused(CallError),
    /// The peer gave up in the middle; the fault says why.
    #[error(transparent)]
    Rejected(Fault),
    /// A call in the middle failed.
    #[error(transparent)]
    Call(CallError),
    /// The files of one direction could not all be carried.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The two lists of files do not come together without the user.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The lists of other syncs take all the memory. Try again once they have ended.
    #[error("other syncs use all memory for file lists; try again when they have ended")]
    ListsBusy,
    /// The peer's list of files takes more memory than there is for any. Sync parts of the dataset.
    #[error(
        "the peer's list of files takes more than its part of the {max_bytes} bytes of memory for lists; \
         sync the directories in it one by one"
    )]
    ListTooLarge {
        /// For the lists of all syncs.
        max_bytes: u64,
    },
    /// What the peer says of its files cannot be understood.
    #[error("the peer's file list is invalid: {0}")]
    Changes(#[from] ChangesError),
    /// The peer has named a file of ours that it must not know.
    #[error("the peer's file list contains {path}, a name reserved for shiplane's own files")]
    OwnName {
        /// Escaped.
        path: String,
    },
    /// The peer has listed what the filters of the sync exclude.
    #[error("the peer's file list contains {path}, which is excluded from the sync")]
    Excluded {
        /// Escaped.
        path: String,
    },
    /// What the peer says does not fit together, or not with what we know.
    #[error("the peer's file list does not match the digest that it announced")]
    WrongManifestDigest,
    /// The two sides do not mean the same result. The next sync compares anew.
    #[error("the two sides computed different results")]
    Disagreed,
    /// A list came damaged, or not at all.
    #[error("cannot receive the peer's file list: {0}")]
    NotReceived(#[from] RecvChunkError),
    /// Our list did not arrive.
    #[error("cannot send the file list: {0}")]
    NotSent(#[from] SendChunkError),

    /// This side's directory cannot be listed or changed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The system has no randomness.
    #[error("the system's random source failed")]
    NoRandomness,
    /// A worker thread died, as when the runtime shuts down.
    #[error("the sync was cancelled or replaced by a newer one")]
    Abandoned,
}

impl SyncError {
    /// Whether the peer knows nothing of the sync any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Refused(CallError::Fault(fault)) if fault.code == FaultCode::Gone)
    }

    /// Whether one of the two sides was busy, so that the same may succeed a little later.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Refused(CallError::Fault(fault)) | Self::Rejected(fault) => fault.code == FaultCode::Busy,
            Self::Dataset(DatasetError::Busy) | Self::ListsBusy => true,
            _ => false,
        }
    }
}
