//! The arguments of `ticket` and `peers`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use shiplane::{PeerId, Peers};

use super::common::{TicketUses, parse_uses};
use crate::completion;
use crate::units::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Make a ticket for a directory that this machine serves, now or later
    New(TicketNew),
    /// List the tickets that are valid, with what they permit and who has used them
    List,
    /// Revoke a ticket; running servers close the sessions of its clients within a second
    Revoke {
        /// Id of the ticket, as printed by `shiplane ticket list`
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TicketNew {
    /// Directory or file that is served
    #[arg(value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// Permit push and sync as well, to a server with --writable
    #[arg(long)]
    pub(crate) writable: bool,
    /// Limit the ticket to PATH within DIR, and everything below it
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<OsString>,
    /// Where clients find the server; repeat for several [default: this machine's addresses, and port 7514]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) at: Vec<String>,
    /// Ticket lifetime, e.g. 90s, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub(crate) ticket_ttl: Duration,
    /// How many clients may use the ticket, each any number of times, or `any`
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_uses)]
    pub(crate) ticket_uses: TicketUses,
    /// Also show the ticket as a QR code
    #[arg(long)]
    pub(crate) qr: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeersCommand {
    /// Add a peer or change its permissions; without --read or --write, it only gets a name
    Add(PeersAdd),
    /// List peers with their ids, permissions and paths
    List,
    /// List servers on the local network that run with `shiplane serve --announce`
    Nearby {
        /// How long to listen, e.g. 2s
        #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
        wait: Duration,
    },
    /// Remove a peer; running servers close its sessions within a second
    Remove {
        /// Name of the peer
        #[arg(value_parser = parse_name, add = ArgValueCompleter::new(completion::names))]
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("rights").args(["read", "write"]).multiple(true)))]
pub(crate) struct PeersAdd {
    /// Name of the peer: letters, digits, dots, underscores, hyphens
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// Peer id, as printed by `shiplane id` on that machine
    #[arg(value_name = "PEERID")]
    pub(crate) id: PeerId,
    /// Permit the peer to get
    #[arg(long)]
    pub(crate) read: bool,
    /// Permit the peer to push to `serve --writable`; with --read also to sync
    #[arg(long)]
    pub(crate) write: bool,
    /// Where the peer is found, so that NAME or NAME/PATH is enough; repeat for several [default port: 7514]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) at: Vec<String>,
    /// Limit the permissions to PATH within the served root, and everything below it [default: everything]
    #[arg(long = "path", value_name = "PATH", requires = "rights")]
    pub(crate) paths: Vec<OsString>,
}

fn parse_name(text: &str) -> Result<String, shiplane::Error> {
    Peers::check_name(text).map(|()| text.to_owned())
}
