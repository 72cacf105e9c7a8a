//! An inbox with exactly-once delivery.
//!
//! ```text
//! sender                                          inbox
//!   ├── call inbox.offer {transfer, size, zstd?} ────►│ too large? delivered already? room?
//!   │◄─────────────── send {zstd} | delivered {digest} ┤ claims the transfer
//!   ├══ tagged chunk (transfer, 0) ══════════════════►│ verified, remembered and handed over in one step
//!   │◄───────────────────────────────────── status 0 ─┤ … and if this is lost, the next offer says so
//! ```
//!
//! What is small comes in the call itself (`inbox.put`). Either way the transfer's id names the delivery:
//! a retry under the same id is answered as the first time was, and the application sees the data once.

mod ledger;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use shiplane_rpc::{Fault, FaultCode, Method, RequestContext, Router};
use shiplane_transport::{
    LaneOptions, PeerId, RecvChunkError,
    internals::{ChunkSink, Claim, MemoryPool, PooledMemory},
};
use shiplane_wire::{Digest, Durability, Hasher, Stored, TransferId, Verified, limits};
use thiserror::Error;
use tokio::sync::mpsc;

pub use self::ledger::MAX_REMEMBERED;
use self::ledger::{Attempt, Begun, Key, Ledger};
use crate::{
    compress::{DecodeSinkError, receive_encoded},
    single::{NoChunk, only_chunk},
};

/// What an inbox takes.
#[derive(Debug, Clone)]
pub struct InboxOptions {
    max_len_bytes: u64,
    max_waiting: usize,
    max_held_bytes: u64,
    lane: LaneOptions,
}

impl InboxOptions {
    /// The largest delivery; a larger one is refused before its first byte. Default 16 MiB.
    #[must_use]
    pub fn max_len_bytes(mut self, max_len_bytes: u64) -> Self {
        self.max_len_bytes = max_len_bytes;
        self
    }

    /// Deliveries under way and waiting for the application; further ones are refused as `Busy`. Default 16.
    #[must_use]
    pub fn max_waiting(mut self, max_waiting: usize) -> Self {
        self.max_waiting = max_waiting;
        self
    }

    /// The bytes that all of those may hold together, at least one delivery of the largest size; further ones are refused as
    /// `Busy`. Default 32 MiB: half of the 64 MiB that a process should need, as the other half is for the windows of its
    /// connections.
    #[must_use]
    pub fn max_held_bytes(mut self, max_held_bytes: u64) -> Self {
        self.max_held_bytes = max_held_bytes;
        self
    }

    /// How the chunks are received.
    #[must_use]
    pub fn lane(mut self, lane: LaneOptions) -> Self {
        self.lane = lane;
        self
    }
}

impl Default for InboxOptions {
    fn default() -> Self {
        Self {
            max_len_bytes: limits::MAX_PAYLOAD_CHUNK_LEN_BYTES,
            max_waiting: DEFAULT_WAITING,
            max_held_bytes: DEFAULT_HELD_BYTES,
            lane: LaneOptions::default(),
        }
    }
}

/// Takes deliveries from the peers whose connections its methods are served on.
///
/// It remembers the last [`MAX_REMEMBERED`] deliveries of a peer: a sender that retries later than that
/// delivers twice.
#[derive(Debug, Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

/// What was delivered, for the application to take.
#[derive(Debug)]
pub struct Deliveries {
    queue: mpsc::Receiver<(Delivered, ContentPermit)>,
}

/// One delivery.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivered {
    /// Who sent it; proven by the handshake.
    pub peer: PeerId,
    /// The sender's name for it.
    pub transfer: TransferId,
    /// The data, verified.
    pub data: Bytes,
}

impl Inbox {
    /// An inbox and its application's end.
    #[must_use]
    pub fn new(options: InboxOptions) -> (Self, Deliveries) {
        let (outlet, queue) = mpsc::channel(options.max_waiting.max(1));
        let space = MemoryPool::new(options.max_held_bytes.max(options.max_len_bytes));
        let shared = Arc::new(Shared { options, outlet, space, ledger: Arc::default() });
        (Self { shared }, Deliveries { queue })
    }

