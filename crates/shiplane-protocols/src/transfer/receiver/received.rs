//! The result of a transfer at its receiver.

use std::time::Duration;

use shiplane_files::internals::Summary;
use shiplane_transport::StreamError;
use shiplane_wire::{Code, Digest, ProviderRecord, ReceiverRecord};

use super::{
    super::{
        error::{ProtocolFault, TransferError},
        records::RecordStream,
    },
    Receiver,
};

/// What a receiver has got.
#[derive(Debug)]
pub(crate) struct Received {
    /// Chunks asked for, void ones included.
    pub(crate) chunks: u64,
    /// The manifest's files and directories.
    pub(crate) entries: u64,
    pub(crate) totals: Totals,
    /// The results of the files.
    pub(crate) summary: Summary,
    /// Whether the provider has confirmed that it has sent exactly this.
    pub(crate) confirmed: Result<(), TransferError>,
}

/// What has been counted so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// The sum of the entries' sizes.
    pub(crate) entry_bytes: u64,
    pub(super) missing_bytes: u64,
    pub(super) identical_bytes: u64,
    pub(super) resumed_bytes: u64,
    /// Payload bytes of the chunks that were stored.
    pub(crate) received_bytes: u64,
    /// The same as they were sent.
    pub(crate) wire_bytes: u64,
    /// Entries that could not be sent.
    pub(crate) failed: u64,
    /// Paths that this side leaves out, and those that the provider leaves out, with the failed ones.
    pub(crate) left_out_here: u64,
    pub(crate) left_out_there: u64,
    /// Digest of the one chunk, when there was exactly one.
    pub(crate) only_chunk: Option<Digest>,
}

impl Totals {
    /// What is wanted, as far as that is known, and is not here yet.
    pub(super) fn to_come_bytes(&self) -> u64 {
        self.missing_bytes.saturating_sub(self.received_bytes)
    }
}

/// The steps at the end of a transfer (SPEC 4.11).
#[derive(Debug, Default)]
pub(super) struct End {
    /// The digest over all chunks, once the provider was told that they are here.
    pub(super) sent_digest: Option<Digest>,
    /// The chunks and the digest that the provider has announced (*sent*).
    announced: Option<(u64, Digest)>,
    /// The provider's answer.
    confirmed: Option<Result<(), TransferError>>,
    /// The connection has failed since.
    is_cut: bool,
}

impl End {
    pub(super) fn is_done_sent(&self) -> bool {
        self.sent_digest.is_some()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The provider has said what it has sent.
    pub(super) fn announced(&mut self, chunks: u64, transfer_digest: Digest) {
        self.announced = Some((chunks, transfer_digest));
    }

    /// Whether the provider may say more.
    pub(super) fn is_open(&self) -> bool {
        self.confirmed.is_none()
    }
}

impl Receiver {
    /// Once everything has arrived: the provider compares it with what it has sent while the last files are published.
    pub(super) fn tell_done(&mut self) -> Result<(), TransferError> {
        if self.end.is_done_sent() || !self.has_come() {
            return Ok(());
        }
        let chunks = self.ledger.chunks();
        let digest = self.transfer_hasher.clone().finish(chunks);
        let transfer_digest = digest.map_err(|_| TransferError::Abandoned)?;
        self.end.sent_digest = Some(transfer_digest);
        self.records.push(&ReceiverRecord::Done { chunks, transfer_digest, failed: self.totals.failed })
    }

    /// What fails on the connection after *done* leaves the provider's answer open, and nothing else: what is here is
    /// published all the same.
    pub(super) fn survive(&mut self, result: Result<(), TransferError>) -> Result<(), TransferError> {
        match result {
            Err(error) if self.end.is_done_sent() => {
                self.end.is_cut = true;
                self.end.confirmed.get_or_insert(Err(error));
                self.unended.clear();
                Ok(())
            }
            result => result,
        }
    }

    /// The provider's half has ended. After *done* that is its answer, and no failure of what is under way here.
    pub(super) fn on_end(&mut self, ended: Result<(), TransferError>) -> Result<(), TransferError> {
        if self.end.is_done_sent() {
            self.end.confirmed = Some(answer(ended));
            return Ok(());
        }
        ended?;
        Err(ProtocolFault::WrongEnd.into())
    }

    /// Ends it: waits for the provider's answer, unless it has said beforehand what it has sent.
    pub(super) async fn received(
        self,
        summary: Summary,
        mut provider: RecordStream<ProviderRecord>,
    ) -> Received {
        let chunks = self.ledger.chunks();
        let done = self.end.sent_digest.map(|digest| (chunks, digest));
        let is_agreed = done.is_some() && self.end.announced == done && self.totals.failed == 0;
        let confirmed = match self.end.confirmed {
            Some(confirmed) => confirmed,
            None if is_agreed => {
                // Read to its end nevertheless: dropping the stream earlier is an error at the provider.
                let timeout = self.timeout;
                tokio::spawn(async move { confirmation(&mut provider, timeout).await });
                Ok(())
            }
            None => confirmation(&mut provider, self.timeout).await,
        };
        let only_chunk = self.totals.only_chunk.filter(|_| chunks == 1);
        let (entries, totals) = (self.ledger.entries(), Totals { only_chunk, ..self.totals });
        Received { chunks, entries, totals, summary, confirmed }
    }
}

async fn confirmation(
    provider: &mut RecordStream<ProviderRecord>,
    timeout: Duration,
) -> Result<(), TransferError> {
    let ended = async {
        while provider.next().await?.is_some() {}
        Ok(())
    };
    let ended = tokio::time::timeout(timeout, ended).await;
    answer(ended.unwrap_or(Err(TransferError::Silent { timeout })))
}

/// A provider that has sent something else says so.
fn answer(ended: Result<(), TransferError>) -> Result<(), TransferError> {
    match ended {
        Err(TransferError::Stream(StreamError::Reset(Code::Integrity))) => {
            Err(TransferError::TransferDigestMismatch)
        }
        ended => ended,
    }
}
