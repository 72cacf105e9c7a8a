//! Trees on file systems that take less than a tree has: exFAT and NTFS through FUSE. Skipped, with the reason, where they
//! cannot be mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::everything::fill;
use crate::program::{Machine, Run};

/// A file system in a file.
struct Mounted {
    place: PathBuf,
    device: Option<String>,
    _files: TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Takes names that differ in case only for the same, and neither links, `:` nor line breaks in names, nor modes.
    Exfat,
    /// Takes names as they are if they are Unicode, links too, and no modes.
    Ntfs,
}

impl Mounted {
    /// An empty one; why there is none, if there is none.
    fn new(kind: Kind) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            return Err("only the superuser mounts file systems, where there is /dev/fuse".to_owned());
        }
        let files = TempDir::new().unwrap();
        let (image, place) = (files.path().join("image"), files.path().join("mounted"));
        // It occupies what is written. exFAT has no holes: the 256 MiB of one file are all written, three times.
        fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
        fs::create_dir(&place).unwrap();
        let (make, mount): (&[&str], _) = match kind {
            Kind::Exfat => (&["mkfs.exfat"], "mount.exfat-fuse"),
            Kind::Ntfs => (&["mkfs.ntfs", "--force", "--quick"], "ntfs-3g"),
        };
        told(Command::new(make[0]).args(&make[1..]).arg(&image))?;
        let device = match kind {
            Kind::Exfat => Some(told(Command::new("losetup").args(["--find", "--show"]).arg(&image))?),
            Kind::Ntfs => None,
        };
        // From here on it is undone when it is dropped.
        let mounted = Self { place, device, _files: files };
        let from = mounted.device.as_ref().map_or(&*image, Path::new);
        told(Command::new(mount).arg(from).arg(&mounted.place))?;
        Ok(mounted)
    }

    /// The same, or `None` and the reason printed.
    fn or_skipped(kind: Kind) -> Option<Self> {
        Self::new(kind).inspect_err(|why| println!("skipped: no {kind:?} here: {why}")).ok()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = told(Command::new("umount").arg(&self.place));
        if let Some(device) = &self.device {
            let _ = told(Command::new("losetup").args(["--detach", device]));
        }
    }
}

/// What a command prints, or why it failed.
fn told(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{shown}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Everything beneath `root`: the content of files, and nothing for directories and links.
fn contents(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let entries = walkdir::WalkDir::new(root).min_depth(1).into_iter();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let content = entry.file_type().is_file().then(|| fs::read(entry.path()).unwrap());
            (entry.path().strip_prefix(root).unwrap().to_owned(), content)
        })
        .collect()
}

/// The paths that a run says that it has left out, on either side, and the words that it has for each.
fn named(run: &Run) -> BTreeMap<PathBuf, String> {
    let lines = run.err.lines().filter_map(|line| line.strip_prefix("left out ")?.split_once(": "));
    lines
        .map(|(_, rest)| rest.split_once(": ").expect("a path and why"))
        .map(|(path, why)| (unescaped(path), why.to_owned()))
        .collect()
}

fn unescaped(shown: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), shown.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                rest = after;
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                rest = after;
            }
            (other, _) => bytes.push(*other),
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// Each path of the tree is there as it was, or is named.
#[track_caller]
fn assert_nothing_is_lost(from: &Path, there: &Path, run: &Run) {
    assert_eq!(run.code, Some(9), "{run:?}");
    let (expected, found, named) = (contents(from), contents(there), named(run));
    for (path, content) in &expected {
        let is_special = fs::symlink_metadata(from.join(path)).unwrap().file_type().is_symlink()
            || path == Path::new("fifo");
        match found.get(path) {
            _ if named.contains_key(path) => {}
            Some(found) if !is_special => assert!(found == content, "{} has other content", path.display()),
            Some(_) => {}
            None => panic!("{} is nowhere and is not named: {run:?}", path.display()),
        }
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{} comes from nowhere", path.display());
    }
    for path in named.keys() {
        assert!(expected.contains_key(path), "{} is named and is nowhere", path.display());
    }
}

