//! The caller's side: one stream per call.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use shiplane_transport::{
    LANE_PRIORITY, PeerConnection, StreamError,
    internals::{RecvHalf, SendHalf},
};
use shiplane_wire::{Code, StreamKind};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    calls::{AnswerError, CallId, Calls, MAX_BUDGET, MAX_IN_FLIGHT},
    codec::{self, Answer, EncodeError, Request},
    error::{AnswerFault, CallError},
    fault::Fault,
    frame::{EnvelopeError, EnvelopeReader},
    method::Method,
};

/// Calls methods of one peer.
///
/// Make one for a connection and clone it: the clones share the limits. A handler that calls back uses
/// the one of its [`RequestContext`](crate::RequestContext), which has streams set aside for it, so
/// that two peers whose handlers call each other do not wait for each other's streams.
///
/// Calls are independent: each has its own stream, and is answered when its handler is done, whatever
/// the others wait for.
#[derive(Clone)]
pub struct RpcClient {
    shared: Arc<Shared>,
    wrapping: Option<Arc<WrappingMethod>>,
}

/// What calls go inside of at first.
struct WrappingMethod {
    method: &'static str,
    wrap: Box<Wrap>,
    is_done: AtomicBool,
}

/// Makes a body from the method and the body that it carries.
type Wrap = dyn Fn(&str, Bytes) -> Result<Bytes, EncodeError> + Send + Sync;

impl WrappingMethod {
    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }
}

impl RpcClient {
    /// A client for calls to the peer of `connection`.
    #[must_use]
    pub fn new(connection: Arc<PeerConnection>) -> Self {
        Self::with_streams(connection, Some(Arc::new(Semaphore::new(MAX_OUTER_STREAMS))))
    }

    /// For calls made while handling the peer's calls on the same connection.
    pub(crate) fn nested(connection: Arc<PeerConnection>) -> Self {
        Self::with_streams(connection, None)
    }

