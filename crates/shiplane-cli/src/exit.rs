//! What each failure means to a script and to a person: its exit code, the side it is on, and what to do next.

#[cfg(feature = "octopii")]
mod octopii;

use shiplane::ErrorKind;
pub(crate) use shiplane::Side;

use crate::failure::Failure;
use crate::settings::SettingsError;

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

/// A failure, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) class: Class,
    pub(crate) side: Side,
    pub(crate) hint: &'static str,
}

/// What the second Ctrl-C ends with.
pub(crate) const INTERRUPTED: u8 = Class::Interrupted as u8;

impl Failure {
    /// What this failure means to a script and to a person.
    pub(crate) fn verdict(&self) -> Verdict {
        use Class::{Interrupted, LocalIo, Usage};
        match self {
            Self::Settings(error) => settings(error),
            Self::Job(error) => job(error),
            Self::NoSuchCommand { .. } => here(Usage, "shiplane --help lists the commands"),
            Self::Stdout(_) => here(LocalIo, "see to whatever reads the output"),
            Self::TicketFile { .. } => {
                here(LocalIo, "see to the space and the permissions there, or leave --ticket-file out")
            }
            Self::Runtime(_) => here(LocalIo, "see to the limits of this user (ulimit -a)"),
            Self::Spool(_) => {
                here(LocalIo, "see to the space in the directory for temporary files, or set TMPDIR")
            }
            #[cfg(feature = "octopii")]
            Self::Octopii(failure) => octopii::verdict(failure),
            Self::Interrupted => {
                here(Interrupted, "run the same command again; what was kept is not sent again")
            }
        }
    }
}

fn here(class: Class, hint: &'static str) -> Verdict {
    Verdict { class, side: Side::ThisMachine, hint }
}

fn job(error: &shiplane::Error) -> Verdict {
    let class = match error.kind() {
        ErrorKind::Usage => Class::Usage,
        ErrorKind::Unreachable => Class::Unreachable,
        ErrorKind::Identity => Class::Identity,
        ErrorKind::Integrity => Class::Integrity,
        ErrorKind::Refused => Class::Refused,
        ErrorKind::LocalIo => Class::LocalIo,
        ErrorKind::Interrupted => Class::Interrupted,
        _ => Class::Other,
    };
    Verdict { class, side: error.side(), hint: error.hint() }
}

fn settings(error: &SettingsError) -> Verdict {
    here(
        Class::Usage,
        match error {
            SettingsError::NoSource => {
                "give a ticket URL or NAME@HOST:PORT/PATH, or put the ticket into SHIPLANE_TICKET"
            }
            SettingsError::TwoSources => "with --ticket-file, give DEST only",
            SettingsError::Target(error) => return job(error),
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
            #[cfg(feature = "octopii")]
            SettingsError::Octopii(error) => octopii::settings(error),
            SettingsError::JsonAndContent => "leave --json out, or get into a file",
            SettingsError::TicketTtl { .. } => "for longer, use shiplane peers add on the server",
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
