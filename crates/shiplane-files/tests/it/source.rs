//! Sources.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use shiplane_files::internals::{
    Destination, DestinationError, Kind, Scanned, Shape, SharedMemory, Source, SourceError, SourceRoot,
};
use shiplane_wire::{Entry, EntryKind, LeftOutReason, RelPath};
use tempfile::TempDir;

use super::tree::{job, noise, open, options, receive};

type Skipped = BTreeMap<String, LeftOutReason>;

/// All that a scan gives, in order.
fn scan(source: &Source) -> (Vec<Entry>, Skipped) {
    let (mut entries, mut skipped) = (Vec::new(), Skipped::new());
    for scanned in source.scan() {
        match scanned.unwrap() {
            Scanned::Top(_) => {}
            Scanned::Entry(entry) => entries.push(entry),
            Scanned::LeftOut { reason, path } => drop(skipped.insert(path.to_string(), reason)),
        }
    }
    (entries, skipped)
}

fn paths(entries: &[Entry]) -> Vec<String> {
    let mut paths: Vec<_> = entries.iter().map(|entry| entry.path.to_string()).collect();
    paths.sort_unstable();
    paths
}

fn serve(path: &Path) -> Source {
    SourceRoot::open(path).unwrap().resolve(b"").unwrap()
}

fn only_file(source: &Source) -> Entry {
    let (entries, _) = scan(source);
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    entry.clone()
}

fn yard() -> TempDir {
    let temp = TempDir::new().unwrap();
    fs::create_dir_all(temp.path().join("served/dir/inner")).unwrap();
    fs::write(temp.path().join("served/file"), "content").unwrap();
    fs::write(temp.path().join("served/dir/inner/deep"), "deep").unwrap();
    fs::write(temp.path().join("secret"), "secret").unwrap();
    temp
}

