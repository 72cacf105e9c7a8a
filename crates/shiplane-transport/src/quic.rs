//! Configures quinn: windows, deadlines, packet sizes.

use std::{sync::Arc, time::Duration};

use crate::{
    close,
    config::{
        FIRST_WINDOW_BYTES, GUEST_MAX_CONCURRENT_STREAMS, INCOMING_BUFFER_BYTES, LOCAL_DATAGRAM_LEN_BYTES,
        MAX_DATAGRAM_LEN_BYTES, STREAMS_AT_FIRST, TransportConfig,
    },
    congestion,
    error::BindError,
    identity::Identity,
    locality::{ByLocality, Locality},
    tls,
    trust::Trust,
};

/// What is known of the way to a peer before the first packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// The largest UDP payload to try.
    max_datagram_len_bytes: u16,
    /// A search ends when what is left to find is less than this.
    search_step_bytes: u16,
    /// The most that may be in flight.
    max_window_bytes: u64,
    /// Whether packets of that size pass for certain, so that none has to be tried.
    is_known: bool,
}

impl Path {
    /// Packets in a byte stream, which has a congestion control of its own. To look for its largest packet would only delay what follows, on a slow stream by round
    /// trips: a packet is there when its last byte is.
    pub(crate) fn over_stream(config: &TransportConfig, buffer_len_bytes: usize) -> Self {
        Self { is_known: true, ..Self::new(config, Locality::ThisMachine, buffer_len_bytes) }
    }

    /// For a peer on this machine, whose socket has a buffer as long as ours. Sent data waits there until the
    /// peer gets to run, and what is beyond it is lost. A short buffer takes no long datagrams at all.
    pub(crate) fn new(config: &TransportConfig, locality: Locality, buffer_len_bytes: usize) -> Self {
        let is_roomy = locality == Locality::ThisMachine && buffer_len_bytes >= LOCAL_BUFFER_LEN_BYTES;
        // What a packet takes in a buffer is up to twice what it carries.
        let max_window_bytes = if is_roomy { buffer_len_bytes as u64 / 2 } else { u64::MAX };
        let (max_datagram_len_bytes, search_step_bytes) = match config.max_datagram_len_bytes {
            Some(len_bytes) => (len_bytes, SEARCH_STEP_BYTES),
            None if is_roomy => (LOCAL_DATAGRAM_LEN_BYTES, LOCAL_SEARCH_STEP_BYTES),
            None => (MAX_DATAGRAM_LEN_BYTES, SEARCH_STEP_BYTES),
        };
        Self { max_datagram_len_bytes, search_step_bytes, max_window_bytes, is_known: false }
    }
}

/// For connections that we make.
pub(crate) fn dialling(config: &TransportConfig, path: &Path) -> quinn::TransportConfig {
    let mut quic = settings(config, path);
    if config.receive_budget_bytes.is_some() {
        quic.receive_window(FIRST_WINDOW_BYTES.into());
    }
    if config.send_budget_bytes.is_some() {
        quic.send_window(FIRST_WINDOW_BYTES.into());
    }
    quic
}

/// For connections that others make.
pub(crate) fn answering(
    identity: &Identity,
    trust: &Trust,
    config: &TransportConfig,
    paths: &ByLocality<Path>,
) -> Result<ByLocality<quinn::ServerConfig>, BindError> {
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls::server_crypto(identity, trust)?));
    server.max_incoming(config.max_incoming_handshakes).incoming_buffer_size_total(INCOMING_BUFFER_BYTES);
    Ok(paths.map(|path| {
        let mut quic = settings(config, path);
        // What a guest has: of more nothing could be read before the key is admitted, and then `answer` opens both.
        quic.max_concurrent_bidi_streams(GUEST_MAX_CONCURRENT_STREAMS.into());
        quic.receive_window(FIRST_WINDOW_BYTES.into());
        quic.send_window(FIRST_WINDOW_BYTES.into());
        // Clones of one: what the one has signed to prove an address, the other takes.
        let mut server = server.clone();
        server.transport_config(Arc::new(quic));
        server
    }))
}

