//! A provider that lies to an honest `get`.

mod bombs;

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use shiplane_protocols::{
    Fetch, FetchError, FetchReport,
    files::{Destination, DestinationError, FaultClass, ReceiveOptions},
    transfer::{TransferError, TransferOptions},
};
use shiplane_rpc::{CallError, Fault, FaultCode, Router, RpcClient};
use shiplane_transport::{BiStream, PeerAddr, PeerConnection, QuicTransport, RecvHalf, TransferStream};
use shiplane_wire::{
    Digest, DigestAlgorithm, Promise, ProviderRecord, ReceiverRecord, RecordReader, TaggedChunk, TransferId,
};
use tempfile::TempDir;

use super::{
    CONFIRM, Claimed, Confirmed, FETCH_OPEN, FetchOpened, IMPATIENT, PATIENT, TransferShape, directory,
    encode, file, file_called, held::Held, transport,
};
use crate::harness::transfer_lane;

/// What the liar has in hand once the victim has opened its records stream.
pub(super) struct Stage {
    pub(super) connection: Arc<PeerConnection>,
    pub(super) transfer: TransferId,
    pub(super) send: shiplane_transport::SendHalf,
    pub(super) wants: RecvHalf,
    reader: RecordReader<ReceiverRecord>,
}

impl Stage {
    pub(super) async fn say(&mut self, records: &[ProviderRecord]) {
        for record in records {
            self.say_raw(encode(record)).await;
        }
    }

    pub(super) async fn say_raw(&mut self, bytes: Bytes) {
        // The victim may have hung up already: that is what most of these are about.
        let _ = self.send.write(bytes).await;
    }

    /// The next want; `None` once the victim has hung up.
    pub(super) async fn want(&mut self) -> Option<(u64, u64)> {
        loop {
            while let Some(record) = self.reader.poll().unwrap() {
                if let ReceiverRecord::WantChunk { index, spans } = record {
                    return Some((index, spans.iter().map(|span| span.len_bytes).sum()));
                }
            }
            let bytes = self.wants.read().await.ok()??;
            self.reader.push(bytes);
        }
    }

    async fn chunk(&self, index: u64, len_bytes: u64, data: &[u8]) {
        let source = Claimed { len_bytes, data: Bytes::copy_from_slice(data) };
        let tag = TaggedChunk { transfer: self.transfer, index };
        let _ = self.connection.send_tagged_chunk(tag, source, &transfer_lane()).await;
    }

    /// Stays until the victim hangs up.
    pub(super) async fn linger(&mut self) {
        while self.want().await.is_some() {}
    }
}

pub(super) type Script = Box<dyn Fn(Stage) -> BoxFuture<'static, ()> + Send + Sync>;

pub(super) fn script<F>(run: impl Fn(Stage) -> F + Send + Sync + 'static) -> Script
where
    F: Future<Output = ()> + Send + 'static,
{
    Box::new(move |stage| Box::pin(run(stage)))
}

/// Fetches from a liar that offers `shape` and then plays `script`; the destination is handed back.
async fn fetch_from(shape: TransferShape, script: Script) -> (Result<FetchReport, FetchError>, TempDir) {
    fetch_within(PATIENT, shape, script).await
}

pub(super) async fn fetch_within(
    patience: Duration,
    shape: TransferShape,
    script: Script,
) -> (Result<FetchReport, FetchError>, TempDir) {
    let liar = Liar::meet(patience, shape, script).await;
    let dir = TempDir::new().unwrap();
    let limit = tokio::time::timeout(PATIENT / 2, fetch(&liar.rpc, dir.path()));
    (limit.await.expect("no liar holds a get up for long"), dir)
}

/// A victim's connection to a liar.
pub(super) struct Liar {
    pub(super) rpc: RpcClient,
    _both: [Arc<QuicTransport>; 2],
}

impl Liar {
    pub(super) async fn meet(patience: Duration, shape: TransferShape, script: Script) -> Self {
        let (server, client) = (transport(patience), transport(patience));
        let script = Arc::new(script);
        let router = Router::new()
            .typed(FETCH_OPEN, move |context, request| {
                let (shape, script) = (shape.clone(), Arc::clone(&script));
                async move {
                    let transfer = TransferId::from_bytes(request.transfer);
                    let mut claim = context.connection.claim(transfer).unwrap();
                    let connection = context.connection;
                    tokio::spawn(async move {
                        let Some(TransferStream::Records(BiStream { send, recv })) = claim.next().await
                        else {
                            return;
                        };
                        let reader = RecordReader::new();
                        script(Stage { connection, transfer, send, wants: recv, reader }).await;
                    });
                    Ok(FetchOpened { shape, digest: 2 })
                }
            })
            .typed(CONFIRM, |_context, _request| async {
                Err::<Confirmed, _>(Fault::new(FaultCode::Integrity, "liar"))
            });
        let addr = PeerAddr { id: server.peer_id(), addr: server.local_addr().unwrap() };
        let (accepted, connected) = tokio::join!(server.accept(), client.connect_to(addr));
        tokio::spawn(Arc::new(router).serve(accepted.unwrap().1));
        Self { rpc: RpcClient::new(connected.unwrap()), _both: [server, client] }
    }
}

pub(super) async fn fetch(rpc: &RpcClient, dest: &Path) -> Result<FetchReport, FetchError> {
    let options = TransferOptions { lanes: 4, chunk_len_bytes: 1024, ..TransferOptions::default() };
    fetch_with(rpc, dest, &options).await
}

async fn fetch_with(
    rpc: &RpcClient,
    dest: &Path,
    options: &TransferOptions,
) -> Result<FetchReport, FetchError> {
    let fetch = Fetch::open_with(rpc, b"it", options).await?;
    let receive = ReceiveOptions {
        overwrite: false,
        promise: Promise::Durable,
        verify: false,
        digest: DigestAlgorithm::Blake3,
        chunk_len_bytes: 1024,
    };
    let target = Destination::open(dest, fetch.shape(), fetch.job(), receive).map_err(TransferError::from)?;
    fetch.receive(target, Promise::Durable, options, Arc::new(|_| ())).await
}

/// What is in the destination under a name of its own.
fn published(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with(".shiplane-"))
        .collect();
    names.sort();
    names
}

