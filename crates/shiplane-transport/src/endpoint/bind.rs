//! Binds a UDP socket and puts QUIC on it.

use std::{net::SocketAddr, sync::Arc};

use quinn_proto::RandomConnectionIdGenerator;

use crate::{
    config::{LOCAL_DATAGRAM_LEN_BYTES, TransportConfig},
    identity::Identity,
    socket,
};

/// What can be replaced: the socket, and for a simulation randomness too. Its clock is tokio's, paused.
#[derive(Debug, Default)]
pub(crate) struct Seams {
    /// Bound already.
    pub(super) udp: Option<std::net::UdpSocket>,
    pub(crate) socket: Option<Arc<dyn quinn::AsyncUdpSocket>>,
    /// Whether that carries packets in a byte stream.
    pub(crate) is_stream: bool,
    pub(super) rng_seed: Option<[u8; 32]>,
}

/// The endpoint, and how much may wait to be received in its socket.
pub(crate) fn bind_endpoint(
    addr: SocketAddr,
    config: &TransportConfig,
    seams: Seams,
    identity: Option<&Identity>,
) -> std::io::Result<(quinn::Endpoint, usize)> {
    let runtime = quinn::TokioRuntime;
    let (socket, buffer_len_bytes) = match seams.socket {
        Some(socket) => (socket, config.udp_buffer_len_bytes),
        None => {
            let (socket, granted_bytes) = match seams.udp {
                Some(socket) => socket::adopt(socket.into(), config.udp_buffer_len_bytes)?,
                None => socket::bind(addr, config.udp_buffer_len_bytes)?,
            };
            (quinn::Runtime::wrap_udp_socket(&runtime, socket)?, granted_bytes)
        }
    };
    let longest_datagram_bytes = config.max_datagram_len_bytes.unwrap_or(LOCAL_DATAGRAM_LEN_BYTES);
    let socket = socket::TunedSocket::new(socket, longest_datagram_bytes);
    let mut endpoint = quinn::EndpointConfig::default();
    if let Some(identity) = identity {
        // A peer that still has a connection from before a restart gets a reset for its next packet.
        endpoint
            .reset_key(Arc::new(identity.reset_key(quinn::AsyncUdpSocket::local_addr(&socket)?)))
            .cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_LEN_BYTES)));
    }
    endpoint
        .max_udp_payload_size(longest_datagram_bytes)
        .map_err(std::io::Error::other)?
        .rng_seed(seams.rng_seed);
    let endpoint =
        quinn::Endpoint::new_with_abstract_socket(endpoint, None, Arc::new(socket), Arc::new(runtime))?;
    Ok((endpoint, buffer_len_bytes))
}

/// As long as quinn's own, but fully random: quinn's contain a checksum that would not survive a restart.
const CONNECTION_ID_LEN_BYTES: usize = 8;
