//! Exchanges the lists of a sync, then files both ways at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use shiplane_files::internals::{
    Filters, NameRefused, Source, SourceError, check_name,
    sync::{Agreed, Changes, MAX_MANIFEST_LEN_BYTES, Manifest, Node, Prepared, Stamp, UnresolvedReason},
};
use shiplane_transport::{
    ChunkExpectation, ChunkSource, ConnectionEnd, LaneOptions, PeerConnection, RecvChunkError,
    SendChunkError, StreamError,
    internals::{Claim, TransferStream, blocking},
};
use shiplane_wire::{Code, DigestAlgorithm, LeftOutReason, Mtime, RelPath, TaggedChunk, TransferId};
use tokio_util::sync::CancellationToken;

use super::{
    error::SyncError,
    memory::ListMemory,
    messages::{SyncBody, SyncHalf, Unsettled},
};
use crate::{
    Direction,
    metrics::Counting,
    transfer::{
        EventFn, ProtocolFault, Target, TransferError, TransferOptions, next_records, open_records,
        provider::{Provided, provide},
        receiver::{Opening, Received, receive},
    },
};

/// Splits a list into the part that goes into the call and, if it is too long for that, the bytes of a chunk.
pub(crate) fn pack(changes: &Changes, index: u64, max_inline_len_bytes: usize) -> (SyncBody, Option<Bytes>) {
    let bytes = changes.encode();
    if bytes.len() <= max_inline_len_bytes {
        return (SyncBody::Inline(bytes), None);
    }
    (SyncBody::Lane { index, len_bytes: bytes.len() as u64 }, Some(bytes.into()))
}

/// Sends the chunk of a list that [`pack`] found too long for a call.
pub(crate) async fn send_beside(
    connection: &PeerConnection,
    sync: TransferId,
    index: u64,
    bytes: Bytes,
    digest: DigestAlgorithm,
) -> Result<(), SyncError> {
    let source = ChunkSource::Memory(bytes).open().map_err(SendChunkError::from)?;
    let tag = TaggedChunk { transfer: sync, index };
    connection.send_tagged_chunk(tag, source, &LaneOptions::default().digest(digest)).await?;
    Ok(())
}

/// Receives a list of the peer.
pub(crate) async fn unpack(
    claim: &mut Claim,
    body: SyncBody,
    timeout: Duration,
    digest: DigestAlgorithm,
    memory: &ListMemory,
) -> Result<Changes, SyncError> {
    let (index, len_bytes) = match body {
        SyncBody::Inline(bytes) => return decode(&bytes, memory),
        SyncBody::Lane { index, len_bytes } => (index, len_bytes),
    };
    let silent = || SyncError::Transfer(TransferError::Silent { timeout });
    let chunk = match tokio::time::timeout(timeout, claim.next()).await.map_err(|_| silent())? {
        Some(TransferStream::Chunk(chunk)) if chunk.index() == index => chunk,
        Some(TransferStream::Chunk(chunk) | TransferStream::Compressed(chunk)) => {
            let index = chunk.index();
            chunk.refuse(Code::Protocol).await;
            return Err(TransferError::from(ProtocolFault::UnwantedChunk { index }).into());
        }
        Some(TransferStream::Records(_)) => {
            return Err(TransferError::from(ProtocolFault::SecondRecords).into());
        }
        None => {
            return Err(RecvChunkError::Stream(StreamError::ConnectionLost(ConnectionEnd::ClosedHere)).into());
        }
    };
    let transit = match memory.pay_for_transit(len_bytes.min(MAX_LIST_LEN_BYTES)) {
        Ok(transit) => transit,
        Err(refusal) => {
            chunk.refuse(Code::TooLarge).await;
            return Err(refusal);
        }
    };
    let expected = ChunkExpectation::default().len_bytes(len_bytes).max_len_bytes(MAX_LIST_LEN_BYTES);
    let options = LaneOptions::default().digest(digest);
    let bytes = chunk.receive_to_memory(&expected, &options).await?;
    let memory = memory.clone();
    let decoded = blocking::spawn(move || {
        let decoded = decode(&bytes, &memory);
        drop((bytes, transit));
        decoded
    });
    decoded.await.map_err(|_| SyncError::Abandoned)?
}

fn decode(bytes: &[u8], memory: &ListMemory) -> Result<Changes, SyncError> {
    let mut is_paid = true;
    let decoded = Changes::decode_paid(bytes, &mut |cost_bytes| {
        is_paid = memory.pay_for_theirs(cost_bytes);
        is_paid
    });
    if is_paid { Ok(decoded?) } else { Err(memory.refusal()) }
}

/// Checks a peer's manifest for paths that it must not even say: those of our own files, and what the filters of the
/// sync exclude.
pub(crate) fn check_listed(manifest: &Manifest, filters: &Filters) -> Result<(), SyncError> {
    for (path, node) in manifest.iter() {
        if filters.excludes(path, matches!(node, Node::Directory(_))) {
            return Err(SyncError::Excluded { path: path.to_string() });
        }
        if let Err(NameRefused::Own) = check_name(path) {
            return Err(SyncError::OwnName { path: path.to_string() });
        }
    }
    Ok(())
}

/// What has been exchanged.
#[derive(Debug, Default)]
pub(crate) struct Exchanged {
    pub(crate) provided: Option<Provided>,
    pub(crate) received: Option<Received>,
}

