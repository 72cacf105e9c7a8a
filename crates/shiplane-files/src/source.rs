//! Sources: the served root, and reading from it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io, io::Seek};

use cap_std::fs::Dir;
use shiplane_wire::{Digest, DigestAlgorithm, Entry, EntryKind, Holes, RelPath, Version, escape};

use crate::{
    attributes::AttributesReader,
    error::SourceError,
    filters::Filters,
    made_up::{self, MadeUpFiles},
    names,
    platform::{self, Input, Kind, Stat},
    scan::Scan,
    shape::Shape,
    sparse,
};

mod current;
mod one_file;
mod several;

pub(crate) use current::Current;

/// A directory or a file that is served, held open: whatever happens to its path later, nothing else is
/// ever served.
#[derive(Clone, Debug)]
pub struct SourceRoot {
    served: Served,
    /// Where it was opened, if a path of this machine leads there.
    opened: Option<Arc<OpenedAt>>,
}

/// The path that a directory was opened by, and which directory it was.
#[derive(Debug)]
struct OpenedAt {
    path: PathBuf,
    /// Its name, unless it has none that can be sent.
    name: Option<Vec<u8>>,
    device: u64,
    inode: u64,
}

#[derive(Clone, Debug)]
enum Served {
    Directory(Arc<Dir>),
    File(OneFile),
    Several(Parts),
}

/// One of several roots that are served together.
#[derive(Clone, Debug)]
struct Part {
    /// What it is served by; `None`: the content of a directory, without a name.
    name: Option<RelPath>,
    root: SourceRoot,
}

/// All of them, in order.
#[derive(Clone, Debug)]
struct Parts(Arc<[Part]>);

/// One file, by its path beneath a directory that is held open.
#[derive(Clone, Debug)]
pub(super) struct OneFile {
    root: Arc<Dir>,
    path: RelPath,
    /// The name it is served under, which is the path of its entry.
    name: RelPath,
}

