//! Telling where the content of a file cuts it, one request after another (SPEC 4.13).

use std::{collections::VecDeque, sync::Arc};

use shiplane_wire::{Cut, Cuts, Span, limits};
use tokio::sync::mpsc;

use super::super::delta::MAX_CUTTINGS_UNDER_WAY;
use super::super::error::ProtocolFault;
use crate::files::{Source, SourceError, cut};

/// The requests that are not answered yet, the first of them under way.
#[derive(Debug, Default)]
pub(super) struct Cuttings {
    queued: VecDeque<Request>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Request {
    span: Span,
    average_bytes: u32,
    entry: shiplane_wire::Entry,
}

#[derive(Debug)]
struct Current {
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
        self.current.is_none()
    }

    /// The next step of the current request; pending while there is none. Cancel-safe.
    pub(super) async fn next(&mut self, source: &Arc<Source>) -> CutStep {
        loop {
            let Some(current) = &mut self.current else {
                return std::future::pending().await;
            };
            let entry = current.entry;
            match current.parts.recv().await {
                Some(Ok(cuts)) => {
                    let offset_bytes = current.next_bytes;
                    current.next_bytes += cuts.iter().map(|cut| u64::from(cut.len_bytes)).sum::<u64>();
                    return CutStep::Part(Cuts { entry, offset_bytes, cuts });
                }
                Some(Err(error)) => {
                    self.current = None;
                    // SPEC 4.14: the receiver expects no answer to them.
                    self.queued.retain(|request| request.span.entry != entry);
                    self.start(source);
                    return CutStep::Failed { entry, error };
                }
                None => {
                    self.current = None;
                    self.start(source);
                }
            }
        }
    }

    fn start(&mut self, source: &Arc<Source>) {
        if self.current.is_none()
            && let Some(request) = self.queued.pop_front()
        {
            let (outlet, parts) = mpsc::channel(PARTS_AHEAD);
            let source = Arc::clone(source);
            let (entry, next_bytes) = (request.span.entry, request.span.offset_bytes);
            tokio::task::spawn_blocking(move || cut_span(&source, &request, &outlet));
            self.current = Some(Current { entry, next_bytes, parts });
        }
    }
}

/// Blocking: reads the span.
fn cut_span(source: &Source, request: &Request, outlet: &mpsc::Sender<Result<Vec<Cut>, SourceError>>) {
    match try_cut(source, request, outlet) {
        // Nobody is left to hear of it when the transfer is over.
        Err(Stop::Source(error)) => drop(outlet.blocking_send(Err(error))),
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
    outlet: &mpsc::Sender<Result<Vec<Cut>, SourceError>>,
) -> Result<(), Stop> {
    let file = source.open(&request.entry).map_err(Stop::Source)?;
    let Span { offset_bytes, len_bytes, .. } = request.span;
    let mut part = Vec::new();
    let read = |at: u64, buffer: &mut [u8]| file.read_at(offset_bytes + at, buffer).map_err(Stop::Source);
    let tell = |cut| {
        if part.len() == limits::MAX_CUTS_PER_RECORD {
            outlet.blocking_send(Ok(std::mem::take(&mut part))).map_err(|_| Stop::Over)?;
        }
        part.push(cut);
        Ok(())
    };
    cut(len_bytes, request.average_bytes, read, tell)?;
    // SPEC 4.9: the list is complete only if it is of this version.
    file.check_unchanged().map_err(Stop::Source)?;
    outlet.blocking_send(Ok(part)).map_err(|_| Stop::Over)
}

/// Parts that the disk may be ahead of the records stream, of 32 KiB each.
const PARTS_AHEAD: usize = 4;
