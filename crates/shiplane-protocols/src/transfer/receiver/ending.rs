//! Ends a transfer at its receiver (SPEC 4.11).

use std::time::Duration;

use shiplane_files::internals::Summary;
use shiplane_transport::StreamError;
use shiplane_wire::{Code, ProviderRecord, ReceiverRecord};

use super::{
    super::{
        error::{ProtocolFault, TransferError},
        records::RecordStream,
    },
    Received, Receiver, Totals,
};

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
