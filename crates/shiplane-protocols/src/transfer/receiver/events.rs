//! The events of a receiver.

use std::error::Error as _;

use shiplane_files::internals::LeftOut;
use shiplane_wire::{EscapedPath, LeftOutReason, ReceiverRecord};

use super::{
    super::{error::TransferError, event::TransferEvent, limit::Awaited},
    Receiver,
};

impl Receiver {
    /// Tells what has arrived and what is waited for, as far as that is news.
    pub(super) fn show(&mut self) -> Result<(), TransferError> {
        self.arrived.tell(&self.events);
        let awaited = self.awaited();
        if awaited.is_some() && awaited != self.reported_wait {
            self.reported_wait = awaited;
            awaited.into_iter().for_each(|awaited| (self.events)(TransferEvent::Awaits(awaited)));
        }
        let waits = awaited.or_else(|| (!self.is_complete()).then_some(Awaited::OwnDisk));
        let Some((load, limit)) = self.load.second(waits) else { return Ok(()) };
        if let Some(limit) = limit {
            (self.events)(TransferEvent::LimitedBy(limit));
        }
        // One that waits to be written is soon followed by a better one.
        if awaited != Some(Awaited::Chunks) || !self.records.is_written() {
            return Ok(());
        }
        self.records.push_sign(&ReceiverRecord::Load(load))
    }

    /// `None` once everything has arrived.
    fn awaited(&self) -> Option<Awaited> {
        if self.ledger.under_way() > 0 || !self.chunks.is_empty() {
            return Some(Awaited::Chunks);
        }
        if !self.comparing.is_empty() || self.deltas.awaits_provider() {
            return Some(Awaited::PeersDisk);
        }
        if !self.ledger.all_planned() {
            return Some(Awaited::OwnDisk);
        }
        (!self.ended).then_some(if self.target.is_in_parts() { Awaited::Input } else { Awaited::List })
    }

    /// Takes notice of what cannot be written here, and tells the provider.
    pub(super) fn leave_out(&mut self) -> Result<(), TransferError> {
        let (left_out, unnamed) = self.target.take_left_out()?;
        self.totals.left_out_here += unnamed;
        if unnamed > 0 {
            self.target.is_left_out(LeftOutReason::Failed, None);
        }
        for left_out in left_out {
            let path = left_out.shown();
            let LeftOut { entry, reason, error, .. } = left_out;
            if let Some(entry) = entry {
                self.ledger.entry_left_out(entry);
                self.paths.remove(&entry);
                self.publisher.discard_left_out(entry);
            }
            self.totals.left_out_here += 1;
            self.target.is_left_out(reason, None);
            let (shown, why) = (path.as_str().to_owned(), Some(error.to_string()));
            (self.events)(TransferEvent::LeftOut { reason, path: shown, why, at_source: false });
            // The end record has the number of all, for a provider that does not read these.
            if self.records.backlog_bytes() < MAX_BACKLOG_BYTES {
                // As in a sync, what the system says, and nothing of how this side calls things.
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                let cause = EscapedPath::new(cause.as_bytes());
                self.records.push(&ReceiverRecord::LeftOut { reason, path, cause })?;
            }
        }
        Ok(())
    }

    /// The provider leaves out `path`, which is escaped.
    pub(super) fn left_out_there(&mut self, reason: LeftOutReason, path: String) {
        self.totals.left_out_there += 1;
        self.target.is_left_out(reason, Some(&path));
        (self.events)(TransferEvent::LeftOut { reason, path, why: None, at_source: true });
    }
}

/// 256 KiB: of usual paths some thousands.
const MAX_BACKLOG_BYTES: usize = 256 << 10;
