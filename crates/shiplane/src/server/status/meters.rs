//! Counts the events of a server, as metrics for Prometheus.

use std::{
    collections::VecDeque,
    convert::Infallible,
    error::Error as StdError,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use shiplane_protocols::internals::{ServedJob, SharedRecorder, UnderWay};
use shiplane_rpc::FaultCode;
use shiplane_transport::PeerId;

use crate::{
    error::{Error, ErrorKind, kind_and_side, kind_of_fault},
    event::Side,
    server::Server,
};

/// The figures of one server. They are its own: nothing is installed for the process.
pub(super) struct Meters {
    recorder: SharedRecorder,
    handle: PrometheusHandle,
    /// The newest last.
    failures: Mutex<VecDeque<Failure>>,
}

/// A job that has failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) at: Instant,
    pub(super) job: &'static str,
    pub(super) peer: PeerId,
    pub(super) name: Option<String>,
    pub(super) class: &'static str,
    pub(super) side: Side,
    /// Safe to print; names files.
    pub(super) path: String,
    /// The same.
    pub(super) message: String,
}

impl Meters {
    pub(super) fn new() -> Result<Self, Error> {
        let buckets = |builder: PrometheusBuilder, name: &str, bounds: &[f64]| {
            let set = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds);
            set.map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
        };
        let builder = buckets(PrometheusBuilder::new(), CALL_DURATION, &CALL_BOUNDS_SECONDS)?;
        let builder = buckets(builder, TRANSFER_DURATION, &TRANSFER_BOUNDS_SECONDS)?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let meters = Self { recorder: Arc::new(recorder), handle, failures: Mutex::default() };
        meters.record(|| {
            describe();
            zero();
        });
        Ok(meters)
    }

    /// For those who count by themselves.
    pub(super) fn recorder(&self) -> SharedRecorder {
        Arc::clone(&self.recorder)
    }

    /// Puts away what has been recorded, or it would fill memory between two requests.
    pub(super) async fn upkeep(&self) -> Infallible {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }

    /// A call has ended.
    pub(super) fn called(
        &self,
        method: Option<&str>,
        outcome: Result<(), Option<FaultCode>>,
        took: Duration,
    ) {
        let method = method.unwrap_or("unknown").to_owned();
        let outcome = match outcome {
            Ok(()) => "ok",
            Err(Some(code)) => class(kind_of_fault(code)),
            Err(None) => class(ErrorKind::Interrupted),
        };
        self.record(|| {
            histogram!(CALL_DURATION, "method" => method.clone()).record(took.as_secs_f64());
            counter!(CALLS, "method" => method, "outcome" => outcome).increment(1);
        });
    }

    /// A job has failed.
    pub(super) fn failed(&self, job: &UnderWay, name: Option<String>, error: &(dyn StdError + 'static)) {
        let (kind, side) = kind_and_side(error);
        let (verb, class) = (verb(job.job), class(kind));
        self.record(|| counter!(FAILURES, "job" => verb, "class" => class).increment(1));
        let message = error.to_string().chars().take(MAX_MESSAGE_CHARS).collect();
        let path = job.path.chars().take(MAX_MESSAGE_CHARS).collect();
        let failure =
            Failure { at: Instant::now(), job: verb, peer: job.peer, name, class, side, path, message };
        let mut failures = self.lock_failures();
        if failures.len() >= MAX_FAILURES {
            failures.pop_front();
        }
        failures.push_back(failure);
    }

    /// The last ones, the newest first.
    pub(super) fn failures(&self) -> Vec<Failure> {
        self.lock_failures().iter().rev().cloned().collect()
    }

    /// All figures as text, with those that are read off the server now.
    pub(super) fn render(&self, server: &Server) -> String {
        self.record(|| read(server));
        self.handle.render()
    }

    fn record<T>(&self, record: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, record)
    }

    fn lock_failures(&self) -> MutexGuard<'_, VecDeque<Failure>> {
        // Each change is one step.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a peer does, in the words of its command.
pub(super) fn verb(job: ServedJob) -> &'static str {
    match job {
        ServedJob::Fetch => "get",
        ServedJob::Push => "push",
        ServedJob::Sync => "sync",
    }
}

/// Each budget of memory that peers can fill: its name, what is held, and what may be.
pub(super) fn memory(server: &Server) -> Vec<(&'static str, u64, u64)> {
    let [receive, send] = server.inner.transport.window_memory();
    let (bodies, max_bodies) = server.inner.router.bodies_in_memory();
    let mut all: Vec<_> = server.inner.files.memory_in_use().into();
    all.extend(receive.map(|(used, total)| ("receive_windows", used, total)));
    all.extend(send.map(|(used, total)| ("send_windows", used, total)));
    all.push(("calls", bodies, max_bodies));
    all
}

