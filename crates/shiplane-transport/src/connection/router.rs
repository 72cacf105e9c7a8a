//! Accepts and classifies the streams of a connection.
//!
//! Calls are told as they are accepted. Any other stream, and one whose first bytes are not here yet, is
//! classified in a task of its own, so that one that is opened and stays silent holds up nothing else. Tagged
//! streams go to the holder of their transfer's claim, or wait for that (SPEC 2.5).

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use shiplane_wire::{Code, Opened, OpeningError, OpeningReader};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    CallKind, InboundCall, Inboxes, PeerConnection,
    transfers::{INBOX_LEN, Tagged, Transfers},
};
use crate::stream::{BiStream, InUse};

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
    let transfers = Arc::new(Transfers::new(header_timeout));
    let outlets = Outlets { bare, messages, calls, transfers: Arc::clone(&transfers) };
    let inboxes =
        Inboxes { bare: bare_in.into(), messages: messages_in.into(), calls: calls_in.into(), transfers };
    (Arc::new(inboxes), Feed { outlets })
}

impl PeerConnection {
    /// Starts to accept the peer's streams.
    pub(crate) fn route(self: &Arc<Self>, feed: Feed) {
        let (owner, header_timeout) = (Arc::downgrade(self), self.config.header_timeout);
        start(self.connection.clone(), owner, self.theirs.clone(), feed, header_timeout);
    }
}

/// Starts the router of `connection`, which is that of `owner`; it ends with the connection.
fn start(
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

/// 12 header deadlines, two minutes by default: what 64 kbit/s carry in that time is more than a sender of ours has
/// under way.
const MAX_TIMEOUTS_TO_BEGIN: u32 = 12;
