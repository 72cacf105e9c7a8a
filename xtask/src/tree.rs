//! Compares trees on disk, sharing no code with shiplane.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use walkdir::WalkDir;

use crate::interrupt;
#[cfg(unix)]
use crate::process;

/// What a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Regular files.
    pub files: u64,
    /// Without the root itself.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Special files: never sent.
    pub others: u64,
    /// The files' content.
    pub bytes: u64,
}

/// How a copy differs from the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// The original has no such name.
    Extra,
    /// A directory instead of a file, or the like.
    Kind,
    /// Bytes of the original and of the copy.
    Size(u64, u64),
    /// From this byte on.
    Content(u64),
    /// Where a link leads.
    Target,
    /// Who may read, write or execute it: of the original and of the copy.
    Mode(u32, u32),
    /// The time of a file's last change, to the nanosecond.
    Time,
    /// The same of a directory.
    DirectoryTime,
    /// Extended attributes of the user's.
    Attributes,
}

impl Difference {
    /// Whether it is in what the file contains, and not only in its mode or time.
    pub fn is_content(self) -> bool {
        !matches!(self, Self::Mode(..) | Self::Time | Self::DirectoryTime | Self::Attributes)
    }
}

/// Counts what is beneath `root`.
pub fn survey(root: &Path) -> Result<Survey> {
    let mut survey = Survey::default();
    for entry in entries(root)?.into_values() {
        let kind = entry.metadata.file_type();
        let counted = match (kind.is_dir(), kind.is_symlink()) {
            (true, _) => &mut survey.directories,
            (_, true) => &mut survey.links,
            _ if kind.is_file() => &mut survey.files,
            _ => &mut survey.others,
        };
        *counted += 1;
        survey.bytes += if kind.is_file() { entry.metadata.len() } else { 0 };
    }
    Ok(survey)
}

/// Every difference between `original` and `copy`, by relative path: kinds, sizes, every byte, modes and times. Special files must not have been copied.
pub fn differences(original: &Path, copy: &Path) -> Result<Vec<(PathBuf, Difference)>> {
    let mut copies = entries(copy)?;
    let mut found = Vec::new();
    for (path, entry) in entries(original)? {
        let kind = entry.metadata.file_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            continue;
        }
        let differ = |copied| differ(&entry, &copied);
        let differences = copies.remove(&path).map_or(Ok(vec![Difference::Missing]), differ)?;
        found.extend(differences.into_iter().map(|difference| (path.clone(), difference)));
    }
    found.extend(copies.into_keys().map(|path| (path, Difference::Extra)));
    Ok(found)
}

/// Fails if there are [`differences`], with the first few of them.
pub fn expect_equal(original: &Path, copy: &Path) -> Result<()> {
    expect_equal_but(original, copy, None)
}

/// The same, but directories may have been changed at other times: where a run was cut, that may be when it was.
pub fn expect_equal_whenever(original: &Path, copy: &Path) -> Result<()> {
    expect_equal_but(original, copy, Some(Difference::DirectoryTime))
}

fn expect_equal_but(original: &Path, copy: &Path, allowed: Option<Difference>) -> Result<()> {
    let mut found = differences(original, copy)?;
    found.retain(|(_, difference)| Some(*difference) != allowed);
    // Debug, because names may hold what a terminal obeys.
    let shown = found.iter().take(SHOWN).map(|(path, what)| format!("\n  {path:?}: {what:?}"));
    let (shown, count) = (shown.collect::<String>(), found.len());
    ensure!(
        found.is_empty(),
        "{} differs from {} in {count} places:{shown}",
        copy.display(),
        original.display()
    );
    Ok(())
}

