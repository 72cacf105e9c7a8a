//! What failures of the octopii dialect mean.

use std::io;

use shiplane_octopii::{
    BindError, ConnectError, OctopiiBindError, OctopiiConnectError, RecvChunkError, SendChunkError, SinkError,
};

use super::{Class, Side, Verdict, here};
use crate::failure::octopii::OctopiiFailure;
use crate::settings::octopii::OctopiiError;

pub(super) fn verdict(failure: &OctopiiFailure) -> Verdict {
    match failure {
        OctopiiFailure::Bind(error) => bind(error),
        OctopiiFailure::Connect(error) => connect(error),
        OctopiiFailure::Send(error) => send(error),
        OctopiiFailure::Receive(error) => receive(error),
        OctopiiFailure::Nothing => nothing(),
        OctopiiFailure::Exists { .. } => exists(),
        OctopiiFailure::Resolve { .. } => Verdict {
            class: Class::Unreachable,
            side: Side::Network,
            hint: "check the host's name, or use its address",
        },
    }
}

pub(super) fn settings(error: &OctopiiError) -> &'static str {
    match error {
        OctopiiError::NoAddress | OctopiiError::Address => "give HOST:PORT, as in 192.0.2.7:5001",
        OctopiiError::Authenticated => {
            "leave --insecure-octopii out to use the ticket or id, or give the node's HOST:PORT alone"
        }
        OctopiiError::NotOneFile => {
            "give one file (get takes it with -o); trees go between two shiplanes, without --insecure-octopii"
        }
    }
}

fn bind(error: &OctopiiBindError) -> Verdict {
    match error {
        OctopiiBindError::Transport(BindError::Socket { source, .. }) => bind_socket(source),
        OctopiiBindError::Transport(_) => here(Class::Other, OUR_FAULT),
        OctopiiBindError::Certificate(_) => here(Class::Other, OUR_FAULT),
    }
}

fn connect(error: &OctopiiConnectError) -> Verdict {
    let (class, side, hint) = match error {
        OctopiiConnectError::WrongProtocol { .. } => (
            Class::Unreachable,
            Side::Peer,
            "if a shiplane answers there, leave --insecure-octopii out and use its ticket or id",
        ),
        OctopiiConnectError::Transport(ConnectError::CannotDial { .. }) => {
            (Class::Unreachable, Side::ThisMachine, "check the address and this machine's network")
        }
        OctopiiConnectError::Transport(ConnectError::Tls(_)) => (Class::Other, Side::ThisMachine, OUR_FAULT),
        OctopiiConnectError::Transport(_) => (
            Class::Unreachable,
            Side::Network,
            "check that the node runs there, the address, and that UDP passes the firewalls",
        ),
    };
    Verdict { class, side, hint }
}

fn send(error: &SendChunkError) -> Verdict {
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

fn receive(error: &RecvChunkError) -> Verdict {
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

fn exists() -> Verdict {
    here(Class::Refused, "choose another file with -o, or move that one out of the way")
}

fn nothing() -> Verdict {
    let hint = "the node must send a chunk to whoever connects, as shiplane serve --insecure-octopii does";
    Verdict { class: Class::Other, side: Side::Peer, hint }
}

fn bind_socket(source: &io::Error) -> Verdict {
    here(
        Class::LocalIo,
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has that port; choose another one, or 0 for any, with --listen"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; --listen 0.0.0.0:7514 listens on all it has"
            }
            io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
            _ => "see to this machine's network, or choose another address with --listen",
        },
    )
}

const OUR_FAULT: &str = "this is a fault of shiplane; please report it";
