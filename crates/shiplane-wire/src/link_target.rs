//! Targets of symbolic links, from peers, validated once on input.

use alloc::sync::Arc;
use core::fmt;

use thiserror::Error;

use crate::escape::escape;
use crate::limits::MAX_LINK_TARGET_LEN_BYTES;

/// What a symbolic link points to (SPEC 4.27): bytes that are kept as they are, and never resolved here.
///
/// `Display` and `Debug` are escaped and safe to print. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkTarget(Arc<[u8]>);

impl LinkTarget {
    /// Checks `target` against the rules.
    ///
    /// # Errors
    ///
    /// The rule that is broken. No file system holds such a link.
    pub fn parse(target: &[u8]) -> Result<Self, LinkTargetRefused> {
        let len_bytes = target.len();
        if target.is_empty() {
            return Err(LinkTargetRefused::Empty);
        }
        if len_bytes > MAX_LINK_TARGET_LEN_BYTES {
            return Err(LinkTargetRefused::TooLong { len_bytes, max_bytes: MAX_LINK_TARGET_LEN_BYTES });
        }
        if target.contains(&0) {
            return Err(LinkTargetRefused::Nul);
        }
        Ok(Self(target.into()))
    }

    /// The target as bytes, for the wire and the file system.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether a link `depth` directories below the top leads nowhere outside of it, whatever else the tree contains: the
    /// target is relative, and has `..` at its start alone and at most `depth` times. After a name, `..` may leave
    /// through a link of that name.
    #[must_use]
    pub fn stays_inside(&self, depth: usize) -> bool {
        let mut components = self.0.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        let is_relative = self.0.first() != Some(&b'/');
        // Windows reads these as separators and drives.
        let is_plain = !self.0.iter().any(|byte| matches!(byte, b'\\' | b':'));
        let mut up = 0;
        let goes_up_first = loop {
            match components.next() {
                Some(b"..") => up += 1,
                Some(_) => break components.all(|name| name != b".."),
                None => break true,
            }
        };
        is_relative && goes_up_first && up <= depth && (is_plain || !cfg!(windows))
    }
}

impl fmt::Display for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0).fmt(f)
    }
}

impl fmt::Debug for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", escape(&self.0))
    }
}

/// Which rule of SPEC 4.27 a link's target breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum LinkTargetRefused {
    /// It is empty.
    #[error("the target of a link is empty")]
    Empty,
    /// It has a NUL, which ends a path for the system.
    #[error("the target of a link has a NUL")]
    Nul,
    /// It is longer than file systems hold.
    #[error("the target of a link is {len_bytes} bytes long, the limit is {max_bytes}")]
    TooLong {
        /// Its length.
        len_bytes: usize,
        /// [`MAX_LINK_TARGET_LEN_BYTES`].
        max_bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    #[test]
    fn empty_and_endless_targets_and_those_with_a_nul_are_refused() {
        assert_eq!(LinkTarget::parse(b""), Err(LinkTargetRefused::Empty));
        assert_eq!(LinkTarget::parse(b"a\0"), Err(LinkTargetRefused::Nul));
        let longest = vec![b'x'; MAX_LINK_TARGET_LEN_BYTES];
        assert!(LinkTarget::parse(&longest).is_ok());
        let (len_bytes, max_bytes) = (4096, 4095);
        let refused = LinkTargetRefused::TooLong { len_bytes, max_bytes };
        assert_eq!(LinkTarget::parse(&vec![b'x'; 4096]), Err(refused));
    }

    #[test]
    fn a_target_stays_inside_if_it_goes_up_at_its_start_alone_and_not_above_the_top() {
        let stays = |target: &str, depth| LinkTarget::parse(target.as_bytes()).unwrap().stays_inside(depth);
        for (target, depth) in [
            ("a", 0),
            ("a/b/c", 0),
            (".", 0),
            ("./a//b/", 0),
            ("..", 1),
            ("../../a", 2),
            ("./.././../a", 2),
            ("..a/...", 0),
        ] {
            assert!(stays(target, depth), "{target}");
        }
        for (target, depth) in [
            ("/", 9),
            ("/etc/passwd", 9),
            ("..", 0),
            ("../a", 0),
            ("../../a", 1),
            ("d/../x", 9),
            ("../d/..", 9),
            ("d/./../../../x", 9),
        ] {
            assert!(!stays(target, depth), "{target}");
        }
    }
}
