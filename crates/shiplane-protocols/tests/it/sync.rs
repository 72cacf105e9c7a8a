//! Sync: both sides become equal, no edit is lost, interrupted syncs resume.

mod anew;
mod changing;
mod example;
#[cfg(target_os = "linux")]
mod failing;
mod hostile_asked;
mod hostile_asking;
mod interrupted;
mod messages;
#[cfg(target_os = "linux")]
mod orphaned_temps;

mod random;
mod reading;
mod together;
#[cfg(target_os = "linux")]
mod watching;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use shiplane_files::internals::sync::{Change, Consent, PlanError, Side, SyncState};
use shiplane_protocols::{
    Compression, MetricsSnapshot, TransferMetrics,
    internals::{
        FileServer,
        sync::{SyncError, SyncEventFn, SyncJob, SyncReport, synchronise},
        transfer::TransferOptions,
    },
};
use shiplane_rpc::{CallError, FaultCode, RpcClient};
use shiplane_transport::PeerId;
use shiplane_wire::LeftOutReason;

use crate::{
    harness::{World, noise, tree},
    trees::{set, stamps_below},
};

/// Syncs the directory `dest` of the world with its served `source`.
pub(crate) fn job(world: &World) -> SyncJob {
    SyncJob {
        directory: world.dest(),
        remote_path: Vec::new(),
        state: SyncState::at(world.outside().join("state-here")),
        own: PeerId::from_bytes([7; 32]),
        root: None,
        only_to: None,
        consent: Consent::default(),
        filters: Arc::default(),
        attributes: false,
        dry_run: false,
        relisting: None,
        peer_watch: None,
        transfer: TransferOptions { lanes: 4, chunk_len_bytes: 64 << 10, ..TransferOptions::default() },
    }
}

fn silent() -> SyncEventFn {
    Arc::new(|_| ())
}

async fn try_sync(world: &World, client: &RpcClient) -> Result<SyncReport, SyncError> {
    synchronise(client, &job(world), silent()).await
}

/// Syncs, with nothing left alone and both sides equal in the end.
pub(crate) async fn sync(world: &World, client: &RpcClient) -> SyncReport {
    let report = try_sync(world, client).await.unwrap();
    assert!(report.left.is_empty(), "{:?}", report.left);
    assert_eq!(tree(&world.source()), tree(&world.dest()));
    assert_eq!(stamps_below(&world.source()), stamps_below(&world.dest()));
    report
}

pub(crate) async fn admitted(world: &World) -> RpcClient {
    world.admitted_by(world.ticket_to_write("")).await
}

#[track_caller]
fn code(error: SyncError) -> FaultCode {
    match error {
        SyncError::Refused(CallError::Fault(fault)) | SyncError::Rejected(fault) => fault.code,
        other => panic!("not a fault: {other:?}"),
    }
}

fn write(at: &Path, path: &str, content: &[u8]) {
    let path = at.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Sets when a file was written: the later of two versions in conflict keeps its name.
fn written_at(path: PathBuf, secs: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs)).unwrap();
}

fn contents(at: &Path) -> Vec<Vec<u8>> {
    let mut contents: Vec<_> = tree(at).into_values().flatten().collect();
    contents.sort();
    contents
}

#[tokio::test]
async fn two_datasets_converge_and_only_differences_move() {
    let world = World::syncing();
    for i in 0..60 {
        write(&world.source(), &format!("common/{}/{i}", i % 7), &noise(i, 5000));
        write(&world.dest(), &format!("common/{}/{i}", i % 7), &noise(i, 5000));
    }
    write(&world.dest(), "mine/new", &noise(100, 70_000));
    write(&world.source(), "theirs/new", &noise(101, 90_000));
    fs::create_dir(world.source().join("void")).unwrap();
    let client = admitted(&world).await;
    let first = sync(&world, &client).await;
    assert_eq!((first.sent_bytes, first.received_bytes), (70_000, 90_000));
    // The common files differ in time alone.
    let changes = first.actions.iter().filter(|action| action.change != Change::SetMetadata);
    assert_eq!((changes.count(), first.files), (5, 62));

    write(&world.dest(), "common/3/3", &noise(200, 6000));
    write(&world.source(), "common/4/4", &noise(201, 7000));
    let second = sync(&world, &client).await;
    assert_eq!((second.sent_bytes, second.received_bytes), (6000, 7000));
    assert_ne!(second.digest, first.digest);
}

