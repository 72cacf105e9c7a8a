//! Lists the source of a provider.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use shiplane_files::internals::{LinkPolicy, Scanned, Source, SourceError};
use shiplane_transport::internals::blocking;
use shiplane_wire::Entry;
use tokio::sync::mpsc;

use super::super::budget::Reservation;

/// Some of what there is, or why it cannot be listed.
pub(super) type ScanBatch = Result<Vec<Scanned>, SourceError>;

/// The list of the source, which a blocking thread makes in batches.
pub(super) struct Listing {
    batches: mpsc::Receiver<ScanBatch>,
    source: Arc<Source>,
}

impl Listing {
    pub(super) fn start(
        source: &Arc<Source>,
        links: LinkPolicy,
        names: Reservation,
        scanned_entries: Arc<AtomicU64>,
    ) -> Self {
        let (outlet, batches) = mpsc::channel(SCAN_BATCHES_AHEAD);
        let listed = Arc::clone(source);
        // Begun here, or a thread that starts late would end the listing after it.
        let parts = source.input().map(|_| source.parts());
        blocking::spawn_waiting(move || {
            let count = || _ = scanned_entries.fetch_add(1, Ordering::Relaxed);
            match parts {
                Some(parts) => list_parts(parts.inspect(|_| count()), &outlet),
                None => list_all(&listed, links, names, count, &outlet),
            }
        });
        Self { batches, source: Arc::clone(source) }
    }

    /// The next batch; `None` after the last. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<ScanBatch> {
        self.batches.recv().await
    }
}

impl Drop for Listing {
    /// Waiters for an input wait no longer.
    fn drop(&mut self) {
        self.source.input().inspect(|input| input.stop_listing());
    }
}

/// Each part goes as it comes.
fn list_parts(parts: impl Iterator<Item = Result<Entry, SourceError>>, outlet: &mpsc::Sender<ScanBatch>) {
    for part in parts {
        let failed = part.is_err();
        if blocking::send(outlet, part.map(|part| vec![Scanned::Entry(part)])).is_err() || failed {
            return;
        }
    }
}

fn list_all(
    source: &Source,
    links: LinkPolicy,
    names: Reservation,
    count: impl Fn(),
    outlet: &mpsc::Sender<ScanBatch>,
) {
    let mut scan = source.scan();
    scan.take_links(links);
    scan.link_names(Box::new(names));
    let mut scan = scan.inspect(|_| count());
    loop {
        let batch: ScanBatch = next_of(&mut scan).collect();
        let (is_end, failed) = (batch.as_ref().is_ok_and(Vec::is_empty), batch.is_err());
        // Nobody receives any more once the transfer is over.
        if is_end || blocking::send(outlet, batch).is_err() || failed {
            return;
        }
    }
}

/// As many as make a batch.
fn next_of<S>(scan: &mut S) -> impl Iterator<Item = Result<Scanned, SourceError>> + '_
where
    S: Iterator<Item = Result<Scanned, SourceError>>,
{
    let (mut len, mut cost_bytes) = (0, 0);
    std::iter::from_fn(move || {
        if len >= SCAN_BATCH_LEN || cost_bytes >= SCAN_BATCH_BYTES {
            return None;
        }
        let next = scan.next()?;
        len += 1;
        cost_bytes += match &next {
            Ok(Scanned::Entry(entry)) => entry.cost_bytes(),
            Ok(Scanned::LeftOut { path, .. }) => path.as_str().len() as u64,
            Ok(Scanned::Top(_)) | Err(_) => 0,
        };
        Some(next)
    })
}

/// Large enough that a batch's hand-over costs nothing, small enough to start sending at once.
const SCAN_BATCH_LEN: usize = 256;

/// 128 KiB: what a batch may count as, where paths are long.
const SCAN_BATCH_BYTES: u64 = 128 << 10;

/// Batches that the scan may be ahead of the records stream.
const SCAN_BATCHES_AHEAD: usize = 4;
