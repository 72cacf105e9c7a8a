//! Drives the controller on a modelled path, to benchmark its cost.

use std::time::{Duration, Instant};

use super::controller::Controller;

/// A controller whose path takes 50 ms, whatever is sent.
#[derive(Debug)]
pub struct DrivenController {
    controller: Controller,
    now: Instant,
}

impl DrivenController {
    /// At the start of a connection.
    #[must_use]
    pub fn new() -> Self {
        let now = Instant::now();
        Self { controller: Controller::new(now, DATAGRAM_LEN_BYTES, u64::MAX), now }
    }

    /// Sends packets and acknowledges them a round trip later, two at a time. Returns the window.
    pub fn round(&mut self, packets: u32) -> u64 {
        let gap = ROUND_TRIP / packets.max(1);
        let len_bytes = u64::from(DATAGRAM_LEN_BYTES);
        for packet in 0..packets {
            let sent = self.now + gap * packet;
            self.controller.sent(sent);
            self.controller.acked(sent, len_bytes, false);
            if packet % 2 == 1 {
                self.controller.acks_end(sent + ROUND_TRIP, u64::from(packets) * len_bytes);
            }
        }
        self.now += ROUND_TRIP;
        self.controller.window_bytes()
    }
}

impl Default for DrivenController {
    fn default() -> Self {
        Self::new()
    }
}

/// A path between continents' halves.
const ROUND_TRIP: Duration = Duration::from_millis(50);
const DATAGRAM_LEN_BYTES: u16 = 1452;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_carries_everything_gets_more() {
        let mut driven = DrivenController::new();
        let first = driven.round(1000);
        let windows: Vec<u64> = (0..20).map(|_| driven.round(1000)).collect();
        assert!(windows.iter().max() > Some(&first), "{first} {windows:?}");
    }
}
