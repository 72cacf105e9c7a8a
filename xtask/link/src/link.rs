//! One direction of a link: a bottleneck with a drop-tail queue, a delay, and what the [`Path`] adds.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Path, Rng};

/// Takes packets at one end and says when each arrives at the other, in order. Time is an argument: it never goes back.
#[derive(Debug)]
pub struct Link<P> {
    path: Path,
    rng: Rng,
    /// When each packet that waits leaves, and its length.
    queue: VecDeque<(Duration, usize)>,
    queued_bytes: usize,
    /// When the last one leaves.
    busy_until: Duration,
    /// When each packet arrives, and the delay of its way; those that wait are the last.
    under_way: VecDeque<(Duration, Duration, P)>,
    policer_tokens: f64,
    policed_at: Duration,
}

impl<P> Link<P> {
    /// With nothing on it.
    pub fn new(path: Path) -> Self {
        Self {
            rng: Rng::new(path.seed),
            queue: VecDeque::new(),
            queued_bytes: 0,
            busy_until: Duration::ZERO,
            under_way: VecDeque::new(),
            policer_tokens: path.policer.map_or(0.0, |policer| policer.burst_bytes),
            policed_at: Duration::ZERO,
            path,
        }
    }

    /// What it is like.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it another one. Packets that wait leave as it is now; those that have left arrive as they would have, and
    /// the one between leaves when it would have.
    pub fn change(&mut self, now: Duration, change: impl FnOnce(&mut Path)) {
        self.leave(now);
        change(&mut self.path);
        let waiting = std::mem::take(&mut self.queue);
        let packets = self.under_way.split_off(self.under_way.len() - waiting.len());
        let mut waiting = waiting.into_iter().zip(packets);
        (self.queued_bytes, self.busy_until) = (0, now);
        if let Some(((leaves_at, len_bytes), (.., packet))) = waiting.next() {
            self.carry(leaves_at, len_bytes, packet);
        }
        for ((_, len_bytes), (.., packet)) in waiting {
            self.enqueue(now, len_bytes, packet);
        }
    }

    /// Takes a packet and says when it arrives, unless it is dropped.
    pub fn send(&mut self, now: Duration, len_bytes: usize, packet: P) -> Option<Duration> {
        self.leave(now);
        let is_lost = self.path.loss > 0.0 && self.rng.unit() < self.path.loss;
        if is_lost || !self.passes_policer(now, len_bytes) {
            return None;
        }
        if (self.queued_bytes + len_bytes) as f64 > self.path.queue_bytes {
            return None;
        }
        Some(self.enqueue(now, len_bytes, packet))
    }

    /// When the next packet arrives.
    pub fn next_at(&self) -> Option<Duration> {
        self.under_way.front().map(|(at, ..)| *at)
    }

    /// The next packet that has arrived by now.
    pub fn receive(&mut self, now: Duration) -> Option<P> {
        self.receive_with_delay(now).map(|(packet, _)| packet)
    }

    /// The same, with half the round trip of the path as it was when the packet left: for an answer on the way back.
    pub fn receive_with_delay(&mut self, now: Duration) -> Option<(P, Duration)> {
        self.leave(now);
        self.next_at().filter(|at| *at <= now)?;
        self.under_way.pop_front().map(|(_, delay, packet)| (packet, delay))
    }

    fn enqueue(&mut self, now: Duration, len_bytes: usize, packet: P) -> Duration {
        let takes = Duration::from_secs_f64(len_bytes as f64 / self.path.bytes_per_sec());
        let leaves_at = self.path.thaws_at(self.path.thaws_at(self.busy_until.max(now)) + takes);
        self.carry(leaves_at, len_bytes, packet)
    }

    fn carry(&mut self, leaves_at: Duration, len_bytes: usize, packet: P) -> Duration {
        self.busy_until = leaves_at;
        self.queue.push_back((leaves_at, len_bytes));
        self.queued_bytes += len_bytes;
        let jitter = self.path.jitter(&mut self.rng, leaves_at);
        let arrives_at = self.path.thaws_at(leaves_at + self.path.one_way() + jitter);
        let arrives_at = self.under_way.back().map_or(arrives_at, |(before, ..)| arrives_at.max(*before));
        self.under_way.push_back((arrives_at, self.path.one_way(), packet));
        arrives_at
    }

    /// Forgets what has left.
    fn leave(&mut self, now: Duration) {
        while let Some((at, len_bytes)) = self.queue.front().copied()
            && at <= now
        {
            self.queue.pop_front();
            self.queued_bytes -= len_bytes;
        }
    }

    fn passes_policer(&mut self, now: Duration, len_bytes: usize) -> bool {
        let Some(policer) = self.path.policer else { return true };
        let refilled = policer.bytes_per_sec * now.saturating_sub(self.policed_at).as_secs_f64();
        self.policer_tokens = (self.policer_tokens + refilled).min(policer.burst_bytes);
        self.policed_at = now;
        let passes = self.policer_tokens >= len_bytes as f64;
        if passes {
            self.policer_tokens -= len_bytes as f64;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_packet_takes_its_own_time_and_the_delay() {
        let mut link = Link::new(Path::new(8.0, 100.0));
        assert_eq!(link.send(ms(0), 1000, 7), Some(ms(51)));
        assert_eq!(link.send(ms(0), 1000, 8), Some(ms(52)));
        assert_eq!(link.receive(ms(50)), None);
        assert_eq!(link.receive(ms(51)), Some(7));
        assert_eq!((link.receive(ms(51)), link.next_at()), (None, Some(ms(52))));
    }

    #[test]
    fn the_queue_holds_one_product() {
        let mut link = Link::new(Path::new(8.0, 100.0));
        let carried = (0..120).filter(|number| link.send(ms(0), 1000, *number).is_some()).count();
        assert_eq!(carried, 100);
        // One has left.
        assert!(link.send(ms(1), 1000, 120).is_some() && link.send(ms(1), 1000, 121).is_none());
    }

    #[test]
    fn loss_is_as_asked_for_and_repeatable() {
        let carried = |seed| {
            let mut link = Link::new(Path::new(8.0, 100.0).loss(0.01).seed(seed));
            (0..10_000).filter(|number| link.send(ms(*number), 1000, ()).is_some()).count()
        };
        assert!((9_850..9_950).contains(&carried(1)), "{}", carried(1));
        assert_eq!(carried(5), carried(5));
    }

    #[test]
    fn what_waits_leaves_at_the_new_rate_and_what_has_left_arrives_as_it_would_have() {
        let mut link = Link::new(Path::new(8.0, 100.0));
        assert!((0..3).all(|number| link.send(ms(0), 1000, number).is_some()));
        link.change(ms(1), |path| path.rate_mbit = 0.8);
        let arrivals: Vec<_> = std::iter::from_fn(|| {
            let at = link.next_at()?;
            link.receive(at).map(|number| (number, at))
        })
        .collect();
        assert_eq!(arrivals, [(0, ms(51)), (1, ms(52)), (2, ms(62))]);
    }

    #[test]
    fn a_policer_drops_what_exceeds_its_rate() {
        let mut link = Link::new(Path::new(80.0, 1.0).policed(0.8, 2000.0));
        let passed = (0..1000).filter(|at| link.send(ms(*at), 1000, ()).is_some()).count();
        assert_eq!(passed, 101);
    }
}
