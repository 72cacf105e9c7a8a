//! Compares two trees, sharing no code with shiplane.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use walkdir::WalkDir;

use crate::interrupt;

/// What a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) files: u64,
    /// Without the root itself.
    pub(crate) directories: u64,
    /// Symbolic links and special files: never sent.
    pub(crate) others: u64,
    /// The files' content.
    pub(crate) bytes: u64,
}

/// One thing that is not as it should be.
#[derive(Debug)]
pub(crate) struct Found {
    /// Relative to the roots.
    pub(crate) path: PathBuf,
    pub(crate) difference: Difference,
}

/// How the copy differs from the original.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    Missing,
    Extra,
    Kind,
    Size {
        original_bytes: u64,
        copy_bytes: u64,
    },
    Content {
        offset_bytes: u64,
    },
    /// May the owner run it.
    Executable,
    /// The time of a file's last change, to the nanosecond.
    Time,
}

/// Counts what is beneath `root`.
pub(crate) fn survey(root: &Path) -> Result<Survey> {
    let mut survey = Survey::default();
    for (_, entry) in entries(root)? {
        match entry.kind {
            Kind::File => {
                survey.files += 1;
                survey.bytes += entry.metadata.len();
            }
            Kind::Directory => survey.directories += 1,
            Kind::Other => survey.others += 1,
        }
    }
    Ok(survey)
}

/// Every difference between `original` and `copy`: kinds, sizes, every byte, the owner's right to
/// execute, and the times of files. What is neither file nor directory must not have been copied.
pub(crate) fn trees(original: &Path, copy: &Path) -> Result<Vec<Found>> {
    let mut copies = entries(copy)?;
    let mut found = Vec::new();
    for (path, entry) in entries(original)? {
        if entry.kind == Kind::Other {
            continue;
        }
        let difference = match copies.remove(&path) {
            None => Some(Difference::Missing),
            Some(copied) => differ(&entry, &copied)?,
        };
        found.extend(difference.map(|difference| Found { path, difference }));
    }
    let extra = |path| Found { path, difference: Difference::Extra };
    found.extend(copies.into_keys().map(extra));
    Ok(found)
}

/// As [`trees`], with the differences as an error that names the first few.
pub(crate) fn expect_equal(original: &Path, copy: &Path) -> Result<()> {
    let found = trees(original, copy)?;
    if found.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = found.iter().take(SHOWN).map(|found| format!("  {found}")).collect();
    bail!("the copy differs in {} places:\n{}", found.len(), shown.join("\n"));
}

/// Fails unless two files hold the same bytes.
pub(crate) fn expect_same_content(original: &Path, copy: &Path) -> Result<()> {
    match first_different_byte(original, copy)? {
        None => Ok(()),
        Some(offset_bytes) => bail!("{copy:?} differs from byte {offset_bytes} on"),
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug, because names may hold what a terminal obeys.
        write!(f, "{:?}: ", self.path)?;
        match self.difference {
            Difference::Missing => f.write_str("is missing"),
            Difference::Extra => f.write_str("is not in the original"),
            Difference::Kind => f.write_str("is of another kind"),
            Difference::Size { original_bytes, copy_bytes } => {
                write!(f, "has {copy_bytes} bytes instead of {original_bytes}")
            }
            Difference::Content { offset_bytes } => {
                write!(f, "differs from byte {offset_bytes} on")
            }
            Difference::Executable => f.write_str("has another right to be executed"),
            Difference::Time => f.write_str("has another modification time"),
        }
    }
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    kind: Kind,
    metadata: Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Other,
}

/// By their relative paths, the root itself left out; links are not followed.
fn entries(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::new();
    for entry in WalkDir::new(root).min_depth(1) {
        let entry = entry.context("cannot read a tree")?;
        let metadata = entry.metadata().context("cannot read a tree")?;
        let kind = match metadata.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            _ => Kind::Other,
        };
        let relative = entry.path().strip_prefix(root).context("walked out of the tree")?;
        let relative = relative.to_path_buf();
        entries.insert(relative, Entry { path: entry.into_path(), kind, metadata });
    }
    Ok(entries)
}

fn differ(original: &Entry, copy: &Entry) -> Result<Option<Difference>> {
    interrupt::check()?;
    if original.kind != copy.kind {
        return Ok(Some(Difference::Kind));
    }
    if original.kind != Kind::File {
        return Ok(None);
    }
    let (original_bytes, copy_bytes) = (original.metadata.len(), copy.metadata.len());
    if original_bytes != copy_bytes {
        return Ok(Some(Difference::Size { original_bytes, copy_bytes }));
    }
    if let Some(offset_bytes) = first_different_byte(&original.path, &copy.path)? {
        return Ok(Some(Difference::Content { offset_bytes }));
    }
    if is_executable(&original.metadata) != is_executable(&copy.metadata) {
        return Ok(Some(Difference::Executable));
    }
    let time = |entry: &Entry| entry.metadata.modified().context("this system keeps no times");
    Ok((time(original)? != time(copy)?).then_some(Difference::Time))
}

