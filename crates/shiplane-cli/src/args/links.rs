//! Which symbolic links to carry.

use clap::ValueEnum;

use super::Skip;

/// Which symbolic links are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Links {
    /// All, as they are
    All,
    /// Those that lead nowhere outside of the tree; the others are left out
    Inside,
    /// None, as with --skip links
    Skip,
}

impl Links {
    /// The kinds that are not wanted.
    pub(crate) fn skipped(self, mut skip: Vec<Skip>) -> Vec<Skip> {
        skip.extend((self == Self::Skip).then_some(Skip::Links));
        skip
    }
}
