//! Entries of the manifest, as they come.

use shiplane_files::internals::TopDirectory;
use shiplane_wire::Entry;

use super::{
    super::{
        error::{ProtocolFault, TransferError},
        event::TransferEvent,
    },
    Receiver,
    workers::PlanJob,
};

impl Receiver {
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
