//! Flows over one bottleneck, in virtual time: rate, delay, drop-tail queue, policer, random loss, freezes,
//! jitter, quinn's pacing and its loss detection.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use testlink::{Link, Path, Rng};

use super::{
    competitors::{Bbr, CubicSender},
    controller::Controller,
};

/// How much a flow's application has to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Supply {
    Endless,
    /// This number of bytes, then nothing.
    Bytes(u64),
    /// The application writes this many bytes every 10 ms, which caps it below the path.
    Trickle(u64),
    Silent,
}

/// What controls a flow.
pub(super) enum Control {
    Ours(Box<Controller>),
    Cubic(CubicSender),
    Bbr(Box<Bbr>),
}

pub(super) struct Flow {
    pub(super) control: Control,
    pub(super) supply: Supply,
    /// Of a limited supply: what may be sent now.
    written: u64,
    unacked: Unacked,
    pub(super) in_flight: u64,
    app_limited: bool,
    tokens: f64,
    refilled_at: Duration,
    wake_at: Option<Duration>,
    rtt: RttEstimate,
    /// Timeouts in a row, and when the next one is.
    timeouts: u32,
    timeout_at: Duration,
    timer_runs: bool,
    pub(super) acked_bytes: u64,
    pub(super) sent_packets: u64,
    pub(super) lost_packets: u64,
    /// Round trips, in milliseconds, since they were last taken.
    pub(super) rtts_ms: Vec<f32>,
    /// The same of what a packet carries, however often that had to be sent: what a call takes.
    calls_ms: Vec<f32>,
    /// When what was lost was first sent; it is sent again before all else.
    again: VecDeque<Duration>,
    /// The largest window since it was last reset.
    pub(super) max_window: u64,
    /// When a limited supply had arrived.
    pub(super) done_at: Option<Duration>,
}

/// A packet under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) sent_at: Duration,
    /// When what it carries was sent first.
    first_sent_at: Duration,
    /// What the flow had delivered when this was sent, and when it had.
    pub(super) delivered_bytes: u64,
    pub(super) delivered_at: Duration,
}

#[derive(Debug, Clone, Copy)]
struct RttEstimate {
    smoothed: Duration,
    variance: Duration,
    last_ack_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake { flow: usize },
    Ack { flow: usize, number: u64 },
    Timeout { flow: usize },
    Write { flow: usize },
}

pub(super) struct Model {
    /// Carries the number of a flow and that of its packet.
    link: Link<(usize, u64)>,
    pub(super) flows: Vec<Flow>,
    pub(super) now: Duration,
    start: Instant,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    event_count: u64,
    rng: Rng,
}

impl Model {
    pub(super) fn new(path: Path) -> Self {
        Self {
            rng: Rng::new(path.seed),
            link: Link::new(path),
            flows: Vec::new(),
            now: Duration::ZERO,
            start: Instant::now(),
            events: BinaryHeap::new(),
            event_count: 0,
        }
    }

    pub(super) fn with_flow(path: Path) -> Self {
        let mut model = Self::new(path);
        model.add_flow(Supply::Endless);
        model
    }

