//! Maps failures of a sync to kind, side and hint.

use shiplane_files::internals::sync::{DatasetError, PlanError, ScanError};
use shiplane_protocols::internals::{sync::SyncError, transfer::TransferError};
use shiplane_rpc::{CallError, FaultCode};

use super::{
    diagnosis::{Diagnosis, ErrorKind, RESUME as AGAIN, here, there},
    transfer::{call, chunk_not_sent, destination, not_taken, received, source, transfer},
};
use crate::event::Side;

/// Separates failures of the server from local ones.
pub(super) fn sync(error: &SyncError) -> Diagnosis {
    use ErrorKind::{Integrity, Other, Refused};
    use Side::{Peer, ThisMachine};
    let (kind, side, hint) = match error {
        SyncError::Refused(CallError::Fault(fault)) | SyncError::Rejected(fault) => {
            return answered(fault.code);
        }
        SyncError::Refused(error) | SyncError::Call(error) => return call(error),
        SyncError::Transfer(TransferError::TransferDigestMismatch)
        | SyncError::WrongManifestDigest
        | SyncError::Disagreed => (Integrity, Peer, AGAIN),
        SyncError::Transfer(error) => return transfer(error),
        SyncError::Plan(PlanError::MassDeletion { .. }) => (
            Refused,
            ThisMachine,
            "check that both directories are the right ones; if so, give --allow-mass-deletion",
        ),
        SyncError::Plan(PlanError::NoName { .. }) => (Refused, ThisMachine, "give that file a shorter name"),
        SyncError::ListsBusy => (Refused, ThisMachine, "wait for the other runs, or stop them"),
        SyncError::ListTooLarge { .. } => (Refused, ThisMachine, "sync the subdirectories one by one"),
        SyncError::Changes(_) | SyncError::OwnName { .. } | SyncError::Excluded { .. } => {
            (Other, Peer, "check that both sides run the same version of shiplane")
        }
        SyncError::NotReceived(error) => return received(error, |_| here(Other, AGAIN)),
        SyncError::NotSent(error) => return chunk_not_sent(error),
        SyncError::Dataset(error) => return dataset(error),
        SyncError::Abandoned => (Other, ThisMachine, AGAIN),
        SyncError::NoRandomness => (Other, ThisMachine, "try again later"),
    };
    Diagnosis { kind, side, hint }
}

/// Failures of this machine's side.
fn dataset(error: &DatasetError) -> Diagnosis {
    use ErrorKind::{LocalIo, Other, Refused};
    let (kind, hint) = match error {
        DatasetError::Busy => (Refused, "wait for the other run, or stop it"),
        DatasetError::Scan(ScanError::Source(error)) | DatasetError::Source(error) => return source(error),
        DatasetError::Scan(ScanError::NotDirectory { .. }) => (Refused, "give a directory"),
        DatasetError::Scan(ScanError::TooManyEntries { .. }) => {
            (Refused, "sync the subdirectories one by one")
        }
        DatasetError::Scan(ScanError::Cancelled) => (Other, AGAIN),
        DatasetError::Destination(error) => return destination(error),
        DatasetError::Base(_) => {
            (LocalIo, "check the free space and permissions of the sync directory in SHIPLANE_HOME")
        }
    };
    here(kind, hint)
}

fn answered(code: FaultCode) -> Diagnosis {
    match code {
        FaultCode::Busy => there(ErrorKind::Unreachable, "another client is writing there; try again later"),
        FaultCode::TooLarge => there(ErrorKind::Refused, "sync the subdirectories one by one"),
        FaultCode::Integrity => there(ErrorKind::Integrity, AGAIN),
        FaultCode::InvalidRequest => {
            there(ErrorKind::Refused, "check that both sides run the same version of shiplane")
        }
        FaultCode::UnknownMethod => {
            there(ErrorKind::Refused, "update shiplane on the server; this version cannot sync")
        }
        other => not_taken(other),
    }
}
