//! A provider that lies to an honest `get`.

mod bombs;
#[cfg(unix)]
mod links_and_holes;

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use shiplane_files::internals::{Destination, DestinationError, FaultClass};
use shiplane_protocols::internals::{
    Fetch, FetchError,
    transfer::{FilesReport, OutputStream, Target, TransferError},
};
use shiplane_transport::StreamError;
use shiplane_wire::{
    Code, Digest, DigestAlgorithm, Mtime, ProviderRecord, ReceiverRecord, TaggedChunk, TransferHasher,
};
use tempfile::TempDir;

use super::{
    Claimed, IMPATIENT, PATIENT, TransferShape, directory, encode, file, file_called,
    gated_disk::GatedDisk,
    liar::{
        Fixture, Liar, end, fetch_from, fetch_within, published, receive_options, script, small_chunks,
        transfer_error,
    },
    link,
};
use crate::harness::transfer_lane;

#[tokio::test]
async fn names_that_lead_out_or_hide_are_refused() {
    let names: [&[u8]; 11] = [
        b"../x",
        b"a/../../x",
        b"/etc/x",
        b"",
        b".",
        b"..",
        b"a//b",
        b"a/",
        b"a/./b",
        b"nul\0",
        &[b'n'; 256],
    ];
    for name in names {
        let raw = file_called(name);
        let (result, dir) = fetch_from(
            TransferShape::Contents,
            script(move |mut fixture| {
                let raw = raw.clone();
                async move {
                    fixture.say_raw(raw).await;
                    fixture.say(&[end(1, 1)]).await;
                    fixture.linger().await;
                }
            }),
        )
        .await;
        let error = transfer_error(result);
        assert!(matches!(error, TransferError::Records(_)), "{}: {error}", name.escape_ascii());
        assert!(published(&dir).is_empty(), "{}", name.escape_ascii());
    }
}

#[tokio::test]
async fn the_same_name_twice_and_a_file_as_a_directory_are_the_peers_fault() {
    let manifests = [
        vec![file("x", 1), file("x", 1), end(2, 2)],
        vec![file("x", 1), file("x/y", 1), end(2, 2)],
        vec![directory("x"), file("x", 1), end(2, 1)],
        vec![file("nowhere/y", 1), end(1, 1)],
    ];
    for manifest in manifests {
        let told = format!("{manifest:?}");
        let (result, dir) = fetch_from(
            TransferShape::Contents,
            script(move |mut fixture| {
                let manifest = manifest.clone();
                async move {
                    fixture.say(&manifest).await;
                    fixture.linger().await;
                }
            }),
        )
        .await;
        match transfer_error(result) {
            TransferError::Destination(error) => {
                assert_eq!(error.class(), FaultClass::Protocol, "{told}: {error}")
            }
            other => panic!("{told}: {other}"),
        }
        assert!(published(&dir).iter().all(|name| dir.path().join(name).is_dir()), "{told}");
    }
}

#[tokio::test]
async fn what_comes_below_a_link_or_in_its_place_is_refused_and_nothing_is_written_through_it() {
    let outside = TempDir::new().unwrap();
    let target = outside.path().to_str().unwrap().to_owned();
    for below in [file("l/x", 1), directory("l/d"), file("l", 1), directory("l"), link("l", "x")] {
        let size_bytes = if let ProviderRecord::Entry(entry) = &below { entry.size_bytes } else { 0 };
        let manifest = vec![link("l", &target), below, end(2, size_bytes)];
        let told = format!("{manifest:?}");
        let script = script(move |mut fixture| {
            let manifest = manifest.clone();
            async move {
                fixture.say(&manifest).await;
                fixture.linger().await;
            }
        });
        let (result, dir) = fetch_from(TransferShape::Contents, script).await;
        match transfer_error(result) {
            TransferError::Destination(error) => assert_eq!(error.class(), FaultClass::Protocol, "{told}"),
            other => panic!("{told}: {other}"),
        }
        assert!(published(&dir).is_empty(), "{told}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn the_content_of_a_link_is_never_asked_for() {
    let (result, dir) = fetch_from(
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[link("l", "/etc/passwd"), end(1, 0)]).await;
            while let Some(record) = fixture.hear().await {
                let asks =
                    matches!(record, ReceiverRecord::WantChunk { .. } | ReceiverRecord::WantDigest { .. });
                assert!(!asks, "{record:?}");
                if matches!(record, ReceiverRecord::Done { .. }) {
                    let _ = fixture.send.finish();
                }
            }
        }),
    )
    .await;
    result.unwrap();
    assert_eq!(fs::read_link(dir.path().join("l")).unwrap().to_str(), Some("/etc/passwd"));
}

