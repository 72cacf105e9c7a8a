//! What each failure means: its exit code, the side it is on, and what to do next. Here and in
//! [`transfer`], and nowhere else, errors of the libraries become any of these.

mod octopii;
mod sync;
mod transfer;

use std::io;

use shiplane_protocols::access::{EditError, PeersError};
use shiplane_transport::{BindError, IdentityError};

use crate::failure::Failure;
use crate::settings::SettingsError;
use crate::source_arg::SourceError;

/// The exit codes that scripts rely on, and the class of a failure in `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Other = 1,
    Usage = 2,
    Unreachable = 3,
    Identity = 4,
    Integrity = 5,
    Refused = 6,
    LocalIo = 7,
    Interrupted = 130,
}

/// Where the cause is, so that one knows where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Peer,
    Network,
    ThisMachine,
}

/// A failure, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) class: Class,
    pub(crate) side: Side,
    pub(crate) hint: &'static str,
}

const SEE_TO_IT: &str = "see to what the message names, then run the same command again; the rest is done";

/// What the second Ctrl-C ends with.
pub(crate) const INTERRUPTED: u8 = Class::Interrupted as u8;

impl Failure {
    /// What this failure means to a script and to a person.
    pub(crate) fn verdict(&self) -> Verdict {
        use Class::{Interrupted, LocalIo, Other, Refused, Unreachable, Usage};
        match self {
            Self::Settings(error) => settings(error),
            Self::Home(_) => here(Usage, "set SHIPLANE_HOME to a directory of your own"),
            Self::Identity(error) => identity(error),
            Self::Peers(error) => peers(error),
            Self::Edit(error) => edit(error),
            Self::Root(_) => here(Usage, "give a path relative to what is served, as in photos/2024"),
            Self::NoSuchCommand { .. } => here(Usage, "shiplane --help lists the commands"),
            Self::NoSuchName { .. } => {
                here(Usage, "shiplane peers list shows the names; shiplane peers add adds one")
            }
            Self::Stdout(_) => here(LocalIo, "see to whatever reads the output"),
            Self::TicketFile { .. } => {
                here(LocalIo, "see to the space and the permissions there, or leave --ticket-file out")
            }
            Self::Runtime(_) => here(LocalIo, "see to the limits of this user (ulimit -a)"),
            Self::Serve(_) => {
                here(LocalIo, "give a directory or a file that exists and that this user can read")
            }
            Self::Bind(error) => bind(error),
            Self::Ticket(_) => here(Other, "try again, with a shorter --ticket-ttl"),
            Self::Resolve { .. } => Verdict {
                class: Unreachable,
                side: Side::Network,
                hint: "check the host's name, or use its address",
            },
            Self::ResolveSilent { .. } => Verdict {
                class: Unreachable,
                side: Side::Network,
                hint: "check this machine's network, or use the host's address",
            },
            Self::Connect(error) => transfer::connect(error),
            Self::Fetch(error) => transfer::fetch(error),
            Self::Destination(error) => transfer::destination(error),
            Self::Push(error) => transfer::push(error),
            Self::Sync(error) => sync::sync(error),
            Self::LeftAlone { .. } => {
                here(Other, "run the same command again once the files are at rest; the rest is done")
            }
            Self::CannotChange { cause, .. } => Verdict { hint: SEE_TO_IT, ..transfer::destination(cause) },
            Self::CannotRead { cause, .. } => Verdict { hint: SEE_TO_IT, ..transfer::source(cause) },
            Self::Source(error) => transfer::source(error),
            Self::Spool(_) => {
                here(LocalIo, "see to the space in the directory for temporary files, or set TMPDIR")
            }
            Self::WritableFile => here(Usage, "serve the directory it is in, or leave --writable out"),
            Self::NotOneFile => here(Refused, "give the path of one file, or a directory as DEST"),
            Self::OctopiiBind(error) => octopii::bind(error),
            Self::OctopiiConnect(error) => octopii::connect(error),
            Self::OctopiiSend(error) => octopii::send(error),
            Self::OctopiiReceive(error) => octopii::receive(error),
            Self::OctopiiNothing => octopii::nothing(),
            Self::OctopiiExists { .. } => octopii::exists(),
            Self::Interrupted => {
                here(Interrupted, "run the same command again; what was kept is not sent again")
            }
        }
    }
}