/// Fails unless every name beneath `found` stands for what it stands for in `old` or in `new`, whole: nothing in
/// between, nothing lost, nothing else but shiplane's own temporary files.
pub fn expect_old_or_new(found: &Path, old: &Path, new: &Path) -> Result<()> {
    let trees = [entries(found)?, entries(old)?, entries(new)?];
    let paths: BTreeSet<&PathBuf> = trees.iter().flat_map(BTreeMap::keys).collect();
    for path in paths.into_iter().filter(|path| !is_own(path)) {
        let [found, old, new] = trees.each_ref().map(|tree| tree.get(path));
        let mut why = Vec::new();
        for version in [old, new] {
            why.extend(match (version, found) {
                (None, None) => None,
                (Some(_), None) => Some(Difference::Missing),
                (None, Some(_)) => Some(Difference::Extra),
                // What is put into a directory changes it, and it may be settled later.
                (Some(version), Some(found)) if version.metadata.is_dir() && found.metadata.is_dir() => None,
                // Those that could not be set are named, and mended by the next run.
                (Some(version), Some(found)) => differ(version, found)?
                    .into_iter()
                    .find(|difference| *difference != Difference::Attributes),
            });
        }
        if let [old, new] = why[..] {
            bail!("{path:?}: beside the old version {old:?}, beside the new one {new:?}");
        }
    }
    Ok(())
}

/// How what has this name beneath `copy` differs from what has it in the original.
pub fn differences_at(path: &Path, original: &Path, copy: &Path) -> Result<Vec<Difference>> {
    let [original, copy] = [original, copy].map(|root| entry_at(&root.join(path)));
    copy.map_or(Ok(vec![Difference::Missing]), |copy| differ(&original?, &copy))
}

/// All names beneath `root`.
pub fn names(root: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(root)?.into_keys().collect())
}

/// Each two names beneath `root` that are one file.
#[cfg(unix)]
pub fn linked(root: &Path) -> Result<BTreeSet<(PathBuf, PathBuf)>> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut files, mut pairs) = (BTreeMap::<_, Vec<PathBuf>>::new(), BTreeSet::new());
    for (path, entry) in entries(root)?.into_iter().filter(|(_, entry)| entry.metadata.is_file()) {
        let names = files.entry(entry.metadata.ino()).or_default();
        pairs.extend(names.iter().map(|name| (name.clone(), path.clone())));
        names.push(path);
    }
    Ok(pairs)
}

/// Fails unless two files hold the same bytes.
pub fn expect_same_content(original: &Path, copy: &Path) -> Result<()> {
    let different = first_different_byte(original, copy)?;
    different.map_or(Ok(()), |offset| bail!("{copy:?} differs from byte {offset} on"))
}

/// Copies a tree with modes, times and extended attributes into the directory `to`, which is created.
#[cfg(unix)]
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a copy needs a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {parent:?}"))?;
    process::run("cp", Command::new("cp").arg("-a").args([from, to])).map(drop)
}

/// Removes a tree, if it is there.
pub fn remove(root: &Path) -> Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", root.display()))
        }
        _ => Ok(()),
    }
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    /// Its own, if it is a link.
    metadata: Metadata,
}

/// By their relative paths, the root itself left out; links are not followed.
fn entries(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::new();
    for entry in WalkDir::new(root).min_depth(1) {
        let path = entry.context("cannot read a tree")?.into_path();
        let relative = path.strip_prefix(root).context("walked out of the tree")?;
        entries.insert(relative.to_path_buf(), entry_at(&path)?);
    }
    Ok(entries)
}

fn entry_at(path: &Path) -> Result<Entry> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("cannot read {path:?}"))?;
    Ok(Entry { path: path.to_path_buf(), metadata })
}

