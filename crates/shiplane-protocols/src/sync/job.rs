//! What the caller of a sync asks for, hears of and gets.

use std::{path::PathBuf, sync::Arc};

use shiplane_files::internals::{
    Filters, SourceRoot,
    sync::{Action, Consent, Relisting, Side, SyncState, UnresolvedReason},
};
use shiplane_transport::PeerId;
use shiplane_wire::{Digest, LeftOutReason, RelPath};

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
    /// Where this side stores its bases.
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

/// The result of a sync. The actions are done and durable on both sides, except for the paths that were left alone.
#[derive(Debug, Clone)]
pub struct SyncReport {
    /// The planned actions on both sides; none if they were equal.
    pub actions: Vec<Action>,
    /// The paths that were left alone, for the next sync.
    pub left: Vec<LeftPath>,
    /// How many further paths the peer has left alone without naming them.
    pub left_unnamed: u64,
    /// The paths that either side could not list: the side, the reason, and the escaped path.
    pub unlisted: Vec<(Side, LeftOutReason, String)>,
    /// Digest of the manifest that both have now, or would have.
    pub digest: Digest,
    /// How many files that is.
    pub files: u64,
    /// Payload bytes that went to the peer.
    pub sent_bytes: u64,
    /// Payload bytes that came from it.
    pub received_bytes: u64,
    /// Both as they were sent: fewer if they were compressed.
    pub wire_bytes: u64,
    /// Chunks, both ways.
    pub chunks: u64,
}

/// A path that was left alone.
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
    /// One of the two sides is busy with another sync: waiting.
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
