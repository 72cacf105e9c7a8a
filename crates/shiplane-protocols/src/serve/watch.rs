//! The callee's side of watching a dataset (SPEC 5.25).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use shiplane_files::internals::{
    CountedMemory, SourceRoot,
    sync::{DatasetWatch, Unwatched, watch as watch_tree},
};
use shiplane_rpc::{Fault, RequestContext};
use shiplane_transport::PeerId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    concurrency::{ConcurrencyLimit, ConcurrencyPermit},
    registry::{gone, unless},
};
use crate::{
    lock,
    methods::{Step, not_served},
    off_thread,
    sync::{
        messages::{SyncWatch, SyncWatched},
        watch::number_of,
    },
    transfer::MemoryBudget,
};

/// The datasets that are watched for peers, each until the connection ends that it was begun on.
#[derive(Debug)]
pub(super) struct Watches {
    watched: Arc<Mutex<HashMap<Key, Arc<Watched>>>>,
    limit: ConcurrencyLimit,
}

/// One peer cannot see or disturb the watches of another.
type Key = (PeerId, [u8; 16]);

#[derive(Debug)]
struct Watched {
    path: Vec<u8>,
    changes: watch::Receiver<u64>,
    tree: Arc<DatasetWatch>,
    _filters: Box<dyn CountedMemory>,
    _permit: ConcurrencyPermit,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self { watched: Arc::default(), limit: ConcurrencyLimit::new(MAX_WATCHES, MAX_WATCHES_PER_PEER) }
    }

    /// The peer's watch of a path by its id.
    pub(super) fn of(&self, peer: PeerId, watch: [u8; 16], path: &[u8]) -> Option<Arc<DatasetWatch>> {
        let watched = lock(&self.watched).get(&(peer, watch)).cloned();
        watched.filter(|watched| watched.path == path).map(|watched| Arc::clone(&watched.tree))
    }

    /// Begins a watch, until the connection ends or `closing` is cancelled.
    pub(super) async fn begin(
        &self,
        context: &RequestContext,
        request: SyncWatch,
        root: &SourceRoot,
        memory: &MemoryBudget,
        closing: &CancellationToken,
    ) -> Result<Step<SyncWatched>, Fault> {
        let SyncWatch { watch, path, filters, seen: _ } = request;
        let permit = self.limit.take(context.peer)?;
        let filtered = filters.agree(memory, context.peer).await?;
        let (changed, changes) = watch::channel(0);
        let (root, memory, place) = (root.clone(), memory.of_requests(context.peer), path.clone());
        let begun = off_thread(move || {
            let on_change = move || changed.send_modify(|changes| *changes += 1);
            watch_tree(&root, &place, filtered.filters, memory, on_change)
        });
        let tree = begun.await?.map_err(|error| not_served(&error))?;
        let watched = Arc::new(Watched {
            path,
            changes,
            tree: tree.into(),
            _filters: filtered.memory,
            _permit: permit,
        });
        let noticed = watched.noticed();
        let key = (context.peer, watch);
        lock(&self.watched).insert(key, Arc::clone(&watched));
        let (connection, closing) = (Arc::clone(&context.connection), closing.clone());
        let (all, watched) = (Arc::clone(&self.watched), Arc::downgrade(&watched));
        tokio::spawn(async move {
            tokio::select! {
                _ = connection.closed() => {}
                () = closing.cancelled() => {}
            }
            let mut all = lock(&all);
            // Unless another one has its name by now.
            if all.get(&key).is_some_and(|watched_now| watched.as_ptr() == Arc::as_ptr(watched_now)) {
                all.remove(&key);
            }
        });
        Ok(Step::Done(noticed))
    }

    /// Waits for what the caller has not seen.
    pub(super) async fn changed(
        &self,
        context: &RequestContext,
        request: &SyncWatch,
        seen: u64,
        closing: &CancellationToken,
    ) -> Result<Step<SyncWatched>, Fault> {
        let watched = lock(&self.watched).get(&(context.peer, request.watch)).cloned();
        let watched = watched.filter(|watched| watched.path == request.path);
        let watched = watched.ok_or_else(|| gone("no such watch"))?;
        let mut changes = watched.changes.clone();
        let left = context.deadline.saturating_duration_since(tokio::time::Instant::now());
        // What it gives would keep those waiting that notice changes.
        let changed = async { changes.wait_for(|changes| *changes != seen).await.map(drop) };
        let changed = tokio::time::timeout(left / 2, changed);
        match unless(closing, changed).await? {
            Ok(Ok(())) => Ok(Step::Done(watched.noticed())),
            Ok(Err(_)) => Err(gone("the watch has ended")),
            Err(_) => Ok(Step::Working),
        }
    }
}

impl Watched {
    fn noticed(&self) -> SyncWatched {
        let unwatched = self.tree.unwatched();
        let unwatched = unwatched.map(|Unwatched { limit, value }| (number_of(limit), value));
        SyncWatched { changes: *self.changes.borrow(), unwatched }
    }
}

/// 64: each has two threads.
const MAX_WATCHES: usize = 64;

/// 8: a peer that syncs more directories can watch the directory that they are in.
const MAX_WATCHES_PER_PEER: usize = 8;
