//! A tree with every kind of entry comes through `get`, `push` and `sync` equal by lstat, attributes, extents and content, on a
//! file system in memory and on the disk at hand; and what `rsync -aHAXS` makes of it is the same but for a list.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags};

use crate::program::{Machine, Run, Server};

/// In memory, and on the disk.
const PLACES: [&str; 2] = ["/dev/shm", "/var/tmp"];

/// What is compared of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    kind: u32,
    mode: u32,
    owners: (u32, u32),
    mtime: (i64, i64),
    /// Of a file: its size, where it has content of its own, and that.
    size: u64,
    extents: Vec<(u64, u64)>,
    content: Vec<Vec<u8>>,
    target: Option<PathBuf>,
    /// The first of the paths that are the same file.
    same_as: Option<PathBuf>,
    extended: BTreeMap<OsString, Vec<u8>>,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything beneath `root`, and that itself as an empty path.
fn survey(root: &Path) -> BTreeMap<PathBuf, Found> {
    let mut first_of = HashMap::new();
    let entries = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().strip_prefix(root).unwrap().to_owned();
            let found = describe(entry.path(), &path, &mut first_of);
            (path, found)
        })
        .collect()
}

fn describe(path: &Path, shown: &Path, first_of: &mut HashMap<u64, PathBuf>) -> Found {
    let found = fs::symlink_metadata(path).unwrap();
    let kind = found.file_type();
    let (mut extents, mut content) = (Vec::new(), Vec::new());
    if kind.is_file() {
        let file = File::open(path).unwrap();
        let mut at = 0;
        while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, SeekFrom::Hole(start)).unwrap();
            let mut part = vec![0; usize::try_from(at - start).unwrap()];
            file.read_exact_at(&mut part, start).unwrap();
            extents.push((start, at));
            content.push(part);
        }
    }
    let is_linked = kind.is_file() && found.nlink() > 1;
    let same_as = is_linked.then(|| first_of.entry(found.ino()).or_insert_with(|| shown.to_owned()).clone());
    Found {
        kind: found.mode() & 0o170_000,
        mode: if kind.is_symlink() { 0 } else { found.mode() & 0o7777 },
        owners: (found.uid(), found.gid()),
        mtime: (found.mtime(), found.mtime_nsec()),
        size: if kind.is_file() { found.len() } else { 0 },
        extents,
        content,
        target: kind.is_symlink().then(|| fs::read_link(path).unwrap()),
        same_as,
        extended: extended(path),
    }
}