    /// Wraps this client's calls in calls of `method` until one has succeeded, so that the first call can also authorise
    /// the caller ([`Router::wrapping_method`](crate::Router::wrapping_method)). `wrap` makes the outer body from the
    /// inner method and body. Earlier clones are not affected; later ones share it.
    #[doc(hidden)]
    #[must_use]
    pub fn wrapped_in<W>(self, method: &'static str, wrap: W) -> Self
    where
        W: Fn(&str, Bytes) -> Result<Bytes, EncodeError> + Send + Sync + 'static,
    {
        let wrapping =
            Arc::new(WrappingMethod { method, wrap: Box::new(wrap), is_done: AtomicBool::new(false) });
        Self { wrapping: Some(wrapping), ..self }
    }

    /// Calls `method` and waits for the answer, `budget` in all: for a free stream, for sending, and
    /// for the handler, which gets the rest of it.
    ///
    /// Dropping the future gives the call up: the peer cancels the handler.
    ///
    /// # Errors
    /// See [`CallError`]. Nothing was sent if it is `TooLarge` or `Busy`.
    pub async fn call(&self, method: &str, body: Bytes, budget: Duration) -> Result<Bytes, CallError> {
        let Some(wrapping) = self.wrapping.as_ref().filter(|wrapping| !wrapping.is_done()) else {
            return self.begin(method, body, budget)?.run().await;
        };
        let body = (wrapping.wrap)(method, body)?;
        let answer = self.begin(wrapping.method, body, budget)?.run().await?;
        wrapping.is_done.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    /// As [`call`](Self::call), with the types of the method.
    ///
    /// Dropping the future gives the call up, as there.
    ///
    /// # Errors
    /// As `call`, and [`CallError::PeerProtocol`] when the answer is no `Resp`.
    pub async fn call_typed<Req, Resp>(
        &self,
        method: Method<Req, Resp>,
        request: &Req,
        budget: Duration,
    ) -> Result<Resp, CallError>
    where
        Req: Serialize,
        Resp: DeserializeOwned,
    {
        let body = codec::encode(request)?;
        let answer = self.call(method.name(), body, budget).await?;
        Ok(codec::decode(&answer).map_err(AnswerFault::Body)?)
    }

    /// Sends the peer a request without an answer, and returns once it has been sent. `budget` is for
    /// getting there; what is left of it is the handler's.
    ///
    /// The handler runs at most once, and what becomes of it is not known here: where that matters,
    /// [`call`](Self::call). Until the peer is done with it, it counts as in flight, so that notices
    /// cannot pile up without end.
    ///
    /// Dropping the future withdraws the part that has not been sent yet. Afterwards only the end of the
    /// connection does; [`PeerConnection::drained`] waits for the handlers.
    ///
    /// # Errors
    /// As `call`, save for what only an answer can say. Nothing was sent if it is `TooLarge` or `Busy`.
    pub async fn notify(&self, method: &str, body: Bytes, budget: Duration) -> Result<(), CallError> {
        let mut exchange = self.begin(method, body, budget)?;
        let sent = timeout_at(exchange.deadline, exchange.send(StreamKind::OneWay)).await;
        let recv = sent.unwrap_or(Err(CallError::DeadlineExceeded { budget }))?;
        // Its own task, since to drop this half would tell the peer to stop.
        tokio::spawn(exchange.await_ack(recv));
        Ok(())
    }

    /// As [`notify`](Self::notify), with the type of the method's request.
    ///
    /// Dropping the future withdraws the part that has not been sent yet, as there.
    ///
    /// # Errors
    /// As `notify`.
    pub async fn notify_typed<Req: Serialize>(
        &self,
        method: Method<Req, ()>,
        request: &Req,
        budget: Duration,
    ) -> Result<(), CallError> {
        self.notify(method.name(), codec::encode(request)?, budget).await
    }

    /// The number of calls and notices of this client and its clones that the peer has not finished.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.calls().in_flight()
    }

    /// The connection that the calls go over.
    #[must_use]
    pub fn connection(&self) -> &Arc<PeerConnection> {
        &self.shared.connection
    }

    fn with_streams(connection: Arc<PeerConnection>, streams: Option<Arc<Semaphore>>) -> Self {
        let calls = Mutex::new(Calls::new(first_id(), MAX_IN_FLIGHT));
        Self { shared: Arc::new(Shared { connection, calls, streams }), wrapping: None }
    }

    fn begin(&self, method: &str, body: Bytes, budget: Duration) -> Result<Exchange, CallError> {
        let now = Instant::now();
        let deadline = now + budget.min(MAX_BUDGET);
        let call_id = CallId::from_u64(0);
        let mut request = Request { call_id, method: method.to_owned(), remaining_ms: 0, body };
        // Before the call takes a place in the table; the numbers set later do not change the length.
        request.check_len()?;
        request.call_id = self
            .shared
            .calls()
            .begin(now.into_std(), deadline.into_std())
            .map_err(|error| CallError::from_begin(error, budget))?;
        Ok(Exchange {
            shared: Arc::clone(&self.shared),
            request,
            budget,
            deadline,
            place: None,
            sent: None,
            recv: None,
            reader: EnvelopeReader::answer(),
            outcome: None,
        })
    }
}

impl fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcClient")
            .field("peer", &self.shared.connection.peer_id())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

struct Shared {
    connection: Arc<PeerConnection>,
    calls: Mutex<Calls>,
    /// None: all the streams that the peer allows.
    streams: Option<Arc<Semaphore>>,
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        // The table keeps its own order even if a holder panicked between two calls to it.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call under way. Dropped, it leaves the table, and its stream tells the peer to stop.
struct Exchange {
    shared: Arc<Shared>,
    request: Request,
    budget: Duration,
    deadline: Instant,
    /// Of the streams that are not set aside.
    place: Option<OwnedSemaphorePermit>,
    /// The finished half: with the answer comes its acknowledgement, which then need not be waited for.
    sent: Option<SendHalf>,
    recv: Option<RecvHalf>,
    reader: EnvelopeReader,
    outcome: Option<Result<Bytes, Fault>>,
}

impl Exchange {
    async fn run(mut self) -> Result<Bytes, CallError> {
        if let Ok(Err(error)) = timeout_at(self.deadline, self.converse()).await {
            if let CallError::PeerProtocol(fault) = &error {
                self.stop(fault.code());
            }
            return Err(error);
        }
        match self.outcome.take() {
            // At the deadline the stream may still be open, but the answer was here in time.
            Some(outcome) => Ok(outcome?),
            None => {
                self.stop(Code::Timeout);
                self.shared.calls().expire(Instant::now().into_std());
                Err(CallError::DeadlineExceeded { budget: self.budget })
            }
        }
    }

    /// Sends the request, as soon as there is a stream for it.
    async fn send(&mut self, kind: StreamKind) -> Result<RecvHalf, CallError> {
        let mut left = self.budget.min(MAX_BUDGET);
        if let Some(places) = &self.shared.streams {
            self.place = Arc::clone(places).try_acquire_owned().ok();
            if self.place.is_none() {
                // Never closed, so never an error.
                self.place = Arc::clone(places).acquire_owned().await.ok();
                left = self.deadline.saturating_duration_since(Instant::now());
            }
        }
        self.request.remaining_ms = whole_ms(left);
        let opening = self.request.encode(kind)?;
        let opened = self.shared.connection.open_stream(opening).await;
        let mut stream = opened.map_err(stream_error(self.budget))?;
        // The peer may have stopped our half already; it may have answered all the same.
        let _ = stream.send.finish();
        self.sent = Some(stream.send);
        Ok(stream.recv)
    }

