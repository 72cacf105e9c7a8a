//! The provider of a transfer.

mod entries;
mod events;
mod lanes;
mod listing;
mod offering;
mod presence;
mod provided;
mod sending;
mod shrinking;
mod signatures;
mod spans;
mod written;

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use shiplane_files::internals::{Input, Scanned, Source, SourceError, TopDirectory};
use shiplane_transport::internals::{BiStream, blocking};
use shiplane_transport::{PeerConnection, SendChunkError, StreamError};
use shiplane_wire::{
    Digest, DigestAlgorithm, Entry, ProviderRecord, ReceiverRecord, RelPath, Span, TransferHasher, TransferId,
};
use tokio::{task::JoinSet, time::Instant};

pub(crate) use self::provided::Provided;
use self::{
    entries::Entries,
    listing::{Listing, ScanBatch},
    offering::Offering,
    presence::Presence,
    provided::Done,
    sending::{Arrival, ChunkFailure, Delivered, Outlet},
    shrinking::Shrinking,
    signatures::{SignatureJobs, SignatureStep},
    written::Unanswered,
};
use super::{
    SHOWN_INTERVAL, TransferOptions, alive_interval,
    budget::Quota,
    error::{ProtocolFault, TransferError},
    event::{EventFn, TransferEvent},
    limit::{Awaited, LoadMeter, Role},
    progress::{ENTRY_BYTES, ProgressWatch, Turn},
    records::{RecordSender, RecordStream},
};

/// Serves one transfer until the receiver is done. `is_invited`: the first chunks may go out unasked (SPEC 4.24).
///
/// Not cancel-safe: dropping it resets the transfer's streams, and the receiver keeps what it has verified.
pub(crate) async fn provide(
    connection: Arc<PeerConnection>,
    transfer: TransferId,
    records: BiStream,
    source: Arc<Source>,
    options: &TransferOptions,
    is_invited: bool,
    events: EventFn,
) -> Result<Provided, TransferError> {
    let timeout = connection.config().timeouts().progress;
    let mut wants = RecordStream::new(records.recv);
    let scanned_entries = Arc::<AtomicU64>::default();
    let quota = Quota::of(options.memory.as_ref());
    let mut watch = ProgressWatch::new(timeout, Instant::now());
    watch.limit_to(options.bytes_per_second());
    let load = LoadMeter::new(Role::Provider, connection.traffic());
    let (written, unanswered) = Unanswered::new();
    let shared = (options, load.steps(), written);
    let outlet = Outlet::new(connection, transfer, Arc::clone(&source), shared, quota.compressed.clone());
    let scan =
        Listing::start(&source, options.links, quota.signatures.reservation(), Arc::clone(&scanned_entries));
    let mut provider = Provider {
        records: RecordSender::new(records.send, timeout),
        scan: Some(scan),
        scanned_entries,
        watch,
        load,
        counted_bytes: 0,
        bytes_per_second: options.bytes_per_second(),
        listed: VecDeque::new(),
        entries: Entries::default(),
        offering: is_invited.then(Offering::new),
        offers: 0,
        presence: Presence::default(),
        total_bytes: 0,
        queued: VecDeque::new(),
        next_chunk: 0,
        lanes: JoinSet::new(),
        unanswered,
        max_lanes: options.lanes.max(1),
        digests: JoinSet::new(),
        signature_jobs: SignatureJobs::new(options.digest, &quota),
        quota,
        digest: options.digest,
        transfer_hasher: TransferHasher::new(options.digest),
        sent_bytes: 0,
        wire_bytes: 0,
        failed: std::collections::HashSet::new(),
        unsent: Vec::new(),
        left_out: 0,
        done: None,
        shrinking: Shrinking::new(options.compression),
        arrival: outlet.arrival(),
        reported_bytes: 0,
        reported_wait: None,
        outlet: Arc::new(outlet),
        source,
        events,
    };
    let result = provider.run(&mut wants, timeout).await;
    match result.and_then(|()| provider.check_done()) {
        Ok(()) => {
            // A receiver that need not wait for this answer may be gone.
            let _ = provider.records.flush().await;
            let _ = provider.records.finish();
            Ok(provider.provided(wants))
        }
        Err(error) if provider.is_taken_for_done(&error) => Ok(provider.provided(wants)),
        Err(error) => {
            provider.records.reset(error.code());
            wants.stop(error.code());
            Err(error)
        }
    }
}

