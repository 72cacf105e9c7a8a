//! Owners and extended attributes.

use std::io;
use std::os::fd::AsFd;

use cap_std::fs::Dir;
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::super::{Owner, retry};
use crate::disk::{self, Change};

/// Owners are carried, at least.
pub const HAS_OWNERS: bool = true;

/// Whether this process may give files to anybody.
pub fn may_give_away() -> bool {
    rustix::process::geteuid().is_root()
}

/// The name of a user or group of this machine.
pub fn name_of_owner(owner: Owner, id: u32) -> Option<Vec<u8>> {
    let name = match owner {
        Owner::User => User::from_uid(Uid::from_raw(id)).ok()??.name,
        Owner::Group => Group::from_gid(Gid::from_raw(id)).ok()??.name,
    };
    Some(name.into_bytes())
}

/// The number of a user or group of this machine.
pub fn owner_of_name(owner: Owner, name: &[u8]) -> Option<u32> {
    let name = str::from_utf8(name).ok()?;
    Some(match owner {
        Owner::User => User::from_name(name).ok()??.uid.as_raw(),
        Owner::Group => Group::from_name(name).ok()??.gid.as_raw(),
    })
}

/// Gives an open file or directory to this user and this group.
pub fn set_owners(file: &impl AsFd, user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    disk::before(Change::Metadata, file)?;
    retry(|| rustix::fs::fchown(file, user.map(uid), group.map(gid)))
}

/// Gives the link `name` itself to this user and this group.
pub fn set_link_owners(dir: &Dir, name: &[u8], user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    disk::before(Change::Metadata, dir)?;
    let (user, group) = (user.map(uid), group.map(gid));
    retry(|| rustix::fs::chownat(dir, name, user, group, AtFlags::SYMLINK_NOFOLLOW))
}

fn uid(id: u32) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(id)
}

fn gid(id: u32) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(id)
}

/// The names of the extended attributes of an open file or directory that this process may know of.
#[cfg(target_os = "linux")]
pub fn extended_names(file: &impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    match whole(|buffer| rustix::fs::flistxattr(file, buffer)) {
        Ok(names) => {
            let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            Ok(names.map(<[u8]>::to_vec).collect())
        }
        Err(Errno::NOTSUP | Errno::NOSYS) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The value of an extended attribute, if it has it.
#[cfg(target_os = "linux")]
pub fn extended(file: &impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match whole(|buffer| rustix::fs::fgetxattr(file, name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets an extended attribute of an open file or directory, or removes it.
#[cfg(target_os = "linux")]
pub fn set_extended(file: &impl AsFd, name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
    disk::before(Change::Metadata, file)?;
    let Some(value) = value else {
        return match retry(|| rustix::fs::fremovexattr(file, name)) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODATA) => Ok(()),
            removed => removed,
        };
    };
    retry(|| rustix::fs::fsetxattr(file, name, value, rustix::fs::XattrFlags::empty()))
}

/// Reads into a small buffer, then into one that holds all that Linux knows of: 64 KiB.
#[cfg(target_os = "linux")]
fn whole(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    for len in [1 << 10, 64 << 10] {
        let mut buffer = vec![0; len];
        match rustix::io::retry_on_intr(|| read(&mut buffer)) {
            Err(Errno::RANGE) => {}
            read => {
                buffer.truncate(read?);
                return Ok(buffer);
            }
        }
    }
    Err(Errno::RANGE)
}

/// Other systems name them in other ways.
#[cfg(not(target_os = "linux"))]
pub fn extended_names(_file: &impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    Ok(Vec::new())
}

/// Other systems name them in other ways.
#[cfg(not(target_os = "linux"))]
pub fn extended(_file: &impl AsFd, _name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}

/// Other systems name them in other ways.
#[cfg(not(target_os = "linux"))]
pub fn set_extended(_file: &impl AsFd, _name: &[u8], _value: Option<&[u8]>) -> io::Result<()> {
    Err(Errno::NOTSUP.into())
}
