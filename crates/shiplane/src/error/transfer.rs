//! Maps failures of connections, calls and transfers to kind, side and hint.

use shiplane_files::internals::{DestinationError, FaultClass, Kind, NameRefused, SourceError};
use shiplane_protocols::internals::{
    FetchError, PushError, compress::DecodeSinkError, transfer::TransferError,
};
use shiplane_rpc::{CallError, FaultCode};
use shiplane_transport::{ConnectError, ConnectionEnd, RecvChunkError, SendChunkError, StreamError};
use shiplane_wire::Code;

use super::diagnosis::{Diagnosis, ErrorKind, RESUME as AGAIN, here, there};
use crate::event::Side;

pub(super) fn connect(error: &ConnectError) -> Diagnosis {
    use ErrorKind::{Identity, Other, Unreachable};
    use Side::{Network, Peer, ThisMachine};
    let (kind, side, hint) = match error {
        ConnectError::TimedOut { .. } => (
            Unreachable,
            Network,
            "check that shiplane serve is running there, the address, and that firewalls pass UDP",
        ),
        ConnectError::WrongKey { .. } => (
            Identity,
            Peer,
            "stop here; ask the owner of that machine for its peer id (shiplane id) or a new ticket",
        ),
        ConnectError::Untrusted { .. } => {
            (Identity, ThisMachine, "add the expected key: shiplane peers add NAME PEERID")
        }
        ConnectError::Refused { .. } => (
            Identity,
            Peer,
            "the ticket was used or has expired, or the server does not know this key; ask its owner for a new \
             ticket, or to run shiplane peers add with this machine's id (shiplane id)",
        ),
        ConnectError::Busy { .. } => {
            (Unreachable, Peer, "the server has reached its limit of connections; try again in a minute")
        }
        ConnectError::WrongProtocol { .. } => (
            Unreachable,
            Peer,
            "another program or version answers there; check the port, and update both sides",
        ),
        ConnectError::Failed { end, .. } => return connection_end(end),
        ConnectError::CannotDial { .. } => {
            (Unreachable, ThisMachine, "check the address and this machine's network")
        }
        ConnectError::Tls(_) | ConnectError::Abandoned => {
            (Other, ThisMachine, "this is a bug in shiplane; please report it")
        }
    };
    Diagnosis { kind, side, hint }
}

fn connection_end(end: &ConnectionEnd) -> Diagnosis {
    use ErrorKind::{Identity, Interrupted, Other, Unreachable};
    use Side::{Network, Peer, ThisMachine};
    let (kind, side, hint) = match end {
        ConnectionEnd::ClosedByPeer { code: Code::Unauthorised | Code::Revoked } => {
            (Identity, Peer, "ask the server's owner for a new ticket, or for permissions for this key")
        }
        ConnectionEnd::ClosedByPeer { code: Code::Busy | Code::ShuttingDown } => {
            (Unreachable, Peer, "try again later")
        }
        ConnectionEnd::ClosedByPeer { .. } => (Other, Peer, AGAIN),
        ConnectionEnd::ClosedHere => (Interrupted, ThisMachine, AGAIN),
        ConnectionEnd::TimedOut | ConnectionEnd::Reset => (
            Unreachable,
            Network,
            "check that shiplane serve is still running there, then run the same command again",
        ),
        ConnectionEnd::Transport { .. } => {
            (Other, Peer, "check that both sides run the same version of shiplane")
        }
    };
    Diagnosis { kind, side, hint }
}

pub(super) fn fetch(error: &FetchError) -> Diagnosis {
    match error {
        FetchError::Open(error) => call(error),
        FetchError::Transfer(error) | FetchError::Unconfirmed(error) => transfer(error),
        FetchError::NoRandomness => here(ErrorKind::Other, "try again later"),
    }
}

/// Separates failures of the server from local ones.
pub(super) fn push(error: &PushError) -> Diagnosis {
    use ErrorKind::{Integrity, Other};
    use Side::{Peer, ThisMachine};
    let (kind, side, hint) = match error {
        PushError::Refused(CallError::Fault(fault)) | PushError::Rejected(fault) => {
            return not_taken(fault.code);
        }
        PushError::Refused(error) => return call(error),
        PushError::Unknown { source: CallError::Fault(_), .. } => (Other, Peer, PUSH_AGAIN),
        PushError::Unknown { source, .. } => return Diagnosis { hint: PUSH_AGAIN, ..call(source) },
        PushError::Transfer(TransferError::Source(error)) => return source(error),
        PushError::Transfer(TransferError::TransferDigestMismatch) => {
            (Integrity, Peer, "push again; if that fails too, do not rely on that server")
        }
        PushError::Transfer(error) => return transfer(error),
        PushError::NotDurable => (Other, Peer, "use --durability verified; the server does not offer more"),
        PushError::NoRandomness => (Other, ThisMachine, "try again later"),
    };
    Diagnosis { kind, side, hint }
}

