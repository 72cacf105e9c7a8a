//! One router a connection: accepts streams, tells them apart, hands them on.
//!
//! Each stream is classified in a task of its own, so that one that is opened and stays silent holds
//! up nothing else. Tagged streams go to whoever claimed their transfer, or wait for that (SPEC 2.5).

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use shiplane_wire::{
    Code, OPENING_LEN_BYTES, Opened, Opening, OpeningError, OpeningReader, TransferId, limits,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{connection::PeerConnection, stream::BiStream};

/// A request for somebody above this crate: its header has been read, its body has not.
#[derive(Debug)]
pub struct InboundCall {
    /// Whether an answer is due.
    pub kind: CallKind,
    /// Length of the body, within the limit.
    pub body_len_bytes: u32,
    /// Body and answer.
    pub stream: BiStream,
    /// Weak: a call that nobody takes must not keep its own connection alive.
    pub(crate) connection: Weak<PeerConnection>,
}

impl InboundCall {
    /// The connection that it came on; `None` if nobody holds that any more. A peer may have several,
    /// as when it runs two programs with one key, and their calls are taken from one queue.
    #[must_use]
    pub fn connection(&self) -> Option<Arc<PeerConnection>> {
        self.connection.upgrade()
    }
}

/// The two kinds of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Answered on the same stream.
    Call,
    /// Answered by FIN alone.
    OneWay,
}

/// A stream that belongs to a transfer.
#[derive(Debug)]
pub(crate) enum Tagged {
    Records(BiStream),
    Chunk { index: u64, len_bytes: u64, stream: BiStream },
}

/// Where classified streams wait for their takers. One of each kind a peer: when two dials have
/// crossed, what arrives on either connection is found on both.
#[derive(Debug)]
pub(crate) struct Inboxes {
    pub(crate) bare: tokio::sync::Mutex<mpsc::Receiver<(u64, BiStream)>>,
    pub(crate) messages: tokio::sync::Mutex<mpsc::Receiver<(u32, BiStream)>>,
    pub(crate) calls: tokio::sync::Mutex<mpsc::Receiver<InboundCall>>,
    pub(crate) transfers: Arc<Transfers>,
}

/// The sending ends, held by the routers of the peer's live connections: when the last of them ends,
/// the inboxes end too.
#[derive(Debug, Clone)]
pub(crate) struct Outlets {
    bare: mpsc::Sender<(u64, BiStream)>,
    messages: mpsc::Sender<(u32, BiStream)>,
    calls: mpsc::Sender<InboundCall>,
    transfers: Arc<Transfers>,
}

/// [`Outlets`] that keep no inbox open.
#[derive(Debug)]
pub(crate) struct WeakOutlets {
    bare: mpsc::WeakSender<(u64, BiStream)>,
    messages: mpsc::WeakSender<(u32, BiStream)>,
    calls: mpsc::WeakSender<InboundCall>,
    transfers: Weak<Transfers>,
}

impl Outlets {
    pub(crate) fn downgrade(&self) -> WeakOutlets {
        WeakOutlets {
            bare: self.bare.downgrade(),
            messages: self.messages.downgrade(),
            calls: self.calls.downgrade(),
            transfers: Arc::downgrade(&self.transfers),
        }
    }
}

impl WeakOutlets {
    /// `None` once the last router has ended.
    pub(crate) fn upgrade(&self) -> Option<Outlets> {
        Some(Outlets {
            bare: self.bare.upgrade()?,
            messages: self.messages.upgrade()?,
            calls: self.calls.upgrade()?,
            transfers: self.transfers.upgrade().filter(|transfers| !transfers.lock().closed)?,
        })
    }
}

/// Fresh inboxes for one peer.
pub(crate) fn inboxes(header_timeout: Duration) -> (Arc<Inboxes>, Outlets) {
    let (bare, bare_in) = mpsc::channel(INBOX_LEN);
    let (messages, messages_in) = mpsc::channel(INBOX_LEN);
    let (calls, calls_in) = mpsc::channel(INBOX_LEN);
    let transfers =
        Arc::new(Transfers { state: Mutex::default(), routers: AtomicUsize::new(0), header_timeout });
    let outlets = Outlets { bare, messages, calls, transfers: Arc::clone(&transfers) };
    let inboxes =
        Inboxes { bare: bare_in.into(), messages: messages_in.into(), calls: calls_in.into(), transfers };
    (Arc::new(inboxes), outlets)
}