impl SourceRoot {
    /// Opens what the local user wants to serve: a directory, or one file and nothing beside it. Links in
    /// `path` itself are followed.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotFound`], [`SourceError::Unreadable`], [`SourceError::NotServable`] for anything
    /// but files and directories, [`SourceError::PathRefused`] for a file whose name cannot be sent.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let shown = path.as_os_str().as_encoded_bytes();
        let opening = |error| SourceError::opening(shown, error);
        let kind = fs::metadata(path).map_err(opening)?.file_type();
        if kind.is_dir() {
            let dir = platform::open_ambient_dir(path).map_err(opening)?;
            let Stat { device, inode, .. } = platform::stat_open(&dir).map_err(opening)?;
            let path = std::path::absolute(path).map_err(opening)?;
            let opened = OpenedAt { name: name_of(&path), path, device, inode };
            return Ok(Self { served: Served::Directory(Arc::new(dir)), opened: Some(opened.into()) });
        }
        if !kind.is_file() {
            return Err(SourceError::NotServable { path: escape(shown).to_string(), found: Kind::Special });
        }
        // The link that the user named may be in one directory and the file in another.
        let real = fs::canonicalize(path).map_err(opening)?;
        let (Some(parent), Some(real_name), Some(name)) = (real.parent(), real.file_name(), path.file_name())
        else {
            return Err(opening(io::ErrorKind::InvalidFilename.into()));
        };
        let root = platform::open_ambient_dir(parent).map_err(opening)?;
        let checked = |name| {
            let bytes =
                platform::bytes_of(name).ok_or_else(|| opening(io::ErrorKind::InvalidFilename.into()))?;
            Ok::<_, SourceError>(RelPath::parse(bytes)?)
        };
        let file = OneFile { root: Arc::new(root), path: checked(real_name)?, name: checked(name)? };
        file.open()?;
        Ok(Self { served: Served::File(file), opened: None })
    }

    /// Checks that the directory is still what its path leads to. What happens below it later is not noticed by this.
    ///
    /// # Errors
    ///
    /// [`SourceError::Gone`] if it was removed, moved away or replaced, [`SourceError::Unreadable`].
    pub(crate) fn check_there(&self) -> Result<(), SourceError> {
        if let Served::Several(parts) = &self.served {
            return parts.0.iter().try_for_each(|part| part.root.check_there());
        }
        let (Some(opened), Served::Directory(dir)) = (&self.opened, &self.served) else { return Ok(()) };
        if cfg!(unix) && platform::stat_open(dir.as_ref()).is_ok_and(|stat| stat.links == 0) {
            return Err(SourceError::Gone);
        }
        match platform::identity_of(&opened.path) {
            Ok(found) if found == (opened.device, opened.inode) => Ok(()),
            Ok(_) => Err(SourceError::Gone),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(SourceError::Gone)
            }
            // A peer is not told where on this machine it is.
            Err(source) => Err(SourceError::Unreadable { path: ".".to_owned(), source }),
        }
    }

    /// The path of this machine that it was opened by.
    pub(crate) fn place(&self) -> Option<&Path> {
        Some(&self.opened.as_ref()?.path)
    }

    /// Whether it is a directory, and not one file.
    pub fn is_directory(&self) -> bool {
        self.directory().is_some()
    }

    /// The open directory, unless it is a file that is served.
    pub fn directory(&self) -> Option<&Arc<Dir>> {
        match &self.served {
            Served::Directory(root) => Some(root),
            Served::File(_) | Served::Several(_) => None,
        }
    }

    /// Finds what a peer asks for: nothing (`b""`) is the whole of what is served, by the name of its directory,
    /// anything else a path beneath it. Links on the way are followed as long as they are relative and stay beneath the root.
    ///
    /// # Errors
    ///
    /// [`SourceError::PathRefused`] and [`SourceError::LeavesServedRoot`] if the peer may not ask for that,
    /// [`SourceError::NotFound`], [`SourceError::NotServable`], [`SourceError::Unreadable`].
    pub fn resolve(&self, request: &[u8]) -> Result<Source, SourceError> {
        self.check_there()?;
        if request.is_empty() {
            return Ok(match &self.served {
                Served::Directory(root) => {
                    let name = self.opened.as_ref().and_then(|opened| opened.name.clone());
                    let shape = name.map_or(Shape::Contents, |name| Shape::Directory { name });
                    Source::of(shape, Content::Tree(Arc::clone(root)))
                }
                Served::File(file) => Source::of_file(file.clone()),
                Served::Several(parts) => Source::of(Shape::Contents, Content::Several(parts.clone())),
            });
        }
        let path = requested(request)?;
        match &self.served {
            Served::Directory(root) => Source::beneath(root, path),
            Served::File(file) if file.name == path => Ok(Source::of_file(file.clone())),
            Served::File(_) => Err(SourceError::NotFound { path: path.to_string() }),
            Served::Several(parts) => parts.resolve(&path),
        }
    }

    /// The directory `path` as a root of its own; this root for an empty path. Follows no link.
    ///
    /// # Errors
    ///
    /// [`SourceError::PathRefused`], [`SourceError::LeavesServedRoot`] for a link, [`SourceError::NotServable`] if
    /// what is served is one file, [`SourceError::NotFound`], [`SourceError::Unreadable`].
    pub fn below(&self, path: &[u8]) -> Result<Self, SourceError> {
        self.check_there()?;
        let Served::Directory(root) = &self.served else {
            return Err(SourceError::NotServable { path: escape(path).to_string(), found: Kind::File });
        };
        if path.is_empty() {
            return Ok(self.clone());
        }
        let path = requested(path)?;
        match platform::open_dir(root, path.as_bytes()) {
            Ok(dir) => Ok(Self { served: Served::Directory(Arc::new(dir)), opened: None }),
            Err(error) if platform::is_symlink_refused(&error) => {
                Err(SourceError::LeavesServedRoot { path: path.to_string() })
            }
            Err(error) => Err(SourceError::opening(path.as_bytes(), error)),
        }
    }

    /// As [`resolve`](Self::resolve), but follows no link at all: for a peer whose rights end somewhere below
    /// the root, where a link would lead from what it may read to what it may not.
    ///
    /// # Errors
    ///
    /// [`SourceError::LeavesServedRoot`] for a path with a link in it, and as `resolve`.
    pub fn resolve_unlinked(&self, request: &[u8]) -> Result<Source, SourceError> {
        if let Served::Several(_) = &self.served {
            // A grant never covers a part of it.
            return Err(SourceError::NotFound { path: escape(request).to_string() });
        }
        let resolved = self.resolve(request)?;
        let (Served::Directory(root), Ok(path)) = (&self.served, RelPath::parse(request)) else {
            return Ok(resolved);
        };
        let opening = |error: io::Error| {
            let is_link =
                platform::is_symlink_refused(&error) || error.kind() == io::ErrorKind::NotADirectory;
            if is_link {
                SourceError::LeavesServedRoot { path: path.to_string() }
            } else {
                SourceError::opening(request, error)
            }
        };
        let parent = match path.parent() {
            Some(parent) => Arc::new(platform::open_dir(root, parent.as_bytes()).map_err(opening)?),
            None => Arc::clone(root),
        };
        if platform::stat(&parent, path.file_name()).map_err(opening)?.kind == Kind::Symlink {
            return Err(SourceError::LeavesServedRoot { path: path.to_string() });
        }
        Source::beneath(&parent, RelPath::parse(path.file_name())?)
    }
}

