//! The callee's side: selects the handler for a method and a caller.

use std::{collections::HashMap, fmt, time::Duration};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use serde::{Serialize, de::DeserializeOwned};
use shiplane_transport::internals::MemoryPool;

use crate::{
    calls::MAX_IN_FLIGHT,
    codec::{self, EncodeError},
    context::RequestContext,
    fault::{Fault, FaultCode},
    method::Method,
};

mod session;

/// The methods that are offered to peers. Build it once, then [`serve`](Self::serve) each connection.
///
/// ```
/// use shiplane_rpc::{Fault, FaultCode, Method, Router};
///
/// const HALVE: Method<u64, u64> = Method::new("demo.halve");
///
/// let router = Router::new()
///     .method("demo.echo", |_context, body| async move { Ok(body) })
///     .typed(HALVE, |_context, number| async move {
///         match number % 2 {
///             0 => Ok(number / 2),
///             _ => Err(Fault::new(FaultCode::InvalidRequest, "odd")),
///         }
///     });
/// assert_eq!(router.methods().count(), 2);
/// ```
pub struct Router {
    handlers: HashMap<String, Handler>,
    wrapping_methods: HashMap<String, WrappingMethod>,
    guards: Vec<Guard>,
    max_in_flight: usize,
    /// What all peers' requests that exceed their own allowance may have in memory.
    body_bytes: MemoryPool,
    observer: Option<Observer>,
}

impl Router {
    /// Offers nothing yet: every call is answered with [`FaultCode::UnknownMethod`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            handlers: HashMap::new(),
            wrapping_methods: HashMap::new(),
            guards: Vec::new(),
            max_in_flight: MAX_IN_FLIGHT,
            body_bytes: MemoryPool::new(MAX_BODY_BYTES),
            observer: None,
        }
    }

    /// Handles calls of `name` by `handler`, in place of an earlier one of that name.
    ///
    /// The handler's future is dropped at its next `await` when the caller gives up, the deadline
    /// passes or the connection ends. If it panics, the caller gets [`FaultCode::Internal`]. It runs on
    /// the runtime's threads: what blocks belongs on `spawn_blocking`.
    #[must_use]
    pub fn method<H, F>(mut self, name: impl Into<String>, handler: H) -> Self
    where
        H: Fn(RequestContext, Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Bytes, Fault>> + Send + 'static,
    {
        let handler = move |context, body| handler(context, body).boxed();
        self.handlers.insert(name.into(), Box::new(handler));
        self
    }

    /// As [`method`](Self::method), with the types of the method. A body that is none is answered with
    /// [`FaultCode::InvalidRequest`], and the handler is not asked.
    #[must_use]
    pub fn typed<Req, Resp, H, F>(self, method: Method<Req, Resp>, handler: H) -> Self
    where
        Req: DeserializeOwned + Send + 'static,
        Resp: Serialize + Send + 'static,
        H: Fn(RequestContext, Req) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Resp, Fault>> + Send + 'static,
    {
        self.method(method.name(), move |context, body| {
            let response = codec::decode(&body).map(|request| handler(context, request));
            async move {
                let response =
                    response.map_err(|error| Fault::new(FaultCode::InvalidRequest, error.to_string()))?;
                codec::encode(&response.await?).map_err(|error| unsendable(&error))
            }
        })
    }

    /// Handles calls of `name` that wrap another call, e.g. to authorise the caller first. `open` checks the outer call
    /// and returns the method and body of the inner one. The inner call is handled like any other, guards included,
    /// and its answer is the answer. With `None` there is no inner call, and the answer is empty.
    ///
    /// A wrapping method cannot wrap another one.
    #[doc(hidden)]
    #[must_use]
    pub fn wrapping_method<C, F>(mut self, name: impl Into<String>, open: C) -> Self
    where
        C: Fn(RequestContext, Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Option<(String, Bytes)>, Fault>> + Send + 'static,
    {
        let open = move |context, body| open(context, body).boxed();
        self.wrapping_methods.insert(name.into(), Box::new(open));
        self
    }

    /// Asks `guard` before every handler, and before it is known whether there is one: with the call's
    /// context and the method's name. A fault is the answer; the handler never sees the call.
    ///
    /// Several guards are asked in the order they were given; all must agree. A guard that panics
    /// refuses.
    #[must_use]
    pub fn guard<G>(mut self, guard: G) -> Self
    where
        G: Fn(&RequestContext, &str) -> Result<(), Fault> + Send + Sync + 'static,
    {
        self.guards.push(Box::new(guard));
        self
    }

    /// Handles at most this number of calls of a peer at a time; the others get [`FaultCode::Busy`]. The
    /// default is [`MAX_IN_FLIGHT`].
    #[must_use]
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// Limits the bytes of the requests of all peers that are in memory until they are answered. A request that finds no
    /// room waits, and is reset with [`Code::Busy`](shiplane_wire::Code::Busy) after the transport's header timeout.
    /// Short requests do not wait for other peers: each connection has 16 KiB of its own. The default is 32 MiB.
    #[doc(hidden)]
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.body_bytes = MemoryPool::new(bytes as u64);
        self
    }

    /// How many bytes of requests of all peers are in memory, and how many may be.
    #[doc(hidden)]
    #[must_use]
    pub fn bodies_in_memory(&self) -> (u64, u64) {
        (self.body_bytes.used_bytes(), self.body_bytes.total_bytes())
    }

    fn observe_end(&self, method: &str, outcome: Result<(), Option<FaultCode>>, took: Duration) {
        if let Some(observer) = &self.observer {
            let is_known = self.handlers.contains_key(method) || self.wrapping_methods.contains_key(method);
            observer(is_known.then_some(method), outcome, took);
        }
    }

    /// Calls `observer` after each call: with the method's name, `None` if there is no such method; with the fault that is
    /// the answer, `None` if the call wants none; and with the time since the call arrived. It must be quick.
    #[doc(hidden)]
    #[must_use]
    pub fn observe<O>(mut self, observer: O) -> Self
    where
        O: Fn(Option<&str>, Result<(), Option<FaultCode>>, Duration) + Send + Sync + 'static,
    {
        self.observer = Some(Box::new(observer));
        self
    }

    /// The names of the methods, in no order.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.handlers.keys().chain(self.wrapping_methods.keys()).map(String::as_str)
    }

    async fn dispatch(&self, context: RequestContext, method: &str, body: Bytes) -> Result<Bytes, Fault> {
        self.ask_guards(&context, method)?;
        let Some(wrapping) = self.wrapping_methods.get(method) else {
            return self.handle(context, method, body).await;
        };
        let Some((carried, body)) = wrapping(context.clone(), body).await? else { return Ok(Bytes::new()) };
        self.ask_guards(&context, &carried)?;
        self.handle(context, &carried, body).await
    }

    fn ask_guards(&self, context: &RequestContext, method: &str) -> Result<(), Fault> {
        self.guards.iter().try_for_each(|guard| guard(context, method))
    }

    async fn handle(&self, context: RequestContext, method: &str, body: Bytes) -> Result<Bytes, Fault> {
        match self.handlers.get(method) {
            Some(handler) => handler(context, body).await,
            None => Err(unknown_method(method)),
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("methods", &self.handlers.keys())
            .field("guards", &self.guards.len())
            .field("max_in_flight", &self.max_in_flight)
            .finish()
    }
}

