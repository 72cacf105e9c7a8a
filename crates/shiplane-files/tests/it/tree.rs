//! A scripted peer: a tree of entries, and the loop of a transfer.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shiplane_files::internals::{
    ChunkWriter, Destination, DestinationError, Existing, JobKey, LinkPolicy, Plan, ReceiveOptions, Shape,
    Summary,
};
use shiplane_wire::{
    Digest, DigestAlgorithm, Durability, Entry, EntryKind, Holes, LinkTarget, Mtime, Offer, RecvStep,
    RelPath, Span, Verified, Version,
};

/// Small, so that files of a few chunks are small, too.
pub(super) const CHUNK: u64 = 1000;

/// What a peer offers, in the order it says so.
#[derive(Clone, Default)]
pub(super) struct Tree {
    pub(super) entries: Vec<(Entry, Vec<u8>)>,
}

impl Tree {
    pub(super) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.with(EntryKind::File, path.as_bytes(), content.as_ref())
    }

    pub(super) fn dir(self, path: &str) -> Self {
        self.with(EntryKind::Directory, path.as_bytes(), b"")
    }

    pub(super) fn link(mut self, path: &str, target: &str) -> Self {
        let target = Some(LinkTarget::parse(target.as_bytes()).unwrap());
        let entry = Entry { target, ..entry(EntryKind::Symlink, path.as_bytes(), b"") };
        self.entries.push((entry, Vec::new()));
        self
    }

    pub(super) fn with(mut self, kind: EntryKind, path: &[u8], content: &[u8]) -> Self {
        self.entries.push((entry(kind, path, content), content.to_vec()));
        self
    }

    /// Changes the last entry.
    pub(super) fn set(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        change(&mut self.entries.last_mut().unwrap().0);
        self
    }

    /// A file of three chunks and a bit, a packed dozen of small ones, empty ones and directories.
    pub(super) fn mixed() -> Self {
        let mut tree = Self::default().file("large", noise(1, 3300)).dir("sub").dir("sub/none");
        for at in 0..12 {
            tree = tree.file(&format!("sub/{at}"), noise(10 + at, 150 + 10 * usize::from(at)));
        }
        tree.file("sub/empty", "").file("last", noise(99, 2000))
    }
}

/// An entry whose version follows from its content.
pub(super) fn entry(kind: EntryKind, path: &[u8], content: &[u8]) -> Entry {
    let mut version = [0; 16];
    version.copy_from_slice(&Digest::blake3(content).as_bytes()[..16]);
    Entry {
        kind,
        mode: if kind == EntryKind::File { 0o644 } else { 0o755 },
        size_bytes: content.len() as u64,
        mtime: Mtime { secs: 1_600_000_000, nanos: 123_456_789 },
        version: Version::from_bytes(version),
        path: RelPath::parse(path).unwrap(),
        target: None,
        first: None,
        holes: Holes::default(),
        attributes: None,
    }
}

/// Bytes that differ by seed and by place.
pub(super) fn noise(seed: u8, len: usize) -> Vec<u8> {
    testlink::Rng::new(seed.into()).bytes(len)
}

pub(super) fn options() -> ReceiveOptions {
    ReceiveOptions {
        existing: Existing::Refuse,
        durability: Durability::Durable,
        verify: false,
        links: LinkPolicy::All,
        attributes: false,
        digest: DigestAlgorithm::Blake3,
        chunk_len_bytes: CHUNK,
    }
}

pub(super) fn overwriting() -> ReceiveOptions {
    ReceiveOptions { existing: Existing::Replace, ..options() }
}

pub(super) fn job() -> JobKey {
    JobKey::new(b"peer", b"path")
}

/// Opens `dest` for the content of a served root.
pub(super) fn open(dest: &Path) -> Destination {
    open_with(dest, options())
}

pub(super) fn open_with(dest: &Path, options: ReceiveOptions) -> Destination {
    Destination::open(dest, &Shape::Contents, job(), options).unwrap()
}

/// A transfer under way.
pub(super) struct Transfer<'a> {
    pub(super) dest: Destination,
    tree: &'a Tree,
    pub(super) chunks: Vec<Vec<Span>>,
    /// Entries that are complete and not published.
    pub(super) ready: Vec<u64>,
    pub(super) resumed_bytes: u64,
}

