//! Jobs from start to report, including cancelled ones.

use std::{
    future::IntoFuture as _,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use shiplane::{Compression, DigestAlgorithm, ErrorKind, Event, EventKind, Phase, Side};
use tokio_util::sync::CancellationToken;

use crate::harness::{Events, Machine, exists, noise};

#[tokio::test]
async fn a_get_reports_its_files_its_bytes_and_its_phases() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/big", noise(3_000_000));
    there.write("root/small", "hello");
    let running = there.serve().await;
    let connection = running.connect(&here.client().await).await;
    let events = Events::default();
    let job = connection.get("").to(here.path("copy")).sha256(true).on_progress(events.callback());
    let report = job.digest(DigestAlgorithm::Sha256).compression(Compression::Auto).await.unwrap();
    assert_eq!((report.files, report.bytes_total, report.bytes_received), (2, 3_000_005, 3_000_005));
    assert!(report.is_durable && report.left_out.is_empty());
    assert_eq!(report.digest_algorithm, DigestAlgorithm::Sha256);
    assert_eq!(here.read("copy/big"), noise(3_000_000));

    let events = events.all();
    for phase in [Phase::Listing, Phase::Receiving, Phase::Publishing] {
        assert!(events.iter().any(|event| event.phase == phase), "no {phase:?}");
    }
    let last = events.last().unwrap();
    assert_eq!((last.bytes_done, last.bytes_total, last.files_done), (3_000_005, Some(3_000_005), 2));
    assert!(events.is_sorted_by_key(|event| event.bytes_done), "progress never goes backwards");
    let small = events.iter().find(|event| event.path.as_deref() == Some("small")).unwrap();
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".to_owned();
    let kind = EventKind::File { len_bytes: 5, is_received: true, sha256: Some(sha256) };
    assert_eq!(small.kind, kind);

    let again = connection.get("").to(here.path("copy")).await.unwrap();
    assert_eq!((again.files, again.bytes_received, again.bytes_resumed), (2, 0, 3_000_005));
}

#[tokio::test]
async fn a_file_goes_to_a_writer_in_order() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/d/film", noise(5_000_000));
    let running = there.serve().await;
    let connection = running.connect(&here.client().await).await;
    let written = Written::default();
    let report = connection.get("d/film").to_writer(written.clone()).await.unwrap();
    assert_eq!(report.bytes_total, 5_000_000);
    assert!(*written.0.lock().unwrap() == noise(5_000_000), "other bytes");
    let refused = connection.get("d").to_writer(io::sink()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.side()), (ErrorKind::Refused, Side::ThisMachine));
}

#[cfg(unix)]
#[tokio::test]
async fn left_out_paths_name_their_side() {
    use std::os::unix::net::UnixListener;
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "a");
    let _there = UnixListener::bind(there.path("root/socket")).unwrap();
    let running = there.serve_writable().await;
    let connection = running.connect_writing(&here.client().await).await;
    let error = connection.get("").to(here.path("copy")).await.unwrap_err();
    let report = error.report().unwrap();
    let [left_out] = report.left_out.as_slice() else { panic!("{report:?}") };
    assert_eq!((left_out.path.as_str(), left_out.side), ("socket", Side::Peer));
    assert_eq!((error.kind(), error.side(), report.left_out_count), (ErrorKind::LeftOut, Side::Peer, 1));

    let error = connection.push([there.path("root")]).to("back").await.unwrap_err();
    let report = error.report().unwrap();
    let [left_out] = report.left_out.as_slice() else { panic!("{report:?}") };
    assert_eq!((left_out.path.as_str(), left_out.side), ("socket", Side::ThisMachine));
    assert_eq!((left_out.change, report.files), ("special", 1));

    let _here = UnixListener::bind(here.path("copy/mine")).unwrap();
    let error = connection.sync(here.path("copy")).await.unwrap_err();
    let report = error.report().unwrap();
    let told: Vec<_> = report.left_out.iter().map(|what| (what.path.as_str(), what.side)).collect();
    assert_eq!(told, [("mine", Side::ThisMachine), ("socket", Side::Peer)], "what both sides leave out");

    let skipped = connection.sync(here.path("copy")).skip(["special"]).await.unwrap();
    assert_eq!((skipped.left_out_count, skipped.left_out.len()), (0, 0));
    let error = connection.get("").to(here.path("copy")).skip(["lnks"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn a_push_takes_many_paths_and_the_content_of_an_open_file() {
    let (here, there) = (Machine::new(), Machine::new());
    let names = ["one", "two", "three", "four", "five"];
    let paths = names.map(|name| here.write(name, name));
    here.write("tree/d/leaf", "leaf");
    let running = there.serve_writable().await;
    let connection = running.connect_writing(&here.client().await).await;
    let events = Events::default();
    let paths = paths.into_iter().chain([here.path("tree")]);
    let report = connection.push(paths).to("in/box").on_progress(events.callback()).await.unwrap();
    assert_eq!((report.files, report.bytes_total, report.bytes_sent), (6, 23, 23));
    for name in names {
        assert_eq!(there.read(&format!("root/in/box/{name}")), name.as_bytes());
    }
    assert_eq!(there.read("root/in/box/tree/d/leaf"), b"leaf");
    let last = events.all().pop().unwrap();
    assert_eq!((last.bytes_done, last.bytes_total, last.files_done), (23, Some(23), 6));

    let file = std::fs::File::open(here.path("one")).unwrap();
    connection.push_file(file).to("logs/today").durable(false).await.unwrap();
    assert_eq!(there.read("root/logs/today"), b"one");
}

#[tokio::test]
async fn a_sync_carries_both_ways_and_a_dry_run_carries_nothing() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("dir/mine", "mine");
    there.write("root/theirs", "theirs");
    let running = there.serve_writable().await;
    let connection = running.connect_writing(&here.client().await).await;

    let planned = connection.sync(here.path("dir")).dry_run(true).await.unwrap();
    let mut actions: Vec<_> =
        planned.actions.iter().map(|action| (action.path.as_str(), action.side, action.change)).collect();
    actions.sort_by_key(|(path, ..)| *path);
    assert_eq!(actions, [("mine", Side::Peer, "take"), ("theirs", Side::ThisMachine, "take")]);
    assert!(!exists(&here.path("dir/theirs")) && !exists(&there.path("root/mine")));

    let events = Events::default();
    let report = connection.sync(here.path("dir")).on_progress(events.callback()).await.unwrap();
    assert_eq!((report.files, report.bytes_sent, report.bytes_received), (2, 4, 6));
    assert_eq!(here.read("dir/theirs"), b"theirs");
    assert_eq!(there.read("root/mine"), b"mine");
    assert!(events.all().iter().any(|event| event.phase == Phase::Syncing));
    assert_eq!(connection.sync(here.path("dir")).await.unwrap().actions, []);
}

/// A reader that takes 3 MB a second.
struct SlowWriter;

impl io::Write for SlowWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(60_000);
        std::thread::park_timeout(Duration::from_millis(20));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn both_sides_know_that_the_receiver_limits_a_job() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/big", noise(9_000_000));
    let running = there.serve().await;
    let connection = running.connect(&here.client().await).await;
    let get = connection.get("big").to_writer(SlowWriter).into_future();
    let seen = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let sessions = running.server.sessions();
            let limits = sessions.iter().flat_map(|(.., jobs)| jobs).find_map(|job| job.limited_by);
            if limits == Some("receiver disk") {
                return;
            }
        }
    };
    let (report, ()) = tokio::join!(get, seen);
    assert_eq!(report.unwrap().limited_by.first().map(|(limit, _)| *limit), Some("receiver disk"));
}

