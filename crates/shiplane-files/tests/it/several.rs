//! Several roots as one source.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::sync::Arc;

use shiplane_files::internals::{FilterRules, Filters, Scanned, Shape, Source, SourceError, SourceRoot};
use shiplane_wire::{Entry, EntryKind};
use tempfile::TempDir;

fn entries(source: &Source) -> Vec<Entry> {
    let scanned = source.scan().map(|scanned| match scanned.unwrap() {
        Scanned::Entry(entry) => entry,
        other => panic!("{other:?}"),
    });
    scanned.collect()
}

fn paths(source: &Source) -> Vec<String> {
    let mut paths: Vec<_> = entries(source).iter().map(|entry| entry.path.to_string()).collect();
    paths.sort_unstable();
    paths
}

fn content(source: &Source, path: &str) -> String {
    let entry = entries(source).into_iter().find(|entry| entry.path.to_string() == path).unwrap();
    let mut buffer = vec![0; entry.size_bytes as usize];
    source.open(&entry).unwrap().read_at(0, &mut buffer).unwrap();
    String::from_utf8(buffer).unwrap()
}

/// `a/file`, `b/dir/inner/deep` and the content of `c`, with secrets beside them.
fn yard() -> (TempDir, SourceRoot) {
    let temp = TempDir::new().unwrap();
    let at = |path: &str| temp.path().join(path);
    for dir in ["a", "b/dir/inner", "c/two"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    for file in ["a/file", "a/secret", "b/dir/inner/deep", "b/secret", "c/one", "c/two/three"] {
        fs::write(at(file), file).unwrap();
    }
    let open = |path: &str| SourceRoot::open(&at(path)).unwrap();
    let root = SourceRoot::several(vec![open("a/file"), open("b/dir"), open("c").nameless()]).unwrap();
    (temp, root)
}

#[test]
fn each_root_is_listed_by_its_name_and_read() {
    let (_temp, root) = yard();
    let source = root.resolve(b"").unwrap();
    assert_eq!(source.shape(), &Shape::Contents);
    assert_eq!(paths(&source), ["dir", "dir/inner", "dir/inner/deep", "file", "one", "two", "two/three"]);
    for (path, expected) in [
        ("file", "a/file"),
        ("dir/inner/deep", "b/dir/inner/deep"),
        ("one", "c/one"),
        ("two/three", "c/two/three"),
    ] {
        assert_eq!(content(&source, path), expected);
    }
}

#[test]
fn nothing_beside_the_roots_can_be_asked_for() {
    let (temp, root) = yard();
    for (path, shape) in [
        (&b"file"[..], Shape::File { name: b"file".to_vec() }),
        (b"dir", Shape::Directory { name: b"dir".to_vec() }),
        (b"dir/inner", Shape::Directory { name: b"inner".to_vec() }),
        (b"two/three", Shape::File { name: b"three".to_vec() }),
    ] {
        assert_eq!(root.resolve(path).unwrap().shape(), &shape);
    }
    symlink("../secret", temp.path().join("b/dir/out")).unwrap();
    for path in
        [&b"secret"[..], b"a", b"a/secret", b"file/x", b"dirx", b"c", b"../a/secret", b"dir/../../secret"]
    {
        assert!(root.resolve(path).is_err(), "{path:?}");
    }
    assert!(matches!(root.resolve(b"dir/out"), Err(SourceError::LeavesServedRoot { .. })));
    assert!(root.resolve_unlinked(b"file").is_err() && root.below(b"dir").is_err());
    assert!(root.directory().is_none());
}

#[test]
fn a_root_that_is_gone_or_changed_is_not_read() {
    let (temp, root) = yard();
    let source = root.resolve(b"").unwrap();
    let listed = entries(&source);
    fs::write(temp.path().join("a/file"), "something longer").unwrap();
    let file = listed.iter().find(|entry| entry.path.as_bytes() == b"file").unwrap();
    assert!(matches!(source.open(file), Err(SourceError::Changed { .. })));
    fs::rename(temp.path().join("b/dir"), temp.path().join("b/moved")).unwrap();
    assert!(matches!(root.resolve(b""), Err(SourceError::Gone)));
}

#[test]
fn a_deep_root_is_listed_whole_after_another() {
    let temp = TempDir::new().unwrap();
    let mut deep = temp.path().join("deep");
    fs::create_dir(&deep).unwrap();
    for level in 0..40 {
        fs::create_dir(deep.join("d")).unwrap();
        fs::write(deep.join(format!("zafter-{level}")), "x").unwrap();
        deep.push("d");
    }
    fs::create_dir(temp.path().join("first")).unwrap();
    let open = |path: &str| SourceRoot::open(&temp.path().join(path)).unwrap();
    let source = SourceRoot::several(vec![open("first"), open("deep")]).unwrap().resolve(b"").unwrap();
    let found = entries(&source);
    assert_eq!(found.len(), 82);
    let last = found.iter().find(|entry| entry.path.file_name() == b"zafter-39").unwrap();
    assert_eq!((last.kind, last.path.components().count()), (EntryKind::File, 41));
    let mut buffer = [0];
    source.open(last).unwrap().read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"x");
}

#[test]
fn each_root_stays_on_its_own_file_system() {
    let (here, Ok(there)) = (TempDir::new().unwrap(), TempDir::new_in("/dev/shm")) else { return };
    let device = |dir: &TempDir| fs::metadata(dir.path()).unwrap().dev();
    if device(&here) == device(&there) {
        eprintln!("skipped: /dev/shm is on the file system of temporary files");
        return;
    }
    let roots = [(&here, "one"), (&there, "two")].map(|(dir, name)| {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("file"), name).unwrap();
        SourceRoot::open(&dir.path().join(name)).unwrap()
    });
    let rules = FilterRules { one_file_system: true, ..FilterRules::default() };
    let source = SourceRoot::several(roots.into()).unwrap().resolve(b"").unwrap();
    let source = source.with_filters(Arc::new(Filters::new(rules).unwrap()));
    assert_eq!(paths(&source), ["one", "one/file", "two", "two/file"]);
}
