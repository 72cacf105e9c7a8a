//! Requests chunks, as far as memory permits, and decides about offered ones (SPEC 4.24).

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use shiplane_files::internals::Plan;
use shiplane_wire::{ProviderRecord, ReceiverRecord, Span, limits};
use tokio::time::Instant;

use super::{
    super::{
        budget::{Reservation, chunk_cost_bytes},
        error::{ProtocolFault, TransferError},
        provider::MAX_DIGESTS_UNDER_WAY,
    },
    Receiver,
    chunks::Opened,
    offers::{Early, take_all},
    workers::Planned,
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

    pub(super) fn on_offer(&mut self, spans: Vec<Span>) -> Result<(), TransferError> {
        let entries = self.ledger.entries();
        let offered = self.offers.as_ref().map_or(0, |offers| offers.chunks.len() as u64);
        let index = self.ledger.chunks() + offered;
        let unwanted = ProtocolFault::UnwantedChunk { index };
        let Some(offers) = self.offers.as_mut().filter(|offers| !offers.is_ended) else {
            return Err(unwanted.into());
        };
        if let Some(span) = spans.iter().find(|span| span.entry >= entries) {
            return Err(ProtocolFault::UnknownEntry { entry: span.entry }.into());
        }
        // Each span is less than the largest chunk there is.
        offers.len_bytes += spans.iter().map(|span| span.len_bytes).sum::<u64>();
        let is_next = offers.go_on(&spans);
        if !is_next || index >= limits::MAX_OFFERS || offers.len_bytes > limits::MAX_OFFERED_BYTES {
            return Err(unwanted.into());
        }
        offers.chunks.push(spans);
        Ok(())
    }

    pub(super) fn on_offers_end(&mut self) -> Result<(), TransferError> {
        match &mut self.offers {
            Some(offers) if !offers.is_ended => offers.is_ended = true,
            Some(_) | None => return Err(ProtocolFault::WrongEnd.into()),
        }
        self.end_look_ahead()
    }

    /// Whether enough entries are planned to decide which offers are taken.
    pub(super) fn are_offers_known(&self, planned: usize) -> bool {
        self.offers.as_ref().is_none_or(|offers| offers.is_ended && planned as u64 >= offers.entries())
    }

    /// Keeps what is about offers until they are decided on.
    pub(super) fn defer(&mut self, record: ProviderRecord) -> Result<(), TransferError> {
        if self.early.records.len() as u64 >= 2 * limits::MAX_OFFERS {
            return Err(ProtocolFault::WrongEnd.into());
        }
        self.early.records.push(record);
        Ok(())
    }

    /// The same for the stream of a chunk; gives it back if it is of no offer.
    pub(super) fn defer_chunk(&mut self, opened: Opened) -> Option<Opened> {
        let is_offer = self.offers.is_some() && opened.chunk.index() < limits::MAX_OFFERS;
        if is_offer && (self.early.opened.len() as u64) < limits::MAX_OFFERS {
            self.early.opened.push(opened);
            return None;
        }
        Some(opened)
    }

    /// Takes the offers of which everything is missing, out of what these plans want; declines the others. Gives the
    /// entries of the accepted ones.
    pub(super) fn take_offers(&mut self, planned: &mut [Planned]) -> Result<HashSet<u64>, TransferError> {
        let mut taken = HashSet::new();
        let Some(offers) = self.offers.take() else { return Ok(taken) };
        let mut wanted: HashMap<u64, &mut Vec<Range<u64>>> = HashMap::new();
        for Planned { index, plan, .. } in planned {
            if let Plan::Want { missing, .. } = plan {
                wanted.insert(*index, missing);
            }
        }
        for spans in offers.chunks {
            if !take_all(&spans, &mut wanted) {
                let index = self.ledger.offered(None);
                self.declined.insert(index);
                self.unended.insert(index);
                self.transfer_hasher.skip(index).map_err(|_| ProtocolFault::UnwantedChunk { index })?;
                continue;
            }
            taken.extend(spans.iter().map(|span| span.entry));
            let piece = self.piece_of(&spans);
            let memory = self.quota.reserve(chunk_cost_bytes(&spans), 0).unwrap_or(Reservation::UNCOUNTED);
            let index = self.ledger.offered(Some(spans));
            self.reserved.insert(index, (memory, piece));
        }
        Ok(taken)
    }

    /// Continues with streams that came early, once the offers are decided on.
    pub(super) async fn take_up_early(&mut self) -> Result<(), TransferError> {
        if self.offers.is_some() {
            return Ok(());
        }
        let Early { records, opened } = std::mem::take(&mut self.early);
        for opened in opened {
            self.on_chunk_opens(opened).await?;
        }
        records.into_iter().try_for_each(|record| self.on_record(record))
    }
}

/// 64 KiB: some hundred entries for a record.
const ADMIT_STEP_BYTES: u64 = 64 << 10;
