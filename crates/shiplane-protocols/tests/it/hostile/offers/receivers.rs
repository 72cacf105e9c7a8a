//! Receivers that invite offers and lie about them.

use shiplane_rpc::RpcClient;
use shiplane_transport::{
    StreamError,
    internals::{BiStream, Claim, InboundChunk, TransferStream},
};
use shiplane_wire::{
    Code, Digest, DigestAlgorithm, ProviderRecord, ReceiverRecord, RecordReader, TransferHasher, limits,
};

use super::super::{
    FetchOpen,
    receiver::{Begun, all_of_it, begun_with, say, want},
};
use crate::harness::World;

/// SPEC 3.4.
const STORED: u8 = 0;
const CHECKSUM_FAILED: u8 = 1;

/// A receiver that has read the manifest of one file of five bytes, which is offered as chunk 0.
struct Invited {
    _world: World,
    _rpc: RpcClient,
    claim: Claim,
    records: BiStream,
}

impl Invited {
    async fn begin() -> Self {
        let request = FetchOpen { invites: true, ..all_of_it([9; 16]) };
        let Begun { world, rpc, claim, mut records } = begun_with(request).await;
        let mut reader = RecordReader::<ProviderRecord>::new();
        let mut seen = Vec::new();
        // A sign of life may follow at once.
        while !seen.iter().any(|record| matches!(record, ProviderRecord::End { .. })) {
            reader.push(records.recv.read().await.unwrap().unwrap());
            while let Some(record) = reader.poll().unwrap() {
                seen.push(record);
            }
        }
        let kinds: Vec<_> = seen
            .iter()
            .filter_map(|record| match record {
                ProviderRecord::Entry(_) => Some("entry"),
                ProviderRecord::Offer { .. } => Some("offer"),
                ProviderRecord::OffersEnd => Some("offers end"),
                ProviderRecord::End { .. } => Some("end"),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, ["entry", "offer", "offers end", "end"]);
        Self { _world: world, _rpc: rpc, claim, records }
    }

    async fn chunk(&mut self, index: u64) -> InboundChunk {
        let Some(TransferStream::Chunk(chunk)) = self.claim.next().await else { panic!("no chunk") };
        assert_eq!((chunk.index(), chunk.len_bytes()), (index, 5));
        chunk
    }

    /// Says this, and gives the code that the server resets with; `None` if it agrees.
    async fn end_after(mut self, records: &[ReceiverRecord]) -> Option<Code> {
        say(&mut self.records, records).await;
        loop {
            match self.records.recv.read().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(StreamError::Reset(code)) => return Some(code),
                Err(other) => panic!("the server goes on: {other:?}"),
            }
        }
    }
}

/// The transfer digest over these chunks, the void ones among them.
fn done(chunks: &[Option<&[u8]>]) -> ReceiverRecord {
    let mut hasher = TransferHasher::new(DigestAlgorithm::Blake3);
    for (index, chunk) in (0..).zip(chunks) {
        match chunk {
            Some(chunk) => hasher.add(index, Digest::blake3(chunk)).unwrap(),
            None => hasher.skip(index).unwrap(),
        }
    }
    let count = chunks.len() as u64;
    ReceiverRecord::Done { chunks: count, transfer_digest: hasher.finish(count).unwrap(), failed: 0 }
}

#[tokio::test]
async fn an_offer_that_is_taken_is_part_of_what_is_confirmed() {
    let lies = [
        (done(&[Some(b"hello")]), None),
        (done(&[Some(b"HELLO")]), Some(Code::Integrity)),
        (done(&[None]), Some(Code::Integrity)),
        (done(&[]), Some(Code::Protocol)),
        (done(&[Some(b"hello"), None]), Some(Code::Protocol)),
    ];
    for (done, code) in lies {
        let mut invited = Invited::begin().await;
        invited.chunk(0).await.answer_with(STORED).await.unwrap();
        assert_eq!(invited.end_after(std::slice::from_ref(&done)).await, code, "{done:?}");
    }
}

#[tokio::test]
async fn an_offer_that_is_declined_counts_as_void_and_can_be_wanted() {
    for (done, code) in [(done(&[None]), None), (done(&[Some(b"hello")]), Some(Code::Integrity))] {
        let mut invited = Invited::begin().await;
        invited.chunk(0).await.refuse(Code::Protocol).await;
        assert_eq!(invited.end_after(&[done]).await, code);
    }
    let mut invited = Invited::begin().await;
    invited.chunk(0).await.refuse(Code::Protocol).await;
    say(&mut invited.records, &[want(1, 0, 0, 5)]).await;
    invited.chunk(1).await.answer_with(STORED).await.unwrap();
    assert_eq!(invited.end_after(&[done(&[None, Some(b"hello")])]).await, None);
}

#[tokio::test]
async fn the_end_may_be_told_before_an_offer_is_declined() {
    let mut invited = Invited::begin().await;
    say(&mut invited.records, &[done(&[None])]).await;
    invited.chunk(0).await.refuse(Code::Protocol).await;
    assert_eq!(invited.end_after(&[]).await, None);
}

#[tokio::test]
async fn wants_with_the_indices_of_offers_break_the_protocol() {
    for index in [0, 2, limits::MAX_OFFERS] {
        let invited = Invited::begin().await;
        assert_eq!(invited.end_after(&[want(index, 0, 0, 5)]).await, Some(Code::Protocol), "{index}");
    }
}

#[tokio::test]
async fn an_offered_chunk_that_is_found_wrong_for_ever_is_sent_three_times() {
    let mut invited = Invited::begin().await;
    for _ in 0..3 {
        invited.chunk(0).await.answer_with(CHECKSUM_FAILED).await.unwrap();
    }
    // As any other chunk: who finds it wrong has not declined it.
    assert_eq!(invited.end_after(&[done(&[None])]).await, Some(Code::Cancelled));
}

#[tokio::test]
async fn a_receiver_that_neither_takes_nor_declines_an_offer_is_given_up() {
    let invited = Invited::begin().await;
    let ended = tokio::time::timeout(4 * crate::harness::PROGRESS_TIMEOUT, invited.end_after(&[])).await;
    assert_eq!(ended.unwrap(), Some(Code::Timeout));
}
