//! Telling where the content of a file cuts it, one request after another (SPEC 4.13).

use std::{collections::VecDeque, sync::Arc};

use shiplane_files::{
    Source, SourceError,
    internals::{Buffers, cut},
};
use shiplane_transport::blocking;
use shiplane_wire::{Cut, Cuts, DigestAlgorithm, Span, limits};
use tokio::sync::mpsc;

use super::super::delta::MAX_CUTTINGS_UNDER_WAY;
use super::super::error::ProtocolFault;

/// The requests that are not answered yet. The first few are worked on, and answered in their order.
#[derive(Debug)]
pub(super) struct Cuttings {
    algorithm: DigestAlgorithm,
    running: VecDeque<Running>,
    queued: VecDeque<Request>,
    buffers: Arc<Buffers>,
}

#[derive(Debug)]
struct Request {
    span: Span,
    average_bytes: u32,
    entry: shiplane_wire::Entry,
}

#[derive(Debug)]
struct Running {
    entry: u64,
    next_bytes: u64,
    parts: mpsc::Receiver<Result<Vec<Cut>, SourceError>>,
}

/// What comes of a request.
#[derive(Debug)]
pub(super) enum CutStep {
    /// The next part of the answer.
    Part(Cuts),
    /// There is no answer.
    Failed { entry: u64, error: SourceError },
}

impl Cuttings {
    /// No requests yet.
    pub(super) fn new(algorithm: DigestAlgorithm) -> Self {
        Self { algorithm, running: VecDeque::new(), queued: VecDeque::new(), buffers: Arc::default() }
    }

    /// Queues a request that lies within its file.
    pub(super) fn queue(
        &mut self,
        source: &Arc<Source>,
        span: Span,
        average_bytes: u32,
        entry: shiplane_wire::Entry,
    ) -> Result<(), ProtocolFault> {
        if self.queued.len() >= MAX_CUTTINGS_UNDER_WAY {
            return Err(ProtocolFault::TooManyWants);
        }
        self.queued.push_back(Request { span, average_bytes, entry });
        self.start(source);
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The next step of the first request; pending while there is none. Cancel-safe.
    pub(super) async fn next(&mut self, source: &Arc<Source>) -> CutStep {
        loop {
            let Some(first) = self.running.front_mut() else {
                return std::future::pending().await;
            };
            let entry = first.entry;
            match first.parts.recv().await {
                Some(Ok(cuts)) => {
                    let offset_bytes = first.next_bytes;
                    first.next_bytes += cuts.iter().map(|cut| u64::from(cut.len_bytes)).sum::<u64>();
                    return CutStep::Part(Cuts { entry, offset_bytes, cuts });
                }
                Some(Err(error)) => {
                    // SPEC 4.14: the receiver expects no answer to them.
                    self.running.retain(|running| running.entry != entry);
                    self.queued.retain(|request| request.span.entry != entry);
                    self.start(source);
                    return CutStep::Failed { entry, error };
                }
                None => {
                    self.running.pop_front();
                    self.start(source);
                    if self.is_idle() {
                        self.buffers.free();
                    }
                }
            }
        }
    }

    fn start(&mut self, source: &Arc<Source>) {
        let cores = blocking::cores();
        while self.running.len() < cores.min(MAX_RUNNING)
            && let Some(request) = self.queued.pop_front()
        {
            let (outlet, parts) = mpsc::channel(PARTS_AHEAD);
            let source = Arc::clone(source);
            let (entry, next_bytes) = (request.span.entry, request.span.offset_bytes);
            let (buffers, algorithm) = (Arc::clone(&self.buffers), self.algorithm);
            blocking::spawn_waiting(move || cut_span(&source, &request, algorithm, &buffers, &outlet));
            self.running.push_back(Running { entry, next_bytes, parts });
        }
    }
}

/// Blocking: reads the span.
fn cut_span(
    source: &Source,
    request: &Request,
    algorithm: DigestAlgorithm,
    buffers: &Buffers,
    outlet: &mpsc::Sender<Result<Vec<Cut>, SourceError>>,
) {
    match try_cut(source, request, algorithm, buffers, outlet) {
        // Nobody is left to hear of it when the transfer is over.
        Err(Stop::Source(error)) => drop(blocking::send(outlet, Err(error))),
        Ok(()) | Err(Stop::Over) => {}
    }
}

enum Stop {
    Source(SourceError),
    Over,
}

fn try_cut(
    source: &Source,
    request: &Request,
    algorithm: DigestAlgorithm,
    buffers: &Buffers,
    outlet: &mpsc::Sender<Result<Vec<Cut>, SourceError>>,
) -> Result<(), Stop> {
    let file = source.open(&request.entry).map_err(Stop::Source)?;
    let Span { offset_bytes, len_bytes, .. } = request.span;
    let read = |at: u64, buffer: &mut [u8]| file.read_at(offset_bytes + at, buffer).map_err(Stop::Source);
    // Told once the next are there: SPEC 4.9, the list is complete only if it is of this version.
    let mut held: Vec<Cut> = Vec::new();
    let tell = |more| send_parts(outlet, std::mem::replace(&mut held, more));
    cut(len_bytes, request.average_bytes, algorithm, buffers, read, tell)?;
    file.check_unchanged().map_err(Stop::Source)?;
    send_parts(outlet, held)
}

/// As soon as they are known: the receiver copies what they match while the rest is read.
fn send_parts(outlet: &mpsc::Sender<Result<Vec<Cut>, SourceError>>, cuts: Vec<Cut>) -> Result<(), Stop> {
    let mut parts = cuts.chunks(limits::MAX_CUTS_PER_RECORD);
    parts.try_for_each(|part| blocking::send(outlet, Ok(part.to_vec())).map_err(|_| Stop::Over))
}

/// Each has a buffer of at most 6 MiB.
const MAX_RUNNING: usize = 4;

/// Parts that the disk may be ahead of the records stream, of at most 32 KiB each. Those of a request that is
/// not the first wait until it is: then all of 64 MiB at the usual average fit.
const PARTS_AHEAD: usize = 16;
