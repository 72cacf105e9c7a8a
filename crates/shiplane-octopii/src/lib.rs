//! The octopii dialect (SPEC 9): chunks, messages and calls with nodes of the original program.
//!
//! **It authenticates no peer.** Any client that reaches the port is accepted, and any server that answers a dial is
//! believed. TLS protects only against attackers that cannot change packets. So it is never on by default:
//! an [`InsecureOctopiiTransport`] has a socket and a certificate of its own, shares no connection and no key with a
//! [`QuicTransport`](shiplane_transport::QuicTransport), and requires [`AcceptAnyPeer`]. Use it only on a network where
//! every machine is trusted.
//!
//! In reading order:
//!
//! 1. [`InsecureOctopiiTransport`] dials and accepts.
//! 2. [`InsecureOctopiiConnection`] sends chunks and messages. A stream's first bytes do not say which
//!    of the two it carries, so the policy of a connection says what comes in: chunks under
//!    [`Lane`], messages under [`Messages`].
//! 3. `rpc` calls and answers, over messages; it is public with the feature `internals` alone.
//! 4. `intake` reads the first bytes of streams; `tls` makes what a server has to show, and takes whatever a server
//!    shows.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use shiplane_octopii::{AcceptAnyPeer, InsecureOctopiiTransport, Lane, Messages};
//! use shiplane_transport::{ChunkSource, TransportConfig};
//!
//! let bind = || {
//!     let addr = "127.0.0.1:0".parse().unwrap();
//!     InsecureOctopiiTransport::bind(addr, TransportConfig::default(), AcceptAnyPeer)
//! };
//! let (client, server) = (bind()?, bind()?);
//!
//! // The client asks with a message, and is answered with a chunk on the same connection.
//! let server_addr = server.local_addr()?;
//! let asking = async {
//!     let peer = client.connect(server_addr, Lane).await?;
//!     peer.send(Bytes::from_static(b"video.mp4")).await?;
//!     let video = peer.recv_chunk_verified().await?;
//!     assert_eq!(video.as_deref(), Some(&b"moving pictures"[..]));
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! let answering = async {
//!     let peer = server.accept(Messages).await.ok_or("closed")?;
//!     assert_eq!(peer.recv().await?.as_deref(), Some(&b"video.mp4"[..]));
//!     let video = ChunkSource::Memory(Bytes::from_static(b"moving pictures"));
//!     peer.send_chunk_verified(&video).await?;
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! tokio::try_join!(asking, answering)?;
//! # Ok(())
//! # }
//! ```
//!
//! Not here: QUIC itself, files other than a chunk's, and the meaning of calls.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "internals"),
    expect(dead_code, unreachable_pub, reason = "calls are public with the feature `internals` alone")
)]

mod connection;
mod endpoint;
mod error;
mod intake;
mod rpc;
mod tls;

// What the signatures here name.
pub use shiplane_transport::{
    BindError, ChunkSource, ConnectError, LaneOptions, RecvChunkError, SendChunkError, TransportConfig,
};

pub use connection::InsecureOctopiiConnection;
pub use endpoint::{AcceptAnyPeer, InsecureOctopiiTransport};
pub use error::OctopiiMessageError;
pub use intake::{Lane, Messages};

/// What the `shiplane` program is built from, and calls, which only tests make. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use shiplane_transport::internals::{LaneThreads, SinkError, SourceError};

    pub use crate::{
        intake::Policy,
        rpc::{
            MAX_HANDLED, OctopiiHandler, OctopiiRpc, OneWayMessage, RequestPayload, ResponsePayload,
            RpcMessage, RpcRequest, RpcResponse,
        },
    };
}

/// The fuzz entries. Each takes any bytes and panics if an invariant of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::rpc::fuzz_octopii;
}

#[cfg(test)]
mod tests;
