//! Options that several commands have, and their values.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use shiplane::{Compression, DigestAlgorithm, MAX_CHUNK_LEN_BYTES};

use super::filters::FilterArgs;
use super::links::{Links, Skip};
use super::ssh::SshArgs;
use crate::units::{UnitError, parse_duration, parse_rate, parse_size};

/// Options of `get` and `push`: files that exist with other content. Without any, they end the run.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ExistingArgs {
    /// Replace existing files that differ
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Leave existing files that differ as they are, and copy the others
    #[arg(long, conflicts_with_all = ["overwrite", "backup"])]
    pub(crate) keep_existing: bool,
    /// Replace existing files that differ, and keep each under its name with SUFFIX; without SUFFIX: ~
    #[arg(long, value_name = "SUFFIX", num_args = 0..=1, require_equals = true, default_missing_value = "~")]
    pub(crate) backup: Option<String>,
    /// Delete files that the source does not have from the directory that it becomes, except excluded ones
    #[arg(long)]
    pub(crate) delete: bool,
    /// Show what would be copied, replaced and deleted; change nothing. For a push this needs permission to read
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// With --delete: delete even more than half of the files, or more than 1,000
    #[arg(long, requires = "delete")]
    pub(crate) yes: bool,
}

/// Options of `get`, `push` and `sync`.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    pub(crate) moving: MovingArgs,
    #[command(flatten)]
    pub(crate) ssh: SshArgs,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    #[command(flatten)]
    pub(crate) filters: FilterArgs,
}

impl JobArgs {
    /// Whether standard input is the ticket.
    pub(crate) fn has_ticket_on_stdin(&self) -> bool {
        self.moving.ticket_file.as_deref() == Some(Path::new("-"))
    }
}

/// Options of jobs: what is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PrintArgs {
    /// Print one JSON event per line
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) json: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Options of `get`, `push` and `sync`: ticket, buffers, chunks.
#[derive(Debug, Args)]
pub(crate) struct MovingArgs {
    /// Read the ticket from FILE; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) ticket_file: Option<PathBuf>,
    /// Maximum number of chunks in flight per direction
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) jobs: u16,
    /// Buffer size for reading, hashing and writing
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = parse_buffer_size)]
    pub(crate) buffer: usize,
    /// Maximum chunk size, the unit of verification and resume; smaller on slow paths, larger for huge files
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = parse_chunk_size)]
    pub(crate) chunk: u64,
    /// Measure disk, processor and path for some five seconds first, and compare the run's rate with them at the end
    #[arg(long)]
    pub(crate) explain: bool,
    /// Kinds of paths to skip, without reporting them as left out
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',')]
    pub(crate) skip: Vec<Skip>,
    /// Which symbolic links to carry; they are never followed
    #[arg(long, value_name = "WHICH", value_enum, default_value = "all")]
    pub(crate) links: Links,
    /// Carry owners, access lists and extended attributes too; a server needs --attributes to take them
    #[arg(long)]
    pub(crate) attributes: bool,
}

/// Options of `get`, `push` and `sync`: rate, compression, digest.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// Bandwidth limit per direction, e.g. 10MB or 80Mbit [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    pub(crate) rate: Option<NonZeroU64>,
    /// Compress data in transit; without WHEN: auto
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
    /// Digest that verifies the data in transit
    #[arg(long, value_enum, default_value_t = Digest::Blake3)]
    pub(crate) digest: Digest,
    /// How long to try to connect again when the connection is lost, e.g. 30s or 1h, or `never` to give up; 0s disables it [default: 2m]
    #[arg(long, value_name = "TIME", value_parser = parse_patience)]
    pub(crate) give_up_after: Option<Duration>,
}

impl PathArgs {
    /// How long a lost connection is dialled if nothing was said: a restart, a lift, a change of network; by what runs on
    /// its own, without end.
    pub(crate) fn patience(&self, is_watching: bool) -> Duration {
        let usual = if is_watching { Duration::MAX } else { Duration::from_secs(120) };
        self.give_up_after.unwrap_or(usual)
    }
}

/// When `get` and `push` report a file as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Verified and synced to disk; survives a power cut
    Durable,
    /// Verified and written; the system may still hold some of it in memory
    Verified,
}

impl Durability {
    pub(crate) fn is_durable(self) -> bool {
        self == Self::Durable
    }
}

/// What `get`, `push` and `sync` compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compress {
    /// Chunks of which a sample compresses well
    Auto,
    /// Every chunk that becomes smaller; costs CPU time
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

/// The digest that verifies transfers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Digest {
    /// BLAKE3
    Blake3,
    /// SHA-256; slower on most processors
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

/// How many clients may use a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TicketUses {
    Clients(u32),
    Any,
}

fn parse_buffer_size(text: &str) -> Result<usize, SizeError> {
    let size = sized(text, MIN_BUFFER_LEN_BYTES, MAX_BUFFER_LEN_BYTES)?;
    usize::try_from(size).map_err(|_| SizeError::Unit(UnitError::TooLarge))
}

fn parse_chunk_size(text: &str) -> Result<u64, SizeError> {
    sized(text, MIN_CHUNK_LEN_BYTES, MAX_CHUNK_LEN_BYTES)
}

pub(super) fn parse_limit(text: &str) -> Result<NonZeroU64, SizeError> {
    let rate = parse_rate(text)?;
    NonZeroU64::new(rate).filter(|rate| rate.get() >= MIN_RATE_BYTES_PER_SECOND).ok_or(SizeError::TooSlow)
}

pub(super) fn parse_uses(text: &str) -> Result<TicketUses, String> {
    match text.parse() {
        Ok(clients) if (1..=MAX_TICKET_USES).contains(&clients) => Ok(TicketUses::Clients(clients)),
        _ if text == "any" => Ok(TicketUses::Any),
        _ => Err(format!("give a number from 1 to {MAX_TICKET_USES}, or any")),
    }
}

pub(super) fn parse_patience(text: &str) -> Result<Duration, UnitError> {
    if text == "never" { Ok(Duration::MAX) } else { parse_duration(text) }
}

fn sized(text: &str, min_bytes: u64, max_bytes: u64) -> Result<u64, SizeError> {
    let size = parse_size(text)?;
    if !(min_bytes..=max_bytes).contains(&size) {
        return Err(SizeError::OutOfRange { min_bytes, max_bytes });
    }
    Ok(size)
}

/// Why a size or a rate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SizeError {
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error("give a size from {} KiB to {} KiB", .min_bytes / 1024, .max_bytes / 1024)]
    OutOfRange { min_bytes: u64, max_bytes: u64 },
    #[error("give a rate of at least 1KB, or omit --rate for no limit")]
    TooSlow,
}

/// 1,024: for more clients, `any` or the list of peers is better.
const MAX_TICKET_USES: u32 = 1024;

/// 4 KiB: one page. Below it, system calls cost more than copying.
const MIN_BUFFER_LEN_BYTES: u64 = 4 << 10;

/// 4 MiB: with 16 jobs, the memory limit of a process.
const MAX_BUFFER_LEN_BYTES: u64 = 4 << 20;

/// 64 KiB: below it, the stream and the round trip of a chunk cost more than its data.
const MIN_CHUNK_LEN_BYTES: u64 = 64 << 10;

/// 1 KB: below it, each of 32 chunks could get too little to count as progress.
const MIN_RATE_BYTES_PER_SECOND: u64 = 1000;