/// Values that are read when the metrics are asked for, rather than counted.
fn read(server: &Server) {
    let inner = &server.inner;
    let sessions = server.sessions();
    gauge!(UPTIME).set(inner.metrics.snapshot().uptime.as_secs_f64());
    gauge!(DRAINING).set(if inner.stop.is_cancelled() { 1.0 } else { 0.0 });
    gauge!(PEERS).set(sessions.len() as f64);
    gauge!(CONNECTIONS).set(inner.transport.open_connections() as f64);
    let under_way = inner.files.under_way();
    for job in JOBS {
        let count = under_way.iter().filter(|running| running.job == job).count();
        gauge!(RUNNING, "job" => verb(job)).set(count as f64);
    }
    for (direction, bytes) in ["sent", "received"].into_iter().zip(inner.files.moved_bytes()) {
        counter!(MOVED, "direction" => direction).absolute(bytes);
    }
    for (budget, used, limit) in memory(server) {
        gauge!(MEMORY_USED, "budget" => budget).set(used as f64);
        gauge!(MEMORY_LIMIT, "budget" => budget).set(limit as f64);
    }
}

/// What each name means.
fn describe() {
    describe_gauge!(BUILD, "1, with the version as label");
    describe_gauge!(UPTIME, "Seconds since the server was bound");
    describe_gauge!(DRAINING, "1 while the server shuts down, else 0");
    describe_gauge!(PEERS, "Peers that are connected and admitted");
    describe_gauge!(CONNECTIONS, "Open connections, those of guests included");
    describe_gauge!(RUNNING, "Running jobs of peers");
    describe_counter!(MOVED, "Payload bytes that have moved, those of running jobs included");
    describe_counter!(TRANSFERS, "Transfers that have ended");
    describe_counter!(TRANSFER_BYTES, "Payload bytes of transfers that have succeeded");
    describe_histogram!(TRANSFER_DURATION, "Seconds that transfers took which have succeeded");
    describe_counter!(FAILURES, "Jobs that have failed after they had begun");
    describe_counter!(CALLS, "Calls of peers that have ended");
    describe_histogram!(CALL_DURATION, "Seconds from the arrival of a call to its answer");
    describe_gauge!(MEMORY_USED, "Bytes that are held for peers");
    describe_gauge!(MEMORY_LIMIT, "Bytes that may be held for peers");
}

/// What is counted exists from the beginning, so that the first of its kind is an increase.
fn zero() {
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for direction in ["sent", "received"] {
        for outcome in ["completed", "failed"] {
            counter!(TRANSFERS, "direction" => direction, "outcome" => outcome).absolute(0);
        }
        counter!(TRANSFER_BYTES, "direction" => direction).absolute(0);
        counter!(MOVED, "direction" => direction).absolute(0);
    }
    for job in JOBS {
        for kind in FAILURE_KINDS {
            counter!(FAILURES, "job" => verb(job), "class" => class(kind)).absolute(0);
        }
    }
}

/// The class of a failure, as a label.
fn class(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "usage",
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::Identity => "identity",
        ErrorKind::Integrity => "integrity",
        ErrorKind::Refused => "refused",
        ErrorKind::LocalIo => "local_io",
        ErrorKind::LeftOut => "left_out",
        ErrorKind::Interrupted => "interrupted",
        ErrorKind::Other => "other",
    }
}

/// What can become of a job that has begun.
const FAILURE_KINDS: [ErrorKind; 7] = [
    ErrorKind::Unreachable,
    ErrorKind::Identity,
    ErrorKind::Integrity,
    ErrorKind::Refused,
    ErrorKind::LocalIo,
    ErrorKind::Interrupted,
    ErrorKind::Other,
];

const JOBS: [ServedJob; 3] = [ServedJob::Fetch, ServedJob::Push, ServedJob::Sync];

const BUILD: &str = "shiplane_build_info";
const UPTIME: &str = "shiplane_uptime_seconds";
const DRAINING: &str = "shiplane_draining";
const PEERS: &str = "shiplane_peers";
const CONNECTIONS: &str = "shiplane_connections";
const RUNNING: &str = "shiplane_running_jobs";
const MOVED: &str = "shiplane_moved_bytes_total";
const FAILURES: &str = "shiplane_failures_total";
const CALLS: &str = "shiplane_calls_total";
const CALL_DURATION: &str = "shiplane_call_duration_seconds";
const MEMORY_USED: &str = "shiplane_memory_used_bytes";
const MEMORY_LIMIT: &str = "shiplane_memory_limit_bytes";

/// These are counted by [`TransferMetrics`](shiplane_protocols::TransferMetrics).
const TRANSFERS: &str = "shiplane_transfers_total";
const TRANSFER_BYTES: &str = "shiplane_transfer_bytes_total";
const TRANSFER_DURATION: &str = "shiplane_transfer_duration_seconds";

/// From a call that is answered from memory to one that waits for a disk or a transfer.
const CALL_BOUNDS_SECONDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// From a small file on the local network to a night's work.
const TRANSFER_BOUNDS_SECONDS: [f64; 8] = [0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0, 10_800.0];

/// 5 s: less than a megabyte of records at a hundred thousand calls a second, and an idle server still sleeps.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// 32: what a person reads.
const MAX_FAILURES: usize = 32;

/// 300 characters of a message or a path: 32 of each take less than 80 KiB.
const MAX_MESSAGE_CHARS: usize = 300;
