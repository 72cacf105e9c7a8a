//! Detects when everything has been sent, so that the receiver need not wait for an answer to *done* (SPEC 4.11).

use std::{collections::BTreeMap, sync::Arc};

use shiplane_transport::internals::DigestFn;
use shiplane_wire::Digest;
use tokio::sync::mpsc;

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
    pub(super) digests: BTreeMap<u64, Digest>,
    pub(super) is_said: bool,
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
