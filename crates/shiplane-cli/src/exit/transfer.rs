//! What the failures of talking to a peer mean.

use shiplane_files::{DestinationError, FaultClass, SourceError};
use shiplane_protocols::compress::DecodeSinkError;
use shiplane_protocols::transfer::TransferError;
use shiplane_protocols::{FetchError, PushError};
use shiplane_rpc::{CallError, FaultCode};
use shiplane_transport::{ConnectError, ConnectionEnd, RecvChunkError, SendChunkError, StreamError};
use shiplane_wire::Code;

use super::{Class, Side, Verdict};

pub(super) fn connect(error: &ConnectError) -> Verdict {
    use Class::{Identity, Other, Unreachable};
    use Side::{Network, Peer, ThisMachine};
    let (class, side, hint) = match error {
        ConnectError::TimedOut { .. } => (
            Unreachable,
            Network,
            "check that shiplane serve runs there, the address, and that UDP passes the firewalls",
        ),
        ConnectError::WrongKey { .. } => (
            Identity,
            Peer,
            "do not go on: ask the owner of that machine for its id (shiplane id), or for a new ticket",
        ),
        ConnectError::Untrusted { .. } => {
            (Identity, ThisMachine, "name the key that must answer: shiplane peers add NAME PEERID")
        }
        ConnectError::Refused { .. } => (
            Identity,
            Peer,
            "the ticket is spent or expired, or this key is not a peer there: ask for a new ticket, \
             or for shiplane peers add with what shiplane id prints here",
        ),
        ConnectError::Busy { .. } => {
            (Unreachable, Peer, "it has as many connections as it takes: try again in a minute")
        }
        ConnectError::WrongProtocol { .. } => (
            Unreachable,
            Peer,
            "something else answers there, or another version: check the port, and update both sides",
        ),
        ConnectError::Failed { end, .. } => return connection_end(end),
        ConnectError::CannotDial { .. } => {
            (Unreachable, ThisMachine, "check the address and this machine's network")
        }
        ConnectError::Tls(_) | ConnectError::Abandoned => {
            (Other, ThisMachine, "this is a fault of shiplane; please report it")
        }
    };
    Verdict { class, side, hint }
}

fn connection_end(end: &ConnectionEnd) -> Verdict {
    use Class::{Identity, Interrupted, Other, Unreachable};
    use Side::{Network, Peer, ThisMachine};
    let (class, side, hint) = match end {
        ConnectionEnd::ClosedByPeer { code: Code::Unauthorised | Code::Revoked } => {
            (Identity, Peer, "ask the server's owner for a new ticket, or for this key's rights")
        }
        ConnectionEnd::ClosedByPeer { code: Code::Busy | Code::ShuttingDown } => {
            (Unreachable, Peer, "try again in a while")
        }
        ConnectionEnd::ClosedByPeer { .. } => (Other, Peer, AGAIN),
        ConnectionEnd::ClosedHere => (Interrupted, ThisMachine, AGAIN),
        ConnectionEnd::TimedOut | ConnectionEnd::Reset => (
            Unreachable,
            Network,
            "check that shiplane serve still runs there, then run the same command again",
        ),
        ConnectionEnd::Transport { .. } => {
            (Other, Peer, "check that both sides have the same version of shiplane")
        }
    };
    Verdict { class, side, hint }
}

pub(super) fn fetch(error: &FetchError) -> Verdict {
    match error {
        FetchError::Open(error) => call(error),
        FetchError::Transfer(error) | FetchError::Unconfirmed(error) => transfer(error),
        FetchError::NoRandomness => {
            Verdict { class: Class::Other, side: Side::ThisMachine, hint: "try again later" }
        }
    }
}