fn first_different_byte(original: &Path, copy: &Path) -> Result<Option<u64>> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {path:?}"));
    let (mut original, mut copy) = (open(original)?, open(copy)?);
    let (mut left, mut right) = (vec![0; BUFFER_LEN_BYTES], vec![0; BUFFER_LEN_BYTES]);
    let mut offset_bytes = 0;
    loop {
        interrupt::check()?;
        let len = fill(&mut original, &mut left)?;
        let copied_len = fill(&mut copy, &mut right)?;
        if left[..len] != right[..copied_len] {
            let same = left[..len].iter().zip(&right[..copied_len]).take_while(|(a, b)| a == b).count();
            return Ok(Some(offset_bytes + same as u64));
        }
        if len == 0 {
            return Ok(None);
        }
        offset_bytes += len as u64;
    }
}

/// Reads until the buffer is full or the file has ended.
fn fill(file: &mut File, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]).context("cannot read a file that is compared")? {
            0 => break,
            len => filled += len,
        }
    }
    Ok(filled)
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_metadata: &Metadata) -> bool {
    false
}

/// A wrong tree is usually wrong in the same way everywhere.
const SHOWN: usize = 20;

const BUFFER_LEN_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use tempfile::TempDir;

    use super::*;

    /// Two equal trees, and what their comparison says after one of them was changed.
    struct Pair {
        original: TempDir,
        copy: TempDir,
    }

    impl Pair {
        fn new() -> Self {
            let pair = Self { original: tempfile::tempdir().unwrap(), copy: tempfile::tempdir().unwrap() };
            for root in [pair.original.path(), pair.copy.path()] {
                fs::create_dir(root.join("d")).unwrap();
                fs::write(root.join("d/f"), vec![7; 600_000]).unwrap();
                let file = File::options().write(true).open(root.join("d/f")).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 123_456_700)).unwrap();
            }
            pair
        }

        fn copied(&self, path: &str) -> PathBuf {
            self.copy.path().join(path)
        }

        fn differences(&self) -> Vec<(String, Difference)> {
            let found = trees(self.original.path(), self.copy.path()).unwrap();
            found.into_iter().map(|found| (found.path.display().to_string(), found.difference)).collect()
        }
    }

    #[test]
    fn equal_trees_are_equal() {
        let pair = Pair::new();
        assert_eq!(pair.differences(), []);
        expect_equal(pair.original.path(), pair.copy.path()).unwrap();
        let counted = Survey { files: 1, directories: 1, others: 0, bytes: 600_000 };
        assert_eq!(survey(pair.copy.path()).unwrap(), counted);
    }

    #[test]
    fn one_bit_is_found_where_it_is() {
        let pair = Pair::new();
        let mut bytes = vec![7; 600_000];
        bytes[500_001] = 6;
        fs::write(pair.copied("d/f"), bytes).unwrap();
        let content = Difference::Content { offset_bytes: 500_001 };
        assert_eq!(pair.differences(), [("d/f".to_owned(), content)]);
        let told = expect_equal(pair.original.path(), pair.copy.path()).unwrap_err().to_string();
        assert!(told.contains("from byte 500001"), "{told}");
    }

    #[test]
    fn sizes_and_times_are_compared() {
        let pair = Pair::new();
        let file = File::options().write(true).open(pair.copied("d/f")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 123_456_800)).unwrap();
        assert_eq!(pair.differences(), [("d/f".to_owned(), Difference::Time)]);
        file.set_len(9).unwrap();
        let size = Difference::Size { original_bytes: 600_000, copy_bytes: 9 };
        assert_eq!(pair.differences(), [("d/f".to_owned(), size)]);
    }

    #[test]
    fn what_is_missing_and_what_is_extra_are_both_found() {
        let pair = Pair::new();
        fs::remove_file(pair.copied("d/f")).unwrap();
        fs::write(pair.copied("d/.f.partial"), b"half").unwrap();
        let expected =
            [("d/f".to_owned(), Difference::Missing), ("d/.f.partial".to_owned(), Difference::Extra)];
        assert_eq!(pair.differences(), expected);
    }

    #[test]
    fn a_directory_in_a_files_place_is_another_kind() {
        let pair = Pair::new();
        fs::remove_file(pair.copied("d/f")).unwrap();
        fs::create_dir(pair.copied("d/f")).unwrap();
        assert_eq!(pair.differences(), [("d/f".to_owned(), Difference::Kind)]);
    }

    #[cfg(unix)]
    #[test]
    fn the_right_to_execute_counts_and_links_must_not_arrive() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let pair = Pair::new();
        fs::set_permissions(pair.copied("d/f"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("d", pair.original.path().join("link")).unwrap();
        assert_eq!(pair.differences(), [("d/f".to_owned(), Difference::Executable)]);
        symlink("d", pair.copied("link")).unwrap();
        assert!(pair.differences().contains(&("link".to_owned(), Difference::Extra)));
    }
}
