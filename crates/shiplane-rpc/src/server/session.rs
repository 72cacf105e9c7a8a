//! The calls of one peer, from the first byte of the body to the last of the answer.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{Either, FutureExt, select};
use shiplane_transport::{
    PeerConnection, StreamError,
    internals::{BiStream, CallKind, InboundCall, MemoryPool, PooledMemory, RecvHalf, SendHalf, until},
};
use shiplane_wire::Code;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Router, unsendable};
use crate::{
    calls::{AdmitError, CallId, Inbound, MAX_BUDGET},
    client::RpcClient,
    codec::{Answer, Request},
    context::RequestContext,
    fault::{Fault, FaultCode},
    frame::EnvelopeReader,
};

impl Router {
    /// Handles the peer's calls until the connection has ended and its last handler is gone. No other task
    /// may take calls from the connection meanwhile.
    ///
    /// Dropping the future cancels the handlers that run and takes no more calls.
    pub async fn serve(self: Arc<Self>, connection: Arc<PeerConnection>) {
        let session = Arc::new(Session::new(self, Arc::clone(&connection)));
        let ended = session.ended.clone().drop_guard();
        let tasks = TaskTracker::new();
        // With other threads about, handlers begin side by side. On a runtime of one thread that brings
        // nothing, and a handler that is done at once needs no task of its own.
        let is_alone = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        let mut calls = connection.calls().await;
        while let Some(call) = calls.next().await {
            let mut handled = Box::pin(Arc::clone(&session).handle(call));
            if is_alone && handled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                continue;
            }
            // Polls it again at once, so that nothing that has woken it meanwhile is missed.
            tasks.spawn(handled);
        }
        // Now it is the turn of the peer's other connections, some of whose calls may be handled here.
        drop(calls);
        tasks.close();
        tasks.wait().await;
        drop(ended);
    }
}

/// What the calls of one connection share.
struct Session {
    router: Arc<Router>,
    connection: Arc<PeerConnection>,
    client: RpcClient,
    inbound: Mutex<Inbound>,
    /// What this peer may have in memory.
    body_bytes: MemoryPool,
    /// What of it is not counted among all peers.
    own_body_bytes: MemoryPool,
    ended: CancellationToken,
}

impl Session {
    fn new(router: Arc<Router>, connection: Arc<PeerConnection>) -> Self {
        Self {
            client: RpcClient::nested(Arc::clone(&connection)),
            inbound: Mutex::new(Inbound::new(router.max_in_flight)),
            body_bytes: MemoryPool::new(MAX_BODY_BYTES_IN_FLIGHT),
            own_body_bytes: MemoryPool::new(OWN_BODY_BYTES),
            ended: CancellationToken::new(),
            router,
            connection,
        }
    }

    /// One call, whatever becomes of it.
    async fn handle(self: Arc<Self>, call: InboundCall) {
        let arrived = Instant::now();
        let connection = call.connection();
        let InboundCall { kind, body_len_bytes, stream: BiStream { mut send, mut recv }, .. } = call;
        let taken = self.take(&mut recv, body_len_bytes, arrived);
        let taken = unless(taken, self.given_up(&mut send)).await.unwrap_or_else(Err);
        let outcome = match taken {
            Ok(taken) => {
                let call_id = taken.request.call_id;
                let outcome = self.run(taken, connection, &mut send, arrived).await;
                outcome.map(|outcome| (call_id, outcome))
            }
            Err(code) => {
                tracing::debug!(peer = %self.connection.peer_id(), %code, "a call was not taken");
                recv.stop(code);
                send.reset(code);
                return;
            }
        };
        match outcome {
            Ok((call_id, outcome)) => answer(kind, send, call_id, outcome).await,
            Err(code) => send.reset(code),
        }
    }

    /// Reads the request, in bounded memory and time.
    async fn take(&self, recv: &mut RecvHalf, body_len_bytes: u32, arrived: Instant) -> Result<Taken, Code> {
        let deadline = || arrived + self.connection.config().timeouts().header;
        let room = until(deadline, self.reserve(body_len_bytes)).await.ok_or(Code::Busy)?;
        let envelope = until(deadline, read_envelope(recv, body_len_bytes)).await.ok_or(Code::Timeout)??;
        let request = Request::decode(&envelope).map_err(|_| Code::Protocol)?;
        Ok(Taken { request, _room: room })
    }

