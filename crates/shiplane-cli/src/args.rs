//! The command line as typed. `settings` interprets it.

mod common;
mod filters;
mod help;
mod inspect;
mod links;
mod manage;
mod reach;
mod serve;
mod ssh;
mod sync;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use clap_complete::engine::ArgValueCompleter;

pub(crate) use self::common::{
    Compress, Digest, Durability, ExistingArgs, JobArgs, PathArgs, PrintArgs, TicketUses,
};
pub(crate) use self::filters::{FilterArgs, Pattern};
use self::help::{DOCTOR_HELP, EXIT_CODES, GET_HELP, LS_HELP, PUSH_HELP};
pub(crate) use self::inspect::{DoctorArgs, LsArgs, PingArgs, SourceArgs};
pub(crate) use self::links::{Links, Skip};
pub(crate) use self::manage::{PeersAdd, PeersCommand, TicketCommand, TicketNew};
pub(crate) use self::reach::{ReceiveArgs, SendArgs};
#[cfg(feature = "status")]
pub(crate) use self::serve::MetricsArgs;
pub(crate) use self::serve::ServeArgs;
pub(crate) use self::ssh::SshArgs;
pub(crate) use self::sync::{OneWay, SyncArgs};
use crate::completion;
use crate::units::parse_duration;

#[derive(Debug, Parser)]
#[command(
    name = "shiplane",
    version,
    about = "Copy and sync files between two machines over one authenticated QUIC connection",
    after_help = EXIT_CODES,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Log more to standard error; repeat for more detail
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 900)]
    pub(crate) verbose: u8,

    /// Write lines on standard error as text, or each as a JSON object for programs that collect logs
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true, value_name = "FORMAT", display_order = 901)]
    pub(crate) log_format: LogFormat,
}

/// How lines on standard error are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send files to the holder of the code that it prints
    Send(SendArgs),
    /// Receive what the sender of a code offers
    Receive(ReceiveArgs),
    /// Serve a directory or a file and print a ticket for it
    Serve(ServeArgs),
    /// Fetch a file or a tree
    Get(GetArgs),
    /// Send files, trees or standard input to a writable server
    Push(PushArgs),
    /// Sync a directory with one on a writable server, in both directions
    Sync(SyncArgs),
    /// List what a server has, without fetching it
    #[command(after_help = LS_HELP)]
    Ls(LsArgs),
    /// Measure the round trip to a server, and show its route and version
    Ping(PingArgs),
    /// Find out what makes transfers slow, on this machine and, with SOURCE, on the path to a server
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Remove temporary files that interrupted runs have left in a directory
    Clean(CleanArgs),
    /// Print this machine's peer id; create its key on first use
    Id,
    /// Manage known peers and their permissions
    #[command(subcommand)]
    Peers(PeersCommand),
    /// Manage the tickets that this machine's servers have given out
    #[command(subcommand)]
    Ticket(TicketCommand),
    /// Print a completion script for a shell, e.g. `source <(shiplane completions bash)`
    Completions {
        /// Shell to print completions for
        shell: Shell,
    },
    /// Print the manual page of shiplane or of one command
    Man {
        /// Command, e.g. `shiplane man peers add`
        command: Vec<String>,
    },
}

impl Command {
    /// Whether another machine has started it, whose terminal standard error is.
    pub(crate) fn is_for_ssh(&self) -> bool {
        matches!(self, Self::Serve(args) if args.stdio_ticket)
    }

    /// Whether the output is JSON events, so that a failure must be one too.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Send(args) => args.json,
            Self::Receive(args) => args.print.json,
            Self::Serve(args) => args.json,
            Self::Get(args) => args.print.json,
            Self::Push(args) => args.print.json,
            Self::Sync(args) => args.print.json,
            Self::Ls(args) => args.json,
            Self::Ping(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Clean(args) => args.json,
            Self::Id | Self::Peers(_) | Self::Ticket(_) | Self::Completions { .. } | Self::Man { .. } => {
                false
            }
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = GET_HELP, override_usage = "shiplane get [OPTIONS] [SOURCE]... [DEST]")]
pub(crate) struct GetArgs {
    /// Ticket URLs, or NAME[/PATH] or NAME|PEERID@HOST[:PORT][/PATH], or [USER@]HOST:PATH over ssh; last the destination,
    /// or `-` for standard output [default: ./]; omit SOURCE if the ticket comes from a file or variable
    #[arg(value_names = ["SOURCE", "DEST"], num_args = 1.., add = ArgValueCompleter::new(completion::servers_and_files))]
    pub(crate) paths: Vec<OsString>,
    #[command(flatten)]
    pub(crate) existing: ExistingArgs,
    /// Compare existing files by content, not only by size and time
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print the SHA-256 of each file, like `sha256sum`
    #[arg(long)]
    pub(crate) sha256: bool,
    /// When a file counts as done
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub(crate) durability: Durability,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Fetch one chunk from the Octopii node SOURCE, a HOST:PORT; WITHOUT AUTHENTICATION
    #[cfg(feature = "octopii")]
    #[arg(long, conflicts_with_all = ["ticket_file", "overwrite", "keep_existing", "backup", "delete", "dry_run", "verify", "sha256", "durability", "jobs", "chunk", "explain", "skip", "links", "attributes", "rate", "compress", "digest", "give_up_after", "exclude", "include", "exclude_from", "files_from", "ignore", "one_file_system", "json"])]
    pub(crate) insecure_octopii: bool,
    /// With --insecure-octopii: file to write the chunk to [default: octopii-chunk]
    #[cfg(feature = "octopii")]
    #[arg(short, long, value_name = "FILE", requires = "insecure_octopii")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(Debug, Args)]
#[command(after_help = PUSH_HELP)]
pub(crate) struct PushArgs {
    /// Files and directories, or `-` for standard input; last a ticket URL or NAME[/PATH] or NAME|PEERID@HOST[:PORT][/PATH],
    /// or [USER@]HOST:PATH over ssh; omit TARGET if the ticket comes from a file or variable
    #[arg(value_names = ["PATH", "TARGET"], num_args = 1.., required = true, add = ArgValueCompleter::new(completion::servers_and_files))]
    pub(crate) paths: Vec<OsString>,
    #[command(flatten)]
    pub(crate) existing: ExistingArgs,
    /// When a file counts as done
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub(crate) durability: Durability,
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Send one file to the Octopii node TARGET, a HOST:PORT; WITHOUT AUTHENTICATION
    #[cfg(feature = "octopii")]
    #[arg(long, conflicts_with_all = ["ticket_file", "overwrite", "keep_existing", "backup", "delete", "dry_run", "durability", "jobs", "chunk", "explain", "skip", "links", "attributes", "rate", "compress", "digest", "give_up_after", "exclude", "include", "exclude_from", "files_from", "ignore", "one_file_system", "json"])]
    pub(crate) insecure_octopii: bool,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Directory that runs have written to; everything below it is searched
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Keep what was changed within TIME, e.g. 12h or 7d: those runs can still be resumed
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    pub(crate) older_than: Duration,
    /// Show what would be removed; remove nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,
}
