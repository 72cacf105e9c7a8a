//! Sends small data in a call and large data as a chunk.

use shiplane_rpc::RpcClient;
use shiplane_transport::ChunkSource;

use crate::{
    deliver::{DeliverError, SendOptions, deliver_by_call, deliver_by_lane, open},
    methods::random_transfer_id,
};

/// How [`transfer_auto`] chooses and sends.
#[derive(Debug, Clone)]
pub struct AutoOptions {
    /// Up to so many bytes go in a call; a call holds less than 1 MiB, whatever this says. Default
    /// [`CALL_THRESHOLD_BYTES`].
    pub threshold_bytes: u64,
    /// How it is sent.
    pub send: SendOptions,
}

impl Default for AutoOptions {
    fn default() -> Self {
        Self { threshold_bytes: CALL_THRESHOLD_BYTES, send: SendOptions::default() }
    }
}

/// The way a delivery took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// In the call itself: one round trip.
    Call,
    /// Announced by a call, sent as a chunk.
    Lane,
}

/// A delivery that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryReport {
    /// Which way.
    pub route: Route,
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
    options: &AutoOptions,
) -> Result<DeliveryReport, DeliverError> {
    let transfer = random_transfer_id().ok_or(DeliverError::NoRandomness)?;
    let source = open(source).await?;
    let fits_a_call = source.len_bytes() <= options.threshold_bytes.min(MAX_CALL_BYTES);
    let (route, arrived) = if fits_a_call {
        (Route::Call, deliver_by_call(client, transfer, source, &options.send).await?)
    } else {
        (Route::Lane, deliver_by_lane(client, transfer, source, &options.send).await?)
    };
    Ok(DeliveryReport { route, content_bytes: arrived.content_bytes, wire_bytes: arrived.wire_bytes })
}

/// 64 KiB: up to there a call's one round trip is worth more than the lane's
/// streaming.
pub const CALL_THRESHOLD_BYTES: u64 = 64 * 1024;

/// 1 MiB less the envelope: what a call can hold at all.
const MAX_CALL_BYTES: u64 = shiplane_wire::limits::MAX_RPC_FRAME_LEN_BYTES as u64 - 1024;