/// What the server says of a push is told from what fails here.
pub(super) fn push(error: &PushError) -> Verdict {
    use Class::{Integrity, Other};
    use Side::{Peer, ThisMachine};
    let (class, side, hint) = match error {
        PushError::Refused(CallError::Fault(fault)) | PushError::Rejected(fault) => {
            return not_taken(fault.code);
        }
        PushError::Refused(error) => return call(error),
        PushError::Unknown { source: CallError::Fault(_), .. } => (Other, Peer, PUSH_AGAIN),
        PushError::Unknown { source, .. } => return Verdict { hint: PUSH_AGAIN, ..call(source) },
        PushError::Transfer(TransferError::Incomplete { .. }) => (
            Class::LocalIo,
            ThisMachine,
            "run the same command again once the files are at rest; the rest is there",
        ),
        PushError::Transfer(TransferError::Source(error)) => return source(error),
        PushError::Transfer(TransferError::RootMismatch) => {
            (Integrity, Peer, "push it again; if that fails too, do not rely on that server")
        }
        PushError::Transfer(error) => return transfer(error),
        PushError::NotDurable => (Other, Peer, "--durability verified asks for no more than it promises"),
        PushError::NoRandomness => (Other, ThisMachine, "try again later"),
    };
    Verdict { class, side, hint }
}

/// The server will not have it, or could not take it.
pub(super) fn not_taken(code: FaultCode) -> Verdict {
    let told = |class, hint| Verdict { class, side: Side::Peer, hint };
    match code {
        FaultCode::Unauthorised => told(Class::Identity, ASK_TO_WRITE),
        FaultCode::ReadOnly => told(Class::Refused, "the server must be started with --writable"),
        FaultCode::Exists => told(
            Class::Refused,
            "push into another directory, or give --overwrite to replace files that differ; nothing was \
             replaced",
        ),
        FaultCode::NotFound => told(Class::Refused, "ask the server's owner to create that directory"),
        FaultCode::PathRefused => {
            told(Class::Refused, "give another path within what is served, or rename what the message names")
        }
        FaultCode::NoSpace => {
            told(Class::Refused, "ask the server's owner to free space; what has come is kept")
        }
        FaultCode::Integrity => told(Class::Integrity, "push it again; check the memory of both machines"),
        other => answered(other),
    }
}

/// What is to be pushed cannot be read.
pub(super) fn source(error: &SourceError) -> Verdict {
    let (class, hint) = match error {
        SourceError::PathRefused { .. }
        | SourceError::NotServable { .. }
        | SourceError::LeavesRoot { .. } => {
            (Class::Refused, "give a file or a directory, with a name that can be sent")
        }
        SourceError::NotFound { .. } => (Class::LocalIo, "check the path"),
        SourceError::Changed { .. } | SourceError::Vanished { .. } => {
            (Class::LocalIo, "run the same command again once the files are at rest")
        }
        SourceError::Unreadable { .. } => {
            (Class::LocalIo, "see to the permissions of what the message names")
        }
    };
    Verdict { class, side: Side::ThisMachine, hint }
}

pub(super) fn transfer(error: &TransferError) -> Verdict {
    use Class::{Integrity, LocalIo, Other, Unreachable};
    use Side::{Peer, ThisMachine};
    let (class, side, hint) = match error {
        TransferError::Protocol(_) | TransferError::Records(_) => (Other, Peer, BROKEN_PEER),
        TransferError::Silent { .. } => (Unreachable, Peer, AGAIN),
        TransferError::Stream(error) => return stream(error),
        TransferError::Call(error) => return call(error),
        TransferError::Corrupt { last, .. } => return chunk(last),
        TransferError::Undecodable { source, .. } => match &**source {
            DecodeSinkError::Content(_) => (Integrity, Peer, DAMAGED),
            DecodeSinkError::Sink(error) => return destination(error),
            DecodeSinkError::Bomb { .. }
            | DecodeSinkError::TooLong { .. }
            | DecodeSinkError::UnknownEncoding { .. }
            | DecodeSinkError::Undecodable(_)
            | DecodeSinkError::Frame(_) => (Other, Peer, BROKEN_PEER),
        },
        TransferError::RootMismatch => {
            (Integrity, Peer, "get it again with --verify; if that fails too, do not use what has come")
        }
        TransferError::Incomplete { .. } => {
            (Other, Peer, "run the same command again once the source is at rest; the rest has arrived")
        }
        TransferError::Destination(error) => return destination(error),
        TransferError::Source(_) => (LocalIo, ThisMachine, "see to the file"),
        TransferError::Undelivered { .. } => (Other, Peer, AGAIN),
        TransferError::TakenOver | TransferError::Abandoned => (Other, ThisMachine, AGAIN),
    };
    Verdict { class, side, hint }
}

