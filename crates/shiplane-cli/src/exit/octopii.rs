//! Maps failures of the octopii dialect to exit codes, sides and hints.

use std::io;

use shiplane::Side;
use shiplane_octopii::{BindError, ConnectError, RecvChunkError, SendChunkError, internals::SinkError};

use super::diagnosis::{Class, Diagnosis, here};
use crate::failure::octopii::OctopiiFailure;
use crate::settings::OctopiiError;

pub(super) fn diagnosis(failure: &OctopiiFailure) -> Diagnosis {
    match failure {
        OctopiiFailure::Bind(error) => bind(error),
        OctopiiFailure::WrongProtocol { .. } => wrong_protocol(),
        OctopiiFailure::Connect(error) => connect(error),
        OctopiiFailure::Send(error) => send(error),
        OctopiiFailure::Receive(error) => receive(error),
        OctopiiFailure::Nothing => nothing(),
        OctopiiFailure::Exists { .. } => exists(),
        OctopiiFailure::Resolve { .. } => Diagnosis {
            class: Class::Unreachable,
            side: Side::Network,
            hint: "check the host name, or use an IP address",
        },
    }
}

pub(super) fn settings(error: &OctopiiError) -> &'static str {
    match error {
        OctopiiError::NoAddress | OctopiiError::Address => "give HOST:PORT, e.g. 192.0.2.7:5001",
        OctopiiError::Authenticated => {
            "omit --insecure-octopii to use the ticket or id, or give only the node's HOST:PORT"
        }
        OctopiiError::NotOneFile => {
            "give one file (with get: -o FILE); for trees, use shiplane on both sides without --insecure-octopii"
        }
    }
}

fn bind(error: &BindError) -> Diagnosis {
    match error {
        BindError::Socket { source, .. } => bind_socket(source),
        BindError::Identity(_) | BindError::Tls(_) => here(Class::Other, OUR_FAULT),
    }
}

fn wrong_protocol() -> Diagnosis {
    let hint = "if shiplane runs there, omit --insecure-octopii and use its ticket or id";
    Diagnosis { class: Class::Unreachable, side: Side::Peer, hint }
}

fn connect(error: &ConnectError) -> Diagnosis {
    let (class, side, hint) = match error {
        ConnectError::CannotDial { .. } => {
            (Class::Unreachable, Side::ThisMachine, "check the address and this machine's network")
        }
        ConnectError::Tls(_) => (Class::Other, Side::ThisMachine, OUR_FAULT),
        _ => (
            Class::Unreachable,
            Side::Network,
            "check that the node is running, the address, and that firewalls pass UDP",
        ),
    };
    Diagnosis { class, side, hint }
}

fn send(error: &SendChunkError) -> Diagnosis {
    let (class, side, hint) = match error {
        SendChunkError::Source(_) => {
            (Class::LocalIo, Side::ThisMachine, "give an existing file that this user can read")
        }
        SendChunkError::ChecksumFailed => (Class::Integrity, Side::Peer, "push it again"),
        SendChunkError::Rejected { .. } => (
            Class::Refused,
            Side::Peer,
            "the node accepts no chunk of this size, or none at all; see its log",
        ),
        SendChunkError::Status(_) | SendChunkError::Frame(_) => {
            (Class::Other, Side::Peer, "check the address; what answers there is not a known Octopii node")
        }
        SendChunkError::Stream(_) => {
            (Class::Unreachable, Side::Network, "check whether the node has the file before you push again")
        }
    };
    Diagnosis { class, side, hint }
}

fn receive(error: &RecvChunkError) -> Diagnosis {
    let (class, side, hint) = match error {
        RecvChunkError::Sink(SinkError::Exists { .. }) => return exists(),
        RecvChunkError::Sink(_) | RecvChunkError::Abandoned => (
            Class::LocalIo,
            Side::ThisMachine,
            "check the free space and permissions there, or choose another -o",
        ),
        RecvChunkError::Recv(_) => (Class::Integrity, Side::Peer, "run the command again; nothing was kept"),
        RecvChunkError::Frame(_) => {
            (Class::Refused, Side::Peer, "the node announced a size that no chunk can have")
        }
        RecvChunkError::Stream(_) => {
            (Class::Unreachable, Side::Network, "run the command again; it starts over")
        }
    };
    Diagnosis { class, side, hint }
}

fn exists() -> Diagnosis {
    here(Class::Refused, "choose another file with -o, or move the existing one away")
}

fn nothing() -> Diagnosis {
    let hint = "the node must send a chunk to each client, like shiplane serve --insecure-octopii";
    Diagnosis { class: Class::Other, side: Side::Peer, hint }
}

fn bind_socket(source: &io::Error) -> Diagnosis {
    here(
        Class::LocalIo,
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program uses that port; choose another with --listen, or port 0 for any"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; use --listen 0.0.0.0:7514 for all addresses"
            }
            io::ErrorKind::PermissionDenied => "choose a port above 1023 with --listen",
            _ => "check this machine's network, or choose another address with --listen",
        },
    )
}

const OUR_FAULT: &str = "this is a bug in shiplane; please report it";
