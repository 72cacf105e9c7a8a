//! A snapshot of a directory in memory, and the states that a crash may leave.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

/// All that is beneath a directory, by relative path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<PathBuf, Node>);

#[derive(Clone, PartialEq, Eq)]
enum Node {
    Directory,
    /// Where it leads.
    Link(PathBuf),
    File {
        content: Vec<u8>,
        is_executable: bool,
        /// Seconds and nanoseconds.
        mtime: (i64, i64),
    },
    Special,
}

impl Tree {
    /// Reads all of it.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut nodes = BTreeMap::new();
        for entry in WalkDir::new(root).min_depth(1) {
            let entry = entry.context("cannot read a tree")?;
            let path = entry.path().strip_prefix(root).context("walked out of the tree")?.to_path_buf();
            nodes.insert(path, node(entry.path(), entry.file_type())?);
        }
        Ok(Self(nodes))
    }

    /// Content of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let len = |node: &Node| match node {
            Node::File { content, .. } => content.len() as u64,
            Node::Directory | Node::Link(_) | Node::Special => 0,
        };
        self.0.values().map(len).sum()
    }

    /// Fails unless every name stands for what it stood for in `old` or stands for in `new`, whole: nothing in
    /// between, nothing lost, nothing else but our own temporary files.
    pub(crate) fn expect_old_or_new(&self, old: &Self, new: &Self) -> Result<()> {
        let paths: BTreeSet<_> = self.0.keys().chain(old.0.keys()).chain(new.0.keys()).collect();
        for path in paths {
            let found = self.0.get(path);
            let is_either = found == old.0.get(path) || found == new.0.get(path);
            if !is_either && !is_own(path) {
                let (old, new) = (old.0.get(path), new.0.get(path));
                bail!("{path:?} is {found:?}, which is neither the old ({old:?}) nor the new ({new:?})");
            }
        }
        Ok(())
    }

    /// Fails unless it is `other`, to the last name, byte and time.
    pub(crate) fn expect_same(&self, other: &Self) -> Result<()> {
        self.expect_old_or_new(other, other)?;
        match self.0.keys().find(|path| is_own(path)) {
            Some(left) => bail!("{left:?} was left behind"),
            None => Ok(()),
        }
    }

    /// The names that are neither in this tree nor in `other` the same.
    pub(crate) fn file_names(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Whether `path` is the same in both, and there.
    pub(crate) fn has_as(&self, path: &Path, other: &Self) -> bool {
        self.0.get(path).is_some_and(|node| other.0.get(path) == Some(node))
    }
}

/// For messages: content is told by its length and a few bytes.
impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory => f.write_str("a directory"),
            Self::Link(to) => write!(f, "a link to {to:?}"),
            Self::Special => f.write_str("a special file"),
            Self::File { content, is_executable, mtime } => {
                let first = &content[..content.len().min(8)];
                let zeros = content.iter().filter(|byte| **byte == 0).count();
                write!(f, "{} bytes from {first:02x?} on, {zeros} of them zero", content.len())?;
                write!(f, ", of {}.{:09}, {is_executable}", mtime.0, mtime.1)
            }
        }
    }
}

/// Copies a tree with modes and times into the directory `to`, which is created.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut directories = Vec::new();
    for entry in WalkDir::new(from) {
        let entry = entry.context("cannot walk a tree")?;
        let path = entry.path().strip_prefix(from).context("walked out of the tree")?;
        // `join` of nothing would end in a slash.
        let target = if path.as_os_str().is_empty() { to.to_path_buf() } else { to.join(path) };
        let cannot = || format!("cannot copy to {target:?}");
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target).with_context(cannot)?;
            directories.push((entry.into_path(), target));
        } else if entry.file_type().is_symlink() {
            let link = fs::read_link(entry.path()).with_context(cannot)?;
            std::os::unix::fs::symlink(link, &target).with_context(cannot)?;
        } else {
            fs::copy(entry.path(), &target).with_context(cannot)?;
            copy_time(entry.path(), &target).with_context(cannot)?;
        }
    }
    // The deepest first: what is put into a directory changes its time.
    for (from, to) in directories.iter().rev() {
        let mode = fs::metadata(from)?.permissions();
        fs::set_permissions(to, mode)?;
        copy_time(from, to)?;
    }
    Ok(())
}

fn copy_time(from: &Path, to: &Path) -> std::io::Result<()> {
    File::open(to)?.set_modified(fs::metadata(from)?.modified()?)
}

fn node(path: &Path, kind: fs::FileType) -> Result<Node> {
    let cannot = || format!("cannot read {path:?}");
    if kind.is_dir() {
        return Ok(Node::Directory);
    }
    if kind.is_symlink() {
        return Ok(Node::Link(fs::read_link(path).with_context(cannot)?));
    }
    if !kind.is_file() {
        return Ok(Node::Special);
    }
    let metadata = fs::metadata(path).with_context(cannot)?;
    Ok(Node::File {
        content: fs::read(path).with_context(cannot)?,
        is_executable: metadata.permissions().mode() & 0o100 != 0,
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

/// Whether it is a temporary file or a journal of shiplane's.
fn is_own(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".shiplane-"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            fs::create_dir_all(root.path().join(path).parent().unwrap()).unwrap();
            fs::write(root.path().join(path), content).unwrap();
            let file = File::options().write(true).open(root.path().join(path)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        }
        Tree::read(root.path()).unwrap()
    }

    #[test]
    fn each_file_may_be_old_or_new_and_nothing_else() {
        let old = tree(&[("a", "old"), ("b", "same"), ("gone", "1")]);
        let new = tree(&[("a", "new"), ("b", "same"), ("d/c", "made")]);
        for fine in [
            &[("a", "old"), ("b", "same"), ("gone", "1")][..],
            &[("a", "new"), ("b", "same"), ("d/c", "made")],
            &[("a", "new"), ("b", "same"), ("gone", "1"), (".shiplane-0-1.part", "half")],
        ] {
            tree(fine).expect_old_or_new(&old, &new).unwrap();
        }
        for wrong in [
            &[("a", "ne"), ("b", "same")][..],
            &[("b", "same")],
            &[("a", "old"), ("b", "same"), ("d/c", "mad")],
            &[("a", "old"), ("b", "same"), ("x", "1")],
        ] {
            tree(wrong).expect_old_or_new(&old, &new).unwrap_err();
        }
    }

    #[test]
    fn what_is_left_behind_is_not_the_same() {
        let whole = tree(&[("a", "1")]);
        whole.expect_same(&whole).unwrap();
        let left = tree(&[("a", "1"), (".shiplane-0-1.part", "half")]);
        assert!(left.expect_same(&whole).unwrap_err().to_string().contains("left behind"));
    }

    #[test]
    fn a_copy_is_the_same_tree() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/f"), "content").unwrap();
        std::os::unix::fs::symlink("f", from.path().join("d/link")).unwrap();
        copy(from.path(), to.path()).unwrap();
        assert_eq!(Tree::read(from.path()).unwrap(), Tree::read(to.path()).unwrap());
    }
}
