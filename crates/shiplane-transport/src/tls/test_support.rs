//! Raw quinn endpoints with this crate's handshake: a test that plays a hostile peer gets past the
//! handshake with it and then does what no [`PeerConnection`](crate::PeerConnection) does.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{client::AlwaysResolvesClientRawPublicKeys, server::AlwaysResolvesServerRawPublicKeys};

use super::{
    Policy, RawKeyVerifier, TlsError, certified_key, client_config as rustls_client, peer_id_of_connection,
    server_config as rustls_server,
};
use crate::{Identity, PeerId, Trust};

/// The server name to dial with.
pub const SERVER_NAME: &str = super::SERVER_NAME;

/// A server with `identity` for `protocols` that admits the keys in `trust`.
///
/// # Errors
/// As any TLS set-up here.
pub fn server_config(
    identity: &Identity,
    trust: &Trust,
    protocols: &[&[u8]],
) -> Result<quinn::ServerConfig, TlsError> {
    let verifier = RawKeyVerifier::new(Policy::Clients(trust.clone()));
    let key = AlwaysResolvesServerRawPublicKeys::new(certified_key(identity)?);
    let mut config = rustls_server(Arc::new(verifier), Arc::new(key))?;
    config.alpn_protocols = owned(protocols);
    let crypto = QuicServerConfig::try_from(config).map_err(|_| TlsError::NoInitialSuite)?;
    Ok(quinn::ServerConfig::with_crypto(Arc::new(crypto)))
}

/// A client with `identity` for `protocols` that accepts servers in `trust`.
///
/// # Errors
/// As any TLS set-up here.
pub fn client_config(
    identity: &Identity,
    trust: &Trust,
    protocols: &[&[u8]],
) -> Result<quinn::ClientConfig, TlsError> {
    Ok(quinn::ClientConfig::new(Arc::new(client_crypto(identity, trust, protocols)?)))
}

/// The TLS side of [`client_config`], for a client that seals packets in its own way.
///
/// # Errors
/// As there.
pub fn client_crypto(
    identity: &Identity,
    trust: &Trust,
    protocols: &[&[u8]],
) -> Result<QuicClientConfig, TlsError> {
    let verifier = RawKeyVerifier::new(Policy::Servers(trust.clone()));
    let key = AlwaysResolvesClientRawPublicKeys::new(certified_key(identity)?);
    let mut config = rustls_client(Arc::new(verifier), Arc::new(key))?;
    config.alpn_protocols = owned(protocols);
    config.try_into().map_err(|_| TlsError::NoInitialSuite)
}

/// Who is on the other side.
pub fn peer_id(connection: &quinn::Connection) -> Option<PeerId> {
    peer_id_of_connection(connection)
}

fn owned(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
}