/// The state of one transfer, owned by one task.
struct Provider {
    source: Arc<Source>,
    outlet: Arc<Outlet>,
    arrival: Arrival,
    /// How much was told to have arrived.
    reported_bytes: u64,
    reported_wait: Option<Awaited>,
    shrinking: Shrinking,
    events: EventFn,
    records: RecordSender,
    /// Batches from the scanning thread, until the scan is complete.
    scan: Option<Listing>,
    /// The results of the scanning thread.
    scanned_entries: Arc<AtomicU64>,
    watch: ProgressWatch,
    load: LoadMeter,
    /// What had moved when the watch was last told.
    counted_bytes: u64,
    bytes_per_second: Option<NonZeroU64>,
    /// Scanned, and not sent yet.
    listed: VecDeque<Scanned>,
    entries: Entries,
    /// Until the receiver asks for chunks itself.
    offering: Option<Offering>,
    /// How many chunks were offered.
    offers: u64,
    presence: Presence,
    total_bytes: u64,
    /// Wanted chunks that wait for a lane.
    queued: VecDeque<(u64, Vec<Span>)>,
    next_chunk: u64,
    lanes: JoinSet<(u64, Sent)>,
    unanswered: Unanswered,
    max_lanes: usize,
    quota: Quota,
    digests: JoinSet<(u64, Result<Digest, SourceError>)>,
    signature_jobs: SignatureJobs,
    digest: DigestAlgorithm,
    transfer_hasher: TransferHasher,
    sent_bytes: u64,
    wire_bytes: u64,
    /// Entries whose failure has been told.
    failed: std::collections::HashSet<u64>,
    unsent: Vec<(RelPath, Arc<SourceError>)>,
    /// Paths that are left out here.
    left_out: u64,
    /// What the receiver has, once it wants no more.
    done: Option<Done>,
}

/// The entry that a chunk is of, if that is one, and what became of it.
struct Sent {
    only_entry: Option<u64>,
    outcome: Result<Delivered, ChunkFailure>,
}

impl Provider {
    async fn run(
        &mut self,
        wants: &mut RecordStream<ReceiverRecord>,
        timeout: Duration,
    ) -> Result<(), TransferError> {
        let mut alive = tokio::time::interval(alive_interval(timeout));
        let mut shown = tokio::time::interval(SHOWN_INTERVAL);
        while !self.is_finished() {
            let (more_wants, is_read) = (self.may_queue(), !self.is_backed_up());
            tokio::select! {
                record = wants.next(), if more_wants => self.on_record(record?)?,
                written = self.records.write_on(), if !self.records.is_written() => written?,
                batch = next_batch(&mut self.scan), if self.scan.is_some() && self.listed.is_empty() => {
                    self.on_scanned(batch)?;
                }
                () = self.outlet.has_sent(), if !self.queued.is_empty() => {}
                () = self.unanswered.next() => {}
                Some(sent) = self.lanes.join_next() => {
                    self.on_sent(sent.map_err(|_| TransferError::Abandoned)?)?;
                }
                Some(hashed) = self.digests.join_next() => {
                    self.on_hashed(hashed.map_err(|_| TransferError::Abandoned)?)?;
                }
                step = self.signature_jobs.next(&self.source), if is_read && !self.signature_jobs.is_idle() => {
                    self.on_signatures(step)?;
                }
                _ = shown.tick() => self.show()?,
                _ = alive.tick() => {
                    self.say_alive()?;
                    self.count();
                    if self.watch.is_stalled(self.turn(), Instant::now()) {
                        return Err(TransferError::Silent { timeout });
                    }
                }
            }
            self.fill_lanes();
            self.list()?;
            self.say_sent()?;
        }
        Ok(())
    }