/// If it is the content, that alone.
fn differ(original: &Entry, copy: &Entry) -> Result<Vec<Difference>> {
    interrupt::check()?;
    let kind = original.metadata.file_type();
    if kind != copy.metadata.file_type() {
        return Ok(vec![Difference::Kind]);
    }
    let mut found = Vec::new();
    let time = |entry: &Entry| entry.metadata.modified().context("this system keeps no times");
    if time(original)? != time(copy)? {
        found.push(if kind.is_dir() { Difference::DirectoryTime } else { Difference::Time });
    }
    if kind.is_symlink() {
        let target = |entry: &Entry| fs::read_link(&entry.path).context("cannot read a link");
        let is_same = target(original)? == target(copy)?;
        return Ok(if is_same { found } else { vec![Difference::Target] });
    }
    let (original_bytes, copy_bytes) = (original.metadata.len(), copy.metadata.len());
    if kind.is_file() && original_bytes != copy_bytes {
        return Ok(vec![Difference::Size(original_bytes, copy_bytes)]);
    }
    if kind.is_file()
        && let Some(offset) = first_different_byte(&original.path, &copy.path)?
    {
        return Ok(vec![Difference::Content(offset)]);
    }
    let [original_mode, copy_mode] = [original, copy].map(|entry| mode_of(&entry.metadata));
    if original_mode != copy_mode {
        found.push(Difference::Mode(original_mode, copy_mode));
    }
    if attributes(&original.path)? != attributes(&copy.path)? {
        found.push(Difference::Attributes);
    }
    Ok(found)
}

/// Sets an extended attribute of a file or directory.
pub fn set_attribute(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    #[cfg(unix)]
    xattr::set_deref(path, name, value).with_context(|| format!("cannot set {name} of {path:?}"))?;
    let _ = (path, name, value);
    Ok(())
}

/// The extended attributes of the user's, in order of their names.
pub fn attributes(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    // Else their file system has none, or this user may not look.
    #[cfg(unix)]
    for name in xattr::list_deref(path).into_iter().flatten().filter_map(|name| name.into_string().ok()) {
        if name.starts_with("user.") {
            let value =
                xattr::get_deref(path, &name).with_context(|| format!("cannot read {name} of {path:?}"))?;
            found.push((name, value.unwrap_or_default()));
        }
    }
    found.sort();
    let _ = path;
    Ok(found)
}

fn first_different_byte(original: &Path, copy: &Path) -> Result<Option<u64>> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {path:?}"));
    let (mut original, mut copy) = (open(original)?, open(copy)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut offset_bytes = 0;
    loop {
        interrupt::check()?;
        for (file, piece) in [(&mut original, &mut left), (&mut copy, &mut right)] {
            piece.clear();
            file.take(PIECE_LEN_BYTES).read_to_end(piece).context("cannot read a file that is compared")?;
        }
        if left != right {
            let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            return Ok(Some(offset_bytes + same as u64));
        }
        if left.is_empty() {
            return Ok(None);
        }
        offset_bytes += left.len() as u64;
    }
}

/// Whether it is a temporary file or a journal of shiplane's.
fn is_own(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".shiplane-"))
}

fn mode_of(metadata: &Metadata) -> u32 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::mode(metadata) & 0o7777;
    #[cfg(not(unix))]
    u32::from(metadata.permissions().readonly())
}

/// A wrong tree is usually wrong in the same way everywhere.
const SHOWN: usize = 20;