pub(super) fn end(entries: u64, total_bytes: u64) -> ProviderRecord {
    ProviderRecord::End { entries, total_bytes }
}

pub(super) fn transfer_error(result: Result<FetchReport, FetchError>) -> TransferError {
    match result.expect_err("a liar must not get away with it") {
        FetchError::Transfer(error) => error,
        other => panic!("not the transfer's own error: {other}"),
    }
}

#[tokio::test]
async fn names_that_lead_out_or_hide_are_refused() {
    let names: [&[u8]; 14] = [
        b"../x",
        b"a/../../x",
        b"/etc/x",
        b"",
        b".",
        b"..",
        b"a//b",
        b"a/",
        b"a/./b",
        b"new\nline",
        b"re\rturn",
        b"nul\0",
        &[b'n'; 256],
        &[b"d/".repeat(64), b"f".to_vec()].concat(),
    ];
    for name in names {
        let raw = file_called(name);
        let (result, dir) = fetch_from(
            TransferShape::Root,
            script(move |mut stage| {
                let raw = raw.clone();
                async move {
                    stage.say_raw(raw).await;
                    stage.say(&[end(1, 1)]).await;
                    stage.linger().await;
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
            TransferShape::Root,
            script(move |mut stage| {
                let manifest = manifest.clone();
                async move {
                    stage.say(&manifest).await;
                    stage.linger().await;
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
async fn a_file_that_was_not_asked_for_is_refused() {
    let shape = TransferShape::File { name: b"wanted".to_vec() };
    let (result, dir) = fetch_from(
        shape,
        script(|mut stage| async move {
            stage.say(&[file("authorized_keys", 1), end(1, 1)]).await;
            stage.linger().await;
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
            TransferShape::Root,
            script(move |mut stage| async move {
                stage.say(&[file("x", 5), end(entries, total_bytes)]).await;
                stage.linger().await;
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
            TransferShape::Root,
            script(move |mut stage| async move {
                stage.say(&[file("x", 5), end(1, 5)]).await;
                while let Some((index, _)) = stage.want().await {
                    for _ in 0..3 {
                        stage.chunk(index, len_bytes, data).await;
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
        TransferShape::Root,
        script(|mut stage| async move {
            stage.say(&[file("x", 5), end(1, 5)]).await;
            while let Some((index, len_bytes)) = stage.want().await {
                for _ in 0..3 {
                    stage.chunk(index, len_bytes, b"shor").await;
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
async fn chunks_nobody_wants_are_the_peers_fault() {
    let (result, dir) = fetch_from(
        TransferShape::Root,
        script(|mut stage| async move {
            stage.say(&[file("x", 5), end(1, 5)]).await;
            let (index, _) = stage.want().await.unwrap();
            stage.chunk(index + 9, 5, b"hello").await;
            stage.linger().await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Protocol(_)));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn a_chunk_that_comes_again_with_other_content_changes_nothing() {
    let (result, dir) = fetch_from(
        TransferShape::Root,
        script(|mut stage| async move {
            stage.say(&[file("x", 1024), file("y", 1024), end(2, 2048)]).await;
            let wanted = [stage.want().await.unwrap(), stage.want().await.unwrap()];
            assert_eq!(wanted, [(0, 1024), (1, 1024)]);
            stage.chunk(0, 1024, &[b'1'; 1024]).await;
            stage.chunk(0, 1024, &[b'2'; 1024]).await;
            stage.chunk(1, 1024, &[b'y'; 1024]).await;
            stage.linger().await;
        }),
    )
    .await;
    // All has come, so that only the liar's confirmation is missing.
    assert!(matches!(result, Err(FetchError::Confirm(_))), "{result:?}");
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
            TransferShape::Root,
            script(move |mut stage| {
                let raw = Bytes::from(raw.clone());
                async move {
                    stage.say_raw(raw).await;
                    stage.say(&[end(1, 1)]).await;
                    stage.linger().await;
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
        TransferShape::Root,
        script(move |mut stage| async move {
            let entries = ["a", "b", "c", "d", "e"].map(|name| file(name, huge));
            stage.say(&entries).await;
            stage.say(&[end(5, huge.wrapping_mul(5))]).await;
            stage.linger().await;
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
async fn an_index_at_the_end_of_the_numbers_is_nobodys_chunk() {
    let (result, dir) = fetch_from(
        TransferShape::Root,
        script(|mut stage| async move {
            stage.say(&[file("x", 5), end(1, 5)]).await;
            stage.want().await.unwrap();
            stage.chunk(u64::MAX, 5, b"hello").await;
            stage.linger().await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Protocol(_)));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn withholding_a_chunk_needs_a_reason() {
    let (result, dir) = fetch_from(
        TransferShape::Root,
        script(|mut stage| async move {
            stage.say(&[file("x", 5), end(1, 5)]).await;
            let (index, _) = stage.want().await.unwrap();
            stage.say(&[ProviderRecord::ChunkVoid { index }]).await;
            stage.linger().await;
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
        ProviderRecord::Failed { entry: 7, reason: shiplane_wire::FailReason::Changed },
        ProviderRecord::ChunkVoid { index: 0 },
        file("late", 0),
        end(1, 5),
    ];
    for record in misplaced {
        let told = format!("{record:?}");
        let (result, dir) = fetch_from(
            TransferShape::Root,
            script(move |mut stage| {
                let record = record.clone();
                async move {
                    stage.say(&[file("x", 5), end(1, 5), record]).await;
                    stage.linger().await;
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
    let (result, dir) =
        fetch_within(IMPATIENT, TransferShape::Root, script(|mut stage| async move { stage.linger().await }))
            .await;
    assert!(matches!(transfer_error(result), TransferError::Silent { .. }));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn a_provider_that_never_sends_what_was_wanted_is_given_up() {
    let (result, dir) = fetch_within(
        IMPATIENT,
        TransferShape::Root,
        script(|mut stage| async move {
            stage.say(&[file("x", 5), end(1, 5)]).await;
            stage.linger().await;
        }),
    )
    .await;
    assert!(matches!(transfer_error(result), TransferError::Silent { .. }));
    assert!(published(&dir).is_empty());
}

#[tokio::test]
async fn a_provider_that_does_not_confirm_is_told_on() {
    let (result, dir) = fetch_from(
        TransferShape::Root,
        script(|mut stage| async move {
            stage.say(&[file("x", 5), end(1, 5)]).await;
            let (index, _) = stage.want().await.unwrap();
            stage.chunk(index, 5, b"hello").await;
            stage.linger().await;
        }),
    )
    .await;
    match result.unwrap_err() {
        FetchError::Confirm(CallError::Fault(fault)) => assert_eq!(fault.code, FaultCode::Integrity),
        other => panic!("{other}"),
    }
    // What arrived was verified against its own digests; it stays.
    assert_eq!(published(&dir), ["x"]);
}

#[tokio::test]
async fn whoever_hears_that_it_failed_finds_nobody_at_work_any_more() {
    let liar = Liar::meet(
        PATIENT,
        TransferShape::Root,
        script(|mut stage| async move {
            stage.say(&[file("slow", 5), end(1, 6)]).await;
            stage.linger().await;
        }),
    )
    .await;
    let (target, held) = Held::planning();
    let fetch = Fetch::open(&liar.rpc, b"it").await.unwrap();
    let options = TransferOptions { lanes: 4, chunk_len_bytes: 1024, ..TransferOptions::default() };
    let failed = fetch.receive(target, Promise::Durable, &options, Arc::new(|_| ())).await;
    assert!(matches!(transfer_error(failed), TransferError::Protocol(_)));
    assert_eq!(held.clones(), 0);
}

#[tokio::test]
async fn a_disk_that_fails_is_the_cause_though_the_provider_hangs_up_before_that_is_noticed() {
    let (target, held) = Held::writing();
    let held = Arc::new(held);
    let liar = Liar::meet(
        PATIENT,
        TransferShape::Root,
        script(move |mut stage| {
            let held = Arc::clone(&held);
            async move {
                stage.say(&[file("x", 5), end(1, 5)]).await;
                let (index, _) = stage.want().await.unwrap();
                let source = Claimed { len_bytes: 5, data: Bytes::from_static(b"hello") };
                let tag = TaggedChunk { transfer: stage.transfer, index };
                let connection = Arc::clone(&stage.connection);
                tokio::spawn(async move {
                    let _ = connection.send_tagged_chunk(tag, source, &transfer_lane()).await;
                });
                held.is_at_work().await;
            }
        }),
    )
    .await;
    let fetch = Fetch::open(&liar.rpc, b"it").await.unwrap();
    let options = TransferOptions { lanes: 4, chunk_len_bytes: 1024, ..TransferOptions::default() };
    let failed = fetch.receive(target, Promise::Durable, &options, Arc::new(|_| ())).await;
    let error = transfer_error(failed);
    assert!(matches!(error, TransferError::Destination(DestinationError::QuotaExceeded { .. })), "{error}");
}
