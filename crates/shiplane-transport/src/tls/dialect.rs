//! TLS settings for another dialect with its own certificates.

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::TLS13,
};

use super::{TlsError, client_builder, provider, without_resumption};

/// A server for `protocol` that presents this certificate and requests none from clients. It authenticates **no peer**.
///
/// # Errors
/// The key is not that of the certificate.
pub fn server_tls(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    protocol: &[u8],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth();
    let config = builder.with_single_cert(vec![certificate], key)?;
    Ok(without_resumption(config, protocol))
}

/// A client for `protocol` without a certificate; `verifier` judges the server's.
///
/// # Errors
/// As any TLS set-up here.
pub fn client_tls(verifier: Arc<dyn ServerCertVerifier>, protocol: &[u8]) -> Result<ClientConfig, TlsError> {
    let mut config = client_builder(verifier)?.with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// What signatures of handshakes are verified with.
#[must_use]
pub fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}
