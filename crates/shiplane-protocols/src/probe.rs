//! Measures how fast bytes get from one peer to the other (SPEC 5.26).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use shiplane_rpc::{CallError, Fault, FaultCode, Method, RpcClient};
use shiplane_transport::{
    ChunkExpectation, ChunkSource, LaneOptions, PeerConnection,
    internals::{Claim, TransferStream},
};
use shiplane_wire::{Code, DigestAlgorithm, TaggedChunk, TransferId};
use tokio::time::{Instant, timeout};

use crate::{methods::CALL_BUDGET, single::claim_new};

/// Begins to send or to receive chunks whose content does not matter.
pub(crate) const PROBE: Method<Probe, ()> = Method::new("probe");

/// The body of [`PROBE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Probe {
    /// Chosen by the caller at random: the transfer of the chunks.
    pub(crate) transfer: [u8; 16],
    /// What the caller may read.
    pub(crate) path: Vec<u8>,
    /// Whether the caller sends them.
    pub(crate) upwards: bool,
}

/// Measures the rate from the peer to here, or to it, in bytes a second, for about two seconds. 0 if nothing has
/// arrived whole by then. `path` is what the peer lets this side read.
///
/// Cancel-safe: the peer notices and stops.
///
/// # Errors
/// [`CallError`]: `Busy` while others measure.
pub async fn measure_rate(client: &RpcClient, path: &[u8], upwards: bool) -> Result<u64, CallError> {
    let connection = client.connection();
    // Claimed before it is asked for: the chunks may be faster than the answer.
    let claim = claim_new(connection)
        .map_err(|error| CallError::Fault(Fault::new(FaultCode::Internal, error.to_string())))?;
    let transfer = claim.transfer();
    let request = Probe { transfer: *transfer.as_bytes(), path: path.to_vec(), upwards };
    client.call_typed(PROBE, &request, CALL_BUDGET).await?;
    let (began, mut arrived) = (Instant::now(), Vec::new());
    let on_chunk = |len_bytes| arrived.push((began.elapsed(), len_bytes));
    let options = LaneOptions::default().digest(DigestAlgorithm::Blake3);
    let _ = timeout(MEASURED_TIME, async {
        match upwards {
            true => give(connection, transfer, &options, on_chunk).await,
            false => take(claim, &options, on_chunk).await,
        }
    })
    .await;
    Ok(rate_of(&arrived))
}

/// The rate once the path is in use: from the first chunk of the second half of the time on, or, if there is no other,
/// since the beginning.
fn rate_of(arrived: &[(Duration, u64)]) -> u64 {
    let late = arrived.iter().position(|(at, _)| *at >= MEASURED_TIME / 2);
    let since = late.filter(|first| first + 1 < arrived.len());
    let (began, counted) = match since {
        Some(first) => (arrived[first].0, &arrived[first + 1..]),
        None => (Duration::ZERO, arrived),
    };
    let Some((ended, _)) = counted.last() else { return 0 };
    let sum: u64 = counted.iter().map(|(_, len_bytes)| len_bytes).sum();
    (sum as f64 / (*ended - began).as_secs_f64().max(f64::EPSILON)) as u64
}

/// Sends chunks, in order, until the other side has enough of them.
pub(crate) async fn give(
    connection: &Arc<PeerConnection>,
    transfer: TransferId,
    options: &LaneOptions,
    mut on_chunk: impl FnMut(u64),
) {
    let send = async |index| {
        let source = ChunkSource::Memory(Bytes::from_static(&CONTENT)).open().map_err(drop)?;
        let tag = TaggedChunk { transfer, index };
        connection.send_tagged_chunk(tag, source, options).await.map(drop).map_err(drop)
    };
    let (mut sending, mut indices) = (FuturesUnordered::new(), 0..MAX_CHUNKS);
    loop {
        sending.extend(indices.by_ref().take(LANES - sending.len()).map(&send));
        match sending.next().await {
            Some(Ok(())) => on_chunk(CONTENT.len() as u64),
            Some(Err(())) | None => return,
        }
    }
}

/// Receives chunks to nowhere, until the other side has none any more.
pub(crate) async fn take(mut claim: Claim, options: &LaneOptions, mut on_chunk: impl FnMut(u64)) {
    let expected = ChunkExpectation::default().max_len_bytes(CONTENT.len() as u64);
    let mut receiving = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = claim.next(), if receiving.len() < LANES => match next {
                Some(TransferStream::Chunk(chunk)) => {
                    receiving.push(chunk.receive_to_memory(&expected, options));
                }
                Some(TransferStream::Compressed(chunk)) => chunk.refuse(Code::Protocol).await,
                Some(TransferStream::Records(_)) | None => return,
            },
            Some(received) = receiving.next() => match received {
                Ok(bytes) => on_chunk(bytes.len() as u64),
                Err(_) => return,
            },
        }
    }
}

/// The content of each chunk. It is not compressed, so that any does.
static CONTENT: [u8; 128 << 10] = [0; 128 << 10];

/// 64, of 128 KiB: 8 MiB are under way, which fills a gigabit for 64 ms.
const LANES: usize = 64;

/// 8 GiB: more than any path carries in that time.
const MAX_CHUNKS: u64 = 1 << 16;

/// 2 s: the first half lets the congestion window grow.
const MEASURED_TIME: Duration = Duration::from_secs(2);

/// For the fuzzer: the body of a probe.
pub(crate) fn fuzz_bodies(data: &[u8]) {
    crate::methods::fuzz_body::<Probe>(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_probe_are_these() {
        let probe = Probe { transfer: [1; 16], path: vec![2], upwards: true };
        let expected = [&[1; 16][..], &[1, 0, 0, 0, 0, 0, 0, 0, 2, 1]].concat();
        assert_eq!(shiplane_rpc::internals::encode(&probe).unwrap()[..], expected);
    }

    #[test]
    fn the_rate_is_that_of_the_second_half_or_else_of_all_chunks() {
        let at = |ms| Duration::from_millis(ms);
        assert_eq!(rate_of(&[]), 0);
        assert_eq!(rate_of(&[(at(500), 1000)]), 2000);
        // Slow in the beginning, then a thousand bytes each 100 ms.
        let mut arrived = vec![(at(900), 10)];
        arrived.extend((0..10).map(|step| (at(1000 + step * 100), 1000)));
        assert_eq!(rate_of(&arrived), 10_000);
        assert_eq!(rate_of(&[(at(500), 1000), (at(1900), 900)]), 1000, "one alone says nothing");
    }
}
