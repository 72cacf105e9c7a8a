//! Senders that leave gaps in their streams, which quinn itself would fill: what seals the packets writes others in
//! their place.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use bytes::BytesMut;
use delegate::delegate;
use quinn_proto::crypto::{
    ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

use super::peer::{Dialler, Server, patient};

/// The ranges that are not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Every second byte, on stream after stream.
    Bytes,
    /// Every second packet.
    Packets,
}

/// `count` connections that open all the streams they may, send as much as they may, and leave something out.
pub(crate) async fn send(server: &Server, count: usize, left: Left) -> Result<()> {
    let wrap = move |inner| Arc::new(Leaky { inner, left }) as Arc<dyn ClientConfig>;
    let mut quic = patient();
    quic.send_window(64 << 20);
    let mut dialler = Dialler::with(server, quic, wrap)?;
    let sending = dialler.begin("connections", count, |_, connection| begin(connection)).await?;
    let figures = async || {
        let sent = sending.iter().map(|connection| connection.stats().udp_tx.bytes).sum();
        let ended = sending.iter().filter(|connection| connection.close_reason().is_some()).count();
        [("sent bytes", sent), ("ended by server", ended as u64)]
    };
    dialler.end(figures).await
}

async fn begin(connection: quinn::Connection) -> Result<quinn::Connection> {
    // The one stream that is allowed before the server has judged the key: then all the others are (SPEC 1.8).
    let (mut send, mut recv) = connection.open_bi().await?;
    send.finish()?;
    let _answer = recv.read_to_end(0).await;
    for _ in 0..STREAMS {
        let (mut send, recv) = connection.open_bi().await?;
        tokio::spawn(async move {
            let _answer = recv;
            // A bare chunk of 16 MiB, which the other side has not requested.
            let mut data = vec![0; 64 << 10];
            data[..8].copy_from_slice(&(16u64 << 20).to_le_bytes());
            while send.write_all(&data).await.is_ok() {
                data[..8].fill(0);
            }
        });
    }
    // Until there is no more credit, or the server has had enough.
    tokio::time::sleep(SETTLE).await;
    Ok(connection)
}

/// TLS as it should be, but for what the packets contain.
struct Leaky {
    inner: Arc<dyn ClientConfig>,
    left: Left,
}

impl ClientConfig for Leaky {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let inner = Arc::clone(&self.inner).start_session(version, server_name, params)?;
        Ok(Box::new(LeakySession { inner, left: self.left, written: 0 }))
    }
}

struct LeakySession {
    inner: Box<dyn Session>,
    left: Left,
    /// How often new keys came from the handshake: those of the second time are for data.
    written: u32,
}

impl Session for LeakySession {
    delegate! {
        to self.inner {
            fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys;
            fn handshake_data(&self) -> Option<Box<dyn Any>>;
            fn peer_identity(&self) -> Option<Box<dyn Any>>;
            fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)>;
            fn early_data_accepted(&self) -> Option<bool>;
            fn is_handshaking(&self) -> bool;
            fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError>;
            fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError>;
            fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool;
            fn export_keying_material(
                &self,
                output: &mut [u8],
                label: &[u8],
                context: &[u8],
            ) -> Result<(), ExportKeyingMaterialError>;
        }
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let mut keys = self.inner.write_handshake(buf)?;
        self.written += 1;
        if self.written == 2 {
            keys.packet.local = Box::new(LeakyKey::new(keys.packet.local, self.left));
        }
        Some(keys)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.inner.next_1rtt_keys()?;
        Some(KeyPair { local: Box::new(LeakyKey::new(keys.local, self.left)), remote: keys.remote })
    }
}

struct LeakyKey {
    inner: Box<dyn PacketKey>,
    left: Left,
    /// Packets of data so far.
    packets: AtomicU64,
}

impl LeakyKey {
    fn new(inner: Box<dyn PacketKey>, left: Left) -> Self {
        Self { inner, left, packets: AtomicU64::new(0) }
    }

    /// Writes something else in the place of a packet full of data.
    fn leak(&self, payload: &mut [u8]) {
        if payload.len() < FULL_PACKET_BYTES {
            return; // Acknowledgements and the like.
        }
        let packet = self.packets.fetch_add(1, Ordering::Relaxed);
        match self.left {
            Left::Packets if packet.is_multiple_of(2) => {}
            Left::Packets => ping(payload),
            // Those that open the streams are sent as they are, or there would be nothing to leave gaps in.
            Left::Bytes if packet < STREAMS => {}
            Left::Bytes => every_second_byte(payload, packet - STREAMS),
        }
    }
}

impl PacketKey for LeakyKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let end = buf.len() - self.inner.tag_len();
        self.leak(&mut buf[header_len..end]);
        self.inner.encrypt(packet, buf, header_len);
    }

    delegate! {
        to self.inner {
            fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError>;
            fn tag_len(&self) -> usize;
            fn confidentiality_limit(&self) -> u64;
            fn integrity_limit(&self) -> u64;
        }
    }
}

/// A PING and padding (RFC 9000 section 19): it is acknowledged as if the data had come.
fn ping(payload: &mut [u8]) {
    payload.fill(0);
    payload[0] = 1;
}

/// STREAM frames (RFC 9000 section 19.8) of one byte, at every second offset behind what was sent in order.
fn every_second_byte(payload: &mut [u8], number: u64) {
    ping(payload);
    let stream = number % STREAMS;
    let per_packet = (payload.len() / FRAME_LEN_BYTES) as u64;
    let first = FIRST_GAP_BYTES + number / STREAMS * per_packet * 2;
    for (i, frame) in payload.chunks_exact_mut(FRAME_LEN_BYTES).enumerate() {
        let offset = first + 2 * i as u64;
        // Type with offset and length, stream in two bytes, offset in four, length, data.
        frame[0] = 0x0e;
        frame[1..3].copy_from_slice(&(0x4000 | (stream as u16 * 4)).to_be_bytes());
        frame[3..7].copy_from_slice(&(0x8000_0000 | offset as u32).to_be_bytes());
        frame[7] = 1;
        frame[8] = 0;
    }
}

const FRAME_LEN_BYTES: usize = 9;

/// Behind anything that the first packets carry.
const FIRST_GAP_BYTES: u64 = 16 << 10;

/// Shorter ones are acknowledgements and the like; the smallest full one has 1,200 bytes.
const FULL_PACKET_BYTES: usize = 600;

/// As many as a peer may have open.
const STREAMS: u64 = 64;

/// Long enough for any credit there is to be used up on loopback.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(3);