/// Provides and receives the files of a sync at the same time: neither waits for the other. If one fails, the other still
/// ends. The claims are those of what this side provides and of what it takes; `options` are those that both sides have
/// agreed on.
pub(crate) async fn exchange(
    connection: &Arc<PeerConnection>,
    prepared: &mut Prepared,
    [provide, take]: [Claim; 2],
    options: &TransferOptions,
    [sending, receiving]: [EventFn; 2],
) -> Result<Exchanged, SyncError> {
    let provide = prepared.source.take().map(|source| give(connection, provide, source, options, sending));
    let target = prepared.destination().map(Target::part);
    let take = target.map(|target| self::take(connection, take, target, options, receiving));
    // Each direction is counted as a transfer of its own.
    let (metrics, addr) = (options.metrics.as_ref(), connection.remote_addr());
    let providing = async {
        let Some(given) = provide else { return Ok(None) };
        Counting::of(metrics, Direction::Sent, addr, given, |given| given.sent_bytes).await.map(Some)
    };
    let taking = async {
        let Some(taken) = take else { return Ok(None) };
        let bytes = |taken: &Received| taken.totals.received_bytes;
        Counting::of(metrics, Direction::Received, addr, taken, bytes).await.map(Some)
    };
    let (provided, received) = futures::join!(providing, taking);
    let failed = match (provided, received) {
        (Ok(provided), Ok(received)) => return Ok(Exchanged { provided, received }),
        // A failure of this side's disk is the cause of the peer's hang-up.
        (Err(error), Err(cause)) if error.is_hang_up() => cause,
        (Err(error), _) | (_, Err(error)) => error,
    };
    Err(failed.explained(connection).into())
}

async fn give(
    connection: &Arc<PeerConnection>,
    mut claim: Claim,
    source: Source,
    options: &TransferOptions,
    events: EventFn,
) -> Result<Provided, TransferError> {
    let (transfer, timeout) = (claim.transfer(), connection.config().timeouts().progress);
    let records = next_records(&mut claim, connection, timeout).await?;
    provide(Arc::clone(connection), transfer, records, Arc::new(source), options, false, events).await
}

async fn take(
    connection: &Arc<PeerConnection>,
    claim: Claim,
    target: Target,
    options: &TransferOptions,
    events: EventFn,
) -> Result<Received, TransferError> {
    let timeout = connection.config().timeouts().progress;
    let records = open_records(claim.transfer(), connection, timeout).await?;
    let opening = Opening { claim, records, invites: None };
    let mut received = receive(opening, timeout, target, options, events, CancellationToken::new()).await?;
    std::mem::replace(&mut received.confirmed, Ok(())).map(|()| received)
}

impl Exchanged {
    /// The first files that this side could not send, and why.
    pub(crate) fn unsent(&self) -> Vec<(RelPath, Arc<SourceError>)> {
        self.provided.as_ref().map(|provided| provided.unsent.clone()).unwrap_or_default()
    }
}

/// A manifest, and the removals of a million entries.
const MAX_LIST_LEN_BYTES: u64 = MAX_MANIFEST_LEN_BYTES as u64 + (16 << 20);

/// The new common base, from the outcomes of both sides; `None` if too many paths were left alone to name them.
pub(crate) fn settle(
    agreed: &Agreed,
    ours: &SyncHalf,
    theirs: &SyncHalf,
) -> Result<Option<Manifest>, SyncError> {
    let (Some(ours), Some(theirs)) = (&ours.unsettled, &theirs.unsettled) else { return Ok(None) };
    let mut unsettled = BTreeMap::new();
    for (path, why, _, stamp) in ours.iter().chain(theirs) {
        let path = RelPath::parse(path).map_err(|_| SyncError::Disagreed)?;
        let is_time = |(_, _, nanos): &(u32, i64, u32)| *nanos < NANOS_PER_SEC;
        if LeftOutReason::from_wire(*why).is_none() || !stamp.iter().all(is_time) {
            return Err(SyncError::Disagreed);
        }
        let stamp = stamp.map(|(mode, secs, nanos)| Stamp { mode, mtime: Mtime { secs, nanos } });
        // Of two neither is the one that could not be set.
        unsettled.entry(path).and_modify(|stamp| *stamp = None).or_insert(stamp);
    }
    Ok(Some(agreed.next_base(&unsettled)))
}

/// What this side has left alone, as it is sent to the other side: with the system's message while there is room for it,
/// and without the paths if they do not fit a call.
pub(crate) fn half(left: &BTreeMap<RelPath, UnresolvedReason>) -> SyncHalf {
    SyncHalf { unsettled: list_left(left), left: left.len() as u64 }
}

fn list_left(left: &BTreeMap<RelPath, UnresolvedReason>) -> Option<Vec<Unsettled>> {
    let len_bytes: usize = left.keys().map(|path| path.as_bytes().len() + UNSETTLED_LEN_BYTES).sum();
    let mut room_bytes = MAX_LEFT_LEN_BYTES.checked_sub(len_bytes)?;
    let mut told = |(path, why): (&RelPath, &UnresolvedReason)| {
        let mut cause = why.cause();
        match room_bytes.checked_sub(cause.len()) {
            Some(left_bytes) => room_bytes = left_bytes,
            None => cause.clear(),
        }
        let stamp = why.stamp().map(|Stamp { mode, mtime }| (mode, mtime.secs, mtime.nanos));
        (path.as_bytes().to_vec(), why.reason() as u8, cause, stamp)
    };
    Some(left.iter().map(&mut told).collect())
}

const NANOS_PER_SEC: u32 = 1_000_000_000;

/// Beside the path and the message: two lengths, the reason, mode and time.
const UNSETTLED_LEN_BYTES: usize = 2 * 8 + 1 + 1 + 16;

/// 512 KiB: half of what a call may have.
const MAX_LEFT_LEN_BYTES: usize = 512 << 10;