/// Starts the router of `connection`, which is that of `owner`; it ends with the connection.
pub(crate) fn start(
    connection: quinn::Connection,
    owner: Weak<PeerConnection>,
    in_use: TaskTracker,
    outlets: Outlets,
    header_timeout: Duration,
) {
    outlets.transfers.routers.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        while let Ok((send, recv)) = connection.accept_bi().await {
            let stream = BiStream::new(send, recv, &in_use);
            // Bounded by the number of streams that the peer may have open.
            tokio::spawn(classify(stream, owner.clone(), outlets.clone(), header_timeout));
        }
        if outlets.transfers.routers.fetch_sub(1, Ordering::Relaxed) == 1 {
            outlets.transfers.close();
        }
    });
}

/// Reads a stream's first bytes within the header deadline and hands the stream on.
async fn classify(
    mut stream: BiStream,
    owner: Weak<PeerConnection>,
    outlets: Outlets,
    header_timeout: Duration,
) {
    match tokio::time::timeout(header_timeout, read_opening(&mut stream)).await {
        Ok(Ok(Some(opened))) => outlets.hand_on(opened, stream, owner).await,
        Ok(Ok(None)) => {} // Ended before its opening: dropping it answers.
        Ok(Err(error)) => reject(stream, error.code()),
        Err(_) => reject(stream, Code::Timeout),
    }
}

/// `None`: the stream or the connection ended first.
///
/// Reads never a byte beyond the opening: what follows belongs to the stream's taker.
async fn read_opening(stream: &mut BiStream) -> Result<Option<Opened>, OpeningError> {
    let mut reader = OpeningReader::new();
    let mut first = [0; OPENING_LEN_BYTES];
    let Ok(true) = stream.recv.read_exact(&mut first).await else {
        return Ok(None);
    };
    if let Some(opened) = reader.push(&mut Bytes::copy_from_slice(&first))? {
        return Ok(Some(opened));
    }
    let Opening::Header(header) = Opening::decode(first)? else {
        return Ok(None);
    };
    let mut body = vec![0; header.body_len_bytes() as usize]; // 16 or 24: the others return above.
    let Ok(true) = stream.recv.read_exact(&mut body).await else {
        return Ok(None);
    };
    reader.push(&mut body.into())
}

impl Outlets {
    async fn hand_on(&self, opened: Opened, stream: BiStream, connection: Weak<PeerConnection>) {
        // A send fails only when the connection's handle is gone; the stream is then reset by its drop.
        match opened {
            Opened::Bare { len_bytes } => {
                self.bare.send((len_bytes, stream)).await.ok();
            }
            Opened::Message { body_len_bytes } => {
                self.messages.send((body_len_bytes, stream)).await.ok();
            }
            Opened::Rpc { body_len_bytes } => {
                let kind = CallKind::Call;
                self.calls.send(InboundCall { kind, body_len_bytes, stream, connection }).await.ok();
            }
            Opened::OneWay { body_len_bytes } => {
                let kind = CallKind::OneWay;
                self.calls.send(InboundCall { kind, body_len_bytes, stream, connection }).await.ok();
            }
            Opened::Records(transfer) => {
                self.transfers.deliver(transfer, Tagged::Records(stream)).await;
            }
            Opened::Tagged(tag) => self.deliver_chunk(tag, stream).await,
        }
    }

    /// The frame's own size follows the tag.
    async fn deliver_chunk(&self, tag: shiplane_wire::TaggedChunk, mut stream: BiStream) {
        let mut size = [0; 8];
        let read = stream.recv.read_exact(&mut size);
        match tokio::time::timeout(self.transfers.header_timeout, read).await {
            Ok(Ok(true)) => {
                let len_bytes = u64::from_le_bytes(size);
                let chunk = Tagged::Chunk { index: tag.index, len_bytes, stream };
                self.transfers.deliver(tag.transfer, chunk).await;
            }
            Ok(Ok(false) | Err(_)) => {}
            Err(_) => reject(stream, Code::Timeout),
        }
    }
}

