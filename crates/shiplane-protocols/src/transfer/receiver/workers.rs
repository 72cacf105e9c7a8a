//! The receiver's planning and publishing threads.

use shiplane_files::internals::{Block, DestinationError, Plan};
use shiplane_transport::internals::blocking;
use shiplane_wire::{Digest, Entry, LeftOutReason};
use tokio::sync::mpsc;

use super::super::{delta::SignatureComplete, error::TransferError, target::Target};

/// Decides about entries, in the order in which they come.
pub(super) struct Planner {
    jobs: mpsc::UnboundedSender<PlanJob>,
    plans: mpsc::Receiver<Result<Vec<Planned>, DestinationError>>,
}

/// The number of entries under way is bounded by the transfer's window (SPEC 4.10).
pub(super) enum PlanJob {
    Plan {
        index: u64,
        entry: Entry,
    },
    Compare {
        index: u64,
        entry: Entry,
        theirs: Digest,
    },
    /// It is not reported.
    Follow {
        index: u64,
        blocks: Vec<Block>,
    },
    Delta(SignatureComplete),
}

impl PlanJob {
    /// Parts of one list that have piled up become one job, which keeps several threads busy. Gives the job that
    /// comes after that, if one was taken.
    fn join_next(&mut self, mut take: impl FnMut() -> Option<Self>) -> Option<Self> {
        let Self::Follow { index, blocks } = self else { return None };
        loop {
            match take()? {
                Self::Follow { index: same, blocks: more } if same == *index => blocks.extend(more),
                other => return Some(other),
            }
        }
    }
}

pub(super) struct Planned {
    pub(super) index: u64,
    pub(super) entry: Entry,
    pub(super) plan: Plan,
}

impl Planner {
    pub(super) fn start(target: Target) -> Self {
        let (jobs, mut queue) = mpsc::unbounded_channel::<PlanJob>();
        let (outlet, plans) = mpsc::channel(1);
        blocking::spawn_waiting(move || {
            while let Some(first) = blocking::recv_unbounded(&mut queue) {
                let mut batch = Vec::new();
                let mut next = Some(first);
                let result = loop {
                    let Some(mut job) = next else { break Ok(()) };
                    next = job.join_next(|| queue.try_recv().ok());
                    match plan(&target, job) {
                        Ok(planned) => batch.extend(planned),
                        Err(error) => break Err(error),
                    }
                    if next.is_none() && batch.len() < PLAN_BATCH_LEN {
                        next = queue.try_recv().ok();
                    }
                };
                let failed = result.is_err();
                if !failed && batch.is_empty() {
                    continue;
                }
                if blocking::send(&outlet, result.map(|()| batch)).is_err() || failed {
                    return;
                }
            }
        });
        Self { jobs, plans }
    }

    pub(super) fn send(&self, job: PlanJob) {
        // Closed only after an error, which `next` reports.
        let _ = self.jobs.send(job);
    }

    /// Pending while nothing is to be planned. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Vec<Planned>, TransferError> {
        Ok(self.plans.recv().await.ok_or(TransferError::Abandoned)??)
    }
}

fn plan(target: &Target, job: PlanJob) -> Result<Option<Planned>, DestinationError> {
    let (plan, index, entry) = match job {
        PlanJob::Plan { index, entry } => (target.plan(index, &entry)?, index, entry),
        PlanJob::Compare { index, entry, theirs } => (target.compare(index, &entry, theirs)?, index, entry),
        PlanJob::Delta(SignatureComplete { index, entry, blocks, .. }) => {
            (target.delta(index, &entry, &blocks)?, index, entry)
        }
        PlanJob::Follow { index, blocks } => return target.follow(index, &blocks).map(|()| None),
    };
    Ok(Some(Planned { index, entry, plan }))
}

/// Publishes complete files: all that are waiting at once, which share their waits for the disk.
pub(super) struct Publisher {
    jobs: mpsc::UnboundedSender<PublishJob>,
    done: mpsc::Receiver<Result<Done, DestinationError>>,
    /// Jobs sent and not reported yet.
    under_way: usize,
}

/// What was done together: this many jobs, which settled these entries, and how many of those have their names.
struct Done {
    jobs: usize,
    entries: Vec<u64>,
    published: u64,
}

enum PublishJob {
    Publish(Vec<u64>),
    Discard(u64, LeftOutReason),
    DiscardLeftOut(u64),
}

impl Publisher {
    pub(super) fn start(target: Target) -> Self {
        let (jobs, mut queue) = mpsc::unbounded_channel();
        let (outlet, done) = mpsc::channel(1);
        blocking::spawn_waiting(move || {
            while let Some(first) = blocking::recv_unbounded(&mut queue) {
                let (mut jobs, mut entries) = (0, Vec::new());
                let mut next = Some(first);
                let mut result: Result<(), DestinationError> = Ok(());
                while let Some(job) = next.take() {
                    jobs += 1;
                    match job {
                        PublishJob::Publish(more) => entries.extend(more),
                        PublishJob::Discard(entry, reason) => {
                            let discarded = target.discard(entry, reason);
                            result = result.and(discarded);
                        }
                        PublishJob::DiscardLeftOut(entry) => {
                            let discarded = target.discard_left_out(entry);
                            result = result.and(discarded);
                        }
                    }
                    next = queue.try_recv().ok();
                }
                let published = match (result, entries.is_empty()) {
                    (Ok(()), false) => target.publish(&entries),
                    (result, _) => result.map(|()| Vec::new()),
                };
                let failed = published.is_err();
                let done =
                    published.map(|published| Done { jobs, entries, published: published.len() as u64 });
                if blocking::send(&outlet, done).is_err() || failed {
                    return;
                }
            }
        });
        Self { jobs, done, under_way: 0 }
    }

    pub(super) fn publish(&mut self, entries: Vec<u64>) {
        if !entries.is_empty() {
            self.send(PublishJob::Publish(entries));
        }
    }

    pub(super) fn discard(&mut self, entry: u64, reason: LeftOutReason) {
        self.send(PublishJob::Discard(entry, reason));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// What is removed of an entry that was left out.
    pub(super) fn discard_left_out(&mut self, entry: u64) {
        self.send(PublishJob::DiscardLeftOut(entry));
    }

    /// The entries that were settled together, and how many of them have their names. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<(Vec<u64>, u64), TransferError> {
        let done = self.done.recv().await.ok_or(TransferError::Abandoned)??;
        self.under_way -= done.jobs;
        Ok((done.entries, done.published))
    }

    fn send(&mut self, job: PublishJob) {
        // Closed only after an error, which `next` reports.
        let _ = self.jobs.send(job);
        self.under_way += 1;
    }
}

/// Entries planned before the results are handed over.
const PLAN_BATCH_LEN: usize = 256;
