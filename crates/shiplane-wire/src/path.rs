//! Relative paths from peers, validated once on input.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

use crate::escape::escape;
use crate::fuzz;
use crate::limits::{MAX_COMPONENT_LEN_BYTES, MAX_PATH_LEN_BYTES};

/// A path below some root, that keeps the rules of SPEC 4.5: relative, `/`-separated, within the limits
/// of length, no component empty, `.` or `..`, no NUL.
///
/// It is bytes, not text: a name that is not UTF-8 goes through unchanged. What a platform refuses beyond
/// these rules (reserved names, colons) is for the side that writes the file to check. [`Display`] and
/// [`Debug`] are escaped and safe to print; [`as_bytes`](Self::as_bytes) is not.
///
/// Clones share the bytes.
///
/// The order is that of the bytes, in which a parent comes before its children.
///
/// [`Display`]: fmt::Display
/// [`Debug`]: fmt::Debug
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Arc<[u8]>);

impl RelPath {
    /// Checks `path` against the rules.
    ///
    /// # Errors
    ///
    /// The first rule that is broken, from the front. Of a peer's path: refuse the entry before anything
    /// is created for it.
    pub fn parse(path: &[u8]) -> Result<Self, PathRefused> {
        if path.is_empty() {
            return Err(PathRefused::Empty);
        }
        if path.len() > MAX_PATH_LEN_BYTES {
            return Err(PathRefused::TooLong { len_bytes: path.len(), max_bytes: MAX_PATH_LEN_BYTES });
        }
        if path.starts_with(b"/") {
            return Err(PathRefused::Absolute);
        }
        path.split(|byte| *byte == SEPARATOR).try_for_each(check_component)?;
        Ok(Self(path.into()))
    }

    /// The path as bytes, for the wire and the file system.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components, outermost first; there is at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == SEPARATOR)
    }

    /// The last component.
    pub fn file_name(&self) -> &[u8] {
        self.last_separator().map_or(&self.0, |at| &self.0[at + 1..])
    }

    /// The path without its last component; `None` for a path of one component, whose parent is the root.
    pub fn parent(&self) -> Option<Self> {
        let at = self.last_separator()?;
        Some(Self(self.0[..at].into()))
    }

    /// This path, if it is `from` or beneath it, at or beneath `to`.
    #[must_use]
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.as_bytes().strip_prefix(from.as_bytes())?;
        let is_beneath = matches!(rest, [] | [b'/', ..]);
        is_beneath.then(|| Self::parse(&[to.as_bytes(), rest].concat()).ok())?
    }

    /// The path of `component` in the directory `self`.
    ///
    /// # Errors
    ///
    /// If `component` is not a single legal component, or the whole breaks a limit.
    pub fn join(&self, component: &[u8]) -> Result<Self, PathRefused> {
        if component.contains(&SEPARATOR) {
            return Err(PathRefused::ForbiddenByte { byte: SEPARATOR });
        }
        let mut path = Vec::with_capacity(self.0.len() + 1 + component.len());
        path.extend_from_slice(&self.0);
        path.push(SEPARATOR);
        path.extend_from_slice(component);
        Self::parse(&path)
    }

    fn last_separator(&self) -> Option<usize> {
        self.0.iter().rposition(|byte| *byte == SEPARATOR)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0).fmt(f)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", escape(&self.0))
    }
}

/// Which rule of SPEC 4.5 a path breaks. Answer a peer with
/// [`Code::PathRefused`](crate::Code::PathRefused).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub enum PathRefused {
    /// There is no path at all.
    #[error("the path is empty")]
    Empty,
    /// The path starts at the root of the file system.
    #[error("the path is absolute")]
    Absolute,
    /// Two separators in a row, or one at the end.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("the path has a component `.` or `..`")]
    DotComponent,
    /// A byte that no component may have.
    #[error("the path has the byte 0x{byte:02x}")]
    ForbiddenByte {
        /// NUL, or a separator where a single component was due.
        byte: u8,
    },
    /// A component is longer than file systems hold.
    #[error("a component of the path is {len_bytes} bytes long, the limit is {max_bytes}")]
    ComponentTooLong {
        /// Length of the component.
        len_bytes: usize,
        /// [`MAX_COMPONENT_LEN_BYTES`].
        max_bytes: usize,
    },
    /// The path is too long as a whole.
    #[error("the path is {len_bytes} bytes long, the limit is {max_bytes}")]
    TooLong {
        /// Length of the path.
        len_bytes: usize,
        /// [`MAX_PATH_LEN_BYTES`].
        max_bytes: usize,
    },
}