    /// Waits for what a request takes of the peer's memory and, unless it is short, of that for all peers.
    async fn reserve(&self, len_bytes: u32) -> [PooledMemory; 2] {
        let peer = self.body_bytes.held(len_bytes.into()).await;
        let all = match self.own_body_bytes.hold(len_bytes.into()) {
            Some(own) => own,
            None => self.router.body_bytes.held(len_bytes.into()).await,
        };
        [peer, all]
    }

    /// The handler's outcome, or the code for a caller that waits no more or must not be answered.
    async fn run(
        &self,
        taken: Taken,
        connection: Option<Arc<PeerConnection>>,
        send: &mut SendHalf,
        arrived: Instant,
    ) -> Result<Result<Bytes, Fault>, Code> {
        let Taken { request, _room } = taken;
        let _in_flight = match self.inbound().admit(request.call_id) {
            Ok(()) => InFlight { session: self, id: request.call_id },
            // SPEC 5.3: to answer would be taken for the answer to the other call.
            Err(AdmitError::InFlight) => return Err(Code::Protocol),
            Err(busy @ AdmitError::Busy { .. }) => {
                return Ok(Err(Fault::new(FaultCode::Busy, busy.to_string())));
            }
        };
        // SPEC 5.4
        let budget = Duration::from_millis(request.remaining_ms).min(MAX_BUDGET);
        // The last byte of a long request may come after its deadline: it is not begun at all.
        if Instant::now() >= arrived + budget {
            return Ok(Err(Fault::new(FaultCode::DeadlineExceeded, "")));
        }
        let context = self.context(request.call_id, connection, arrived + budget);
        let (cancelled, deadline) = (context.cancelled.clone().drop_guard(), context.deadline);
        let method = request.method;
        let handled = self.router.dispatch(context, &method, request.body);
        let mut handled = std::pin::pin!(AssertUnwindSafe(handled).catch_unwind());
        let ended = unless(handled.as_mut(), async {
            tokio::select! {
                biased;
                () = sleep_until(deadline) => Ok(Err(Fault::new(FaultCode::DeadlineExceeded, ""))),
                code = self.given_up(send) => Err(code),
            }
        });
        let ended = match ended.await {
            Ok(outcome) => {
                cancelled.disarm();
                Ok(outcome.unwrap_or_else(|_| Err(panicked())))
            }
            Err(early) => {
                // First the token, for what the handler started elsewhere; the future is dropped on return.
                drop(cancelled);
                early
            }
        };
        let outcome = match &ended {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(fault)) => Err(Some(fault.code)),
            Err(_) => Err(None),
        };
        self.router.observe_end(&method, outcome, arrived.elapsed());
        ended
    }

    /// Resolves when the caller does not wait for the answer any more, with the code that says so.
    async fn given_up(&self, send: &mut SendHalf) -> Code {
        tokio::select! {
            biased;
            _ = send.stopped() => Code::Cancelled,
            () = self.ended.cancelled() => Code::ShuttingDown,
        }
    }

    /// The connection is the one that the call came on, which may be another of the same peer's.
    fn context(
        &self,
        call_id: CallId,
        connection: Option<Arc<PeerConnection>>,
        deadline: Instant,
    ) -> RequestContext {
        let connection = connection.unwrap_or_else(|| Arc::clone(&self.connection));
        let client = if Arc::ptr_eq(&connection, &self.connection) {
            self.client.clone()
        } else {
            RpcClient::nested(Arc::clone(&connection))
        };
        RequestContext {
            peer: connection.peer_id(),
            remote_addr: connection.remote_addr(),
            call_id,
            deadline,
            // No child of the session's, which all calls would contend for: `run` triggers it.
            cancelled: CancellationToken::new(),
            connection,
            client,
        }
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        // The set keeps its own order even if a holder panicked between two calls to it.
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Taken {
    request: Request,
    /// The body's part of what may be in memory here.
    _room: [PooledMemory; 2],
}

/// A place in the table, given back however the call ends.
struct InFlight<'a> {
    session: &'a Session,
    id: CallId,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.session.inbound().finish(self.id);
    }
}

