//! Errors of servers that are started by ssh.

use std::io;

use shiplane_reach::internals::{SshCommandError, SshError, SshRequestError};

use super::diagnosis::{Diagnosis, ErrorKind, here, there, unreachable_by_network};

/// Why a server that is started by ssh is not reached, or is lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SshFailure {
    #[error("{host}: {source}")]
    Start { host: String, source: SshError },
    #[error(transparent)]
    Command(#[from] SshCommandError),
    #[error("the ssh session to {host} has ended")]
    Ended { host: String },
    #[error("another program has written to the ssh session to {host}")]
    Garbled { host: String },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A better route is available: not shown as a failure.
    #[error("the job continues over another route")]
    Moved,
    #[error("{0}")]
    Request(SshRequestError),
    #[error("cannot use standard input and output: {0}")]
    Streams(io::Error),
    #[error("there is no home directory")]
    NoHome,
    #[error("only ~ alone stands for a home directory; {user} is not looked up")]
    OtherHome { user: String },
    #[error("the path {path} cannot be created")]
    Path { path: String },
}

impl SshFailure {
    /// Whether another attempt may succeed.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Start { source, .. } => matches!(source, SshError::NoLogin),
            Self::Ended { .. } | Self::Garbled { .. } | Self::Moved => true,
            Self::Command(_)
            | Self::Thread(_)
            | Self::Request(_)
            | Self::Streams(_)
            | Self::NoHome
            | Self::OtherHome { .. }
            | Self::Path { .. } => false,
        }
    }

    pub(super) fn diagnosis(&self) -> Diagnosis {
        use ErrorKind::{LocalIo, Other, Refused, Usage};
        match self {
            Self::Start { source, .. } => start(source),
            Self::Command(_) => here(Usage, "give a command such as ssh -p 2222 -i KEY"),
            Self::Ended { .. } | Self::Moved => {
                unreachable_by_network("run the same command again to resume")
            }
            Self::Garbled { .. } => there(
                Other,
                "let nothing on that machine write to the output of sessions without a terminal; then run the same \
                 command again to resume",
            ),
            Self::Thread(_) => here(LocalIo, "check the limits of this user (ulimit -a)"),
            Self::Request(_) => {
                here(Usage, "this command is for shiplane on another machine, which starts it by ssh")
            }
            Self::Streams(_) => {
                here(LocalIo, "this command is for shiplane on another machine, which starts it by ssh")
            }
            Self::NoHome => here(LocalIo, "give an absolute path"),
            Self::OtherHome { .. } => here(Usage, "give the full path, or ./~NAME for a file of that name"),
            Self::Path { .. } => here(Refused, "give a path without .. in the part that does not exist yet"),
        }
    }
}

fn start(error: &SshError) -> Diagnosis {
    use ErrorKind::{Identity, Integrity, LocalIo, Other, Refused, Unreachable, Usage};
    match error {
        SshError::NotStarted { .. } => here(LocalIo, "install OpenSSH, or name your ssh with --ssh"),
        SshError::NoLogin => unreachable_by_network("see above what ssh says; `ssh HOST` must work first"),
        SshError::Missing(_) => {
            there(Other, "install shiplane on that machine, or name it there with --remote-path PROGRAM")
        }
        SshError::TooOld | SshError::OtherVersion(_) => {
            there(Other, "install the same version of shiplane on both machines")
        }
        SshError::NoGreeting { .. } => there(
            Other,
            "if a command is forced for this login, it must be shiplane serve --stdio-ticket; if the shell there is \
             none of Unix, name the program with --remote-path PROGRAM",
        ),
        SshError::Refused { class, .. } => {
            let kind = match class {
                2 => Usage,
                3 => Unreachable,
                4 => Identity,
                5 => Integrity,
                6 => Refused,
                7 => LocalIo,
                _ => Other,
            };
            there(kind, "check the path and its permissions on that machine")
        }
    }
}
