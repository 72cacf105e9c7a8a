//! The possible disk images after a power cut.

use std::{
    collections::HashMap,
    fs::{self, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Inode, Metadata, Names, State, names_in};
use crate::sim::tree::{PAGE_LEN_BYTES, write_pages};

/// Makes up one of the states that the disk may be in, and puts it below `target`.
pub(super) fn build(state: &mut State, root: &Path, target: &Path) -> io::Result<()> {
    let mut now = Now::read(root)?;
    let number = fs::metadata(root)?.ino();
    directory(state, &mut now, number, target)
}

/// What the running system sees, by inodes.
#[derive(Default)]
struct Now {
    files: HashMap<u64, Vec<u8>>,
    directories: HashMap<u64, Names>,
    metadata: HashMap<u64, Metadata>,
    /// They are made in one step, with their times.
    links: HashMap<u64, (PathBuf, SystemTime)>,
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
                now.links.insert(number, (fs::read_link(&path)?, metadata.modified()?));
                continue;
            }
            now.metadata.insert(number, Metadata::of(&path)?);
            if metadata.is_dir() {
                let names = names_in(&path)?;
                open.extend(names.keys().map(|name| path.join(name)));
                now.directories.insert(number, names);
            } else {
                now.files.insert(number, fs::read(&path)?);
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
        } else if let Some((link, made_at)) = now.links.get(&inode.number) {
            symlink(link, &target)?;
            filetime::set_symlink_file_times(&target, (*made_at).into(), (*made_at).into())?;
        } else {
            file(state, now, inode, &target)?;
        }
    }
    // A directory without permission to enter is one that a run had finished.
    describe(state, now, number, target)
}

/// Gives it what it had beside its content after its last sync, or what it has now.
fn describe(state: &mut State, now: &Now, number: u64, target: &Path) -> io::Result<()> {
    let durable = state.metadata.get(&number).filter(|_| state.rng.chance(500_000));
    let chosen = durable.or_else(|| now.metadata.get(&number)).or_else(|| state.metadata.get(&number));
    match chosen {
        Some(metadata) => metadata.apply(target),
        // As it was made.
        None => {
            fs::set_permissions(target, Permissions::from_mode(if target.is_dir() { 0o700 } else { 0o600 }))
        }
    }
}

/// Those after its last sync, or after one of the changes since.
fn names(state: &mut State, now: &Now, number: u64) -> Names {
    let mut possible = state.directories.get(&number).cloned().unwrap_or_else(|| vec![Names::new()]);
    possible.extend(now.directories.get(&number).cloned());
    let chosen = state.rng.between(0, possible.len() as u64) as usize;
    possible.swap_remove(chosen)
}

fn file(state: &mut State, now: &mut Now, inode: Inode, target: &Path) -> io::Result<()> {
    if let Some(built) = now.built.get(&inode.number) {
        return fs::hard_link(built, target);
    }
    now.built.insert(inode.number, target.to_owned());
    let durable = state.files.get(&inode.number).cloned();
    let data = match (durable, now.files.get(&inode.number).cloned()) {
        (Some(durable), Some(current)) if durable == current => current,
        (durable, Some(current)) => one_or_the_other(state, durable.unwrap_or_default(), current),
        (durable, None) => durable.unwrap_or_default(),
    };
    write_pages(target, &data)?;
    describe(state, now, inode.number, target)
}

fn one_or_the_other(state: &mut State, durable: Vec<u8>, current: Vec<u8>) -> Vec<u8> {
    match state.rng.between(0, 3) {
        0 => durable,
        1 => current,
        _ => {
            // The size of what is there now, and some of its pages.
            let mut data = durable;
            data.resize(current.len(), 0);
            for (page, written) in data.chunks_mut(PAGE_LEN_BYTES).zip(current.chunks(PAGE_LEN_BYTES)) {
                if state.rng.chance(500_000) {
                    page.copy_from_slice(written);
                }
            }
            data
        }
    }
}