#[tokio::test]
async fn a_top_directory_that_comes_late_or_twice_or_for_a_file_is_refused() {
    let top =
        || ProviderRecord::TopDirectory { mode: 0o777, mtime: Mtime { secs: 1, nanos: 0 }, attributes: None };
    let file_shape = || TransferShape::File { name: b"x".to_vec() };
    for (shape, manifest) in [
        (TransferShape::Contents, vec![top(), top(), end(0, 0)]),
        (TransferShape::Contents, vec![directory("x"), top(), end(1, 0)]),
        (file_shape(), vec![top(), file("x", 1), end(1, 1)]),
    ] {
        let told = format!("{manifest:?}");
        let script = script(move |mut fixture| {
            let manifest = manifest.clone();
            async move {
                fixture.say(&manifest).await;
                fixture.linger().await;
            }
        });
        let (result, dir) = fetch_from(shape, script).await;
        match transfer_error(result) {
            TransferError::Protocol(_) => {}
            TransferError::Destination(error) => assert_eq!(error.class(), FaultClass::Protocol, "{told}"),
            other => panic!("{told}: {other}"),
        }
        assert!(published(&dir).iter().all(|name| dir.path().join(name).is_dir()), "{told}");
    }
}

#[tokio::test]
async fn a_file_that_was_not_asked_for_is_refused() {
    let shape = TransferShape::File { name: b"wanted".to_vec() };
    let (result, dir) = fetch_from(
        shape,
        script(|mut fixture| async move {
            fixture.say(&[file("authorized_keys", 1), end(1, 1)]).await;
            fixture.linger().await;
        }),
    )
    .await;
    let error = transfer_error(result);
    assert!(matches!(error, TransferError::Destination(DestinationError::NotRequested { .. })), "{error}");
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn totals_that_do_not_add_up_are_the_peers_fault() {
    for (entries, total_bytes) in [(2, 5), (1, 6), (0, 0)] {
        let (result, dir) = fetch_from(
            TransferShape::Contents,
            script(move |mut fixture| async move {
                fixture.say(&[file("x", 5), end(entries, total_bytes)]).await;
                fixture.linger().await;
            }),
        )
        .await;
        assert!(matches!(transfer_error(result), TransferError::Protocol(_)));
        assert!(published(&dir).is_empty());
    }
}

#[tokio::test]
async fn sizes_that_lie_never_publish_a_file() {
    // Announced; given; all for a file of five bytes.
    for (len_bytes, data) in [(4, &b"four"[..]), (6, b"sixsix"), (u64::MAX >> 3, b"huge"), (0, b"")] {
        let (result, dir) = fetch_within(
            IMPATIENT,
            TransferShape::Contents,
            script(move |mut fixture| async move {
                fixture.say(&[file("x", 5), end(1, 5)]).await;
                while let Some((index, _)) = fixture.want().await {
                    for _ in 0..3 {
                        fixture.chunk(index, len_bytes, data).await;
                    }
                }
            }),
        )
        .await;
        // What is refused at once may be reset before it is read: then only the silence is noticed.
        let error = transfer_error(result);
        let expected =
            matches!(error, TransferError::Corrupt { attempts: 3, .. } | TransferError::Silent { .. });
        assert!(expected, "{len_bytes}: {error}");
        assert!(published(&dir).is_empty());
    }
}

#[tokio::test]
async fn a_chunk_that_is_cut_short_is_never_published() {
    let (result, dir) = fetch_within(
        IMPATIENT,
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[file("x", 5), end(1, 5)]).await;
            while let Some((index, len_bytes)) = fixture.want().await {
                for _ in 0..3 {
                    fixture.chunk(index, len_bytes, b"shor").await;
                }
            }
        }),
    )
    .await;
    // A reset may overtake the opening of its stream: then all there is to notice is the silence.
    let error = transfer_error(result);
    assert!(matches!(error, TransferError::Corrupt { .. } | TransferError::Silent { .. }), "{error}");
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn unwanted_chunks_are_the_peers_fault() {
    let (result, dir) = fetch_from(
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[file("x", 5), end(1, 5)]).await;
            let (index, _) = fixture.want().await.unwrap();
            fixture.chunk(index + 9, 5, b"hello").await;
            fixture.linger().await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Protocol(_)));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn a_chunk_that_comes_again_with_other_content_changes_nothing() {
    let (result, dir) = fetch_from(
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[file("x", 1024), file("y", 1024), end(2, 2048)]).await;
            let wanted = [fixture.want().await.unwrap(), fixture.want().await.unwrap()];
            assert_eq!(wanted, [(0, 1024), (1, 1024)]);
            fixture.chunk(0, 1024, &[b'1'; 1024]).await;
            fixture.chunk(0, 1024, &[b'2'; 1024]).await;
            fixture.chunk(1, 1024, &[b'y'; 1024]).await;
            fixture.linger().await;
        }),
    )
    .await;
    // All has come, so that only the liar's confirmation is missing.
    assert!(matches!(result, Err(FetchError::Unconfirmed(_))), "{result:?}");
    assert_eq!(fs::read(dir.path().join("x")).unwrap(), [b'1'; 1024]);
    assert_eq!(fs::read(dir.path().join("y")).unwrap(), [b'y'; 1024]);
}

