//! Grants: what a peer may do, and below which paths.

use shiplane_wire::{PathRefused, RelPath};

/// A direction of access, seen from the server's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// The peer may list and fetch.
    Read,
    /// The peer may put files there.
    Write,
}

/// The rights of one ticket or of one line of the peers file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// May list and fetch.
    pub read: bool,
    /// May put files there.
    pub write: bool,
    /// Where both hold.
    pub paths: Scope,
}

/// A set of paths, each with all that lies below it, relative to what is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(Paths);

/// Why a request is refused. The texts are fit for the peer: they name no other peer, and no path
/// but those of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The server cannot read its own rules, so it refuses everyone. Its owner must mend the file.
    #[error("the server cannot read its list of peers and refuses everyone")]
    RulesBroken,
    /// The key has neither a live ticket nor a line in the peers file.
    #[error("this key has no permissions here, or they were removed")]
    NoGrant,
    /// The key is known, but not for this direction.
    #[error("this key may not {}", match .right { Right::Read => "read here", Right::Write => "write here" })]
    WrongDirection {
        /// What was asked for.
        right: Right,
    },
    /// The key may do that, but elsewhere.
    #[error("this key has no permission for this path")]
    OutsideScope,
}

impl Grant {
    /// Read access to `paths` and nothing else.
    #[must_use]
    pub fn read_only(paths: Scope) -> Self {
        Self { read: true, write: false, paths }
    }

    /// No right at all: a key that merely has a name.
    #[must_use]
    pub fn none() -> Self {
        Self { read: false, write: false, paths: Scope::nothing() }
    }

    /// Whether there is nothing that this grant allows.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !(self.read || self.write)
    }

    /// Whether everything that `other` allows is allowed by this one too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.is_none()
            || ((self.read || !other.read) && (self.write || !other.write) && self.paths.covers(&other.paths))
    }

    /// The rights as a word, for files and lists.
    #[must_use]
    pub fn rights(&self) -> &'static str {
        match (self.read, self.write) {
            (true, true) => "read,write",
            (true, false) => "read",
            (false, true) => "write",
            (false, false) => "none",
        }
    }

    /// Reading and writing, from such a word.
    pub(crate) fn parse_rights(word: &str) -> Option<(bool, bool)> {
        match word {
            "read" => Some((true, false)),
            "write" => Some((false, true)),
            "read,write" => Some((true, true)),
            "none" => Some((false, false)),
            _ => None,
        }
    }

    fn has(&self, right: Right) -> bool {
        match right {
            Right::Read => self.read,
            Right::Write => self.write,
        }
    }
}

impl Scope {
    /// Everything that is served.
    #[must_use]
    pub fn everything() -> Self {
        Self(Paths::Everything)
    }

    /// No path at all.
    #[must_use]
    pub fn nothing() -> Self {
        Self(Paths::Below(Vec::new()))
    }

    /// One path and what lies below it; the empty path is everything.
    ///
    /// # Errors
    /// [`PathRefused`] for a path that could not stand on the wire (SPEC 4.5).
    pub fn below(path: &[u8]) -> Result<Self, PathRefused> {
        if path.is_empty() {
            return Ok(Self::everything());
        }
        Ok(Self(Paths::Below(vec![RelPath::parse(path)?])))
    }

    /// This scope and the other together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Paths::Below(mut paths), Paths::Below(more)) => {
                paths.extend(more);
                Self(Paths::Below(paths))
            }
            (Paths::Everything, _) | (_, Paths::Everything) => Self::everything(),
        }
    }

    /// Whether `path` is one of the paths or lies below one, component by component: `photos` has
    /// `photos/a` in it, and `photos2` not. The empty path, all that is served, is only in a scope
    /// of everything. A path that could not stand on the wire is in no scope.
    #[must_use]
    pub fn contains(&self, path: &[u8]) -> bool {
        match &self.0 {
            // `..` is refused even here: no later mistake shall turn it into a way out.
            Paths::Everything => path.is_empty() || RelPath::parse(path).is_ok(),
            Paths::Below(paths) => RelPath::parse(path)
                .is_ok_and(|path| paths.iter().any(|allowed| is_at_or_below(&path, allowed))),
        }
    }

    /// The paths, or `None` for everything.
    #[must_use]
    pub fn paths(&self) -> Option<&[RelPath]> {
        match &self.0 {
            Paths::Everything => None,
            Paths::Below(paths) => Some(paths),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match &other.0 {
            Paths::Everything => self.0 == Paths::Everything,
            Paths::Below(paths) => paths.iter().all(|path| self.contains(path.as_bytes())),
        }
    }
}

