//! Codes over RPC: the methods that a sender answers, and the receiver's calls.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use shiplane_rpc::{CallError, Fault, FaultCode, Method, RequestContext, Router, RpcClient};
use shiplane_transport::{PeerConnection, PeerId};

use crate::{
    code::Code,
    exchange::{Binding, Confirmation, ExchangeFault, MESSAGE_LEN_BYTES, ReceiverExchange},
    host::{Begun, CONFIRM_TIMEOUT, CodeHost, CodeState, CodeTerms, Moment, Refusal},
};

/// The methods that a guest may call while a code waits.
pub const GUEST_METHODS: &[&str] = &[BEGIN.name(), CONFIRM.name()];

/// What the sender's side has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeEvent {
    /// Somebody has tried with a wrong code.
    WrongGuess {
        /// Where from.
        from: SocketAddr,
        /// How many guesses are left.
        left: usize,
    },
    /// Somebody has begun, and has not said whether the code is right. That counts as a guess.
    BrokenOff {
        /// Where from.
        from: SocketAddr,
        /// How many guesses are left.
        left: usize,
    },
    /// A receiver has proven that it knows the code.
    Admitted {
        /// Its key.
        receiver: PeerId,
        /// Where from.
        from: SocketAddr,
    },
}

/// A sender's code that waits for receivers. Clones share it.
#[derive(Clone)]
pub struct CodeService {
    inner: Arc<Inner>,
}

struct Inner {
    host: Mutex<CodeHost>,
    on_event: Box<dyn Fn(CodeEvent) + Send + Sync>,
}

/// Why a receiver has not proven to a sender that it knows its code.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The two codes differ, or somebody in between answers for another.
    #[error("the code is wrong")]
    WrongCode,
    /// The sender does not wait for a receiver any more, or never did.
    #[error("the code has been used, has expired, or is void after wrong guesses")]
    Closed,
    /// The sender breaks the protocol.
    #[error("the sender's key exchange message is malformed")]
    Malformed,
    /// The call failed.
    #[error(transparent)]
    Call(CallError),
}

impl CodeService {
    /// A code that waits from `now` on. `on_event` must not block.
    #[must_use]
    pub fn new(
        code: Code,
        sender: PeerId,
        terms: CodeTerms,
        now: Moment,
        on_event: impl Fn(CodeEvent) + Send + Sync + 'static,
    ) -> Self {
        let host = Mutex::new(CodeHost::new(code, sender, terms, now));
        Self { inner: Arc::new(Inner { host, on_event: Box::new(on_event) }) }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.host().code().clone()
    }

    /// Whether unknown keys are to be let in as guests.
    #[must_use]
    pub fn is_open(&self, now: Moment) -> bool {
        self.host().is_open(now)
    }

    /// What the code is good for.
    #[must_use]
    pub fn state(&self, now: Moment) -> CodeState {
        self.host().state(now)
    }

    /// Adds the methods by which receivers prove that they know the code.
    #[must_use]
    pub fn mount(&self, router: Router) -> Router {
        let (begin, confirm) = (self.clone(), self.clone());
        router
            .typed(BEGIN, move |context, hello| {
                let answered = begin.begin(&context, &hello);
                async move { answered }
            })
            .typed(CONFIRM, move |context, confirmation| {
                let answered = confirm.confirm(&context, &confirmation);
                async move { answered }
            })
    }

    fn begin(&self, context: &RequestContext, hello: &Hello) -> Result<Hello, Fault> {
        let (binding, from) = (binding(&context.connection)?, context.remote_addr);
        let message = whole(&hello.point)?;
        let (begun, left) = {
            let mut host = self.host();
            let begun = host.begin(context.peer, binding, &message, Moment::now());
            (begun, host.guesses_left())
        };
        let is_guess_lost = match &begun {
            Ok(begun) => begun.is_anew,
            Err(refusal) => *refusal == Refusal::Malformed,
        };
        if is_guess_lost {
            (self.inner.on_event)(CodeEvent::BrokenOff { from, left });
        }
        let begun = begun.map_err(refused)?;
        let point = begun.answer.to_vec();
        tokio::spawn(self.clone().give_up(begun, Arc::clone(&context.connection), from));
        Ok(Hello { point })
    }

    /// Waits for the end of an exchange's time or connection, and tells if it was not confirmed by then.
    async fn give_up(self, begun: Begun, connection: Arc<PeerConnection>, from: SocketAddr) {
        // Either way its time is over.
        let _ = tokio::time::timeout(CONFIRM_TIMEOUT, connection.closed()).await;
        let (is_guess, left) = {
            let mut host = self.host();
            (host.give_up(&begun), host.guesses_left())
        };
        if is_guess {
            (self.inner.on_event)(CodeEvent::BrokenOff { from, left });
        }
    }

