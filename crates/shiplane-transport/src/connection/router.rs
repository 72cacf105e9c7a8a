//! Accepts and classifies the streams of a connection.
//!
//! Calls are told as they are accepted. Any other stream, and one whose first bytes are not here yet, is
//! classified in a task of its own, so that one that is opened and stays silent holds up nothing else. Tagged
//! streams go to the holder of their transfer's claim, or wait for that (SPEC 2.5).

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use shiplane_wire::{Code, Opened, OpeningError, OpeningReader, TaggedChunk, TransferId, limits};
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
    },
    time::Instant,
};

use super::PeerConnection;
use crate::{
    config::MAX_CONCURRENT_STREAMS,
    stream::{BiStream, InUse},
};

/// An incoming RPC request: its header has been read, its body has not.
#[derive(Debug)]
pub struct InboundCall {
    /// Whether an answer is due.
    pub kind: CallKind,
    /// Length of the body, within the limit.
    pub body_len_bytes: u32,
    /// Body and answer.
    pub stream: BiStream,
    /// Weak: an untaken call must not keep its own connection alive.
    pub(crate) connection: Weak<PeerConnection>,
}

impl InboundCall {
    /// The connection of the call; `None` if it has been dropped. A peer may have several connections, e.g. from
    /// two programs with one key; one queue holds the calls of all.
    #[must_use]
    pub fn connection(&self) -> Option<Arc<PeerConnection>> {
        self.connection.upgrade()
    }
}

/// The peer's requests, in the order of their arrival.
pub struct InboundCalls<'a> {
    inbox: Option<tokio::sync::MutexGuard<'a, mpsc::Receiver<InboundCall>>>,
    end: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
    /// After the end of the connection: the number of calls left in the queue.
    left: Option<usize>,
}

impl<'a> InboundCalls<'a> {
    /// Waits for its turn at `inbox`, at most until `end`: who has it then takes what comes on the peer's other
    /// connections.
    pub(crate) async fn wait(
        inbox: &'a tokio::sync::Mutex<mpsc::Receiver<InboundCall>>,
        end: impl Future<Output = ()> + Send + 'a,
    ) -> Self {
        let mut end: Pin<Box<dyn Future<Output = ()> + Send + 'a>> = Box::pin(end);
        tokio::select! {
            biased;
            inbox = inbox.lock() => Self { inbox: Some(inbox), end, left: None },
            () = &mut end => Self { inbox: None, end, left: Some(0) },
        }
    }

    /// The next one; `None` once the connection has ended and what had come by then is taken, even if the peer has
    /// other connections. Cancel-safe.
    pub async fn next(&mut self) -> Option<InboundCall> {
        let inbox = self.inbox.as_mut()?;
        let left = match self.left {
            Some(left) => left,
            None => tokio::select! {
                biased;
                () = &mut self.end => inbox.len(),
                call = inbox.recv() => return call,
            },
        };
        self.left = Some(left.saturating_sub(1));
        if left > 0 { inbox.try_recv().ok() } else { None }
    }
}

impl std::fmt::Debug for InboundCalls<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InboundCalls").field("left", &self.left).finish_non_exhaustive()
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
    Chunk { index: u64, len_bytes: u64, is_compressed: bool, stream: BiStream },
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

/// The sending ends.
#[derive(Debug, Clone)]
struct Outlets {
    bare: mpsc::Sender<(u64, BiStream)>,
    messages: mpsc::Sender<(u32, BiStream)>,
    calls: mpsc::Sender<InboundCall>,
    transfers: Arc<Transfers>,
}

/// The right to feed a peer's inboxes, one a live connection: when the last one goes, the inboxes end.
#[derive(Debug)]
pub(crate) struct Feed {
    outlets: Outlets,
}

/// Makes further [`Feed`]s while there is one.
#[derive(Debug)]
pub(crate) struct WeakFeed {
    bare: mpsc::WeakSender<(u64, BiStream)>,
    messages: mpsc::WeakSender<(u32, BiStream)>,
    calls: mpsc::WeakSender<InboundCall>,
    transfers: Weak<Transfers>,
}

