//! Directories of files: generated, written, read back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use testlink::Rng;
use walkdir::WalkDir;
use xtask::tree::Difference;

use crate::sim::{oracle::Violation, world::set_up};

/// By path: the content of a file, nothing for a directory, for a link a mark and what it points to.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// A few directories, and files in them, of which some are alike.
pub fn draw(rng: &mut Rng) -> Tree {
    let mut tree = Tree::new();
    let mut directories = vec![String::new()];
    for number in 0..rng.spread(1, 9) {
        let parent = directories[rng.between(0, directories.len() as u64) as usize].clone();
        let directory = format!("{parent}{}{number}", rng.pick(&NAMES));
        tree.insert(directory.clone(), None);
        directories.push(format!("{directory}/"));
    }
    let mut left_bytes = rng.spread(1, MAX_TREE_LEN_BYTES);
    for number in 0..rng.spread(1, MAX_FILES) {
        let parent = &directories[rng.between(0, directories.len() as u64) as usize];
        let path = format!("{parent}{}.{number}", rng.pick(&NAMES));
        let len_bytes = if rng.chance(100_000) { 0 } else { rng.spread(1, left_bytes + 2).min(left_bytes) };
        left_bytes -= len_bytes;
        tree.insert(path, Some(content(rng, len_bytes as usize)));
    }
    tree
}

/// Adds symbolic links and files with several names to a tree that was written below `root`; gives all of it modes, times
/// and attributes.
pub(crate) fn add_names(tree: &mut Tree, root: &Path, rng: &mut Rng) -> io::Result<()> {
    let directories: Vec<_> =
        tree.iter().filter(|(_, content)| content.is_none()).map(|(path, _)| path.clone()).collect();
    let draw = |rng: &mut Rng| format!("{}/", directories[rng.between(0, directories.len() as u64) as usize]);
    for number in 0..rng.between(0, 4) {
        let (link, target) = (format!("{}l.{number}", draw(rng)), rng.pick(&TARGETS));
        symlink(target, root.join(&link))?;
        tree.insert(link, Some(link_to(Path::new(target))));
    }
    for number in 0..rng.between(0, 4) {
        let first = format!("h.{number}");
        let len_bytes = rng.spread(1, 50_000) as usize;
        let content = content(rng, len_bytes);
        write_file(&root.join(&first), &content)?;
        for name in 0..rng.between(1, 4) {
            let name = format!("{}h.{number}.{name}", draw(rng));
            fs::hard_link(root.join(&first), root.join(&name))?;
            tree.insert(name, Some(content.clone()));
        }
        tree.insert(first, Some(content));
    }
    for (path, content) in tree.iter() {
        // Names of one file have one of each: the last that it is given.
        describe(&root.join(path), content.as_deref(), rng)?;
    }
    Ok(())
}

/// Adds files with holes to a tree that was written below `root`, and has some directories pass on their group.
///
/// # Errors
/// The system's.
pub fn add_holes(tree: &mut Tree, root: &Path, rng: &mut Rng) -> io::Result<()> {
    let directories: Vec<_> =
        tree.iter().filter(|(_, content)| content.is_none()).map(|(path, _)| path.clone()).collect();
    for number in 0..rng.between(1, 4) {
        let directory = &directories[rng.between(0, directories.len() as u64) as usize];
        let (path, content) = (format!("{directory}/s.{number}"), sparse(rng));
        write_file(&root.join(&path), &content)?;
        tree.insert(path, Some(content));
    }
    let passing = directories.iter().filter(|_| rng.chance(400_000));
    passing.map(|path| root.join(path)).try_for_each(|path| pass_on_group(&path))
}

/// Has what is created in a directory get its group, and directories this bit.
///
/// # Errors
/// The system's.
pub fn pass_on_group(directory: &Path) -> io::Result<()> {
    let mode = fs::metadata(directory)?.mode() | 0o2000;
    fs::set_permissions(directory, Permissions::from_mode(mode))
}

