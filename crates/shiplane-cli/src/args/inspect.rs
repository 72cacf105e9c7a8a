//! Arguments of `ls`, `ping` and `doctor`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::{FilterArgs, Skip, SshArgs};
use crate::completion;

/// Where to look.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Ticket URL, or NAME[/PATH] or NAME|PEERID@HOST[:PORT][/PATH], or [USER@]HOST:PATH over ssh; omit it if the ticket comes from a file or variable
    #[arg(value_name = "SOURCE", add = ArgValueCompleter::new(completion::servers))]
    pub(crate) source: Option<OsString>,
    /// Read the ticket from FILE; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) ssh: SshArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Show permissions, sizes, times and the targets of links
    #[arg(short = 'l', long)]
    pub(crate) long: bool,
    /// List directories with everything below them
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Kinds of paths to skip, without reporting them as left out
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    pub(crate) skip: Vec<Skip>,
    #[command(flatten)]
    pub(crate) filters: FilterArgs,
    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How many round trips to measure
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) count: u16,
    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Directory whose disk is measured, for two seconds, with up to 256 MiB
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,
}
