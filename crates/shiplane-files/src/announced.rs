//! The directories of a transfer, kept in memory or, if there are many, in a file.

use std::fs::File;
use std::io;

use cap_std::fs::Dir;
use shiplane_wire::{Mtime, RelPath};

use crate::{platform, state::Directory};

/// Keeps directories in the order in which they came, parents before their children.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// The newest, encoded one after another.
    newest: Vec<u8>,
    /// The others, in a file without a name, and where each block of them ends.
    older: Option<File>,
    ends: Vec<u64>,
}

impl Announced {
    /// Adds a directory. Where they become many they go to a file in `root` that has `name` for a moment.
    pub(super) fn push(
        &mut self,
        path: &RelPath,
        directory: &Directory,
        root: &Dir,
        name: &[u8],
    ) -> io::Result<()> {
        encode(&mut self.newest, path, directory);
        if self.newest.len() >= BLOCK_LEN_BYTES {
            self.spill(root, name)?;
        }
        Ok(())
    }

    /// Gives all of them, the newest first: children before their parents.
    pub(super) fn newest_first<E>(
        &self,
        unreadable: impl Fn(io::Error) -> E,
        mut visit: impl FnMut(&RelPath, &Directory) -> Result<(), E>,
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

fn encode(out: &mut Vec<u8>, path: &RelPath, directory: &Directory) {
    let &Directory { mode, mtime } = directory;
    let path = path.as_bytes();
    // At most 4,096.
    out.extend_from_slice(&(path.len() as u32).to_le_bytes());
    out.extend_from_slice(path);
    out.extend_from_slice(&mode.unwrap_or(NO_MODE).to_le_bytes());
    out.extend_from_slice(&mtime.secs.to_le_bytes());
    out.extend_from_slice(&mtime.nanos.to_le_bytes());
}

fn visit_block<E>(
    mut block: &[u8],
    unreadable: &impl Fn(io::Error) -> E,
    visit: &mut impl FnMut(&RelPath, &Directory) -> Result<(), E>,
) -> Result<(), E> {
    let mut decoded = Vec::new();
    while !block.is_empty() {
        // Somebody else may have changed the file.
        decoded.push(decode(&mut block).ok_or_else(|| unreadable(io::ErrorKind::InvalidData.into()))?);
    }
    decoded.iter().rev().try_for_each(|(path, directory)| visit(path, directory))
}

fn decode(block: &mut &[u8]) -> Option<(RelPath, Directory)> {
    let len = u32::from_le_bytes(take(block)?);
    let (path, rest) = block.split_at_checked(usize::try_from(len).ok()?)?;
    *block = rest;
    let path = RelPath::parse(path).ok()?;
    let mode = u32::from_le_bytes(take(block)?);
    let mtime = Mtime { secs: i64::from_le_bytes(take(block)?), nanos: u32::from_le_bytes(take(block)?) };
    let mode = Some(mode).filter(|mode| *mode != NO_MODE);
    Some((path, Directory { mode, mtime }))
}

fn take<const LEN: usize>(block: &mut &[u8]) -> Option<[u8; LEN]> {
    let (first, rest) = block.split_first_chunk()?;
    *block = rest;
    Some(*first)
}

/// No mode is this one, once it is masked.
const NO_MODE: u32 = u32::MAX;

/// 64 KiB: some thousand directories with usual names.
const BLOCK_LEN_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn however_many_there_are_all_come_back_newest_first_and_memory_stays_small() {
        let temp = TempDir::new().unwrap();
        let root = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        let mut announced = Announced::default();
        let path = |number: u32| RelPath::parse(format!("{}/{number}", "x".repeat(200)).as_bytes()).unwrap();
        let directory = |number: u32| Directory {
            mode: Some(number).filter(|number| *number != 7),
            mtime: Mtime { secs: -i64::from(number), nanos: number },
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
                let expected = directory(number);
                assert_eq!((kept.mode, kept.mtime), (expected.mode, expected.mtime));
                numbers.push(number);
                Ok(())
            },
        );
        visited.unwrap();
        assert!(numbers.into_iter().eq((0..5000).rev()));
    }
}
