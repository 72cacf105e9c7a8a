//! Owners, access lists and extended attributes.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use shiplane_files::internals::{
    Destination, DestinationError, Plan, ReceiveOptions, Scanned, SourceRoot, disk::Change,
};
use shiplane_wire::{Attributes, EntryKind, LeftOutReason, Principal};
use tempfile::TempDir;

use super::{
    broken_disk::BrokenDisk,
    tree::{Transfer, Tree, options, overwriting},
};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Extended attributes in order of their names, as the system shows them.
fn extended(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = File::open(path).unwrap();
    let mut names = vec![0; 64 << 10];
    let len = flistxattr(&file, &mut names).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found: Vec<_> = names
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 64 << 10];
            let len = fgetxattr(&file, name.as_str(), &mut value).unwrap();
            (name, value[..len].to_vec())
        })
        .collect();
    found.sort();
    found
}

fn set(path: &Path, name: &str, value: &[u8]) {
    fsetxattr(File::open(path).unwrap(), name, value, XattrFlags::empty()).unwrap();
}

/// An access list in which the user `id` may read.
fn access_list(id: u32) -> Vec<u8> {
    let entries = [(1, 6, u32::MAX), (2, 4, id), (4, 0, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&u16::to_le_bytes(tag));
        bytes.extend_from_slice(&u16::to_le_bytes(permissions));
        bytes.extend_from_slice(&u32::to_le_bytes(id));
    }
    bytes
}

