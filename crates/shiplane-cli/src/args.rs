//! The command line as it is typed. What it means is settled in `settings`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::Serialize;
use shiplane::{Compression, DigestAlgorithm, MAX_CHUNK_LEN_BYTES, PeerId, Peers};

use crate::units::{UnitError, parse_duration, parse_rate, parse_size};

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
    /// Serve a directory and print the ticket URL that reaches it
    Serve(ServeArgs),
    /// Fetch a file or a tree: verified, durable, resumed if it was cut
    Get(GetArgs),
    /// Push files, trees or standard input to a server that is writable: verified, durable, resumed
    Push(PushArgs),
    /// Bring a directory and one of a server that is writable together: both directions, nothing lost
    Sync(SyncArgs),
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

impl Command {
    /// Whether a program reads the output, and a failure should be an event too.
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Serve(args) => args.json,
            Self::Get(args) => args.json,
            Self::Push(args) => args.json,
            Self::Sync(args) => args.json,
            Self::Id | Self::Peers(_) | Self::Completions { .. } | Self::Man { .. } => false,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The directory to serve, for reading only unless --writable is given
    #[arg(value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// Take what is pushed here, and sync; the ticket carries the right to write too
    #[arg(long)]
    pub(crate) writable: bool,
    /// Where to listen [default: 0.0.0.0:7514, or any free port if that is taken]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// The host that the ticket names [default: the first address others can reach]
    #[arg(long, value_name = "HOST")]
    pub(crate) advertise: Option<String>,
    /// How long the ticket is good for, as in 90s, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub(crate) ticket_ttl: Duration,
    /// Write the ticket to this file too, readable by its owner only
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// The most to send, and again to take, each second, as in 10MB or 80Mbit, over all chunks together [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub(crate) rate: Option<NonZeroU64>,
    /// Send one FILE, given as DIR, to every octopii node that connects: AUTHENTICATES NOBODY
    #[cfg(feature = "octopii")]
    #[arg(long, conflicts_with_all = ["writable", "advertise", "ticket_ttl", "ticket_file", "rate", "json"])]
    pub(crate) insecure_octopii: bool,
    /// Print events as lines of JSON; the first one carries the ticket
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = GET_HELP)]
pub(crate) struct GetArgs {
    /// A ticket URL, or NAME|PEERID@HOST:PORT[/PATH]; DEST alone if the ticket comes from elsewhere
    #[arg(value_name = "SOURCE")]
    pub(crate) first: Option<OsString>,
    /// Where to put it, as with `cp -r`; `-` writes one file to standard output [default: .]
    #[arg(value_name = "DEST")]
    pub(crate) second: Option<OsString>,
    /// Replace files that are there already with other content
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Compare files that are there already by content, not just by size and time
    #[arg(long)]
    pub(crate) verify: bool,
    /// Print the SHA-256 of each file, as `sha256sum` does
    #[arg(long)]
    pub(crate) sha256: bool,
    /// What to wait for: on the disk for good, or received and verified
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub(crate) durability: Durability,
    #[command(flatten)]
    pub(crate) moving: MovingArgs,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    /// Take one chunk from the octopii node at HOST:PORT, given as SOURCE: AUTHENTICATES NOBODY
    #[cfg(feature = "octopii")]
    #[arg(long, conflicts_with_all = ["ticket_file", "overwrite", "verify", "sha256", "durability", "jobs", "chunk", "rate", "compress", "digest", "json"])]
    pub(crate) insecure_octopii: bool,
    /// With --insecure-octopii, where to put the chunk [default: octopii-chunk]
    #[cfg(feature = "octopii")]
    #[arg(short, long, value_name = "FILE", requires = "insecure_octopii")]
    pub(crate) output: Option<PathBuf>,
    /// Print events as lines of JSON on standard output
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = PUSH_HELP)]
pub(crate) struct PushArgs {
    /// Files and directories, or `-` for standard input; then a ticket URL or
    /// NAME|PEERID@HOST:PORT[/PATH], unless the ticket comes from elsewhere
    #[arg(value_names = ["PATH", "TARGET"], num_args = 1.., required = true)]
    pub(crate) paths: Vec<OsString>,
    /// Replace files that are there already with other content
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// What to wait for: on the server's disk for good, or received and verified
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub(crate) durability: Durability,
    #[command(flatten)]
    pub(crate) moving: MovingArgs,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    /// Send one FILE to the octopii node at HOST:PORT, given as TARGET: AUTHENTICATES NOBODY
    #[cfg(feature = "octopii")]
    #[arg(long, conflicts_with_all = ["ticket_file", "overwrite", "durability", "jobs", "chunk", "rate", "compress", "digest", "json"])]
    pub(crate) insecure_octopii: bool,
    /// Print events as lines of JSON on standard output
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = SYNC_HELP)]
pub(crate) struct SyncArgs {
    /// The directory on this side; it must be there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// A ticket URL or NAME|PEERID@HOST:PORT[/PATH], unless the ticket comes from elsewhere
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<OsString>,
    /// Say what is to be done on which side and why, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Go on even if one side loses more than half of its files, or more than a thousand
    #[arg(long)]
    pub(crate) allow_mass_deletion: bool,
    #[command(flatten)]
    pub(crate) moving: MovingArgs,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    /// Print events as lines of JSON on standard output
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How `get`, `push` and `sync` find and move things.
#[derive(Debug, Args)]
pub(crate) struct MovingArgs {
    /// Read the ticket from this file, or from standard input if it is `-`
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// The most chunks on their way at a time, in each direction
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) jobs: u16,
    /// Bytes read, hashed and written at a time
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = parse_buffer_size)]
    pub(crate) buffer: usize,
    /// The most bytes verified, kept and resumed as one; fewer on a slow path, more where a file has too many of them
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = parse_chunk_size)]
    pub(crate) chunk: u64,
}