/// A single chunk was not received.
pub(super) fn received(error: &RecvChunkError) -> Verdict {
    match error {
        RecvChunkError::Sink(_) | RecvChunkError::Abandoned => {
            Verdict { class: Class::Other, side: Side::ThisMachine, hint: AGAIN }
        }
        RecvChunkError::Stream(error) => stream(error),
        RecvChunkError::Recv(_) => Verdict { class: Class::Integrity, side: Side::Peer, hint: DAMAGED },
        RecvChunkError::Frame(_) => Verdict { class: Class::Other, side: Side::Peer, hint: BROKEN_PEER },
    }
}

/// A single chunk was not delivered.
pub(super) fn chunk_not_sent(error: &SendChunkError) -> Verdict {
    match error {
        SendChunkError::Stream(error) => stream(error),
        SendChunkError::ChecksumFailed => {
            Verdict { class: Class::Integrity, side: Side::Peer, hint: DAMAGED }
        }
        SendChunkError::Source(_) | SendChunkError::Frame(_) => {
            Verdict { class: Class::Other, side: Side::ThisMachine, hint: AGAIN }
        }
        _ => Verdict { class: Class::Other, side: Side::Peer, hint: AGAIN },
    }
}

/// A chunk that failed for good.
fn chunk(error: &RecvChunkError<DestinationError>) -> Verdict {
    match error {
        RecvChunkError::Sink(error) => destination(error),
        RecvChunkError::Stream(error) => stream(error),
        RecvChunkError::Recv(_) => Verdict { class: Class::Integrity, side: Side::Peer, hint: DAMAGED },
        RecvChunkError::Frame(_) => Verdict { class: Class::Other, side: Side::Peer, hint: BROKEN_PEER },
        RecvChunkError::Abandoned => Verdict { class: Class::Other, side: Side::ThisMachine, hint: AGAIN },
    }
}

fn stream(error: &StreamError) -> Verdict {
    match error {
        StreamError::ConnectionLost(end) => connection_end(end),
        StreamError::Reset(code) | StreamError::Stopped(code) => refused(*code),
        StreamError::TimedOut { .. } => Verdict { class: Class::Unreachable, side: Side::Peer, hint: AGAIN },
        StreamError::TooLong { .. } => Verdict { class: Class::Other, side: Side::Peer, hint: BROKEN_PEER },
        StreamError::Closed => Verdict { class: Class::Other, side: Side::ThisMachine, hint: AGAIN },
    }
}

pub(super) fn call(error: &CallError) -> Verdict {
    match error {
        CallError::Fault(fault) => answered(fault.code),
        CallError::Refused { code } => refused(*code),
        CallError::ConnectionLost(end) => connection_end(end),
        CallError::DeadlineExceeded { .. } => {
            Verdict { class: Class::Unreachable, side: Side::Peer, hint: AGAIN }
        }
        CallError::PeerProtocol(_) => Verdict { class: Class::Other, side: Side::Peer, hint: BROKEN_PEER },
        CallError::TooLarge { .. } => {
            Verdict { class: Class::Refused, side: Side::ThisMachine, hint: "give a shorter path" }
        }
        CallError::Unencodable | CallError::Busy { .. } => {
            Verdict { class: Class::Other, side: Side::ThisMachine, hint: FAULT_HERE }
        }
    }
}

/// The peer took the call and said no.
fn answered(code: FaultCode) -> Verdict {
    use Class::{Identity, Integrity, Other, Refused, Unreachable};
    let (class, hint) = match code {
        FaultCode::Unauthorised => (Identity, ASK_FOR_RIGHTS),
        FaultCode::TicketRefused => {
            (Identity, "ask the server's owner for a new ticket: shiplane serve prints one at each start")
        }
        FaultCode::NotFound => (Refused, "check the path; it is relative to what is served there"),
        FaultCode::PathRefused | FaultCode::InvalidRequest => {
            (Refused, "give a path to a file or directory within what is served, without . and ..")
        }
        FaultCode::TooLarge | FaultCode::Exists | FaultCode::ReadOnly => (Refused, "ask the server's owner"),
        FaultCode::Integrity => (Integrity, "get it again with --verify"),
        FaultCode::Busy | FaultCode::ShuttingDown | FaultCode::DeadlineExceeded => {
            (Unreachable, "try again in a while")
        }
        FaultCode::SourceChanged | FaultCode::Gone => (Other, AGAIN),
        FaultCode::SourceIo | FaultCode::SinkIo | FaultCode::NoSpace => {
            (Other, "ask the server's owner to see to its disk and permissions")
        }
        FaultCode::UnknownMethod => (Other, "check that both sides have the same version of shiplane"),
        FaultCode::Internal | FaultCode::Other(_) => (Other, "see the log of shiplane serve there"),
    };
    Verdict { class, side: Side::Peer, hint }
}

