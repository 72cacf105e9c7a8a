//! Sends small data in a call and large data as a chunk.

use shiplane_rpc::RpcClient;
use shiplane_transport::ChunkSource;

use crate::{
    deliver::{DeliverError, SendOptions, deliver_by_call, deliver_by_lane, open},
    methods::random_transfer_id,
};

/// A delivery that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// Whether it went in the call itself, in one round trip; else it was announced by a call and sent as a chunk.
    pub by_call: bool,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Bytes sent for it.
    pub wire_bytes: u64,
}

/// Delivers `source` to the [`Inbox`](crate::Inbox) of the peer, by call or by lane as its size asks.
/// Both end in the same inbox.
///
/// Not cancel-safe: dropped, whether it was delivered is unknown.
///
/// # Errors
/// See [`DeliverError`].
pub async fn transfer_auto(
    client: &RpcClient,
    source: &ChunkSource,
    options: &SendOptions,
) -> Result<DeliveryReport, DeliverError> {
    let transfer = random_transfer_id().ok_or(DeliverError::NoRandomness)?;
    let source = open(source).await?;
    let by_call = source.len_bytes() <= options.call_threshold_bytes.min(MAX_CALL_BYTES);
    let arrived = if by_call {
        deliver_by_call(client, transfer, source, options).await?
    } else {
        deliver_by_lane(client, transfer, source, options).await?
    };
    Ok(DeliveryReport { by_call, content_bytes: arrived.content_bytes, wire_bytes: arrived.wire_bytes })
}

/// 1 MiB less the envelope: what a call can hold at all.
const MAX_CALL_BYTES: u64 = shiplane_wire::limits::MAX_RPC_FRAME_LEN_BYTES as u64 - 1024;
