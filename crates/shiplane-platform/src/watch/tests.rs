//! Changes are noticed wherever they happen, and limits are named.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use notify::event::Flag;
use tempfile::TempDir;

use super::*;

/// A watched tree, and the notices of it.
struct Watched {
    tree: TempDir,
    watch: TreeWatch,
    notices: mpsc::Receiver<()>,
    /// While this is set, nothing is seen: events are lost.
    is_blind: Arc<AtomicBool>,
}

fn watched(admit: impl FnMut(u64) -> bool + Send + 'static) -> Watched {
    let tree = TempDir::new().unwrap();
    fs::create_dir_all(tree.path().join("a/b/c")).unwrap();
    fs::create_dir_all(tree.path().join("skipped/deep")).unwrap();
    let is_blind = Arc::new(AtomicBool::new(false));
    let blind = Arc::clone(&is_blind);
    let (notice, notices) = mpsc::channel();
    let rules = WatchRules {
        excludes: Box::new(move |path, _| {
            path.starts_with(b"skipped") || path.ends_with(b".own") || blind.load(Ordering::SeqCst)
        }),
        governs: Box::new(|path| path.ends_with(b"rules")),
        admit: Box::new(admit),
        on_change: Box::new(move || notice.send(()).unwrap_or_default()),
    };
    let watch = TreeWatch::start(tree.path(), b"", rules);
    Watched { tree, watch, notices, is_blind }
}

impl Watched {
    /// Waits for a notice, and until no more come.
    fn noticed(&self) {
        self.notices.recv_timeout(HANG).expect("a notice");
        while self.notices.recv_timeout(QUIET).is_ok() {}
    }
}

/// A guard against hanging.
const HANG: Duration = Duration::from_secs(60);

/// Late events arrive within this time. One that does not is taken for an event of a later step.
const QUIET: Duration = Duration::from_millis(300);

