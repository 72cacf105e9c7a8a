//! Files that change, where the moment of the change matters: while they are read, or just before.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use testlink::Rng;

use super::*;
use crate::{filters::FilterRules, hash::READ_LEN_BYTES};

struct Fixture {
    dir: TempDir,
    source: Source,
}

fn fixture(content: &[u8]) -> Fixture {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), content).unwrap();
    let source = SourceRoot::open(dir.path()).unwrap().resolve(b"").unwrap();
    Fixture { dir, source }
}

fn path(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

/// Reads the file while `meddle` is called with the number of times that something was read before.
fn read_while(fixture: &Fixture, meddle: impl Fn(usize, &Path) + Sync) -> (Result<Read, ScanError>, usize) {
    let reads = AtomicUsize::new(0);
    let file = fixture.dir.path().join("file");
    let outcome =
        read_settled(&fixture.source, &path("file"), DigestAlgorithm::Blake3, SystemTime::now, &|_| {
            meddle(reads.fetch_add(1, Ordering::Relaxed), &file);
            Ok(())
        });
    (outcome, reads.into_inner())
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    let fixture = fixture(b"one");
    let (read, reads) = read_while(&fixture, |reads, file| {
        if reads == 0 {
            fs::write(file, b"another").unwrap();
        }
    });
    let read = read.unwrap();
    assert_eq!((read.digest, read.entry.size_bytes, reads), (Digest::blake3(b"another"), 7, 2));
    assert!(read.is_racy);
}

#[test]
fn a_file_that_another_replaces_is_that_other() {
    let fixture = fixture(b"one");
    let (read, reads) = read_while(&fixture, |reads, file| {
        if reads == 0 {
            fs::write(file.with_extension("new"), b"two").unwrap();
            fs::rename(file.with_extension("new"), file).unwrap();
        }
    });
    assert_eq!((read.unwrap().digest, reads), (Digest::blake3(b"two"), 2));
}

#[test]
fn a_file_that_never_holds_still_is_given_up() {
    let fixture = fixture(b"x");
    let (read, reads) = read_while(&fixture, |reads, file| fs::write(file, vec![b'x'; reads + 2]).unwrap());
    assert!(matches!(read, Err(ScanError::Source(SourceError::Changed { .. }))));
    assert_eq!(reads, READ_ATTEMPTS);
}

#[test]
fn a_file_that_shrinks_under_the_reader_ends_the_attempt() {
    let fixture = fixture(&vec![1; 2 * READ_LEN_BYTES]);
    let (read, reads) = read_while(&fixture, |reads, file| {
        if reads == 0 {
            fs::write(file, b"short").unwrap();
        }
    });
    assert_eq!((read.unwrap().digest, reads), (Digest::blake3(b"short"), 2));
}

#[test]
fn a_file_that_is_removed_was_never_there() {
    let fixture = fixture(b"x");
    let (read, _) = read_while(&fixture, |_, file| fs::remove_file(file).unwrap());
    assert!(matches!(read, Err(ScanError::Source(SourceError::Vanished { .. }))));
    let mut survey = Survey::new(b"", DigestAlgorithm::Blake3);
    survey.take(path("file"), read).unwrap();
    assert!(survey.scanned.manifest.is_empty() && survey.scanned.unknown.is_empty());
}

#[test]
fn an_unreadable_file_is_unknown_and_not_absent() {
    let changed = || Err(SourceError::Changed { path: "a".into() }.into());
    let mut survey = Survey::new(b"", DigestAlgorithm::Blake3);
    survey.take(path("a"), changed()).unwrap();
    assert!(survey.scanned.manifest.is_empty());
    assert_eq!(survey.scanned.unknown, BTreeMap::from([(path("a"), LeftOutReason::Changed)]));
    assert!(survey.known.is_empty());
}

#[test]
fn a_name_that_is_listed_as_two_things_is_unknown() {
    let mut survey = Survey::new(b"", DigestAlgorithm::Blake3);
    survey.insert(path("a/b"), Node::Directory(Stamp::UNKNOWN), Seen::Directory, None);
    let state = FileState { size_bytes: 0, digest: Digest::blake3(b""), stamp: Stamp::UNKNOWN };
    survey.insert(path("a"), Node::File(state), Seen::Directory, None);
    assert_eq!(survey.scanned.unknown, BTreeMap::from([(path("a"), LeftOutReason::Changed)]));
}

/// A dataset in `data`, and the cache beside it.
struct Dataset {
    dir: TempDir,
}

impl Dataset {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dataset = Self { dir: TempDir::new().unwrap() };
        fs::create_dir(dataset.at("")).unwrap();
        files.iter().for_each(|(path, content)| dataset.write(path, content));
        dataset
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("data").join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn root(&self) -> SourceRoot {
        SourceRoot::open(&self.at("")).unwrap()
    }

    /// With the cache that the scan before has left, by a clock that is right or ten seconds fast, so that
    /// no file was written a moment ago.
    fn scan_by(&self, options: &ScanOptions, now: fn() -> SystemTime) -> Scanned {
        let mut cache = StatCache::load(&self.dir.path().join("cache"));
        let scanned = scan_by(&self.root(), b"", &mut cache, options, now).unwrap();
        cache.save().unwrap();
        scanned
    }

    fn scan_later(&self) -> Scanned {
        self.scan_by(&ScanOptions::default(), || SystemTime::now() + Duration::from_secs(10))
    }

    fn scan_at_once(&self) -> Scanned {
        self.scan_by(&ScanOptions::default(), SystemTime::now)
    }
}

fn digest_of(scanned: &Scanned, at: &str) -> Option<Digest> {
    scanned.manifest.file(&path(at)).map(|file| file.digest)
}

#[test]
fn an_untouched_file_is_not_read_again() {
    let data = Dataset::new(&[("a/one", b"1"), ("a/b/two", b"22"), ("three", b"333")]);
    let first = data.scan_later();
    assert_eq!((first.hashed_bytes, first.cached_files, first.manifest.len()), (6, 0, 5));
    assert_eq!(digest_of(&first, "a/b/two"), Some(Digest::blake3(b"22")));
    let second = data.scan_later();
    assert_eq!((second.hashed_bytes, second.cached_files), (0, 3));
    assert_eq!(second.manifest, first.manifest);
    data.write("a/one", b"longer");
    let third = data.scan_later();
    assert_eq!((third.hashed_bytes, third.cached_files), (6, 2));
    assert_eq!(digest_of(&third, "a/one"), Some(Digest::blake3(b"longer")));
    // Unless the disk may have something else.
    let from_disk = ScanOptions { from_disk: true, ..ScanOptions::default() };
    let fourth = data.scan_by(&from_disk, SystemTime::now);
    assert_eq!((fourth.hashed_bytes, fourth.cached_files), (11, 0));
}

#[test]
fn a_file_that_was_written_a_moment_ago_is_read_again_next_time() {
    let data = Dataset::new(&[("file", b"one")]);
    assert_eq!(data.scan_at_once().hashed_bytes, 3);
    let second = data.scan_at_once();
    assert_eq!((second.hashed_bytes, second.cached_files), (3, 0));
    assert_eq!(data.scan_later().hashed_bytes, 3, "now it has settled");
    assert_eq!(data.scan_later().cached_files, 1);
}

#[cfg(unix)]
#[test]
fn a_file_in_a_directory_that_was_moved_is_known_again() {
    let data = Dataset::new(&[("a/one", b"1"), ("a/two", b"22")]);
    data.scan_later();
    fs::rename(data.at("a"), data.at("b")).unwrap();
    let moved = data.scan_later();
    assert_eq!((moved.hashed_bytes, moved.cached_files), (0, 2));
    assert_eq!(digest_of(&moved, "b/two"), Some(Digest::blake3(b"22")));
}

#[cfg(unix)]
#[test]
fn a_time_put_back_does_not_hide_a_change() {
    use std::os::unix::fs::MetadataExt;

    let data = Dataset::new(&[("file", b"one")]);
    data.scan_later();
    let file = data.at("file");
    let changed = || fs::metadata(&file).map(|stat| (stat.ctime(), stat.ctime_nsec())).unwrap();
    let (before, modified) = (changed(), fs::metadata(&file).unwrap().modified().unwrap());
    // Until the clock that stamps files has ticked.
    while changed() == before {
        data.write("file", b"two");
        let times = fs::FileTimes::new().set_modified(modified);
        fs::File::options().write(true).open(&file).unwrap().set_times(times).unwrap();
    }
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), modified);
    assert_eq!(digest_of(&data.scan_later(), "file"), Some(Digest::blake3(b"two")));
}

