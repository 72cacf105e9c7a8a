//! Disks that fail in the middle of a sync: what could not be done is left alone, in the system's words.

use std::{
    fs,
    io::{self, ErrorKind},
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use shiplane_protocols::{
    disk::{self, Change, Disk},
    files::DestinationError,
    sync::{LeftWhy, Side, SyncEvent, synchronise},
};

use super::{admitted, job, sync, write, written_at};
use crate::harness::{World, noise};

/// No new name comes into these directories.
static READ_ONLY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

struct ReadOnly;

impl Disk for ReadOnly {
    fn before(&self, change: Change<'_>, at: BorrowedFd<'_>) -> io::Result<()> {
        let read_only = READ_ONLY.lock().unwrap();
        if change != Change::Name || read_only.is_empty() {
            return Ok(());
        }
        let at = fs::read_link(format!("/proc/self/fd/{}", at.as_raw_fd()))?;
        if read_only.contains(&at) { Err(ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn synced(&self, _: Change<'_>, _: BorrowedFd<'_>) {}
}

/// Until it is dropped.
struct MadeReadOnly(PathBuf);

impl MadeReadOnly {
    fn new(directory: &Path) -> Self {
        disk::simulate(&ReadOnly);
        let directory = directory.canonicalize().unwrap();
        READ_ONLY.lock().unwrap().push(directory.clone());
        Self(directory)
    }
}

impl Drop for MadeReadOnly {
    fn drop(&mut self) {
        READ_ONLY.lock().unwrap().retain(|directory| *directory != self.0);
    }
}

#[tokio::test]
async fn a_version_that_cannot_be_kept_aside_is_left_with_what_the_system_says() {
    let world = World::syncing();
    write(&world.dest(), "d/a", &noise(1, 3000));
    let client = admitted(&world).await;
    sync(&world, &client).await;
    write(&world.dest(), "d/a", b"ours");
    written_at(world.dest().join("d/a"), 1_000_000_000);
    write(&world.source(), "d/a", b"theirs");

    let (made, directory) = (Arc::new(Mutex::new(None)), world.dest().join("d"));
    let events = {
        let made = Arc::clone(&made);
        Arc::new(move |event| {
            if let SyncEvent::Planned(_) = event {
                *made.lock().unwrap() = Some(MadeReadOnly::new(&directory));
            }
        })
    };
    let report = synchronise(&client, &job(&world), events).await.unwrap();
    let ours: Vec<_> = report.left.iter().filter(|left| left.side == Side::Local).collect();
    assert_eq!(ours.len(), 2, "what loses its name, and the name that it should get: {ours:?}");
    for left in ours {
        let LeftWhy::Failed(error) = &left.why else { panic!("{left:?}") };
        let DestinationError::PermissionDenied { source, .. } = &**error else { panic!("{error}") };
        assert_eq!(source.kind(), ErrorKind::ReadOnlyFilesystem);
    }
    assert_eq!(fs::read(world.dest().join("d/a")).unwrap(), b"ours");

    made.lock().unwrap().take();
    sync(&world, &client).await;
    assert_eq!(fs::read_dir(world.dest().join("d")).unwrap().count(), 2, "both versions");
}