    /// Whether the receiver is heard: more wants may wait for a lane, and it reads what is said to it.
    fn may_queue(&self) -> bool {
        let spans: usize = self.queued.iter().map(|(_, spans)| spans.len()).sum();
        let has_room = self.queued.len() < self.max_lanes && spans < MAX_QUEUED_SPANS;
        self.done.is_none() && has_room && !self.is_backed_up()
    }

    /// Whether the receiver has left more of what was said to it unread than any list is ahead.
    fn is_backed_up(&self) -> bool {
        self.records.backlog_bytes() >= MAX_UNREAD_BYTES
    }

    /// Whom the transfer waits for.
    fn turn(&self) -> Turn {
        if self.outlet.is_held_up() {
            return Turn::Ours;
        }
        if !self.lanes.is_empty() || self.is_backed_up() {
            return Turn::Peers { files: 0 };
        }
        let is_listing = self.scan.is_some() && self.listed.is_empty();
        if is_listing && self.source.input().is_some_and(Input::is_full) {
            return Turn::PeersChoice { bytes: self.total_bytes() };
        }
        if is_listing || !self.digests.is_empty() || !self.signature_jobs.is_idle() {
            return Turn::Ours;
        }
        Turn::PeersChoice { bytes: self.total_bytes() }
    }

    /// What the receiver decides about: of an input also what came before the first part.
    fn total_bytes(&self) -> u64 {
        self.source.input().map_or(self.total_bytes, Input::read_bytes)
    }

    /// Counts what has moved since the last time: what was queued, and what has arrived.
    fn count(&mut self) {
        let moved_bytes = self.outlet.moved(&mut self.arrival, self.records.content_bytes());
        let before = std::mem::replace(&mut self.counted_bytes, moved_bytes);
        self.watch.moved(moved_bytes - before, Instant::now());
    }

    fn is_finished(&self) -> bool {
        self.done.is_some() && self.lanes.is_empty() && self.queued.is_empty()
    }

    /// Whether the receiver has what was sent (SPEC 4.11).
    fn check_done(&self) -> Result<(), TransferError> {
        let digest = self.transfer_hasher.clone().finish(self.next_chunk);
        let transfer_digest = digest.map_err(|_| TransferError::Abandoned)?;
        let ours = Done { transfer_digest, failed: self.failed.len() as u64 };
        if self.done.as_ref() == Some(&ours) { Ok(()) } else { Err(TransferError::TransferDigestMismatch) }
    }

    fn provided(self, receiver: RecordStream<ReceiverRecord>) -> Provided {
        Provided {
            chunks: self.next_chunk,
            sent_bytes: self.sent_bytes,
            wire_bytes: self.wire_bytes,
            unsent: self.unsent,
            left_out: self.left_out,
            receiver,
        }
    }

    fn on_record(&mut self, record: Option<ReceiverRecord>) -> Result<(), TransferError> {
        self.watch.heard(Instant::now());
        match record.ok_or(ProtocolFault::WrongEnd)? {
            ReceiverRecord::WantChunk { index, spans } => self.on_want(index, spans)?,
            ReceiverRecord::WantDigest { entry } => self.on_want_digest(entry)?,
            ReceiverRecord::Release { below } => {
                self.shrinking.release(below);
                self.release_input(below);
                let (released, freed_bytes) = self.entries.release(below)?;
                self.quota.give_back_of_entries(freed_bytes);
                self.watch.moved(released.saturating_mul(ENTRY_BYTES), Instant::now());
                self.presence.release(below);
                self.report_present();
            }
            ReceiverRecord::Done { chunks, transfer_digest, failed } if chunks == self.next_chunk => {
                self.done = Some(Done { transfer_digest, failed });
                self.presence.end();
                self.report_present();
            }
            ReceiverRecord::Done { .. } => return Err(ProtocolFault::WrongTotals.into()),
            ReceiverRecord::Alive => {}
            ReceiverRecord::Load(load) => self.load.heard(load),
            ReceiverRecord::Admit { bytes } => self.entries.admit(bytes),
            ReceiverRecord::LeftOut { reason, path, cause } => {
                (self.events)(TransferEvent::left_out_there(reason, &path, &cause));
            }
            ReceiverRecord::WantSignatures { span, average_bytes } => {
                self.on_want_signatures(span, average_bytes)?;
            }
        }
        Ok(())
    }

