//! What a dataset consists of.

use std::collections::BTreeMap;

use shiplane_wire::{Digest, Hasher, Mtime, RelPath};

/// A dataset: its files and directories by path. Parents are there and are directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest(BTreeMap<RelPath, Node>);

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File(FileState),
    /// A directory.
    Directory,
}

/// A file, as far as sync goes. Two are the same if their content is: [`plan`](super::plan) ignores times
/// but to choose which of two versions keeps its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Length of the content.
    pub size_bytes: u64,
    /// SHA-256 of the content.
    pub digest: Digest,
    /// When it was written.
    pub mtime: Mtime,
}

impl Node {
    /// Whether both stand for the same content.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one.digest == other.digest,
            (Self::Directory, Self::Directory) => true,
            (Self::File(_), Self::Directory) | (Self::Directory, Self::File(_)) => false,
        }
    }

    pub(super) fn file(&self) -> Option<&FileState> {
        match self {
            Self::File(file) => Some(file),
            Self::Directory => None,
        }
    }
}

impl Manifest {
    /// Nothing: what two sides have in common that never met.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a node at a path, and directories at those above it where there is nothing. Returns `false`, and
    /// changes nothing, if something else is in the way: a file above the path, or what the path already is
    /// if that is of the other kind.
    pub fn insert(&mut self, path: RelPath, node: Node) -> bool {
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(parent) = above {
            match self.0.get(&parent) {
                Some(Node::Directory) => break,
                Some(Node::File(_)) => return false,
                None => {}
            }
            above = parent.parent();
            missing.push(parent);
        }
        if self.0.get(&path).is_some_and(|there| there.file().is_some() != node.file().is_some()) {
            return false;
        }
        self.0.extend(missing.into_iter().map(|parent| (parent, Node::Directory)));
        self.0.insert(path, node);
        true
    }

    /// Takes out what stands at `path` and everything beneath it, as if nobody had ever heard of it. A
    /// [`plan`](super::plan) of three manifests that have all forgotten a path does nothing there.
    pub fn forget(&mut self, path: &RelPath) {
        self.0.remove(path);
        // The names beneath it stand together, those of `a-b` between `a` and `a/b`.
        let from = [path.as_bytes(), b"/"].concat();
        let beneath = self.0.range(path.clone()..).map(|(found, _)| found);
        let beneath = beneath.skip_while(|found| found.as_bytes() < &from[..]);
        let beneath: Vec<_> =
            beneath.take_while(|found| found.as_bytes().starts_with(&from)).cloned().collect();
        for path in beneath {
            self.0.remove(&path);
        }
    }

    /// What stands at a path.
    pub fn get(&self, path: &RelPath) -> Option<&Node> {
        self.0.get(path)
    }

    /// Everything, in the order of the paths: parents before their children.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&RelPath, &Node)> {
        self.0.iter()
    }

    /// How many files and directories there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// SHA-256 of the paths and contents: equal for two datasets that need no sync.
    pub fn root(&self) -> Digest {
        let mut hasher = Hasher::new();
        for (path, node) in &self.0 {
            hasher.update(&(path.as_bytes().len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
            match node {
                Node::Directory => hasher.update(&[1]),
                Node::File(file) => {
                    hasher.update(&[0]);
                    hasher.update(file.digest.as_bytes());
                }
            }
        }
        hasher.finish()
    }

    /// Of nodes in order of their paths, each after its parent.
    pub(super) fn of_sorted(nodes: Vec<(RelPath, Node)>) -> Self {
        Self(nodes.into_iter().collect())
    }

    pub(super) fn file(&self, path: &RelPath) -> Option<&FileState> {
        self.0.get(path).and_then(Node::file)
    }

    pub(super) fn is_directory(&self, path: &RelPath) -> bool {
        matches!(self.0.get(path), Some(Node::Directory))
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&RelPath, &FileState)> {
        self.0.iter().filter_map(|(path, node)| Some((path, node.file()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_takes_along_what_is_in_it_and_nothing_else() {
        let path = |path: &str| RelPath::parse(path.as_bytes()).unwrap();
        let mut manifest = Manifest::new();
        for leaf in ["a/b/c", "a/b-/c", "a/b.", "a/b/d/e", "a/b0", "a/c"] {
            assert!(manifest.insert(path(leaf), Node::Directory));
        }
        manifest.forget(&path("a/b"));
        manifest.forget(&path("not/there"));
        let left: Vec<_> = manifest.iter().map(|(path, _)| path.to_string()).collect();
        assert_eq!(left, ["a", "a/b-", "a/b-/c", "a/b.", "a/b0", "a/c"]);
    }
}
