//! What is done at the end of a transfer, for directories, links or hard links: kept in memory or, if they are many, in a file.

use std::fs::File;
use std::io;
use std::marker::PhantomData;

use cap_std::fs::Dir;
use shiplane_wire::{Attributes, LinkTarget, Mtime, RelPath};

use crate::{
    platform,
    record::take,
    state::{HardLink, Link, Metadata},
};

/// What is kept of a path.
pub(super) trait Item: Sized {
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(block: &mut &[u8]) -> Option<Self>;
}

/// Keeps paths in the order in which they came, such as directories before what is in them.
#[derive(Debug)]
pub(super) struct Announced<T> {
    /// The newest, encoded one after another.
    newest: Vec<u8>,
    /// The others, in a file without a name, and where each block of them ends.
    older: Option<File>,
    ends: Vec<u64>,
    items: PhantomData<T>,
}

impl<T> Default for Announced<T> {
    fn default() -> Self {
        Self { newest: Vec::new(), older: None, ends: Vec::new(), items: PhantomData }
    }
}

impl<T: Item> Announced<T> {
    /// Adds a path. Where they become many they go to a file in `root` that has `name` for a moment.
    pub(super) fn push(&mut self, path: &RelPath, item: &T, root: &Dir, name: &[u8]) -> io::Result<()> {
        encode(&mut self.newest, path, item);
        if self.newest.len() >= BLOCK_LEN_BYTES {
            self.spill(root, name)?;
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.ends.is_empty()
    }

    /// Gives all of them, the newest first: children before their parents.
    pub(super) fn newest_first<E>(
        &self,
        unreadable: impl Fn(io::Error) -> E,
        mut visit: impl FnMut(&RelPath, &T) -> Result<(), E>,
    ) -> Result<(), E> {
        visit_block(&self.newest, &unreadable, &mut visit)?;
        for (number, end) in self.ends.iter().enumerate().rev() {
            let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
            let block = self.read(start, *end).map_err(&unreadable)?;
            visit_block(&block, &unreadable, &mut visit)?;
        }
        Ok(())
    }

    fn spill(&mut self, root: &Dir, name: &[u8]) -> io::Result<()> {
        let file = match &self.older {
            Some(file) => file,
            None => {
                let file = platform::create_file(root, name, 0o600)?;
                platform::remove_file(root, name)?;
                self.older.insert(file)
            }
        };
        let start = self.ends.last().copied().unwrap_or_default();
        platform::write_all_at(file, start, &self.newest)?;
        self.ends.push(start + self.newest.len() as u64);
        self.newest.clear();
        Ok(())
    }

    fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let file = self.older.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        platform::read_exact_at(file, start, &mut block)?;
        Ok(block)
    }
}

fn encode(out: &mut Vec<u8>, path: &RelPath, item: &impl Item) {
    let path = path.as_bytes();
    // At most 32 KiB.
    out.extend_from_slice(&(path.len() as u32).to_le_bytes());
    out.extend_from_slice(path);
    item.encode(out);
}

impl Item for Metadata {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.mode.unwrap_or(NO_MODE).to_le_bytes());
        encode_mtime(self.mtime, out);
        encode_attributes(self.attributes.as_ref(), out);
    }

    fn decode(block: &mut &[u8]) -> Option<Self> {
        let mode = Some(u32::from_le_bytes(take(block)?)).filter(|mode| *mode != NO_MODE);
        Some(Self { mode, mtime: decode_mtime(block)?, attributes: decode_attributes(block)? })
    }
}

impl Item for Link {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_mtime(self.mtime, out);
        let target = self.target.as_bytes();
        // At most 4,095.
        out.extend_from_slice(&(target.len() as u32).to_le_bytes());
        out.extend_from_slice(target);
        encode_attributes(self.attributes.as_ref(), out);
    }

    fn decode(block: &mut &[u8]) -> Option<Self> {
        let mtime = decode_mtime(block)?;
        let target = LinkTarget::parse(take_text(block)?).ok()?;
        Some(Self { mtime, target, attributes: decode_attributes(block)? })
    }
}

impl Item for HardLink {
    fn encode(&self, out: &mut Vec<u8>) {
        for field in [self.entry, self.first, self.size_bytes] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.push(self.replaces_same.into());
    }

    fn decode(block: &mut &[u8]) -> Option<Self> {
        let mut field = || Some(u64::from_le_bytes(take(block)?));
        let (entry, first, size_bytes) = (field()?, field()?, field()?);
        let [replaces_same] = take(block)?;
        Some(Self { entry, first, size_bytes, replaces_same: replaces_same != 0 })
    }
}