    /// Drops parts that the receiver has.
    fn release_input(&mut self, below: u64) {
        let last = below.checked_sub(1).and_then(|last| self.entries.file(last).ok());
        if let (Some(input), Some(last)) = (self.source.input(), last) {
            let (_, offset_bytes) = last.version.part();
            input.release(offset_bytes + last.size_bytes);
        }
    }

    fn on_want(&mut self, index: u64, spans: Vec<Span>) -> Result<(), TransferError> {
        if index != self.next_chunk || self.offering.is_some() {
            return Err(ProtocolFault::ChunkOutOfOrder { index, expected: self.next_chunk }.into());
        }
        for span in &spans {
            self.entries.check(span)?;
        }
        spans.iter().for_each(|span| self.presence.want(span));
        self.report_present();
        if self.lanes.is_empty() {
            self.watch.stepped(Instant::now());
        }
        self.next_chunk += 1;
        self.queued.push_back((index, spans));
        self.unanswered.more();
        Ok(())
    }

    fn on_want_digest(&mut self, entry: u64) -> Result<(), TransferError> {
        if self.digests.len() >= MAX_DIGESTS_UNDER_WAY {
            return Err(ProtocolFault::TooManyWants.into());
        }
        let wanted = self.entries.ask_digest(entry)?;
        self.watch.completed(Instant::now());
        let (source, digest) = (Arc::clone(&self.source), self.digest);
        blocking::spawn_into(&mut self.digests, move || (entry, digest_of(&source, &wanted, digest)));
        Ok(())
    }

    fn on_want_signatures(&mut self, span: Span, average_bytes: u32) -> Result<(), TransferError> {
        self.entries.check(&span)?;
        // SPEC 4.14: the receiver has been told that it is not to be had.
        if !self.failed.contains(&span.entry) {
            let entry = self.entries.request_signatures(&span)?;
            self.watch.completed(Instant::now());
            self.signature_jobs.queue(&self.source, span, average_bytes, entry)?;
        }
        Ok(())
    }

    fn on_signatures(&mut self, step: SignatureStep) -> Result<(), TransferError> {
        match step {
            SignatureStep::Part(part) => self.records.push(&ProviderRecord::Signatures(part)),
            SignatureStep::Failed { entry, error } => self.tell_failed(entry, error),
        }
    }

    fn on_scanned(&mut self, batch: Option<ScanBatch>) -> Result<(), TransferError> {
        match batch {
            Some(batch) => self.listed.extend(batch?),
            None => {
                self.scan = None;
                self.end_offers()?;
                let entries = self.entries.count();
                let total_bytes = self.total_bytes;
                (self.events)(TransferEvent::ScanComplete { entries, total_bytes });
                self.records.push(&ProviderRecord::End { entries, total_bytes })?;
            }
        }
        Ok(())
    }

    /// Sends what was scanned, as far as the receiver admits it and there is memory for it here, until nothing is left or
    /// the stream takes no more.
    fn list(&mut self) -> Result<(), TransferError> {
        loop {
            let has_listed = self.list_some()?;
            self.records.write_now()?;
            // A write that is pending wakes us when it is done; one that was done at once does not.
            if !has_listed || !self.records.is_written() {
                return Ok(());
            }
        }
    }

