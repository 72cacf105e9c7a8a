//! The possible disk images after a power cut.

use std::{
    collections::HashMap,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Content, Inode, Names, State, names_in};

/// Makes up one of the states that the disk may be in, and puts it below `target`.
pub(super) fn build(state: &mut State, root: &Path, target: &Path) -> io::Result<()> {
    let mut now = Now::read(root)?;
    let number = fs::metadata(root)?.ino();
    directory(state, &mut now, number, target)
}

/// What the running system sees, by inodes.
#[derive(Default)]
struct Now {
    files: HashMap<u64, (Content, u32)>,
    directories: HashMap<u64, (Names, u32)>,
    links: HashMap<u64, PathBuf>,
    /// Where the files are that were built: other names of them are links.
    built: HashMap<u64, PathBuf>,
}

impl Now {
    fn read(root: &Path) -> io::Result<Self> {
        let mut now = Self::default();
        let mut open = vec![root.to_owned()];
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path)?;
            let number = metadata.ino();
            if metadata.is_symlink() {
                now.links.insert(number, fs::read_link(&path)?);
            } else if metadata.is_dir() {
                let names = names_in(&path)?;
                open.extend(names.keys().map(|name| path.join(name)));
                now.directories.insert(number, (names, metadata.mode()));
            } else {
                let content = Content { data: fs::read(&path)?, modified: metadata.modified()? };
                now.files.insert(number, (content, metadata.mode()));
            }
        }
        Ok(now)
    }
}

fn directory(state: &mut State, now: &mut Now, number: u64, target: &Path) -> io::Result<()> {
    fs::create_dir(target)?;
    for (name, inode) in names(state, now, number) {
        let target = target.join(name);
        if inode.is_directory {
            directory(state, now, inode.number, &target)?;
        } else if let Some(link) = now.links.get(&inode.number) {
            symlink(link, target)?;
        } else {
            file(state, now, inode, &target)?;
        }
    }
    // A directory without permission to enter is one that a run had finished.
    let mode = now.directories.get(&number).map_or(0o700, |(_, mode)| mode & 0o7777);
    fs::set_permissions(target, Permissions::from_mode(mode))
}

/// Those after its last sync, or after one of the changes since.
fn names(state: &mut State, now: &Now, number: u64) -> Names {
    let mut possible = state.directories.get(&number).cloned().unwrap_or_else(|| vec![Names::new()]);
    possible.extend(now.directories.get(&number).map(|(names, _)| names.clone()));
    let chosen = state.rng.between(0, possible.len() as u64) as usize;
    possible.swap_remove(chosen)
}

fn file(state: &mut State, now: &mut Now, inode: Inode, target: &Path) -> io::Result<()> {
    if let Some(built) = now.built.get(&inode.number) {
        return fs::hard_link(built, target);
    }
    now.built.insert(inode.number, target.to_owned());
    let durable = state.files.get(&inode.number).cloned();
    let current = now.files.get(&inode.number);
    let mode = current.map_or(0o600, |(_, mode)| mode & 0o7777);
    let content = match (durable, current.map(|(content, _)| content.clone())) {
        (Some(durable), Some(current)) if durable.data == current.data => current,
        (Some(durable), None) => durable,
        (durable, Some(current)) => one_or_the_other(state, durable, current),
        (None, None) => Content { data: Vec::new(), modified: SystemTime::UNIX_EPOCH },
    };
    fs::write(target, &content.data)?;
    let file = File::options().write(true).open(target)?;
    file.set_modified(content.modified)?;
    file.set_permissions(Permissions::from_mode(mode))
}

fn one_or_the_other(state: &mut State, durable: Option<Content>, current: Content) -> Content {
    let durable = durable.unwrap_or_else(|| Content { data: Vec::new(), modified: current.modified });
    match state.rng.between(0, 3) {
        0 => durable,
        1 => current,
        _ => {
            // The size of what is there now, and some of its pages.
            let mut data = durable.data;
            data.resize(current.data.len(), 0);
            for (page, written) in data.chunks_mut(PAGE_LEN_BYTES).zip(current.data.chunks(PAGE_LEN_BYTES)) {
                if state.rng.chance(500_000) {
                    page.copy_from_slice(written);
                }
            }
            Content { data, modified: current.modified }
        }
    }
}

const PAGE_LEN_BYTES: usize = 4096;