#[tokio::test]
async fn a_cancelled_get_is_resumed_by_the_same_job() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/film", noise(4_000_000));
    let running = there.serve().await;
    let connection = running.connect(&here.client().await).await;
    let stop = CancellationToken::new();
    let job = connection.get("film").to(here.path("film")).rate(2_000_000);
    let cancelled = job.on_progress(once_kept(&stop)).cancel_on(stop.cancelled_owned()).await.unwrap_err();
    assert_eq!((cancelled.kind(), cancelled.side()), (ErrorKind::Interrupted, Side::ThisMachine));
    assert!(!exists(&here.path("film")), "no part of a file has its name");

    let report = connection.get("film").to(here.path("film")).await.unwrap();
    assert!(report.bytes_resumed >= KEPT_BYTES, "{report:?}");
    assert_eq!(report.bytes_resumed + report.bytes_received, 4_000_000);
    assert!(here.read("film") == noise(4_000_000), "other bytes");
}

#[tokio::test]
async fn a_dropped_push_is_resumed_by_the_same_job() {
    let (here, there) = (Machine::new(), Machine::new());
    here.write("film", noise(4_000_000));
    let running = there.serve_writable().await;
    let connection = running.connect_writing(&here.client().await).await;
    let stop = CancellationToken::new();
    let job = connection.push([here.path("film")]).rate(2_000_000).on_progress(once_kept(&stop));
    tokio::select! {
        pushed = job.into_future() => panic!("{pushed:?}"),
        () = stop.cancelled() => {}
    }
    assert!(!exists(&there.path("root/film")));
    let report = connection.push([here.path("film")]).await.unwrap();
    assert!(report.bytes_resumed >= KEPT_BYTES, "{report:?}");
    assert!(there.read("root/film") == noise(4_000_000), "other bytes");
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_it_begins_does_nothing() {
    let (here, there) = (Machine::new(), Machine::new());
    there.write("root/a", "a");
    let running = there.serve_writable().await;
    let connection = running.connect_writing(&here.client().await).await;
    let cancelled = || std::future::ready(());
    let jobs = [
        connection.get("a").to(here.path("a")).cancel_on(cancelled()).into_future(),
        connection.push([here.dir("dir")]).cancel_on(cancelled()).into_future(),
        connection.sync(here.dir("dir")).cancel_on(cancelled()).into_future(),
    ];
    for job in jobs {
        assert_eq!(job.await.unwrap_err().kind(), ErrorKind::Interrupted);
    }
    assert!(!exists(&here.path("a")) && !exists(&here.path("dir/a")) && !exists(&there.path("root/dir")));
}

/// Triggers `stop` once enough is kept for a later run to resume.
fn once_kept(stop: &CancellationToken) -> impl FnMut(&Event) + Send + 'static {
    let stop = stop.clone();
    move |event| {
        if event.bytes_done >= KEPT_BYTES {
            stop.cancel();
        }
    }
}

const KEPT_BYTES: u64 = 512 << 10;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
