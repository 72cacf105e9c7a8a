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
    is_said: bool,
}

impl Unanswered {
    /// None yet. Each chunk is reported once for each attempt.
    pub(super) fn new() -> (Written, Self) {
        let (written, told) = mpsc::unbounded_channel();
        (Written(written), Self { told, digests: BTreeMap::new(), is_said: false })
    }

    /// Notes the next chunk of which all is on its way. Cancel-safe.
    pub(super) async fn next(&mut self) {
        match self.told.recv().await {
            Some((index, digest)) => {
                self.digests.insert(index, digest);
                self.is_said = false;
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
        self.is_said = false;
    }
}

impl Provider {
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
