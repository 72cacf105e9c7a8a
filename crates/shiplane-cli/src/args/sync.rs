//! The arguments of `sync`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use shiplane::Side;

use super::common::{JobArgs, PrintArgs};
use super::help::SYNC_HELP;
use crate::completion;

#[derive(Debug, Args)]
#[command(after_help = SYNC_HELP)]
pub(crate) struct SyncArgs {
    /// Local directory; it must exist
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Ticket URL, or NAME[/PATH] or NAME|PEERID@HOST[:PORT][/PATH], or [USER@]HOST:PATH over ssh; omit it if the ticket comes from a file or variable
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(completion::servers))]
    pub(crate) target: Option<OsString>,
    /// Show what would change on each side and why; change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Continue until Ctrl-C, and sync again after every change on either side; by default, wait for an absent server without limit
    #[arg(long, conflicts_with_all = ["dry_run", "explain"])]
    pub(crate) watch: bool,
    /// Take changes in one direction only: `push` changes only the server's side, `get` only this one
    #[arg(long, value_name = "WAY", value_enum)]
    pub(crate) one_way: Option<OneWay>,
    /// Permit a sync that deletes more than half of one side's files, or more than 1,000
    #[arg(long)]
    pub(crate) allow_mass_deletion: bool,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

/// The one direction of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OneWay {
    /// Apply this side's changes on the server's side
    Push,
    /// Apply the server's changes on this side
    Get,
}

impl OneWay {
    /// The side that is changed.
    pub(crate) fn to(self) -> Side {
        match self {
            Self::Push => Side::Peer,
            Self::Get => Side::ThisMachine,
        }
    }
}
