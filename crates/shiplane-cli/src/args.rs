//! The command line as it is typed. What it means is settled in `settings`.

use std::ffi::OsString;

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use shiplane_protocols::access::PeerName;
use shiplane_transport::PeerId;

#[derive(Debug, Parser)]
#[command(
    name = "shiplane",
    version,
    about = "Serve a directory, get it on the other side: verified, durable, resumable",
    after_help = EXIT_CODES,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Log more to standard error; twice and three times still more
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the peer id of this machine, and make its key if there is none yet
    Id,
    /// Give keys names, and rights on what this machine serves
    #[command(subcommand)]
    Peers(PeersCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell that is to complete the commands
        shell: Shell,
    },
    /// Print the manual page, or that of one command
    Man {
        /// A command, as in `shiplane man peers add`
        command: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// Add a peer, or change the rights of one
    Add(PeersAdd),
    /// List the peers with their ids, rights and roots
    List,
    /// Remove a peer; a running server closes its sessions within a second
    Remove {
        /// The name it was added with
        name: PeerName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PeersAdd {
    /// A name for the peer: letters, digits, dots, underscores, hyphens
    pub(crate) name: PeerName,
    /// What `shiplane id` prints on that peer
    #[arg(value_name = "PEERID")]
    pub(crate) id: PeerId,
    /// Let the peer fetch what this machine serves; without this, it only gets a name
    #[arg(long)]
    pub(crate) read: bool,
    /// Where the rights hold: a path within what is served, and all below it [default: everything]
    #[arg(long = "root", value_name = "PATH", requires = "read")]
    pub(crate) roots: Vec<OsString>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, verified and durable · 1 other failure · 2 usage · 3 peer unreachable or silent
4 identity or authorisation · 5 integrity · 6 refused (path, limit, exists)
7 local input or output (no space, permission) · 130 interrupted

The key of this machine and the list of its peers are in $SHIPLANE_HOME, else in the usual
directories of the platform.";
