//! Detects when everything has been sent, so that the receiver need not wait for an answer to *done* (SPEC 4.11).

use std::{collections::BTreeMap, sync::Arc};

use shiplane_transport::{ConnectionEnd, StreamError, internals::DigestFn};
use shiplane_wire::{Code, Digest, ProviderRecord};
use tokio::sync::mpsc;

use super::{super::error::TransferError, Provider};

/// Tells the digest of each chunk once all of it is on its way. A handle: clones share it.
#[derive(Clone, Debug)]
pub(super) struct Written(mpsc::UnboundedSender<(u64, Digest)>);

impl Written {
    /// For the chunk with this index. `content`: the digest of its content, if its frame carries another one.
    pub(super) fn of(&self, index: u64, content: Option<Digest>) -> DigestFn {
        let told = self.0.clone();
        // The provider is gone only with its chunks.
        Arc::new(move |digest| {
            let _ = told.send((index, content.unwrap_or(digest)));
        })
    }
}

/// The chunks that are on their way, and what was said of them.
#[derive(Debug)]
pub(super) struct Unanswered {
    told: mpsc::UnboundedReceiver<(u64, Digest)>,
    digests: BTreeMap<u64, Digest>,
    said: Option<Digest>,
}

impl Unanswered {
    /// None yet. Each chunk is reported once for each attempt.
    pub(super) fn new() -> (Written, Self) {
        let (written, told) = mpsc::unbounded_channel();
        (Written(written), Self { told, digests: BTreeMap::new(), said: None })
    }

    /// Notes the next chunk of which all is on its way. Cancel-safe.
    pub(super) async fn next(&mut self) {
        match self.told.recv().await {
            Some((index, digest)) => {
                self.digests.insert(index, digest);
                self.said = None;
            }
            None => std::future::pending().await,
        }
    }

    /// This one is answered, or will not be sent.
    pub(super) fn end(&mut self, index: u64) {
        self.digests.remove(&index);
    }

    /// Another chunk is to be sent.
    pub(super) fn more(&mut self) {
        self.said = None;
    }
}

impl Provider {
    /// Says that all is on its way, if it is and was not said.
    pub(super) fn say_sent(&mut self) -> Result<(), TransferError> {
        let is_listed = self.scan.is_none() && self.listed.is_empty() && self.offering.is_none();
        let is_sent = self.queued.is_empty() && self.unanswered.digests.len() == self.lanes.len();
        if self.unanswered.said.is_some() || !is_listed || !is_sent || self.done.is_some() {
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
        self.unanswered.said = Some(transfer_digest);
        self.records.push(&ProviderRecord::Sent { chunks, transfer_digest })
    }

    /// The transfer's digest, if the receiver has closed the connection in order after it was told that all is on its way:
    /// it has it all, and its *done* was lost.
    pub(super) fn taken_for_done(&self, error: &TransferError) -> Option<Digest> {
        let closed = ConnectionEnd::ClosedByPeer { code: Code::NoError };
        match error {
            TransferError::Stream(StreamError::ConnectionLost(end)) if *end == closed => self.unanswered.said,
            _ => None,
        }
    }
}
