//! Limits and defaults of a transport, each a named constant with its reason.

use std::time::Duration;

use shiplane_wire::limits;

/// Limits and timeouts of a transport. The defaults suit workstations and servers.
///
/// ```
/// use shiplane_transport::TransportConfig;
/// let config = TransportConfig::default().buffer_len_bytes(256 * 1024).max_connections(16);
/// ```
#[derive(Debug, Clone)]
pub struct TransportConfig {
    pub(crate) buffer_len_bytes: usize,
    pub(crate) max_chunk_len_bytes: u64,
    pub(crate) stream_receive_window_bytes: u32,
    pub(crate) connection_receive_window_bytes: u32,
    pub(crate) receive_budget_bytes: Option<u32>,
    pub(crate) send_budget_bytes: Option<u32>,
    pub(crate) send_window_bytes: u64,
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_peer: usize,
    pub(crate) max_incoming_handshakes: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) header_timeout: Duration,
    pub(crate) progress_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) udp_buffer_len_bytes: usize,
    pub(crate) max_datagram_len_bytes: Option<u16>,
    pub(crate) congestion: CongestionControl,
    pub(crate) lane_threads: LaneThreads,
}

impl TransportConfig {
    /// Sets how many bytes are read from a source, hashed and written at a time. Default [`BUFFER_LEN_BYTES`].
    #[must_use]
    pub fn buffer_len_bytes(mut self, buffer_len_bytes: usize) -> Self {
        self.buffer_len_bytes = buffer_len_bytes;
        self
    }

    /// Sets the size limit of a bare chunk that is received into memory. Default 1 GiB.
    #[must_use]
    pub fn max_chunk_len_bytes(mut self, max_chunk_len_bytes: u64) -> Self {
        self.max_chunk_len_bytes = max_chunk_len_bytes;
        self
    }

    /// Sets how much unread data a peer may send on one stream. Default [`STREAM_RECEIVE_WINDOW_BYTES`].
    #[must_use]
    pub fn stream_receive_window_bytes(mut self, stream_receive_window_bytes: u32) -> Self {
        self.stream_receive_window_bytes = stream_receive_window_bytes;
        self
    }

    /// Sets how much unread data a peer may send on one connection. Default [`CONNECTION_RECEIVE_WINDOW_BYTES`].
    #[must_use]
    pub fn connection_receive_window_bytes(mut self, connection_receive_window_bytes: u32) -> Self {
        self.connection_receive_window_bytes = connection_receive_window_bytes;
        self
    }

    /// Sets how much unread data all connections together may hold. Each connection then starts with a small window that
    /// grows as data is read. For programs that read whatever arrives, e.g. [`RECEIVE_CREDIT_BYTES`]. Default `None`: each
    /// connection has its full window from the start, for programs that leave one stream unread while waiting for another.
    #[must_use]
    pub fn receive_budget_bytes(mut self, receive_budget_bytes: impl Into<Option<u32>>) -> Self {
        self.receive_budget_bytes = receive_budget_bytes.into();
        self
    }

    /// Sets how much unacknowledged data all connections together may hold. Each connection then starts with a small window
    /// that grows as data is acknowledged. For servers, e.g. [`SEND_CREDIT_BYTES`]. Default `None`: each connection has its
    /// full window from the start.
    #[must_use]
    pub fn send_budget_bytes(mut self, send_budget_bytes: impl Into<Option<u32>>) -> Self {
        self.send_budget_bytes = send_budget_bytes.into();
        self
    }

    /// Sets how much unacknowledged data one connection may hold. Default [`SEND_WINDOW_BYTES`].
    #[must_use]
    pub fn send_window_bytes(mut self, send_window_bytes: u64) -> Self {
        self.send_window_bytes = send_window_bytes;
        self
    }

    /// Sets how many streams a peer may have open at a time. Default [`MAX_CONCURRENT_STREAMS`].
    #[must_use]
    pub fn max_concurrent_streams(mut self, max_concurrent_streams: u32) -> Self {
        self.max_concurrent_streams = max_concurrent_streams;
        self
    }

