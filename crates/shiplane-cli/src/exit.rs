//! What a failure means: its exit code, the side it is on, and what to do next. The one place where
//! errors of the libraries become any of these.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use shiplane_protocols::access::{EditError, PeersError};
use shiplane_transport::IdentityError;
use shiplane_wire::{PathRefused, escape};

use crate::args::Cli;
use crate::home::HomeError;
use crate::logging::print_line;

/// Everything that ends a command before it is done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the list of peers is broken: {0}")]
    Peers(#[from] PeersError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("the root is refused: {0}")]
    Root(PathRefused),
    #[error("there is no command {name}")]
    NoSuchCommand { name: String },
    #[error("cannot write to standard output: {0}")]
    Stdout(io::Error),
}

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Usage = 2,
    Identity = 4,
    LocalIo = 7,
}

/// Where the cause is, so that one knows where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    ThisMachine,
}

/// A failure, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) class: Class,
    pub(crate) side: Side,
    pub(crate) hint: &'static str,
}

impl Failure {
    /// What this failure means to a script and to a person.
    pub(crate) fn verdict(&self) -> Verdict {
        use Class::{Identity, LocalIo, Usage};
        let (class, hint) = match self {
            Self::Home(_) => (Usage, "set SHIPLANE_HOME to a directory of your own"),
            Self::Identity(error) => match error {
                IdentityError::Io { .. } | IdentityError::NoRandomness => {
                    (LocalIo, "see to the file, or set SHIPLANE_HOME to another directory")
                }
                IdentityError::NotPrivate { .. }
                | IdentityError::Malformed { .. }
                | IdentityError::Damaged { .. } => {
                    (Identity, "see to the key file; without its old key this machine is a stranger")
                }
            },
            Self::Peers(error) | Self::Edit(EditError::List(error)) => match error {
                PeersError::Unreadable { .. } => (LocalIo, "see to the file; until then nobody is let in"),
                PeersError::WritableByOthers { .. } => {
                    (Identity, "look through it, then chmod 600 it; until then nobody is let in")
                }
                PeersError::TooLong { .. } | PeersError::Malformed { .. } => {
                    (Identity, "mend the file by hand; until then nobody is let in")
                }
            },
            Self::Edit(EditError::NameTaken { .. }) => (
                Identity,
                "if the peer really has a new key, check the id with its owner, \
                 then shiplane peers remove the name and add it again",
            ),
            Self::Edit(EditError::IdTaken { .. }) => {
                (Usage, "use that name, or shiplane peers remove it first")
            }
            Self::Edit(EditError::NoSuchPeer { .. }) => (Usage, "shiplane peers list shows the names"),
            Self::Edit(EditError::Unwritable { .. }) => {
                (LocalIo, "see to the space and the permissions there; the list is as it was")
            }
            Self::Root(_) => (Usage, "give a path relative to what is served, as in photos/2024"),
            Self::NoSuchCommand { .. } => (Usage, "shiplane --help lists the commands"),
            Self::Stdout(_) => (LocalIo, "see to whatever reads the output"),
        };
        Verdict { class, side: Side::ThisMachine, hint }
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::ThisMachine => "this machine",
        }
    }
}

/// Tells the person what happened, and the script by the exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    let verdict = failure.verdict();
    print_line(&format!("error: {} ({})", printable(&failure.to_string()), verdict.side.name()));
    print_line(&format!("hint: {}", verdict.hint));
    ExitCode::from(verdict.class as u8)
}

/// Prints what the argument parser has to say: help and version to standard output, anything else
/// as a usage error.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&Failure::Stdout(error)),
        };
    }
    let message = error.render();
    let text = if io::stderr().is_terminal() { message.ansi().to_string() } else { message.to_string() };
    let kept: Vec<&str> = text.lines().take_while(|line| !line.starts_with("For more information")).collect();
    print_line(kept.join("\n").trim_end());
    // Where the help was all there was to say, it is no use to point to it.
    if error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        print_line(&format!("hint: {} tells what it takes", help_command()));
    }
    ExitCode::from(Class::Usage as u8)
}

/// The help that fits what was typed: that of the command, if one was named.
fn help_command() -> String {
    let program = Cli::command();
    let mut command = &program;
    let mut text = "shiplane".to_owned();
    for word in std::env::args_os().skip(1) {
        if let Some(named) = command.find_subcommand(word) {
            command = named;
            text = format!("{text} {}", named.get_name());
        }
    }
    text + " --help"
}

/// A message that cannot drive a terminal, whatever a library has put into it. Text that is clean
/// stays as it is: what was escaped already is not escaped again.
fn printable(message: &str) -> String {
    let escaped = escape(message.as_bytes()).to_string();
    if escaped.replace("\\\\", "\\") == message { message.to_owned() } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_escaped_once() {
        assert_eq!(printable(r"no file a\x1bb"), r"no file a\x1bb");
        assert_eq!(printable("no file a\u{1b}b"), r"no file a\x1bb");
        assert_eq!(printable("C:\\é"), "C:\\é");
    }
}
