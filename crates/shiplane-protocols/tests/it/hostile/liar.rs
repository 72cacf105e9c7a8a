//! The harness of a lying provider.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use shiplane_files::internals::{Destination, LinkPolicy, ReceiveOptions};
use shiplane_protocols::internals::{
    Fetch, FetchError, FetchRequest,
    transfer::{FilesReport, TransferError, TransferOptions},
};
use shiplane_rpc::{Router, RpcClient};
use shiplane_transport::{
    PeerAddr, PeerConnection, QuicTransport, SendChunkError,
    internals::{BiStream, RecvHalf, SendHalf, SentChunk},
};
use shiplane_wire::{
    DigestAlgorithm, Durability, ProviderRecord, ReceiverRecord, RecordReader, Span, TaggedChunk, TransferId,
};
use tempfile::TempDir;

use super::{Claimed, FETCH_OPEN, FetchOpened, PATIENT, TransferShape, encode, transport};
use crate::harness::transfer_lane;

/// What the liar has in hand once it has opened its records stream.
pub(super) struct Fixture {
    pub(super) connection: Arc<PeerConnection>,
    pub(super) transfer: TransferId,
    pub(super) send: SendHalf,
    pub(super) wants: RecvHalf,
    reader: RecordReader<ReceiverRecord>,
}

impl Fixture {
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
        let (index, spans) = self.want_of_spans().await?;
        Some((index, spans.iter().map(|span| span.len_bytes).sum()))
    }

    pub(super) async fn want_of_spans(&mut self) -> Option<(u64, Vec<Span>)> {
        loop {
            if let ReceiverRecord::WantChunk { index, spans } = self.hear().await? {
                return Some((index, spans));
            }
        }
    }

    /// Whatever the victim says next; `None` once it has hung up.
    pub(super) async fn hear(&mut self) -> Option<ReceiverRecord> {
        loop {
            if let Some(record) = self.reader.poll().unwrap() {
                return Some(record);
            }
            let bytes = self.wants.read().await.ok()??;
            self.reader.push(bytes);
        }
    }

    pub(super) async fn chunk(&self, index: u64, len_bytes: u64, data: &[u8]) {
        let _ = self.try_chunk(index, len_bytes, data).await;
    }

    pub(super) async fn try_chunk(
        &self,
        index: u64,
        len_bytes: u64,
        data: &[u8],
    ) -> Result<SentChunk, SendChunkError> {
        let source = Claimed { len_bytes, data: Bytes::copy_from_slice(data) };
        let tag = TaggedChunk { transfer: self.transfer, index };
        self.connection.send_tagged_chunk(tag, source, &transfer_lane()).await
    }

    /// Stays until the victim hangs up.
    pub(super) async fn linger(&mut self) {
        while self.want().await.is_some() {}
    }
}

pub(super) type Script = Box<dyn Fn(Fixture) -> BoxFuture<'static, ()> + Send + Sync>;

pub(super) fn script<F>(run: impl Fn(Fixture) -> F + Send + Sync + 'static) -> Script
where
    F: Future<Output = ()> + Send + 'static,
{
    Box::new(move |fixture| Box::pin(run(fixture)))
}

/// Fetches from a liar that offers `shape` and then plays `script`; the destination is handed back.
pub(super) async fn fetch_from(
    shape: TransferShape,
    script: Script,
) -> (Result<FilesReport, FetchError>, TempDir) {
    fetch_within(PATIENT, shape, script).await
}

pub(super) async fn fetch_within(
    patience: Duration,
    shape: TransferShape,
    script: Script,
) -> (Result<FilesReport, FetchError>, TempDir) {
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
        let router = Router::new().typed(FETCH_OPEN, move |context, request| {
            let (shape, script) = (shape.clone(), Arc::clone(&script));
            async move {
                let (transfer, connection) = (TransferId::from_bytes(request.transfer), context.connection);
                tokio::spawn(async move {
                    // The victim may be gone already.
                    let Ok(BiStream { send, recv }) = connection.open_records(transfer).await else { return };
                    let reader = RecordReader::new();
                    script(Fixture { connection, transfer, send, wants: recv, reader }).await;
                });
                Ok(FetchOpened { shape, digest: 2 })
            }
        });
        let addr = PeerAddr { id: server.peer_id(), addr: server.local_addr().unwrap() };
        let (accepted, connected) = tokio::join!(server.accept(), client.connect_to(addr));
        tokio::spawn(Arc::new(router).serve(accepted.unwrap().1));
        Self { rpc: RpcClient::new(connected.unwrap()), _both: [server, client] }
    }
}

pub(super) async fn fetch(rpc: &RpcClient, dest: &Path) -> Result<FilesReport, FetchError> {
    fetch_with(rpc, false, dest, &small_chunks()).await
}

pub(super) fn small_chunks() -> TransferOptions {
    TransferOptions { lanes: 4, chunk_len_bytes: 1024, ..TransferOptions::default() }
}

pub(super) async fn fetch_with(
    rpc: &RpcClient,
    is_new_here: bool,
    dest: &Path,
    options: &TransferOptions,
) -> Result<FilesReport, FetchError> {
    let request = FetchRequest { path: b"it".to_vec(), is_new_here, ..FetchRequest::default() };
    let fetch = Fetch::open(rpc, request, options).await?;
    let target = Destination::open(dest, fetch.shape(), fetch.job(), receive_options());
    fetch.receive(target.map_err(TransferError::from)?, options, Arc::new(|_| ())).await
}

pub(super) fn receive_options() -> ReceiveOptions {
    ReceiveOptions {
        existing: shiplane_files::internals::Existing::Refuse,
        durability: Durability::Durable,
        verify: false,
        links: LinkPolicy::All,
        attributes: false,
        digest: DigestAlgorithm::Blake3,
        chunk_len_bytes: 1024,
    }
}

/// What is in the destination under a name of its own.
pub(super) fn published(dir: &TempDir) -> Vec<String> {
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

pub(super) fn transfer_error(result: Result<FilesReport, FetchError>) -> TransferError {
    match result.expect_err("a liar must not get away with it") {
        FetchError::Transfer(error) => error,
        other => panic!("not the transfer's own error: {other}"),
    }
}