    /// Queues entries up to the backlog's bound; whether there were any.
    fn list_some(&mut self) -> Result<bool, TransferError> {
        let mut has_listed = false;
        while self.records.backlog_bytes() < MAX_BACKLOG_BYTES
            && let Some(next) = self.listed.pop_front()
        {
            match next {
                Scanned::Entry(entry) => {
                    let cost_bytes = entry.cost_bytes();
                    if !self.entries.admits(cost_bytes) || !self.quota.take_for_entries(cost_bytes) {
                        self.listed.push_front(Scanned::Entry(entry));
                        self.end_offers()?;
                        break;
                    }
                    if let Some(offering) = &mut self.offering {
                        offering.listed(self.entries.count(), &entry);
                    }
                    self.total_bytes += entry.size_bytes;
                    self.presence.list(entry.size_bytes);
                    let record = ProviderRecord::Entry(entry);
                    self.records.push(&record)?;
                    if let ProviderRecord::Entry(entry) = record {
                        self.entries.add(entry);
                    }
                }
                Scanned::Top(TopDirectory { mode, mtime, attributes }) => {
                    self.records.push(&ProviderRecord::TopDirectory { mode, mtime, attributes })?;
                }
                Scanned::LeftOut { reason, path } => {
                    self.tell_left_out(reason, path.to_string(), None);
                    self.records.push(&ProviderRecord::LeftOut { reason, path })?;
                }
            }
            has_listed = true;
            self.offer()?;
        }
        Ok(has_listed)
    }

    fn on_hashed(&mut self, hashed: (u64, Result<Digest, SourceError>)) -> Result<(), TransferError> {
        match hashed {
            (entry, Ok(digest)) => self.records.push(&ProviderRecord::Digest { entry, digest }),
            (entry, Err(error)) => self.tell_failed(entry, error),
        }
    }

    fn on_sent(&mut self, sent: (u64, Sent)) -> Result<(), TransferError> {
        let (index, Sent { only_entry, outcome }) = sent;
        self.unanswered.end(index);
        match (index, outcome) {
            (index, Ok(chunk)) => {
                self.quota.moved();
                // Acknowledgements of other traffic may have been taken for those of the chunk.
                self.watch.moved(chunk.wire_bytes, Instant::now());
                self.sent_bytes += chunk.content_bytes;
                self.report_moved();
                (self.events)(TransferEvent::Kept { len_bytes: chunk.content_bytes });
                self.wire_bytes += chunk.wire_bytes;
                self.shrinking.sent(only_entry, chunk.wire_bytes < chunk.content_bytes);
                self.transfer_hasher.add(index, chunk.digest).map_err(|_| TransferError::Abandoned)
            }
            (index, Err(ChunkFailure::Entry { entry, error })) => {
                self.tell_failed(entry, error)?;
                self.transfer_hasher.skip(index).map_err(|_| TransferError::Abandoned)?;
                self.records.push(&ProviderRecord::ChunkVoid { index })
            }
            (_, Err(ChunkFailure::Lane(SendChunkError::Stream(error @ StreamError::ConnectionLost(_))))) => {
                Err(error.into())
            }
            // A receiver that has it already declines an offer.
            (
                index,
                Err(ChunkFailure::Lane(
                    SendChunkError::Rejected { .. }
                    | SendChunkError::Stream(StreamError::Reset(_) | StreamError::Stopped(_)),
                )),
            ) if index < self.offers => {
                self.transfer_hasher.skip(index).map_err(|_| TransferError::Abandoned)
            }
            (index, Err(ChunkFailure::Lane(source))) => Err(TransferError::Undelivered { index, source }),
        }
    }
}

async fn next_batch(scan: &mut Option<Listing>) -> Option<ScanBatch> {
    scan.as_mut()?.next().await
}

/// Blocking: reads a whole file.
fn digest_of(source: &Source, entry: &Entry, digest: DigestAlgorithm) -> Result<Digest, SourceError> {
    let file = source.open(entry)?;
    let digest = file.digest_of_data(entry, digest)?;
    file.check_unchanged()?;
    Ok(digest)
}

/// Whole files hashed on request at a time; the receiver asks for no more than half of this.
pub(super) const MAX_DIGESTS_UNDER_WAY: usize = 64;

/// 64 KiB: what waits longer than that to be written has a receiver that takes no more entries for now.
const MAX_BACKLOG_BYTES: usize = 64 << 10;

/// 128 KiB: a receiver that has not read that much gets no answers any more, and is not heard until it reads.
const MAX_UNREAD_BYTES: usize = 2 * MAX_BACKLOG_BYTES;

/// 2,048: of two wants of the smallest files, so that the next is there when a lane is free.
const MAX_QUEUED_SPANS: usize = 2048;