impl<'a> Transfer<'a> {
    /// Plans every entry and cuts what is missing into chunks.
    pub(super) fn plan(dest: Destination, tree: &'a Tree) -> Result<Self, DestinationError> {
        let planned = Self::plan_what_goes(dest.clone(), tree)?;
        first_left_out(&dest).map_or(Ok(planned), Err)
    }

    /// The same, without what is left out.
    pub(super) fn plan_what_goes(dest: Destination, tree: &'a Tree) -> Result<Self, DestinationError> {
        let mut transfer = Self { dest, tree, chunks: Vec::new(), ready: Vec::new(), resumed_bytes: 0 };
        let mut missing = Vec::new();
        for (index, (entry, content)) in (0..).zip(&tree.entries) {
            let plan = match transfer.dest.plan(index, entry)? {
                Plan::Compare { .. } => transfer.dest.compare(index, entry, Digest::blake3(content))?,
                plan => plan,
            };
            match plan {
                Plan::Done | Plan::Kept | Plan::Linked | Plan::LeftOut => {}
                Plan::Compare { .. } | Plan::Delta { .. } => panic!("compare settles it"),
                Plan::Want { missing: none, resumed_bytes } if none.is_empty() => {
                    transfer.resumed_bytes += resumed_bytes;
                    transfer.ready.push(index);
                }
                Plan::Want { missing: some, resumed_bytes } => {
                    transfer.resumed_bytes += resumed_bytes;
                    missing.push((index, entry.size_bytes, some));
                }
            }
        }
        transfer.chunks = cut(&missing);
        Ok(transfer)
    }

    pub(super) fn missing_bytes(&self) -> u64 {
        self.chunks.iter().flatten().map(|span| span.len_bytes).sum()
    }

    /// The bytes of a chunk, as the peer sends them.
    pub(super) fn content(&self, chunk: usize) -> Vec<u8> {
        self.chunks[chunk].iter().flat_map(|span| self.bytes_of(span)).copied().collect()
    }

    fn bytes_of(&self, span: &Span) -> &[u8] {
        let content = &self.tree.entries[span.entry as usize].1;
        &content[span.offset_bytes as usize..(span.offset_bytes + span.len_bytes) as usize]
    }

    pub(super) fn writer(&self, chunk: usize) -> ChunkWriter {
        self.dest.chunk_writer(chunk as u64, &self.chunks[chunk]).unwrap()
    }

    /// Writes a chunk in pieces of an odd length and commits it; gives its length. A file that is left out is an error.
    pub(super) fn deliver(&mut self, chunk: usize) -> Result<u64, DestinationError> {
        let len_bytes = self.deliver_what_goes(chunk)?;
        first_left_out(&self.dest).map_or(Ok(len_bytes), Err)
    }

    /// The same, without what is left out.
    fn deliver_what_goes(&mut self, chunk: usize) -> Result<u64, DestinationError> {
        let content = self.content(chunk);
        let mut writer = self.dest.chunk_writer(chunk as u64, &self.chunks[chunk])?;
        for piece in content.chunks(271) {
            writer.write(piece)?;
        }
        let (stored, complete) = writer.commit(verified(&content))?;
        assert_eq!(stored.durability(), Durability::Verified);
        self.ready.extend(complete);
        Ok(stored.len_bytes())
    }

    pub(super) fn publish(&mut self) -> Result<(), DestinationError> {
        let ready = std::mem::take(&mut self.ready);
        if self.dest.publish(&ready)?.len() < ready.len() {
            return Err(first_left_out(&self.dest).unwrap());
        }
        Ok(())
    }

    /// Does the rest, without what is left out; gives that.
    pub(super) fn complete_what_goes(mut self) -> Vec<(String, shiplane_wire::LeftOutReason)> {
        let mut left = Vec::new();
        let mut take = |dest: &Destination| {
            for left_out in dest.take_left_out().unwrap().0 {
                if let Some(entry) = left_out.entry {
                    dest.discard_left_out(entry).unwrap();
                }
                left.push((left_out.shown().to_string(), left_out.reason));
            }
        };
        for chunk in 0..self.chunks.len() {
            self.deliver_what_goes(chunk).unwrap();
            take(&self.dest);
        }
        self.dest.publish(&std::mem::take(&mut self.ready)).unwrap();
        take(&self.dest);
        self.dest.clone().finish().unwrap();
        take(&self.dest);
        left
    }

