//! Limits and defaults of a transport, each a named constant with its reason.

use std::time::Duration;

use shiplane_wire::limits;

/// What a transport allows a peer, and how long it waits for one.
///
/// Every field has a default that suits a workstation and a server alike; change what you must:
///
/// ```
/// use shiplane_transport::TransportConfig;
/// let mut config = TransportConfig::default();
/// config.buffer_len_bytes = 256 * 1024;
/// assert!(config.buffer_len_bytes > TransportConfig::default().buffer_len_bytes);
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "internals"), non_exhaustive)]
pub struct TransportConfig {
    /// Bytes read from a source, hashed and written at a time. Default [`BUFFER_LEN_BYTES`].
    pub buffer_len_bytes: usize,
    /// The largest bare chunk that is received into memory. Default 1 GiB.
    pub max_chunk_len_bytes: u64,
    /// What a peer may send on one stream before we read. Default [`STREAM_RECEIVE_WINDOW_BYTES`].
    pub stream_receive_window_bytes: u32,
    /// What a peer may send on one connection before we read. Default [`CONNECTION_RECEIVE_WINDOW_BYTES`].
    pub connection_receive_window_bytes: u32,
    /// What peers may send on all connections together before we read, where each is to begin with a small window
    /// that grows as it is read: for servers that read whatever comes, such as
    /// [`RECEIVE_CREDIT_BYTES`]. `None`, the default: each connection has its window from the start, as is right for a
    /// program that leaves one stream unread while it waits for another.
    pub receive_budget_bytes: Option<u32>,
    /// What we keep in memory of all connections together until their peers have acknowledged it, where each is to
    /// begin with little and gets more as it arrives: for servers, such as [`SEND_CREDIT_BYTES`]. `None`, the
    /// default: each has its window from the start.
    pub send_budget_bytes: Option<u32>,
    /// What we keep in memory until the peer has acknowledged it. Default [`SEND_WINDOW_BYTES`].
    pub send_window_bytes: u64,
    /// Streams that a peer may have open at a time. Default [`MAX_CONCURRENT_STREAMS`].
    pub max_concurrent_streams: u32,
    /// Connections that are accepted at a time; more are closed with `Busy`. Default [`MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// Of these, connections with one key. Default [`MAX_CONNECTIONS_PER_PEER`].
    pub max_connections_per_peer: usize,
    /// Handshakes in progress at a time, half of them from one host at most; more are dropped. Default [`MAX_INCOMING_HANDSHAKES`].
    pub max_incoming_handshakes: usize,
    /// The whole of dialling and the handshake. Default [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// The first bytes of a stream, and the body of its header. Default [`HEADER_TIMEOUT`].
    pub header_timeout: Duration,
    /// The longest wait without a single byte of progress in a transfer. Default [`PROGRESS_TIMEOUT`].
    pub progress_timeout: Duration,
    /// Silence after which a connection is dead. Default [`IDLE_TIMEOUT`].
    pub idle_timeout: Duration,
    /// How often a quiet connection shows that it lives. Default [`KEEP_ALIVE_INTERVAL`].
    pub keep_alive_interval: Duration,
    /// Asked of the kernel for the UDP socket, each direction. Default [`UDP_BUFFER_LEN_BYTES`].
    pub udp_buffer_len_bytes: usize,
    /// The largest UDP payload that path MTU discovery tries. By default (`None`) [`MAX_DATAGRAM_LEN_BYTES`], and
    /// [`LOCAL_DATAGRAM_LEN_BYTES`] where the peer is on this machine.
    pub max_datagram_len_bytes: Option<u16>,
    /// What decides how much may be in flight. Default `CongestionControl::Shiplane`.
    #[doc(hidden)]
    pub congestion: CongestionControl,
    /// Where chunks are read, hashed and stored. Default `LaneThreads::Background`.
    #[doc(hidden)]
    pub lane_threads: LaneThreads,
}

/// On which threads chunks are read, hashed and stored. That work fills every core that it gets, and the
/// runtime's threads, on which calls are made and answered, compete with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LaneThreads {
    /// Lane threads at the lowest priority (on Linux), so that calls during a transfer take a fraction of a
    /// millisecond rather than several. On a busy machine the transfer is slow.
    #[default]
    Background,
    /// Lane threads with the priority of the process. For programs that only transfer.
    Ordinary,
    /// The runtime's blocking threads: the only ones that a paused clock waits for.
    #[doc(hidden)]
    Runtime,
}