    fn confirm(&self, context: &RequestContext, confirm: &Confirm) -> Result<Confirm, Fault> {
        let (binding, receiver, from) = (binding(&context.connection)?, context.peer, context.remote_addr);
        let (confirmed, left) = {
            let mut host = self.host();
            let confirmed = host.confirm(receiver, binding, &confirm.confirmation, Moment::now());
            (confirmed, host.guesses_left())
        };
        match confirmed {
            Ok((ours, is_new)) => {
                if is_new {
                    (self.inner.on_event)(CodeEvent::Admitted { receiver, from });
                }
                Ok(Confirm { confirmation: ours })
            }
            Err(refusal) => {
                if refusal == Refusal::WrongCode {
                    (self.inner.on_event)(CodeEvent::WrongGuess { from, left });
                }
                Err(refused(refusal))
            }
        }
    }

    fn host(&self) -> MutexGuard<'_, CodeHost> {
        // No step leaves it half changed, so a panic elsewhere spoils nothing.
        self.inner.host.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CodeService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeService").field("code", self.host().code()).finish_non_exhaustive()
    }
}

/// The receiver's side of a code. It stops after three exchanges, with any senders: each tells the other side
/// whether one guess was right.
#[derive(Debug)]
pub struct Prover {
    code: Code,
    receiver: PeerId,
    exchanges_left: usize,
}

impl Prover {
    /// For a receiver with this key.
    #[must_use]
    pub fn new(code: Code, receiver: PeerId) -> Self {
        Self { code, receiver, exchanges_left: MAX_EXCHANGES }
    }

    /// Whether another exchange may be tried.
    #[must_use]
    pub fn may_try(&self) -> bool {
        self.exchanges_left > 0
    }

    /// Proves to the peer of this connection that this side knows the code, and has it prove the same.
    ///
    /// Not cancel-safe: dropped midway, the exchange counts.
    ///
    /// # Errors
    /// [`ProveError`]. Nothing that the peer says may be trusted then.
    pub async fn prove(&mut self, connection: &Arc<PeerConnection>) -> Result<(), ProveError> {
        if !self.may_try() {
            return Err(ProveError::WrongCode);
        }
        let client = RpcClient::new(Arc::clone(connection));
        let sender = connection.peer_id();
        let (exchange, hello) = ReceiverExchange::start(&self.code, &self.receiver, &sender)?;
        let hello = Hello { point: hello.to_vec() };
        let answer = client.call_typed(BEGIN, &hello, CALL_BUDGET).await.map_err(explained)?;
        let binding = connection.channel_binding().ok_or(ProveError::Malformed)?;
        let point = answer.point.try_into().map_err(|_| ProveError::Malformed)?;
        let (confirmed, ours) = exchange.confirm(&point, &binding)?;
        // From here on the peer can check a guess of its own.
        self.exchanges_left -= 1;
        let confirm = Confirm { confirmation: ours };
        let theirs = client.call_typed(CONFIRM, &confirm, CALL_BUDGET).await.map_err(explained)?;
        Ok(confirmed.check(&theirs.confirmation)?)
    }
}

impl From<ExchangeFault> for ProveError {
    fn from(fault: ExchangeFault) -> Self {
        match fault {
            ExchangeFault::Malformed => Self::Malformed,
            ExchangeFault::WrongCode => Self::WrongCode,
        }
    }
}

/// For the fuzzer: a body of either method, which encodes to the same again.
pub fn fuzz_bodies(data: &[u8]) {
    if let Ok(body) = shiplane_rpc::internals::decode::<Hello>(data) {
        assert!(shiplane_rpc::internals::encode(&body).is_ok_and(|encoded| encoded == data));
    }
    if let Ok(body) = shiplane_rpc::internals::decode::<Confirm>(data) {
        assert!(shiplane_rpc::internals::encode(&body).is_ok_and(|encoded| encoded == data));
    }
}

/// SPEC 6.6
const BEGIN: Method<Hello, Hello> = Method::new("code.begin");

/// SPEC 6.7
const CONFIRM: Method<Confirm, Confirm> = Method::new("code.confirm");

/// A SPAKE2 message, of exactly 33 bytes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    point: Vec<u8>,
}

/// A confirmation.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Confirm {
    confirmation: Confirmation,
}

fn whole(point: &[u8]) -> Result<[u8; MESSAGE_LEN_BYTES], Fault> {
    point.try_into().map_err(|_| refused(Refusal::Malformed))
}

fn binding(connection: &PeerConnection) -> Result<Binding, Fault> {
    connection.channel_binding().ok_or_else(|| Fault::new(FaultCode::Internal, ""))
}

fn refused(refusal: Refusal) -> Fault {
    let code = match refusal {
        Refusal::Closed => FaultCode::Gone,
        Refusal::WrongCode => FaultCode::TicketRefused,
        Refusal::Malformed => FaultCode::InvalidRequest,
    };
    Fault::new(code, refusal.to_string())
}

fn explained(error: CallError) -> ProveError {
    match error {
        CallError::Fault(fault) if fault.code == FaultCode::TicketRefused => ProveError::WrongCode,
        CallError::Fault(fault)
            if matches!(fault.code, FaultCode::Gone | FaultCode::Unauthorised | FaultCode::UnknownMethod) =>
        {
            ProveError::Closed
        }
        error => ProveError::Call(error),
    }
}

/// Ten seconds for a call that only computes.
const CALL_BUDGET: Duration = Duration::from_secs(10);

/// Three exchanges: two false senders may come before the real one, and get one guess each.
const MAX_EXCHANGES: usize = 3;