#[test]
fn a_scan_lists_parents_before_children_and_skips_what_cannot_be_sent() {
    let temp = yard();
    let served = temp.path().join("served");
    symlink("file", served.join("link")).unwrap();
    symlink("../secret", served.join("dir/out")).unwrap();
    symlink(".", served.join("loop")).unwrap();
    fs::write(served.join("new\nline"), "x").unwrap();
    fs::create_dir(served.join("bad\rdir")).unwrap();
    fs::write(served.join("bad\rdir/x"), "x").unwrap();
    fs::write(served.join(".shiplane-01234567-3.part"), "x").unwrap();
    fs::write(served.join(".shiplane-0123456789abcdef.journal"), "x").unwrap();
    fs::write(served.join(".shiplane-mine"), "x").unwrap();
    fs::write(served.join(std::ffi::OsStr::from_bytes(b"\xff\x1b")), "x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(served.join("socket")).unwrap();

    let (entries, skipped) = scan(&serve(&served));
    let expected = [
        ".shiplane-mine",
        "\\xff\\x1b",
        "bad\\x0ddir",
        "bad\\x0ddir/x",
        "dir",
        "dir/inner",
        "dir/inner/deep",
        "dir/out",
        "file",
        "link",
        "loop",
        "new\\x0aline",
    ];
    assert_eq!(paths(&entries), expected);
    assert_eq!(skipped, [("socket".to_owned(), LeftOutReason::SpecialFile)].into());
    for (at, entry) in entries.iter().enumerate() {
        let parent = entry.path.parent();
        assert!(parent.is_none() || entries[..at].iter().any(|before| Some(&before.path) == parent.as_ref()));
    }
    let file = entries.iter().find(|entry| entry.path.as_bytes() == b"file").unwrap();
    assert_eq!((file.kind, file.size_bytes), (EntryKind::File, 7));
    let out = entries.iter().find(|entry| entry.path.as_bytes() == b"dir/out").unwrap();
    assert_eq!((out.kind, out.size_bytes), (EntryKind::Symlink, 0));
    assert_eq!(out.target.as_ref().unwrap().as_bytes(), b"../secret");
    let dir = entries.iter().find(|entry| entry.path.as_bytes() == b"dir").unwrap();
    assert_eq!((dir.kind, dir.size_bytes), (EntryKind::Directory, 0));
}

#[test]
fn a_directory_below_the_deepest_path_is_skipped() {
    let temp = TempDir::new().unwrap();
    let mut dir = cap_std::fs::Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap();
    let name = "d".repeat(250);
    for _ in 0..140 {
        dir.create_dir(&name).unwrap();
        dir = dir.open_dir(&name).unwrap();
    }
    let (entries, skipped) = scan(&serve(temp.path()));
    assert_eq!(entries.len(), (32 << 10) / 251);
    assert_eq!(skipped.into_values().collect::<Vec<_>>(), [LeftOutReason::Name]);
}

#[test]
fn what_is_asked_for_decides_the_shape() {
    let temp = yard();
    let root = SourceRoot::open(&temp.path().join("served")).unwrap();
    let whole = root.resolve(b"").unwrap();
    assert_eq!((whole.shape(), scan(&whole).0.len()), (&Shape::Directory { name: b"served".into() }, 4));
    let dir = root.resolve(b"dir/inner").unwrap();
    assert_eq!(dir.shape(), &Shape::Directory { name: b"inner".into() });
    assert_eq!(paths(&scan(&dir).0), ["deep"]);
    let file = root.resolve(b"dir/inner/deep").unwrap();
    assert_eq!(file.shape(), &Shape::File { name: b"deep".into() });
    let entry = only_file(&file);
    assert_eq!((entry.path.as_bytes(), entry.size_bytes), (&b"deep"[..], 4));
    let mut content = [0; 4];
    file.open(&entry).unwrap().read_at(0, &mut content).unwrap();
    assert_eq!(&content, b"deep");
}

#[test]
fn a_served_root_has_the_name_of_its_directory() {
    let temp = yard();
    symlink("served", temp.path().join("link")).unwrap();
    for (served, name) in
        [("served/", "served"), ("served/.", "served"), ("served/dir/..", "served"), ("link", "link")]
    {
        let shape =
            SourceRoot::open(&temp.path().join(served)).unwrap().resolve(b"").unwrap().shape().clone();
        assert_eq!(shape, Shape::Directory { name: name.into() }, "{served}");
    }
    let root = SourceRoot::open("/".as_ref()).unwrap().resolve(b"").unwrap();
    assert_eq!(root.shape(), &Shape::Contents);
}

#[test]
fn a_request_that_may_not_be_is_refused() {
    let temp = yard();
    let root = SourceRoot::open(&temp.path().join("served")).unwrap();
    for request in
        [&b"../secret"[..], b"/etc/passwd", b"a//b", b"dir/", b".", b"dir/../file", b"a\0b", &[b'x'; 256]]
    {
        let error = root.resolve(request).unwrap_err();
        assert!(matches!(error, SourceError::PathRefused { .. }), "{error}");
    }
    for request in [&b"none"[..], b"file/x", b"dir/none/x", b".shiplane-0123456789abcdef.journal"] {
        fs::write(temp.path().join("served/.shiplane-0123456789abcdef.journal"), "x").unwrap();
        let error = root.resolve(request).unwrap_err();
        assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
    }
}

#[test]
fn links_are_followed_inside_and_never_out() {
    let temp = yard();
    let served = temp.path().join("served");
    for (link, target) in [
        ("in-file", "file"),
        ("in-dir", "dir/inner"),
        ("dir/up", "../file"),
        ("out-file", "../secret"),
        ("out-dir", ".."),
        ("dir/out", "../../secret"),
        ("absolute", "/etc/passwd"),
        ("loop-1", "loop-2"),
        ("loop-2", "loop-1"),
        ("dangling", "nothing"),
    ] {
        symlink(target, served.join(link)).unwrap();
    }
    let root = SourceRoot::open(&served).unwrap();
    for request in ["in-file", "dir/up"] {
        let source = root.resolve(request.as_bytes()).unwrap();
        let entry = only_file(&source);
        assert_eq!(entry.path.as_bytes(), request.rsplit('/').next().unwrap().as_bytes());
        let mut content = [0; 7];
        source.open(&entry).unwrap().read_at(0, &mut content).unwrap();
        assert_eq!(&content, b"content");
    }
    let dir = root.resolve(b"in-dir").unwrap();
    assert_eq!(dir.shape(), &Shape::Directory { name: b"in-dir".into() });
    assert_eq!(paths(&scan(&dir).0), ["deep"]);
    for request in ["out-file", "out-dir", "out-dir/secret", "dir/out", "absolute"] {
        let error = root.resolve(request.as_bytes()).unwrap_err();
        assert!(matches!(error, SourceError::LeavesServedRoot { .. }), "{request}: {error}");
    }
    assert!(matches!(root.resolve(b"dangling"), Err(SourceError::NotFound { .. })));
    assert!(matches!(root.resolve(b"loop-1"), Err(SourceError::Unreadable { .. })));
}

#[test]
fn special_files_are_not_served() {
    let temp = yard();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = temp.path().join("served/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let root = SourceRoot::open(&temp.path().join("served")).unwrap();
    let error = root.resolve(b"fifo").unwrap_err();
    assert!(matches!(error, SourceError::NotServable { found: Kind::Special, .. }), "{error}");
    assert!(matches!(SourceRoot::open(&fifo), Err(SourceError::NotServable { .. })));
}

#[test]
fn a_served_file_is_served_alone() {
    let temp = yard();
    let served = temp.path().join("served");
    symlink("dir/inner/deep", served.join("shown")).unwrap();
    for (path, name, size) in [("file", "file", 7), ("shown", "shown", 4)] {
        let root = SourceRoot::open(&served.join(path)).unwrap();
        for request in [&b""[..], name.as_bytes()] {
            let source = root.resolve(request).unwrap();
            assert_eq!(source.shape(), &Shape::File { name: name.into() });
            let entry = only_file(&source);
            assert_eq!((entry.path.as_bytes(), entry.size_bytes), (name.as_bytes(), size));
            source.open(&entry).unwrap();
        }
        for request in ["dir", "deep", "inner", "none"] {
            assert!(matches!(root.resolve(request.as_bytes()), Err(SourceError::NotFound { .. })));
        }
    }
    assert!(matches!(SourceRoot::open(&served.join("none")), Err(SourceError::NotFound { .. })));
}

#[test]
fn a_file_that_changes_after_the_scan_is_not_sent() {
    type Change = fn(&Path);
    let changes: [(&str, Change, LeftOutReason); 7] = [
        ("appended", |path| fs::write(path, "content and more").unwrap(), LeftOutReason::Changed),
        ("rewritten", |path| fs::write(path, "CONTENT").unwrap(), LeftOutReason::Changed),
        ("truncated", |path| fs::write(path, "").unwrap(), LeftOutReason::Changed),
        ("replaced", replace, LeftOutReason::Changed),
        (
            "made a link",
            |path| {
                fs::remove_file(path).unwrap();
                symlink("/etc/passwd", path).unwrap()
            },
            LeftOutReason::Changed,
        ),
        (
            "made a directory",
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap()
            },
            LeftOutReason::Changed,
        ),
        ("deleted", |path| fs::remove_file(path).unwrap(), LeftOutReason::Vanished),
    ];
    for (what, change, reason) in changes {
        let temp = TempDir::new().unwrap();
        let path = temp.path().join("f");
        fs::write(&path, "content").unwrap();
        let source = serve(temp.path());
        let entry = only_file(&source);
        source.open(&entry).unwrap().check_unchanged().unwrap();
        let opened = source.open(&entry).unwrap();
        change(&path);
        let error = source.open(&entry).unwrap_err();
        assert_eq!(error.left_out_reason(), reason, "{what}: {error}");
        // One that was open already notices, too; of a replaced file it has the old content, whole.
        match opened.check_unchanged() {
            Err(SourceError::Changed { .. } | SourceError::Vanished { .. }) => {}
            other => panic!("{what}: {other:?}"),
        }
        if what == "truncated" {
            assert!(matches!(opened.read_at(0, &mut [0; 7]), Err(SourceError::Changed { .. })));
        }
    }
}

fn replace(path: &Path) {
    let other = path.with_extension("other");
    fs::write(&other, "content").unwrap();
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    fs::File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
    fs::rename(other, path).unwrap();
}

#[test]
fn the_parent_of_an_entry_may_become_a_link_and_is_not_followed() {
    let temp = yard();
    let served = temp.path().join("served");
    let source = serve(&served);
    let (entries, _) = scan(&source);
    let deep = entries.iter().find(|entry| entry.path.as_bytes() == b"dir/inner/deep").unwrap();
    fs::rename(served.join("dir/inner"), served.join("dir/moved")).unwrap();
    symlink("moved", served.join("dir/inner")).unwrap();
    assert_eq!(source.open(deep).unwrap_err().left_out_reason(), LeftOutReason::Changed);
}

#[test]
fn a_forged_entry_does_not_open_what_was_not_listed() {
    let temp = yard();
    let served = temp.path().join("served");
    let source = serve(&served);
    let mut entry = scan(&source).0.into_iter().find(|entry| entry.kind == EntryKind::File).unwrap();
    entry.path = RelPath::parse(b"none").unwrap();
    assert!(matches!(source.open(&entry), Err(SourceError::Vanished { .. })));
    entry.path = RelPath::parse(b"dir").unwrap();
    assert!(matches!(source.open(&entry), Err(SourceError::Changed { .. })));
}

#[test]
fn an_unreadable_directory_is_skipped() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root may read everything");
        return;
    }
    let temp = yard();
    let dir = temp.path().join("served/dir");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o000)).unwrap();
    let (entries, skipped) = scan(&serve(&temp.path().join("served")));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(paths(&entries), ["file"]);
    assert_eq!(skipped, [("dir".to_owned(), LeftOutReason::Unreadable)].into());
}