/// What exFAT does not take of the tree, and words that must be said of it.
fn assert_refusals_of_exfat(run: &Run) {
    let named = named(run);
    let says = |path: &[u8], words: &str| {
        let path = Path::new(OsStr::from_bytes(path));
        let why = named.get(path).unwrap_or_else(|| panic!("{path:?} is not named: {run:?}"));
        assert!(why.contains(words), "{path:?}: {why}");
    };
    for link in [&b"link"[..], b"dangling", b"absolute"] {
        says(link, "symbolic link");
    }
    says(b"line\nfeed", "name");
    says(b"\xff not UTF-8", "name");
    says(b"back\\slash", "name");
    says(b"fifo", "special file");
    // Of two names that are one there, one is here, and the other one is named.
    let folded: BTreeSet<_> =
        named.keys().filter(|path| **path == Path::new("File") || **path == Path::new("file")).collect();
    assert_eq!(folded.len(), 1, "{run:?}");
    let why = &named[*folded.first().unwrap()];
    assert!(why.contains("same name") || why.contains("takes the name for another"), "{why}");
}

fn tree() -> (TempDir, PathBuf) {
    let temp = TempDir::new().unwrap();
    let from = temp.path().join("from");
    fill(&from);
    fs::write(from.join("10:30"), "a colon").unwrap();
    fs::create_dir_all(from.join("Folder")).unwrap();
    fs::write(from.join("Folder/one"), "one").unwrap();
    (temp, from)
}

fn a_tree_comes_as_far_as(kind: Kind) {
    let Some(mounted) = Mounted::or_skipped(kind) else { return };
    let (here, there) = (Machine::new(), Machine::new());
    let (_temp, from) = tree();
    let before = contents(&from);
    let server = there.serve_file(&from, &["--listen", "127.0.0.1:0"]);
    let got = mounted.at("got");
    for _ in 0..2 {
        let run = here.run(&["get", server.ticket(), got.to_str().unwrap()]);
        assert_nothing_is_lost(&from, &got, &run);
        if kind == Kind::Exfat {
            assert_refusals_of_exfat(&run);
        }
    }
    fs::remove_dir_all(&got).unwrap();

    let pushed = mounted.at("pushed");
    fs::create_dir(&pushed).unwrap();
    let server = there.serve_file(&pushed, &["--listen", "127.0.0.1:0", "--writable", "--all-links"]);
    for _ in 0..2 {
        let run = here.run(&["push", from.to_str().unwrap(), server.ticket()]);
        assert_nothing_is_lost(&from, &pushed.join("from"), &run);
        if kind == Kind::Exfat {
            assert_refusals_of_exfat(&run);
        }
    }
    fs::remove_dir_all(pushed.join("from")).unwrap();

    let synced = mounted.at("synced");
    fs::create_dir(&synced).unwrap();
    let server = there.serve_file(&synced, &["--listen", "127.0.0.1:0", "--writable", "--all-links"]);
    for _ in 0..3 {
        let run = here.run(&["sync", from.to_str().unwrap(), server.ticket()]);
        assert_nothing_is_lost(&from, &synced, &run);
        if kind == Kind::Exfat {
            assert_refusals_of_exfat(&run);
        }
        assert!(contents(&from) == before, "what the other side does not take stays as it was");
    }
    // What changes on either side goes on, and what was left alone stays so.
    fs::write(synced.join("dir/from there"), "new").unwrap();
    fs::write(from.join("zeros"), "other").unwrap();
    fs::remove_file(synced.join("-n")).unwrap();
    let run = here.run(&["sync", from.to_str().unwrap(), server.ticket()]);
    assert_nothing_is_lost(&from, &synced, &run);
    assert_eq!(fs::read(from.join("dir/from there")).unwrap(), b"new");
    assert_eq!(fs::read(synced.join("zeros")).unwrap(), b"other");
    assert!(!from.join("-n").exists());
    assert_eq!(contents(&from).len(), before.len(), "one more, and one less");
}

#[test]
fn a_tree_comes_through_get_push_and_sync_as_far_as_exfat_takes_it_and_the_rest_is_named() {
    a_tree_comes_as_far_as(Kind::Exfat);
}

#[test]
fn a_tree_comes_through_get_push_and_sync_as_far_as_ntfs_takes_it_and_the_rest_is_named() {
    a_tree_comes_as_far_as(Kind::Ntfs);
}
