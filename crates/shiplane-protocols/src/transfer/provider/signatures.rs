//! Answers requests for block signatures, one after another (SPEC 4.13).

use std::{collections::VecDeque, sync::Arc};

use shiplane_files::internals::{Source, SourceError, SourceFile, split_buffer};
use shiplane_transport::internals::blocking;
use shiplane_wire::{BlockSignature, BlockSignatures, DigestAlgorithm, Span, limits};
use tokio::sync::mpsc;

use super::super::{
    budget::{Account, BlockSplitters, Quota, Reservation},
    delta::MAX_SIGNATURE_REQUESTS,
    error::ProtocolFault,
};

/// The requests that are not answered yet. The first few are worked on, and answered in their order.
#[derive(Debug)]
pub(super) struct SignatureJobs {
    algorithm: DigestAlgorithm,
    running: VecDeque<Running>,
    queued: VecDeque<Request>,
    splitters: Arc<BlockSplitters>,
    memory: Account,
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
    parts: mpsc::Receiver<Result<Vec<BlockSignature>, SourceError>>,
    _memory: Option<Reservation>,
}

/// What comes of a request.
#[derive(Debug)]
pub(super) enum SignatureStep {
    /// The next part of the answer.
    Part(BlockSignatures),
    /// There is no answer.
    Failed { entry: u64, error: SourceError },
}

impl SignatureJobs {
    /// No requests yet.
    pub(super) fn new(algorithm: DigestAlgorithm, quota: &Quota) -> Self {
        let (splitters, memory) = (Arc::clone(&quota.splitters), quota.signatures.clone());
        Self { algorithm, running: VecDeque::new(), queued: VecDeque::new(), splitters, memory }
    }

    /// Queues a request that lies within its file.
    pub(super) fn queue(
        &mut self,
        source: &Arc<Source>,
        span: Span,
        average_bytes: u32,
        entry: shiplane_wire::Entry,
    ) -> Result<(), ProtocolFault> {
        if self.queued.len() >= MAX_SIGNATURE_REQUESTS {
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
    pub(super) async fn next(&mut self, source: &Arc<Source>) -> SignatureStep {
        loop {
            let Some(first) = self.running.front_mut() else {
                return std::future::pending().await;
            };
            let entry = first.entry;
            match first.parts.recv().await {
                Some(Ok(signatures)) => {
                    let offset_bytes = first.next_bytes;
                    first.next_bytes +=
                        signatures.iter().map(|signature| u64::from(signature.len_bytes)).sum::<u64>();
                    return SignatureStep::Part(BlockSignatures { entry, offset_bytes, signatures });
                }
                Some(Err(error)) => {
                    // SPEC 4.14: the receiver expects no answer to them.
                    self.running.retain(|running| running.entry != entry);
                    self.queued.retain(|request| request.span.entry != entry);
                    self.start(source);
                    return SignatureStep::Failed { entry, error };
                }
                None => {
                    self.running.pop_front();
                    self.start(source);
                    if self.is_idle() {
                        self.splitters.buffers.free();
                    }
                }
            }
        }
    }

    /// Works on as many as there is memory for, and on one in any case.
    fn start(&mut self, source: &Arc<Source>) {
        let cores = blocking::cores();
        while self.running.len() < cores.min(MAX_RUNNING)
            && !self.queued.is_empty()
            && let memory = self.memory_for_parts()
            && (memory.is_some() || self.running.is_empty())
            && let Some(request) = self.queued.pop_front()
        {
            let parts_ahead = if memory.is_some() { PARTS_AHEAD } else { 1 };
            let (outlet, parts) = mpsc::channel(parts_ahead);
            let (entry, next_bytes) = (request.span.entry, request.span.offset_bytes);
            let job = SignatureJob {
                source: Arc::clone(source),
                request,
                algorithm: self.algorithm,
                splitters: Arc::clone(&self.splitters),
            };
            tokio::spawn(job.run(outlet));
            self.running.push_back(Running { entry, next_bytes, parts, _memory: memory });
        }
    }

    fn memory_for_parts(&self) -> Option<Reservation> {
        let mut memory = self.memory.reservation();
        memory.grow_by(PARTS_AHEAD as u64 * PART_COST_BYTES).then_some(memory)
    }
}

/// A request that is worked on.
struct SignatureJob {
    source: Arc<Source>,
    request: Request,
    algorithm: DigestAlgorithm,
    splitters: Arc<BlockSplitters>,
}

impl SignatureJob {
    /// Splits one buffer at a time. Between two buffers it holds only the signatures that wait to be sent.
    async fn run(self, outlet: mpsc::Sender<Result<Vec<BlockSignature>, SourceError>>) {
        let this = Arc::new(self);
        let (mut file, mut done_bytes) = (None, 0);
        while done_bytes < this.request.span.len_bytes {
            // They are never closed.
            let Ok(turn) = this.splitters.turns.acquire().await else { return };
            let (step, at) = (Arc::clone(&this), done_bytes);
            let split = blocking::spawn(move || step.split(file, at)).await;
            drop(turn);
            let signatures = match split {
                Ok(Ok((opened, signatures))) => {
                    file = Some(opened);
                    signatures
                }
                Ok(Err(error)) => {
                    // The transfer may be over.
                    drop(outlet.send(Err(error)).await);
                    return;
                }
                Err(_) => return,
            };
            done_bytes += signatures.iter().map(|signature| u64::from(signature.len_bytes)).sum::<u64>();
            // As soon as they are known: the receiver copies what they match while the rest is read.
            for part in signatures.chunks(limits::MAX_SIGNATURES_PER_RECORD) {
                if outlet.send(Ok(part.to_vec())).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Blocking: splits one buffer of the span, from `at` on.
    fn split(
        &self,
        file: Option<SourceFile>,
        at: u64,
    ) -> Result<(SourceFile, Vec<BlockSignature>), SourceError> {
        let Request { span, average_bytes, entry } = &self.request;
        let file = file.map_or_else(|| self.source.open(entry), Ok)?;
        let left_bytes = span.len_bytes - at;
        let read = |buffer: &mut [u8]| file.read_at(span.offset_bytes + at, buffer);
        let signatures =
            split_buffer(left_bytes, *average_bytes, self.algorithm, &self.splitters.buffers, read)?;
        if signatures.iter().map(|signature| u64::from(signature.len_bytes)).sum::<u64>() == left_bytes {
            // SPEC 4.9: the list is complete only if it is of this version.
            file.check_unchanged()?;
        }
        Ok((file, signatures))
    }
}

/// As many as are split at a time in all transfers.
const MAX_RUNNING: usize = 4;

/// Parts that the disk may be ahead of the records stream, of at most 32 KiB each. Those of a request that is
/// not the first wait until it is: then all of 64 MiB at the usual average fit.
const PARTS_AHEAD: usize = 16;

/// 32 KiB: 900 signatures.
const PART_COST_BYTES: u64 = 32 << 10;