#[test]
fn what_one_side_lists_and_reads_the_other_side_receives() {
    let (from, to) = (yard(), TempDir::new().unwrap());
    let served = from.path().join("served");
    fs::write(served.join("large"), noise(1, 12_345)).unwrap();
    fs::create_dir(served.join("empty")).unwrap();
    let source = serve(&served);
    let mut tree = super::tree::Tree::default();
    for entry in scan(&source).0 {
        let mut content = vec![0; entry.size_bytes as usize];
        if entry.kind == EntryKind::File {
            let file = source.open(&entry).unwrap();
            for (at, piece) in content.chunks_mut(1000).enumerate() {
                file.read_at(1000 * at as u64, piece).unwrap();
            }
            file.check_unchanged().unwrap();
        }
        tree.entries.push((entry, content));
    }
    receive(open(to.path()), &tree).unwrap();
    assert_eq!(super::tree::listing(to.path()), super::tree::listing(&served));
}

#[test]
fn a_served_directory_that_is_gone_or_replaced_is_an_error() {
    type Away = fn(&Path);
    let ways: [(&str, Away); 3] = [
        ("removed", |path| fs::remove_dir_all(path).unwrap()),
        ("moved away", |path| fs::rename(path, path.with_extension("away")).unwrap()),
        ("replaced", |path| {
            fs::rename(path, path.with_extension("away")).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (how, away) in ways {
        let temp = yard();
        let served = temp.path().join("served");
        let root = SourceRoot::open(&served).unwrap();
        root.resolve(b"file").unwrap();
        away(&served);
        for path in [&b""[..], b"file"] {
            assert!(matches!(root.resolve(path), Err(SourceError::Gone)), "{how}");
        }
        assert!(matches!(root.below(b""), Err(SourceError::Gone)), "{how}");
        let opened = Destination::open_beneath(
            &root,
            b"in",
            &Shape::Contents,
            job(),
            options(),
            SharedMemory::default(),
            &|_| true,
        )
        .unwrap_err();
        assert!(matches!(opened, DestinationError::Gone), "{how}: {opened}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_deep_tree_is_listed_whole_with_few_open_directories() {
    let temp = TempDir::new().unwrap();
    let mut deep = temp.path().to_owned();
    for level in 0..60 {
        fs::write(deep.join(format!("before-{level}")), "x").unwrap();
        fs::create_dir(deep.join("d")).unwrap();
        fs::write(deep.join(format!("zafter-{level}")), "x").unwrap();
        deep.push("d");
    }
    let source = serve(temp.path());
    let (mut found, mut most_open) = (Vec::new(), 0);
    for scanned in source.scan() {
        let entry = match scanned.unwrap() {
            Scanned::Entry(entry) => entry,
            Scanned::Top(_) => continue,
            Scanned::LeftOut { .. } => panic!("nothing is left out"),
        };
        found.push(entry.path);
        let handles = fs::read_dir("/proc/self/fd").unwrap();
        let paths = handles.filter_map(|handle| fs::read_link(handle.unwrap().path()).ok());
        most_open = most_open.max(paths.filter(|path| path.starts_with(temp.path())).count());
    }
    assert_eq!(found.len(), 180);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 180, "each once");
    assert!(most_open <= 40, "{most_open}");
}

#[cfg(target_os = "linux")]
#[test]
fn files_whose_size_is_not_their_length_are_read_to_their_end() {
    let proc = SourceRoot::open(Path::new("/proc/sys/kernel")).unwrap();
    let source = proc.resolve(b"").unwrap();
    let (entries, _) = scan(&source);
    let version = entries.iter().find(|entry| entry.path.as_bytes() == b"ostype").unwrap();
    assert_eq!(version.size_bytes, 6);
    let mut content = [0; 6];
    source.open(version).unwrap().read_at(0, &mut content).unwrap();
    assert_eq!(&content, b"Linux\n");
    assert!(source.open(version).unwrap().read_at(1, &mut content).is_err());
    // A source that has not listed it reads it again.
    source.open(version).unwrap().check_unchanged().unwrap();
    let again = proc.resolve(b"").unwrap();
    again.open(version).unwrap().read_at(0, &mut content).unwrap();
    let mut other = version.clone();
    other.version = shiplane_wire::Version::from_bytes([1; 16]);
    assert_eq!(again.open(&other).unwrap_err().left_out_reason(), LeftOutReason::Changed);
    // Alone, too, and where the system says that it is a page long.
    let one = proc.resolve(b"ostype").unwrap();
    assert_eq!(scan(&one).0[0].size_bytes, 6);
}