/// Replaces the content of a file below `root` by one with holes.
///
/// # Errors
/// The system's.
pub fn edit_holes(root: &Path, rng: &mut Rng) -> io::Result<()> {
    let tree = read(root)?.0;
    let files: Vec<_> = tree.iter().filter(|(path, content)| is_single(path, content.as_deref())).collect();
    let any = files.get(rng.between(0, 1 + files.len() as u64) as usize);
    any.map_or(Ok(()), |(path, _)| write_file(&root.join(path), &sparse(rng)))
}

/// Zeros, and here and there something.
fn sparse(rng: &mut Rng) -> Vec<u8> {
    // A shorter file has none.
    let mut content = vec![0; rng.spread(PAGE_LEN_BYTES as u64, 400_000) as usize];
    let part_len_bytes = rng.spread(PAGE_LEN_BYTES as u64, 100_000) as usize;
    for part in content.chunks_mut(part_len_bytes) {
        if rng.chance(400_000) {
            part.copy_from_slice(&rng.bytes(part.len()));
        }
    }
    content
}

/// Gives something below `root` another mode, time or attribute.
pub(crate) fn describe_any(root: &Path, rng: &mut Rng) -> io::Result<()> {
    let tree = read(root)?.0;
    let any = tree.iter().nth(rng.between(0, tree.len() as u64) as usize);
    any.map_or(Ok(()), |(path, content)| describe(&root.join(path), content.as_deref(), rng))
}

/// Changes what is not content below `root`, as users do: a mode with a time and an attribute, a link, or another name of
/// a file that has several.
pub(crate) fn edit_names(root: &Path, rng: &mut Rng) -> io::Result<()> {
    let tree = read(root)?.0;
    let any = tree.iter().nth(rng.between(0, tree.len() as u64) as usize);
    let Some((name, content)) = any else { return Ok(()) };
    let (path, number) = (root.join(name), rng.between(0, 1000));
    match content.as_deref() {
        Some(link) if link.starts_with(LINK) => {
            fs::remove_file(&path)?;
            symlink(rng.pick(&TARGETS), &path)
        }
        content if content.is_none() || is_single(name, content) => describe(&path, content, rng),
        _ => fs::hard_link(&path, root.join(format!("{name}.{number}"))).or(Ok(())),
    }
}

/// Gives it a time, and a file or directory a mode and perhaps an attribute.
fn describe(path: &Path, content: Option<&[u8]>, rng: &mut Rng) -> io::Result<()> {
    let modified = SystemTime::UNIX_EPOCH
        + Duration::new(rng.spread(1, 2_000_000_000), rng.between(0, 1_000_000_000) as u32);
    let value_len_bytes = rng.between(0, 100) as usize;
    if content.is_some() && !is_file(content) {
        return filetime::set_symlink_file_times(path, modified.into(), modified.into());
    }
    let mode = rng.pick(if content.is_none() { &DIRECTORY_MODES } else { &MODES });
    let attributes = rng.chance(300_000).then(|| ("user.drawn".to_owned(), rng.bytes(value_len_bytes)));
    Metadata { mode, modified, attributes: attributes.into_iter().collect() }.apply(path)
}

/// What a file or directory has beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    mode: u32,
    modified: SystemTime,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Metadata {
    /// Follows links.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        let attributes = xtask::tree::attributes(path).map_err(io::Error::other)?;
        Ok(Self { mode: found.mode() & 0o7777, modified: found.modified()?, attributes })
    }

    pub(crate) fn apply(&self, path: &Path) -> io::Result<()> {
        for (name, value) in &self.attributes {
            // There are file systems without any.
            let _ = xtask::tree::set_attribute(path, name, value);
        }
        File::open(path)?.set_modified(self.modified)?;
        fs::set_permissions(path, Permissions::from_mode(self.mode))
    }
}

/// Whether it is a file of one name, that may be changed by itself.
pub(crate) fn is_single(path: &str, content: Option<&[u8]>) -> bool {
    is_file(content) && !path.rsplit('/').next().is_some_and(|name| name.starts_with("h."))
}

pub(crate) fn is_file(content: Option<&[u8]>) -> bool {
    content.is_some_and(|content| !content.starts_with(LINK))
}

/// What stands for a link in a tree.
fn link_to(target: &Path) -> Vec<u8> {
    [LINK, target.as_os_str().as_encoded_bytes()].concat()
}