    /// Makes the path another one.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Path)) {
        self.link.change(self.now, change);
    }

    pub(super) fn add_flow(&mut self, supply: Supply) -> usize {
        self.add_capped(supply, u64::MAX)
    }

    /// One that may have this number of bytes in flight.
    pub(super) fn add_capped(&mut self, supply: Supply, max_window: u64) -> usize {
        let controller = Controller::new(self.start + self.now, MTU as u16, max_window);
        self.add(Control::Ours(Box::new(controller)), supply)
    }

    pub(super) fn add_cubic(&mut self) -> usize {
        let sender = CubicSender::new(self.start + self.now);
        self.add(Control::Cubic(sender), Supply::Endless)
    }

    pub(super) fn add_bbr(&mut self) -> usize {
        let seed = self.rng.number();
        self.add(Control::Bbr(Box::new(Bbr::new(self.now, seed))), Supply::Endless)
    }

    fn add(&mut self, control: Control, supply: Supply) -> usize {
        let rtt = Duration::from_secs_f64(self.link.path().rtt_ms / 1e3);
        self.flows.push(Flow {
            control,
            supply,
            written: if let Supply::Bytes(bytes) = supply { bytes } else { 0 },
            unacked: Unacked::default(),
            in_flight: 0,
            app_limited: false,
            tokens: BURST as f64,
            refilled_at: self.now,
            wake_at: None,
            // The handshake has measured it.
            rtt: RttEstimate { smoothed: rtt, variance: rtt / 2, last_ack_at: self.now },
            timeouts: 0,
            timeout_at: self.now,
            timer_runs: false,
            acked_bytes: 0,
            sent_packets: 0,
            lost_packets: 0,
            rtts_ms: Vec::new(),
            calls_ms: Vec::new(),
            again: VecDeque::new(),
            max_window: 0,
            done_at: None,
        });
        let flow = self.flows.len() - 1;
        self.at(self.now, Event::Write { flow });
        flow
    }

    /// Runs for this time and returns each flow's delivery rate in bytes per second.
    pub(super) fn run(&mut self, secs: f64) -> Vec<f64> {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.acked_bytes).collect();
        let until = self.now + Duration::from_secs_f64(secs);
        loop {
            let event_at = self.events.peek().map(|Reverse((at, ..))| *at);
            let arrives_at = self.link.next_at().filter(|at| event_at.is_none_or(|event| *at <= event));
            let Some(at) = arrives_at.or(event_at).filter(|at| *at <= until) else { break };
            self.now = at;
            if arrives_at.is_some() {
                self.arrive();
            } else if let Some(Reverse((.., event))) = self.events.pop() {
                self.handle(event);
            }
        }
        self.now = until;
        let rates = self.flows.iter().zip(before);
        rates.map(|(flow, before)| (flow.acked_bytes - before) as f64 / secs).collect()
    }

    /// Runs for this time and returns the share of the link's rate that all flows delivered.
    pub(super) fn utilisation(&mut self, secs: f64) -> f64 {
        self.run(secs).iter().sum::<f64>() / self.link.path().bytes_per_sec()
    }

    /// Lets a flow's application write (again).
    pub(super) fn set_supply(&mut self, flow: usize, supply: Supply) {
        self.flows[flow].supply = supply;
        self.at(self.now, Event::Write { flow });
    }

    /// The round trip that this share of all packets of the next seconds stayed below, in base RTTs.
    pub(super) fn rtt_quantile(&mut self, secs: f64, share: f64) -> f64 {
        self.quantile(secs, share, |flow| &mut flow.rtts_ms)
    }

    /// The same for what they carry, until it has arrived and been answered.
    pub(super) fn call_quantile(&mut self, secs: f64, share: f64) -> f64 {
        self.quantile(secs, share, |flow| &mut flow.calls_ms)
    }

    fn quantile(&mut self, secs: f64, share: f64, times: fn(&mut Flow) -> &mut Vec<f32>) -> f64 {
        for flow in &mut self.flows {
            times(flow).clear();
        }
        self.run(secs);
        let mut times_ms: Vec<f32> = self.flows.iter_mut().flat_map(|flow| times(flow).clone()).collect();
        times_ms.sort_by(f32::total_cmp);
        let at = ((times_ms.len() - 1) as f64 * share) as usize;
        f64::from(times_ms[at]) / self.link.path().rtt_ms
    }

    /// How far the slowest packet of the next seconds was held up by the queue, in base RTTs.
    pub(super) fn worst_queue(&mut self, secs: f64) -> f64 {
        self.rtt_quantile(secs, 1.0) - 1.0
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
            Event::Timeout { flow } => self.on_timeout(flow),
        }
    }

    fn on_timeout(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        flow.timer_runs = false;
        if flow.unacked.is_empty() {
            return;
        }
        if self.now < flow.timeout_at {
            // It was put off meanwhile.
            flow.timer_runs = true;
            let at = flow.timeout_at;
            self.at(at, Event::Timeout { flow: index });
            return;
        }
        flow.timeouts += 1;
        // RFC 9002 section 6.2.4: two probes, whatever the window says.
        self.send_packet(index);
        self.send_packet(index);
        self.set_timer(index);
    }

    /// RFC 9002 section 6.2.1.
    fn set_timer(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        let at = self.now + flow.rtt.timeout() * 2u32.pow(flow.timeouts.min(6));
        flow.timeout_at = at;
        if !std::mem::replace(&mut flow.timer_runs, true) {
            self.at(at, Event::Timeout { flow: index });
        }
    }

    fn on_ack(&mut self, index: usize, number: u64) {
        let (start, now) = (self.start, self.now);
        let flow = &mut self.flows[index];
        // Given up too early: nothing more to learn from it.
        let Some(packet) = flow.unacked.remove(number) else { return };
        let rtt = now - packet.sent_at;
        flow.rtt.update(now, rtt);
        flow.rtts_ms.push(rtt.as_secs_f32() * 1e3);
        flow.calls_ms.push((now - packet.first_sent_at).as_secs_f32() * 1e3);
        flow.acked_bytes += MTU;
        flow.in_flight -= MTU;
        flow.timeouts = 0;
        if matches!(flow.supply, Supply::Bytes(bytes) if flow.acked_bytes >= bytes) {
            flow.done_at.get_or_insert(now);
        }
        match &mut flow.control {
            Control::Ours(controller) => {
                controller.acked(start + packet.sent_at, MTU, flow.app_limited);
                controller.acks_end(start + now, flow.in_flight);
            }
            Control::Cubic(cubic) => cubic.acked(start + now, rtt),
            Control::Bbr(bbr) => bbr.acked(now, packet, flow.acked_bytes, flow.in_flight),
        }
        // RFC 9002 section 6.1.1.
        let lost = flow.unacked.remove_before(number.saturating_sub(2));
        self.lose(index, &lost);
        self.set_timer(index);
        self.transmit(index);
    }

    fn lose(&mut self, index: usize, lost: &[(u64, Packet)]) {
        let (Some((_, first)), Some((_, last))) = (lost.first(), lost.last()) else { return };
        let flow = &mut self.flows[index];
        let now = self.start + self.now;
        let is_persistent = lost.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1)
            && last.sent_at - first.sent_at > flow.rtt.timeout() * PERSISTENT_TIMEOUTS;
        let bytes = lost.len() as u64 * MTU;
        flow.in_flight -= bytes;
        flow.lost_packets += lost.len() as u64;
        // What is lost is sent again.
        flow.written += bytes;
        flow.again.extend(lost.iter().map(|(_, packet)| packet.first_sent_at));
        let sent_at = self.start + last.sent_at;
        match &mut flow.control {
            Control::Ours(controller) if is_persistent => controller.path_died(now),
            Control::Ours(controller) => controller.lost(now, sent_at, bytes),
            Control::Cubic(cubic) => cubic.lost(now, sent_at),
            Control::Bbr(bbr) => bbr.lost(bytes, flow.in_flight),
        }
    }

    /// As quinn: while window, pacer and application allow.
    fn transmit(&mut self, index: usize) {
        let mut sent = false;
        loop {
            let flow = &mut self.flows[index];
            let window = flow.window_bytes();
            flow.max_window = flow.max_window.max(window);
            let has_data = match flow.supply {
                Supply::Endless => true,
                Supply::Trickle(_) => flow.written >= MTU,
                Supply::Bytes(_) => flow.written > 0,
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
        if sent && let Control::Ours(controller) = &mut self.flows[index].control {
            controller.sent(self.start + self.now);
        }
    }

    fn send_packet(&mut self, index: usize) {
        let now = self.now;
        let flow = &mut self.flows[index];
        let was_idle = flow.unacked.is_empty();
        let (delivered_bytes, delivered_at) =
            (flow.acked_bytes, if was_idle { now } else { flow.rtt.last_ack_at });
        let first_sent_at = flow.again.pop_front().unwrap_or(now);
        let number = flow.unacked.push(Packet { sent_at: now, first_sent_at, delivered_bytes, delivered_at });
        flow.in_flight += MTU;
        flow.written = flow.written.saturating_sub(MTU);
        flow.tokens -= MTU as f64;
        flow.sent_packets += 1;
        if was_idle {
            self.set_timer(index);
        }
        self.link.send(now, MTU as usize, (index, number));
    }

    fn arrive(&mut self) {
        while let Some(((flow, number), back)) = self.link.receive_with_delay(self.now) {
            let acked_at = self.link.path().thaws_at(self.now + back);
            self.at(acked_at, Event::Ack { flow, number });
        }
    }
}

/// Packets by number.
#[derive(Debug, Default)]
struct Unacked {
    /// From this number on; None: acknowledged or lost.
    first: u64,
    packets: VecDeque<Option<Packet>>,
    count: usize,
}

impl Unacked {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, packet: Packet) -> u64 {
        self.packets.push_back(Some(packet));
        self.count += 1;
        self.first + self.packets.len() as u64 - 1
    }

    fn remove(&mut self, number: u64) -> Option<Packet> {
        let at = number.checked_sub(self.first)?;
        let packet = self.packets.get_mut(at as usize)?.take()?;
        self.count -= 1;
        Some(packet)
    }

    fn remove_before(&mut self, number: u64) -> Vec<(u64, Packet)> {
        let mut removed = Vec::new();
        while self.first < number {
            let Some(packet) = self.packets.pop_front() else { break };
            removed.extend(packet.map(|packet| (self.first, packet)));
            self.first += 1;
        }
        self.count -= removed.len();
        removed
    }
}