/// What a peer asked for: one file, or the content of a directory.
#[derive(Clone, Debug)]
pub struct Source {
    shape: Shape,
    content: Content,
    filters: Option<Arc<Filters>>,
    /// Whether owners and attributes are listed.
    has_attributes: bool,
    /// What files contain that the kernel makes up.
    made_up: MadeUpFiles,
}

#[derive(Clone, Debug)]
enum Content {
    Tree(Arc<Dir>),
    File(OneFile),
    Open(OpenFile),
    /// Something of unknown length that can be read once, and the name it goes by.
    Input(Input, RelPath),
    /// Some of what is beneath a directory, in the order in which it is to be listed.
    Listed {
        root: Arc<Dir>,
        entries: Arc<[Entry]>,
    },
    /// Several files and directories, each by its name.
    Several(Parts),
}

/// A file that is held open, and the name it goes by.
#[derive(Clone, Debug)]
struct OpenFile {
    file: Arc<File>,
    name: RelPath,
}

impl Source {
    /// A file that is open for reading and may have no name in any directory, or something that can be read once, such as
    /// a pipe: whatever is not a regular file at its beginning is read on from where it is. It goes by `name`, and its mode
    /// is 0644.
    ///
    /// # Errors
    ///
    /// [`SourceError::PathRefused`] for a name that cannot be sent, [`SourceError::NotServable`],
    /// [`SourceError::Unreadable`].
    pub fn of_open_file(file: File, name: &[u8]) -> Result<Self, SourceError> {
        let name = RelPath::parse(name)?;
        let unreadable = |source| SourceError::Unreadable { path: name.to_string(), source };
        let stat = platform::stat_open(&file).map_err(unreadable)?;
        if stat.kind == Kind::Special || stat.kind == Kind::File && !is_whole(&file, &stat) {
            let (input, shape) = (Input::new(file).map_err(unreadable)?, name.as_bytes().into());
            return Ok(Self::of(Shape::File { name: shape }, Content::Input(input, name)));
        }
        let open = OpenFile { file: Arc::new(file), name };
        open.entry()?;
        let name = open.name.as_bytes().into();
        Ok(Self::of(Shape::File { name }, Content::Open(open)))
    }

    /// Those of the files and directories beneath `root` that `entries` names, each in the state it
    /// describes: whatever is not any more fails when it is opened. `None` if `root` is one file.
    pub fn of_entries(root: &SourceRoot, entries: Vec<Entry>) -> Option<Self> {
        let root = Arc::clone(root.directory()?);
        Some(Self::of(Shape::Contents, Content::Listed { root, entries: entries.into() }))
    }