fn encode_attributes(attributes: Option<&Attributes>, out: &mut Vec<u8>) {
    let bytes = attributes.map(Attributes::as_bytes).unwrap_or_default();
    // At most 60 KiB.
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What is empty are none.
fn decode_attributes(block: &mut &[u8]) -> Option<Option<Attributes>> {
    match take_text(block)? {
        b"" => Some(None),
        bytes => Attributes::parse(bytes).ok().map(Some),
    }
}

fn encode_mtime(mtime: Mtime, out: &mut Vec<u8>) {
    out.extend_from_slice(&mtime.secs.to_le_bytes());
    out.extend_from_slice(&mtime.nanos.to_le_bytes());
}

fn decode_mtime(block: &mut &[u8]) -> Option<Mtime> {
    Some(Mtime { secs: i64::from_le_bytes(take(block)?), nanos: u32::from_le_bytes(take(block)?) })
}

fn visit_block<T: Item, E>(
    mut block: &[u8],
    unreadable: &impl Fn(io::Error) -> E,
    visit: &mut impl FnMut(&RelPath, &T) -> Result<(), E>,
) -> Result<(), E> {
    let mut decoded = Vec::new();
    while !block.is_empty() {
        // Somebody else may have changed the file.
        decoded.push(decode(&mut block).ok_or_else(|| unreadable(io::ErrorKind::InvalidData.into()))?);
    }
    decoded.iter().rev().try_for_each(|(path, item)| visit(path, item))
}

fn decode<T: Item>(block: &mut &[u8]) -> Option<(RelPath, T)> {
    let path = RelPath::parse(take_text(block)?).ok()?;
    Some((path, T::decode(block)?))
}

fn take_text<'a>(block: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = u32::from_le_bytes(take(block)?);
    let (text, rest) = block.split_at_checked(usize::try_from(len).ok()?)?;
    *block = rest;
    Some(text)
}

/// No mode is this one, once it is masked.
const NO_MODE: u32 = u32::MAX;

/// 64 KiB: some thousand directories with usual names.
const BLOCK_LEN_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;
    use shiplane_wire::Principal;
    use tempfile::TempDir;

    use super::*;

    fn attributes() -> Attributes {
        let owners = [Principal { id: 5, name: b"five" }, Principal::UNKNOWN];
        Attributes::new(owners, [&[], &[]], std::iter::empty()).unwrap()
    }

    #[test]
    fn however_many_there_are_all_come_back_newest_first_and_memory_stays_small() {
        let temp = TempDir::new().unwrap();
        let root = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        let mut announced = Announced::<Metadata>::default();
        let path = |number: u32| RelPath::parse(format!("{}/{number}", "x".repeat(200)).as_bytes()).unwrap();
        let directory = |number: u32| Metadata {
            mode: Some(number).filter(|number| *number != 7),
            mtime: Mtime { secs: -i64::from(number), nanos: number },
            attributes: number.is_multiple_of(2).then(attributes),
        };
        for number in 0..5000 {
            announced.push(&path(number), &directory(number), &root, b"spilled").unwrap();
            assert!(announced.newest.len() < BLOCK_LEN_BYTES);
        }
        assert!(announced.ends.len() > 10);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "the file has no name");
        let mut numbers = Vec::new();
        let visited = announced.newest_first(
            |error| error,
            |found, kept| {
                let number = kept.mtime.nanos;
                assert_eq!(found, &path(number));
                assert_eq!(kept, &directory(number));
                numbers.push(number);
                Ok(())
            },
        );
        visited.unwrap();
        assert!(numbers.into_iter().eq((0..5000).rev()));
    }

    #[test]
    fn links_come_back_with_their_targets() {
        let temp = TempDir::new().unwrap();
        let root = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        let mut announced = Announced::default();
        let path = RelPath::parse(b"a/l").unwrap();
        let (target, mtime) = (LinkTarget::parse(b"../\xff").unwrap(), Mtime { secs: -1, nanos: 5 });
        let link = Link { target, mtime, attributes: Some(attributes()) };
        announced.push(&path, &link, &root, b"spilled").unwrap();
        let mut found = Vec::new();
        let visit = |path: &RelPath, link: &Link| {
            found.push((path.clone(), link.clone()));
            Ok(())
        };
        announced.newest_first(|error| error, visit).unwrap();
        assert_eq!(found, [(path, link)]);
    }
}