/// The server refused the push or could not store it.
pub(super) fn not_taken(code: FaultCode) -> Diagnosis {
    match code {
        FaultCode::Unauthorised => there(ErrorKind::Identity, ASK_TO_WRITE),
        FaultCode::MassDeletion => there(ErrorKind::Refused, MASS_DELETION),
        FaultCode::ReadOnly => there(ErrorKind::Refused, "the server must be started with --writable"),
        FaultCode::Exists => there(
            ErrorKind::Refused,
            "push into another directory, or give --overwrite to replace files that differ; nothing was \
             replaced",
        ),
        FaultCode::NotFound => there(ErrorKind::Refused, "ask the server's owner to create that directory"),
        FaultCode::PathRefused => there(
            ErrorKind::Refused,
            "give another path within the served root, or rename the file in the message",
        ),
        FaultCode::NoSpace => there(ErrorKind::Refused, FREE_SPACE_THERE),
        FaultCode::Integrity => {
            there(ErrorKind::Integrity, "push again; if it fails again, check the memory of both machines")
        }
        other => answered(other),
    }
}

/// A source cannot be read.
pub(super) fn source(error: &SourceError) -> Diagnosis {
    let (kind, hint) = match error {
        SourceError::NotServable { found: Kind::Special, .. } => {
            (ErrorKind::Refused, "give a regular file or a directory; for standard input, give -")
        }
        SourceError::PathRefused { .. }
        | SourceError::NotServable { .. }
        | SourceError::LeavesServedRoot { .. } => {
            (ErrorKind::Refused, "give a regular file or a directory within the source")
        }
        SourceError::Gone => {
            (ErrorKind::LocalIo, "put the directory back, or start the program again with another one")
        }
        SourceError::NotFound { .. } => (ErrorKind::LocalIo, "check the path"),
        SourceError::Changed { .. } | SourceError::Vanished { .. } => {
            (ErrorKind::LocalIo, "run the same command again when nothing changes the files")
        }
        SourceError::Unreadable { .. } => {
            (ErrorKind::LocalIo, "check the permissions of the path in the message")
        }
    };
    here(kind, hint)
}

pub(super) fn transfer(error: &TransferError) -> Diagnosis {
    use ErrorKind::{Integrity, LocalIo, Other, Unreachable};
    use Side::{Peer, ThisMachine};
    let (kind, side, hint) = match error {
        TransferError::Protocol(_) | TransferError::Records(_) => (Other, Peer, BROKEN_PEER),
        TransferError::Silent { .. } => (Unreachable, Peer, AGAIN),
        TransferError::Stream(error) => return stream(error),
        TransferError::Call(error) => return call(error),
        TransferError::Corrupt { last, .. } => return received(last, destination),
        TransferError::Undecodable { source, .. } => match &**source {
            DecodeSinkError::Content(_) => (Integrity, Peer, DAMAGED),
            DecodeSinkError::Sink(error) => return destination(error),
            DecodeSinkError::Bomb { .. }
            | DecodeSinkError::TooLong { .. }
            | DecodeSinkError::UnknownEncoding { .. }
            | DecodeSinkError::Undecodable(_)
            | DecodeSinkError::Frame(_) => (Other, Peer, BROKEN_PEER),
        },
        TransferError::TransferDigestMismatch => {
            (Integrity, Peer, "get again with --verify; if that fails too, do not use the files")
        }
        TransferError::Destination(error) => return destination(error),
        TransferError::Source(_) => (LocalIo, ThisMachine, "check the file"),
        TransferError::Undelivered { .. } => (Other, Peer, AGAIN),
        TransferError::TakenOver | TransferError::Abandoned => (Other, ThisMachine, AGAIN),
    };
    Diagnosis { kind, side, hint }
}

/// A single chunk was not received.
pub(super) fn received<E: std::error::Error + 'static>(
    error: &RecvChunkError<E>,
    sink: impl FnOnce(&E) -> Diagnosis,
) -> Diagnosis {
    match error {
        RecvChunkError::Sink(error) => sink(error),
        RecvChunkError::Abandoned => here(ErrorKind::Other, AGAIN),
        RecvChunkError::Stream(error) => stream(error),
        RecvChunkError::Recv(_) => there(ErrorKind::Integrity, DAMAGED),
        RecvChunkError::Frame(_) => there(ErrorKind::Other, BROKEN_PEER),
    }
}

/// A single chunk was not delivered.
pub(super) fn chunk_not_sent(error: &SendChunkError) -> Diagnosis {
    match error {
        SendChunkError::Stream(error) => stream(error),
        SendChunkError::ChecksumFailed => there(ErrorKind::Integrity, DAMAGED),
        SendChunkError::Source(_) | SendChunkError::Frame(_) => here(ErrorKind::Other, AGAIN),
        _ => there(ErrorKind::Other, AGAIN),
    }
}