    /// Sets how many connections are accepted at a time; others are closed with `Busy`. Default [`MAX_CONNECTIONS`].
    #[must_use]
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.max_connections = max_connections;
        self
    }

    /// Sets how many of them one key may have. Default [`MAX_CONNECTIONS_PER_PEER`].
    #[must_use]
    pub fn max_connections_per_peer(mut self, max_connections_per_peer: usize) -> Self {
        self.max_connections_per_peer = max_connections_per_peer;
        self
    }

    /// Sets how many handshakes may be in progress, at most half of them from one host; others are dropped. Default
    /// [`MAX_INCOMING_HANDSHAKES`].
    #[must_use]
    pub fn max_incoming_handshakes(mut self, max_incoming_handshakes: usize) -> Self {
        self.max_incoming_handshakes = max_incoming_handshakes;
        self
    }

    /// Sets the timeout of dialling and the handshake together. Default [`HANDSHAKE_TIMEOUT`].
    #[must_use]
    pub fn handshake_timeout(mut self, handshake_timeout: Duration) -> Self {
        self.handshake_timeout = handshake_timeout;
        self
    }

    /// Sets the timeout for the first bytes of a stream and the body of its header. Default [`HEADER_TIMEOUT`].
    #[must_use]
    pub fn header_timeout(mut self, header_timeout: Duration) -> Self {
        self.header_timeout = header_timeout;
        self
    }

    /// Sets the longest wait without any progress in a transfer. Default [`PROGRESS_TIMEOUT`].
    #[must_use]
    pub fn progress_timeout(mut self, progress_timeout: Duration) -> Self {
        self.progress_timeout = progress_timeout;
        self
    }

    /// Sets the time without packets after which a connection is closed. Default [`IDLE_TIMEOUT`].
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }

    /// Sets how often an idle connection sends a keep-alive. Default [`KEEP_ALIVE_INTERVAL`].
    #[must_use]
    pub fn keep_alive_interval(mut self, keep_alive_interval: Duration) -> Self {
        self.keep_alive_interval = keep_alive_interval;
        self
    }

    /// Sets the size of the UDP socket's buffers, per direction. Default [`UDP_BUFFER_LEN_BYTES`].
    #[must_use]
    pub fn udp_buffer_len_bytes(mut self, udp_buffer_len_bytes: usize) -> Self {
        self.udp_buffer_len_bytes = udp_buffer_len_bytes;
        self
    }

    /// Sets the largest UDP payload that path MTU discovery tries. Default `None`: [`MAX_DATAGRAM_LEN_BYTES`], and
    /// [`LOCAL_DATAGRAM_LEN_BYTES`] for a peer on this machine.
    #[must_use]
    pub fn max_datagram_len_bytes(mut self, max_datagram_len_bytes: impl Into<Option<u16>>) -> Self {
        self.max_datagram_len_bytes = max_datagram_len_bytes.into();
        self
    }

    /// Sets the congestion controller. Default `CongestionControl::Shiplane`.
    #[doc(hidden)]
    #[must_use]
    pub fn congestion(mut self, congestion: CongestionControl) -> Self {
        self.congestion = congestion;
        self
    }

    /// Sets on which threads chunks are read, hashed and stored. Default `LaneThreads::Background`.
    #[doc(hidden)]
    #[must_use]
    pub fn lane_threads(mut self, lane_threads: LaneThreads) -> Self {
        self.lane_threads = lane_threads;
        self
    }

    /// The timeouts, for the crates that are built on this one.
    #[doc(hidden)]
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        Timeouts { header: self.header_timeout, progress: self.progress_timeout, idle: self.idle_timeout }
    }

    /// The size limit of a bare chunk that is received into memory.
    #[doc(hidden)]
    #[must_use]
    pub fn bare_chunk_limit_bytes(&self) -> u64 {
        self.max_chunk_len_bytes
    }
}

/// Timeouts of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the first bytes of a stream and the body of its header.
    pub header: Duration,
    /// The longest wait without any progress in a transfer.
    pub progress: Duration,
    /// The silence after which a connection is closed.
    pub idle: Duration,
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

/// 18 MiB: the most that our sender keeps in flight, and an eighth, since room is announced only once an eighth of the window
/// was read. With what the lanes hold within 48 MiB for a process.
pub const CONNECTION_RECEIVE_WINDOW_BYTES: u32 = 18 * 1024 * 1024;

/// 27 MiB for all connections of a server, or of a client. One alone gets its window of 18 MiB.
pub const RECEIVE_CREDIT_BYTES: u32 = 27 * 1024 * 1024;

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

/// 1 MiB of datagrams that arrive before their handshake is accepted, which happens at once.
pub(crate) const INCOMING_BUFFER_BYTES: u64 = 1 << 20;

/// From this many handshakes in progress on, an address must prove itself (RFC 9000 section 8.1.2).
pub(crate) const RETRY_ABOVE_HANDSHAKES: usize = 64;

/// 5 s: several round trips to the far side of the earth, with a lost packet.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// 10 s for at most 40 bytes.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// 30 s: as long as the idle timeout; a peer that is alive but makes no progress gets no longer.
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