/// How `get`, `push` and `sync` treat the path that things take.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// The most to move each second, as in 10MB or 80Mbit, over all chunks together [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub(crate) rate: Option<NonZeroU64>,
    /// Compress what shrinks on its way; `always` tries everything, even films and archives
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = Compress::Never,
        default_missing_value = "auto"
    )]
    pub(crate) compress: Compress,
    /// What data is verified with on its way
    #[arg(long, value_enum, default_value_t = Digest::Blake3)]
    pub(crate) digest: Digest,
}

/// What `get` and `push` wait for before they say that they are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Every byte is verified and on the disk for good
    Durable,
    /// Every byte is verified; the system may still hold some in memory
    Verified,
}

impl Durability {
    pub(crate) fn is_durable(self) -> bool {
        self == Self::Durable
    }
}

/// What `get`, `push` and `sync` have compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    /// What a sample of shrinks
    Auto,
    /// Whatever shrinks, found out by trying
    Always,
    /// Nothing
    Never,
}

impl Compress {
    /// As the library names it.
    pub(crate) fn compression(self) -> Compression {
        match self {
            Self::Auto => Compression::Auto,
            Self::Always => Compression::Always,
            Self::Never => Compression::Never,
        }
    }
}

/// What `get`, `push` and `sync` verify data with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Digest {
    /// BLAKE3
    Blake3,
    /// SHA-256: slower on most processors
    Sha256,
}

impl Digest {
    /// As the library names it.
    pub(crate) fn algorithm(self) -> DigestAlgorithm {
        match self {
            Self::Blake3 => DigestAlgorithm::Blake3,
            Self::Sha256 => DigestAlgorithm::Sha256,
        }
    }
}

impl From<DigestAlgorithm> for Digest {
    fn from(algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Blake3 => Self::Blake3,
            DigestAlgorithm::Sha256 => Self::Sha256,
        }
    }
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
        #[arg(value_parser = parse_name)]
        name: String,
    },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("rights").args(["read", "write"]).multiple(true)))]
