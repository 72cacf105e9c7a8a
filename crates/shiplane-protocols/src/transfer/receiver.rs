//! The receiver of a transfer.

mod chunks;
mod ending;
mod events;
mod manifest;
mod offers;
mod progress;
mod received;
mod requests;
mod workers;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use shiplane_files::internals::{Plan, Summary, TopDirectory};
use shiplane_transport::{
    LaneOptions, PeerConnection, RateLimiter, StreamError,
    internals::{BiStream, Claim, ProgressMeter, ReceiveReservation, TransferStream, blocking},
};
use shiplane_wire::{
    Code, Entry, LeftOutReason, Piece, ProviderRecord, ReceiverRecord, RelPath, Span, TransferHasher, limits,
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use self::received::Received;
use self::{
    chunks::{Arrived, ChunkError, ChunkResult, Opened, StoredChunk, receive_chunk},
    offers::{Early, Offers},
    progress::Progress,
    received::{End, Totals},
    workers::{PlanJob, Planned, Planner, Publisher},
};
use super::{
    MAX_CHUNK_ATTEMPTS, SHOWN_INTERVAL, TransferOptions, alive_interval,
    budget::{Quota, Reservation},
    delta::{Deltas, SignaturePart, SignatureRequest},
    error::{ProtocolFault, TransferError},
    event::{EventFn, TransferEvent},
    ledger::{Ledger, Opens},
    limit::{Awaited, LoadMeter, Role},
    pace::ChunkPace,
    progress::Turn,
    records::{RecordSender, RecordStream},
    target::{RELEASE_GRACE, Target},
};
use crate::Compression;

/// A transfer as it was opened.
pub(crate) struct Opening {
    pub(crate) claim: Claim,
    pub(crate) records: BiStream,
    /// For the first chunks, if the provider was invited to send them unasked.
    pub(crate) invites: Option<ReceiveReservation>,
}

/// Room for what a provider may send unasked (SPEC 4.24): unread until it is decided on, it must not keep back the
/// records that decide. `None` if there is none for now; the provider is not invited then.
pub(crate) fn invite(connection: &PeerConnection) -> Option<ReceiveReservation> {
    connection.reserve_receive(limits::MAX_OFFERED_BYTES)
}

/// Receives one transfer into `target`. When it fails, no task works on the target any more by the time
/// it says so, and what the target undoes is undone.
///
/// Not cancel-safe: dropping it resets the transfer's streams; what was verified is kept for the next run.
/// `stop` does the same, and releases the target before it returns.
pub(crate) async fn receive(
    opening: Opening,
    timeout: Duration,
    target: Target,
    options: &TransferOptions,
    events: EventFn,
    stop: CancellationToken,
) -> Result<Received, TransferError> {
    let Opening { mut claim, records, invites } = opening;
    let mut provider = RecordStream::new(records.recv);
    let quota = Quota::of(options.memory.as_ref());
    // A little there always is.
    quota.take_for_entries(limits::FIRST_ENTRY_BYTES);
    let (meter, arrived) = (ProgressMeter::default(), Arrived::default());
    claim.watch(meter.clone());
    let load = LoadMeter::new(Role::Receiver, claim.traffic());
    let mut receiver = Receiver {
        claim,
        records: RecordSender::new(records.send, timeout),
        planner: Planner::start(target.share()),
        publisher: Publisher::start(target.share()),
        ledger: Ledger::new(options.lanes, options.chunk_len_bytes, target.is_in_parts()),
        pace: ChunkPace::new(options.lanes, options.chunk_len_bytes, Instant::now()),
        deltas: Deltas::new(quota.signatures.clone()),
        quota,
        reserved: HashMap::new(),
        // No more parts may come before the first are taken.
        ahead: (!target.is_in_parts()).then(Vec::new),
        offers: invites.map(Offers::new),
        early: Early::default(),
        declined: HashSet::new(),
        unended: HashSet::new(),
        chunks: JoinSet::new(),
        repeated: HashMap::new(),
        comparing: HashMap::new(),
        to_compare: Vec::new(),
        paths: HashMap::new(),
        totals: Totals::default(),
        ended: false,
        pauses: 0,
        transfer_hasher: TransferHasher::new(options.digest),
        end: End::default(),
        may_compress: options.compression != Compression::Never,
        lane: LaneOptions::default()
            .rate(options.rate.as_ref().map(RateLimiter::for_user))
            .digest(options.digest)
            .steps(load.steps())
            .progress(arrived.counter()),
        load,
        arrived,
        reported_wait: None,
        progress: Progress::new(meter, timeout),
        target,
        timeout,
        events,
        stop,
    };
    match receiver.run(&mut provider).await {
        Ok(summary) => Ok(receiver.received(summary, provider).await),
        Err(error) => {
            receiver.target.abandon();
            let released = receiver.target.writes().released();
            let error = receiver.own_cause(error).await;
            receiver.fail(error.code());
            provider.stop(error.code());
            released.await;
            Err(error)
        }
    }
}

/// The state of one transfer, owned by one task.
struct Receiver {
    claim: Claim,
    records: RecordSender,
    target: Target,
    progress: Progress,
    timeout: Duration,
    events: EventFn,
    stop: CancellationToken,
    planner: Planner,
    publisher: Publisher,
    ledger: Ledger,
    pace: ChunkPace,
    quota: Quota,
    /// For the chunks that were asked for; and which piece of a file each is.
    reserved: HashMap<u64, (Reservation, Option<Piece>)>,
    /// Plans that wait until enough is known to check space and collisions before the first byte.
    ahead: Option<Vec<Planned>>,
    /// Offers that are not decided on yet, and the streams that came early for them.
    offers: Option<Offers>,
    early: Early,
    /// Declined offers, and those of them whose streams have not arrived yet to be refused.
    declined: HashSet<u64>,
    unended: HashSet<u64>,
    /// Whether the provider was told that chunks may be compressed.
    may_compress: bool,
    lane: LaneOptions,
    load: LoadMeter,
    arrived: Arrived,
    reported_wait: Option<Awaited>,
    chunks: JoinSet<(u64, ChunkResult)>,
    /// Chunks that the provider repeats before the failed attempt has ended here.
    repeated: HashMap<u64, Opened>,
    /// Entries whose digest was asked for.
    comparing: HashMap<u64, Entry>,
    /// Entries whose digest is still to be asked for.
    to_compare: Vec<(u64, Entry)>,
    deltas: Deltas,
    /// Of files that are wanted and not published yet, for messages.
    paths: HashMap<u64, RelPath>,
    totals: Totals,
    /// The manifest is complete.
    ended: bool,
    /// How often the provider has said that it lives since it has listed anything.
    pauses: u32,
    transfer_hasher: TransferHasher,
    end: End,
}

impl Receiver {
    async fn run(&mut self, provider: &mut RecordStream<ProviderRecord>) -> Result<Summary, TransferError> {
        let mut alive = tokio::time::interval(alive_interval(self.timeout));
        let mut shown = tokio::time::interval(SHOWN_INTERVAL);
        while !self.is_complete() {
            tokio::select! {
                record = provider.next(), if self.end.is_open() => match record {
                    Ok(Some(record)) => self.on_records(record, provider)?,
                    ended => self.on_end(ended.map(drop))?,
                },
                stream = self.claim.next(), if !self.end.is_cut() => self.on_stream(stream).await?,
                written = self.records.write_on(), if !self.records.is_written() && !self.end.is_cut() => {
                    self.survive(written)?;
                }
                Some(chunk) = self.chunks.join_next() => {
                    let (index, result) = chunk.map_err(|_| TransferError::Abandoned)?;
                    self.on_chunk(index, result)?;
                    if let Some(repeated) = self.repeated.remove(&index) {
                        self.on_chunk_opens(repeated).await?;
                    }
                }
                planned = self.planner.next() => {
                    self.on_planned(planned?)?;
                }
                () = self.stop.cancelled() => return Err(TransferError::TakenOver),
                published = self.publisher.next(), if !self.publisher.is_idle() => {
                    self.on_published(published?);
                }
                _ = shown.tick() => self.show()?,
                _ = alive.tick() => {
                    self.records.push_sign(&ReceiverRecord::Alive)?;
                    if self.progress.is_stalled(self.turn()) {
                        return Err(TransferError::Silent { timeout: self.timeout });
                    }
                }
            }
            self.leave_out()?;
            self.request_more()?;
            self.take_up_early().await?;
            self.tell_done()?;
            let written = self.records.write_now();
            self.survive(written)?;
        }
        self.finish().await
    }

    /// Whom the transfer waits for.
    fn turn(&self) -> Turn {
        let is_limited = self.lane.rate_limiter().is_some_and(RateLimiter::is_waited_for);
        if is_limited || self.target.writes().are_under_way() {
            return Turn::Ours;
        }
        if !self.comparing.is_empty() || self.deltas.awaits_provider() {
            let compared = self.comparing.values().map(|entry| entry.size_bytes);
            let bytes = compared.fold(self.deltas.requested_bytes(), u64::saturating_add);
            return Turn::PeersWork { bytes };
        }
        let awaits_offers = self.offers.as_ref().is_some_and(Offers::may_expect_more);
        let awaits_entries =
            awaits_offers || !self.unended.is_empty() || !self.ended && self.ledger.may_expect_entries();
        let awaits_chunks = self.ledger.under_way() > 0 || !self.chunks.is_empty();
        if awaits_entries && !awaits_chunks && self.target.is_in_parts() {
            return Turn::PeersInput;
        }
        if awaits_entries || awaits_chunks {
            return Turn::Peers { files: self.ledger.most_files_wanted() as u64 };
        }
        Turn::Ours
    }

    /// All is published, and nothing waits to be ended.
    fn is_complete(&self) -> bool {
        self.end.is_done_sent() && self.publisher.is_idle() && self.unended.is_empty()
    }

    /// Everything is planned and has arrived.
    fn has_come(&self) -> bool {
        self.ended
            && self.ahead.is_none()
            && self.comparing.is_empty()
            && self.to_compare.is_empty()
            && self.ledger.is_settled()
            && self.chunks.is_empty()
    }

    async fn finish(&mut self) -> Result<Summary, TransferError> {
        let written = self.records.flush().await;
        self.survive(written)?;
        (self.events)(TransferEvent::Finishing);
        let target = self.target.share();
        self.leave_out()?;
        let mut finished = blocking::spawn(move || target.finish());
        let mut alive = tokio::time::interval(alive_interval(self.timeout));
        let summary = loop {
            tokio::select! {
                finished = &mut finished => break finished.map_err(|_| TransferError::Abandoned)??,
                _ = alive.tick() => {
                    self.leave_out()?;
                    self.records.push_sign(&ReceiverRecord::Alive)?;
                    // The provider may be done with us already.
                    let _ = self.records.write_now();
                }
            }
        };
        // What concerns directories shows at the end. Else likewise: it has read `done`.
        self.leave_out()?;
        let _ = self.records.flush().await;
        let _ = self.records.finish();
        Ok(summary)
    }

    fn on_record(&mut self, record: ProviderRecord) -> Result<(), TransferError> {
        self.progress.heard();
        match record {
            ProviderRecord::Entry(entry) => self.on_entry(entry)?,
            ProviderRecord::LeftOut { reason, path } => {
                self.progress.listed();
                self.left_out_there(reason, path.to_string());
            }
            ProviderRecord::End { entries, total_bytes } => {
                let ours = (self.ledger.entries(), self.totals.entry_bytes);
                let awaits_offers = self.offers.as_ref().is_some_and(Offers::may_expect_more);
                if self.ended || awaits_offers || (entries, total_bytes) != ours {
                    return Err(ProtocolFault::WrongTotals.into());
                }
                self.ended = true;
                self.progress.completed();
                (self.events)(TransferEvent::ScanComplete { entries, total_bytes });
                self.end_look_ahead()?;
            }
            ProviderRecord::Digest { entry: index, digest } => {
                let entry =
                    self.comparing.remove(&index).ok_or(ProtocolFault::UnwantedDigest { entry: index })?;
                self.progress.completed();
                self.planner.send(PlanJob::Compare { index, entry, theirs: digest });
            }
            ProviderRecord::Signatures(part) => {
                let index = part.entry;
                let SignaturePart { part, len_bytes, complete } = self.deltas.receive(part)?;
                self.progress.moved(len_bytes);
                if !part.is_empty() {
                    self.planner.send(PlanJob::Follow { index, blocks: part });
                }
                if let Some(complete) = complete {
                    self.progress.completed();
                    self.planner.send(PlanJob::Delta(complete));
                }
            }
            record @ (ProviderRecord::Failed { .. } | ProviderRecord::ChunkVoid { .. })
                if self.offers.is_some() =>
            {
                self.defer(record)?;
            }
            ProviderRecord::TopDirectory { mode, mtime, attributes } => {
                self.on_top(TopDirectory { mode, mtime, attributes })?;
            }
            ProviderRecord::Failed { entry, reason } => self.on_failed(entry, reason)?,
            ProviderRecord::Offer { spans } => self.on_offer(spans)?,
            ProviderRecord::OffersEnd => self.on_offers_end()?,
            ProviderRecord::ChunkVoid { index } if self.declined.remove(&index) => {
                self.unended.remove(&index);
            }
            ProviderRecord::ChunkVoid { index } => {
                self.ledger.chunk_void(index)?;
                self.reserved.remove(&index);
                self.transfer_hasher.skip(index).map_err(|_| ProtocolFault::UnwantedChunk { index })?;
            }
            ProviderRecord::Load(load) => self.load.heard(load),
            ProviderRecord::Sent { chunks, transfer_digest } => self.end.announced(chunks, transfer_digest),
            ProviderRecord::Alive { scanned_entries, bytes_per_second } => {
                self.pauses = self.pauses.saturating_add(1);
                // Who has sent the end looks no further.
                self.progress.alive(if self.ended { 0 } else { scanned_entries }, bytes_per_second);
            }
        }
        Ok(())
    }

    fn on_failed(&mut self, entry: u64, reason: LeftOutReason) -> Result<(), TransferError> {
        let is_known = self.ledger.entry_failed(entry)?;
        if self.target.is_in_parts() {
            return Err(ProtocolFault::UnknownEntry { entry }.into());
        }
        self.totals.failed += 1;
        if !is_known {
            return Ok(());
        }
        if let Some(compared) = self.comparing.remove(&entry) {
            self.paths.insert(entry, compared.path);
            self.ledger.planned(entry);
        } else {
            if let Some(waiting) = self.deltas.failed(entry) {
                self.paths.insert(entry, waiting.path);
                self.ledger.planned(entry);
                self.deltas.settled(entry);
            }
            self.publisher.discard(entry, reason);
        }
        let path = self.paths.remove(&entry).map(|path| path.to_string()).unwrap_or_default();
        self.left_out_there(reason, path);
        Ok(())
    }

    fn on_planned(&mut self, planned: Vec<Planned>) -> Result<(), TransferError> {
        match &mut self.ahead {
            Some(ahead) => {
                ahead.extend(planned);
                self.end_look_ahead()
            }
            None => self.apply(planned),
        }
    }

    /// Once enough is planned: what stands in the way has ended the transfer by now.
    fn end_look_ahead(&mut self) -> Result<(), TransferError> {
        let Some(ahead) = &self.ahead else { return Ok(()) };
        if !self.are_offers_known(ahead.len()) {
            return Ok(());
        }
        let all_planned = self.ended && ahead.len() as u64 == self.ledger.entries();
        // None comes before some of these are done.
        let is_held_back = self.is_held_back() && ahead.len() as u64 == self.ledger.entries();
        if !all_planned && !is_held_back && ahead.len() < LOOK_AHEAD_ENTRIES {
            return Ok(());
        }
        let ahead = self.ahead.take().unwrap_or_default();
        self.apply(ahead)
    }

    /// Checks the space for what is missing, and only then wants it.
    fn apply(&mut self, mut planned: Vec<Planned>) -> Result<(), TransferError> {
        let missing_bytes: u64 = planned.iter().map(|planned| planned.plan.missing_bytes()).sum();
        self.totals.missing_bytes += missing_bytes;
        self.target.reserve(self.totals.to_come_bytes())?;
        let offered = self.take_offers(&mut planned)?;
        for planned in planned {
            self.apply_one(planned, &offered)?;
        }
        let Totals { identical_bytes, resumed_bytes, .. } = self.totals;
        (self.events)(TransferEvent::Present { identical_bytes, resumed_bytes });
        Ok(())
    }

    /// `offered`: the entries of which something is on its way already.
    fn apply_one(&mut self, planned: Planned, offered: &HashSet<u64>) -> Result<(), TransferError> {
        let Planned { index, entry, plan } = planned;
        // They are there without having come.
        let hole_bytes = entry.holes.len_bytes();
        match plan {
            Plan::Compare { .. } => {
                self.to_compare.push((index, entry));
                return Ok(());
            }
            Plan::Delta { ranges, average_bytes } => {
                self.deltas.request(index, entry, SignatureRequest { ranges, average_bytes });
                return Ok(());
            }
            Plan::Done | Plan::Kept | Plan::Linked => self.totals.identical_bytes += entry.size_bytes,
            Plan::LeftOut => {}
            Plan::Want { missing, .. } if missing.is_empty() && !offered.contains(&index) => {
                self.ledger.want(index, entry.size_bytes, missing);
                self.totals.identical_bytes += hole_bytes;
                self.totals.resumed_bytes += entry.size_bytes - hole_bytes;
                self.publisher.publish(vec![index]);
            }
            Plan::Want { missing, resumed_bytes } => {
                self.totals.identical_bytes += hole_bytes;
                self.totals.resumed_bytes += resumed_bytes;
                self.paths.insert(index, entry.path.clone());
                self.ledger.want(index, entry.size_bytes, missing);
            }
        }
        self.ledger.planned(index);
        self.deltas.settled(index);
        Ok(())
    }

    async fn on_stream(&mut self, stream: Option<TransferStream>) -> Result<(), TransferError> {
        match stream {
            Some(TransferStream::Chunk(chunk)) => {
                self.on_chunk_opens(Opened { chunk, is_compressed: false }).await
            }
            Some(TransferStream::Compressed(chunk)) if self.may_compress => {
                self.on_chunk_opens(Opened { chunk, is_compressed: true }).await
            }
            Some(TransferStream::Compressed(chunk)) => {
                let index = chunk.index();
                chunk.refuse(Code::Protocol).await;
                Err(ProtocolFault::UnwantedCompression { index }.into())
            }
            Some(TransferStream::Records(_)) => Err(ProtocolFault::SecondRecords.into()),
            None => self.survive(Err(TransferError::Stream(StreamError::Reset(Code::Cancelled)))),
        }
    }

    async fn on_chunk_opens(&mut self, opened: Opened) -> Result<(), TransferError> {
        let Some(opened) = self.defer_chunk(opened) else { return Ok(()) };
        let index = opened.chunk.index();
        match self.ledger.chunk_opens(index) {
            Ok(Opens::Next(spans)) => {
                let target = self.target.share();
                let (lane, events) = (self.lane_of(index), (self.arrived.clone(), Arc::clone(&self.events)));
                let received = receive_chunk(opened, target, spans, lane, events);
                self.chunks.spawn(async move { (index, received.await) });
                Ok(())
            }
            // One at most: an honest provider repeats what it has been refused.
            Ok(Opens::Again) if !self.repeated.contains_key(&index) => {
                self.repeated.insert(index, opened);
                Ok(())
            }
            Ok(Opens::Again | Opens::Stale) => {
                self.unended.remove(&index);
                opened.chunk.refuse(Code::Protocol).await;
                Ok(())
            }
            Err(fault) => {
                opened.chunk.refuse(Code::Protocol).await;
                Err(fault.into())
            }
        }
    }

    /// How a chunk is received: one that has no memory of its own in short pieces.
    fn lane_of(&self, index: u64) -> LaneOptions {
        let reserved = self.reserved.get(&index);
        self.lane
            .clone()
            .piece(reserved.and_then(|(_, piece)| *piece))
            .buffer_len_bytes(reserved.and_then(|(memory, _)| memory.buffer_len_bytes()))
    }

    /// The piece of a file that a chunk of these spans is, if it is one: the provider knows the same.
    fn piece_of(&self, spans: &[Span]) -> Option<Piece> {
        let [span] = spans else { return None };
        Piece::of_file(span.offset_bytes, span.len_bytes, self.target.file_len_bytes(span.entry)?)
    }

    fn on_chunk(&mut self, index: u64, result: ChunkResult) -> Result<(), TransferError> {
        match result {
            Ok(StoredChunk { digest, content_bytes, wire_bytes, complete }) => {
                self.ledger.chunk_stored(index);
                self.reserved.remove(&index);
                self.quota.moved();
                self.progress.completed();
                self.transfer_hasher
                    .add(index, digest)
                    .map_err(|_| ProtocolFault::UnwantedChunk { index })?;
                self.totals.received_bytes += content_bytes;
                (self.events)(TransferEvent::Kept { len_bytes: content_bytes });
                self.totals.wire_bytes += wire_bytes;
                self.totals.only_chunk = (index == 0).then_some(digest);
                self.publisher.publish(complete);
                Ok(())
            }
            Err(ChunkError::Target(error)) => Err(error.into()),
            Err(ChunkError::Lost(error)) => Err(error.into()),
            Err(ChunkError::Encoding(source)) => Err(TransferError::Undecodable { index, source }),
            // The provider may try again, or say why it does not.
            Err(ChunkError::Attempt(last)) => match self.ledger.chunk_failed(index) {
                attempts if attempts >= MAX_CHUNK_ATTEMPTS => {
                    Err(TransferError::Corrupt { index, attempts, last: Box::new(last) })
                }
                _ => Ok(()),
            },
        }
    }

    fn on_published(&mut self, (settled, published): (Vec<u64>, u64)) {
        for entry in &settled {
            self.ledger.published(*entry);
            self.paths.remove(entry);
        }
        (self.events)(TransferEvent::Published { files: published });
    }

    /// A provider hangs up when it hears that this side's disk has failed, and that may be noticed here before
    /// the failure is. Then the disk is the cause.
    async fn own_cause(&mut self, error: TransferError) -> TransferError {
        if !matches!(error, TransferError::Stream(_)) {
            return error;
        }
        let own = async {
            if self.target.writes().have_failed().await {
                while let Some(chunk) = self.chunks.join_next().await {
                    if let Ok((_, Err(ChunkError::Target(own)))) = chunk {
                        return Some(own);
                    }
                }
            }
            None
        };
        match tokio::time::timeout(RELEASE_GRACE, own).await {
            Ok(Some(own)) => own.into(),
            Ok(None) | Err(_) => error,
        }
    }

    fn fail(self, code: Code) {
        self.records.reset(code);
    }
}

/// Entries planned before the first byte is asked for, so that what stands in the way is known by then; of
/// longer manifests it is the first part that is.
const LOOK_AHEAD_ENTRIES: usize = 4096;
