//! Flows over one bottleneck, in virtual time: rate, delay, drop-tail queue, random loss, quinn's pacing
//! and its loss detection.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

use super::{
    cubic::{BETA, Cubic},
    steering::Steering,
};

/// The path that all flows share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) rate_mbit: f64,
    pub(super) rtt_ms: f64,
    /// In bandwidth-delay products.
    pub(super) queue: f64,
    pub(super) loss: f64,
}

impl Link {
    pub(super) fn new(rate_mbit: f64, rtt_ms: f64) -> Self {
        Self { rate_mbit, rtt_ms, queue: 1.0, loss: 0.0 }
    }

    pub(super) fn loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    pub(super) fn queue(self, queue: f64) -> Self {
        Self { queue, ..self }
    }

    pub(super) fn bytes_per_sec(&self) -> f64 {
        self.rate_mbit * 125_000.0
    }

    pub(super) fn bdp(&self) -> f64 {
        self.bytes_per_sec() * self.rtt_ms / 1e3
    }
}

/// Who decides how much a flow sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Supply {
    Endless,
    /// The application writes this many bytes every 10 ms, which caps it below the path.
    Trickle(u64),
    Silent,
}

/// What steers a flow.
pub(super) enum Control {
    Ours(Box<Steering>),
    Tcp(CubicSender),
}

/// A sender that takes every loss for congestion (RFC 9438), as TCP does.
pub(super) struct CubicSender {
    window: u64,
    /// None in slow start.
    curve: Option<Cubic>,
    cut_at: Instant,
}

pub(super) struct Flow {
    pub(super) control: Control,
    pub(super) supply: Supply,
    written: u64,
    unacked: BTreeMap<u64, Packet>,
    next_number: u64,
    in_flight: u64,
    app_limited: bool,
    tokens: f64,
    refilled_at: Duration,
    wake_at: Option<Duration>,
    srtt: Duration,
    pub(super) acked_bytes: u64,
    pub(super) sent_packets: u64,
    pub(super) lost_packets: u64,
    /// The longest round trip since it was last reset.
    pub(super) max_rtt: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    sent_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake { flow: usize },
    Ack { flow: usize, number: u64 },
    Timeout { flow: usize, number: u64 },
    Write { flow: usize },
}

pub(super) struct Model {
    pub(super) link: Link,
    pub(super) flows: Vec<Flow>,
    pub(super) now: Duration,
    start: Instant,
    busy_until: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    event_count: u64,
    random: u64,
}

impl Model {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            flows: Vec::new(),
            now: Duration::ZERO,
            start: Instant::now(),
            busy_until: Duration::ZERO,
            events: BinaryHeap::new(),
            event_count: 0,
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    pub(super) fn with_flow(link: Link) -> Self {
        let mut model = Self::new(link);
        model.add_flow(Supply::Endless);
        model
    }

    pub(super) fn add_flow(&mut self, supply: Supply) -> usize {
        let steering = Steering::new(self.start + self.now, MTU as u16);
        self.add(Control::Ours(Box::new(steering)), supply)
    }

    pub(super) fn add_tcp(&mut self) -> usize {
        let sender = CubicSender { window: BURST, curve: None, cut_at: self.start + self.now };
        self.add(Control::Tcp(sender), Supply::Endless)
    }

    fn add(&mut self, control: Control, supply: Supply) -> usize {
        self.flows.push(Flow {
            control,
            supply,
            written: 0,
            unacked: BTreeMap::new(),
            next_number: 0,
            in_flight: 0,
            app_limited: false,
            tokens: BURST as f64,
            refilled_at: self.now,
            wake_at: None,
            srtt: Duration::from_millis(333),
            acked_bytes: 0,
            sent_packets: 0,
            lost_packets: 0,
            max_rtt: Duration::ZERO,
        });
        let flow = self.flows.len() - 1;
        self.at(self.now, Event::Write { flow });
        flow
    }