    /// Does the rest.
    pub(super) fn complete(mut self) -> Result<Summary, DestinationError> {
        for chunk in 0..self.chunks.len() {
            self.deliver(chunk)?;
        }
        self.publish()?;
        self.dest.finish()
    }
}

/// A whole transfer.
pub(super) fn receive(dest: Destination, tree: &Tree) -> Result<Summary, DestinationError> {
    Transfer::plan(dest, tree)?.complete()
}

/// Large files in chunks of their own, small ones packed whole, as SPEC 4.7 has it.
fn cut(missing: &[(u64, u64, Vec<Range<u64>>)]) -> Vec<Vec<Span>> {
    let (mut chunks, mut pack, mut packed) = (Vec::new(), Vec::new(), 0);
    for (entry, size_bytes, ranges) in missing {
        let entry = *entry;
        for range in ranges {
            if *size_bytes >= CHUNK {
                for offset_bytes in range.clone().step_by(CHUNK as usize) {
                    let len_bytes = CHUNK.min(range.end - offset_bytes);
                    chunks.push(vec![Span { entry, offset_bytes, len_bytes }]);
                }
                continue;
            }
            let len_bytes = range.end - range.start;
            if packed + len_bytes > CHUNK {
                chunks.push(std::mem::take(&mut pack));
                packed = 0;
            }
            packed += len_bytes;
            pack.push(Span { entry, offset_bytes: range.start, len_bytes });
        }
    }
    chunks.extend((!pack.is_empty()).then_some(pack));
    chunks
}

/// The proof that `content` arrived, got the only way there is: by receiving its frame.
pub(super) fn verified(content: &[u8]) -> Verified {
    let len_bytes = content.len() as u64;
    let mut receiver = Offer::new(len_bytes, len_bytes).unwrap().accept(shiplane_wire::Hasher::blake3());
    receiver.push(Bytes::copy_from_slice(content));
    receiver.push(Bytes::copy_from_slice(Digest::blake3(content).as_bytes()));
    loop {
        match receiver.poll().unwrap() {
            RecvStep::Verified(verified) => return verified,
            RecvStep::Payload { .. } => {}
            RecvStep::NeedInput | RecvStep::Ended => panic!("the frame is whole"),
        }
    }
}

/// Every name beneath `root`, with the content of files; links and our own files included.
pub(super) fn listing(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for item in fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let content = kind.is_file().then(|| fs::read(&path).unwrap());
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), content);
            dirs.extend(kind.is_dir().then_some(path));
        }
    }
    found
}

/// Checks that beneath `root` there is the tree and nothing else.
#[track_caller]
pub(super) fn assert_equal(root: &Path, tree: &Tree) {
    use std::os::unix::ffi::OsStrExt;

    let mut expected = BTreeMap::new();
    for (entry, content) in &tree.entries {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(entry.path.as_bytes()));
        expected.insert(path, (entry.kind == EntryKind::File).then(|| content.clone()));
    }
    let found = listing(root);
    assert!(found.keys().eq(expected.keys()), "found {:?}", found.keys());
    assert!(found == expected, "the content differs");
}

/// Names that a run leaves for the next one.
pub(super) fn own_names(root: &Path) -> Vec<PathBuf> {
    let own = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(".shiplane-");
    listing(root).into_keys().filter(own).collect()
}

pub(super) fn journal_of(root: &Path) -> PathBuf {
    let journal =
        own_names(root).into_iter().find(|path| path.extension().is_some_and(|end| end == "journal"));
    root.join(journal.unwrap())
}

/// Why the first of the paths was left out that were since the last time.
pub(super) fn first_left_out(dest: &Destination) -> Option<DestinationError> {
    let (left_out, _) = dest.take_left_out().unwrap();
    std::sync::Arc::into_inner(left_out.into_iter().next()?.error)
}
