//! The server side of snapshots.

use std::sync::Arc;

use shiplane_rpc::{Fault, FaultCode, RequestContext, Router};
use shiplane_transport::{
    LaneOptions,
    internals::{ChunkRead, SourceError, blocking},
};
use shiplane_wire::{TaggedChunk, TransferId, escape_truncated};
use tokio::sync::Semaphore;

use super::{
    OPEN, Open, Opened,
    store::{Snapshot, SnapshotStore},
};

/// Serves the snapshots of a store to peers.
#[derive(Debug, Clone)]
pub struct SnapshotServer {
    store: Arc<SnapshotStore>,
    lane: LaneOptions,
    permits: Arc<Semaphore>,
}

impl SnapshotServer {
    /// Creates a server for `store`. All transfers share the rate limit of `lane`.
    #[must_use]
    pub fn new(store: Arc<SnapshotStore>, lane: LaneOptions) -> Self {
        Self { store, lane, permits: Arc::new(Semaphore::new(MAX_CONCURRENT)) }
    }

    /// Adds the method `snapshot.open` to a router.
    #[must_use]
    pub fn methods(&self, router: Router) -> Router {
        let server = self.clone();
        router.typed(OPEN, move |context, request| {
            let server = server.clone();
            async move { server.open(context, request).await }
        })
    }

    async fn open(self, context: RequestContext, request: Open) -> Result<Opened, Fault> {
        let snapshot = self.store.get(&request.id).ok_or_else(|| unknown(&request.id))?;
        let busy = |_| Fault::new(FaultCode::Busy, "too many snapshots are being sent; try again later");
        let place = Arc::clone(&self.permits).try_acquire_owned().map_err(busy)?;
        let info = snapshot.info;
        let source = open(snapshot).await?;
        let transfer = TransferId::from_bytes(request.transfer);
        tokio::spawn(async move {
            let _place = place;
            let tag = TaggedChunk { transfer, index: 0 };
            let peer = context.peer.short();
            match context.connection.send_tagged_chunk(tag, source, &self.lane).await {
                Ok(sent) => tracing::info!(%peer, %transfer, bytes = sent.len_bytes, "snapshot sent"),
                Err(error) => tracing::warn!(%peer, %transfer, %error, "snapshot not sent"),
            }
        });
        Ok(Opened { len_bytes: info.len_bytes, digest: *info.digest.as_bytes() })
    }
}

/// Opened before the answer, so that it reports a missing file.
async fn open(snapshot: Snapshot) -> Result<Box<dyn ChunkRead>, Fault> {
    let opened = blocking::spawn(move || {
        let source = snapshot.source.open()?;
        if source.len_bytes() == snapshot.info.len_bytes { Ok(source) } else { Err(SourceError::Changed) }
    });
    match opened.await {
        Ok(Ok(source)) => Ok(source),
        Ok(Err(SourceError::Changed)) => {
            Err(Fault::new(FaultCode::SourceChanged, "the snapshot has changed"))
        }
        Ok(Err(SourceError::Io(_) | SourceError::Abandoned)) | Err(_) => {
            Err(Fault::new(FaultCode::SourceIo, "the snapshot cannot be read"))
        }
    }
}

fn unknown(id: &str) -> Fault {
    let shown = escape_truncated(id.as_bytes(), super::MAX_ID_LEN_BYTES);
    Fault::new(FaultCode::NotFound, format!("no snapshot {shown}"))
}

/// 64: each has a file open and some buffers in memory.
const MAX_CONCURRENT: usize = 64;
