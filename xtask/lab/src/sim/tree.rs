//! Directories of files: generated, written, read back.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use testlink::Rng;

/// By path: the content of a file, or nothing for a directory.
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
                tree.insert(name, Some(b"a link".to_vec()));
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

/// Small beside what people send, large beside a window at the start, many chunks of the size that the seeds take.
const MAX_TREE_LEN_BYTES: u64 = 1_500_000;