#[tokio::test]
async fn an_entry_that_is_neither_file_nor_directory_is_refused() {
    for kind in [2, 3, 255] {
        let mut raw = encode(&file("x", 1)).to_vec();
        // Behind the type and the length.
        raw[5] = kind;
        let (result, dir) = fetch_from(
            TransferShape::Contents,
            script(move |mut fixture| {
                let raw = Bytes::from(raw.clone());
                async move {
                    fixture.say_raw(raw).await;
                    fixture.say(&[end(1, 1)]).await;
                    fixture.linger().await;
                }
            }),
        )
        .await;
        let error = transfer_error(result);
        assert!(matches!(error, TransferError::Records(_)), "{kind}: {error}");
        assert!(published(&dir).is_empty());
    }
}

#[tokio::test]
async fn sizes_that_no_sum_holds_take_neither_space_nor_the_program_down() {
    let huge = (1 << 62) - 1;
    let (result, dir) = fetch_from(
        TransferShape::Contents,
        script(move |mut fixture| async move {
            let entries = ["a", "b", "c", "d", "e"].map(|name| file(name, huge));
            fixture.say(&entries).await;
            fixture.say(&[end(5, huge.wrapping_mul(5))]).await;
            fixture.linger().await;
        }),
    )
    .await;
    // Either is noticed first: that they do not add up, or that there is no such disk.
    let error = transfer_error(result);
    let is_expected = matches!(
        error,
        TransferError::Protocol(_) | TransferError::Destination(DestinationError::NoSpace { .. })
    );
    assert!(is_expected, "{error}");
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn the_greatest_index_belongs_to_no_chunk() {
    let (result, dir) = fetch_from(
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[file("x", 5), end(1, 5)]).await;
            fixture.want().await.unwrap();
            fixture.chunk(u64::MAX, 5, b"hello").await;
            fixture.linger().await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Protocol(_)));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn withholding_a_chunk_needs_a_reason() {
    let (result, dir) = fetch_from(
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[file("x", 5), end(1, 5)]).await;
            let (index, _) = fixture.want().await.unwrap();
            fixture.say(&[ProviderRecord::ChunkVoid { index }]).await;
            fixture.linger().await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Protocol(_)));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn records_out_of_place_are_the_peers_fault() {
    let digest = Digest::blake3(b"");
    let misplaced = [
        ProviderRecord::Digest { entry: 0, digest },
        ProviderRecord::Failed { entry: 7, reason: shiplane_wire::LeftOutReason::Changed },
        ProviderRecord::ChunkVoid { index: 0 },
        file("late", 0),
        end(1, 5),
    ];
    for record in misplaced {
        let told = format!("{record:?}");
        let (result, dir) = fetch_from(
            TransferShape::Contents,
            script(move |mut fixture| {
                let record = record.clone();
                async move {
                    fixture.say(&[file("x", 5), end(1, 5), record]).await;
                    fixture.linger().await;
                }
            }),
        )
        .await;
        let error = transfer_error(result);
        assert!(matches!(error, TransferError::Protocol(_)), "{told}: {error}");
        assert!(published(&dir).is_empty());
    }
}

