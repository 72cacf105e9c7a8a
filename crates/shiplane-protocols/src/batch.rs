//! Sends many chunks to one peer with bounded concurrency, each with its own result.

use std::{fmt::Display, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream};
use shiplane_transport::{ChunkSource, LaneOptions, QuicTransport};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::{PeerTarget, TransferResult};

/// A source of a chunk, with a name for errors.
pub trait BatchSource: Clone + Send + Sync + 'static {
    /// The chunk to send.
    fn chunk(&self) -> ChunkSource;

    /// The name in error messages.
    fn name(&self) -> String;
}

/// Options for a batch.
#[derive(Debug, Clone)]
pub struct BatchOptions {
    max_concurrent: usize,
    lane: LaneOptions,
}

impl BatchOptions {
    /// Sets how many chunks are sent concurrently, at least 1. More than the peer's stream limit has no effect.
    #[must_use]
    pub fn max_concurrent(mut self, max_concurrent: usize) -> Self {
        self.max_concurrent = max_concurrent;
        self
    }

    /// Sets the options of each chunk. All chunks share its rate limiter.
    #[must_use]
    pub fn lane(mut self, lane: LaneOptions) -> Self {
        self.lane = lane;
        self
    }
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { max_concurrent: DEFAULT_CONCURRENT, lane: LaneOptions::default() }
    }
}

/// Sends every source to `peer` as a bare chunk, at most `max_concurrent` at a time, and returns when
/// all have ended: one result a source, in the sources' order.
///
/// One that fails, by a missing file or even a panic, fails alone; its error names it. The receiver
/// takes the chunks in any order.
///
/// Not cancel-safe: dropping cancels what is under way, and the receiver keeps nothing of that.
///
/// ```no_run
/// # async fn example(transport: std::sync::Arc<shiplane_transport::QuicTransport>) {
/// use shiplane_protocols::{BatchOptions, transfer_batch};
/// let peer: std::net::SocketAddr = ([192, 0, 2, 7], 4433).into();
/// let files: Vec<std::path::PathBuf> = vec!["a.log".into(), "b.log".into()];
/// for (file, result) in transfer_batch(&transport, peer, files, &BatchOptions::default()).await {
///     println!("{}: {}", file.display(), result.error.as_deref().unwrap_or("sent"));
/// }
/// # }
/// ```
pub async fn transfer_batch<S: BatchSource>(
    transport: &Arc<QuicTransport>,
    peer: impl Into<PeerTarget>,
    sources: Vec<S>,
    options: &BatchOptions,
) -> Vec<(S, TransferResult)> {
    let target = peer.into();
    let transfer = |(index, source): (usize, S)| {
        let (transport, lane) = (Arc::clone(transport), options.lane.clone());
        let sent = source.clone();
        async move {
            // A task of its own, spawned when its turn has come: a panic ends no other.
            let task = tokio::spawn(async move { send(&transport, target, &sent, &lane).await });
            let task = AbortOnDropHandle::new(task);
            let result = task.await.unwrap_or_else(|panicked| failure(target, &source.name(), &panicked));
            (index, source, result)
        }
    };
    let under_way = stream::iter(sources.into_iter().enumerate())
        .map(transfer)
        .buffer_unordered(options.max_concurrent.max(1));
    let mut results: Vec<_> = under_way.collect().await;
    results.sort_unstable_by_key(|(index, ..)| *index);
    results.into_iter().map(|(_, source, result)| (source, result)).collect()
}

async fn send<S: BatchSource>(
    transport: &QuicTransport,
    target: PeerTarget,
    source: &S,
    lane: &LaneOptions,
) -> TransferResult {
    let start = Instant::now();
    let connection = match target.connect(transport).await {
        Ok(connection) => connection,
        Err(error) => return failure(target, &source.name(), &error),
    };
    match connection.send_chunk_with(&source.chunk(), lane).await {
        Ok(bytes) => TransferResult::success(target.addr(), bytes, start.elapsed()),
        Err(error) => TransferResult { duration: start.elapsed(), ..failure(target, &source.name(), &error) },
    }
}

fn failure(target: PeerTarget, name: &str, error: &dyn Display) -> TransferResult {
    TransferResult::failure(target.addr(), format!("{name}: {error}"))
}

impl BatchSource for PathBuf {
    fn chunk(&self) -> ChunkSource {
        ChunkSource::File(self.clone())
    }

    fn name(&self) -> String {
        self.display().to_string()
    }
}

impl BatchSource for Bytes {
    fn chunk(&self) -> ChunkSource {
        ChunkSource::Memory(self.clone())
    }

    fn name(&self) -> String {
        format!("{} bytes in memory", self.len())
    }
}

impl BatchSource for ChunkSource {
    fn chunk(&self) -> ChunkSource {
        self.clone()
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.name(),
            Self::Memory(data) => data.name(),
        }
    }
}

/// 5: enough to hide the wait for each status.
const DEFAULT_CONCURRENT: usize = 5;