/// Who has claimed which transfer, and what waits to be claimed.
#[derive(Debug)]
pub(crate) struct Transfers {
    state: Mutex<TransfersState>,
    /// Routers that still feed this.
    routers: AtomicUsize,
    header_timeout: Duration,
}

#[derive(Debug, Default)]
struct TransfersState {
    claims: HashMap<TransferId, mpsc::Sender<Tagged>>,
    parked: VecDeque<(Instant, TransferId, Tagged)>,
    closed: bool,
}

impl Transfers {
    /// From now on the streams of `transfer` come to the returned inbox; those that are parked already
    /// come first. `None` when somebody else holds the claim.
    pub(crate) fn claim(&self, transfer: TransferId) -> Option<mpsc::Receiver<Tagged>> {
        let mut state = self.lock();
        if state.claims.contains_key(&transfer) {
            return None;
        }
        // Room for everything that can be parked, so that `try_send` below cannot fail.
        let (outlet, inbox) = mpsc::channel(limits::MAX_PARKED_STREAMS + INBOX_LEN);
        let (mine, others) =
            std::mem::take(&mut state.parked).into_iter().partition(|(_, id, _)| *id == transfer);
        state.parked = others;
        let mine: VecDeque<(Instant, TransferId, Tagged)> = mine;
        for (_, _, stream) in mine {
            outlet.try_send(stream).ok();
        }
        if !state.closed {
            state.claims.insert(transfer, outlet);
        }
        Some(inbox)
    }

    pub(crate) fn release(&self, transfer: TransferId) {
        self.lock().claims.remove(&transfer);
    }

    async fn deliver(&self, transfer: TransferId, stream: Tagged) {
        let claim = self.lock().claims.get(&transfer).cloned();
        match claim {
            Some(claim) => {
                if let Err(mpsc::error::SendError(stream)) = claim.send(stream).await {
                    stream.reject(Code::Unclaimed);
                }
            }
            None => self.park(transfer, stream),
        }
    }

    /// SPEC 2.5: bounded in number and time. Old ones go when their time is up, at the next arrival.
    fn park(&self, transfer: TransferId, stream: Tagged) {
        let now = Instant::now();
        let mut state = self.lock();
        // Claimed between the look-up and here.
        if let Some(claim) = state.claims.get(&transfer) {
            if let Err(error) = claim.try_send(stream) {
                match error {
                    mpsc::error::TrySendError::Full(stream) | mpsc::error::TrySendError::Closed(stream) => {
                        stream.reject(Code::Busy)
                    }
                }
            }
            return;
        }
        while let Some((since, _, _)) = state.parked.front()
            && (now.duration_since(*since) >= self.header_timeout
                || state.parked.len() >= limits::MAX_PARKED_STREAMS)
        {
            if let Some((_, _, oldest)) = state.parked.pop_front() {
                oldest.reject(Code::Unclaimed);
            }
        }
        if state.closed {
            stream.reject(Code::Unclaimed);
        } else {
            state.parked.push_back((now, transfer, stream));
        }
    }

    /// Drops what has been parked for too long.
    pub(crate) fn expire_parked(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        while let Some((since, _, _)) = state.parked.front()
            && now.duration_since(*since) >= self.header_timeout
        {
            if let Some((_, _, oldest)) = state.parked.pop_front() {
                oldest.reject(Code::Unclaimed);
            }
        }
    }

    /// The connection has ended: claims see the end of their inbox.
    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.claims.clear();
        state.parked.clear();
    }

    fn lock(&self) -> MutexGuard<'_, TransfersState> {
        // Every change is a single step; a panic in between leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tagged {
    pub(crate) fn reject(self, code: Code) {
        match self {
            Self::Records(stream) | Self::Chunk { stream, .. } => reject(stream, code),
        }
    }
}

fn reject(stream: BiStream, code: Code) {
    stream.send.reset(code);
    stream.recv.stop(code);
}

/// As many as a peer may have open: with the stream limit at its default, no inbox ever fills up.
const INBOX_LEN: usize = 64;
