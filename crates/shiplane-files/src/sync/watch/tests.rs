//! What is watched is listed as it is, at the cost of what has changed.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use testlink::Rng;

use super::*;
use crate::filters::FilterRules;

struct Watched {
    dir: TempDir,
    relisting: Relisting,
    notices: mpsc::Receiver<()>,
    options: ScanOptions,
    /// How many entries were looked at.
    looks: Arc<AtomicUsize>,
    cache: StatCache,
}

/// Counts nothing, and has as much as is said.
#[derive(Debug)]
struct Memory(u64);

impl CountedMemory for Memory {
    fn resize(&mut self, len_bytes: u64) -> bool {
        len_bytes <= self.0
    }
}

fn watched(ignore_files: bool, memory: Memory) -> Watched {
    let dir = TempDir::new().unwrap();
    for at in 0..100 {
        fs::create_dir_all(dir.path().join(format!("data/{}/{at}", at % 10))).unwrap();
    }
    let filters = FilterRules { ignore_files, patterns: vec!["skipped".into()], ..FilterRules::default() };
    let filters = Arc::new(Filters::new(filters).unwrap());
    let root = SourceRoot::open(&dir.path().join("data")).unwrap();
    let (notice, notices) = mpsc::channel();
    let on_change = move || notice.send(()).unwrap_or_default();
    let watch = watch(&root, b"", Arc::clone(&filters), Box::new(memory), on_change).unwrap();
    let relisting = Relisting { watch: watch.into(), is_full: false };
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let go_on = Arc::new(move |_| counted.fetch_add(1, Ordering::Relaxed) < usize::MAX);
    let options = ScanOptions { filters, go_on, ..ScanOptions::default() };
    let cache = StatCache::load(&dir.path().join("cache"));
    Watched { dir, relisting, notices, options, looks, cache }
}

impl Watched {
    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("data").join(path)
    }

    fn root(&self) -> SourceRoot {
        SourceRoot::open(&self.at("")).unwrap()
    }

    /// The listing, and how many entries were looked at for it.
    fn list(&mut self) -> (Scanned, usize) {
        let before = self.looks.load(Ordering::Relaxed);
        let scanned = self.relisting.list(&self.root(), &mut self.cache, &self.options).unwrap();
        (scanned, self.looks.load(Ordering::Relaxed) - before)
    }

    /// Lists it after each notice until that is how it is; gives the fewest entries that were looked at.
    fn lists_what_is_here(&mut self) -> usize {
        let mut fewest = usize::MAX;
        loop {
            let (found, looks) = self.list();
            fewest = fewest.min(looks);
            let mut cache = StatCache::load(&self.dir.path().join("other"));
            let whole = scan(&self.root(), b"", &mut cache, &self.options).unwrap();
            let is_it = found.manifest == whole.manifest
                && (&found.unknown, &found.excluded) == (&whole.unknown, &whole.excluded);
            if is_it {
                return fewest;
            }
            self.notices.recv_timeout(HANG).expect("a notice of what is listed otherwise");
        }
    }
}

/// The directories, and the top.
const ALL: usize = 111;

/// A guard against hanging.
const HANG: Duration = Duration::from_secs(60);

#[test]
fn only_what_has_changed_is_looked_at() {
    let mut watched = watched(false, Memory(u64::MAX));
    assert_eq!(watched.list().1, ALL, "at first everything");
    assert_eq!(watched.list().1, 1, "then the top alone");
    fs::write(watched.at("3/43/file"), "1").unwrap();
    watched.notices.recv_timeout(HANG).unwrap();
    let looks = watched.lists_what_is_here();
    assert_eq!(looks, 5, "the file, which is also read, and the directories that it is in");
    // All the same, if that is said.
    watched.relisting.is_full = true;
    assert_eq!(watched.list().1, ALL + 2, "and the file, which is read again");
    watched.relisting.is_full = false;
    watched.options.from_disk = true;
    assert_eq!(watched.list().1, ALL + 2, "what a failed sync may have lost is everywhere");
}

#[test]
fn without_memory_or_with_other_filters_everything_is_looked_at() {
    let mut poor = watched(false, Memory(60_000));
    assert_eq!(poor.relisting.watch.unwatched(), None);
    assert_eq!([poor.list().1, poor.list().1], [ALL, ALL]);
    let mut watched = watched(false, Memory(u64::MAX));
    watched.options.filters = Arc::default();
    assert_eq!([watched.list().1, watched.list().1], [ALL, ALL]);
}

#[test]
fn another_directory_in_the_place_of_the_watched_one_is_listed_as_a_whole() {
    let mut watched = watched(false, Memory(u64::MAX));
    assert_eq!(watched.list().1, ALL);
    fs::rename(watched.at(""), watched.dir.path().join("moved")).unwrap();
    fs::create_dir_all(watched.at("other/below")).unwrap();
    for name in ["other/1", "other/below/2"] {
        fs::write(watched.at(name), name).unwrap();
        watched.lists_what_is_here();
    }
}

#[test]
fn what_is_excluded_gives_no_notice_until_it_is_excluded_no_more() {
    let mut watched = watched(true, Memory(u64::MAX));
    fs::write(watched.at("1/.gitignore"), "*.log\n/11/\n").unwrap();
    watched.lists_what_is_here();
    let quiet = Duration::from_millis(300);
    while watched.notices.recv_timeout(quiet).is_ok() {}
    fs::write(watched.at("1/31/new.log"), "1").unwrap();
    fs::write(watched.at("1/11/file"), "1").unwrap();
    fs::create_dir(watched.at("skipped")).unwrap();
    fs::write(watched.at("skipped/file"), "1").unwrap();
    assert!(watched.notices.recv_timeout(quiet).is_err(), "none of that is part of it");
    // Events of the ignore file may have come after the last listing.
    let looks = watched.list().1;
    assert!(looks < ALL / 4, "only the directory of the ignore file is looked at: {looks}");
    fs::remove_file(watched.at("1/.gitignore")).unwrap();
    watched.notices.recv_timeout(HANG).unwrap();
    watched.lists_what_is_here();
    // What was excluded is watched now.
    while watched.notices.recv_timeout(quiet).is_ok() {}
    fs::write(watched.at("1/11/file"), "22").unwrap();
    watched.notices.recv_timeout(HANG).unwrap();
    watched.lists_what_is_here();
}

#[test]
fn whatever_happens_it_is_listed_as_it_is() {
    let mut watched = watched(true, Memory(u64::MAX));
    watched.list();
    let mut rng = Rng::new(7);
    for _ in 0..60 {
        for _ in 0..rng.between(1, 6) {
            let mut any = || {
                let (one, two) = (rng.between(0, 10), rng.between(0, 100));
                [format!("{one}"), format!("{one}/{two}"), format!("{one}/{two}/file")]
                    [rng.between(0, 3) as usize]
                    .clone()
            };
            let (one, other) = (watched.at(&any()), watched.at(&any()));
            match rng.between(0, 6) {
                0 => _ = fs::remove_dir_all(&one).or_else(|_| fs::remove_file(&one)),
                1 => _ = fs::rename(&one, &other),
                2 => _ = fs::create_dir_all(&one),
                3 => {
                    _ = fs::write(
                        one.with_file_name(".gitignore"),
                        if rng.between(0, 2) == 0 { "file" } else { "" },
                    )
                }
                4 => _ = fs::hard_link(&one, &other),
                _ => _ = fs::write(&one, other.as_os_str().as_encoded_bytes()),
            }
        }
        watched.lists_what_is_here();
    }
    assert_eq!(watched.relisting.watch.unwatched(), None);
}
