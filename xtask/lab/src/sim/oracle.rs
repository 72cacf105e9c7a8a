//! Checks the invariants that hold for every seed.

use std::{fmt::Debug, io, path::PathBuf, time::Duration};

use thiserror::Error;

use crate::sim::tree::Tree;

/// A promise that was broken.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each says in its error what it is")]
pub enum Violation {
    #[error("safety: {path} has {found_bytes} bytes that were not sent")]
    WrongContent { path: String, found_bytes: usize },
    #[error("safety: {path} is there, but was not sent")]
    Unexpected { path: String },
    #[error("safety: success was told, and {path} is not there")]
    Missing { path: String },
    #[error("safety: success was told, and of the two sides {what}")]
    OtherMetadata { what: String },
    #[error("safety: {names:?} is one file on one side only")]
    OtherNames { names: (PathBuf, PathBuf) },
    #[error("safety: success was told, and {names:?} are left")]
    LeftOver { names: Vec<String> },
    #[error("safety: something was written outside of the root")]
    Escaped,
    #[error("safety: delivery {number} came {times} times")]
    NotOnce { number: usize, times: usize },
    #[error("safety: the answer to question {number} is not its own")]
    WrongAnswer { number: u64 },
    #[error("safety: question {number} was handled again")]
    HandledAgain { number: u64 },
    #[error("safety: question {number} was at work {over:?} after its deadline")]
    Overrun { number: u64, over: Duration },
    #[error("safety: the handler of question {number} was dropped without a word")]
    NotCancelled { number: u64 },
    #[error("safety: {calls} calls are in flight, but no caller waits for them")]
    StillInFlight { calls: usize },
    #[error("safety: an honest peer is blamed: {error}")]
    Blamed { error: String },
    #[error("liveness: not done {healed:?} after the faults stopped; last: {last}")]
    NotLive { healed: Duration, last: String },
    #[error("safety: success was told, with a link in the way that leads outside")]
    TrapMissed,
    #[error("safety: {path} was removed, and has come back")]
    CameBack { path: String },
    #[error("safety: what was the same was synced again")]
    NotStable,
    #[error("the simulation itself: {0}")]
    Broken(#[from] io::Error),
    #[error("the simulation itself: {0}")]
    SetUp(String),
    #[error("a panic: {0}")]
    Panicked(String),
}

/// What may stand under final names: of each path, the versions that there were.
#[derive(Debug, Clone, Default)]
pub struct Allowed(Vec<Tree>);

impl Allowed {
    /// One version.
    pub fn only(tree: Tree) -> Self {
        Self(vec![tree])
    }

    /// Another version; the last is the one that is to arrive.
    pub fn add(&mut self, tree: Tree) {
        self.0.push(tree);
    }

    /// Whatever is there is one of the versions, whole.
    pub fn check(&self, found: &Tree) -> Result<(), Violation> {
        for (path, content) in found {
            let versions: Vec<_> = self.0.iter().filter_map(|tree| tree.get(path)).collect();
            if versions.is_empty() {
                return Err(Violation::Unexpected { path: path.clone() });
            }
            if !versions.contains(&content) {
                let found_bytes = content.as_ref().map_or(0, Vec::len);
                return Err(Violation::WrongContent { path: path.clone(), found_bytes });
            }
        }
        Ok(())
    }

    /// All of it is there; files that were changed meanwhile in any version, since the last one may have come after
    /// the transfer had read them.
    pub fn check_whole(&self, found: &Tree) -> Result<(), Violation> {
        self.check(found)?;
        let Some(last) = self.0.last() else { return Ok(()) };
        match last.keys().find(|path| !found.contains_key(*path)) {
            Some(path) => Err(Violation::Missing { path: path.clone() }),
            None => Ok(()),
        }
    }
}

/// An error that blames the peer or the network for a violation that does not happen here.
pub(crate) fn check_error(error: &impl Debug) -> Result<(), Violation> {
    let text = format!("{error:?}");
    if BLAMES.iter().any(|word| text.contains(word)) {
        Err(Violation::Blamed { error: text })
    } else {
        Ok(())
    }
}

/// Nothing of shiplane's own is left, if that is to hold.
pub(crate) fn check_tidy(is_tidy: bool, left: Vec<String>) -> Result<(), Violation> {
    if is_tidy && !left.is_empty() { Err(Violation::LeftOver { names: left }) } else { Ok(()) }
}

/// How the errors are called that honest peers never cause.
const BLAMES: [&str; 18] = [
    "Protocol",
    "Records(",
    "TransferDigestMismatch",
    "Corrupt",
    "Undecodable",
    "WrongKey",
    "Untrusted",
    "Unauthorised",
    "Integrity",
    "WrongManifestDigest",
    "Disagreed",
    "NoParent",
    "Duplicate {",
    "NotWanted",
    "NotRequested",
    "SpanOutside",
    "ChunkLength",
    "InvalidRequest",
];

/// Long enough for every deadline of the stack to pass several times, and for a megabyte at 100 kB/s.
pub const PATIENCE: Duration = Duration::from_secs(300);