pub(crate) struct PeersAdd {
    /// A name for the peer: letters, digits, dots, underscores, hyphens
    #[arg(value_parser = parse_name)]
    pub(crate) name: String,
    /// What `shiplane id` prints on that peer
    #[arg(value_name = "PEERID")]
    pub(crate) id: PeerId,
    /// Let the peer fetch what this machine serves
    #[arg(long)]
    pub(crate) read: bool,
    /// Let the peer push here, and with --read sync, while `serve --writable` runs; without rights, it only gets a name
    #[arg(long)]
    pub(crate) write: bool,
    /// Where the rights hold: a path within what is served, and all below it [default: everything]
    #[arg(long = "root", value_name = "PATH", requires = "rights")]
    pub(crate) roots: Vec<OsString>,
}

fn parse_name(text: &str) -> Result<String, shiplane::Error> {
    Peers::check_name(text).map(|()| text.to_owned())
}

fn parse_buffer_size(text: &str) -> Result<usize, SizeError> {
    let size = sized(text, MIN_BUFFER_LEN_BYTES, MAX_BUFFER_LEN_BYTES)?;
    usize::try_from(size).map_err(|_| SizeError::Unit(UnitError::TooLarge))
}

fn parse_chunk_size(text: &str) -> Result<u64, SizeError> {
    sized(text, MIN_CHUNK_LEN_BYTES, MAX_CHUNK_LEN_BYTES)
}

fn parse_limit(text: &str) -> Result<NonZeroU64, SizeError> {
    let rate = parse_rate(text)?;
    NonZeroU64::new(rate).filter(|rate| rate.get() >= MIN_RATE_BYTES_PER_SECOND).ok_or(SizeError::TooSlow)
}

fn sized(text: &str, min_bytes: u64, max_bytes: u64) -> Result<u64, SizeError> {
    let size = parse_size(text)?;
    if !(min_bytes..=max_bytes).contains(&size) {
        return Err(SizeError::OutOfRange { min_bytes, max_bytes });
    }
    Ok(size)
}

/// Why a size cannot be used for what it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum SizeError {
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error("this must be from {} KiB to {} KiB", .min_bytes / 1024, .max_bytes / 1024)]
    OutOfRange { min_bytes: u64, max_bytes: u64 },
    #[error("this must be 1KB at least, and 0 is no way to say that there is no limit")]
    TooSlow,
}

/// 4 KiB: a page; below it the system calls cost more than the copying.
const MIN_BUFFER_LEN_BYTES: u64 = 4 << 10;

/// 4 MiB: with 16 jobs still all of the memory a process may take.
const MAX_BUFFER_LEN_BYTES: u64 = 4 << 20;

/// 64 KiB: below it every chunk is mostly its own overhead of a stream and a round trip.
const MIN_CHUNK_LEN_BYTES: u64 = 64 << 10;

/// 1 KB: below it, what is shared by 32 chunks could be too little for each to be alive.
const MIN_RATE_BYTES_PER_SECOND: u64 = 1000;

const GET_HELP: &str = "\
The ticket is SOURCE, or is read from --ticket-file, or from the variable SHIPLANE_TICKET; the
last two keep it out of the list of processes. A run that was cut is resumed by the same command.";

const PUSH_HELP: &str = "\
Each PATH goes by its name into the directory that TARGET names, which is created; `.` stands for
what is in it. Standard input goes to the file that TARGET names: NAME@HOST:PORT/DIR/FILE, or a
ticket URL with /DIR/FILE before its #.
The ticket is TARGET, or is read from --ticket-file, or from the variable SHIPLANE_TICKET; the
last two keep it out of the list of processes. A run that was cut is resumed by the same command.";

const SYNC_HELP: &str = "\
What either side has written or deleted since the last sync is done on the other. Where both have
changed a file, the later version keeps its name and the other is kept beside it. What somebody
edits meanwhile is left alone; the same command settles it.
The ticket is TARGET, or is read from --ticket-file, or from the variable SHIPLANE_TICKET; the
last two keep it out of the list of processes. A run that was cut goes on by the same command.";

const EXIT_CODES: &str = "\
Exit codes: 0 done, verified and durable · 1 other failure · 2 usage · 3 peer unreachable or silent
4 identity or authorisation · 5 integrity · 6 refused (path, limit, exists)
7 local input or output (no space, permission) · 130 interrupted

The key of this machine, the list of its peers and what it remembers of syncs are in
$SHIPLANE_HOME, else in the usual directories of the platform.";
