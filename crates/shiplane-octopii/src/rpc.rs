//! Calls in the octopii dialect (SPEC 9.10, 9.11), with nodes of the original program.
//!
//! **The peer is not authenticated**; see the [crate]. A request is a message, and so is
//! its response, and only the call id ties the two together. So somebody must read all messages for a
//! call to get its answer: [`OctopiiRpc::serve`] does, and hands what the peer asks to an
//! [`OctopiiHandler`].
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use bytes::Bytes;
//! use shiplane_octopii::{
//!     AcceptAnyPeer, InsecureOctopiiTransport, Messages,
//!     internals::{OctopiiHandler, OctopiiRpc, RequestPayload, ResponsePayload},
//! };
//! use shiplane_transport::TransportConfig;
//!
//! struct Echo;
//! impl OctopiiHandler for Echo {
//!     async fn answer(&self, question: RequestPayload) -> ResponsePayload {
//!         match question {
//!             RequestPayload::Custom { data, .. } => ResponsePayload::CustomResponse { success: true, data },
//!             _ => ResponsePayload::Error { message: "only custom requests".to_owned() },
//!         }
//!     }
//! }
//!
//! let bind = || {
//!     let addr = "127.0.0.1:0".parse().unwrap();
//!     InsecureOctopiiTransport::bind(addr, TransportConfig::default(), AcceptAnyPeer)
//! };
//! let (client, server) = (bind()?, bind()?);
//! let server_addr = server.local_addr()?;
//! tokio::spawn(async move {
//!     while let Some(peer) = server.accept(Messages).await {
//!         tokio::spawn(OctopiiRpc::new(peer).serve(Echo));
//!     }
//! });
//!
//! let rpc = OctopiiRpc::new(client.connect(server_addr, Messages).await?);
//! tokio::spawn(rpc.clone().serve(())); // Reads the answers, and answers no questions.
//! let question = RequestPayload::Custom { operation: "echo".to_owned(), data: Bytes::from_static(b"hi") };
//! let answer = rpc.call(question, Duration::from_secs(5)).await?;
//! let expected = ResponsePayload::CustomResponse { success: true, data: Bytes::from_static(b"hi") };
//! assert_eq!(answer, expected);
//! # Ok(())
//! # }
//! ```

mod envelope;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::FutureExt;
use shiplane_rpc::{CallError, MAX_BUDGET, MAX_IN_FLIGHT, internals::CallId};
use shiplane_transport::{ConnectionEnd, StreamError};
use shiplane_wire::Code;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout_at},
};

#[doc(hidden)]
pub use self::envelope::fuzz_octopii;
pub use self::envelope::{
    OneWayMessage, RequestPayload, ResponsePayload, RpcMessage, RpcRequest, RpcResponse,
};
use crate::{InsecureOctopiiConnection, Messages, OctopiiMessageError};

/// Calls to an **unauthenticated** peer and, while [`serve`](Self::serve) runs, calls of theirs. Clones share the
/// connection and the limits.
#[derive(Clone)]
pub struct OctopiiRpc {
    shared: Arc<Shared>,
}

/// What a peer's calls do here. `()` answers every question with an error.
pub trait OctopiiHandler: Send + Sync + 'static {
    /// The answer to a question. Dropped when the connection ends. A panic is answered with an error.
    fn answer(&self, question: RequestPayload) -> impl Future<Output = ResponsePayload> + Send;

    /// Takes what needs no answer; by default it is ignored.
    fn notice(&self, notice: OneWayMessage) -> impl Future<Output = ()> + Send {
        drop(notice);
        std::future::ready(())
    }
}

impl OctopiiHandler for () {
    async fn answer(&self, _: RequestPayload) -> ResponsePayload {
        ResponsePayload::Error { message: "no requests are answered here".to_owned() }
    }
}

impl OctopiiRpc {
    /// Over this connection. Calls have no answers until [`serve`](Self::serve) runs.
    #[must_use]
    pub fn new(connection: InsecureOctopiiConnection<Messages>) -> Self {
        let waiting = Waiting { next_id: FIRST_ID, answers: HashMap::new(), is_over: false };
        Self { shared: Arc::new(Shared { connection, waiting: Mutex::new(waiting) }) }
    }

