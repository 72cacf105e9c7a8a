//! Handlers of a server's own methods: async functions, their arguments, and who may call them.

use std::{fmt, net::SocketAddr, sync::Arc, time::Instant};

use futures::future::{BoxFuture, FutureExt};
use shiplane_access::internals::{AccessControl, Right};
use shiplane_protocols::internals::FileServer;
use shiplane_rpc::{Fault, FaultCode, Method, RequestContext, Router};
use shiplane_transport::PeerId;

use crate::{error::Error, request::Request};

/// A handler for [`ServerBuilder::method`](crate::ServerBuilder::method).
pub trait Handler<Arguments, S>: Clone + Send + Sync + 'static {
    /// What it answers.
    type Request: Request;

    /// Answers one request.
    fn handle(&self, request: Self::Request, context: Context, state: S) -> HandlerFuture<Self::Request>;
}

type HandlerFuture<R> = BoxFuture<'static, Result<<R as Request>::Response, Error>>;

/// A further argument of a handler: see [`ServerBuilder::method`](crate::ServerBuilder::method).
pub trait FromContext<S>: Sized + Send {
    /// Takes it from the call or from the server's state.
    ///
    /// # Errors
    /// Answered to the caller; the handler does not run.
    fn from_context(context: &Context, state: &S) -> Result<Self, Error>;
}

/// The call that a handler answers: who calls, and what the caller may do.
#[derive(Clone)]
pub struct Context {
    call: RequestContext,
    access: Arc<AccessControl>,
}

/// Extracts a clone of the server's state, which [`ServerBuilder::state`](crate::ServerBuilder::state) has set.
#[derive(Debug, Clone, Copy, Default)]
pub struct State<S>(pub S);

impl Context {
    /// The caller's id, proven by the handshake.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.call.peer
    }

    /// The caller's current address. It proves nothing.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.call.remote_addr
    }

    /// When the caller stops waiting. The handler is dropped then.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.call.deadline.into_std()
    }

    /// Ready when the handler is dropped before its end. For tasks that the handler has started.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.call.cancelled.clone().cancelled_owned()
    }

    /// Whether the caller may read `path`, relative to what is served; empty for all of it.
    #[must_use]
    pub fn may_read(&self, path: impl AsRef<[u8]>) -> bool {
        self.access.may_read(&self.call.peer, path.as_ref(), Instant::now()).is_ok()
    }

    /// Whether the caller may write `path`, relative to what is served; empty for all of it.
    #[must_use]
    pub fn may_write(&self, path: impl AsRef<[u8]>) -> bool {
        self.access.may_write(&self.call.peer, path.as_ref(), Instant::now()).is_ok()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}

impl<S> FromContext<S> for Context {
    fn from_context(context: &Context, _state: &S) -> Result<Self, Error> {
        Ok(context.clone())
    }
}

impl<S: Clone + Send> FromContext<S> for State<S> {
    fn from_context(_context: &Context, state: &S) -> Result<Self, Error> {
        Ok(Self(state.clone()))
    }
}

macro_rules! impl_handler {
    ($($extracted:ident $value:ident),*) => {
        impl<F, Fut, R, S, $($extracted,)*> Handler<(R, $($extracted,)*), S> for F
        where
            F: Fn(R, $($extracted,)*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Result<R::Response, Error>> + Send + 'static,
            R: Request,
            S: Send + 'static,
            $($extracted: FromContext<S> + 'static,)*
        {
            type Request = R;

            fn handle(&self, request: R, _context: Context, _state: S) -> HandlerFuture<R> {
                $(
                    let $value = match $extracted::from_context(&_context, &_state) {
                        Ok(value) => value,
                        Err(error) => return std::future::ready(Err(error)).boxed(),
                    };
                )*
                self(request, $($value,)*).boxed()
            }
        }
    };
}

impl_handler!();
impl_handler!(A a);
impl_handler!(A a, B b);
impl_handler!(A a, B b, C c);

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callers {
    /// Those who may read and write all that is served.
    FullAccess,
    /// Those who may write something of it.
    Writers,
    /// Those who may read something of it.
    Readers,
}

impl Callers {
    pub(super) fn admit(self, access: &AccessControl, peer: &PeerId) -> Result<(), Fault> {
        let now = Instant::now();
        let admitted = match self {
            Self::FullAccess => {
                access.may_read(peer, b"", now).and_then(|()| access.may_write(peer, b"", now))
            }
            Self::Writers => access.may_somewhere(Right::Write, peer, now),
            Self::Readers => access.may_somewhere(Right::Read, peer, now),
        };
        admitted.map_err(|denied| Fault::new(FaultCode::Unauthorised, denied.to_string()))
    }
}

/// What all methods of a server share.
pub(super) struct Shared<S> {
    pub(super) state: S,
    pub(super) access: Arc<AccessControl>,
    pub(super) files: Arc<FileServer>,
}

/// Adds a handler to a router.
pub(super) fn mount<H, Arguments, S>(router: Router, handler: H, shared: &Arc<Shared<S>>) -> Router
where
    H: Handler<Arguments, S>,
    S: Clone + Send + Sync + 'static,
{
    let shared = Arc::clone(shared);
    let method: Method<H::Request, <H::Request as Request>::Response> =
        Method::new(<H::Request as Request>::METHOD);
    router.typed(method, move |call, request| {
        let context = Context { call, access: Arc::clone(&shared.access) };
        // A shutdown waits for the call.
        let answer =
            shared.files.track().map(|token| (token, handler.handle(request, context, shared.state.clone())));
        async move {
            let (token, answer) = answer?;
            let answer = answer.await.map_err(Error::into_fault);
            drop(token);
            answer
        }
    })
}