#[test]
fn changes_after_the_scan_are_not_taken_for_scanned() {
    for scan in [Dataset::scan_at_once, Dataset::scan_later] {
        let data = Dataset::new(&[("d/a", b"1"), ("d/b", b"2"), ("d/c", b"3")]);
        let seen = scan(&data).seen;
        let is_unchanged = |at: &str| seen.is_unchanged(&data.root(), &path(at)).unwrap();
        for at in ["d", "d/a", "d/b", "d/c", "d/new", "not/there"] {
            assert!(is_unchanged(at), "{at}");
        }
        data.write("d/a", b"other");
        fs::remove_file(data.at("d/b")).unwrap();
        fs::rename(data.at("d/c"), data.at("d/new")).unwrap();
        for at in ["d/a", "d/b", "d/c", "d/new"] {
            assert!(!is_unchanged(at), "{at}");
        }
        assert!(is_unchanged("d"), "names in it are no matter");
        fs::remove_dir_all(data.at("d")).unwrap();
        assert!(!is_unchanged("d"));
    }
}

#[test]
fn what_cannot_be_looked_at_is_neither_changed_nor_unchanged() {
    let data = Dataset::new(&[]);
    // Longer than any name may be.
    let seen = SeenFiles { dataset: vec![b'd'; 300], ..SeenFiles::default() };
    let unknown = seen.is_unchanged(&data.root(), &path("file")).unwrap_err();
    assert!(matches!(&unknown, SourceError::Unreadable { .. }), "{unknown}");
}