    fn of(shape: Shape, content: Content) -> Self {
        Self { shape, content, filters: None, has_attributes: false, made_up: MadeUpFiles::default() }
    }

    /// The same without what `filters` exclude, unless it is one file.
    #[must_use]
    pub fn with_filters(self, filters: Arc<Filters>) -> Self {
        Self { filters: (!filters.is_none()).then_some(filters), ..self }
    }

    /// The same with owners, access lists and extended attributes, if they are to be listed.
    #[must_use]
    pub fn with_attributes(self, has_attributes: bool) -> Self {
        Self { has_attributes, ..self }
    }

    /// Whether it is a file, a named directory or all that is served; the receiver needs it to know where
    /// things land.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Its directory; of one file also its path there, and the name that it goes by.
    pub(crate) fn place(&self) -> Option<(&Dir, Option<(RelPath, RelPath)>)> {
        match &self.content {
            Content::Tree(root) => Some((root, None)),
            Content::File(file) => Some((&file.root, Some((file.path.clone(), file.name.clone())))),
            Content::Open(_) | Content::Input(..) | Content::Listed { .. } | Content::Several(_) => None,
        }
    }

    /// Whether it is the content of a directory, and not a file.
    pub fn is_tree(&self) -> bool {
        matches!(self.content, Content::Tree(_))
    }

    /// Lists what is there, from the beginning.
    pub fn scan(&self) -> Scan {
        let mut reader = self.has_attributes.then(AttributesReader::default);
        match &self.content {
            Content::Tree(root) => Scan::tree(root, self.filters.as_ref(), reader).holding(&self.made_up),
            Content::File(file) => Scan::one(file.entry(&self.made_up, reader.as_mut())).reading(reader),
            Content::Open(file) => Scan::one(file.entry()),
            // Its parts are listed.
            Content::Input(..) => Scan::listed(Arc::default()),
            Content::Listed { entries, .. } => Scan::listed(Arc::clone(entries)),
            Content::Several(parts) => {
                let listed = parts.0.iter().map(|part| part.listed(&self.made_up, reader.as_mut()));
                let scan = Scan::several(listed, self.filters.as_ref());
                scan.holding(&self.made_up).reading(reader)
            }
        }
    }

    /// Opens the file of an entry that [`scan`](Self::scan) gave.
    ///
    /// # Errors
    ///
    /// [`SourceError::Changed`] if it is not any more what the scan saw, [`SourceError::Vanished`],
    /// [`SourceError::Unreadable`]. Nothing of the file may be sent then.
    pub fn open(&self, entry: &Entry) -> Result<SourceFile, SourceError> {
        let found = match entry.kind {
            EntryKind::File => Kind::File,
            EntryKind::Directory => Kind::Directory,
            EntryKind::Symlink => Kind::Symlink,
        };
        if found != Kind::File {
            return Err(SourceError::NotServable { path: entry.path.to_string(), found });
        }
        let reopening = |error| SourceError::reopening(entry.path.as_bytes(), error);
        if let Some(content) = self.made_up.find(entry) {
            return Ok(SourceFile::of_content(content, entry));
        }
        let file = match &self.content {
            Content::Tree(root) | Content::Listed { root, .. } => {
                platform::open_file(root, entry.path.as_bytes())
            }
            Content::File(one) => platform::open_file_following(&one.root, one.path.as_bytes()),
            Content::Open(open) => open.file.try_clone(),
            Content::Input(input, _) => {
                let held = input.find(entry.version.part().1);
                let held = held.ok_or_else(|| SourceError::Vanished { path: entry.path.to_string() })?;
                return Ok(SourceFile::of_content(held, entry));
            }
            Content::Several(parts) => parts.open(&entry.path),
        };
        let file = SourceFile::new(file.map_err(reopening)?, entry.version, entry.path.clone());
        match (file.check_unchanged(), file.bytes) {
            (Err(SourceError::Changed { path }), Bytes::OfFile(made_up))
                if !platform::sizes_of(&made_up).is_true(0) =>
            {
                let content = made_up::read_again(made_up, entry).map_err(reopening)?;
                let content = content.ok_or(SourceError::Changed { path })?;
                Ok(SourceFile::of_content(content, entry))
            }
            (checked, bytes) => checked.map(|()| SourceFile { bytes, ..file }),
        }
    }