    /// Adds the inbox's methods to what is offered to peers.
    #[must_use]
    pub fn methods(&self, router: Router) -> Router {
        let (offer, put) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        router
            .typed(OFFER, move |context, request| Arc::clone(&offer).offer(context, request))
            .typed(PUT, move |context, request| Arc::clone(&put).put(context, request))
    }
}

impl Deliveries {
    /// The next delivery; `None` once the inbox and its routers are gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Delivered> {
        // From here on the memory is the application's own.
        self.queue.recv().await.map(|(delivered, _held)| delivered)
    }
}

/// Announces a delivery by the lane.
pub(crate) const OFFER: Method<Offer, Offered> = Method::new("inbox.offer");

/// A delivery in the call itself.
pub(crate) const PUT: Method<Put, ()> = Method::new("inbox.put");

/// The body of [`OFFER`].
#[derive(Debug, Serialize, Deserialize, Clone, Copy)]
pub(crate) struct Offer {
    /// The same for every attempt.
    pub(crate) transfer: [u8; 16],
    /// Of the content.
    pub(crate) len_bytes: u64,
    /// Whether the sender can encode the chunk.
    pub(crate) zstd: bool,
}

/// What to do about an offer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Offered {
    /// Send the chunk; encoded, if that was offered and is accepted.
    Send { zstd: bool },
    /// An earlier attempt was delivered, with this digest.
    Delivered { digest: [u8; 32] },
}

/// The body of [`PUT`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) transfer: [u8; 16],
    pub(crate) data: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    options: InboxOptions,
    outlet: mpsc::Sender<(Delivered, ContentPermit)>,
    space: MemoryPool,
    ledger: Arc<Ledger>,
}

/// A delivery's share of the memory.
type ContentPermit = PooledMemory;

/// A place in the queue and a share of the memory, taken before anything is received.
#[derive(Debug)]
struct Room {
    place: mpsc::OwnedPermit<(Delivered, ContentPermit)>,
    permit: ContentPermit,
}

impl Room {
    fn hand_over(self, delivered: Delivered) {
        drop(self.place.send((delivered, self.permit)));
    }
}

impl Shared {
    async fn offer(self: Arc<Self>, context: RequestContext, request: Offer) -> Result<Offered, Fault> {
        self.check_len(request.len_bytes)?;
        let key = Key { peer: context.peer, transfer: TransferId::from_bytes(request.transfer) };
        let attempt = match self.begin(key).await {
            Ok(attempt) => attempt,
            Err(digest) => return Ok(Offered::Delivered { digest: *digest.as_bytes() }),
        };
        let room = self.room(request.len_bytes)?;
        let in_use = |_| Fault::new(FaultCode::InvalidRequest, "the transfer id is in use");
        let claim = context.connection.claim(key.transfer).map_err(in_use)?;
        tokio::spawn(async move {
            let superseded = attempt.superseded();
            let sink = Handover {
                key: attempt.key(),
                ledger: Arc::clone(&self.ledger),
                // Its memory is set aside.
                data: BytesMut::with_capacity(usize::try_from(request.len_bytes).unwrap_or(0)),
                room,
            };
            let received = tokio::select! {
                biased;
                () = superseded => return, // The sender has begun anew.
                received = receive(claim, &request, sink, &context, &self.options.lane) => received,
            };
            if let Err(error) = received {
                tracing::debug!(peer = %key.peer.short(), transfer = %key.transfer, %error, "not delivered");
            }
        });
        Ok(Offered::Send { zstd: request.zstd })
    }

