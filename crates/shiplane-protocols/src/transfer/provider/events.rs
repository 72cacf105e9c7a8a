//! The events of a provider.

use std::{num::NonZeroU64, sync::atomic::Ordering};

use shiplane_files::internals::SourceError;
use shiplane_transport::{ConnectionEnd, StreamError};
use shiplane_wire::{Code, LeftOutReason, ProviderRecord};

use super::{
    super::{error::TransferError, event::TransferEvent, limit::Awaited},
    Provider,
};

impl Provider {
    /// Tells what has arrived and what is waited for, as far as that is news.
    pub(super) fn show(&mut self) -> Result<(), TransferError> {
        self.report_moved();
        let is_listing = self.scan.is_some() && self.listed.is_empty();
        let awaited = match self.source.input() {
            _ if !self.lanes.is_empty() => Awaited::Chunks,
            _ if !self.digests.is_empty() || !self.signature_jobs.is_idle() => Awaited::OwnDisk,
            Some(input) if is_listing && !input.is_full() => Awaited::Input,
            None if is_listing => Awaited::OwnDisk,
            Some(_) | None => Awaited::PeersDisk,
        };
        if self.reported_wait.replace(awaited) != Some(awaited) {
            (self.events)(TransferEvent::Awaits(awaited));
        }
        let Some((load, limit)) = self.load.second(Some(awaited)) else { return Ok(()) };
        if let Some(limit) = limit {
            (self.events)(TransferEvent::LimitedBy(limit));
        }
        // One that waits to be written is soon followed by a better one.
        if awaited != Awaited::Chunks || !self.records.is_written() {
            return Ok(());
        }
        self.records.push_sign(&ProviderRecord::Load(load))
    }

    pub(super) fn say_alive(&mut self) -> Result<(), TransferError> {
        // One that waits to be written says as much.
        if !self.records.is_written() {
            return Ok(());
        }
        let scanned_entries = self.scanned_entries.load(Ordering::Relaxed);
        let bytes_per_second = self.bytes_per_second.map_or(0, NonZeroU64::get);
        self.records.push_sign(&ProviderRecord::Alive { scanned_entries, bytes_per_second })
    }

    pub(super) fn report_moved(&mut self) {
        let records = self.records.content_bytes();
        let moved_bytes = self.outlet.arrived_content(&mut self.arrival, records).max(self.sent_bytes);
        let len_bytes = moved_bytes.saturating_sub(self.reported_bytes);
        if len_bytes > 0 {
            self.reported_bytes = moved_bytes;
            // Which says as much.
            self.reported_wait = Some(Awaited::Chunks);
            (self.events)(TransferEvent::Moved { len_bytes });
        }
    }

    /// The order matters: an entry's failure is reported before the chunks that it makes void.
    pub(super) fn tell_failed(&mut self, entry: u64, error: SourceError) -> Result<(), TransferError> {
        if !self.failed.insert(entry) {
            return Ok(());
        }
        let reason = error.left_out_reason();
        tracing::debug!(%error, "a file could not be sent");
        let path = self.entries.path(entry).cloned();
        let shown = path.as_ref().map(ToString::to_string).unwrap_or_default();
        self.tell_left_out(reason, shown, Some(error.to_string()));
        if self.unsent.len() < MAX_NAMED_FAILURES {
            self.unsent.extend(path.map(|path| (path, error.into())));
        }
        self.records.push(&ProviderRecord::Failed { entry, reason })
    }

    /// This side leaves out `path`, which is escaped.
    pub(super) fn tell_left_out(&mut self, reason: LeftOutReason, path: String, why: Option<String>) {
        self.left_out += 1;
        (self.events)(TransferEvent::LeftOut { reason, path, why, at_source: true });
    }

    pub(super) fn report_present(&mut self) {
        if let Some(resumed_bytes) = self.presence.news() {
            (self.events)(TransferEvent::Present { identical_bytes: 0, resumed_bytes });
        }
    }

    /// Says that all is on its way, if it is and was not said.
    pub(super) fn say_sent(&mut self) -> Result<(), TransferError> {
        let is_listed = self.scan.is_none() && self.listed.is_empty() && self.offering.is_none();
        let is_sent = self.queued.is_empty() && self.unanswered.digests.len() == self.lanes.len();
        if self.unanswered.is_said || !is_listed || !is_sent || self.done.is_some() {
            return Ok(());
        }
        // What failed is counted by both sides when they are done.
        let may_be_all = self.next_chunk == 0 || self.presence.is_passed();
        if !may_be_all || !self.failed.is_empty() {
            return Ok(());
        }
        let mut hasher = self.transfer_hasher.clone();
        for (index, digest) in &self.unanswered.digests {
            if hasher.add(*index, *digest).is_err() {
                return Ok(());
            }
        }
        let chunks = self.next_chunk;
        let Ok(transfer_digest) = hasher.finish(chunks) else { return Ok(()) };
        self.unanswered.is_said = true;
        self.records.push(&ProviderRecord::Sent { chunks, transfer_digest })
    }

    /// Whether the receiver has closed the connection in order after it was told that everything is on its way: then it
    /// has everything, and its *done* was lost.
    pub(super) fn is_taken_for_done(&self, error: &TransferError) -> bool {
        let closed = ConnectionEnd::ClosedByPeer { code: Code::NoError };
        self.unanswered.is_said
            && matches!(error, TransferError::Stream(StreamError::ConnectionLost(end)) if *end == closed)
    }
}

/// Failed files whose errors are kept.
const MAX_NAMED_FAILURES: usize = 100;