/// Counts the calls that a server takes.
async fn counted(
    files: Arc<FileServer>,
    transport: Arc<shiplane_transport::QuicTransport>,
    calls: Arc<AtomicUsize>,
) {
    let router = files.router(&[]).guard(move |_context, method| {
        if method != "ticket.redeem" {
            calls.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    let router = Arc::new(router);
    while let Ok((_, connection)) = transport.accept().await {
        tokio::spawn(Arc::clone(&router).serve(connection));
    }
}

#[tokio::test]
async fn two_that_are_equal_need_two_calls_at_most_and_no_chunk() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let world = World::syncing_by(move |files, transport, _| counted(files, transport, counter));
    for at in [world.source(), world.dest()] {
        write(&at, "a/b", b"same");
        set(&at.join("a/b"), 0o644, 1);
        set(&at.join("a"), 0o755, 2);
    }
    let client = admitted(&world).await;
    for _ in 0..2 {
        calls.store(0, Ordering::SeqCst);
        let report = sync(&world, &client).await;
        assert_eq!((report.chunks, report.actions.len(), report.files), (0, 0, 1));
        assert!((1..=2).contains(&calls.load(Ordering::SeqCst)));
    }
    // It counts as a sync: later deletions are carried.
    fs::remove_dir_all(world.dest().join("a")).unwrap();
    let job = SyncJob { consent: Consent { mass_deletion: true }, ..job(&world) };
    synchronise(&client, &job, silent()).await.unwrap();
    assert_eq!(tree(&world.source()).len(), 0);
}

#[tokio::test]
async fn deletions_travel_both_ways() {
    let world = World::syncing();
    for i in 0..20 {
        write(&world.dest(), &format!("d{}/{i}", i % 4), &noise(i, 100));
    }
    let client = admitted(&world).await;
    sync(&world, &client).await;
    fs::remove_dir_all(world.dest().join("d0")).unwrap();
    fs::remove_file(world.dest().join("d1/1")).unwrap();
    fs::remove_dir_all(world.source().join("d2")).unwrap();
    let report = sync(&world, &client).await;
    assert_eq!((report.files, report.chunks), (9, 0));
    assert_eq!(fs::read_dir(world.dest()).unwrap().count(), 2);
}

#[tokio::test]
async fn of_two_edits_both_stay_and_neither_is_sent_twice() {
    let world = World::syncing();
    write(&world.dest(), "f.bin", &noise(1, 50_000));
    let client = admitted(&world).await;
    sync(&world, &client).await;
    write(&world.dest(), "f.bin", &noise(2, 40_000));
    write(&world.source(), "f.bin", &noise(3, 30_000));
    written_at(world.dest().join("f.bin"), 1_000_000_000);
    let report = sync(&world, &client).await;
    assert_eq!(fs::read(world.dest().join("f.bin")).unwrap(), noise(3, 30_000));
    assert_eq!(contents(&world.source()).len(), 2);
    assert!(contents(&world.source()).contains(&noise(2, 40_000)));
    assert_eq!((report.sent_bytes, report.received_bytes), (40_000, 30_000));
}

#[tokio::test]
async fn a_file_and_a_directory_of_one_name_both_stay() {
    let world = World::syncing();
    write(&world.dest(), "x", b"a file");
    write(&world.source(), "x/y", b"in a directory");
    write(&world.dest(), "z/deep/er", b"in a directory");
    write(&world.source(), "z", b"a file");
    let client = admitted(&world).await;
    sync(&world, &client).await;
    let expected: [&[u8]; 4] = [b"a file", b"a file", b"in a directory", b"in a directory"];
    assert_eq!(contents(&world.source()), expected);
    // Then one side turns it into the other kind, and the other side has not changed it.
    fs::remove_dir_all(world.dest().join("x")).unwrap();
    write(&world.dest(), "x", b"a file again");
    fs::remove_dir_all(world.source().join("z")).unwrap();
    write(&world.source(), "z", b"a file again");
    sync(&world, &client).await;
    assert_eq!(fs::read(world.source().join("x")).unwrap(), b"a file again");
}

#[tokio::test]
async fn a_renamed_file_is_not_sent_again() {
    let world = World::syncing();
    for i in 0..10 {
        write(&world.dest(), &format!("old/{i}"), &noise(i, 20_000));
    }
    write(&world.dest(), "one", b"1");
    write(&world.dest(), "two", b"22");
    let client = admitted(&world).await;
    sync(&world, &client).await;
    fs::rename(world.dest().join("old"), world.dest().join("new")).unwrap();
    // Two that change places, too.
    write(&world.dest(), "one", b"22");
    write(&world.dest(), "two", b"1");
    let report = sync(&world, &client).await;
    assert_eq!((report.sent_bytes, report.received_bytes), (0, 0));
}

#[tokio::test]
async fn of_an_edited_file_only_the_edit_moves() {
    let world = World::syncing();
    let mut content = noise(1, 4 << 20);
    write(&world.dest(), "large", &content);
    let client = admitted(&world).await;
    sync(&world, &client).await;
    content.splice(2_000_000..2_000_001, *b"inserted");
    write(&world.source(), "large", &content);
    let report = sync(&world, &client).await;
    assert!(report.received_bytes < 100_000, "{}", report.received_bytes);
    assert_eq!(fs::read(world.dest().join("large")).unwrap(), content);
}

/// Text both ways, with what each side agrees to; gives the report and what each side has counted.
async fn both_ways(theirs: Compression, ours: Compression) -> (SyncReport, [MetricsSnapshot; 2]) {
    let metrics = [(); 2].map(|()| Arc::new(TransferMetrics::new()));
    let options = |compression, metrics: &Arc<TransferMetrics>| TransferOptions {
        compression,
        metrics: Some(Arc::clone(metrics)),
        ..TransferOptions::default()
    };
    let world = World::syncing_with(options(theirs, &metrics[0]));
    let client = admitted(&world).await;
    let text: String = (0..20_000).map(|at| format!("line {at} of a log that says little\n")).collect();
    write(&world.source(), "there", text.as_bytes());
    write(&world.dest(), "here", &text.as_bytes()[5..]);
    let job = SyncJob { transfer: options(ours, &metrics[1]), ..job(&world) };
    let report = synchronise(&client, &job, silent()).await.unwrap();
    assert_eq!(tree(&world.source()), tree(&world.dest()));
    (report, metrics.map(|metrics| metrics.snapshot()))
}

#[tokio::test]
async fn a_sync_compresses_both_ways_if_both_agree_and_both_sides_count_it() {
    use Compression::{Always, Auto, Never};
    for (theirs, ours, shrinks) in
        [(Always, Auto, true), (Auto, Always, true), (Never, Always, false), (Always, Never, false)]
    {
        let (report, [there, here]) = both_ways(theirs, ours).await;
        let moved = report.sent_bytes + report.received_bytes;
        assert_eq!(report.wire_bytes < moved / 2, shrinks, "{theirs:?}, {ours:?}: {report:?}");
        assert!(shrinks || report.wire_bytes == moved);
        for (sent, received, bytes) in [
            (&here.sent, &there.received, report.sent_bytes),
            (&there.sent, &here.received, report.received_bytes),
        ] {
            assert_eq!((sent.completed, sent.failed, sent.bytes), (1, 0, bytes));
            assert_eq!((received.completed, received.failed, received.bytes), (1, 0, bytes));
        }
    }
}

#[tokio::test]
async fn a_mass_deletion_is_refused_and_changes_nothing() {
    let world = World::syncing();
    for i in 0..10 {
        write(&world.dest(), &format!("{i}"), &noise(i, 100));
    }
    let client = admitted(&world).await;
    sync(&world, &client).await;
    for i in 0..8 {
        fs::remove_file(world.dest().join(format!("{i}"))).unwrap();
    }
    let refused = try_sync(&world, &client).await.unwrap_err();
    assert!(matches!(refused, SyncError::Plan(PlanError::MassDeletion { deleted: 8, files: 10, .. })));
    assert_eq!(tree(&world.source()).len(), 10);
    // The server is not held up by a sync that came to nothing.
    let job = SyncJob { consent: Consent { mass_deletion: true }, ..job(&world) };
    synchronise(&client, &job, silent()).await.unwrap();
    assert_eq!(tree(&world.source()).len(), 2);
}

#[tokio::test]
async fn a_dry_run_says_all_and_does_nothing() {
    let world = World::syncing();
    write(&world.dest(), "sub/a", b"1");
    let client = admitted(&world).await;
    let job = SyncJob { dry_run: true, remote_path: b"new".to_vec(), ..job(&world) };
    let report = synchronise(&client, &job, silent()).await.unwrap();
    let changes: Vec<_> =
        report.actions.iter().map(|action| (&action.change, action.path.to_string())).collect();
    let take = Change::Take { from: report.actions[1].path.clone() };
    assert_eq!(changes, [(&Change::CreateDirectory, "sub".to_owned()), (&take, "sub/a".to_owned())]);
    assert_eq!(tree(&world.source()).len(), 0);
    // A peer that may only read may ask that.
    let reader = world.admitted().await;
    assert_eq!(synchronise(&reader, &job, silent()).await.unwrap().actions, report.actions);
    let done = synchronise(&client, &SyncJob { dry_run: false, ..job }, silent()).await.unwrap();
    assert_eq!(done.actions, report.actions);
    assert_eq!(tree(&world.source().join("new")), tree(&world.dest()));
}

#[tokio::test]
async fn a_list_too_long_for_a_call_goes_beside_it() {
    let world = World::syncing();
    for i in 0..9000 {
        write(&world.dest(), &format!("{}/mine-{i}", i % 50), &[]);
        write(&world.source(), &format!("{}/theirs-{i}", i % 50), &[]);
    }
    let client = admitted(&world).await;
    let report = sync(&world, &client).await;
    assert_eq!(report.files, 18_000);
    assert_eq!(sync(&world, &client).await.chunks, 0);
}

#[tokio::test]
async fn paths_that_cannot_be_synced_are_neither_changed_nor_deleted() {
    use std::os::unix::net::UnixListener;
    let world = World::syncing();
    for at in [world.source(), world.dest()] {
        write(&at, "d/f", b"1");
        write(&at, "g", b"1");
    }
    let client = admitted(&world).await;
    sync(&world, &client).await;
    // On one side a directory, and a file, have become sockets.
    fs::remove_dir_all(world.source().join("d")).unwrap();
    let _there = UnixListener::bind(world.source().join("d")).unwrap();
    fs::remove_file(world.dest().join("g")).unwrap();
    let _here = UnixListener::bind(world.dest().join("g")).unwrap();
    write(&world.dest(), "d/f", b"edited");
    write(&world.source(), "h", b"new");
    let report = try_sync(&world, &client).await.unwrap();
    let unlisted: Vec<_> =
        report.unlisted.iter().map(|(side, why, path)| (*side, *why, path.as_str())).collect();
    let here = (Side::Local, LeftOutReason::SpecialFile, "g");
    assert_eq!(unlisted, [here, (Side::Remote, LeftOutReason::SpecialFile, "d")], "by either side");
    assert_eq!(fs::read(world.dest().join("d/f")).unwrap(), b"edited");
    assert_eq!(fs::read(world.source().join("g")).unwrap(), b"1");
    assert_eq!(fs::read(world.dest().join("h")).unwrap(), b"new");
    // Once the sockets are gone, it goes on from where it was.
    fs::remove_file(world.source().join("d")).unwrap();
    fs::remove_file(world.dest().join("g")).unwrap();
    write(&world.dest(), "g", b"2");
    sync(&world, &client).await;
    assert_eq!(fs::read(world.source().join("d/f")).unwrap(), b"edited");
}

#[tokio::test]
async fn a_caller_without_permission_is_refused_and_learns_nothing() {
    let world = World::syncing();
    write(&world.source(), "f", b"1");
    let reader = world.admitted().await;
    assert_eq!(code(try_sync(&world, &reader).await.unwrap_err()), FaultCode::Unauthorised);
    let elsewhere = world.admitted_by(world.ticket_to_write("other")).await;
    assert_eq!(code(try_sync(&world, &elsewhere).await.unwrap_err()), FaultCode::Unauthorised);
    let outside = SyncJob { remote_path: b"../x".to_vec(), ..job(&world) };
    let client = admitted(&world).await;
    assert_eq!(code(synchronise(&client, &outside, silent()).await.unwrap_err()), FaultCode::PathRefused);
    let file = SyncJob { remote_path: b"f".to_vec(), ..job(&world) };
    synchronise(&client, &file, silent()).await.unwrap_err();

    let stranger = world.client();
    let _ticket = world.ticket_to_write("");
    let guest = stranger.connect().await.unwrap();
    assert_eq!(code(try_sync(&world, &guest).await.unwrap_err()), FaultCode::Unauthorised);
    assert_eq!(tree(&world.dest()).len(), 0);

    for world in [World::new(|_| ()), World::writable(shiplane_protocols::internals::WriteLimits::default())]
    {
        let client = admitted(&world).await;
        assert_eq!(code(try_sync(&world, &client).await.unwrap_err()), FaultCode::ReadOnly);
    }
}
