//! Bare quinn with settings close to shiplane's: the reference.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, Runtime, UdpPoller,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
    udp::{RecvMeta, Transmit},
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
};

use crate::Failure;

/// An endpoint on loopback whose largest UDP payload is `mtu`.
///
/// # Errors
/// No socket, or a payload that QUIC does not allow.
pub fn endpoint(mtu: u16, server: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint, Failure> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    enlarge_buffers(&socket)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let inner = runtime.wrap_udp_socket(socket)?;
    let mut config = quinn::EndpointConfig::default();
    config.max_udp_payload_size(mtu)?;
    let socket = Arc::new(ClampedSocket { inner, mtu: usize::from(mtu) });
    Ok(quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)?)
}

/// The same 4 MiB each way that shiplane asks for.
fn enlarge_buffers(socket: &std::net::UdpSocket) -> io::Result<()> {
    let socket = socket2::SockRef::from(socket);
    socket.set_recv_buffer_size(4 << 20)?;
    socket.set_send_buffer_size(4 << 20)
}

fn transport(mtu: u16) -> quinn::TransportConfig {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    let mut config = quinn::TransportConfig::default();
    config
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window((2u32 << 20).into())
        .receive_window((32u32 << 20).into())
        .send_window(16 << 20)
        .max_concurrent_bidi_streams(MAX_STREAMS.into());
    config
}

/// A server that takes any client and any number of streams.
///
/// # Errors
/// The TLS set-up failed.
pub fn server_config(mtu: u16) -> Result<quinn::ServerConfig, Failure> {
    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
        .map_err(|_| "no randomness")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec()));
    let key = provider().key_provider.load_private_key(key)?;
    let spki = key.public_key().ok_or("no public key")?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(spki.as_ref().to_vec())], key);
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(mtu)));
    Ok(config)
}

/// A client that takes any server's key.
///
/// # Errors
/// The TLS set-up failed.
pub fn client_config(mtu: u16) -> Result<quinn::ClientConfig, Failure> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey))
        .with_no_client_auth();
    tls.enable_sni = false;
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(mtu)));
    Ok(config)
}

/// AES-128-GCM first, as in shiplane.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}

/// A reference run against itself on loopback has nobody to authenticate.
#[derive(Debug)]
struct AnyKey;

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Keeps quinn's batches within what one UDP send takes.
#[derive(Debug)]
struct ClampedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    mtu: usize,
}

impl AsyncUdpSocket for ClampedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(65_507 / self.mtu)
    }
    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments().min((64 * 1024usize).div_ceil(self.mtu))
    }
    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// 1,024: no bench has more in flight, so that nothing waits for a stream here.
const MAX_STREAMS: u32 = 1024;