/// Fails if something with the same content on both sides has another time or mode, or with `attributes` others of those.
pub(crate) fn check_metadata(one: &Path, other: &Path, attributes: bool) -> Result<(), Violation> {
    let [tree, there] = [read(one)?.0, read(other)?.0];
    for (path, _) in
        tree.iter().filter(|(path, content)| content.is_some() && there.get(*path) == Some(content))
    {
        // A hole on one side is one on the other.
        let [here, there] = [one, other].map(|root| fs::symlink_metadata(root.join(path)));
        let (here, there) = (here?.blocks(), there?.blocks());
        if here != there {
            return Err(Violation::OtherMetadata { what: format!("{path} has {here} and {there} blocks") });
        }
    }
    let differences = xtask::tree::differences(one, other).map_err(set_up)?;
    let counts = |difference: Difference| {
        !difference.is_content() && (attributes || difference != Difference::Attributes)
    };
    let found = differences.into_iter().find(|(path, found)| !is_own(path) && counts(*found));
    match found {
        Some((path, what)) => {
            Err(Violation::OtherMetadata { what: format!("{path:?} has another {what:?}") })
        }
        None => Ok(()),
    }
}

/// Each two names of a machine's below `root` that are one file.
pub(crate) fn linked(root: &Path) -> Result<BTreeSet<(PathBuf, PathBuf)>, Violation> {
    let pairs = xtask::tree::linked(root).map_err(set_up)?.into_iter();
    Ok(pairs.filter(|(one, other)| !is_own(one) && !is_own(other)).collect())
}

/// A content of that length: one that shrinks, one that was there before, or noise.
pub(crate) fn content(rng: &mut Rng, len_bytes: usize) -> Vec<u8> {
    match rng.between(0, 4) {
        0 => b"the same line over and over\n".iter().copied().cycle().take(len_bytes).collect(),
        1 => Rng::new(1).bytes(len_bytes),
        _ => rng.bytes(len_bytes),
    }
}

/// Writes it below `root`.
pub(crate) fn write(tree: &Tree, root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for (path, content) in tree {
        match content {
            Some(content) => write_file(&root.join(path), content)?,
            None => fs::create_dir_all(root.join(path))?,
        }
    }
    Ok(())
}

/// Writes a file. When that was is drawn from its content: the time on the wall would be another in the next run.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    write_pages(path, content)?;
    let drawn = content.iter().fold(content.len() as u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
    let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + drawn % 1_000_000);
    File::options().write(true).open(path)?.set_modified(written_at)
}

/// The same without its time. Zeros are holes, but in a file that is too short for any.
pub(crate) fn write_pages(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(content.len() as u64)?;
    let pages = (0..).step_by(PAGE_LEN_BYTES).zip(content.chunks(PAGE_LEN_BYTES));
    let is_short = content.len() < PAGE_LEN_BYTES;
    let mut written = pages.filter(|(_, page)| is_short || page.iter().any(|byte| *byte != 0));
    written.try_for_each(|(at, page)| file.write_all_at(page, at))
}

/// Everything below `root`, but for what goes by a name of shiplane's own; those names.
pub(crate) fn read(root: &Path) -> io::Result<(Tree, Vec<String>)> {
    let (mut tree, mut own) = (Tree::new(), Vec::new());
    let mut entries = WalkDir::new(root).min_depth(1).into_iter();
    while let Some(entry) = entries.next().transpose()? {
        let (path, kind) = (entry.path(), entry.file_type());
        let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
        if is_own(path) {
            own.push(name);
            if kind.is_dir() {
                entries.skip_current_dir();
            }
            continue;
        }
        let content = match (kind.is_dir(), kind.is_file()) {
            (true, _) => None,
            (_, true) => Some(fs::read(path)?),
            _ => Some(link_to(&fs::read_link(path)?)),
        };
        tree.insert(name, content);
    }
    Ok((tree, own))
}

fn is_own(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".shiplane-"))
}

/// Of memory, and so of a file system in it.
pub(crate) const PAGE_LEN_BYTES: usize = 4096;