impl RttEstimate {
    fn update(&mut self, now: Duration, rtt: Duration) {
        self.variance = (self.variance * 3 + self.smoothed.abs_diff(rtt)) / 4;
        self.smoothed = (self.smoothed * 7 + rtt) / 8;
        self.last_ack_at = now;
    }

    fn timeout(&self) -> Duration {
        self.smoothed + (self.variance * 4).max(Duration::from_millis(1)) + MAX_ACK_DELAY
    }
}

impl Flow {
    pub(super) fn window_bytes(&self) -> u64 {
        match &self.control {
            Control::Ours(controller) => controller.window_bytes(),
            Control::Cubic(cubic) => cubic.window_bytes(),
            Control::Bbr(bbr) => bbr.window_bytes(),
        }
    }

    fn pacer_delay(&mut self, now: Duration, window: u64) -> Option<Duration> {
        let smoothed = self.rtt.smoothed.as_secs_f64();
        let (rate, burst) = match &self.control {
            // quinn's token bucket: 1.25 windows a round trip, in bursts of 2 ms, at least ten packets.
            Control::Ours(_) => {
                let burst = (window as f64 / smoothed * 0.002).clamp(BURST as f64, 256.0 * MTU as f64);
                (1.25 * window as f64 / smoothed, burst)
            }
            // The kernel does not pace it.
            Control::Cubic(_) => return None,
            Control::Bbr(bbr) => (bbr.pacing_rate(), 2.0 * MTU as f64),
        };
        self.tokens = (self.tokens + rate * (now - self.refilled_at).as_secs_f64()).min(burst);
        self.refilled_at = now;
        if self.tokens >= MTU as f64 {
            return None;
        }
        Some(Duration::from_secs_f64((burst - self.tokens) / rate).max(Duration::from_nanos(1)))
    }
}

pub(super) const MTU: u64 = 1452;
const BURST: u64 = 10 * MTU;

/// RFC 9000 section 18.2.
const MAX_ACK_DELAY: Duration = Duration::from_millis(25);

/// RFC 9002 section 7.6.1.
const PERSISTENT_TIMEOUTS: u32 = 3;