fn stream(error: &StreamError) -> Diagnosis {
    match error {
        StreamError::ConnectionLost(end) => connection_end(end),
        StreamError::Reset(code) | StreamError::Stopped(code) => refused(*code),
        StreamError::TimedOut { .. } => there(ErrorKind::Unreachable, AGAIN),
        StreamError::TooLong { .. } => there(ErrorKind::Other, BROKEN_PEER),
        StreamError::Closed => here(ErrorKind::Other, AGAIN),
    }
}

pub(super) fn call(error: &CallError) -> Diagnosis {
    match error {
        CallError::Fault(fault) => answered(fault.code),
        CallError::Refused { code } => refused(*code),
        CallError::ConnectionLost(end) => connection_end(end),
        CallError::DeadlineExceeded { .. } => there(ErrorKind::Unreachable, AGAIN),
        CallError::PeerProtocol(_) => there(ErrorKind::Other, BROKEN_PEER),
        CallError::TooLarge { .. } => here(ErrorKind::Refused, "give a shorter path"),
        CallError::Unencodable | CallError::Busy { .. } => here(ErrorKind::Other, FAULT_HERE),
    }
}

/// A call of a method that the server's owner added; only the owner knows what its answer means.
pub(super) fn method_call(error: &CallError) -> Diagnosis {
    match error {
        CallError::Fault(fault) => match fault.code {
            FaultCode::UnknownMethod => there(ErrorKind::Refused, "the server has no such method"),
            FaultCode::TicketRefused | FaultCode::Unauthorised => answered(fault.code),
            code => Diagnosis { hint: "see the message; the server's log may say more", ..answered(code) },
        },
        CallError::TooLarge { .. } | CallError::Unencodable => {
            here(ErrorKind::Usage, "send requests over 1 MiB as a file")
        }
        error => call(error),
    }
}

/// The peer answered the call with a fault.
pub(super) fn answered(code: FaultCode) -> Diagnosis {
    use ErrorKind::{Identity, Integrity, Other, Refused, Unreachable};
    let (kind, hint) = match code {
        FaultCode::Unauthorised => (Identity, ASK_FOR_RIGHTS),
        FaultCode::TicketRefused => {
            (Identity, "ask the server's owner for a new ticket; shiplane serve prints one at each start")
        }
        FaultCode::NotFound => (Refused, "check the path; it is relative to the served root"),
        FaultCode::PathRefused | FaultCode::InvalidRequest => {
            (Refused, "give the path of a file or directory within the served root, without . and ..")
        }
        FaultCode::TooLarge | FaultCode::Exists | FaultCode::ReadOnly => (Refused, "ask the server's owner"),
        FaultCode::MassDeletion => (Refused, MASS_DELETION),
        FaultCode::AttributesRefused => {
            (Refused, "omit --attributes, or start the server with --attributes where it is to take them")
        }
        FaultCode::Integrity => (Integrity, "get again with --verify"),
        FaultCode::Busy | FaultCode::ShuttingDown | FaultCode::DeadlineExceeded => {
            (Unreachable, "try again later")
        }
        FaultCode::SourceChanged | FaultCode::Gone => (Other, AGAIN),
        FaultCode::NotResumable => (Other, ANEW),
        FaultCode::SourceIo | FaultCode::SinkIo | FaultCode::NoSpace => {
            (Other, "ask the server's owner to check its disk and permissions")
        }
        FaultCode::UnknownMethod => (Other, "check that both sides run the same version of shiplane"),
        FaultCode::Internal | FaultCode::Other(_) => (Other, "see the log of shiplane serve there"),
    };
    there(kind, hint)
}

/// The peer ended a stream early, with this code.
fn refused(code: Code) -> Diagnosis {
    use ErrorKind::{Identity, Integrity, Other, Refused, Unreachable};
    let (kind, hint) = match code {
        Code::Unauthorised | Code::Revoked => (Identity, ASK_FOR_RIGHTS),
        Code::TooLarge | Code::PathRefused => (Refused, "ask the server's owner"),
        Code::Integrity => (Integrity, "get again with --verify"),
        Code::Timeout | Code::Busy | Code::ShuttingDown | Code::DuplicateConnection => (Unreachable, AGAIN),
        Code::Protocol | Code::Unclaimed | Code::UnknownKind => (Other, BROKEN_PEER),
        Code::NoError | Code::Cancelled | Code::SourceChanged | Code::SourceFailed | Code::SinkFailed => {
            (Other, AGAIN)
        }
    };
    there(kind, hint)
}

