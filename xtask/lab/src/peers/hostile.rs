//! Peers that speak the wire and lie. Each [`Lie`] is told by a provider: by a server to `shiplane get`
//! ([`LyingServer`]), and by a pusher to `shiplane serve --writable` ([`LyingPusher`]).
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lab::peers::hostile::{Lie, LyingServer};
//!
//! let server = LyingServer::start(Lie::HugeFile, 0)?;
//! println!("shiplane get '{}' copy", server.ticket());
//! # Ok(())
//! # }
//! ```
//!
//! The bodies of calls are put together here, from what SPEC.md says: what the programs take for granted of each other
//! must not be taken for granted by what tests them.

mod provider;
mod pusher;
mod server;

pub use self::pusher::LyingPusher;
pub(crate) use self::pusher::push;
pub use self::server::LyingServer;

use anyhow::Result;
use tokio::runtime::Builder;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Each kind of lie that a provider tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Lie {
    /// A file of 2^62 - 1 bytes, of which nothing is sent
    HugeFile,
    /// A file of 2^46 bytes, of which nothing is sent
    VastFile,
    /// The same, served alone, for a `get` to standard output
    HugeStream,
    /// Directories with paths of 4,095 bytes that are shown as four times as many
    LongDirectories,
    /// The same, whether the victim has room for them or not
    UnadmittedEntries,
    /// Files with such paths, each of one byte that is never sent
    LongFiles,
    /// Empty files, without end
    EndlessFiles,
    /// Names of what was skipped, as long as they may be, without end
    EndlessSkipped,
    /// Symbolic links whose targets are as long as they may be
    LongLinks,
    /// Symbolic links, without end
    EndlessLinks,
    /// A symbolic link that leads outside, and a file beneath it
    ThroughLink,
    /// Signs of life instead of the entries
    AliveForEntries,
    /// Signs of life instead of the chunks that were promised
    AliveForChunks,
    /// A byte of each chunk every few seconds
    Drip,
    /// Half of each chunk, and then a byte a second
    Trickle,
    /// Half of each chunk, and nothing more
    Stall,
    /// Chunks whose digest is not that of their content
    WrongDigest,
    /// Chunks with more bytes than were wanted
    LongChunks,
    /// A chunk that was not wanted
    UnwantedChunk,
    /// An entry after the last one
    LateEntry,
    /// A compressed chunk, though none was agreed on
    UnwantedCompression,
    /// A compressed chunk that claims to be a million times its size
    Bomb,
    /// The longest block signatures of two files, and then more
    EndlessSignatures,
    /// Everything, and no answer to whether it is complete
    Unconfirmed,
    /// No answer to any call
    Mute,
}

/// Sets something up, and goes on with its work on a thread of its own until what is returned is dropped.
fn in_background<T, W: Future<Output = ()> + Send + 'static>(
    set_up: impl AsyncFnOnce() -> Result<(T, W)>,
) -> Result<(T, DropGuard)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (ready, work) = runtime.block_on(set_up())?;
    let token = CancellationToken::new();
    let ended = token.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            // When it ends, its connections are still closed in order.
            tokio::spawn(work);
            ended.cancelled().await;
        });
    });
    Ok((ready, token.drop_guard()))
}

/// How the one file is called that is served to `get TICKET -`.
const HUGE: &str = "huge";

/// Entries that a lie about entries has, unless told otherwise.
pub const ENTRIES: u32 = 40_000;
