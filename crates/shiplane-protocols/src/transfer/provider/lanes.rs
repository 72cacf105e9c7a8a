//! Decides which chunks to offer (SPEC 4.24), which to start, and when.

use std::sync::Arc;

use shiplane_wire::ProviderRecord;

use super::{
    super::{budget::chunk_cost_bytes, error::TransferError},
    Provider, Sent,
};

impl Provider {
    /// Offers what there is to offer, each chunk behind its entries.
    pub(super) fn offer(&mut self) -> Result<(), TransferError> {
        let Some(offering) = &mut self.offering else { return Ok(()) };
        while let Some(spans) = offering.next() {
            self.records.push(&ProviderRecord::Offer { spans: spans.clone() })?;
            spans.iter().for_each(|span| self.presence.want(span));
            self.queued.push_back((self.next_chunk, spans));
            self.next_chunk += 1;
        }
        if offering.is_full() { self.close_offers() } else { Ok(()) }
    }

    pub(super) fn end_offers(&mut self) -> Result<(), TransferError> {
        if let Some(offering) = &mut self.offering {
            offering.flush();
            self.offer()?;
        }
        self.close_offers()
    }

    fn close_offers(&mut self) -> Result<(), TransferError> {
        if self.offering.take().is_some() {
            self.offers = self.next_chunk;
            self.records.push(&ProviderRecord::OffersEnd)?;
        }
        Ok(())
    }

    /// Begins chunks that are wanted, in order, as long as the path and memory have room for them.
    pub(super) fn fill_lanes(&mut self) {
        while self.lanes.len() < self.max_lanes
            && let Some((_, spans)) = self.queued.front()
            && self.has_room_on_path()
            && let Some(memory) = self.quota.reserve(chunk_cost_bytes(spans), self.lanes.len())
            && let Some((index, spans)) = self.queued.pop_front()
        {
            let first = spans.first().map(|span| span.entry);
            let only_entry = first.filter(|entry| spans.iter().all(|span| span.entry == *entry));
            let may_shrink = self.shrinking.is_worth_trying(only_entry);
            let len_bytes = spans.iter().map(|span| span.len_bytes).sum();
            let spans = spans.iter().filter_map(|span| self.entries.resolve(span)).collect();
            let outlet = Arc::clone(&self.outlet);
            let begun = outlet.begin(len_bytes, memory);
            self.lanes.spawn(async move {
                let outcome = outlet.send(index, spans, may_shrink, begun).await;
                (index, Sent { only_entry, outcome })
            });
        }
    }

    /// Whether what there is to send of the chunks under way could run out. More would only wait in memory, and share what
    /// a limit lets through. Chunks of which all is sent count nothing: where packets are lost, many of them wait for
    /// their last ones.
    fn has_room_on_path(&self) -> bool {
        let path_bytes = self.outlet.path_bytes();
        let wanted_bytes = path_bytes + (PATH_MARGINS * path_bytes).min(MAX_PATH_MARGIN_BYTES);
        let unsent_bytes = self.outlet.unsent_bytes();
        if self.outlet.queued_content() < FIRST_IN_ORDER_BYTES {
            // While there is room for all, the chunk that was read first would be written first.
            return unsent_bytes == 0;
        }
        match self.bytes_per_second {
            Some(limit) => unsent_bytes < wanted_bytes.min(limit.get() / LIMITED_SHARE_OF_SECOND).max(1),
            None => self.lanes.len() < MIN_LANES || unsent_bytes < wanted_bytes,
        }
    }
}

/// 2: while one chunk waits for its answer, the next one is on its way.
const MIN_LANES: usize = 2;

/// What is read while the window opens: as much as eight windows of now, at most 512 KiB.
const PATH_MARGINS: u64 = 8;
const MAX_PATH_MARGIN_BYTES: u64 = 512 << 10;

/// 256 KiB, what a connection keeps until it has arrived: from then on chunks wait for room, in order of index.
const FIRST_IN_ORDER_BYTES: u64 = 256 << 10;

/// A quarter of a second of a limited rate is on hand: lanes share the limit, and chunks that share it all end together.
const LIMITED_SHARE_OF_SECOND: u64 = 4;