fn extended(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value.truncate(len);
        (OsString::from_vec(name.to_vec()), value)
    };
    // What the machine says of each of its files.
    names.map(value).filter(|(name, _)| name != "security.selinux").collect()
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// An access list of the kernel's: the owner may read and write, and these users and groups may read.
fn access_list(users: &[u32], groups: &[u32]) -> Vec<u8> {
    let named = |tag, ids: &[u32]| ids.iter().map(move |id| (tag, 4, *id)).collect::<Vec<_>>();
    let none = u32::MAX;
    let entries = [
        vec![(1, 6, none)],
        named(2, users),
        vec![(4, 4, none)],
        named(8, groups),
        vec![(16, 4, none), (32, 0, none)],
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries.concat() {
        bytes.extend_from_slice(&u16::to_le_bytes(tag));
        bytes.extend_from_slice(&u16::to_le_bytes(permissions));
        bytes.extend_from_slice(&u32::to_le_bytes(id));
    }
    bytes
}

fn set_time(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Every kind of entry, as far as this user may make it.
pub(crate) fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    let mode = |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    for dir in ["", "dir/deep/deeper", "empty dir", "group", "sticky", "locked", "listed"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("dir/file"), "content").unwrap();
    fs::write(at("dir/empty"), "").unwrap();
    fs::write(at("dir/deep/deeper/large"), vec![b'x'; 5 << 20]).unwrap();
    fs::write(at("zeros"), vec![0; 1 << 16]).unwrap();
    fs::write(at("setuid"), "a program").unwrap();
    fs::write(at("locked/read only"), "read only").unwrap();
    fs::write(at("listed/file"), "listed").unwrap();
    for name in [&b"line\nfeed"[..], b"\xff not UTF-8", b"back\\slash", b"-n", b"File", b"file"] {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(at("é"), "composed").unwrap();
    fs::write(at("e\u{301}"), "decomposed").unwrap();
    fs::hard_link(at("dir/file"), at("another name")).unwrap();
    fs::hard_link(at("dir/file"), at("dir/deep/third name")).unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 28).unwrap();
    sparse.write_all_at(&[7; 4096], 1 << 20).unwrap();
    sparse.write_all_at(&[8; 4096], 1 << 27).unwrap();
    File::create(at("all hole")).unwrap().set_len(1 << 20).unwrap();
    for (name, target) in
        [("link", "dir/file"), ("dangling", "no/where"), ("absolute", "/etc/hostname"), ("out", "../../x")]
    {
        symlink(target, at(name)).unwrap();
    }
    set(&at("dir/file"), "user.text", b"text");
    set(&at("dir/file"), "user.empty", b"");
    set(&at("dir/empty"), "user.bytes", &[0, 255, 10, 92]);
    set(&at("empty dir"), "user.of a directory", b"directory");
    set(&at("listed"), "system.posix_acl_default", &access_list(&[1, 12_345], &[2]));
    set(&at("listed/file"), "system.posix_acl_access", &access_list(&[1, 12_345], &[2]));
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    if is_root() {
        set(&at("dir/deep"), "trusted.deep", b"deep");
        for (name, user, group) in [
            ("dir/file", 1, 2),
            ("dir/deep", 54_321, 54_321),
            ("link", 3, 4),
            ("group", 0, 5),
            ("locked/read only", 6, 0),
            ("", 7, 8),
        ] {
            lchown(at(name), Some(user), Some(group)).unwrap();
        }
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        set(&at("setuid"), "security.capability", &capability);
    }
    mode("group", 0o2775);
    mode("sticky", 0o1777);
    mode("dir/file", 0o640);
    mode("setuid", 0o4711);
    mode("locked/read only", 0o400);
    mode("locked", 0o500);
    mode("", 0o750);
    for (nanos, (path, _)) in (1..).zip(survey(root).into_iter().rev()) {
        let before_1970 = nanos % 5 == 0;
        set_time(&root.join(&path), if before_1970 { -86_400 } else { 1_600_000_000 + nanos }, nanos * 7);
    }
}

/// What this program does not carry, each with its reason; the rest is equal.
fn as_carried(mut tree: BTreeMap<PathBuf, Found>) -> BTreeMap<PathBuf, Found> {
    // Devices, sockets and FIFOs are never created from a peer's word; they are named, or skipped on request.
    tree.remove(Path::new("fifo"));
    for found in tree.values_mut() {
        // A setuid or setgid program of a peer's, and a capability, would give its user the rights of another.
        if found.kind == 0o100_000 {
            found.mode &= 0o777;
        }
        found.extended.remove(OsStr::new("security.capability"));
    }
    tree
}

#[track_caller]
fn assert_same(expected: &BTreeMap<PathBuf, Found>, found: &BTreeMap<PathBuf, Found>) {
    assert!(expected.keys().eq(found.keys()), "{:?}\n{:?}", expected.keys(), found.keys());
    for (path, expected) in expected {
        let mut found = found[path].clone();
        if found.content != expected.content {
            panic!("{} has other content: {:?}, not {:?}", path.display(), found.extents, expected.extents);
        }
        found.content = expected.content.clone();
        let shown = |found: &Found| Found { content: Vec::new(), ..found.clone() };
        assert_eq!(shown(&found), shown(expected), "{}", path.display());
    }
}

fn writable(machine: &Machine, path: &Path) -> Server {
    machine.serve_file(path, &["--listen", "127.0.0.1:0", "--writable", "--all-links", "--attributes"])
}

const ARGS: [&str; 3] = ["--attributes", "--skip", "special,attributes"];

#[test]
fn a_tree_with_everything_comes_through_get_push_and_sync_as_it_is() {
    for place in PLACES {
        let (here, there) = (Machine::new(), Machine::new());
        let temp = tempfile::TempDir::new_in(place).unwrap();
        let [from, got, pushed, synced] =
            ["from", "got", "pushed", "synced"].map(|name| temp.path().join(name));
        fill(&from);
        let expected = as_carried(survey(&from));
        let server = writable(&there, &from);
        let dest = got.to_str().unwrap();
        for _ in 0..2 {
            here.run(&[&["get", server.ticket(), dest][..], &ARGS].concat()).done();
            assert_same(&expected, &survey(&got));
        }
        // As a directory in a server's, which gets the mode and the owners of its own.
        fs::create_dir(&pushed).unwrap();
        let server = writable(&there, &pushed);
        for _ in 0..2 {
            let run = here.run(&[&["push", from.to_str().unwrap(), server.ticket()][..], &ARGS].concat());
            run.done();
            assert_same(&expected, &survey(&pushed.join("from")));
        }
        fs::create_dir(&synced).unwrap();
        let server = writable(&there, &synced);
        for _ in 0..2 {
            let run = here.run(&[&["sync", from.to_str().unwrap(), server.ticket()][..], &ARGS].concat());
            run.done();
            let mut found = survey(&synced);
            // The directory that is served is the server's own.
            found.insert(PathBuf::new(), expected[Path::new("")].clone());
            assert_same(&expected, &found);
        }
        let mut found = as_carried(survey(&from));
        found.insert(PathBuf::new(), expected[Path::new("")].clone());
        assert_same(&expected, &found);
        // Only attributes change, on both sides.
        set(&from.join("dir/empty"), "user.more", b"more");
        set(&synced.join("dir/file"), "user.text", b"other");
        let before = fs::metadata(from.join("dir/file")).unwrap().ino();
        here.run(&[&["sync", from.to_str().unwrap(), server.ticket()][..], &ARGS].concat()).done();
        assert_eq!(extended(&from.join("dir/file")), extended(&synced.join("dir/file")));
        assert_eq!(extended(&from.join("dir/file"))[OsStr::new("user.text")], b"other");
        assert_eq!(extended(&synced.join("dir/empty"))[OsStr::new("user.more")], b"more");
        assert_eq!(fs::metadata(from.join("dir/file")).unwrap().ino(), before, "no content came");
    }
}

/// How rsync's result differs from ours, and why.
const DIFFERENCES: [(&str, &str); 3] = [
    ("fifo", "rsync creates devices and FIFOs; this program takes none from a peer"),
    ("setuid", "rsync carries setuid bits and capabilities; this program takes no privilege from a peer"),
    ("zeros", "rsync makes holes of zeros; this program keeps what is written, and the holes that there are"),
];

#[test]
fn rsync_copies_a_tree_equally_except_for_the_listed_differences() {
    if Command::new("rsync").arg("--version").output().is_err() {
        eprintln!("skipped: rsync is not installed");
        return;
    }
    for place in PLACES {
        let (here, there) = (Machine::new(), Machine::new());
        let temp = tempfile::TempDir::new_in(place).unwrap();
        let [from, ours, theirs] = ["from", "ours", "theirs"].map(|name| temp.path().join(name));
        fill(&from);
        let server = there.serve_file(&from, &["--listen", "127.0.0.1:0"]);
        here.run(&[&["get", server.ticket(), ours.to_str().unwrap()][..], &ARGS].concat()).done();
        let mut source = from.clone().into_os_string();
        source.push("/");
        let copied = Command::new("rsync").arg("-aHAXS").arg(source).arg(&theirs).output().unwrap();
        assert!(copied.status.success(), "{copied:?}");
        let (ours, theirs) = (survey(&ours), survey(&theirs));
        let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        let listed: BTreeMap<_, _> = DIFFERENCES.into_iter().collect();
        for path in paths {
            let differs = ours.get(path) != theirs.get(path);
            let shown = path.to_str().unwrap_or_default();
            assert!(!differs || listed.contains_key(shown), "{shown}");
        }
        // What is listed is so, or it would stay on the list for ever.
        for (path, _) in DIFFERENCES {
            assert_ne!(ours.get(Path::new(path)), theirs.get(Path::new(path)), "{path}");
        }
    }
}

#[test]
fn a_server_takes_attributes_only_with_the_option() {
    let (here, there) = (Machine::new(), Machine::new());
    let file = here.write("src/file", "content");
    set(&file, "user.x", b"x");
    let server = there.serve_with("in", &["--listen", "127.0.0.1:0", "--writable"]);
    for command in [["push", "src/file"], ["sync", "src"]] {
        let run = here.run(&[&command[..], &[server.ticket(), "--attributes"]].concat());
        let run = run.failed(6, "takes no owners");
        assert!(run.err.contains("omit --attributes"), "{run:?}");
    }
    assert_eq!(fs::read_dir(there.file("in")).unwrap().count(), 0);
    here.run(&["push", "src/file", server.ticket()]).done();
    assert_eq!(extended(&there.file("in/file")).len(), 0);
    here.run(&["serve", "src", "--attributes"]).failed(2, "--writable");
}

const OTHER_USER: u32 = 65_534;

/// A user without any rights, with a place of its own.
struct OtherUser {
    place: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl OtherUser {
    fn new(machine: &Machine) -> Self {
        let [place, home] = [0; 2].map(|_| tempfile::TempDir::new().unwrap());
        for dir in [&place, &home] {
            lchown(dir.path(), Some(OTHER_USER), Some(OTHER_USER)).unwrap();
        }
        // Where every user may run it.
        fs::copy(machine.command(&[]).get_program(), place.path().join("shiplane")).unwrap();
        Self { place, home }
    }

    fn run(&self, args: &[&str]) -> Run {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(self.place.path().join("shiplane"));
        command.args(args).env("SHIPLANE_HOME", self.home.path()).current_dir(self.place.path());
        Run::of(&mut command)
    }
}

#[test]
fn a_setgid_bit_that_a_user_may_not_set_is_named() {
    if !is_root() {
        eprintln!("skipped: only the superuser has directories of several groups");
        return;
    }
    let (here, there) = (Machine::new(), Machine::new());
    there.write("src/shared/file", "content");
    fs::set_permissions(there.file("src/shared"), fs::Permissions::from_mode(0o2775)).unwrap();
    set_time(&there.file("src/shared"), 1_600_000_000, 7);
    let server = writable(&there, Path::new("src"));
    let user = OtherUser::new(&here);
    // What is created there is of a group that this user is not in.
    for name in ["got", "synced"] {
        let place = user.place.path().join(name);
        fs::create_dir(&place).unwrap();
        lchown(&place, Some(OTHER_USER), Some(0)).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o2777)).unwrap();
    }
    for (command, shared) in [
        (["get", server.ticket(), "got/copy"], "got/copy/shared"),
        (["get", server.ticket(), "got/copy"], "got/copy/shared"),
        (["sync", "synced", server.ticket()], "synced/shared"),
        (["sync", "synced", server.ticket()], "synced/shared"),
    ] {
        user.run(&command).told(9, "shared");
        let shared = user.place.path().join(shared);
        assert_eq!(fs::read(shared.join("file")).unwrap(), b"content");
        let found = fs::metadata(shared).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime(), found.mtime_nsec()), (0o775, 1_600_000_000, 7));
        // Nor does a sync carry the other mode back.
        assert_eq!(fs::metadata(there.file("src/shared")).unwrap().mode() & 0o7777, 0o2775);
    }
}

#[test]
fn attributes_that_a_user_may_not_set_are_named_once_and_the_content_arrives() {
    if !is_root() {
        eprintln!("skipped: only the superuser has files of several owners");
        return;
    }
    let (here, there) = (Machine::new(), Machine::new());
    for name in ["a", "b", "c"] {
        let file = there.write(&format!("src/{name}"), name);
        lchown(&file, Some(5), Some(5)).unwrap();
        set(&file, "user.x", b"x");
    }
    let server = there.serve_with("src", &["--listen", "127.0.0.1:0"]);
    let user = OtherUser::new(&here);
    let run =
        |args: &[&str]| user.run(&[&["get", server.ticket(), "copy", "--attributes"][..], args].concat());
    let told = run(&[]).told(9, "owner or group");
    assert_eq!(told.err.matches("owner or group").count(), 1, "{told:?}");
    for name in ["a", "b", "c"] {
        let file = user.place.path().join("copy").join(name);
        assert_eq!(fs::read_to_string(&file).unwrap(), name);
        assert_eq!(extended(&file)[OsStr::new("user.x")], b"x");
        assert_eq!(fs::metadata(&file).unwrap().uid(), OTHER_USER);
    }
    run(&["--skip", "attributes"]).done();
}
