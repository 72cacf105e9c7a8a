//! What the failures of a sync mean.

use shiplane_protocols::{
    sync::{PlanError, ScanError, SyncError},
    transfer::TransferError,
};
use shiplane_rpc::{CallError, FaultCode};

use super::{
    ErrorKind, Side, Verdict,
    transfer::{call, chunk_not_sent, destination, not_taken, received, source, transfer},
};

/// What the server says is told from what fails here.
pub(super) fn sync(error: &SyncError) -> Verdict {
    use ErrorKind::{Integrity, LocalIo, Other, Refused};
    use Side::{Peer, ThisMachine};
    let (kind, side, hint) = match error {
        SyncError::Refused(CallError::Fault(fault)) | SyncError::Rejected(fault) => {
            return answered(fault.code);
        }
        SyncError::Refused(error) | SyncError::Call(error) => return call(error),
        SyncError::Transfer(TransferError::RootMismatch) | SyncError::WrongRoot | SyncError::Disagreed => {
            (Integrity, Peer, AGAIN)
        }
        SyncError::Transfer(error) => return transfer(error),
        SyncError::Plan(PlanError::MassDeletion { .. }) => (
            Refused,
            ThisMachine,
            "look whether both directories are the right ones; if they are, give --allow-mass-deletion",
        ),
        SyncError::Plan(PlanError::NoName { .. }) => (Refused, ThisMachine, "give that file a shorter name"),
        SyncError::BusyHere => (Refused, ThisMachine, "wait for the other run, or end it"),
        SyncError::ListsBusy => (Refused, ThisMachine, "wait for the other runs, or end them"),
        SyncError::ListTooLarge { .. } => (Refused, ThisMachine, "sync the directories in it one by one"),
        SyncError::Changes(_) | SyncError::OwnName { .. } => {
            (Other, Peer, "check that both sides have the same version of shiplane")
        }
        SyncError::NotReceived(error) => return received(error),
        SyncError::NotSent(error) => return chunk_not_sent(error),
        SyncError::Scan(ScanError::Source(error)) | SyncError::Source(error) => return source(error),
        SyncError::Scan(ScanError::NotDirectory { .. }) => (Refused, ThisMachine, "give a directory"),
        SyncError::Scan(ScanError::TooManyEntries { .. }) => {
            (Refused, ThisMachine, "sync the directories in it one by one")
        }
        SyncError::Scan(ScanError::Cancelled) | SyncError::Abandoned => (Other, ThisMachine, AGAIN),
        SyncError::Destination(error) => return destination(error),
        SyncError::Base(_) => (
            LocalIo,
            ThisMachine,
            "see to the space and the permissions in the directory of syncs within SHIPLANE_HOME",
        ),
        SyncError::NoRandomness => (Other, ThisMachine, "try again later"),
    };
    Verdict { kind, side, hint }
}

fn answered(code: FaultCode) -> Verdict {
    match code {
        FaultCode::Busy => Verdict {
            kind: ErrorKind::Unreachable,
            side: Side::Peer,
            hint: "somebody else is writing there: try again in a while",
        },
        FaultCode::TooLarge => Verdict {
            kind: ErrorKind::Refused,
            side: Side::Peer,
            hint: "sync the directories in it one by one",
        },
        FaultCode::Integrity => Verdict { kind: ErrorKind::Integrity, side: Side::Peer, hint: AGAIN },
        FaultCode::InvalidRequest => Verdict {
            kind: ErrorKind::Refused,
            side: Side::Peer,
            hint: "check that both sides have the same version of shiplane",
        },
        FaultCode::UnknownMethod => Verdict {
            kind: ErrorKind::Refused,
            side: Side::Peer,
            hint: "the server needs a version of shiplane that can sync",
        },
        other => not_taken(other),
    }
}

const AGAIN: &str = "run the same command again: it goes on from here";