fn here(class: Class, hint: &'static str) -> Verdict {
    Verdict { class, side: Side::ThisMachine, hint }
}

fn settings(error: &SettingsError) -> Verdict {
    here(
        Class::Usage,
        match error {
            SettingsError::NoSource => {
                "give a ticket URL or NAME@HOST:PORT/PATH, or put the ticket into SHIPLANE_TICKET"
            }
            SettingsError::TwoSources => "with --ticket-file, give DEST only",
            SettingsError::Source(SourceError::Ticket(_)) => {
                "copy the whole ticket again, in single quotes, from where shiplane serve printed it"
            }
            SettingsError::Source(SourceError::Id(_)) => "copy the id again; shiplane id prints it there",
            SettingsError::Source(_) => {
                "a source or target is a ticket URL, or a peer's name or id with its address: NAME@HOST:PORT/PATH"
            }
            SettingsError::TicketFile { .. } => "see to the file; shiplane serve --ticket-file writes it",
            SettingsError::NoPath => "give what is to be pushed before the target",
            SettingsError::NoTarget => {
                "give a ticket URL or NAME@HOST:PORT/PATH last, or put the ticket into SHIPLANE_TICKET"
            }
            SettingsError::TwoTargets => "with --ticket-file, give the paths only",
            SettingsError::StdinUnnamed => {
                "end the target with the name of a file: NAME@HOST:PORT/DIR/FILE, or /DIR/FILE before \
                 the # of a ticket"
            }
            SettingsError::StdinNotAlone => "push the other paths by themselves",
            SettingsError::SameName { .. } => "push them one after another, or into different directories",
            SettingsError::Octopii(error) => octopii::settings(error),
            SettingsError::JsonAndContent => "leave --json out, or get into a file",
            SettingsError::TicketTtl { .. } => "for longer, use shiplane peers add on the server",
        },
    )
}

fn identity(error: &IdentityError) -> Verdict {
    match error {
        IdentityError::Io { .. } | IdentityError::NoRandomness => {
            here(Class::LocalIo, "see to the file, or set SHIPLANE_HOME to another directory")
        }
        IdentityError::NotPrivate { .. }
        | IdentityError::Malformed { .. }
        | IdentityError::Damaged { .. } => {
            here(Class::Identity, "see to the key file; without its old key this machine is a stranger")
        }
    }
}

fn peers(error: &PeersError) -> Verdict {
    match error {
        PeersError::Unreadable { .. } => here(Class::LocalIo, "see to the file; until then nobody is let in"),
        PeersError::WritableByOthers { .. } => {
            here(Class::Identity, "look through it, then chmod 600 it; until then nobody is let in")
        }
        PeersError::TooLong { .. } | PeersError::Malformed { .. } => {
            here(Class::Identity, "mend the file by hand; until then nobody is let in")
        }
    }
}

fn edit(error: &EditError) -> Verdict {
    match error {
        EditError::List(error) => peers(error),
        EditError::NameTaken { .. } => here(
            Class::Identity,
            "if the peer really has a new key, check the id with its owner, \
             then shiplane peers remove the name and add it again",
        ),
        EditError::IdTaken { .. } => here(Class::Usage, "use that name, or shiplane peers remove it first"),
        EditError::NoSuchPeer { .. } => here(Class::Usage, "shiplane peers list shows the names"),
        EditError::Unwritable { .. } => {
            here(Class::LocalIo, "see to the space and the permissions there; the list is as it was")
        }
    }
}

fn bind(error: &BindError) -> Verdict {
    match error {
        BindError::Socket { source, .. } => bind_socket(source),
        BindError::Identity(error) => identity(error),
        BindError::Tls(_) => here(Class::Other, "this is a fault of shiplane; please report it"),
    }
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

impl Class {
    /// As events name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Other => "failure",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::Identity => "identity",
            Self::Integrity => "integrity",
            Self::Refused => "refused",
            Self::LocalIo => "local_io",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Side {
    /// As messages and events name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Network => "network",
            Self::ThisMachine => "this machine",
        }
    }
}