/// All kinds of attributes that this process may set.
fn fill(root: &Path) {
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("dir/file"), "content").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("plain"), "plain").unwrap();
    symlink("dir/file", root.join("link")).unwrap();
    set(root, "user.top", b"top");
    set(&root.join("dir"), DEFAULT, &access_list(12_345));
    set(&root.join("dir/file"), ACCESS, &access_list(12_345));
    set(&root.join("dir/file"), "user.empty", b"");
    set(&root.join("dir/file"), "user.bytes", &[0, 255, 10]);
    set(&root.join("empty"), "user.long", &[7; 3000]);
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o400)).unwrap();
    if is_root() {
        set(&root.join("empty"), "trusted.t", b"t");
        for (path, user, group) in
            [("dir", 1, 2), ("dir/file", 54_321, 5), ("empty", 3, 54_321), ("link", 4, 6)]
        {
            lchown(root.join(path), Some(user), Some(group)).unwrap();
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a source lists, as a tree to send, with what it leaves out and its top directory.
fn listed(
    root: &Path,
) -> (Tree, Vec<(String, LeftOutReason)>, Option<shiplane_files::internals::TopDirectory>) {
    let source = SourceRoot::open(root).unwrap().resolve(b"").unwrap().with_attributes(true);
    let (mut tree, mut left, mut top) = (Tree::default(), Vec::new(), None);
    for scanned in source.scan() {
        match scanned.unwrap() {
            Scanned::Entry(entry) => {
                let is_file = entry.kind == EntryKind::File;
                let path = root.join(entry.path.to_string());
                tree.entries.push((entry, if is_file { fs::read(path).unwrap() } else { Vec::new() }));
            }
            Scanned::LeftOut { reason, path } => left.push((path.to_string(), reason)),
            Scanned::Top(found) => top = Some(found),
        }
    }
    (tree, left, top)
}

fn open(dest: &Path) -> Destination {
    super::tree::open_with(dest, ReceiveOptions { attributes: true, ..options() })
}

/// Receives what is at `from`; gives how many chunks it took, and what was left out.
fn copy(from: &Path, to: &Path) -> (usize, Vec<(String, LeftOutReason)>) {
    let (tree, _, top) = listed(from);
    let dest = open(to);
    dest.plan_top(top.unwrap()).unwrap();
    let transfer = Transfer::plan_what_goes(dest, &tree).unwrap();
    (transfer.chunks.len(), transfer.complete_what_goes())
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    for path in ["", "dir", "dir/file", "empty", "plain", "link"] {
        let found = |root: &Path| {
            let path = root.join(path);
            let found = fs::symlink_metadata(&path).unwrap();
            let extended = if found.is_symlink() { Vec::new() } else { extended(&path) };
            (found.uid(), found.gid(), found.mode(), found.mtime(), found.mtime_nsec(), extended)
        };
        assert_eq!(found(one), found(other), "{path:?}");
    }
}

#[test]
fn all_that_is_set_arrives_and_what_changes_alone_takes_no_content() {
    for place in ["/dev/shm", "/var/tmp"] {
        let (from, to) = (TempDir::new_in(place).unwrap(), TempDir::new_in(place).unwrap());
        let (from, to) = (from.path(), to.path());
        fill(from);
        assert_eq!(copy(from, to), (1, vec![]), "the small files in one chunk");
        assert_same(from, to);
        assert_eq!(copy(from, to), (0, vec![]));
        // Another value, one more, one less, none of an access list: also of what its owner may not write.
        set(&from.join("empty"), "user.long", b"short");
        set(&from.join("empty"), "user.more", b"more");
        fremovexattr(File::open(from.join("dir/file")).unwrap(), "user.bytes").unwrap();
        fremovexattr(File::open(from.join("dir")).unwrap(), DEFAULT).unwrap();
        set(&from.join("dir/file"), ACCESS, &access_list(54_321));
        set(&from.join("plain"), "user.first", b"first");
        if is_root() {
            lchown(from.join("plain"), Some(7), Some(8)).unwrap();
            lchown(from.join("link"), Some(9), None).unwrap();
        }
        assert_eq!(copy(from, to), (0, vec![]));
        assert_same(from, to);
        fremovexattr(File::open(from.join("dir/file")).unwrap(), ACCESS).unwrap();
        assert_eq!(copy(from, to), (0, vec![]));
        assert_same(from, to);
    }
}

#[test]
fn what_raises_a_privilege_stays_where_it_is_and_is_named() {
    if !is_root() {
        eprintln!("skipped: only the superuser gives a file a capability");
        return;
    }
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(from.path().join("tool"), "tool").unwrap();
    fs::set_permissions(from.path().join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set(&from.path().join("tool"), "security.capability", &capability);
    set(&from.path().join("tool"), "user.kept", b"kept");
    let (tree, left, _) = listed(from.path());
    assert_eq!(left, [("tool".to_owned(), LeftOutReason::Attributes)]);
    let transfer = Transfer::plan_what_goes(open(to.path()), &tree).unwrap();
    assert_eq!(transfer.complete_what_goes(), []);
    let tool = to.path().join("tool");
    assert_eq!(extended(&tool), [("user.kept".to_owned(), b"kept".to_vec())]);
    assert_eq!(fs::metadata(&tool).unwrap().permissions().mode() & 0o7777, 0o755);
    // One that is here already is not taken away either.
    set(&tool, "security.capability", &capability);
    let transfer = Transfer::plan_what_goes(open(to.path()), &tree).unwrap();
    assert_eq!(transfer.complete_what_goes(), []);
    assert_eq!(extended(&tool).len(), 2);
}

#[test]
fn more_than_can_be_sent_is_named_and_its_owner_comes_all_the_same() {
    let from = TempDir::new_in("/dev/shm").unwrap();
    fs::write(from.path().join("f"), "f").unwrap();
    set(&from.path().join("f"), "user.a", &[1; 40_000]);
    set(&from.path().join("f"), "user.b", &[1; 40_000]);
    let (tree, left, _) = listed(from.path());
    assert_eq!(left, [("f".to_owned(), LeftOutReason::Attributes)]);
    let attributes = tree.entries[0].0.attributes.as_ref().unwrap();
    assert!(attributes.owners()[0].is_known() && attributes.extended().next().is_none());
}

#[test]
fn of_each_kind_that_may_not_be_set_the_first_path_is_named() {
    const NOT_PERMITTED: i32 = 1;
    if !is_root() {
        eprintln!("skipped: only the superuser has a source of several owners");
        return;
    }
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in ["a", "b", "c"] {
        fs::write(from.path().join(name), name).unwrap();
        lchown(from.path().join(name), Some(5), Some(5)).unwrap();
        set(&from.path().join(name), "user.x", b"x");
    }
    copy(from.path(), to.path());
    for name in ["a", "b", "c"] {
        set(&from.path().join(name), "user.x", b"y");
        lchown(from.path().join(name), Some(6), Some(6)).unwrap();
    }
    let (tree, _, _) = listed(from.path());
    let is_refused = |change: Change<'_>, _: &Path| change == Change::Metadata;
    let broken = BrokenDisk::below(to.path(), is_refused).with_errno(NOT_PERMITTED);
    let dest = open(to.path());
    let transfer = Transfer::plan_what_goes(dest.clone(), &tree).unwrap();
    let (left, unnamed) = dest.take_left_out().unwrap();
    let kinds: Vec<_> = left
        .iter()
        .map(|left| match &*left.error {
            DestinationError::AttributesRefused { kind, .. } => kind.to_string(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!((kinds, unnamed), (vec!["owner or group".to_owned(), "extended attributes".to_owned()], 0));
    assert_eq!(transfer.complete_what_goes(), []);
    drop(broken);
    assert_eq!(copy(from.path(), to.path()), (0, vec![]));
    assert_eq!(fs::metadata(to.path().join("b")).unwrap().uid(), 6);
}

#[test]
fn attributes_that_were_not_asked_for_are_refused() {
    let temp = TempDir::new().unwrap();
    let owners = [Principal { id: 0, name: b"root" }; 2];
    let attributes = Attributes::new(owners, [&[], &[]], std::iter::empty());
    let tree = Tree::default().file("f", "f").set(|entry| entry.attributes = attributes.clone());
    let dest = super::tree::open_with(temp.path(), overwriting());
    let refused = dest.plan(0, &tree.entries[0].0);
    assert!(matches!(refused, Err(DestinationError::NotRequested { .. })), "{refused:?}");
    let (_, _, top) = listed(temp.path());
    let top = shiplane_files::internals::TopDirectory { attributes, ..top.unwrap() };
    assert!(dest.plan_top(top).is_err());
    drop(dest);
    assert!(matches!(open(temp.path()).plan(0, &tree.entries[0].0), Ok(Plan::Want { .. })));
}

#[test]
fn names_of_owners_count_and_numbers_where_there_is_no_such_name() {
    if !is_root() {
        eprintln!("skipped: only the superuser gives files away");
        return;
    }
    let temp = TempDir::new().unwrap();
    let with = |user: Principal<'_>, group: Principal<'_>| {
        let attributes = Attributes::new([user, group], [&[], &[]], std::iter::empty());
        let tree = Tree::default().file("f", "f").set(|entry| entry.attributes = attributes);
        assert!(Transfer::plan(open(temp.path()), &tree).unwrap().complete().is_ok());
        let found = fs::metadata(temp.path().join("f")).unwrap();
        (found.uid(), found.gid())
    };
    let named = |id, name| Principal { id, name };
    // As every Linux has them.
    let daemon = fs::read_to_string("/etc/passwd").unwrap();
    let daemon = daemon.lines().find_map(|line| line.strip_prefix("daemon:x:")).unwrap();
    let daemon: u32 = daemon.split(':').next().unwrap().parse().unwrap();
    assert_eq!(with(named(4711, b"daemon"), named(4712, b"no such group")), (daemon, 4712));
    assert_eq!(with(named(0, b"daemon"), named(0, b"daemon")), (0, 0), "the superuser is no other");
    assert_eq!(with(named(4711, b""), Principal::UNKNOWN), (4711, 0), "what is unknown stays");
}
