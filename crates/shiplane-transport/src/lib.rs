//! Verified chunks over authenticated QUIC.
//!
//! This crate drives the state machines of [`shiplane_wire`] over [quinn]. The layers above see peers, streams and
//! chunks, and no type of quinn. In reading order:
//!
//! 1. [`identity`](Identity): a peer is an Ed25519 key. [`Trust`] decides which keys we dial and accept; `tls`
//!    verifies them.
//! 2. [`QuicTransport`]: one socket; `pool` keeps one connection per peer, `socket` tunes the socket, `channel` puts a
//!    byte stream in its place.
//! 3. [`PeerConnection`]: chunks, messages and streams to one peer; `router` classifies incoming streams; the halves
//!    of a `stream` reset when dropped.
//! 4. `lane`: sends a chunk from a [`ChunkSource`], or receives one into memory, a file or a writer. Only a stored chunk
//!    is answered by the success status. A [`RateLimiter`] may slow it down.
//! 5. `congestion`: our congestion controller.
//! 6. [`TransportConfig`] and the errors, one enum per operation.
//!
//! Two programs that know each other's ids:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use shiplane_transport::{ChunkSource, Identity, PeerAddr, QuicTransport, Trust};
//!
//! let (alice, bob) = (Identity::generate()?, Identity::generate()?);
//! let (alice_id, bob_id) = (alice.peer_id(), bob.peer_id());
//! let localhost = "127.0.0.1:0".parse()?;
//! let alice = QuicTransport::builder().identity(alice).trust(Trust::only([bob_id])).bind(localhost)?;
//! let bob = QuicTransport::builder().identity(bob).trust(Trust::only([alice_id])).bind(localhost)?;
//!
//! let sender = async {
//!     let peer = alice.connect_to(PeerAddr { id: bob_id, addr: bob.local_addr()? }).await?;
//!     peer.send_chunk_verified(&ChunkSource::Memory(Bytes::from_static(b"hello"))).await?;
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! let receiver = async {
//!     let (_addr, peer) = bob.accept().await?;
//!     let data = peer.recv_chunk_verified().await?;
//!     assert_eq!(data.as_deref(), Some(&b"hello"[..]));
//!     Ok::<_, Box<dyn std::error::Error>>(())
//! };
//! tokio::try_join!(sender, receiver)?;
//! # Ok(())
//! # }
//! ```
//!
//! What the layers above are built from is in `internals`, behind the feature of that name, and may change at any time.
//!
//! Not here: what requests and messages mean, file trees, journals, the terminal.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "internals"),
    expect(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "the engine's parts are public with the feature `internals` alone"
    )
)]

mod blocking;
mod buffer;
mod channel;
mod close;
mod config;
mod congestion;
mod connection;
#[cfg(feature = "dialect")]
#[doc(hidden)]
pub mod dialect;
mod endpoint;
mod error;
mod handshake_limiter;
mod identity;
mod lane;
mod locality;
mod memory;
mod meter;
mod pool;
mod quic;
mod rate;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod sink;
mod socket;
mod source;
mod stream;
mod tls;
mod traffic;
mod trust;
mod until;
mod window;

pub use config::{
    BUFFER_LEN_BYTES, CONNECTION_RECEIVE_WINDOW_BYTES, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, IDLE_TIMEOUT,
    KEEP_ALIVE_INTERVAL, LANE_PRIORITY, LOCAL_DATAGRAM_LEN_BYTES, MAX_CONCURRENT_STREAMS, MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_PEER, MAX_DATAGRAM_LEN_BYTES, MAX_INCOMING_HANDSHAKES, PROGRESS_TIMEOUT,
    RECEIVE_CREDIT_BYTES, SEND_CREDIT_BYTES, SEND_WINDOW_BYTES, STREAM_RECEIVE_WINDOW_BYTES, TransportConfig,
    UDP_BUFFER_LEN_BYTES,
};
pub use connection::{ChunkExpectation, Claim, ConnectionStats, InboundChunk, PathStats, PeerConnection};
pub use endpoint::{QuicTransport, TransportBuilder};
pub use error::{
    BindError, ConnectError, ConnectionEnd, MessageError, RecvChunkError, SendChunkError, StreamError,
};
pub use identity::{Identity, IdentityError, PeerAddr, PeerId};
pub use lane::{LaneOptions, send::SentChunk};
pub use rate::{RateLimit, RateLimiter};
pub use source::ChunkSource;
pub use trust::{Admission, Trust};

/// What the other crates of this workspace are built from. It may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        buffer::BufferPool,
        channel::{CHANNEL_ADDR, Channel, ChannelEnd},
        config::{CongestionControl, LaneThreads, Timeouts},
        connection::{
            AlreadyClaimed, CallKind, Claim, InboundCall, InboundChunk, TransferStream, router::InboundCalls,
        },
        error::{SinkError, SourceError},
        identity::{KeyFileStep, PeerIdError},
        lane::{
            DigestFn, ProgressFn,
            recv::receive_buffers,
            send::SentChunk,
            steps::{LaneStep, StepClock, ThreadClock},
        },
        memory::{MemoryPool, PooledMemory},
        meter::ProgressMeter,
        sink::ChunkSink,
        socket::granted_buffers,
        source::ChunkRead,
        stream::{BiStream, RecvHalf, SendHalf},
        tls::TlsError,
        traffic::{Traffic, TrafficCount},
        until::until,
        window::ReceiveReservation,
    };
    /// Work that blocks.
    pub mod blocking {
        pub use crate::blocking::{
            cores, recv, recv_unbounded, send, spawn, spawn_into, spawn_waiting, threads,
        };
    }
}

#[cfg(feature = "test-support")]
#[doc(hidden)]
pub use congestion::DrivenController;
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub use lane::steps::slow_digests;
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub use tls::test_support;

/// The fuzz entries. Each takes any bytes and panics if an invariant of the crate is broken.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::{
        channel::fuzz_frames,
        identity::{fuzz_key_file, fuzz_peer_id},
    };
}
