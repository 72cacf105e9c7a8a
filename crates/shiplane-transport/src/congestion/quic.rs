//! The interface to quinn's congestion controller.

use std::{any::Any, sync::Arc, time::Instant};

use quinn::congestion::{self, ControllerFactory, CubicConfig};

use super::{controller::Controller, fixed::FixedWindow, stream::StreamWindows};
use crate::config::CongestionControl;

/// What quinn builds a connection's controller with. Ours never has more than `max_window_bytes` in flight.
pub(crate) fn factory(
    choice: CongestionControl,
    max_window_bytes: u64,
) -> Arc<dyn ControllerFactory + Send + Sync> {
    match choice {
        CongestionControl::Shiplane => Arc::new(Factory { max_window_bytes }),
        CongestionControl::Cubic => Arc::new(CubicConfig::default()),
        CongestionControl::Fixed { window_bytes } => Arc::new(FixedWindow { window_bytes }),
    }
}

/// The same for packets in a byte stream.
pub(crate) fn over_stream(max_window_bytes: u64) -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(StreamWindows { max_bytes: max_window_bytes })
}

struct Factory {
    max_window_bytes: u64,
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn congestion::Controller> {
        Box::new(Ours(Controller::new(now, current_mtu, self.max_window_bytes)))
    }
}

#[derive(Clone)]
struct Ours(Controller);

impl congestion::Controller for Ours {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.0.sent(now);
    }

    // quinn calls this for each packet of an ACK frame, oldest first, before its own RTT estimate knows
    // of it; so the RTT is taken from `sent`.
    fn on_ack(
        &mut self,
        _now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        _rtt: &quinn_proto::RttEstimator,
    ) {
        self.0.acked(sent, bytes, app_limited);
    }

    // Once an ACK frame, before the losses that it reveals are told.
    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        _app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        self.0.acks_end(now, in_flight);
    }

    // Lost MTU probes never come here.
    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        if is_persistent_congestion {
            self.0.path_died(now);
        } else if lost_bytes == 0 {
            self.0.marked(now, sent);
        } else {
            self.0.lost(now, sent, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.set_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.window_bytes()
    }

    fn clone_box(&self) -> Box<dyn congestion::Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_never_has_more_in_flight_than_it_may() {
        let start = |max_window_bytes| {
            let factory = factory(CongestionControl::Shiplane, max_window_bytes);
            factory.build(Instant::now(), 1200)
        };
        let free = start(u64::MAX);
        let bound = start(free.window() - 1);
        assert_eq!(bound.window(), free.window() - 1);
        assert_eq!(bound.initial_window(), bound.window());
        assert_eq!(bound.clone_box().window(), bound.window());
    }
}