/// Ordinary, long, of another script, and one that sorts before its directory's separator.
const NAMES: [&str; 5] =
    ["a", "photos of a summer that was rather long, as its name shows", "ä-ж-語", "x y", "-z"];

const MAX_FILES: u64 = 40;

/// What a link begins with in a tree. No content that is drawn does.
const LINK: &[u8] = b"a symbolic link to ";

/// Of links; some lead nowhere.
const TARGETS: [&str; 4] = ["l.0", "nowhere/at/all", ".", "a.0"];

const MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o444];

/// Without the bit that directories in one inherit.
const DIRECTORY_MODES: [u32; 4] = [0o755, 0o700, 0o1770, 0o711];

/// Small beside what people send, large beside a window at the start, many chunks of the size that the seeds take.
const MAX_TREE_LEN_BYTES: u64 = 1_500_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mode_time_or_attribute_and_a_name_that_is_a_file_of_its_own_are_found() {
        let scratch = xtask::scratch::Scratch::new("shiplane-tree-", None).expect("a directory");
        let [from, to] = ["from", "to"].map(|name| scratch.path().join(name));
        let mut rng = Rng::new(7);
        let mut drawn = draw(&mut rng);
        write(&drawn, &from).expect("a tree");
        while !(drawn.contains_key("h.0")
            && drawn.values().flatten().any(|content| content.starts_with(LINK)))
        {
            add_names(&mut drawn, &from, &mut rng).expect("names");
        }
        assert!(read(&from).expect("a tree").0 == drawn);
        xtask::tree::copy(&from, &to).expect("a copy");
        let differs =
            |attributes| check_metadata(&from, &to, attributes).err().map(|error| error.to_string());
        assert_eq!((differs(true), linked(&from).expect("names").is_empty()), (None, false));
        assert_eq!(linked(&from).expect("names"), linked(&to).expect("names"));
        for (path, content) in &drawn {
            let (one, other) = (from.join(path), to.join(path));
            if content.is_some() && !is_file(content.as_deref()) {
                describe(&other, content.as_deref(), &mut rng).expect("a time");
                assert!(differs(true).is_some_and(|said| said.contains(path)));
                let time = fs::symlink_metadata(&one).expect("a time").modified().expect("a time").into();
                filetime::set_symlink_file_times(&other, time, time).expect("a time");
                continue;
            }
            let kept = Metadata::of(&one).expect("metadata");
            let (mode, modified) = (kept.mode ^ 0o100, kept.modified + Duration::from_nanos(1));
            let attributes = vec![("user.drawn".to_owned(), b"another".to_vec())];
            for changed in [Metadata { mode, ..kept.clone() }, Metadata { modified, ..kept.clone() }] {
                changed.apply(&other).expect("another");
                assert!(differs(false).is_some(), "{path}");
                kept.apply(&other).expect("the same");
            }
            if !kept.attributes.is_empty() {
                Metadata { attributes, ..kept.clone() }.apply(&other).expect("another");
                assert!(differs(true).is_some() && differs(false).is_none());
                kept.apply(&other).expect("the same");
            }
        }
        assert_eq!(differs(true), None);
        let path =
            drawn.iter().find(|(_, content)| content.as_ref().is_some_and(|content| content.len() > 8192));
        let (path, content) = path.expect("a file of more than two pages");
        let mut content = content.clone().expect("a file");
        content[..PAGE_LEN_BYTES].fill(0);
        for side in [&from, &to] {
            write_file(&side.join(path), &content).expect("a file with a hole");
            Metadata::of(&from.join(path)).expect("metadata").apply(&side.join(path)).expect("the same");
        }
        assert_eq!(differs(true), None);
        File::options()
            .write(true)
            .open(to.join(path))
            .expect("a file")
            .write_all_at(&[0], 0)
            .expect("a page");
        Metadata::of(&from.join(path)).expect("metadata").apply(&to.join(path)).expect("the same");
        assert!(differs(true).is_some_and(|said| said.contains(path) && said.ends_with("blocks")));
        fs::copy(to.join("h.0"), to.join("alone")).expect("a copy");
        fs::rename(to.join("alone"), to.join("h.0")).expect("a name");
        assert_ne!(linked(&from).expect("names"), linked(&to).expect("names"));
    }
}