    /// Whether its files are opened and read without ever waiting for a disk.
    pub fn is_immediate(&self) -> bool {
        match &self.content {
            Content::Tree(root) | Content::Listed { root, .. } => platform::lives_in_memory(root.as_ref()),
            Content::File(one) => platform::lives_in_memory(one.root.as_ref()),
            Content::Open(open) => platform::lives_in_memory(open.file.as_ref()),
            Content::Input(..) => true,
            Content::Several(parts) => parts.0.iter().all(|part| part.root.is_immediate()),
        }
    }

    fn of_file(file: OneFile) -> Self {
        Self::of(Shape::File { name: file.name.as_bytes().into() }, Content::File(file))
    }

    fn beneath(root: &Arc<Dir>, path: RelPath) -> Result<Self, SourceError> {
        let opening = |error| SourceError::opening(path.as_bytes(), error);
        // Asked before it is opened: to open a device may already do something.
        match platform::kind_following(root, path.as_bytes()).map_err(opening)? {
            Kind::Directory => {
                let dir = platform::open_dir_following(root, path.as_bytes()).map_err(opening)?;
                let shape = Shape::Directory { name: path.file_name().into() };
                Ok(Self::of(shape, Content::Tree(Arc::new(dir))))
            }
            Kind::File => {
                let name = RelPath::parse(path.file_name())?;
                let file = OneFile { root: Arc::clone(root), path, name };
                file.open()?;
                Ok(Self::of_file(file))
            }
            found @ (Kind::Symlink | Kind::Special) => {
                Err(SourceError::NotServable { path: path.to_string(), found })
            }
        }
    }
}

/// An open file of the source, in the state its entry described.
#[derive(Debug)]
pub struct SourceFile {
    bytes: Bytes,
    version: Version,
    path: RelPath,
    /// Reads never wait.
    is_in_memory: bool,
}

#[derive(Debug)]
enum Bytes {
    OfFile(File),
    /// What the kernel made up.
    Held(Arc<[u8]>),
}

impl SourceFile {
    fn new(file: File, version: Version, path: RelPath) -> Self {
        Self { is_in_memory: platform::lives_in_memory(&file), bytes: Bytes::OfFile(file), version, path }
    }

    fn of_content(content: Arc<[u8]>, entry: &Entry) -> Self {
        let (version, path) = (entry.version, entry.path.clone());
        Self { bytes: Bytes::Held(content), version, path, is_in_memory: true }
    }