    /// Waits until the peer is done with a one-way request.
    async fn await_ack(self, mut recv: RecvHalf) {
        let read = timeout_at(self.deadline, recv.read()).await;
        let (peer, call) = (self.shared.connection.peer_id(), self.request.call_id);
        match read {
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%peer, %call, %error, "a notice was not taken"),
            Ok(Ok(Some(_))) => {
                tracing::warn!(%peer, %call, "the peer answered a notice");
                recv.stop(Code::Protocol);
            }
            Err(_) => recv.stop(Code::Timeout),
        }
    }

    /// Sends the request and reads the answer, to the end of its stream.
    async fn converse(&mut self) -> Result<(), CallError> {
        let recv = self.send(StreamKind::RpcCall).await?;
        let recv = self.recv.insert(recv);
        let shared = Arc::clone(&self.shared);
        let failed = stream_error(self.budget);
        loop {
            let piece = match recv.read().await {
                Ok(Some(piece)) => piece,
                // Once the answer is here, the way its stream ends changes nothing.
                Ok(None) | Err(_) if self.outcome.is_some() => return Ok(()),
                Ok(None) => {
                    self.reader.end().map_err(AnswerFault::from)?;
                    return Ok(());
                }
                Err(error) => return Err(failed(error)),
            };
            let pushed = self.reader.push(piece);
            if let Some(envelope) = self.reader.take() {
                let answer = Answer::decode(&envelope).map_err(AnswerFault::Envelope)?;
                self.outcome = Some(settle(&shared, &self.request, answer, self.budget)?);
            }
            match pushed {
                Ok(()) => {}
                // A second answer. The first one stands; the peer learns that it broke the protocol.
                Err(EnvelopeError::Excess) => {
                    tracing::warn!(peer = %shared.connection.peer_id(), call = %self.request.call_id,
                        "the peer sent more than one answer");
                    self.stop(Code::Protocol);
                    return Ok(());
                }
                Err(error) => return Err(AnswerFault::from(error).into()),
            }
        }
    }

    fn stop(&mut self, code: Code) {
        if let Some(recv) = self.recv.take() {
            recv.stop(code);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.calls().cancel(self.request.call_id);
    }
}

/// The outcome of an answer, if it answers `request` and is in time.
fn settle(
    shared: &Shared,
    request: &Request,
    answer: Answer,
    budget: Duration,
) -> Result<Result<Bytes, Fault>, CallError> {
    // SPEC 5.3
    if answer.call_id != request.call_id {
        let (expected, actual) = (request.call_id, answer.call_id);
        return Err(AnswerFault::WrongId { expected, actual }.into());
    }
    let now = Instant::now().into_std();
    match shared.calls().answer(request.call_id, now) {
        Ok(()) => Ok(answer.outcome),
        // The id is ours and was not answered before, so the answer can only have come late.
        Err(AnswerError::Late | AnswerError::Duplicate | AnswerError::Unknown) => {
            Err(CallError::DeadlineExceeded { budget })
        }
    }
}

fn stream_error(budget: Duration) -> impl Fn(StreamError) -> CallError + Copy {
    move |error| CallError::from_stream(error, budget)
}

/// Rounded up, so that a call with time left is never sent as one without.
fn whole_ms(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(NANOS_PER_MS).try_into().unwrap_or(u64::MAX)
}

/// A start that no other client has, of this process or of another one with the same key: an id that is
/// in flight twice would be refused.
fn first_id() -> CallId {
    CallId::from_u64(RandomState::new().build_hasher().finish())
}

/// Send priority of calls and answers, quinn's default: above the lane, so that a call overtakes bulk
/// data, and equal to messages and records, which are as small.
pub const RPC_PRIORITY: i32 = 0;

// New streams have this priority without a call for each, but only as long as this holds.
const _: () = assert!(RPC_PRIORITY > LANE_PRIORITY);

/// 256 streams for calls that are not made from within a handler, of the 320 that a peer allows. If they
/// could take all, and every handler on both sides called back, each would wait for the other's.
const MAX_OUTER_STREAMS: usize = 256;

const NANOS_PER_MS: u128 = 1_000_000;