impl Feed {
    pub(crate) fn downgrade(&self) -> WeakFeed {
        let Outlets { bare, messages, calls, transfers } = &self.outlets;
        WeakFeed {
            bare: bare.downgrade(),
            messages: messages.downgrade(),
            calls: calls.downgrade(),
            transfers: Arc::downgrade(transfers),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.outlets.transfers.leave();
    }
}

impl WeakFeed {
    /// `None` once the last one has gone.
    pub(crate) fn upgrade(&self) -> Option<Feed> {
        let (bare, messages, calls) = (self.bare.upgrade()?, self.messages.upgrade()?, self.calls.upgrade()?);
        let transfers = self.transfers.upgrade().filter(|transfers| transfers.enter())?;
        Some(Feed { outlets: Outlets { bare, messages, calls, transfers } })
    }
}

/// Fresh inboxes for one peer, and their first feed.
pub(crate) fn inboxes(header_timeout: Duration) -> (Arc<Inboxes>, Feed) {
    let (bare, bare_in) = mpsc::channel(INBOX_LEN);
    let (messages, messages_in) = mpsc::channel(INBOX_LEN);
    let (calls, calls_in) = mpsc::channel(INBOX_LEN);
    let state = TransfersState { feeds: 1, ..TransfersState::default() };
    let transfers = Transfers { state: state.into(), parked: Notify::new(), header_timeout }.into();
    let outlets = Outlets { bare, messages, calls, transfers: Arc::clone(&transfers) };
    let inboxes =
        Inboxes { bare: bare_in.into(), messages: messages_in.into(), calls: calls_in.into(), transfers };
    (Arc::new(inboxes), Feed { outlets })
}

/// Starts the router of `connection`, which is that of `owner`; it ends with the connection.
pub(crate) fn start(
    connection: quinn::Connection,
    owner: Weak<PeerConnection>,
    in_use: InUse,
    feed: Feed,
    header_timeout: Duration,
) {
    tokio::spawn(async move {
        let mut first_is_open = false;
        let mut idle_owner = Some(owner.clone());
        loop {
            let halves = tokio::select! {
                biased;
                accepted = connection.accept_bi() => match accepted {
                    Ok(halves) => halves,
                    Err(_) => return,
                },
                () = feed.outlets.transfers.expire_next() => continue,
            };
            // The first one may be all that there will be: a dialler's question whether it is admitted.
            if std::mem::replace(&mut first_is_open, true)
                && let Some(owner) = idle_owner.take().and_then(|owner| owner.upgrade())
            {
                owner.is_used();
            }
            let mut stream = Unclassified {
                stream: BiStream::new(halves, &in_use),
                reader: OpeningReader::new(),
                has_begun: false,
            };
            // Mostly the first bytes come with the stream itself, and calls are many.
            if let Some((kind, body_len_bytes)) = stream.is_call() {
                let call =
                    InboundCall { kind, body_len_bytes, stream: stream.stream, connection: owner.clone() };
                if let Err(TrySendError::Full(call)) = feed.outlets.calls.try_send(call) {
                    tokio::spawn(put(feed.outlets.calls.clone(), call));
                }
                continue;
            }
            let classified = stream.classify(owner.clone(), feed.outlets.clone(), header_timeout);
            let mut classified = Box::pin(classified);
            // One that stays silent needs a task, which polls again at once. Bounded by the number of streams
            // that the peer may have open.
            if classified.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                tokio::spawn(classified);
            }
        }
    });
}

/// A stream whose first bytes are awaited.
struct Unclassified {
    stream: BiStream,
    reader: OpeningReader,
    /// Some of its bytes have come. QUIC opens a stream as soon as a later one has begun.
    has_begun: bool,
}

