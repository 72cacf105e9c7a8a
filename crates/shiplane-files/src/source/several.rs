//! Several files and directories as one source, each by its name.

use std::fs::File;
use std::io;
use std::sync::Arc;

use shiplane_wire::RelPath;

use super::{OpenedAt, Part, Parts, Served, Source, SourceRoot};
use crate::{
    attributes::AttributesReader,
    error::SourceError,
    made_up::MadeUpFiles,
    platform,
    scan::{self, PartContent},
    shape::Shape,
};

impl SourceRoot {
    /// Several roots as one: each file and directory by its [name](Self::name), and the content of directories that
    /// have none. The caller has seen to it that no name is there twice.
    ///
    /// # Errors
    ///
    /// [`SourceError::PathRefused`] for a name that cannot be sent.
    pub fn several(roots: Vec<Self>) -> Result<Self, SourceError> {
        let part = |root: Self| {
            let name = root.name().map(|name| RelPath::parse(&name)).transpose();
            Ok::<_, SourceError>(Part { name: name?, root })
        };
        let parts: Result<Vec<_>, _> = roots.into_iter().map(part).collect();
        Ok(Self { served: Served::Several(Parts(parts?.into())), opened: None })
    }

    /// The name that it is served by: that of the directory or of the file.
    pub fn name(&self) -> Option<Vec<u8>> {
        match &self.served {
            Served::File(file) => Some(file.name.as_bytes().to_vec()),
            Served::Directory(_) => self.opened.as_ref().and_then(|opened| opened.name.clone()),
            Served::Several(_) => None,
        }
    }

    /// The same, served without a name: the content of the directory.
    #[must_use]
    pub fn nameless(self) -> Self {
        let opened = self.opened.map(|opened| {
            let OpenedAt { path, device, inode, .. } = &*opened;
            Arc::new(OpenedAt { path: path.clone(), name: None, device: *device, inode: *inode })
        });
        Self { opened, ..self }
    }

    pub(super) fn is_immediate(&self) -> bool {
        match &self.served {
            Served::Directory(root) => platform::lives_in_memory(root.as_ref()),
            Served::File(file) => platform::lives_in_memory(file.root.as_ref()),
            Served::Several(parts) => parts.0.iter().all(|part| part.root.is_immediate()),
        }
    }
}

impl Part {
    /// As a scan lists it.
    pub(super) fn listed(&self, made_up: &MadeUpFiles, reader: Option<&mut AttributesReader>) -> scan::Part {
        let content = match &self.root.served {
            Served::File(file) => PartContent::File(file.entry(made_up, reader)),
            Served::Directory(dir) => PartContent::Directory(Arc::clone(dir)),
            Served::Several(_) => PartContent::File(Err(SourceError::Gone)),
        };
        scan::Part { name: self.name.clone(), content }
    }

    /// What `path` is within this part, if it can be in it.
    fn within<'a>(&self, path: &'a RelPath) -> Option<&'a [u8]> {
        let Some(name) = &self.name else { return Some(path.as_bytes()) };
        match path.as_bytes().strip_prefix(name.as_bytes())? {
            b"" => Some(b""),
            rest => rest.strip_prefix(b"/"),
        }
    }
}

impl Parts {
    /// Finds a path in the first of the parts that has it.
    pub(super) fn resolve(&self, path: &RelPath) -> Result<Source, SourceError> {
        let missing = || SourceError::NotFound { path: path.to_string() };
        for part in self.0.iter() {
            let resolved = match (part.within(path), &part.root.served) {
                (None, _) => continue,
                (Some(b""), Served::File(file)) => return Ok(Source::of_file(file.clone())),
                (Some(within), Served::Directory(_)) => part.root.resolve(within),
                (Some(_), Served::File(_) | Served::Several(_)) => Err(missing()),
            };
            match resolved {
                Err(SourceError::NotFound { .. }) => {}
                Ok(source) if source.shape() == &Shape::Contents => return Err(missing()),
                resolved => return resolved,
            }
        }
        Err(missing())
    }

    /// Opens the file at this path of the first of the parts that has it.
    pub(super) fn open(&self, path: &RelPath) -> io::Result<File> {
        for part in self.0.iter() {
            let opened = match (part.within(path), &part.root.served) {
                (None, _) => continue,
                (Some(b""), Served::File(file)) => {
                    platform::open_file_following(&file.root, file.path.as_bytes())
                }
                (Some(within), Served::Directory(dir)) => platform::open_file(dir, within),
                (Some(_), Served::File(_) | Served::Several(_)) => continue,
            };
            match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}
