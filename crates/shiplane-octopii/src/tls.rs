//! TLS of the octopii dialect: a self-signed certificate, and a verifier that accepts any.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
};
use shiplane_transport::{
    dialect::{client_tls, server_tls, signature_algorithms},
    internals::TlsError,
};

/// The name in every certificate of the dialect, and the one that its clients ask for.
pub(crate) const SERVER_NAME: &str = "localhost";

/// A fresh key and its self-signed X.509 certificate for `localhost`, good for one transport's life.
// SPEC 9.3
pub(crate) fn self_signed() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), TlsError> {
    let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]);
    // As when the system has no randomness.
    let made = made.map_err(|error| Error::General(error.to_string()))?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((made.cert.into(), key.into()))
}

/// For a server: presents the certificate and requests none. Authenticates **no peer**.
// SPEC 9.3
pub(crate) fn server(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    server_tls(certificate, key, ALPN)
}

/// For a client: accepts any certificate, and so connects to **anybody**.
// SPEC 9.3
pub(crate) fn client() -> Result<ClientConfig, TlsError> {
    client_tls(Arc::new(AnyCertificate { algorithms: signature_algorithms() }), ALPN)
}

/// Verifies that a server has the key of the certificate it shows, and nothing about the certificate.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The protocol that both sides must name, byte for byte.
// SPEC 9.2
const ALPN: &[u8] = b"octopii";
