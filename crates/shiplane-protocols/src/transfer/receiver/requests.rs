//! Requests chunks, as far as memory permits.

use shiplane_wire::ReceiverRecord;
use tokio::time::Instant;

use super::{
    super::{error::TransferError, provider::MAX_DIGESTS_UNDER_WAY},
    Receiver,
};

impl Receiver {
    /// Asks for what there is room for.
    pub(super) fn request_more(&mut self) -> Result<(), TransferError> {
        self.admit()?;
        let (moved_bytes, to_come_bytes) = (self.progress.moved_bytes(), self.totals.to_come_bytes());
        let (claim, now) = (&self.claim, Instant::now());
        let chunk_len = self.pace.chunk_len_bytes(moved_bytes, to_come_bytes, || claim.rtt(), now);
        self.ledger.set_chunk_len(chunk_len);
        while self.comparing.len() < MAX_DIGESTS_UNDER_WAY / 2
            && let Some((index, entry)) = self.to_compare.pop()
        {
            self.records.push(&ReceiverRecord::WantDigest { entry: index })?;
            self.comparing.insert(index, entry);
        }
        while let Some(want) = self.deltas.next_want() {
            self.records.push(&want)?;
        }
        let is_last = self.ended || (self.is_held_back() && self.ledger.under_way() == 0);
        let is_last = is_last || self.target.is_in_parts();
        if is_last && self.ahead.is_none() && self.ledger.all_planned() {
            self.ledger.flush();
        }
        while let Some(cost_bytes) = self.ledger.next_cost_bytes()
            && let Some(reserved) = self.quota.reserve(cost_bytes, self.ledger.under_way())
            && let Some((index, spans)) = self.ledger.next_want()
        {
            self.reserved.insert(index, (reserved, self.piece_of(&spans)));
            self.records.push(&ReceiverRecord::WantChunk { index, spans })?;
        }
        if let Some(below) = self.ledger.release() {
            self.records.push(&ReceiverRecord::Release { below })?;
        }
        Ok(())
    }

    /// Whether no entry may come before some of those that are here are done: there is no memory for more, here or,
    /// as far as can be told, at the provider.
    pub(super) fn is_held_back(&self) -> bool {
        self.pauses >= 2 || !self.ledger.may_expect_entries()
    }

    /// Lets the provider send as many entries as there is memory for.
    fn admit(&mut self) -> Result<(), TransferError> {
        self.quota.give_back_of_entries(self.ledger.free());
        let mut admitted_bytes = None;
        while !self.ended && self.quota.take_for_entries(ADMIT_STEP_BYTES) {
            admitted_bytes = Some(self.ledger.admit(ADMIT_STEP_BYTES));
        }
        if let Some(bytes) = admitted_bytes {
            self.records.push(&ReceiverRecord::Admit { bytes })?;
        }
        self.end_look_ahead()
    }
}

/// 64 KiB: some hundred entries for a record.
const ADMIT_STEP_BYTES: u64 = 64 << 10;