    /// Fills `buffer` with the bytes at `offset_bytes`.
    ///
    /// The caller asks within the file only; call [`check_unchanged`](Self::check_unchanged) after the
    /// last read of a span.
    ///
    /// # Errors
    ///
    /// [`SourceError::Changed`] if the file ends before that, [`SourceError::Unreadable`].
    pub fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let path = || self.path.to_string();
        let read = match &self.bytes {
            Bytes::OfFile(file) => platform::read_exact_at(file, offset_bytes, buffer),
            Bytes::Held(content) => copy_at(content, offset_bytes, buffer),
        };
        read.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => SourceError::Changed { path: path() },
            _ => SourceError::Unreadable { path: path(), source },
        })
    }

    /// The same for as much as can be had without waiting for a disk: how much that is, 0 for nothing.
    ///
    /// # Errors
    ///
    /// As for [`read_at`](Self::read_at).
    pub fn try_read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        if self.is_in_memory {
            return self.read_at(offset_bytes, buffer).map(|()| buffer.len());
        }
        let Bytes::OfFile(file) = &self.bytes else { return Ok(0) };
        let mut filled = 0;
        while filled < buffer.len() {
            match platform::try_read_at(file, offset_bytes + filled as u64, &mut buffer[filled..]) {
                Ok(Some(0)) => return Err(SourceError::Changed { path: self.path.to_string() }),
                Ok(Some(read)) => filled += read,
                Ok(None) => break,
                Err(source) => return Err(SourceError::Unreadable { path: self.path.to_string(), source }),
            }
        }
        Ok(filled)
    }

    /// Hashes the first `len_bytes` for the list of a sync, but does not read its holes. `on_bytes` gets the length of each part once it is hashed; its error ends the hashing.
    ///
    /// # Errors
    ///
    /// As for [`read_at`](Self::read_at), and whatever `on_bytes` fails with.
    pub fn digest<E: From<SourceError>>(
        &self,
        len_bytes: u64,
        algorithm: DigestAlgorithm,
        on_bytes: impl Fn(u64) -> Result<(), E>,
    ) -> Result<Digest, E> {
        let holes = match &self.bytes {
            Bytes::OfFile(file) => sparse::holes_in(file, len_bytes),
            Bytes::Held(_) => Holes::default(),
        };
        let read = |at, buffer: &mut [u8]| self.read_at(at, buffer).map(|()| buffer.len()).map_err(E::from);
        sparse::hash_content(algorithm, &holes, len_bytes, read, |_, part| on_bytes(part.len() as u64))
    }

    /// Hashes the file of `entry` without its holes.
    ///
    /// # Errors
    ///
    /// As for [`read_at`](Self::read_at).
    pub fn digest_of_data(&self, entry: &Entry, algorithm: DigestAlgorithm) -> Result<Digest, SourceError> {
        let read = |at, buffer: &mut [u8]| self.read_at(at, buffer).map(|()| buffer.len());
        sparse::digest_of_data(algorithm, &entry.holes, entry.size_bytes, read)
    }

    /// Checks that the file is still in the state that its entry described (SPEC 4.9).
    ///
    /// # Errors
    ///
    /// [`SourceError::Changed`], [`SourceError::Vanished`] if it was deleted, [`SourceError::Unreadable`].
    pub fn check_unchanged(&self) -> Result<(), SourceError> {
        let path = || self.path.to_string();
        let Bytes::OfFile(file) = &self.bytes else { return Ok(()) };
        let stat =
            platform::stat_open(file).map_err(|source| SourceError::Unreadable { path: path(), source })?;
        if stat.kind == Kind::File && stat.version() == self.version {
            return Ok(());
        }
        if stat.links == 0 && cfg!(unix) {
            return Err(SourceError::Vanished { path: path() });
        }
        Err(SourceError::Changed { path: path() })
    }
}

/// Fills `buffer` from `content`; [`io::ErrorKind::UnexpectedEof`] if it ends before that.
fn copy_at(content: &[u8], offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    let start = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
    let end = start.saturating_add(buffer.len());
    let part = content.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
    buffer.copy_from_slice(part);
    Ok(())
}

/// Whether all of a regular file is to be read, and its size is that of its content.
fn is_whole(mut file: &File, stat: &Stat) -> bool {
    file.stream_position().is_ok_and(|at| at == 0) && platform::has_true_size(file, stat)
}

/// A path that a peer asks for. Our own files are none.
fn requested(path: &[u8]) -> Result<RelPath, SourceError> {
    let path = RelPath::parse(path)?;
    if path.components().any(names::is_own) {
        return Err(SourceError::NotFound { path: path.to_string() });
    }
    Ok(path)
}

/// The name of the directory at `path`, an absolute path; `None` for `/`, or if it cannot be sent.
fn name_of(path: &Path) -> Option<Vec<u8>> {
    // `..` at the end is only known to the system.
    let name = match path.file_name() {
        Some(name) => name.to_owned(),
        None => fs::canonicalize(path).ok()?.file_name()?.to_owned(),
    };
    let name = platform::bytes_of(&name)?;
    (RelPath::parse(name).is_ok() && !names::is_own(name)).then(|| name.to_vec())
}