    async fn put(self: Arc<Self>, context: RequestContext, request: Put) -> Result<(), Fault> {
        self.check_len(request.data.len() as u64)?;
        let key = Key { peer: context.peer, transfer: TransferId::from_bytes(request.transfer) };
        let digest = Digest::sha256(&request.data); // At most 1 MiB: well below a millisecond.
        match self.begin(key).await {
            Ok(attempt) => {
                let room = self.room(request.data.len() as u64)?;
                let delivered =
                    Delivered { peer: key.peer, transfer: key.transfer, data: request.data.into() };
                let hand_over = || room.hand_over(delivered);
                match self.ledger.deliver(attempt.key(), digest, hand_over) {
                    true => Ok(()),
                    false => Err(Fault::new(FaultCode::Busy, "replaced by a newer attempt")),
                }
            }
            Err(delivered) if delivered == digest => Ok(()),
            Err(_) => Err(Fault::new(FaultCode::Integrity, "this transfer id has delivered other content")),
        }
    }

    /// A new attempt at `key`, once the one before it has ended; or the digest of what was delivered.
    async fn begin(&self, key: Key) -> Result<Attempt, Digest> {
        loop {
            match self.ledger.begin(key) {
                Begun::New(attempt) => return Ok(attempt),
                Begun::Delivered(digest) => return Err(digest),
                // Its sender tries again, so it has given that one up, whether we have heard or not.
                Begun::UnderWay(earlier) => earlier.end().await,
            }
        }
    }

    fn room(&self, len_bytes: u64) -> Result<Room, Fault> {
        let full = || Fault::new(FaultCode::Busy, "the inbox is full");
        let place = self.outlet.clone().try_reserve_owned().map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => full(),
            mpsc::error::TrySendError::Closed(_) => Fault::new(FaultCode::Gone, "the inbox is closed"),
        })?;
        let permit = self.space.hold(len_bytes).ok_or_else(full)?;
        Ok(Room { place, permit })
    }

    fn check_len(&self, len_bytes: u64) -> Result<(), Fault> {
        let max_bytes = self.options.max_len_bytes;
        if len_bytes <= max_bytes {
            return Ok(());
        }
        let message = format!("{len_bytes} bytes are over the inbox's limit of {max_bytes}");
        Err(Fault::new(FaultCode::TooLarge, message))
    }
}

async fn receive(
    mut claim: Claim,
    agreed: &Offer,
    sink: Handover,
    context: &RequestContext,
    lane: &LaneOptions,
) -> Result<(), InboxError> {
    let chunk = only_chunk(&mut claim, context.connection.config().timeouts().header).await?;
    if !agreed.zstd {
        return Ok(chunk.receive(agreed.len_bytes, sink, lane).await?);
    }
    Ok(receive_encoded(chunk, agreed.len_bytes, sink, Hasher::sha256(), lane).await?)
}

/// Why an announced delivery did not arrive: for the log. The sender has been told by status.
#[derive(Debug, Error)]
enum InboxError {
    #[error(transparent)]
    NoChunk(#[from] NoChunk),
    #[error(transparent)]
    Plain(#[from] RecvChunkError<Superseded>),
    #[error(transparent)]
    Encoded(#[from] RecvChunkError<DecodeSinkError<Superseded>>),
}

/// Another attempt has taken this one's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("replaced by a newer attempt")]
struct Superseded;

/// Collects a chunk and hands it over in its commit: remembered and delivered in one step, before the
/// sender can learn of it.
#[derive(Debug)]
struct Handover {
    key: (Key, u64),
    ledger: Arc<Ledger>,
    data: BytesMut,
    room: Room,
}

impl ChunkSink for Handover {
    type Output = ();
    type Error = Superseded;

    fn write(&mut self, data: &[u8]) -> Result<(), Superseded> {
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn commit(self, verified: Verified) -> Result<(Stored, ()), Superseded> {
        let Key { peer, transfer } = self.key.0;
        let delivered = Delivered { peer, transfer, data: self.data.freeze() };
        let hand_over = || self.room.hand_over(delivered);
        match self.ledger.deliver(self.key, verified.digest(), hand_over) {
            true => Ok((verified.stored(Durability::Verified), ())),
            false => Err(Superseded),
        }
    }
}

/// 16: a burst of small deliveries finds room; what large ones may hold is bounded by itself.
const DEFAULT_WAITING: usize = 16;

/// Two deliveries of the default limit.
const DEFAULT_HELD_BYTES: u64 = 32 << 20;
