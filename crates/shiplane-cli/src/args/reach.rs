//! The arguments of `send` and `receive`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::common::{PathArgs, PrintArgs, parse_limit};
use super::{Links, Skip};
use crate::completion;
use crate::units::parse_duration;

#[derive(Debug, Args)]
#[command(after_help = SEND_HELP)]
pub(crate) struct SendArgs {
    /// Files and directories; `DIR/.` is the content of DIR
    #[arg(value_name = "PATH", required_unless_present = "text")]
    pub(crate) paths: Vec<PathBuf>,
    /// Send this text, which the receiver's program prints
    #[arg(long, value_name = "TEXT", conflicts_with = "paths")]
    pub(crate) text: Option<String>,
    /// Number of receivers, each within ten minutes of the one before
    #[arg(long = "to", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) receivers: u32,
    /// Serve any number of receivers, until Ctrl-C
    #[arg(long, conflicts_with = "receivers")]
    pub(crate) stay: bool,
    /// Words in the code, from 2 to 8; each makes it 256 times harder to guess
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub(crate) code_words: u8,
    /// UDP address to listen on [default: [::]:7514, IPv4 and IPv6, or any free port if that is taken]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Bandwidth limit per direction, e.g. 10MB or 80Mbit [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub(crate) rate: Option<NonZeroU64>,
    /// Also show the code as a QR code
    #[arg(long)]
    pub(crate) qr: bool,
    /// How long the code waits, for tests
    #[arg(long, hide = true, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) code_ttl: Option<Duration>,
    /// Print one JSON event per line; the first contains the code
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = RECEIVE_HELP)]
pub(crate) struct ReceiveArgs {
    /// Code that `shiplane send` shows; `-` reads it from standard input
    #[arg(value_name = "CODE", add = ArgValueCompleter::new(completion::codes))]
    pub(crate) code: Option<OsString>,
    /// Where it lands, as with `get` [default: the current directory]
    #[arg(value_name = "DEST")]
    pub(crate) dest: Option<OsString>,
    /// The rest of a code that was typed with blanks
    #[arg(hide = true)]
    pub(crate) rest: Vec<OsString>,
    /// Where the sender listens, for networks without multicast
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) at: Option<String>,
    /// Receive without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Replace existing files that differ
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Leave existing files that differ as they are, and copy the others
    #[arg(long, conflicts_with = "overwrite")]
    pub(crate) keep_existing: bool,
    /// Kinds of paths to skip, without reporting them as left out
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    pub(crate) skip: Vec<Skip>,
    /// Which symbolic links to create; they are never followed
    #[arg(long, value_name = "WHICH", value_enum, default_value = "inside")]
    pub(crate) links: Links,
    /// Accept owners, access lists and extended attributes of the sender's files
    #[arg(long)]
    pub(crate) attributes: bool,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    #[command(flatten)]
    pub(crate) print: PrintArgs,
}

const SEND_HELP: &str = "\
Run the printed command on the other machine. The code is for one receiver and is valid for ten minutes. \
After three wrong attempts it is void, and `send` ends. Only the named paths can be read. `send` ends when the \
receiver has everything. If either side is interrupted before, the receiver repeats its command to resume.";

const RECEIVE_HELP: &str = "\
Shows what would arrive and from whom, and asks before it writes anything. Without DEST, names that begin with \
a dot are refused. Without CODE, the code is read from the variable SHIPLANE_CODE. This and `-` hide it from the \
process list. To resume an interrupted run, repeat the command.";
