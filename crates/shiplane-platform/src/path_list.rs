//! A list of paths with what is known of each, kept in memory or, if they are many, in a file.

use std::fs::File;
use std::io;
use std::marker::PhantomData;

use cap_std::fs::Dir;
use shiplane_wire::RelPath;

use crate::calls;

/// What is kept of a path.
pub trait Item: Sized {
    /// Appends it.
    fn encode(&self, out: &mut Vec<u8>);

    /// Takes it from the start of `block`; `None` if that is not what was encoded.
    fn decode(block: &mut &[u8]) -> Option<Self>;
}

/// Keeps paths in the order in which they came, such as directories before what is in them.
#[derive(Debug)]
pub struct PathList<T> {
    /// The newest, encoded one after another.
    newest: Vec<u8>,
    /// The others, in a file without a name, and where each block of them ends.
    older: Option<File>,
    ends: Vec<u64>,
    items: PhantomData<T>,
}

impl<T> Default for PathList<T> {
    fn default() -> Self {
        Self { newest: Vec::new(), older: None, ends: Vec::new(), items: PhantomData }
    }
}

impl<T: Item> PathList<T> {
    /// Adds a path. Where they become many they go to a file in `root` that has `name` for a moment.
    ///
    /// # Errors
    /// What the system says.
    pub fn push(&mut self, path: &RelPath, item: &T, root: &Dir, name: &[u8]) -> io::Result<()> {
        encode_bytes(path.as_bytes(), &mut self.newest);
        item.encode(&mut self.newest);
        if self.newest.len() >= BLOCK_LEN_BYTES {
            self.spill(root, name)?;
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.ends.is_empty()
    }

    /// Gives all of them, the newest first: children before their parents.
    ///
    /// # Errors
    /// What `visit` says, or what `unreadable` makes of what the system says.
    pub fn newest_first<E>(
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
                let file = calls::create_file(root, name, 0o600)?;
                calls::remove_file(root, name)?;
                self.older.insert(file)
            }
        };
        let start = self.ends.last().copied().unwrap_or_default();
        calls::write_all_at(file, start, &self.newest)?;
        self.ends.push(start + self.newest.len() as u64);
        self.newest.clear();
        Ok(())
    }

    fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let file = self.older.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        calls::read_exact_at(file, start, &mut block)?;
        Ok(block)
    }
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
    let path = RelPath::parse(decode_bytes(block)?).ok()?;
    Some((path, T::decode(block)?))
}

/// Appends bytes with their length: fewer than 4 GiB.
pub fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The opposite.
pub fn decode_bytes<'a>(block: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = block.split_first_chunk()?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    *block = rest;
    Some(bytes)
}

/// 64 KiB: some thousand directories with usual names.
const BLOCK_LEN_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;
    use tempfile::TempDir;

    use super::*;

    impl Item for Vec<u8> {
        fn encode(&self, out: &mut Vec<u8>) {
            encode_bytes(self, out);
        }

        fn decode(block: &mut &[u8]) -> Option<Self> {
            decode_bytes(block).map(<[u8]>::to_vec)
        }
    }

    #[test]
    fn however_many_there_are_all_come_back_newest_first_and_memory_stays_small() {
        let temp = TempDir::new().unwrap();
        let root = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        let path = |number: u32| RelPath::parse(format!("{}/{number}", "x".repeat(200)).as_bytes()).unwrap();
        let item = |number: u32| vec![7; number as usize % 50];
        let mut list = PathList::default();
        assert!(list.is_empty());
        for number in 0..5000 {
            list.push(&path(number), &item(number), &root, b"spilled").unwrap();
            assert!(list.newest.len() < BLOCK_LEN_BYTES && !list.is_empty());
        }
        assert!(list.ends.len() > 10);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "the file has no name");
        let mut found = Vec::new();
        let visit = |path: &RelPath, item: &Vec<u8>| {
            found.push((path.clone(), item.clone()));
            Ok::<_, io::Error>(())
        };
        list.newest_first(|error| error, visit).unwrap();
        assert!(found.into_iter().eq((0..5000).rev().map(|number| (path(number), item(number)))));
    }
}