/// Failures of this machine's disk, and requests of the peer that it refuses.
pub(super) fn destination(error: &DestinationError) -> Diagnosis {
    use Side::{Peer, ThisMachine};
    let (kind, side) = match error.class() {
        FaultClass::Refused => (ErrorKind::Refused, ThisMachine),
        FaultClass::LocalIo => (ErrorKind::LocalIo, ThisMachine),
        FaultClass::Protocol => (ErrorKind::Other, Peer),
        FaultClass::Integrity => (ErrorKind::Integrity, ThisMachine),
    };
    let hint = match error {
        DestinationError::Exists { .. } => {
            "give another DEST, or --overwrite, --backup or --keep-existing; nothing was replaced"
        }
        DestinationError::WrongKind { .. } => "move it away, or give another DEST",
        DestinationError::NameRefused { reason: NameRefused::Hidden, .. } => {
            "give DEST, e.g. ./ for the current directory"
        }
        DestinationError::NameRefused { .. }
        | DestinationError::NameCollision { .. }
        | DestinationError::InLeftOut { .. } => "rename it at the source, or get it onto another file system",
        DestinationError::LinkRefused { .. } => "get it with --links all",
        DestinationError::TooManyHardLinks { .. } => "get it in parts if the links matter",
        DestinationError::Busy { .. } | DestinationError::NoMemory => "wait for the other run, or stop it",
        DestinationError::MassDeletion { .. } => MASS_DELETION,
        DestinationError::NotResumable { .. } => AGAIN,
        DestinationError::TooManyToDelete { .. } => "copy the directories in it one by one",
        DestinationError::TooLarge { .. } => "get fewer files at a time",
        DestinationError::NoSpace { .. }
        | DestinationError::NoInodes { .. }
        | DestinationError::QuotaExceeded { .. } => "free space, then run the same command again to resume",
        DestinationError::AttributesRefused { .. } => {
            "run it as the superuser, or without --attributes, or give --skip attributes"
        }
        DestinationError::PermissionDenied { .. } => "give a DEST that this user can write to",
        DestinationError::Gone => "put the directory back, or start the program again with another one",
        DestinationError::ParentMissing { .. } => "create that directory, or give another DEST",
        DestinationError::Poisoned { .. } => "check the disk first (dmesg, smartctl)",
        DestinationError::Altered { .. } | DestinationError::Io { .. } => AGAIN,
        DestinationError::Duplicate { .. }
        | DestinationError::NoParent { .. }
        | DestinationError::NotRequested { .. }
        | DestinationError::NotWanted { .. }
        | DestinationError::SpanOutside { .. }
        | DestinationError::ChunkLength { .. }
        | DestinationError::Unfinished { .. } => BROKEN_PEER,
    };
    Diagnosis { kind, side, hint }
}

const MASS_DELETION: &str =
    "check that both directories are the right ones, e.g. with --dry-run; if so, give --yes";

const PUSH_AGAIN: &str = "run the same command again; files that arrived are not sent again";

/// Of an input that can be read once, such as a pipe: what is gone, another run cannot read again.
pub(super) fn of_input(diagnosis: Diagnosis) -> Diagnosis {
    let hint = match diagnosis.hint {
        AGAIN => ANEW,
        AGAIN_LATER => ANEW_LATER,
        FREE_SPACE_THERE => FREE_SPACE_THERE_ANEW,
        hint => hint,
    };
    Diagnosis { hint, ..diagnosis }
}

/// Of a server that could not be reached again.
pub(super) fn again_later(diagnosis: Diagnosis) -> Diagnosis {
    Diagnosis { kind: ErrorKind::Unreachable, hint: AGAIN_LATER, ..diagnosis }
}

const AGAIN_LATER: &str = "run the same command again to resume when the peer is reachable; --give-up-after sets how long shiplane tries";

const ANEW: &str = "run the same command again, with the whole input";

const ANEW_LATER: &str = "run the same command again, with the whole input, when the peer is reachable; --give-up-after sets how long shiplane tries";

const FREE_SPACE_THERE: &str =
    "ask the server's owner to free space, then run the same command again to resume";

const FREE_SPACE_THERE_ANEW: &str =
    "ask the server's owner to free space, then run the same command again, with the whole input";

pub(super) const CONTENT_UNNAMED: &str =
    "add a file name to the target: NAME/DIR/FILE, or a ticket URL with /DIR/FILE at its end";

const DAMAGED: &str = "the data was damaged in transit or by the peer; check the memory of both machines";

const BROKEN_PEER: &str =
    "check that both sides have the same version of shiplane; if they do, do not trust that peer";

const ASK_FOR_RIGHTS: &str = "ask the server's owner for a new ticket, or to run shiplane peers add with this machine's id (shiplane id)";

const ASK_TO_WRITE: &str = "ask the server's owner for a ticket of shiplane serve --writable, or to run \
     shiplane peers add --write with this machine's id (shiplane id)";

const FAULT_HERE: &str = "this is a bug in shiplane; please report it";