const SEPARATOR: u8 = b'/';

fn check_component(component: &[u8]) -> Result<(), PathRefused> {
    if component.is_empty() {
        return Err(PathRefused::EmptyComponent);
    }
    if component == b"." || component == b".." {
        return Err(PathRefused::DotComponent);
    }
    if component.len() > MAX_COMPONENT_LEN_BYTES {
        let len_bytes = component.len();
        return Err(PathRefused::ComponentTooLong { len_bytes, max_bytes: MAX_COMPONENT_LEN_BYTES });
    }
    // It ends a path for the system. Whatever else a name has is escaped where it is shown.
    if component.contains(&0) { Err(PathRefused::ForbiddenByte { byte: 0 }) } else { Ok(()) }
}

/// Fuzz entry: a path.
pub fn fuzz_path(data: &[u8]) {
    fuzz::path(data);
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec;

    use super::*;

    #[test]
    fn paths_that_climb_out_or_hide_are_refused() {
        let cases: [(&[u8], PathRefused); 14] = [
            (b"", PathRefused::Empty),
            (b"/", PathRefused::Absolute),
            (b"/etc/x", PathRefused::Absolute),
            (b"//x", PathRefused::Absolute),
            (b".", PathRefused::DotComponent),
            (b"..", PathRefused::DotComponent),
            (b"../x", PathRefused::DotComponent),
            (b"a/../../x", PathRefused::DotComponent),
            (b"a/./x", PathRefused::DotComponent),
            (b"a/..", PathRefused::DotComponent),
            (b"a//b", PathRefused::EmptyComponent),
            (b"a/", PathRefused::EmptyComponent),
            (b"a\0b", PathRefused::ForbiddenByte { byte: 0 }),
            (b"ok/\0", PathRefused::ForbiddenByte { byte: 0 }),
        ];
        for (path, error) in cases {
            assert_eq!(RelPath::parse(path), Err(error), "{}", escape(path));
        }
    }

    #[test]
    fn odd_names_are_ordinary_here() {
        let paths =
            [&b"..."[..], b"..a", b".ssh/authorized_keys", b"x:ads", b"CON", b"a\\b", b"\xff\xfe", b"a\nb\r"];
        for path in paths {
            assert_eq!(RelPath::parse(path).unwrap().as_bytes(), path);
        }
    }

    #[test]
    fn the_limits_are_these() {
        let component = vec![b'x'; 255];
        assert!(RelPath::parse(&component).is_ok());
        let too_long = PathRefused::ComponentTooLong { len_bytes: 256, max_bytes: 255 };
        assert_eq!(RelPath::parse(&[b'x'; 256]), Err(too_long));

        let deepest = vec![&b"a"[..]; 16 << 10].join(&b'/');
        assert!(RelPath::parse(&deepest).is_ok());
        let longest = vec![&component[..]; 128].join(&b'/');
        assert_eq!(longest.len(), 32_767);
        assert!(RelPath::parse(&longest).is_ok());
        let longer = vec![&component[..]; 129].join(&b'/');
        let too_long = PathRefused::TooLong { len_bytes: longer.len(), max_bytes: 32 << 10 };
        assert_eq!(RelPath::parse(&longer), Err(too_long));
    }

    #[test]
    fn a_path_comes_apart_and_together() {
        let path = RelPath::parse(b"a/b/c").unwrap();
        assert!(path.components().eq([b"a", b"b", b"c"]));
        assert_eq!(path.file_name(), b"c");
        let parent = path.parent().unwrap();
        assert_eq!(parent.as_bytes(), b"a/b");
        assert_eq!(parent.join(b"c").unwrap(), path);
        let top = RelPath::parse(b"a").unwrap();
        assert_eq!(top.parent(), None);
        assert_eq!(top.file_name(), b"a");
    }

    #[test]
    fn a_joined_component_is_one_component() {
        let dir = RelPath::parse(b"a").unwrap();
        let separator = PathRefused::ForbiddenByte { byte: b'/' };
        assert_eq!(dir.join(b"b/c"), Err(separator));
        assert_eq!(dir.join(b"/etc"), Err(separator));
        assert_eq!(dir.join(b".."), Err(PathRefused::DotComponent));
        assert_eq!(dir.join(b""), Err(PathRefused::EmptyComponent));
    }

    #[test]
    fn a_path_prints_escaped() {
        let path = RelPath::parse(b"a\x1b[2J").unwrap();
        assert_eq!(format!("{path}"), r"a\x1b[2J");
        assert_eq!(format!("{path:?}"), r#""a\x1b[2J""#);
    }
}