impl Unclassified {
    /// Its kind and the length of its body, if it is known by now to be a call.
    fn is_call(&mut self) -> Option<(CallKind, u32)> {
        let opened = std::pin::pin!(self.opened());
        match opened.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Some(Opened::Rpc { body_len_bytes }))) => Some((CallKind::Call, body_len_bytes)),
            Poll::Ready(Ok(Some(Opened::OneWay { body_len_bytes }))) => {
                Some((CallKind::OneWay, body_len_bytes))
            }
            Poll::Ready(_) | Poll::Pending => None,
        }
    }

    /// Reads the stream's first bytes within the header deadline and hands it on.
    async fn classify(mut self, owner: Weak<PeerConnection>, outlets: Outlets, header_timeout: Duration) {
        match self.opened_within(header_timeout).await {
            Some(Ok(Some(opened))) => outlets.hand_on(opened, self.stream, owner).await,
            Some(Ok(None)) => {} // Given up by the peer: dropping it answers.
            Some(Err(error)) => self.stream.reject(error.code()),
            None => self.stream.reject(Code::Timeout),
        }
    }

    /// What the stream is; `None` if that does not come in time, which begins with the first byte: until then the
    /// stream's packets may be behind all else that a slow path has to carry.
    async fn opened_within(&mut self, timeout: Duration) -> Option<Result<Option<Opened>, OpeningError>> {
        for _ in 0..MAX_TIMEOUTS_TO_BEGIN {
            let had_begun = self.has_begun;
            match tokio::time::timeout(timeout, self.opened()).await {
                Ok(opened) => return Some(opened),
                Err(_) if had_begun => return None,
                Err(_) => {}
            }
        }
        None
    }

    /// What the stream is; `None`: the peer gave it up, or the connection ended. Cancel-safe, and gives the
    /// same again.
    ///
    /// What follows the opening is left to the stream's taker.
    async fn opened(&mut self) -> Result<Option<Opened>, OpeningError> {
        let mut piece = Bytes::new();
        loop {
            if let Some(opened) = self.reader.push(&mut piece)? {
                if !piece.is_empty() {
                    self.stream.recv.unread(piece);
                }
                return Ok(Some(opened));
            }
            piece = match self.stream.recv.read().await {
                Ok(Some(piece)) => {
                    self.has_begun = true;
                    piece
                }
                Ok(None) => return self.reader.end().map(|()| None),
                Err(_) => return Ok(None),
            };
        }
    }
}

impl Outlets {
    /// Where it waits for room in one inbox, it holds no other open.
    async fn hand_on(self, opened: Opened, stream: BiStream, connection: Weak<PeerConnection>) {
        let Self { bare, messages, calls, transfers } = self;
        match opened {
            Opened::Bare { len_bytes } => {
                drop((messages, calls, transfers));
                put(bare, (len_bytes, stream)).await;
            }
            Opened::Message { body_len_bytes } => {
                drop((bare, calls, transfers));
                put(messages, (body_len_bytes, stream)).await;
            }
            Opened::Rpc { body_len_bytes } => {
                drop((bare, messages, transfers));
                put(calls, InboundCall { kind: CallKind::Call, body_len_bytes, stream, connection }).await;
            }
            Opened::OneWay { body_len_bytes } => {
                drop((bare, messages, transfers));
                put(calls, InboundCall { kind: CallKind::OneWay, body_len_bytes, stream, connection }).await;
            }
            Opened::Records(transfer) => {
                drop((bare, messages, calls));
                transfers.deliver(transfer, Tagged::Records(stream)).await;
            }
            Opened::Tagged(tag) => {
                drop((bare, messages, calls));
                transfers.deliver_chunk(tag, false, stream).await;
            }
            Opened::Compressed(tag) => {
                drop((bare, messages, calls));
                transfers.deliver_chunk(tag, true, stream).await;
            }
        }
    }
}

/// Fails only when the connection's handle is gone; the stream is then reset by its drop.
async fn put<T>(outlet: mpsc::Sender<T>, item: T) {
    outlet.send(item).await.ok();
}

/// Who has claimed which transfer, and what waits to be claimed.
#[derive(Debug)]
pub(crate) struct Transfers {
    state: Mutex<TransfersState>,
    /// Expires parked streams.
    parked: Notify,
    header_timeout: Duration,
}