type Handler = Box<dyn Fn(RequestContext, Bytes) -> BoxFuture<'static, Result<Bytes, Fault>> + Send + Sync>;

type WrappingMethod = Box<
    dyn Fn(RequestContext, Bytes) -> BoxFuture<'static, Result<Option<(String, Bytes)>, Fault>> + Send + Sync,
>;

type Observer = Box<dyn Fn(Option<&str>, Result<(), Option<FaultCode>>, Duration) + Send + Sync>;

type Guard = Box<dyn Fn(&RequestContext, &str) -> Result<(), Fault> + Send + Sync>;

fn unknown_method(method: &str) -> Fault {
    let shown = shiplane_wire::escape_truncated(method.as_bytes(), MAX_SHOWN_METHOD_LEN_BYTES);
    Fault::new(FaultCode::UnknownMethod, shown.to_string())
}

/// The answer in place of one that cannot be encoded.
fn unsendable(error: &EncodeError) -> Fault {
    let code = match error {
        EncodeError::TooLarge { .. } => FaultCode::TooLarge,
        EncodeError::Unsupported => FaultCode::Internal,
    };
    Fault::new(code, error.to_string())
}

/// 32 MiB of requests of all peers: four peers that use all they may, and a third of what a server may need.
const MAX_BODY_BYTES: u64 = 32 << 20;

/// 64 bytes: longer than any honest name; a hostile one may have a whole frame.
const MAX_SHOWN_METHOD_LEN_BYTES: usize = 64;
