//! The lies.

use clap::ValueEnum as _;

/// Each kind of lie that a provider tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Lie {
    /// A file of 2^62 - 1 bytes, of which nothing is sent
    HugeFile,
    /// A file of 2^46 bytes, of which nothing is sent
    VastFile,
    /// The same as the only thing that there is, for a `get` to standard output
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

impl Lie {
    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Entries that a lie about entries has, unless told otherwise.
pub const ENTRIES: u32 = 40_000;