#[derive(Debug, Default)]
struct TransfersState {
    /// Live [`Feed`]s.
    feeds: usize,
    claims: HashMap<TransferId, mpsc::Sender<Tagged>>,
    parked: VecDeque<(Instant, TransferId, Tagged)>,
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
        if state.feeds > 0 {
            state.claims.insert(transfer, outlet);
        }
        Some(inbox)
    }

    pub(crate) fn release(&self, transfer: TransferId) {
        self.lock().claims.remove(&transfer);
    }

    /// The frame's own size follows the tag. Of a transfer that is claimed it waits for its turn, as any byte of a chunk
    /// does, for as long as the transfer lives: on a slow path others go first, and the claim's holder watches
    /// it as a whole. In a transfer without a claim there is nothing to wait for (SPEC 2.4).
    async fn deliver_chunk(&self, tag: TaggedChunk, is_compressed: bool, mut stream: BiStream) {
        let claim = self.lock().claims.get(&tag.transfer).cloned();
        let mut size = [0; 8];
        let read = stream.recv.read_exact(&mut size);
        let read = match claim {
            Some(claim) => tokio::select! {
                read = read => Ok(read),
                () = claim.closed() => Err(Code::Unclaimed),
            },
            None => tokio::time::timeout(self.header_timeout, read).await.map_err(|_| Code::Timeout),
        };
        match read {
            Ok(Ok(true)) => {
                let len_bytes = u64::from_le_bytes(size);
                let chunk = Tagged::Chunk { index: tag.index, len_bytes, is_compressed, stream };
                self.deliver(tag.transfer, chunk).await;
            }
            Ok(Ok(false)) => stream.reject(Code::Protocol),
            Ok(Err(_)) => {} // Given up by the peer: dropping it answers.
            Err(code) => stream.reject(code),
        }
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

    /// SPEC 2.5: bounded in number and time.
    fn park(&self, transfer: TransferId, stream: Tagged) {
        let mut state = self.lock();
        // Claimed between the look-up and here.
        if let Some(claim) = state.claims.get(&transfer) {
            match claim.try_send(stream) {
                Ok(()) => {}
                Err(TrySendError::Full(stream) | TrySendError::Closed(stream)) => stream.reject(Code::Busy),
            }
            return;
        }
        if state.feeds == 0 {
            return stream.reject(Code::Unclaimed);
        }
        if state.parked.len() >= limits::MAX_PARKED_STREAMS
            && let Some((_, _, oldest)) = state.parked.pop_front()
        {
            oldest.reject(Code::Unclaimed);
        }
        state.parked.push_back((Instant::now(), transfer, stream));
        self.parked.notify_one();
    }

    /// Waits until the oldest parked stream has waited for too long, and refuses it. Cancel-safe.
    async fn expire_next(&self) {
        loop {
            let parked = self.parked.notified();
            let oldest = self.lock().parked.front().map(|(since, _, _)| *since);
            let Some(since) = oldest else {
                parked.await;
                continue;
            };
            tokio::time::sleep(self.header_timeout.saturating_sub(since.elapsed())).await;
            self.expire(since);
            return;
        }
    }

    fn expire(&self, since: Instant) {
        let mut state = self.lock();
        while state.parked.front().is_some_and(|(parked, _, _)| *parked <= since)
            && let Some((_, _, oldest)) = state.parked.pop_front()
        {
            oldest.reject(Code::Unclaimed);
        }
    }

    /// False once the last feed has gone: a claim made since then waits for nothing.
    fn enter(&self) -> bool {
        let mut state = self.lock();
        if state.feeds > 0 {
            state.feeds += 1;
        }
        state.feeds > 0
    }

    fn leave(&self) {
        let mut state = self.lock();
        state.feeds -= 1;
        if state.feeds == 0 {
            // The last connection has ended: claims see the end of their inbox.
            state.claims.clear();
            state.parked.clear();
        } else {
            // It may have been the one that watched the clock.
            self.parked.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, TransfersState> {
        // Every change is a single step; a panic in between leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tagged {
    pub(crate) fn reject(self, code: Code) {
        match self {
            Self::Records(stream) | Self::Chunk { stream, .. } => stream.reject(code),
        }
    }
}

/// 12 header deadlines, two minutes by default: what 64 kbit/s carry in that time is more than a sender of ours has
/// under way.
const MAX_TIMEOUTS_TO_BEGIN: u32 = 12;

/// As many as a peer may have open: with the stream limit at its default, no inbox ever fills up.
const INBOX_LEN: usize = MAX_CONCURRENT_STREAMS as usize;