/// Asks several grants at once and gives the answer that says most when all refuse. Without a path, a right anywhere
/// is enough.
///
/// Grants are never merged: a ticket that reads `a` and another that writes `b` do not together
/// write `a`.
pub(crate) fn decide(grants: &[Grant], right: Right, path: Option<&[u8]>) -> Result<(), Denied> {
    if grants.iter().all(Grant::is_none) {
        return Err(Denied::NoGrant);
    }
    let mut in_this_direction = grants.iter().filter(|grant| grant.has(right)).peekable();
    if in_this_direction.peek().is_none() {
        return Err(Denied::WrongDirection { right });
    }
    let covers = |grant: &Grant| path.is_none_or(|path| grant.paths.contains(path));
    if in_this_direction.any(covers) { Ok(()) } else { Err(Denied::OutsideScope) }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Paths {
    Everything,
    Below(Vec<RelPath>),
}

fn is_at_or_below(path: &RelPath, allowed: &RelPath) -> bool {
    let mut components = path.components();
    allowed.components().all(|expected| components.next() == Some(expected))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn below(path: &str) -> Scope {
        Scope::below(path.as_bytes()).unwrap()
    }

    #[test]
    fn a_scope_ends_at_a_component() {
        let photos = below("a/photos");
        for inside in ["a/photos", "a/photos/x", "a/photos/x/y"] {
            assert!(photos.contains(inside.as_bytes()), "{inside}");
        }
        for outside in ["", "a", "a/photos2", "a/photo", "A/photos", "b/photos", "photos", "x/a/photos"] {
            assert!(!photos.contains(outside.as_bytes()), "{outside}");
        }
    }

    #[test]
    fn a_path_that_climbs_or_starts_at_the_root_is_in_no_scope() {
        for scope in [Scope::everything(), below("a")] {
            for path in ["..", "a/..", "a/../b", "/a", "a//b", "a/", "a/./b", "a/\0"] {
                assert!(!scope.contains(path.as_bytes()), "{path:?}");
            }
        }
    }

    #[test]
    fn all_rights_cover_every_path_and_no_rights_none() {
        assert!(Scope::everything().contains(b""));
        assert!(Scope::everything().contains(b"a/b"));
        assert!(below("").contains(b""));
        assert!(!Scope::nothing().contains(b""));
        assert!(!Scope::nothing().contains(b"a"));
        assert_eq!(below("a").and(Scope::everything()), Scope::everything());
        assert!(below("a").and(below("b")).contains(b"b/c"));
    }

    #[test]
    fn grants_do_not_add_up() {
        let reads_a = Grant::read_only(below("a"));
        let writes_b = Grant { read: false, write: true, paths: below("b") };
        let both = [reads_a.clone(), writes_b];
        assert_eq!(decide(&both, Right::Read, Some(b"a/x")), Ok(()));
        assert_eq!(decide(&both, Right::Write, Some(b"b/x")), Ok(()));
        assert_eq!(decide(&both, Right::Write, Some(b"a/x")), Err(Denied::OutsideScope));
        assert_eq!(decide(&both, Right::Read, Some(b"b/x")), Err(Denied::OutsideScope));
        let right = Right::Write;
        assert_eq!(decide(&[reads_a], right, Some(b"a")), Err(Denied::WrongDirection { right }));
        assert_eq!(decide(&[], Right::Read, Some(b"")), Err(Denied::NoGrant));
        assert_eq!(decide(&[Grant::none()], Right::Read, Some(b"")), Err(Denied::NoGrant));
    }

    #[test]
    fn covering_notices_every_kind_of_loss() {
        let wide = Grant { read: true, write: true, paths: Scope::everything() };
        let narrow = Grant::read_only(below("a/b"));
        assert!(wide.covers(&narrow));
        assert!(wide.covers(&wide));
        assert!(!narrow.covers(&wide));
        assert!(!Grant::read_only(below("a/c")).covers(&narrow));
        assert!(!Grant { read: false, write: true, paths: below("a/b") }.covers(&narrow));
        assert!(Grant::none().covers(&Grant::none()));
        assert!(!Grant::none().covers(&narrow));
    }

    proptest! {
        #[test]
        fn containing_is_having_the_same_first_components(
            allowed in proptest::collection::vec("[ab]{1,2}", 1..4),
            path in proptest::collection::vec("[ab]{1,2}", 1..5),
        ) {
            let scope = below(&allowed.join("/"));
            prop_assert_eq!(scope.contains(path.join("/").as_bytes()), path.starts_with(&allowed));
        }
    }
}
