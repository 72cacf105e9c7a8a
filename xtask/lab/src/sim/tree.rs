//! Directories of files: generated, written, read back.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use testlink::Rng;

/// By path: the content of a file, nothing for a directory, for a link [`link_to`] what it points to.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// A few directories, and files in them, of which some are alike.
#[must_use]
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

/// Adds symbolic links that stay inside, and files with several names, to a tree that was written below `root`; gives the
/// files modes.
///
/// # Errors
/// The system's.
pub fn add_names(tree: &mut Tree, root: &Path, rng: &mut Rng) -> io::Result<()> {
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
    for (path, _) in tree.iter().filter(|(_, content)| is_file(content.as_deref())) {
        // Names of one file have one mode: the last that it is given.
        fs::set_permissions(root.join(path), Permissions::from_mode(rng.pick(&MODES)))?;
    }
    Ok(())
}

/// Whether it is a file of one name, that may be changed by itself.
#[must_use]
pub fn is_single(path: &str, content: Option<&[u8]>) -> bool {
    is_file(content) && !path.rsplit('/').next().is_some_and(|name| name.starts_with("h."))
}

fn is_file(content: Option<&[u8]>) -> bool {
    content.is_some_and(|content| !content.starts_with(LINK))
}

/// What stands for a link in a tree.
#[must_use]
pub fn link_to(target: &Path) -> Vec<u8> {
    [LINK, target.as_os_str().as_encoded_bytes()].concat()
}

/// The first file below `to` that has another mode than below `from`, or another one as the least of its names.
///
/// # Errors
/// The system's.
pub fn other_metadata(tree: &Tree, from: &Path, to: &Path) -> io::Result<Option<String>> {
    let (mut names_there, mut names_here) = (BTreeMap::new(), BTreeMap::new());
    for (path, _) in tree.iter().filter(|(_, content)| is_file(content.as_deref())) {
        let (there, here) = (fs::symlink_metadata(from.join(path))?, fs::symlink_metadata(to.join(path))?);
        let first_there = names_there.entry(there.ino()).or_insert(path);
        let first_here = names_here.entry(here.ino()).or_insert(path);
        if there.mode() != here.mode() || first_there != first_here {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

/// A content of that length: one that shrinks, one that was there before, or noise.
pub fn content(rng: &mut Rng, len_bytes: usize) -> Vec<u8> {
    match rng.between(0, 4) {
        0 => b"the same line over and over\n".iter().copied().cycle().take(len_bytes).collect(),
        1 => Rng::new(1).bytes(len_bytes),
        _ => rng.bytes(len_bytes),
    }
}

/// Writes it below `root`.
///
/// # Errors
/// The system's.
pub fn write(tree: &Tree, root: &Path) -> io::Result<()> {
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
///
/// # Errors
/// The system's.
pub fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(path, content)?;
    let drawn = content.iter().fold(content.len() as u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
    let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + drawn % 1_000_000);
    File::options().write(true).open(path)?.set_modified(written_at)
}

/// Everything below `root`, but for what goes by a name of shiplane's own; those names.
///
/// # Errors
/// The system's.
pub fn read(root: &Path) -> io::Result<(Tree, Vec<String>)> {
    let (mut tree, mut own) = (Tree::new(), Vec::new());
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if is_own(&path) {
                own.push(name_of(root, &path));
                continue;
            }
            let kind = fs::symlink_metadata(&path)?.file_type();
            let name = name_of(root, &path);
            if kind.is_dir() {
                tree.insert(name, None);
                open.push(path);
            } else if kind.is_file() {
                tree.insert(name, Some(fs::read(&path)?));
            } else {
                tree.insert(name, Some(link_to(&fs::read_link(&path)?)));
            }
        }
    }
    Ok((tree, own))
}

fn is_own(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".shiplane-"))
}

fn name_of(root: &Path, path: &Path) -> String {
    let name: PathBuf = path.strip_prefix(root).unwrap_or(path).to_owned();
    name.to_string_lossy().into_owned()
}

/// Ordinary, long, of another script, and one that sorts before its directory's separator.
const NAMES: [&str; 5] =
    ["a", "photos of a summer that was rather long, as its name shows", "ä-ж-語", "x y", "-z"];

const MAX_FILES: u64 = 40;

/// What a link begins with in a tree. No content that is drawn does.
const LINK: &[u8] = b"a symbolic link to ";

/// Of links; some lead nowhere.
const TARGETS: [&str; 4] = ["l.0", "nowhere/at/all", ".", "a.0"];

const MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o444];

/// Small beside what people send, large beside a window at the start, many chunks of the size that the seeds take.
const MAX_TREE_LEN_BYTES: u64 = 1_500_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mode_or_a_name_that_is_a_file_of_its_own_is_found() {
        let scratch = xtask::scratch::Scratch::new("shiplane-tree-", None).expect("a directory");
        let [from, to] = ["from", "to"].map(|name| scratch.path().join(name));
        let mut rng = Rng::new(7);
        let mut drawn = draw(&mut rng);
        write(&drawn, &from).expect("a tree");
        while !drawn.contains_key("h.0") {
            add_names(&mut drawn, &from, &mut rng).expect("names");
        }
        let (read, _) = read(&from).expect("a tree");
        assert!(read == drawn);
        assert_eq!(other_metadata(&drawn, &from, &from).expect("stats"), None);
        let files = drawn.iter().filter(|(_, content)| content.is_none() || is_file(content.as_deref()));
        let files: Tree = files.map(|(path, content)| (path.clone(), content.clone())).collect();
        write(&files, &to).expect("a tree of files");
        for path in files.iter().filter(|(_, content)| content.is_some()).map(|(path, _)| path) {
            let mode = fs::metadata(from.join(path)).expect("a mode").permissions();
            fs::set_permissions(to.join(path), mode).expect("a mode");
        }
        let found = other_metadata(&drawn, &from, &to).expect("stats").expect("a name");
        assert!(!is_single(&found, Some(b"")), "{found}");
        let single =
            drawn.iter().find(|(path, content)| is_single(path, content.as_deref())).expect("a file").0;
        fs::set_permissions(to.join(single), Permissions::from_mode(0o601)).expect("a mode");
        let only = Tree::from([(single.clone(), drawn[single].clone())]);
        assert_eq!(other_metadata(&only, &from, &to).expect("stats").as_ref(), Some(single));
    }
}
