//! What failures of the octopii dialect mean.

use shiplane_transport::compat::{OctopiiBindError, OctopiiConnectError};
use shiplane_transport::{RecvChunkError, SendChunkError, SinkError};

use super::{Class, Side, Verdict, bind_socket, here};
use crate::settings::OctopiiError;

pub(super) fn settings(error: &OctopiiError) -> &'static str {
    match error {
        OctopiiError::NoAddress | OctopiiError::Address(_) => "give HOST:PORT, as in 192.0.2.7:5001",
        OctopiiError::Authenticated => {
            "leave --insecure-octopii out to use the ticket or id, or give the node's HOST:PORT alone"
        }
        OctopiiError::NotOneFile => {
            "give one file (get takes it with -o); trees go between two shiplanes, without --insecure-octopii"
        }
    }
}

pub(super) fn bind(error: &OctopiiBindError) -> Verdict {
    match error {
        OctopiiBindError::Socket { source, .. } => bind_socket(source),
        OctopiiBindError::Certificate(_) | OctopiiBindError::Tls(_) => {
            here(Class::Other, "this is a fault of shiplane; please report it")
        }
    }
}

pub(super) fn connect(error: &OctopiiConnectError) -> Verdict {
    let (class, side, hint) = match error {
        OctopiiConnectError::TimedOut { .. } | OctopiiConnectError::Failed { .. } => (
            Class::Unreachable,
            Side::Network,
            "check that the node runs there, the address, and that UDP passes the firewalls",
        ),
        OctopiiConnectError::WrongProtocol { .. } => (
            Class::Unreachable,
            Side::Peer,
            "if a shiplane answers there, leave --insecure-octopii out and use its ticket or id",
        ),
        OctopiiConnectError::CannotDial { .. } => {
            (Class::Unreachable, Side::ThisMachine, "check the address and this machine's network")
        }
        OctopiiConnectError::Tls(_) => {
            (Class::Other, Side::ThisMachine, "this is a fault of shiplane; please report it")
        }
    };
    Verdict { class, side, hint }
}

pub(super) fn send(error: &SendChunkError) -> Verdict {
    let (class, side, hint) = match error {
        SendChunkError::Source(_) => {
            (Class::LocalIo, Side::ThisMachine, "give a file that exists and that this user can read")
        }
        SendChunkError::ChecksumFailed => (Class::Integrity, Side::Peer, "push it again"),
        SendChunkError::Rejected { .. } => (
            Class::Refused,
            Side::Peer,
            "the node takes no chunk of this size, or none at all: look at its log",
        ),
        SendChunkError::Status(_) | SendChunkError::Frame(_) => {
            (Class::Other, Side::Peer, "what answers there is no octopii node of a known kind")
        }
        SendChunkError::Stream(_) => (
            Class::Unreachable,
            Side::Network,
            "whether the node has the file is unknown: look there before you push again",
        ),
    };
    Verdict { class, side, hint }
}

pub(super) fn receive(error: &RecvChunkError) -> Verdict {
    let (class, side, hint) = match error {
        RecvChunkError::Sink(SinkError::Exists { .. }) => return exists(),
        RecvChunkError::Sink(_) | RecvChunkError::Abandoned => (
            Class::LocalIo,
            Side::ThisMachine,
            "see to the space and the permissions there, or choose another -o",
        ),
        RecvChunkError::Recv(_) => (Class::Integrity, Side::Peer, "get it again; nothing was kept"),
        RecvChunkError::Frame(_) => (Class::Refused, Side::Peer, "the node announced what no frame can hold"),
        RecvChunkError::Stream(_) => {
            (Class::Unreachable, Side::Network, "get it again; nothing was kept, and nothing can be resumed")
        }
    };
    Verdict { class, side, hint }
}

pub(super) fn exists() -> Verdict {
    here(Class::Refused, "choose another file with -o, or move that one out of the way")
}

pub(super) fn nothing() -> Verdict {
    let hint = "the node must send a chunk to whoever connects, as shiplane serve --insecure-octopii does";
    Verdict { class: Class::Other, side: Side::Peer, hint }
}