#[test]
fn everything_that_happens_to_a_file_is_noticed_in_old_directories_and_new_ones() {
    let watched = watched(|_| true);
    let at = |name: &str| watched.tree.path().join(name);
    fs::write(at("a/b/c/file"), "1").unwrap();
    watched.noticed();
    fs::write(at("a/b/c/file"), "2").unwrap();
    watched.noticed();
    fs::rename(at("a/b/c/file"), at("file")).unwrap();
    watched.noticed();
    fs::File::options().write(true).open(at("file")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    watched.noticed();
    fs::remove_file(at("file")).unwrap();
    watched.noticed();
    // A new directory with directories in it, made at once and moved here.
    fs::create_dir_all(at("new/x/y")).unwrap();
    watched.noticed();
    fs::write(at("new/x/y/file"), "1").unwrap();
    watched.noticed();
    fs::rename(at("a"), at("new/x/moved")).unwrap();
    watched.noticed();
    fs::write(at("new/x/moved/b/c/file"), "1").unwrap();
    watched.noticed();
    // The same name again.
    fs::remove_dir_all(at("new")).unwrap();
    watched.noticed();
    fs::create_dir_all(at("new/x")).unwrap();
    watched.noticed();
    fs::write(at("new/x/file"), "1").unwrap();
    watched.noticed();
    assert_eq!(watched.watch.unwatched(), None);
}

impl Watched {
    /// What has changed, as soon as one of it is `path`.
    fn changes_with(&self, path: &str) -> Option<ChangedPaths> {
        let mut changes = ChangedPaths::new();
        while !changes.contains_key(path.as_bytes()) {
            changes.extend(self.watch.take_changes()?);
            if !changes.contains_key(path.as_bytes()) {
                self.notices.recv_timeout(HANG).expect("a notice");
            }
        }
        Some(changes)
    }
}

#[test]
fn the_paths_of_what_has_changed_are_kept_until_they_are_taken() {
    let watched = watched(|_| true);
    let at = |name: &str| watched.tree.path().join(name);
    let is = |changes: Option<ChangedPaths>, path: &str| changes.unwrap()[path.as_bytes()];
    assert_eq!(watched.watch.take_changes(), Some(ChangedPaths::new()));
    fs::write(at("a/file"), "1").unwrap();
    assert!(is(watched.changes_with("a/file"), "a/file"), "what is new may be a directory");
    watched.noticed();
    watched.watch.take_changes();
    fs::write(at("a/file"), "2").unwrap();
    assert!(!is(watched.changes_with("a/file"), "a/file"), "what is changed is not");
    // With what is in a directory that was made or moved, all beneath it.
    fs::create_dir_all(at("new/x")).unwrap();
    assert!(is(watched.changes_with("new"), "new"));
    watched.noticed();
    fs::rename(at("new"), at("a/b/moved")).unwrap();
    let moved = watched.changes_with("a/b/moved").unwrap();
    assert!(moved[&b"a/b/moved"[..]] && moved[&b"new"[..]], "{moved:?}");
    watched.noticed();
    fs::write(at("a/b/moved/x/file"), "1").unwrap();
    assert!(is(watched.changes_with("a/b/moved/x/file"), "a/b/moved/x/file"));
    // Its mode alone is no change of what is in it.
    watched.noticed();
    watched.watch.take_changes();
    fs::File::open(at("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(!is(watched.changes_with("a"), "a"));
    // What decides about others is a change of those.
    fs::write(at("a/b/rules"), "1").unwrap();
    assert!(is(watched.changes_with("a/b"), "a/b"));
}

#[test]
fn moved_directories_are_known_by_their_names_after_events_were_lost() {
    let watched = watched(|_| true);
    let at = |name: &str| watched.tree.path().join(name);
    let overflow = || {
        watched.watch.shared.take(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert_eq!(watched.watch.take_changes(), None, "anything may have changed");
        watched.noticed();
        watched.watch.take_changes();
    };
    for (from, to) in [("a", "x"), ("x", "a")] {
        // As if nothing had been told of it.
        watched.is_blind.store(true, Ordering::SeqCst);
        fs::rename(at(from), at(to)).unwrap();
        assert!(watched.notices.recv_timeout(QUIET).is_err());
        watched.is_blind.store(false, Ordering::SeqCst);
        overflow();
        let file = format!("{to}/b/file");
        fs::write(at(&file), "1").unwrap();
        assert!(watched.changes_with(&file).is_some());
        watched.noticed();
    }
}

#[test]
fn more_paths_than_are_kept_are_everything() {
    let watched = watched(|_| true);
    let at = |name: String| watched.tree.path().join(name);
    let event = |name| Event::new(EventKind::Modify(ModifyKind::Any)).add_path(at(name));
    for name in 0..=MAX_CHANGED {
        let mut state = watched.watch.shared.lock();
        watched.watch.shared.is_change(&mut state, &event(name.to_string()));
        watched.watch.shared.is_change(&mut state, &event(name.to_string()));
    }
    assert_eq!(watched.watch.take_changes(), None);
    for _ in 0..=MAX_CHANGED_LEN_BYTES / 200 {
        let mut state = watched.watch.shared.lock();
        watched.watch.shared.is_change(&mut state, &event("x".repeat(200)));
    }
    assert_eq!(watched.watch.take_changes().unwrap().len(), 1, "the same path counts once");
}

#[test]
fn what_is_excluded_and_what_is_only_read_gives_no_notice() {
    let watched = watched(|_| true);
    let at = |name: &str| watched.tree.path().join(name);
    fs::write(at("a/file"), "1").unwrap();
    watched.noticed();
    fs::write(at("skipped/file"), "1").unwrap();
    fs::write(at("skipped/deep/file"), "1").unwrap();
    fs::write(at("a/temp.own"), "1").unwrap();
    fs::remove_file(at("a/temp.own")).unwrap();
    assert_eq!(fs::read(at("a/file")).unwrap(), b"1");
    assert_eq!(fs::read_dir(at("a")).unwrap().count(), 2);
    assert!(watched.notices.recv_timeout(QUIET).is_err());
    fs::write(at("a/file"), "2").unwrap();
    watched.noticed();
}

#[test]
fn after_an_overflow_of_the_queue_everything_is_watched_anew() {
    let watched = watched(|_| true);
    let at = |name: &str| watched.tree.path().join(name);
    watched.is_blind.store(true, Ordering::SeqCst);
    fs::create_dir(at("lost")).unwrap();
    assert!(watched.notices.recv_timeout(QUIET).is_err());
    watched.is_blind.store(false, Ordering::SeqCst);
    watched.watch.shared.take(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
    watched.noticed();
    fs::write(at("lost/file"), "1").unwrap();
    watched.noticed();
}

#[test]
fn more_directories_than_are_counted_one_by_one_are_found_by_another_walk() {
    let watched = watched(|_| true);
    let at = |name: &str| watched.tree.path().join(name);
    let event = |name: String| Event::new(EventKind::Create(CreateKind::Folder)).add_path(at(&name));
    {
        // While it is locked, the thread that watches new directories takes none of them.
        let mut state = watched.watch.shared.lock();
        for name in 0..=MAX_APPEARED {
            watched.watch.shared.is_change(&mut state, &event(name.to_string()));
        }
        assert!(state.all_anew && state.appeared.is_empty(), "they do not pile up");
    }
}

#[test]
fn without_memory_it_says_so_and_what_is_watched_stays_so() {
    let watched = watched(|bytes| bytes < 900);
    let unwatched = watched.watch.unwatched().unwrap();
    assert_eq!((unwatched.limit, unwatched.limit.setting()), (WatchLimit::Memory, None));
    fs::write(watched.tree.path().join("file"), "1").unwrap();
    watched.noticed();
}

#[test]
fn the_limit_of_watches_is_named_by_its_setting() {
    let error = notify::Error::new(ErrorKind::MaxFilesWatch);
    let limit = limit_of(&error);
    assert!(matches!(limit, WatchLimit::Watches | WatchLimit::NamespaceWatches));
    let reached = limit.reached();
    if cfg!(target_os = "linux") {
        assert!(reached.value > 0, "{reached:?}");
    }
    assert_eq!(limit_of(&notify::Error::io(io::Error::from_raw_os_error(24))), WatchLimit::Instances);
}

#[test]
fn the_end_of_the_top_directory_is_noticed() {
    let watched = watched(|_| true);
    let elsewhere = TempDir::new().unwrap();
    fs::rename(watched.tree.path(), elsewhere.path().join("moved")).unwrap();
    watched.noticed();
    fs::create_dir(watched.tree.path()).unwrap();
}
