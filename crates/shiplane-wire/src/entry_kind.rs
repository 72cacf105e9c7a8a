//! What an entry of a manifest is.

/// What an entry is. Nothing else is ever created from a peer's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A regular file.
    File = 0,
    /// A directory.
    Directory = 1,
    /// A symbolic link, which is never followed.
    Symlink = 2,
}
