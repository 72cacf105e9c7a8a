//! Paths that the receiving side cannot write are left out and named; everything else arrives.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use shiplane_files::internals::disk::Change;
use shiplane_protocols::internals::{
    WriteLimits,
    transfer::{EventFn, TransferEvent},
};
use shiplane_wire::LeftOutReason;

use crate::{
    broken_disk::BrokenDisk,
    harness::{World, noise, on_broken_disks, tree},
    push,
};

/// What is left out: the path, the reason, and whether the provider says so.
type LeftOut = (String, LeftOutReason, bool);

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<LeftOut>>>, Arc<Mutex<Vec<String>>>);

impl Log {
    fn events(&self) -> EventFn {
        let told = self.clone();
        Arc::new(move |event| {
            if let TransferEvent::LeftOut { path, reason, at_source, why } = event {
                told.1.lock().unwrap().extend(why);
                told.0.lock().unwrap().push((path, reason, at_source));
            }
        })
    }

    fn take(&self) -> Vec<LeftOut> {
        let mut told = std::mem::take(&mut *self.0.lock().unwrap());
        told.sort();
        told
    }
}

/// A large file, small ones and an empty one in a directory that will not be written, and others beside it.
fn fill(at: &Path) {
    fs::create_dir_all(at.join("locked/d")).unwrap();
    fs::write(at.join("locked/large"), noise(1, 700_000)).unwrap();
    fs::write(at.join("locked/d/x"), "x").unwrap();
    fs::write(at.join("locked/void"), "").unwrap();
    fs::write(at.join("beside"), noise(2, 700_000)).unwrap();
    for number in 0..20 {
        fs::write(at.join(format!("small-{number}")), noise(number, 3000)).unwrap();
        fs::write(at.join(format!("locked/small-{number}")), noise(number, 3000)).unwrap();
    }
}

fn expected(at_source: bool) -> Vec<LeftOut> {
    let small = (0..20).map(|number| format!("locked/small-{number}"));
    let others = ["locked/d", "locked/d/x", "locked/large", "locked/void"].map(str::to_owned);
    let mut expected: Vec<_> =
        small.chain(others).map(|path| (path, LeftOutReason::Failed, at_source)).collect();
    expected.sort();
    expected
}

fn lock(at: &Path) -> BrokenDisk {
    fs::create_dir_all(at.join("locked")).unwrap();
    BrokenDisk::below(at, |change, path| change == Change::Name && path.ends_with("locked"))
}

#[test]
fn a_fetch_names_unwritable_paths_and_gets_the_rest() {
    on_broken_disks(async {
        let world = World::new(fill);
        let client = world.admitted().await;
        let broken = lock(&world.dest());
        let told = Log::default();
        let report = world.fetch_watched(&client, "", told.events()).await.unwrap();
        assert_eq!(told.take(), expected(false));
        assert_eq!(report.left_out(), 24);
        let mut arrived = tree(&world.source());
        arrived.retain(|path, _| !path.starts_with("locked") || path == Path::new("locked"));
        assert_eq!(tree(&world.dest()), arrived, "and nothing of ours is left");
        drop(broken);
        world.fetch(&client, "").await.unwrap();
        assert_eq!(tree(&world.dest()), tree(&world.source()));
    });
}

#[test]
fn a_push_names_paths_that_the_server_cannot_write_and_the_rest_arrives() {
    on_broken_disks(async {
        let world = World::writable(WriteLimits::default());
        fill(&world.dest());
        let client = world.admitted_by(world.ticket_to_write("")).await;
        let broken = lock(&world.source());
        let told = Log::default();
        let (source, request) = (push::source(&world.dest()), push::request(""));
        let pushed = push::push_watched(&world, &client, source, &request, told.events());
        let report = pushed.await.unwrap();
        assert_eq!(told.take(), expected(false));
        assert_eq!((report.left_out_here, report.left_out_there), (0, 24));
        let words = told.1.lock().unwrap().clone();
        let as_there = format!("{}: the disk is broken", LeftOutReason::Failed);
        assert!(words.contains(&as_there), "{words:?}");
        let mut arrived = tree(&world.dest());
        arrived.retain(|path, _| !path.starts_with("locked") || path == Path::new("locked"));
        assert_eq!(tree(&world.source()), arrived, "and nothing of ours is left");
        drop(broken);
    });
}

#[test]
fn the_mode_and_time_of_a_directory_that_cannot_be_set_are_told_at_the_end() {
    on_broken_disks(async {
        let world = World::writable(WriteLimits::default());
        fs::create_dir(world.dest().join("d")).unwrap();
        let client = world.admitted_by(world.ticket_to_write("")).await;
        let broken = BrokenDisk::below(&world.source(), |change, path| {
            change == Change::Metadata && path.ends_with("d")
        });
        let told = Log::default();
        let (source, request) = (push::source(&world.dest()), push::request(""));
        let pushed = push::push_watched(&world, &client, source, &request, told.events());
        let report = pushed.await.unwrap();
        assert_eq!(told.take(), [("d".to_owned(), LeftOutReason::Failed, false)]);
        assert_eq!(report.left_out_there, 1);
        drop(broken);
    });
}
