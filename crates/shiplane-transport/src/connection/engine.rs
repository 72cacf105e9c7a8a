//! The interface of a connection for the crates above: streams, calls, transfers.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use shiplane_wire::{TaggedChunk, TransferId, records_opening};

use super::{AlreadyClaimed, Claim, InboundCall, InboundChunk, PeerConnection, router::InboundCalls};
use crate::{
    close,
    config::{FIRST_WINDOW_BYTES, TransportConfig},
    error::{SendChunkError, StreamError},
    lane::{LaneOptions, send::SentChunk},
    source::ChunkRead,
    stream::BiStream,
    traffic::Traffic,
    window::ReceiveReservation,
};

#[doc(hidden)]
impl PeerConnection {
    /// Lifts a guest's limits, once it is authorised.
    pub fn promote(&self) {
        self.connection.set_max_concurrent_bi_streams(self.config.max_concurrent_streams.into());
        self.windows.open(FIRST_WINDOW_BYTES.into());
        self.guest.store(false, Ordering::Release);
    }

    /// A value that only the two ends of this very TLS connection can compute (RFC 8446, 7.5): it binds what is proven
    /// over the connection to it.
    #[must_use]
    pub fn channel_binding(&self) -> Option<[u8; 32]> {
        let mut binding = [0; 32];
        self.connection
            .export_keying_material(&mut binding, CHANNEL_BINDING_LABEL, b"")
            .ok()
            .map(|()| binding)
    }

    /// Makes room for `len_bytes` that the peer may send and that are not read for a while, so that they do not keep
    /// back what is. `None` if the windows' memory is used by others.
    #[must_use]
    pub fn reserve_receive(&self, len_bytes: u64) -> Option<ReceiveReservation> {
        self.windows.reserve(len_bytes)
    }

    /// The transport's settings, which hold for this connection.
    #[must_use]
    pub fn config(&self) -> &TransportConfig {
        &self.config
    }

    /// The next bare chunk with its size known and its data unread, so that the caller decides where
    /// it goes, and knows that a transfer has begun; `None` after the connection's orderly end. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamError::ConnectionLost`] when the connection did not end in order.
    pub async fn next_chunk(&self) -> Result<Option<InboundChunk>, StreamError> {
        let next = self.inboxes.bare.lock().await.recv().await;
        match next {
            Some((len_bytes, stream)) => {
                Ok(Some(InboundChunk::bare(len_bytes, stream, Arc::clone(&self.config))))
            }
            None => self.orderly_end().await.map(|()| None),
        }
    }

    /// Opens a stream and writes its first bytes: an opening that the wire crate made, and what
    /// belongs right behind it.
    ///
    /// Waits while as many streams of ours are open as the peer allows, however long they take.
    /// Cancel-safe: dropping leaves nothing open.
    ///
    /// # Errors
    /// [`StreamError::TimedOut`] when the peer allows no stream although none of ours is open, or takes
    /// nothing of `opening`, for the progress timeout; [`StreamError::ConnectionLost`]; `Stopped`.
    pub async fn open_stream(&self, opening: Bytes) -> Result<BiStream, StreamError> {
        let mut stream = BiStream::new(self.halves().await?, &self.ours);
        stream.send.write_within(opening, self.config.progress_timeout).await?;
        Ok(stream)
    }

    /// The peer's next request; `None` once the connection has ended. One consumer; cancel-safe.
    pub async fn next_call(&self) -> Option<InboundCall> {
        self.calls().await.next().await
    }

    /// As [`next_call`](Self::next_call), for one call after another. Another caller waits until this is
    /// dropped. Cancel-safe.
    pub async fn calls(&self) -> InboundCalls<'_> {
        InboundCalls::wait(&self.inboxes.calls, self.watch_end()).await
    }

    /// Claims the streams of a transfer, those that came already included.
    ///
    /// # Errors
    /// [`AlreadyClaimed`] while another claim of the same id lives.
    pub fn claim(self: &Arc<Self>, transfer: TransferId) -> Result<Claim, AlreadyClaimed> {
        Claim::new(transfer, &self.inboxes.transfers, &self.config, self.connection.clone(), &self.traffic)
    }

    /// Opens the stream that carries a transfer's records. Dropping the future opens nothing.
    ///
    /// # Errors
    /// As [`open_stream`](Self::open_stream).
    pub async fn open_records(&self, transfer: TransferId) -> Result<BiStream, StreamError> {
        self.open_stream(Bytes::copy_from_slice(&records_opening(transfer))).await
    }

    /// Sends one chunk of a transfer and waits for the receiver's status.
    ///
    /// Not cancel-safe: dropping resets the stream, and the receiver keeps nothing of the chunk.
    ///
    /// # Errors
    /// As [`send_chunk_verified`](Self::send_chunk_verified).
    pub async fn send_tagged_chunk(
        &self,
        tag: TaggedChunk,
        source: impl ChunkRead,
        options: &LaneOptions,
    ) -> Result<SentChunk, SendChunkError> {
        let opening = if options.is_encoded { tag.encode_compressed() } else { tag.encode() };
        let position = self.order.begin(tag.transfer, source.len_bytes());
        self.send_frame(Bytes::copy_from_slice(&opening), source, position.priority(), options).await
    }

    /// What it carries.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// How many bytes of what was sent the peer has acknowledged, packets' headers and all. It begins anew where
    /// the connection gets another path.
    #[must_use]
    pub fn acknowledged_bytes(&self) -> u64 {
        close::acknowledged(&self.connection).bytes
    }
}

const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-shiplane-code";