/// What decides how much may be in flight on a connection, in the direction that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CongestionControl {
    /// Our own: holds the window that fills the path, calm under random loss, with a short queue.
    #[default]
    Shiplane,
    /// CUBIC (RFC 9438) as quinn has it: every loss counts as congestion.
    Cubic,
    /// A window that never moves, for measurements on a path whose product of rate and delay is known.
    /// It answers no congestion: never on a shared network.
    #[doc(hidden)]
    Fixed {
        /// Bytes in flight.
        window_bytes: u64,
    },
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            buffer_len_bytes: BUFFER_LEN_BYTES,
            max_chunk_len_bytes: limits::MAX_CHUNK_LEN_BYTES,
            stream_receive_window_bytes: STREAM_RECEIVE_WINDOW_BYTES,
            connection_receive_window_bytes: CONNECTION_RECEIVE_WINDOW_BYTES,
            receive_budget_bytes: None,
            send_budget_bytes: None,
            send_window_bytes: SEND_WINDOW_BYTES,
            max_concurrent_streams: MAX_CONCURRENT_STREAMS,
            max_connections: MAX_CONNECTIONS,
            max_connections_per_peer: MAX_CONNECTIONS_PER_PEER,
            max_incoming_handshakes: MAX_INCOMING_HANDSHAKES,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            header_timeout: HEADER_TIMEOUT,
            progress_timeout: PROGRESS_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            keep_alive_interval: KEEP_ALIVE_INTERVAL,
            udp_buffer_len_bytes: UDP_BUFFER_LEN_BYTES,
            max_datagram_len_bytes: None,
            congestion: CongestionControl::default(),
            lane_threads: LaneThreads::default(),
        }
    }
}

/// 64 KiB: small enough for any machine, warm in every cache.
pub const BUFFER_LEN_BYTES: usize = 64 * 1024;

/// 2 MiB. quinn closes a connection whose stream buffer has more than 1,024 gaps; with a much larger
/// window real loss reaches that. Bandwidth comes from parallel streams.
pub const STREAM_RECEIVE_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// 24 MiB: the bandwidth-delay product of 1 Gbit/s at 200 ms, and with what the lanes hold well within a
/// process's memory cap of 64 MiB.
pub const CONNECTION_RECEIVE_WINDOW_BYTES: u32 = 24 * 1024 * 1024;

/// 24 MiB for all connections of a server. One alone gets 16 MiB, the most that our sender keeps in flight.
pub const RECEIVE_CREDIT_BYTES: u32 = 24 * 1024 * 1024;

/// 24 MiB for all connections of a server together: one alone gets its window of 16 MiB.
pub const SEND_CREDIT_BYTES: u32 = 24 * 1024 * 1024;

/// 16 MiB: the bandwidth-delay product of 640 Mbit/s at 200 ms, a quarter of a process's memory cap.
pub const SEND_WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// 320: 256 calls at a time, and 64 streams for a transfer's lanes and for calls from handlers. With 64 in all, as
/// many calls at a time reach two thirds of the rate, 256 half, since most of them wait for a stream. What the
/// streams hold is bounded by the connection's window, not by their number.
pub const MAX_CONCURRENT_STREAMS: u32 = 320;

/// 16, until the peer opens the first: quinn sets aside some 85 bytes for each, which a thousand idle connections
/// need not have.
pub(crate) const STREAMS_AT_FIRST: u32 = 16;

/// One stream: a guest has one thing to say.
pub(crate) const GUEST_MAX_CONCURRENT_STREAMS: u32 = 1;

/// 64 KiB: a guest's one request fits many times over, and a thousand of them fit into a process's memory cap.
pub(crate) const FIRST_WINDOW_BYTES: u32 = 64 * 1024;

/// 1,024 connections: at some 35 KB each while they are idle, they fit into a process's memory cap of 64 MiB.
pub const MAX_CONNECTIONS: usize = 1024;

/// 64 connections of one key: many programs of one user, and a sixteenth of all.
pub const MAX_CONNECTIONS_PER_PEER: usize = 64;

/// 256 handshakes: at some 75 KB each, a flood of half-open ones costs 20 MB, and as much again for those that were
/// just given up.
pub const MAX_INCOMING_HANDSHAKES: usize = 256;

/// 1 MiB of datagrams that come before their handshake is taken up, which is at once.
pub(crate) const INCOMING_BUFFER_BYTES: u64 = 1 << 20;

/// From this many handshakes in progress on, an address must prove itself (RFC 9000 section 8.1.2).
pub(crate) const RETRY_ABOVE_HANDSHAKES: usize = 64;

/// 5 s: several round trips to the far side of the earth, with a lost packet.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// 10 s for at most 40 bytes.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// 30 s: as long as the idle timeout; a peer that lives but does not move gets no longer.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// 30 s, as RFC 9308 section 3.2 recommends: an outage of half a minute on a long path, as when a route or a
/// mobile network changes, must not cost a transfer. Only a peer that has vanished with its machine or its
/// path is found by it; one that ends says so, and one that is restarted resets (SPEC 1.10).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// 5 s: who only waits for a peer hears by then that it was restarted; several may be lost before the idle
/// timeout; and it holds NAT bindings open.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// 4 MiB: with it the thousands of drops on a fast loopback become none.
pub const UDP_BUFFER_LEN_BYTES: usize = 4 * 1024 * 1024;

/// 8,952 bytes: a jumbo Ethernet frame of 9,000 less IPv6 and UDP headers. Where the path is
/// narrower the discovery finds what fits.
pub const MAX_DATAGRAM_LEN_BYTES: u16 = 8952;

/// 65,488 bytes: the 65,536 that Linux lets pass its loopback less IPv6 and UDP headers. Half as much of the processor
/// goes into packets as with those of 8,952.
pub const LOCAL_DATAGRAM_LEN_BYTES: u16 = 65_488;

/// Send priority of lane streams; calls and messages stay at quinn's default of 0, above them.
pub const LANE_PRIORITY: i32 = -1;