/// The settings that both sides share.
pub(crate) fn settings(config: &TransportConfig, path: &Path) -> quinn::TransportConfig {
    let mut mtu_discovery = quinn::MtuDiscoveryConfig::default();
    mtu_discovery
        .upper_bound(path.max_datagram_len_bytes)
        .minimum_change(path.search_step_bytes)
        .interval(MTU_SEARCH_INTERVAL)
        .black_hole_cooldown(BLACK_HOLE_COOLDOWN);
    let idle_timeout =
        quinn::IdleTimeout::try_from(config.idle_timeout).unwrap_or_else(|_| quinn::VarInt::MAX.into());
    let mut quic = quinn::TransportConfig::default();
    quic.max_concurrent_bidi_streams(config.max_concurrent_streams.min(STREAMS_AT_FIRST).into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(config.stream_receive_window_bytes.into())
        .receive_window(config.connection_receive_window_bytes.into())
        .send_window(config.send_window_bytes)
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval(Some(config.keep_alive_interval))
        .mtu_discovery_config(Some(mtu_discovery))
        .congestion_controller_factory(close::giving_way(congestion::factory(
            config.congestion,
            // What is beyond the send window cannot be in flight; packets add a sixteenth to what they carry.
            path.max_window_bytes.min(config.send_window_bytes + config.send_window_bytes / 16),
        )));
    if path.is_known {
        let control = close::giving_way(congestion::over_stream(path.max_window_bytes));
        quic.initial_mtu(path.max_datagram_len_bytes).mtu_discovery_config(None);
        quic.congestion_controller_factory(control);
    }
    quic
}

/// A search for larger packets that ended too low, as chance losses may have it, is repeated after 2 minutes
/// rather than quinn's 10: it costs some thirty probes that congestion control does not count.
const MTU_SEARCH_INTERVAL: Duration = Duration::from_secs(120);

/// Losses in a row of large packets pass for a path that has narrowed, and packets shrink to 1,200 bytes. When
/// it was chance, 10 s of those are a fair price; quinn's minute is not.
const BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(10);

/// 20 bytes, as quinn has it.
const SEARCH_STEP_BYTES: u16 = 20;

/// 4 KiB: four probes of 33 to 65 KB find what Linux has. With steps of 20 bytes it would be twelve, 1.4 MB of both
/// sides, which is more than an edited file may need.
const LOCAL_SEARCH_STEP_BYTES: u16 = 4096;

/// 4 MiB: sixty-four of the longest datagrams. It is what two of its kind are granted that ask for half.
const LOCAL_BUFFER_LEN_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_buffers_get_long_datagrams_and_never_more_than_they_hold() {
        let config = TransportConfig::default();
        let short = TransportConfig { max_datagram_len_bytes: Some(1200), ..TransportConfig::default() };
        let path = |config, locality, buffer_len_bytes| {
            let path = Path::new(config, locality, buffer_len_bytes);
            (path.max_datagram_len_bytes, path.max_window_bytes)
        };
        let here = Locality::ThisMachine;
        assert_eq!(path(&config, here, 8 << 20), (LOCAL_DATAGRAM_LEN_BYTES, 4 << 20));
        assert_eq!(path(&config, here, 416 << 10), (MAX_DATAGRAM_LEN_BYTES, u64::MAX));
        assert_eq!(path(&config, Locality::Elsewhere, 8 << 20), (MAX_DATAGRAM_LEN_BYTES, u64::MAX));
        assert_eq!(path(&short, here, 8 << 20), (1200, 4 << 20));
        assert_eq!(Path::new(&config, here, 8 << 20).search_step_bytes, LOCAL_SEARCH_STEP_BYTES);
        assert_eq!(Path::new(&short, here, 8 << 20).search_step_bytes, SEARCH_STEP_BYTES);
    }
}