/// Exactly the announced bytes, then the end of the stream.
async fn read_envelope(recv: &mut RecvHalf, len_bytes: u32) -> Result<Bytes, Code> {
    let mut reader = EnvelopeReader::request(len_bytes);
    loop {
        match recv.read().await {
            Ok(Some(piece)) => reader.push(piece).map_err(|_| Code::Protocol)?,
            Ok(None) => return reader.take().ok_or(Code::Protocol),
            Err(StreamError::Reset(_) | StreamError::ConnectionLost(_)) => {
                return Err(Code::Cancelled);
            }
            Err(
                StreamError::Stopped(_)
                | StreamError::TooLong { .. }
                | StreamError::TimedOut { .. }
                | StreamError::Closed,
            ) => return Err(Code::Protocol),
        }
    }
}

async fn answer(kind: CallKind, mut send: SendHalf, call_id: CallId, outcome: Result<Bytes, Fault>) {
    let opening = match (kind, outcome) {
        (CallKind::Call, outcome) => encoded(call_id, outcome),
        (CallKind::OneWay, Ok(_)) => Bytes::new(),
        (CallKind::OneWay, Err(fault)) => return send.reset(reset_code(fault.code)),
    };
    let sent = async {
        if !opening.is_empty() {
            send.write(opening).await?;
        }
        send.finish()
    };
    match until(|| Instant::now() + ANSWER_TIMEOUT, sent).await {
        // It is in use until the peer has it. A peer that does not take it holds one of its own streams.
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(call = %call_id, %error, "the answer was not wanted"),
        None => send.reset(Code::Timeout),
    }
}

/// The answer, or a fault that says why it cannot be sent.
fn encoded(call_id: CallId, outcome: Result<Bytes, Fault>) -> Bytes {
    let answer = Answer { call_id, outcome };
    answer.encode().unwrap_or_else(|error| {
        let apology = Answer { call_id, outcome: Err(unsendable(&error)) };
        // A fault's message is far below the limit, so this one can be encoded.
        apology.encode().unwrap_or_default()
    })
}

/// How a one-way request's failure is reported: by the reset of a stream that carries no answer.
fn reset_code(fault: FaultCode) -> Code {
    match fault {
        FaultCode::Busy => Code::Busy,
        FaultCode::Unauthorised => Code::Unauthorised,
        FaultCode::TooLarge => Code::TooLarge,
        FaultCode::DeadlineExceeded => Code::Timeout,
        FaultCode::PathRefused => Code::PathRefused,
        FaultCode::Integrity => Code::Integrity,
        FaultCode::ShuttingDown => Code::ShuttingDown,
        FaultCode::TicketRefused => Code::Unauthorised,
        FaultCode::SourceChanged => Code::SourceChanged,
        FaultCode::SourceIo => Code::SourceFailed,
        FaultCode::SinkIo | FaultCode::NoSpace => Code::SinkFailed,
        FaultCode::UnknownMethod | FaultCode::InvalidRequest => Code::Protocol,
        FaultCode::Internal
        | FaultCode::NotFound
        | FaultCode::Gone
        | FaultCode::Exists
        | FaultCode::ReadOnly
        | FaultCode::MassDeletion
        | FaultCode::AttributesRefused
        | FaultCode::NotResumable
        | FaultCode::Other(_) => Code::Cancelled,
    }
}

/// What `work` gives, or `Err` with what `end` gives if that comes first. Mostly the work is done at once, and
/// then its end was not asked for.
async fn unless<W: Future, E: Future>(work: W, end: E) -> Result<W::Output, E::Output> {
    match select(std::pin::pin!(work), std::pin::pin!(end)).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right((end, _)) => Err(end),
    }
}

/// The panic's own words stay here: the panic hook has printed them, and they may name local things.
fn panicked() -> Fault {
    tracing::error!("a handler panicked; its caller got a fault");
    Fault::new(FaultCode::Internal, "the handler failed")
}

/// 8 MiB of requests that one peer has in memory here, eight of the largest. More wait for room, and
/// then give up as busy: 320 streams of 1 MiB each would be five times a process's budget.
const MAX_BODY_BYTES_IN_FLIGHT: u64 = 8 << 20;

/// 16 KiB: dozens of ordinary calls, and 16 MiB for as many connections as a server takes.
const OWN_BODY_BYTES: u64 = 16 << 10;

/// 10 s without the caller taking the answer it waits for: as long as a header may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
