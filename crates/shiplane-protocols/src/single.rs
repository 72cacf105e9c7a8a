//! A transfer of one chunk, the step that custom protocols share: agree by RPC, send down the lane.
//!
//! Who wants the data makes an id and claims it *before* it asks, so that no chunk can be early and two
//! concurrent transfers can never be mixed up. Who has it sends the chunk with index 0 of that id, on
//! the connection that the request came by.

use std::{sync::Arc, time::Duration};

use shiplane_transport::{
    PeerConnection,
    internals::{Claim, InboundChunk, TransferStream},
};
use shiplane_wire::Code;
use thiserror::Error;

use crate::methods::random_transfer_id;

/// Why a claimed chunk did not come.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoChunk {
    /// The sender did not begin within this time.
    #[error("the chunk did not start within {timeout:?}")]
    TimedOut {
        /// How long we waited.
        timeout: Duration,
    },
    /// The connection ended first. Dial again.
    #[error("the connection closed before the chunk arrived")]
    ConnectionEnded,
    /// The sender opened something else under this id. It was refused.
    #[error("the peer sent something other than one chunk")]
    NotTheChunk,
    /// The system has no randomness to make an id of.
    #[error("the system's random source failed")]
    NoRandomness,
}

/// Makes an id and claims it. Send it to the peer, then await [`only_chunk`].
///
/// # Errors
/// [`NoChunk::NoRandomness`].
pub fn claim_new(connection: &Arc<PeerConnection>) -> Result<Claim, NoChunk> {
    let transfer = random_transfer_id().ok_or(NoChunk::NoRandomness)?;
    // Of 128 random bits, none is claimed already.
    connection.claim(transfer).map_err(|_| NoChunk::NoRandomness)
}

/// Waits for the chunk of a transfer that has one. Cancel-safe until it returns.
///
/// # Errors
/// See [`NoChunk`].
pub async fn only_chunk(claim: &mut Claim, timeout: Duration) -> Result<InboundChunk, NoChunk> {
    match tokio::time::timeout(timeout, claim.next()).await {
        Err(_) => Err(NoChunk::TimedOut { timeout }),
        Ok(None) => Err(NoChunk::ConnectionEnded),
        Ok(Some(TransferStream::Chunk(chunk))) if chunk.index() == 0 => Ok(chunk),
        Ok(Some(TransferStream::Chunk(chunk) | TransferStream::Compressed(chunk))) => {
            chunk.refuse(Code::Protocol).await;
            Err(NoChunk::NotTheChunk)
        }
        Ok(Some(TransferStream::Records(_))) => Err(NoChunk::NotTheChunk), // Reset by its drop.
    }
}
