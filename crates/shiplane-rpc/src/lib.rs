//! Request-response calls between two peers on one QUIC connection, one stream each.
//!
//! A call is a method's name and a body of at most 1 MiB; the answer is at most 1 MiB, or a [`Fault`].
//! Each call has its own QUIC stream, so that no call waits for another. Dropping a call cancels it. In
//! reading order:
//!
//! 1. [`RpcClient`] calls, [`Router`] answers. Either side of a connection may do either or both, and a
//!    handler may call back: its [`RequestContext`] has a client, the caller's id and the deadline.
//! 2. [`Method`] is a name with its types. [`CallError`] says why a call failed, sorted by whose
//!    fault it is. [`FaultCode`] is a handler's answer instead of a body.
//! 3. `codec` encodes and decodes envelopes and bodies, strictly. `guard` bounds the cost of decoding, whatever the
//!    input claims. `frame` reassembles an envelope.
//! 4. `calls` is the table of calls in flight; no clock, no IO.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//! use shiplane_rpc::{Method, Router, RpcClient};
//! use shiplane_transport::{Identity, PeerAddr, QuicTransport, Trust};
//!
//! /// Greets by name.
//! const GREET: Method<String, String> = Method::new("demo.greet");
//!
//! # let (alice, bob) = (Identity::generate()?, Identity::generate()?);
//! # let (alice_id, bob_id) = (alice.peer_id(), bob.peer_id());
//! # let localhost = "127.0.0.1:0".parse()?;
//! # let alice = QuicTransport::builder().identity(alice).trust(Trust::only([bob_id])).bind(localhost)?;
//! # let bob = QuicTransport::builder().identity(bob).trust(Trust::only([alice_id])).bind(localhost)?;
//! # let bob_addr = PeerAddr { id: bob_id, addr: bob.local_addr()? };
//! // Bob offers a method to whom he accepts.
//! let router = Arc::new(Router::new().typed(GREET, |context, name| async move {
//!     Ok(format!("hello {name}, or {}", context.peer))
//! }));
//! tokio::spawn(async move {
//!     while let Ok((_addr, peer)) = bob.accept().await {
//!         tokio::spawn(Arc::clone(&router).serve(peer));
//!     }
//! });
//!
//! // Alice dials him and calls it.
//! let client = RpcClient::new(alice.connect_to(bob_addr).await?);
//! let greeting = client.call_typed(GREET, &"alice".to_owned(), Duration::from_secs(5)).await?;
//! assert_eq!(greeting, format!("hello alice, or {alice_id}"));
//! # Ok(())
//! # }
//! ```
//!
//! Not here: files, digests, QUIC itself, and what any method means.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]
#![cfg_attr(
    not(feature = "internals"),
    expect(unreachable_pub, reason = "the engine's parts are public with the feature `internals` alone")
)]

mod calls;
mod client;
mod codec;
mod context;
mod error;
mod fault;
mod frame;
mod guard;
mod method;
mod server;

pub use calls::{MAX_BUDGET, MAX_IN_FLIGHT};
pub use client::{RPC_PRIORITY, RpcClient};
pub use context::RequestContext;
pub use error::CallError;
pub use fault::{Fault, FaultCode, MAX_FAULT_MESSAGE_LEN_BYTES};
pub use method::Method;
pub use server::Router;

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        calls::CallId,
        codec::{DecodeError, EncodeError, decode, encode},
        error::AnswerFault,
        frame::EnvelopeError,
    };
}

/// The fuzz entries. Each takes any bytes and panics if an invariant of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::codec::{fuzz_body, fuzz_envelopes};
    pub use crate::frame::fuzz_answer_stream;
}