#[test]
fn a_rewrite_that_leaves_no_trace_is_seen_by_reading() {
    let data = Dataset::new(&[("file", b"one")]);
    let mut seen = Arc::unwrap_or_clone(data.scan_at_once().seen);
    assert!(seen.is_unchanged(&data.root(), &path("file")).unwrap());
    // As if the file had been written again within the tick: the same state, another content.
    let Some(Seen::File { racy, .. }) = seen.nodes.get_mut(&path("file")) else { panic!("not seen") };
    assert_eq!(racy.replace(Digest::blake3(b"two")), Some(Digest::blake3(b"one")));
    assert!(!seen.is_unchanged(&data.root(), &path("file")).unwrap());
}

#[test]
fn a_scan_that_is_stopped_says_so() {
    let data = Dataset::new(&[("a", b"1")]);
    let mut cache = StatCache::load(&data.dir.path().join("cache"));
    let hashed_bytes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&hashed_bytes);
    let go_on = move |len_bytes| {
        counted.fetch_add(len_bytes, Ordering::Relaxed);
        false
    };
    let options = ScanOptions { go_on: Arc::new(go_on), ..ScanOptions::default() };
    assert!(matches!(scan(&data.root(), b"", &mut cache, &options), Err(ScanError::Cancelled)));
    assert!(matches!(options.hashed(3), Err(ScanError::Cancelled)));
    assert_eq!(hashed_bytes.load(Ordering::Relaxed), 3);
}

#[test]
fn more_than_may_be_sent_is_refused() {
    let data = Dataset::new(&[("a", b""), ("b", b"")]);
    let mut cache = StatCache::load(&data.dir.path().join("cache"));
    let at_most = |max_entries| ScanOptions { max_entries, ..ScanOptions::default() };
    assert!(scan(&data.root(), b"", &mut cache, &at_most(2)).is_ok());
    let outcome = scan(&data.root(), b"", &mut cache, &at_most(1));
    assert!(matches!(outcome, Err(ScanError::TooManyEntries { max_entries: 1 })));
}

#[cfg(unix)]
#[test]
fn what_cannot_be_synced_is_unknown_and_has_a_reason() {
    use std::os::unix::fs::symlink;

    let data = Dataset::new(&[("in/file", b"1"), ("in/.shiplane-0123456789abcdef.journal", b"j")]);
    symlink("file", data.at("in/link")).unwrap();
    symlink("/etc", data.at("etc")).unwrap();
    std::os::unix::net::UnixListener::bind(data.at("in/socket")).unwrap();
    data.write("in/line\nfeed", b"");
    let scanned = data.scan_later();
    let special = (path("in/socket"), LeftOutReason::SpecialFile);
    assert_eq!(scanned.unknown, BTreeMap::from([special.clone()]));
    assert_eq!(scanned.unsendable, []);
    let found: Vec<_> = scanned.manifest.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(found, ["etc", "in", "in/file", r"in/line\x0afeed", "in/link"]);
    let is_unchanged =
        |scanned: &Scanned, at: &str| scanned.seen.is_unchanged(&data.root(), &path(at)).unwrap();
    assert!(is_unchanged(&scanned, "in/link"));
    assert!(!is_unchanged(&scanned, "in/socket"), "it was not seen, and is there");

    let options = ScanOptions { links: LinkPolicy::Inside, ..ScanOptions::default() };
    let inside = scan(&data.root(), b"", &mut StatCache::load(&data.at("cache")), &options).unwrap();
    let unknown = [(path("etc"), LeftOutReason::LinkLeadsOut), special];
    assert_eq!(inside.unknown, BTreeMap::from(unknown));
    fs::remove_file(data.at("in/link")).unwrap();
    symlink("other", data.at("in/link")).unwrap();
    assert!(!is_unchanged(&scanned, "in/link"));
}

