//! Maps each failure to an exit code, the side it is on, and a hint.

mod diagnosis;
#[cfg(feature = "octopii")]
mod octopii;

use shiplane::ErrorKind;

use self::diagnosis::here;
pub(crate) use self::diagnosis::{Class, Diagnosis};
use crate::failure::Failure;
use crate::settings::SettingsError;

/// The exit code after the second Ctrl-C.
pub(crate) const INTERRUPTED: u8 = Class::Interrupted as u8;

impl Failure {
    /// The exit code, side and hint of this failure.
    pub(crate) fn diagnosis(&self) -> Diagnosis {
        use Class::{Interrupted, LocalIo, Refused, Usage};
        match self {
            Self::Settings(error) => settings(error),
            Self::Job(error) => job(error),
            Self::NoSuchCommand { .. } => here(Usage, "run shiplane --help for the commands"),
            Self::Stdout(_) => here(LocalIo, "check the program or disk that reads the output"),
            Self::TicketFile { .. } => {
                here(LocalIo, "check the free space and permissions there, or omit --ticket-file")
            }
            Self::Runtime(_) => here(LocalIo, "check the limits of this user (ulimit -a)"),
            Self::Stdin(_) => here(LocalIo, "check what the program's standard input is"),
            #[cfg(feature = "octopii")]
            Self::Octopii(failure) => octopii::diagnosis(failure),
            Self::Unhealthy { .. } => here(Class::Other, "see what is marked as bad above"),
            Self::Declined => here(Refused, "ask the sender to send again if that was a mistake"),
            Self::Interrupted => here(Interrupted, "run the same command again to resume"),
            Self::SendingInterrupted => here(Interrupted, "run the same command again; it prints a new code"),
            Self::NoSource { .. } => here(LocalIo, "check the path"),
        }
    }
}

fn job(error: &shiplane::Error) -> Diagnosis {
    let class = match error.kind() {
        ErrorKind::Usage => Class::Usage,
        ErrorKind::Unreachable => Class::Unreachable,
        ErrorKind::Identity => Class::Identity,
        ErrorKind::Integrity => Class::Integrity,
        ErrorKind::Refused => Class::Refused,
        ErrorKind::LocalIo => Class::LocalIo,
        ErrorKind::LeftOut => Class::LeftOut,
        ErrorKind::Interrupted => Class::Interrupted,
        _ => Class::Other,
    };
    Diagnosis { class, side: error.side(), hint: error.hint() }
}

fn settings(error: &SettingsError) -> Diagnosis {
    here(
        Class::Usage,
        match error {
            SettingsError::StdoutNotAlone => "get each file in a separate command, or into a directory",
            SettingsError::NoSource => {
                "give a ticket URL, NAME/PATH, NAME@HOST/PATH or, over ssh, HOST:PATH, or set SHIPLANE_TICKET"
            }
            SettingsError::TwoSources => "with --ticket-file, give only DEST",
            SettingsError::Target(error) => return job(error),
            SettingsError::TicketFile { .. } => {
                "check the file; shiplane serve --ticket-file FILE writes one"
            }
            SettingsError::FilesFrom { .. } => "give a file with one path on each line, or `-`",
            SettingsError::StdinTwice => "put one of them into a file",
            SettingsError::NoDest => "give a file or a directory, or omit DEST for the current directory",
            SettingsError::RemoteDest { .. } => {
                "add a local DEST, e.g. ./ for the current directory; to copy between two other machines, run shiplane \
                 on one of them"
            }
            SettingsError::RemotePath { .. } => {
                "run shiplane on one of the two machines, e.g. ssh HOST shiplane push PATH OTHER:PATH; for a local file \
                 with a colon in its name, give ./NAME"
            }
            SettingsError::NoPath => "give the files to push before the target",
            SettingsError::NoTarget => {
                "give a ticket URL, NAME/PATH, NAME@HOST/PATH or, over ssh, HOST:PATH last, or set SHIPLANE_TICKET"
            }
            SettingsError::TwoTargets => "with --ticket-file, give only the paths",
            SettingsError::TicketFileAndServer => "omit one of them",
            SettingsError::StdinUnnamed => {
                "add a file name to the target: NAME/DIR/FILE, or a ticket URL with /DIR/FILE at its end"
            }
            SettingsError::StdinNotAlone => "push the other paths in a separate command",
            #[cfg(feature = "octopii")]
            SettingsError::Octopii(error) => octopii::settings(error),
            SettingsError::JsonAndContent => "omit --json, or get into a file",
            SettingsError::NoCode => "give the code that shiplane send shows, or set SHIPLANE_CODE",
            SettingsError::TooManyWords { .. } => "give the code with hyphens, and one DEST",
            SettingsError::CodeFromStdin(_) => "give the code as an argument, or in SHIPLANE_CODE",
            SettingsError::NobodyToAsk => "give --yes to receive without being asked",
            SettingsError::TicketTtl { .. } => "for longer access, run shiplane peers add on the server",
        },
    )
}

impl Failure {
    /// Of two failures, the one that decides the exit code.
    pub(crate) fn or_worse(self, other: Self) -> Self {
        if other.diagnosis().class.rank() < self.diagnosis().class.rank() { other } else { self }
    }
}