const PIECE_LEN_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use filetime::FileTime;
    use tempfile::TempDir;

    use super::*;

    fn tree(files: &[(&str, &[u8])]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            filetime::set_file_mtime(path, FileTime::from_unix_time(1_000_000, 123_456_700)).unwrap();
        }
        settle(root.path());
        root
    }

    /// All directories were changed at the same time.
    fn settle(root: &Path) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        for directory in WalkDir::new(root).min_depth(1).into_iter().map(Result::unwrap) {
            if directory.file_type().is_dir() {
                File::open(directory.path()).unwrap().set_modified(time).unwrap();
            }
        }
    }

    /// What a comparison says after one of two equal trees was changed.
    fn after(change: impl FnOnce(&Path)) -> Vec<Difference> {
        let files: &[(&str, &[u8])] = &[("d/f", &[7; 600_000])];
        let (original, copy) = (tree(files), tree(files));
        expect_equal(original.path(), copy.path()).unwrap();
        change(copy.path());
        let touched = fs::metadata(copy.path().join("d")).unwrap().modified().unwrap();
        if touched > SystemTime::UNIX_EPOCH + Duration::from_secs(5) {
            settle(copy.path());
        }
        let found = differences(original.path(), copy.path()).unwrap();
        found.into_iter().map(|(_, difference)| difference).collect()
    }

    #[test]
    fn each_difference_is_found() {
        let write = |root: &Path| File::options().write(true).open(root.join("d/f")).unwrap();
        let flip = |root: &Path| {
            let mut bytes = vec![7; 600_000];
            bytes[500_001] = 6;
            fs::write(root.join("d/f"), bytes).unwrap();
        };
        assert_eq!(after(flip), [Difference::Content(500_001)]);
        assert_eq!(after(|root| write(root).set_len(9).unwrap()), [Difference::Size(600_000, 9)]);
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000, 123_456_800);
        assert_eq!(after(|root| write(root).set_modified(time).unwrap()), [Difference::Time]);
        let rename = |root: &Path| fs::rename(root.join("d/f"), root.join("d/.f.partial")).unwrap();
        assert_eq!(after(rename), [Difference::Missing, Difference::Extra]);
        let make = |root: &Path| {
            fs::remove_file(root.join("d/f")).unwrap();
            fs::create_dir(root.join("d/f")).unwrap();
        };
        assert_eq!(after(make), [Difference::Kind]);
    }

    #[cfg(unix)]
    #[test]
    fn modes_and_times_of_directories_and_links_count() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let change = |root: &Path| {
            fs::set_permissions(root.join("d/f"), fs::Permissions::from_mode(0o755)).unwrap();
            symlink("d", root.join("link")).unwrap();
            fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
        };
        assert_eq!(
            after(change),
            [Difference::Mode(0o755, 0o700), Difference::Mode(0o644, 0o755), Difference::Extra]
        );
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink("a", one.path().join("l")).unwrap();
        copy(one.path(), &other.path().join("same")).unwrap();
        expect_equal(one.path(), &other.path().join("same")).unwrap();
        fs::create_dir(other.path().join("elsewhere")).unwrap();
        symlink("b", other.path().join("elsewhere/l")).unwrap();
        let found = differences(one.path(), &other.path().join("elsewhere")).unwrap();
        assert_eq!(found, [(PathBuf::from("l"), Difference::Target)]);
        let touch =
            |root: &Path| File::open(root.join("d")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(after(touch), [Difference::DirectoryTime]);
    }

    #[test]
    fn each_file_may_be_old_or_new_and_nothing_else() {
        let old = tree(&[("a", b"old"), ("b", b"same"), ("gone", b"1")]);
        let new = tree(&[("a", b"new"), ("b", b"same"), ("d/c", b"made")]);
        let check = |files: &[(&str, &[u8])]| expect_old_or_new(tree(files).path(), old.path(), new.path());
        check(&[("a", b"old"), ("b", b"same"), ("gone", b"1")]).unwrap();
        check(&[("a", b"new"), ("b", b"same"), ("d/c", b"made")]).unwrap();
        check(&[("a", b"new"), ("b", b"same"), ("gone", b"1"), (".shiplane-0-1.part", b"half")]).unwrap();
        for wrong in [
            &[("a", &b"ne"[..]), ("b", b"same")][..],
            &[("b", b"same")],
            &[("a", b"old"), ("b", b"same"), ("d/c", b"mad")],
            &[("a", b"old"), ("b", b"same"), ("x", b"1")],
        ] {
            check(wrong).unwrap_err();
        }
        let at = |path: &str| differences_at(Path::new(path), old.path(), new.path()).unwrap();
        assert_eq!(
            [at("b"), at("a"), at("gone")],
            [vec![], vec![Difference::Content(0)], vec![Difference::Missing]]
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_is_the_same_tree() {
        let (from, to) = (tree(&[("d/f", b"content")]), tempfile::tempdir().unwrap());
        copy(from.path(), &to.path().join("to")).unwrap();
        expect_equal(from.path(), &to.path().join("to")).unwrap();
        let counted = Survey { files: 1, directories: 1, links: 0, others: 0, bytes: 7 };
        assert_eq!(survey(&to.path().join("to")).unwrap(), counted);
        remove(&to.path().join("to")).unwrap();
        remove(&to.path().join("to")).unwrap();
    }
}