#[cfg(unix)]
#[test]
fn a_part_of_what_is_served_is_a_dataset_and_a_link_to_one_is_not() {
    let data = Dataset::new(&[("deep/part/a", b"1"), ("b", b"2")]);
    std::os::unix::fs::symlink("deep/part", data.at("link")).unwrap();
    let mut cache = StatCache::load(&data.dir.path().join("cache"));
    let mut scan_of = |path: &[u8]| scan(&data.root(), path, &mut cache, &ScanOptions::default());
    let part = scan_of(b"deep/part").unwrap();
    assert_eq!((part.manifest.len(), digest_of(&part, "a")), (1, Some(Digest::blake3(b"1"))));
    assert!(part.seen.is_unchanged(&data.root(), &path("a")).unwrap());
    assert!(part.seen.is_unchanged(&data.root(), &path("b")).unwrap(), "that b is another");
    data.write("deep/part/a", b"other");
    assert!(!part.seen.is_unchanged(&data.root(), &path("a")).unwrap());

    assert!(matches!(scan_of(b"b"), Err(ScanError::NotDirectory { .. })));
    assert!(matches!(scan_of(b"link"), Err(ScanError::Source(SourceError::LeavesServedRoot { .. }))));
    assert!(matches!(scan_of(b"none"), Err(ScanError::Source(SourceError::NotFound { .. }))));
    assert!(matches!(scan_of(b"../x"), Err(ScanError::Source(SourceError::PathRefused { .. }))));
}

#[cfg(unix)]
#[test]
fn a_file_is_not_taken_for_changed_because_another_of_its_names_went_away() {
    let data = Dataset::new(&[("a", b"1")]);
    for name in ["b", "c"] {
        fs::hard_link(data.at("a"), data.at(name)).unwrap();
    }
    for scanned in [data.scan_later(), data.scan_later()] {
        let is_unchanged = |at: &str| scanned.seen.is_unchanged(&data.root(), &path(at)).unwrap();
        fs::remove_file(data.at("b")).unwrap();
        assert!(is_unchanged("a") && is_unchanged("c") && !is_unchanged("b"));
        fs::hard_link(data.at("a"), data.at("b")).unwrap();
        assert!(is_unchanged("a") && is_unchanged("b"));
    }
    let scanned = data.scan_later();
    data.write("a", b"2");
    assert!(!scanned.seen.is_unchanged(&data.root(), &path("c")).unwrap());
}

