//! Closes a connection so that the peer receives the close.
//!
//! quinn holds a close back while the congestion window is full and more is queued, like any other
//! packet. After a close it takes no acknowledgement any more, so the window stays full and the close
//! never leaves: the peer waits for its idle timeout, or gets a stateless reset at its next packet. So
//! every connection's congestion controller is wrapped in one that gives way to a close.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use shiplane_wire::Code;

/// Closes `connection` at once; unacknowledged data is lost.
pub(crate) fn close(connection: &quinn::Connection, code: Code) {
    give_way(connection);
    connection.close(varint(code), b"");
}

/// A code as QUIC carries it.
pub(crate) fn varint(code: Code) -> quinn::VarInt {
    quinn::VarInt::try_from(code.as_u64()).unwrap_or(quinn::VarInt::MAX)
}

/// Lets a close leave that is about to come, as by closing a whole endpoint.
pub(crate) fn give_way(connection: &quinn::Connection) {
    let sent_before = connection.stats().udp_tx.datagrams;
    if let Some(closing) = closing(connection) {
        closing.begin(sent_before);
    }
}

/// Resolves once the close of a closed connection has left, if it was closed by this side. One that is lost on its way
/// costs the peer its idle timeout, and us nothing: what matters was confirmed before.
pub(crate) async fn sent(connection: &quinn::Connection) {
    let Some(sent_before) = closing(connection).and_then(|closing| closing.sent_before()) else { return };
    // quinn tells of what it sends in its figures only.
    while matches!(connection.close_reason(), Some(quinn::ConnectionError::LocallyClosed))
        && connection.stats().udp_tx.datagrams <= sent_before
    {
        tokio::time::sleep(SENT_STEP).await;
    }
    tokio::time::sleep(SENT_MARGIN).await;
}

/// Opens a stream that ends at once, and waits until the peer has ended it too: it is there, and has admitted us
/// (SPEC 1.9).
pub(crate) async fn knock(connection: &quinn::Connection) -> Result<(), quinn::ConnectionError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    let _ = send.finish();
    match recv.read_to_end(0).await {
        Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What the peer has acknowledged; quinn reports it only to the congestion controller.
pub(crate) fn acknowledged(connection: &quinn::Connection) -> Acknowledged {
    let controller = connection.congestion_state().into_any().downcast::<GivesWay>();
    controller.map_or_else(|_| Acknowledged::default(), |controller| controller.acknowledged.look())
}

/// Bytes of packets that the peer has acknowledged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Acknowledged {
    pub(crate) bytes: u64,
    /// Those of them that were acknowledged while the path had room for more than there was to send.
    pub(crate) unfilled_bytes: u64,
    /// What was sent and is neither acknowledged nor known to be lost, or more.
    pub(crate) in_flight_bytes: u64,
}

/// Makes the controllers of `inner` give way to a close.
pub(crate) fn giving_way(
    inner: Arc<dyn ControllerFactory + Send + Sync>,
) -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(Factory(inner))
}

struct Factory(Arc<dyn ControllerFactory + Send + Sync>);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(GivesWay { inner, closing: Arc::default(), acknowledged: Arc::default() })
    }
}

struct GivesWay {
    inner: Box<dyn Controller>,
    closing: Arc<Closing>,
    acknowledged: Arc<Counting>,
}

/// Whether a connection is being closed: 0 while it is not, then one more than the datagrams sent before.
#[derive(Debug, Default)]
struct Closing(AtomicU64);

impl Closing {
    fn begin(&self, sent_before: u64) {
        let begun = sent_before.saturating_add(1);
        // An error means that it has begun already.
        let _ = self.0.compare_exchange(0, begun, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn sent_before(&self) -> Option<u64> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

fn closing(connection: &quinn::Connection) -> Option<Arc<Closing>> {
    // A copy of the controller, which shares this.
    let controller = connection.congestion_state().into_any().downcast::<GivesWay>();
    controller.ok().map(|controller| Arc::clone(&controller.closing))
}

/// What a controller and its copies have seen acknowledged.
#[derive(Debug, Default)]
struct Counting {
    bytes: AtomicU64,
    unfilled_bytes: AtomicU64,
    in_flight_bytes: AtomicU64,
}

impl Counting {
    fn add(&self, bytes: u64, is_unfilled: bool) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if is_unfilled {
            self.unfilled_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn look(&self) -> Acknowledged {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Acknowledged {
            bytes: load(&self.bytes),
            unfilled_bytes: load(&self.unfilled_bytes),
            in_flight_bytes: load(&self.in_flight_bytes),
        }
    }
}

impl Controller for GivesWay {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.acknowledged.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.acknowledged.add(bytes, app_limited);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.acknowledged.in_flight_bytes.store(in_flight, Ordering::Relaxed);
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.closing.sent_before().is_some() { UNPACED_WINDOW_BYTES } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            closing: Arc::clone(&self.closing),
            acknowledged: Arc::clone(&self.acknowledged),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// How often it is looked at whether a close has left: mostly it has at the first look.
const SENT_STEP: Duration = Duration::from_millis(1);

/// From quinn's figures to the socket.
const SENT_MARGIN: Duration = Duration::from_millis(2);

/// The smallest window that quinn does not pace: a packet that waits for its time would wait for ever.
const UNPACED_WINDOW_BYTES: u64 = 1 << 32;