    /// Asks, and waits for the answer, `budget` in all. An answer that reports a failure is an answer.
    ///
    /// Dropping the future gives the call up; the peer is not told.
    ///
    /// # Errors
    /// See [`CallError`]. Nothing was sent if it is `TooLarge` or `Busy`.
    pub async fn call(
        &self,
        question: RequestPayload,
        budget: Duration,
    ) -> Result<ResponsePayload, CallError> {
        if budget.is_zero() {
            return Err(CallError::DeadlineExceeded { budget });
        }
        let deadline = Instant::now() + budget.min(MAX_BUDGET);
        let Some(mut pending) = self.begin()? else {
            return Err(CallError::ConnectionLost(self.shared.connection.closed().await));
        };
        let request = RpcRequest { id: pending.id, payload: question };
        let envelope = RpcMessage::Request(request).encode()?;
        let answered = async {
            let sending = self.shared.connection.send(envelope);
            // The receipt of the request and the answer to it come on streams of their own.
            tokio::select! {
                biased;
                answer = &mut pending.answer => return Ok(answer),
                sent = sending => sent.map_err(|error| call_error(error, budget))?,
            }
            Ok((&mut pending.answer).await)
        };
        match timeout_at(deadline, answered).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            // `serve` has ended, and has closed the connection.
            Ok(Ok(Err(_))) => Err(CallError::ConnectionLost(self.shared.connection.closed().await)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CallError::DeadlineExceeded { budget }),
        }
    }

    /// Says something that needs no answer, and waits, `budget` in all, until the peer has taken it.
    ///
    /// Dropping the future leaves unknown whether the peer took it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn notify(&self, notice: OneWayMessage, budget: Duration) -> Result<(), CallError> {
        let envelope = RpcMessage::OneWay(notice).encode()?;
        let deadline = Instant::now() + budget.min(MAX_BUDGET);
        match timeout_at(deadline, self.shared.connection.send(envelope)).await {
            Ok(sent) => sent.map_err(|error| call_error(error, budget)),
            Err(_) => Err(CallError::DeadlineExceeded { budget }),
        }
    }

    /// How many calls wait for their answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.waiting().answers.len()
    }

    /// The connection that the calls go over. Leave its [`recv`](InsecureOctopiiConnection::recv) alone.
    #[must_use]
    pub fn connection(&self) -> &InsecureOctopiiConnection<Messages> {
        &self.shared.connection
    }

    /// Reads all that the peer sends until the connection ends: hands answers to the calls that wait
    /// for them, and the peer's calls to `handler`, at most [`MAX_HANDLED`] at a time. Run it once, in
    /// a task of its own. A message that is none of this is skipped.
    ///
    /// Ending or dropped, it closes the connection, and every call that waits fails.
    ///
    /// # Errors
    /// How the connection ended, if not in order.
    pub async fn serve(self, handler: impl OctopiiHandler) -> Result<(), ConnectionEnd> {
        let _over = Over(&self.shared);
        let handler = Arc::new(handler);
        let handled = Arc::default();
        // Dropped with this future, and all that is being handled with it.
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let message = match self.shared.connection.recv().await {
                Ok(Some(envelope)) => RpcMessage::decode(&envelope),
                Ok(None) => return Ok(()),
                Err(OctopiiMessageError::Stream(StreamError::ConnectionLost(end))) => return Err(end),
                Err(error) => {
                    tracing::debug!(%error, "a message did not arrive whole");
                    continue;
                }
            };
            match message {
                Ok(RpcMessage::Response(response)) => self.shared.settle(response),
                Ok(_) if tasks.len() >= MAX_TASKS => {
                    tracing::warn!("a peer's calls come faster than they can be refused: one is ignored");
                }
                Ok(RpcMessage::OneWay(notice)) => {
                    let handler = Arc::clone(&handler);
                    tasks.spawn(async move { handler.notice(notice).await });
                }
                Ok(RpcMessage::Request(request)) => {
                    let handling = Handling::begin(&handled, request.id);
                    let (shared, handler) = (Arc::clone(&self.shared), Arc::clone(&handler));
                    match handling {
                        Ok(handling) => drop(tasks.spawn(shared.handle(handler, request, handling))),
                        Err(refused) => shared.refuse(&mut tasks, request.id, refused),
                    }
                }
                Err(error) => tracing::debug!(%error, "a message is no envelope"),
            }
        }
    }

    /// `None`: answers are no longer read.
    fn begin(&self) -> Result<Option<Pending<'_>>, CallError> {
        let mut waiting = self.shared.waiting();
        if waiting.is_over {
            return Ok(None);
        }
        if waiting.answers.len() >= MAX_IN_FLIGHT {
            return Err(CallError::Busy { max_in_flight: MAX_IN_FLIGHT });
        }
        let id = CallId::from_u64(waiting.next_id);
        waiting.next_id += 1;
        let (answer_to, answer) = oneshot::channel();
        waiting.answers.insert(id, answer_to);
        Ok(Some(Pending { shared: &self.shared, id, answer }))
    }
}

impl fmt::Debug for OctopiiRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OctopiiRpc")
            .field("peer", &self.shared.connection.remote_addr())
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

struct Shared {
    connection: InsecureOctopiiConnection<Messages>,
    waiting: Mutex<Waiting>,
}