/// Changes something, and says where, as a watch does.
fn change_something(data: &Dataset, rng: &mut Rng, links: bool) -> Vec<(String, bool)> {
    let names = ["a", "b", "c", "a-b", "d.log", ".gitignore"];
    let depth = rng.between(1, 4) as usize;
    let mut any = || {
        let path: Vec<_> = (0..depth).map(|_| names[rng.between(0, names.len() as u64) as usize]).collect();
        path.join("/")
    };
    let (one, other) = (any(), any());
    let at = data.at(&one);
    let parents: Vec<_> = one.match_indices('/').map(|(end, _)| (one[..end].to_owned(), true)).collect();
    let is_new_parent = |path: &str| !data.at(path).exists();
    let mut changed: Vec<_> = parents.into_iter().filter(|(path, _)| is_new_parent(path)).collect();
    let _ = fs::create_dir_all(at.parent().unwrap());
    let is_new = fs::symlink_metadata(&at).is_err();
    match rng.between(0, 8) {
        0 => _ = fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at)),
        1 => _ = fs::create_dir(&at),
        2 | 3 if fs::rename(&at, data.at(&other)).is_ok() => changed.push((other.clone(), true)),
        4 => _ = std::os::unix::fs::symlink("no/where", &at),
        5 => {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = [0o755, 0o700, 0o500][rng.between(0, 3) as usize];
            let _ = fs::metadata(&at).map(|_| fs::set_permissions(&at, fs::Permissions::from_mode(mode)));
            changed.push((one.clone(), false));
        }
        // If the new name is removed at once, nothing tells that the file has had it: a round finds that out, and is
        // followed by a full one.
        6 if links && fs::hard_link(&at, data.at(&other)).is_ok() => {
            changed.extend([(other.clone(), true), (one.clone(), false)]);
        }
        7 if is_new => drop(std::os::unix::net::UnixListener::bind(&at)),
        _ => {
            let text = ["", "*.log\n", "a\n!c\n", "/b\n"][rng.between(0, 4) as usize];
            _ = fs::write(&at, text);
            changed.push((one.clone(), is_new));
        }
    }
    let is_left = fs::symlink_metadata(&at).is_ok();
    if is_new || !is_left {
        changed.push((one, true));
    }
    let governed = changed.iter().filter(|(path, _)| path.ends_with(".gitignore"));
    let governed: Vec<_> =
        governed.map(|(path, _)| path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned()).collect();
    changed.extend(governed.into_iter().map(|path| (path, true)));
    changed
}

/// All that is known of a dataset, and the digests that are kept.
fn everything(scanned: &Scanned, cache: &StatCache) -> String {
    let nodes: BTreeMap<_, _> = scanned.seen.nodes.iter().collect();
    let Scanned { manifest, unsendable, unknown, excluded, own, stripped, .. } = scanned;
    format!(
        "{:#?}{manifest:#?}{unsendable:?}{unknown:?}{excluded:?}{own:?}{stripped:?}{:?}",
        nodes,
        cache.sorted()
    )
}

#[test]
fn a_listing_of_what_has_changed_is_that_of_a_whole_scan() {
    let later: fn() -> SystemTime = || SystemTime::now() + Duration::from_secs(10);
    // By this clock every file was just written, however slow the machine is.
    let earlier: fn() -> SystemTime = || SystemTime::UNIX_EPOCH;
    let mut partial = 0;
    for seed in 0..80 {
        let mut rng = Rng::new(seed);
        let data = Dataset::new(&[("a/b/c", b"1"), ("b/c", b"2"), ("c/d.log", b"3")]);
        let rules = FilterRules { ignore_files: seed % 2 == 0, ..FilterRules::default() };
        let filters = Arc::new(Filters::new(rules).unwrap());
        let options = ScanOptions { filters, ..ScanOptions::default() };
        // Digests of files that were just written are not kept, or are.
        let now = if seed % 3 == 0 { earlier } else { later };
        let [mut cache, mut whole_cache] = [(); 2].map(|()| StatCache::load(&data.dir.path().join("none")));
        let mut listed = scan_by(&data.root(), b"", &mut cache, &options, now).unwrap();
        scan_by(&data.root(), b"", &mut whole_cache, &options, now).unwrap();
        for round in 0..12 {
            let count = rng.between(1, 5);
            let changed = (0..count).flat_map(|_| change_something(&data, &mut rng, seed % 2 > 0));
            let mut paths = ChangedPaths::new();
            changed.for_each(|(path, is_deep)| *paths.entry(path.into_bytes()).or_default() |= is_deep);
            let again =
                rescan(&data.root(), &mut cache, &options, listed.clone(), paths.clone(), now).unwrap();
            let whole = scan_by(&data.root(), b"", &mut whole_cache, &options, now).unwrap();
            partial += usize::from(again.is_some());
            listed = match again {
                Some(again) => again,
                None => scan_by(&data.root(), b"", &mut cache, &options, now).unwrap(),
            };
            let (found, expected) = (everything(&listed, &cache), everything(&whole, &whole_cache));
            let other = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
            let other =
                other.map(|at| [&found, &expected].map(|text| text.lines().nth(at).unwrap_or_default()));
            let paths =
                paths.iter().map(|(path, is_deep)| (shiplane_wire::escape(path).to_string(), is_deep));
            let paths: Vec<_> = paths.collect();
            assert!(found == expected, "seed {seed}, round {round}, {paths:?}: {other:#?}");
        }
    }
    assert!(partial > 200, "most rounds look at what has changed alone: {partial}");
}
