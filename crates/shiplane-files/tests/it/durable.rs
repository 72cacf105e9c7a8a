//! What is reported as received survives a power cut from then on.

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use shiplane_files::internals::{DestinationError, FileEvent, Policy, disk::Change};
use shiplane_wire::RelPath;
use tempfile::TempDir;

use super::tree::{Transfer, Tree, assert_equal, noise, open_with, overwriting};
use crate::broken_disk::BrokenDisk;

/// Remembers how much had been done on the disk when each file was reported.
struct Reported {
    disk: BrokenDisk,
    files: Mutex<Vec<(RelPath, usize)>>,
}

impl Policy for Reported {
    fn on_file(&self, path: &RelPath, _len_bytes: u64, event: FileEvent) -> Result<(), DestinationError> {
        if matches!(event, FileEvent::Published) {
            self.files.lock().unwrap().push((path.clone(), self.disk.calls().len()));
        }
        Ok(())
    }
}

/// A power cut between the link and the sync of its directory took a name that was reported already.
#[test]
fn each_name_of_a_file_is_reported_once_it_is_durable() {
    let temp = TempDir::new().unwrap();
    let content = noise(1, 2500);
    let tree = Tree::default().dir("d").file("d/a", &content).set(|entry| entry.first = Some(1));
    let tree = tree.dir("e").file("e/b", &content).set(|entry| entry.first = Some(1));
    let dest = open_with(&temp.path().join("made"), overwriting());
    let disk = BrokenDisk::below(temp.path(), |_, _| false);
    let reported = Arc::new(Reported { disk, files: Mutex::default() });
    let dest = dest.with_policy(Arc::clone(&reported) as Arc<dyn Policy>);
    Transfer::plan(dest, &tree).unwrap().complete().unwrap();
    assert_equal(&temp.path().join("made"), &tree);

    let calls = reported.disk.calls();
    let files = reported.files.lock().unwrap().clone();
    let paths: Vec<_> = files.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(paths, ["d/a", "e/b"]);
    for (path, at) in files {
        for above in std::iter::successors(path.parent(), RelPath::parent) {
            let directory = Path::new("made").join(&*String::from_utf8_lossy(above.as_bytes()));
            let is_named = |call: &(&str, _)| *call == ("name", directory.clone());
            let is_synced = |call: &(&str, _)| call.0 == "sync all" || *call == ("sync", directory.clone());
            let named = calls[..at].iter().rposition(is_named).unwrap();
            assert!(calls[named..at].iter().any(is_synced), "{path}, {directory:?}: {:?}", &calls[..at]);
        }
        // And so is the name of the destination directory.
        assert!(calls[..at].contains(&("sync", "".into())), "{path}: {:?}", &calls[..at]);
    }
}

#[test]
fn a_file_whose_name_another_thread_failed_to_make_durable_is_not_reported() {
    let temp = TempDir::new().unwrap();
    let tree = Tree::default().dir("d").file("d/a", noise(1, 500));
    let mut transfer = Transfer::plan(open_with(temp.path(), overwriting()), &tree).unwrap();
    transfer.deliver(0).unwrap();
    let directory = temp.path().canonicalize().unwrap().join("d");
    let (has_renamed, renamed) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let publishing = Mutex::new(Some((has_renamed, waits)));
    let disk = BrokenDisk::below(temp.path(), move |change, at| {
        // The journal says that the file has its name, which is not durable yet.
        let is_noted = matches!(change, Change::Write { .. }) && directory.join("a").exists();
        if is_noted && let Some((has_renamed, waits)) = publishing.lock().unwrap().take() {
            has_renamed.send(()).unwrap();
            waits.recv().unwrap();
        }
        change == Change::Sync && at == directory
    });
    let disk = disk.with_errno(5);
    let dest = transfer.dest.clone();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            BrokenDisk::watch_thread();
            transfer.publish()
        });
        renamed.recv().unwrap();
        let error = dest.finish().unwrap_err();
        assert!(matches!(error, DestinationError::Io { .. }), "{error}");
        go_on.send(()).unwrap();
        let error = publisher.join().unwrap().unwrap_err();
        assert!(matches!(error, DestinationError::Poisoned { .. }), "{error}");
    });
    drop(disk);
}