/// The peer ended a stream early, with this code.
fn refused(code: Code) -> Verdict {
    use Class::{Identity, Integrity, Other, Refused, Unreachable};
    let (class, hint) = match code {
        Code::Unauthorised | Code::Revoked => (Identity, ASK_FOR_RIGHTS),
        Code::TooLarge | Code::PathRefused => (Refused, "ask the server's owner"),
        Code::Integrity => (Integrity, "get it again with --verify"),
        Code::Timeout | Code::Busy | Code::ShuttingDown | Code::DuplicateConnection => (Unreachable, AGAIN),
        Code::Protocol | Code::Unclaimed | Code::UnknownKind => (Other, BROKEN_PEER),
        Code::NoError | Code::Cancelled | Code::SourceChanged | Code::SourceFailed | Code::SinkFailed => {
            (Other, AGAIN)
        }
    };
    Verdict { class, side: Side::Peer, hint }
}

/// This side's disk; the message says what to do where there is more than one way.
pub(super) fn destination(error: &DestinationError) -> Verdict {
    use Side::{Peer, ThisMachine};
    let (class, side) = match error.class() {
        FaultClass::Refused => (Class::Refused, ThisMachine),
        FaultClass::LocalIo => (Class::LocalIo, ThisMachine),
        FaultClass::Protocol => (Class::Other, Peer),
        FaultClass::Integrity => (Class::Integrity, ThisMachine),
    };
    let hint = match error {
        DestinationError::Exists { .. } => {
            "give another DEST, or --overwrite to replace files that differ; nothing was replaced"
        }
        DestinationError::WrongKind { .. } => "move it away, or give another DEST",
        DestinationError::NameRefused { .. } | DestinationError::NameCollision { .. } => {
            "rename it at the source, or get it onto another file system"
        }
        DestinationError::Busy { .. } => "wait for the other run, or end it",
        DestinationError::TooLarge { .. } => "get less at a time",
        DestinationError::NoSpace { .. } | DestinationError::QuotaExceeded { .. } => {
            "free space and run the same command again; what has come is kept"
        }
        DestinationError::PermissionDenied { .. } => "give a DEST that this user may write to",
        DestinationError::ParentMissing { .. } => "create that directory, or give another DEST",
        DestinationError::Poisoned { .. } => "check the disk before anything else (dmesg, smartctl)",
        DestinationError::Altered { .. } | DestinationError::Io { .. } => AGAIN,
        DestinationError::Duplicate { .. }
        | DestinationError::NoParent { .. }
        | DestinationError::NotRequested { .. }
        | DestinationError::NotWanted { .. }
        | DestinationError::SpanOutside { .. }
        | DestinationError::ChunkLength { .. }
        | DestinationError::Unfinished { .. } => BROKEN_PEER,
    };
    Verdict { class, side, hint }
}

const AGAIN: &str = "run the same command again; what was kept is not sent again";

const PUSH_AGAIN: &str = "run the same command again: what is there already is found and not sent again";

const DAMAGED: &str = "data is damaged on its way or by the peer: check the memory of both machines";

const BROKEN_PEER: &str =
    "check that both sides have the same version of shiplane; if so, do not trust that peer";

const ASK_FOR_RIGHTS: &str =
    "ask the server's owner for a new ticket, or for shiplane peers add with what shiplane id prints here";

const ASK_TO_WRITE: &str = "ask the server's owner for a ticket of shiplane serve --writable, or for shiplane \
     peers add --write with what shiplane id prints here";

const FAULT_HERE: &str = "this is a fault of shiplane; please report it";