    /// Runs so many seconds and tells what each flow delivered in them, in bytes a second.
    pub(super) fn run(&mut self, secs: f64) -> Vec<f64> {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.acked_bytes).collect();
        let until = self.now + Duration::from_secs_f64(secs);
        while let Some(&Reverse((at, _, event))) = self.events.peek() {
            if at > until {
                break;
            }
            self.events.pop();
            self.now = at;
            self.handle(event);
        }
        self.now = until;
        let rates = self.flows.iter().zip(before);
        rates.map(|(flow, before)| (flow.acked_bytes - before) as f64 / secs).collect()
    }

    /// The share of the link's rate that all flows together delivered in so many seconds.
    pub(super) fn utilisation(&mut self, secs: f64) -> f64 {
        self.run(secs).iter().sum::<f64>() / self.link.bytes_per_sec()
    }

    /// Lets a flow's application write (again).
    pub(super) fn set_supply(&mut self, flow: usize, supply: Supply) {
        self.flows[flow].supply = supply;
        self.at(self.now, Event::Write { flow });
    }

    /// How far the slowest packet of the next seconds was held up by the queue, in base RTTs.
    pub(super) fn worst_queue(&mut self, secs: f64) -> f64 {
        for flow in &mut self.flows {
            flow.max_rtt = Duration::ZERO;
        }
        self.run(secs);
        let worst = self.flows.iter().map(|flow| flow.max_rtt).max().unwrap();
        worst.as_secs_f64() * 1e3 / self.link.rtt_ms - 1.0
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.event_count += 1;
        self.events.push(Reverse((at, self.event_count, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { flow } => {
                self.flows[flow].wake_at = None;
                self.transmit(flow);
            }
            Event::Write { flow } => {
                if let Supply::Trickle(bytes) = self.flows[flow].supply {
                    self.flows[flow].written += bytes;
                    self.at(self.now + Duration::from_millis(10), Event::Write { flow });
                }
                self.transmit(flow);
            }
            Event::Ack { flow, number } => self.on_ack(flow, number),
            Event::Timeout { flow, number } => {
                if self.flows[flow].unacked.contains_key(&number) {
                    self.lose(flow, vec![number]);
                    self.transmit(flow);
                }
            }
        }
    }

    fn on_ack(&mut self, index: usize, number: u64) {
        let now = self.start + self.now;
        let flow = &mut self.flows[index];
        // Given up too early: nothing more to learn from it.
        let Some(packet) = flow.unacked.remove(&number) else { return };
        let rtt = self.now - packet.sent_at;
        flow.srtt = if flow.acked_bytes == 0 { rtt } else { (flow.srtt * 7 + rtt) / 8 };
        flow.max_rtt = flow.max_rtt.max(rtt);
        flow.acked_bytes += MTU;
        flow.in_flight -= MTU;
        match &mut flow.control {
            Control::Ours(steering) => {
                steering.acked(self.start + packet.sent_at, MTU, flow.app_limited);
                steering.acks_end(now, flow.in_flight);
            }
            Control::Tcp(cubic) => cubic.acked(now, rtt),
        }
        // RFC 9002 section 6.1.1.
        let lost: Vec<u64> = flow.unacked.range(..number.saturating_sub(2)).map(|(&lost, _)| lost).collect();
        self.lose(index, lost);
        self.transmit(index);
    }

    fn lose(&mut self, index: usize, lost: Vec<u64>) {
        let Some(&last) = lost.last() else { return };
        let flow = &mut self.flows[index];
        let sent_at = flow.unacked[&last].sent_at;
        for number in &lost {
            flow.unacked.remove(number);
        }
        let bytes = lost.len() as u64 * MTU;
        flow.in_flight -= bytes;
        flow.lost_packets += lost.len() as u64;
        // What is lost is sent again.
        flow.written += bytes;
        match &mut flow.control {
            Control::Ours(steering) => steering.lost(self.start + self.now, self.start + sent_at, bytes),
            Control::Tcp(cubic) => cubic.lost(self.start + self.now, self.start + sent_at),
        }
    }

    /// As quinn: while window, pacer and application allow.
    fn transmit(&mut self, index: usize) {
        let mut sent = false;
        loop {
            let flow = &mut self.flows[index];
            let window = flow.window_bytes();
            let has_data = match flow.supply {
                Supply::Endless => true,
                Supply::Trickle(_) => flow.written >= MTU,
                Supply::Silent => false,
            };
            flow.app_limited = !has_data;
            if !has_data || flow.in_flight + MTU >= window {
                break;
            }
            if let Some(wait) = flow.pacer_delay(self.now, window) {
                let wake_at = self.now + wait;
                if flow.wake_at.is_none_or(|at| at > wake_at) {
                    flow.wake_at = Some(wake_at);
                    self.at(wake_at, Event::Wake { flow: index });
                }
                break;
            }
            self.send_packet(index);
            sent = true;
        }
        if sent && let Control::Ours(steering) = &mut self.flows[index].control {
            steering.sent(self.start + self.now);
        }
    }

    fn send_packet(&mut self, index: usize) {
        let (now, link) = (self.now, self.link);
        let lost = self.chance() < link.loss;
        let flow = &mut self.flows[index];
        let number = flow.next_number;
        flow.next_number += 1;
        flow.unacked.insert(number, Packet { sent_at: now });
        flow.in_flight += MTU;
        flow.written = flow.written.saturating_sub(MTU);
        flow.tokens -= MTU as f64;
        flow.sent_packets += 1;
        let timeout = now + flow.srtt * 3 + Duration::from_millis(100);
        self.at(timeout, Event::Timeout { flow: index, number });
        let backlog = self.busy_until.saturating_sub(now).as_secs_f64() * link.bytes_per_sec();
        let queue = (link.queue * link.bdp()).max(10.0 * MTU as f64);
        if lost || backlog + MTU as f64 > queue {
            return;
        }
        self.busy_until =
            self.busy_until.max(now) + Duration::from_secs_f64(MTU as f64 / link.bytes_per_sec());
        let acked_at = self.busy_until + Duration::from_secs_f64(link.rtt_ms / 1e3);
        self.at(acked_at, Event::Ack { flow: index, number });
    }

    /// Uniform in 0..1 (xorshift).
    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl CubicSender {
    fn acked(&mut self, now: Instant, rtt: Duration) {
        match &self.curve {
            None => self.window += MTU,
            Some(curve) => self.window = self.window.max(curve.window_bytes(now, rtt, MTU as u16)),
        }
    }

    fn lost(&mut self, now: Instant, sent_at: Instant) {
        if sent_at > self.cut_at || self.curve.is_none() {
            let before = self.window;
            self.window = ((before as f64 * BETA) as u64).max(2 * MTU);
            self.curve = Some(Cubic::new(now, self.window, before, MTU as u16));
            self.cut_at = now;
        }
    }
}

impl Flow {
    pub(super) fn window_bytes(&self) -> u64 {
        match &self.control {
            Control::Ours(steering) => steering.window_bytes(),
            Control::Tcp(cubic) => cubic.window,
        }
    }

    /// quinn's token bucket: 1.25 windows a round trip, in bursts of 2 ms, at least ten packets.
    fn pacer_delay(&mut self, now: Duration, window: u64) -> Option<Duration> {
        let rate = 1.25 * window as f64 / self.srtt.as_secs_f64();
        let capacity = (rate / 1.25 * 0.002).clamp(BURST as f64, 256.0 * MTU as f64);
        self.tokens = (self.tokens + rate * (now - self.refilled_at).as_secs_f64()).min(capacity);
        self.refilled_at = now;
        if self.tokens >= MTU as f64 {
            return None;
        }
        Some(Duration::from_secs_f64((capacity - self.tokens) / rate))
    }
}

pub(super) const MTU: u64 = 1452;
const BURST: u64 = 10 * MTU;