#[tokio::test]
async fn a_provider_that_says_nothing_is_given_up() {
    let (result, dir) = fetch_within(
        IMPATIENT,
        TransferShape::Contents,
        script(|mut fixture| async move { fixture.linger().await }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Silent { .. }));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn a_provider_that_never_sends_what_was_wanted_is_given_up() {
    let (result, dir) = fetch_within(
        IMPATIENT,
        TransferShape::Contents,
        script(|mut fixture| async move {
            fixture.say(&[file("x", 5), end(1, 5)]).await;
            fixture.linger().await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Silent { .. }));
    assert!(published(&dir).is_empty());
}

/// Sends a file as it should, and then does `last` with the records stream.
async fn confirmed_by<F>(
    patience: Duration,
    last: impl Fn(Fixture) -> F + Clone + Send + Sync + 'static,
) -> Result<FilesReport, FetchError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (result, dir) = fetch_within(
        patience,
        TransferShape::Contents,
        script(move |mut fixture| {
            let last = last.clone();
            async move {
                fixture.say(&[file("x", 5), end(1, 5)]).await;
                let (index, _) = fixture.want().await.unwrap();
                fixture.chunk(index, 5, b"hello").await;
                fixture.linger().await;
                last(fixture).await;
            }
        }),
    )
    .await;
    // What arrived was verified against its own digests; it stays.
    assert_eq!(published(&dir), ["x"]);
    result
}

#[tokio::test]
async fn a_provider_that_does_not_confirm_is_reported() {
    let unconfirmed = |result| match result {
        Err(FetchError::Unconfirmed(error)) => error,
        other => panic!("{other:?}"),
    };
    let disagrees = confirmed_by(PATIENT, |fixture| async move { fixture.send.reset(Code::Integrity) }).await;
    assert!(matches!(unconfirmed(disagrees), TransferError::TransferDigestMismatch));
    let fails = confirmed_by(PATIENT, |fixture| async move { fixture.send.reset(Code::SourceFailed) }).await;
    let is_told = |error| matches!(error, TransferError::Stream(StreamError::Reset(Code::SourceFailed)));
    assert!(is_told(unconfirmed(fails)));
    let is_silent = confirmed_by(IMPATIENT, |fixture| async move {
        std::future::pending::<()>().await;
        drop(fixture);
    });
    assert!(matches!(unconfirmed(is_silent.await), TransferError::Silent { .. }));
    let agrees = confirmed_by(PATIENT, |mut fixture| async move { fixture.send.finish().unwrap() }).await;
    assert_eq!(agrees.unwrap().received_bytes, 5);
}

/// What was sent is agreed on beforehand only if both say the same of it.
#[tokio::test]
async fn a_provider_that_has_said_what_it_has_sent_is_not_waited_for() {
    let said = |digest: Digest, chunks| {
        script(move |mut fixture| async move {
            fixture.say(&[file("x", 5), end(1, 5)]).await;
            let (index, _) = fixture.want().await.unwrap();
            let mut hasher = TransferHasher::new(DigestAlgorithm::Blake3);
            hasher.add(0, digest).unwrap();
            let transfer_digest = hasher.finish(1).unwrap();
            fixture.say(&[ProviderRecord::Sent { chunks, transfer_digest }]).await;
            fixture.chunk(index, 5, b"hello").await;
            std::future::pending::<()>().await;
        })
    };
    let sent = Digest::blake3(b"hello");
    let (agreed, _dir) = fetch_from(TransferShape::Contents, said(sent, 1)).await;
    assert_eq!(agreed.unwrap().received_bytes, 5);
    for (digest, chunks) in [(Digest::blake3(b"other"), 1), (sent, 2)] {
        let (silent, dir) = fetch_within(IMPATIENT, TransferShape::Contents, said(digest, chunks)).await;
        assert!(matches!(silent, Err(FetchError::Unconfirmed(TransferError::Silent { .. }))), "{silent:?}");
        assert_eq!(published(&dir), ["x"]);
    }
}

#[tokio::test]
async fn after_a_reported_failure_no_task_works_any_more() {
    let (held, holder) = GatedDisk::new();
    let let_go = holder.clone();
    let liar = Liar::meet(
        PATIENT,
        TransferShape::Contents,
        script(move |mut fixture| {
            let let_go = let_go.clone();
            async move {
                fixture.say(&[file("slow", 5), end(1, 6)]).await;
                fixture.linger().await;
                let_go.let_go();
            }
        }),
    )
    .await;
    let (fetch, dir) = (
        Fetch::open(&liar.rpc, shiplane_protocols::internals::FetchRequest::of(b"it"), &Default::default())
            .await
            .unwrap(),
        TempDir::new().unwrap(),
    );
    let target = Destination::open(dir.path(), fetch.shape(), fetch.job(), receive_options()).unwrap();
    let target = target.with_policy(Arc::new(held));
    let failed = fetch.receive(target, &small_chunks(), Arc::new(|_| ())).await;
    assert!(matches!(transfer_error(failed), TransferError::Protocol(_)));
    assert_eq!(holder.handles(), 0);
}

#[tokio::test]
async fn a_disk_that_fails_is_the_cause_though_the_provider_hangs_up_before_that_is_noticed() {
    let (held, holder) = GatedDisk::new();
    let at_work = holder.clone();
    let liar = Liar::meet(
        PATIENT,
        TransferShape::Contents,
        script(move |mut fixture| {
            let at_work = at_work.clone();
            async move {
                fixture.say(&[file("x", 5), end(1, 5)]).await;
                let (index, _) = fixture.want().await.unwrap();
                let source = Claimed { len_bytes: 5, data: Bytes::from_static(b"hello") };
                let tag = TaggedChunk { transfer: fixture.transfer, index };
                let connection = Arc::clone(&fixture.connection);
                tokio::spawn(async move {
                    let _ = connection.send_tagged_chunk(tag, source, &transfer_lane()).await;
                });
                at_work.is_at_work().await;
                fixture.connection.close(Code::Cancelled);
            }
        }),
    )
    .await;
    let fetch =
        Fetch::open(&liar.rpc, shiplane_protocols::internals::FetchRequest::of(b"it"), &Default::default())
            .await
            .unwrap();
    let connection = Arc::clone(liar.rpc.connection());
    tokio::spawn(async move {
        connection.closed().await;
        // The receiver learns of it before the disk fails.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        holder.let_go();
    });
    let failed =
        fetch.receive(Target::stream(&OutputStream::new(held)), &small_chunks(), Arc::new(|_| ())).await;
    let error = transfer_error(failed);
    assert!(matches!(error, TransferError::Destination(DestinationError::Io { .. })), "{error}");
}
