//! The caller's side of a sync.

mod attempt;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use shiplane_files::internals::{
    Filters, SourceRoot,
    sync::{Action, Consent, Relisting, Side, SyncState, UnresolvedReason},
};
use shiplane_rpc::RpcClient;
use shiplane_transport::PeerId;
use shiplane_wire::{Digest, LeftOutReason, RelPath};
use tokio::time::Instant;

use self::attempt::Attempt;
use super::SyncError;
use crate::transfer::{TransferEvent, TransferOptions};

/// What is to be synced, and how.
#[derive(Debug, Clone)]
pub struct SyncJob {
    /// This side's directory. It must be there.
    pub directory: PathBuf,
    /// The same, open: then it must still be the directory that it was.
    pub root: Option<SourceRoot>,
    /// The peer's, below what it serves; empty for all of that. It is created if we may.
    pub remote_path: Vec<u8>,
    /// Where this side remembers what was common.
    pub state: SyncState,
    /// This side's key. Of two that begin at the same moment, the greater one steps back.
    pub own: PeerId,
    /// The one side that is changed, in a sync in one direction.
    pub only_to: Option<Side>,
    /// What the user agrees to.
    pub consent: Consent,
    /// What is not part of it, on either side.
    pub filters: Arc<Filters>,
    /// Whether owners, access lists and extended attributes are part of it.
    pub attributes: bool,
    /// Whether to say what is to be done, and do nothing.
    pub dry_run: bool,
    /// Of a directory that is watched: how it is listed again.
    pub relisting: Option<Relisting>,
    /// The id of the watch of the peer's.
    pub peer_watch: Option<[u8; 16]>,
    /// How files are carried, both ways. Of rate and compression, the peer may want less; each direction counts as
    /// a transfer.
    pub transfer: TransferOptions,
}

/// What a sync came to. What the actions say is done and durable on both sides, but for what was left.
#[derive(Debug, Clone)]
pub struct SyncReport {
    /// What was to be done, on both sides; none if they were the same.
    pub actions: Vec<Action>,
    /// What was left alone, for the next sync.
    pub left: Vec<LeftPath>,
    /// How many more the peer has left alone than are named.
    pub left_unnamed: u64,
    /// What of either side's directory is not listed: on which side, why, and the escaped path.
    pub unlisted: Vec<(Side, LeftOutReason, String)>,
    /// Digest of the manifest that both have now, or would have.
    pub digest: Digest,
    /// How many files that is.
    pub files: u64,
    /// Payload bytes that went to the peer.
    pub sent_bytes: u64,
    /// Payload bytes that came from it.
    pub received_bytes: u64,
    /// Both as they travelled: less, if they were compressed.
    pub wire_bytes: u64,
    /// Chunks, both ways.
    pub chunks: u64,
}

/// Something that was left alone.
#[derive(Debug, Clone)]
pub struct LeftPath {
    /// On which side.
    pub side: Side,
    /// Where.
    pub path: RelPath,
    /// Why.
    pub why: UnresolvedReason,
}

/// Called from any thread of the sync, so it must be quick.
pub type SyncEventFn = Arc<dyn Fn(SyncEvent) + Send + Sync>;

/// One step of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncEvent {
    /// One of the two sides is being synced by somebody else: waiting.
    Waiting,
    /// This side's files are being listed and read.
    Scanning,
    /// The peer compares.
    Comparing,
    /// This is to be done.
    Planned(Arc<[Action]>),
    /// Of what goes to the peer.
    Sending(TransferEvent),
    /// Of what comes from it.
    Receiving(TransferEvent),
    /// Everything has been sent and received; both sides make it durable.
    Settling,
}

/// Brings a directory and one of the peer's together, as `plan` says, and remembers on both
/// sides what they have in common then. Two that are the same already cost one call, or two if
/// this side's list takes longer than a round trip.
///
/// While one of the two directories is being synced by somebody else, waits for it, 60 s at most.
///
/// Not cancel-safe: dropping it ends the sync in the middle. Nothing is lost by that, as by any failure: each
/// file is one of the versions that there were, whole, and the next sync goes on from there.
///
/// # Errors
/// [`SyncError`].
pub async fn synchronise(
    client: &RpcClient,
    job: &SyncJob,
    events: SyncEventFn,
) -> Result<SyncReport, SyncError> {
    let give_up_at = Instant::now() + BUSY_PATIENCE;
    loop {
        let error = match Attempt::begin(client, job, &events).await?.run().await {
            Err(error) if error.is_busy() && Instant::now() < give_up_at => error,
            ended => return ended,
        };
        tracing::debug!(%error, "somebody else is at it: waiting");
        events(SyncEvent::Waiting);
        tokio::time::sleep(pause(job.own, client.connection().peer_id())).await;
    }
}

/// Two peers that start a sync with each other at the same moment both find the other busy, and release their locks.
/// The smaller key is back so soon that the other finds it done.
fn pause(own: PeerId, peer: PeerId) -> Duration {
    let random = RandomState::new().build_hasher().finish() as u16;
    let jitter = MAX_JITTER * u32::from(random) / u32::from(u16::MAX);
    if own.as_bytes() < peer.as_bytes() { jitter } else { LOSERS_PAUSE + jitter * 4 }
}

/// 60 s: longer than most syncs take, and twice as long as a peer that has vanished keeps its lock.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);

/// 200 ms: more than the winner takes to try again.
const LOSERS_PAUSE: Duration = Duration::from_millis(200);

/// 100 ms: some tens of round trips on the ground, and nothing that anybody would notice.
const MAX_JITTER: Duration = Duration::from_millis(100);