/// The waiting calls and their callers.
struct Waiting {
    next_id: u64,
    answers: HashMap<CallId, oneshot::Sender<ResponsePayload>>,
    is_over: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change is a single step; a panic in between leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // SPEC 9.11
    fn settle(&self, response: RpcResponse) {
        match self.waiting().answers.remove(&response.id) {
            // Fails when the caller has lost interest this moment.
            Some(answer_to) => drop(answer_to.send(response.payload)),
            None => tracing::debug!(call = %response.id, "a response to no call in flight was ignored"),
        }
    }

    async fn handle(
        self: Arc<Self>,
        handler: Arc<impl OctopiiHandler>,
        request: RpcRequest,
        handling: Handling,
    ) {
        let handled = AssertUnwindSafe(handler.answer(request.payload)).catch_unwind().await;
        let payload = handled.unwrap_or_else(|_| {
            tracing::error!("a handler panicked; its caller got an error");
            ResponsePayload::Error { message: "the handler failed".to_owned() }
        });
        drop(handling);
        self.respond(request.id, payload).await;
    }

    fn refuse(self: Arc<Self>, tasks: &mut JoinSet<()>, id: CallId, refused: Refused) {
        match refused {
            Refused::InFlight => tracing::debug!(call = %id, "a second call of this id is ignored"),
            Refused::Busy => {
                let message = format!("{MAX_HANDLED} calls are being handled already");
                let payload = ResponsePayload::Error { message };
                tasks.spawn(async move { self.respond(id, payload).await });
            }
        }
    }

    async fn respond(&self, id: CallId, payload: ResponsePayload) {
        let response = |payload| RpcMessage::Response(RpcResponse { id, payload });
        let envelope = response(payload).encode().or_else(|error| {
            let apology = ResponsePayload::Error { message: error.to_string() };
            response(apology).encode()
        });
        let Ok(envelope) = envelope else { return };
        if let Err(error) = self.connection.send(envelope).await {
            tracing::debug!(call = %id, %error, "a response was not taken");
        }
    }
}

/// One call that waits. Dropped, it leaves the table.
struct Pending<'a> {
    shared: &'a Shared,
    id: CallId,
    answer: oneshot::Receiver<ResponsePayload>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.shared.waiting().answers.remove(&self.id);
    }
}

/// The ids of the peer's calls that are being handled.
type Handled = Arc<Mutex<HashSet<CallId>>>;

/// A peer's call that is being handled.
struct Handling {
    handled: Handled,
    id: CallId,
}

/// Why a call of the peer's is not handled.
enum Refused {
    /// SPEC 9.11: another with its id is.
    InFlight,
    /// As many as allowed are.
    Busy,
}

impl Handling {
    fn begin(handled: &Handled, id: CallId) -> Result<Self, Refused> {
        let mut ids = handled.lock().unwrap_or_else(PoisonError::into_inner);
        // However busy we are: an answer would be taken for that to the other.
        if ids.contains(&id) {
            return Err(Refused::InFlight);
        }
        if ids.len() >= MAX_HANDLED {
            return Err(Refused::Busy);
        }
        ids.insert(id);
        Ok(Self { handled: Arc::clone(handled), id })
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.handled.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// When dropped, no more answers can arrive, and all waiting calls end.
struct Over<'a>(&'a Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.connection.close(Code::NoError);
        let mut waiting = self.0.waiting();
        waiting.is_over = true;
        waiting.answers.clear();
    }
}

fn call_error(error: OctopiiMessageError, budget: Duration) -> CallError {
    match error {
        OctopiiMessageError::TooLarge { len_bytes, max_bytes } => {
            CallError::TooLarge { len_bytes, max_bytes }
        }
        OctopiiMessageError::Stream(error) => match error {
            StreamError::Reset(code) | StreamError::Stopped(code) => CallError::Refused { code },
            StreamError::ConnectionLost(end) => CallError::ConnectionLost(end),
            StreamError::TimedOut { .. } => CallError::DeadlineExceeded { budget },
            // SPEC 9.8: the receipt is not an empty FIN.
            StreamError::TooLong { .. } => CallError::Refused { code: Code::Protocol },
            StreamError::Closed => CallError::Refused { code: Code::Cancelled },
        },
        // Said of what is received only.
        OctopiiMessageError::Truncated { .. } => CallError::Refused { code: Code::Protocol },
    }
}

/// As the original counts, once for each connection.
const FIRST_ID: u64 = 1;

/// 16 of the peer's calls at a time, each with up to 1 MiB: the original handles one.
pub const MAX_HANDLED: usize = 16;

/// The same number again are answered as busy; further calls are not answered at all.
const MAX_TASKS: usize = 2 * MAX_HANDLED;

#[cfg(test)]
mod tests;
