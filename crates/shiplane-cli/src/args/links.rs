//! Which symbolic links to carry, and which kinds of paths are not wanted.

use clap::ValueEnum;

/// Which symbolic links are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Links {
    /// All, as they are
    All,
    /// Those that stay inside the tree; the others are left out
    Inside,
    /// None, as with --skip links
    Skip,
}

impl Links {
    /// The kinds to skip.
    pub(crate) fn skipped(self, mut skip: Vec<Skip>) -> Vec<Skip> {
        skip.extend((self == Self::Skip).then_some(Skip::Links));
        skip
    }
}

/// Kinds of paths that a transfer may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Skip {
    /// Symbolic links
    Links,
    /// Devices, sockets and FIFOs
    Special,
    /// Names that one of the two file systems does not support
    Names,
    /// Files and directories that cannot be read
    Unreadable,
    /// Files that change or vanish while they are read
    Changed,
    /// Owners, access lists and attributes that cannot be carried or set
    Attributes,
}

impl Skip {
    /// As the library names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Special => "special",
            Self::Names => "names",
            Self::Unreadable => "unreadable",
            Self::Changed => "changed",
            Self::Attributes => "attributes",
        }
    }
}
