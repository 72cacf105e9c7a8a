//! Entries of the manifest, as they come.

use shiplane_files::internals::TopDirectory;
use shiplane_wire::{Entry, ProviderRecord};

use super::{
    super::{
        error::{ProtocolFault, TransferError},
        event::TransferEvent,
        records::RecordStream,
    },
    Receiver,
    workers::PlanJob,
};

impl Receiver {
    /// Handles a record. Entries come in great numbers: those that have arrived together are handled together.
    pub(super) fn on_records(
        &mut self,
        mut record: ProviderRecord,
        provider: &mut RecordStream<ProviderRecord>,
    ) -> Result<(), TransferError> {
        for _ in 1..ENTRY_BATCH_LEN {
            let is_entry = matches!(record, ProviderRecord::Entry(_));
            self.on_record(record)?;
            if !is_entry {
                return Ok(());
            }
            let Some(next) = provider.next_buffered()? else { return Ok(()) };
            record = next;
        }
        self.on_record(record)
    }

    pub(super) fn on_entry(&mut self, entry: Entry) -> Result<(), TransferError> {
        if self.ended {
            return Err(ProtocolFault::WrongEnd.into());
        }
        self.totals.entry_bytes =
            self.totals.entry_bytes.checked_add(entry.size_bytes).ok_or(ProtocolFault::WrongTotals)?;
        let index = self.ledger.entry_came(entry.cost_bytes())?;
        self.pauses = 0;
        self.progress.listed();
        let (entries, total_bytes) = (index + 1, self.totals.entry_bytes);
        if entries % SCAN_EVENT_STEP == 0 {
            (self.events)(TransferEvent::Scanned { entries, total_bytes });
        }
        self.planner.send(PlanJob::Plan { index, entry });
        Ok(())
    }

    pub(super) fn on_top(&mut self, top: TopDirectory) -> Result<(), TransferError> {
        if self.ended || self.ledger.entries() > 0 {
            return Err(ProtocolFault::LateTopDirectory.into());
        }
        Ok(self.target.plan_top(top)?)
    }
}

/// Entries between two events of a growing list.
const SCAN_EVENT_STEP: u64 = 256;

/// 64 entries: some microseconds.
const ENTRY_BATCH_LEN: usize = 64;
