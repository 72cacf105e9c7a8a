//! The TLS 1.3 handshake with raw public keys on both sides, pinned or checked by [`Trust`].
//!
//! The verifiers here are all that stands between a stranger and a connection, so rustls calls for
//! `dangerous()` to install them. It occurs in this file only: `dialect` installs the verifier of the
//! octopii dialect through it, whose endpoints share nothing with the others.
//!
//! How a failed handshake shows in quinn, on either side:
//!
//! - The side that fails it gets `ConnectionError::TransportError`, with the TLS alert plus 0x100
//!   as code. Which alert a verifier's error makes is rustls's choice; the ones that [`classify`]
//!   reads are constants below and come from one place each.
//! - The other side gets `ConnectionError::ConnectionClosed` with the same code. The reason text in
//!   it is the peer's: escape it before it is shown.
//!
//! A client's handshake is over before the server has seen the client's key (RFC 8446 section 2).
//! So `Connecting` succeeds on a client that the server is about to refuse; the refusal is what
//! ends the connection a round trip later. Until the server has said something only an admitted
//! client learns it, the client must be ready to find that error in any operation.

use std::{error, fmt, sync::Arc};

use quinn::{
    ConnectionError, TransportErrorCode,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct,
    DistinguishedName, Error, OtherError, PeerIncompatible, PeerMisbehaved, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, ResolvesClientCert, Resumption, WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        ring::{cipher_suite, default_provider, sign::any_eddsa_type},
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use thiserror::Error as ThisError;

use crate::{Admission, Identity, PeerId, Trust};

/// The protocol that both sides must name, byte for byte.
// SPEC 1.2
pub(crate) const ALPN: &[u8] = b"shiplane/1";

/// What to give quinn's `connect` as server name. It is neither sent nor checked: keys name peers.
pub(crate) const SERVER_NAME: &str = "shiplane";

/// TLS of a quinn server with `identity`. It admits keys that `trust` calls trusted or guests.
pub(crate) fn server_crypto(identity: &Identity, trust: &Trust) -> Result<QuicServerConfig, TlsError> {
    let verifier = RawKeyVerifier::new(Policy::Clients(trust.clone()));
    let key = AlwaysResolvesServerRawPublicKeys::new(certified_key(identity)?);
    let config = server_config(Arc::new(verifier), Arc::new(key))?;
    config.try_into().map_err(|_| TlsError::NoInitialSuite)
}

/// The TLS side of a quinn client that shows `identity` and connects to the key `pin` alone, or
/// without a pin to any key that `trust` calls trusted.
pub(crate) fn client_crypto(
    identity: &Identity,
    trust: &Trust,
    pin: Option<PeerId>,
) -> Result<QuicClientConfig, TlsError> {
    let verifier = RawKeyVerifier::new(match pin {
        Some(id) => Policy::Pinned(id),
        None => Policy::Servers(trust.clone()),
    });
    let key = AlwaysResolvesClientRawPublicKeys::new(certified_key(identity)?);
    let config = client_config(Arc::new(verifier), Arc::new(key))?;
    config.try_into().map_err(|_| TlsError::NoInitialSuite)
}

/// The id of the peer at the other end; `None` before the handshake is over.
pub(crate) fn peer_id_of_connection(connection: &quinn::Connection) -> Option<PeerId> {
    let identity = connection.peer_identity()?;
    match identity.downcast_ref::<Vec<CertificateDer<'static>>>()?.as_slice() {
        [key] => peer_id_of(key),
        _ => None,
    }
}

/// The id in a SubjectPublicKeyInfo, if it is exactly that of RFC 8410 section 4.
// SPEC 1.3
pub(crate) fn peer_id_of(spki: &[u8]) -> Option<PeerId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    Some(PeerId::from_bytes(key.try_into().ok()?))
}

/// Why a handshake failed, as far as it matters to what the user should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFault {
    /// We: the server proved that it has a key, but not the pinned one.
    WrongKey,
    /// We: the peer proved that it has a key, but our [`Trust`] refuses that.
    UntrustedKey,
    /// The peer refused our key, or that it is a raw one.
    RefusedByPeer,
    /// Either: the peer does not speak [`ALPN`].
    WrongProtocol,
    /// Anything else, not necessarily of the handshake.
    Other,
}

/// Sorts out how a handshake ended. The module's docs say where to expect such an error.
///
/// A peer can choose what it closes with, so only `WrongKey` and `UntrustedKey` are certain.
pub(crate) fn classify(error: &ConnectionError) -> HandshakeFault {
    match error {
        ConnectionError::TransportError(ours) => match alert_of(ours.code) {
            Some(ALERT_WRONG_KEY) => HandshakeFault::WrongKey,
            Some(ALERT_REFUSED) => HandshakeFault::UntrustedKey,
            Some(AlertDescription::NoApplicationProtocol) => HandshakeFault::WrongProtocol,
            _ => HandshakeFault::Other,
        },
        ConnectionError::ConnectionClosed(theirs) => match alert_of(theirs.error_code) {
            Some(
                AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateRequired,
            ) => HandshakeFault::RefusedByPeer,
            Some(AlertDescription::NoApplicationProtocol) => HandshakeFault::WrongProtocol,
            _ => HandshakeFault::Other,
        },
        ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => HandshakeFault::Other,
    }
}

/// The TLS stack does not take our identity or settings. Neither depends on any input: a build
/// without what this crate needs.
#[derive(Debug, ThisError)]
pub enum TlsError {
    /// rustls refused the key or the protocol version.
    #[error("the TLS library refuses its configuration")]
    Config(#[from] Error),
    /// The cipher suite of QUIC's first packets is missing.
    #[error("the TLS library cannot protect QUIC's first packets")]
    NoInitialSuite,
}

/// Everything but whose keys: the same for every server.
fn server_config(
    verifier: Arc<dyn ClientCertVerifier>,
    key: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, Error> {
    let config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(key);
    Ok(without_resumption(config, ALPN))
}

fn without_resumption(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    // A resumed session would skip the verifier, and so outlive a revocation.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// Everything but whose keys: the same for every client.
fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    key: Arc<dyn ResolvesClientCert>,
) -> Result<ClientConfig, Error> {
    let mut config = client_builder(verifier)?.with_client_cert_resolver(key);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

#[expect(clippy::disallowed_methods, reason = "here alone certificates are judged")]
fn client_builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()));
    Ok(builder.with_protocol_versions(&[&TLS13])?.dangerous().with_custom_certificate_verifier(verifier))
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        // AES-128 first: it is the fastest where the processor has AES, and strong enough.
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    }
}

fn certified_key(identity: &Identity) -> Result<Arc<CertifiedKey>, Error> {
    let signing_key = any_eddsa_type(&PrivatePkcs8KeyDer::from(identity.pkcs8()))?;
    let spki = CertificateDer::from(spki_of(&identity.peer_id()));
    Ok(Arc::new(CertifiedKey::new(vec![spki], signing_key)))
}

fn spki_of(id: &PeerId) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), id.as_bytes()].concat()
}

fn alert_of(code: TransportErrorCode) -> Option<AlertDescription> {
    // RFC 9001 section 4.8
    let alert = u64::from(code).checked_sub(0x100)?;
    u8::try_from(alert).ok().map(AlertDescription::from)
}

/// Verifies that a peer has the key it shows, and that it is a right one.
#[derive(Debug)]
struct RawKeyVerifier {
    policy: Policy,
    provider: CryptoProvider,
}

#[derive(Debug)]
enum Policy {
    Pinned(PeerId),
    Servers(Trust),
    Clients(Trust),
}

impl RawKeyVerifier {
    fn new(policy: Policy) -> Self {
        Self { policy, provider: provider() }
    }

    /// The first of two calls that rustls makes: with the key, before its signature has come.
    fn check_form(key: &[u8], more: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
        match peer_id_of(key) {
            Some(id) if more.is_empty() => Ok(id),
            _ => Err(CertificateError::BadEncoding.into()),
        }
    }

    /// The second call. Only here, with the signature verified, is the key judged: so no one can
    /// find out whom we trust by showing keys that are not theirs.
    // SPEC 1.3
    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let id = Self::check_form(key, &[])?;
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let valid = verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            signature,
            &self.provider.signature_verification_algorithms,
        )?;
        self.policy.judge(&id)?;
        Ok(valid)
    }
}

impl Policy {
    // The alerts of these two errors are what `classify` reads.
    fn judge(&self, id: &PeerId) -> Result<(), CertificateError> {
        let admission = match self {
            Self::Pinned(pin) if pin == id => return Ok(()),
            Self::Pinned(_) => {
                return Err(CertificateError::Other(OtherError(Arc::new(NotPinned))));
            }
            Self::Servers(trust) | Self::Clients(trust) => trust.admit(id),
        };
        match (self, admission) {
            (_, Admission::Trusted) | (Self::Clients(_), Admission::Guest) => Ok(()),
            (_, Admission::Guest | Admission::Refused) => {
                Err(CertificateError::ApplicationVerificationFailure)
            }
        }
    }
}

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check_form(end_entity, intermediates)?;
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
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check_form(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
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
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Travels inside rustls's error. quinn sends its text to the server, so it names no key: a wrong
/// server is not told whom we were looking for.
#[derive(Debug)]
struct NotPinned;

impl fmt::Display for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the key that was asked for")
    }
}

impl error::Error for NotPinned {}

/// The alert of rustls for `CertificateError::Other`, which only a wrong pin causes here.
const ALERT_WRONG_KEY: AlertDescription = AlertDescription::CertificateUnknown;

/// The alert of rustls for `CertificateError::ApplicationVerificationFailure`.
const ALERT_REFUSED: AlertDescription = AlertDescription::AccessDenied;

/// Everything of an Ed25519 SubjectPublicKeyInfo before the key (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

#[cfg(feature = "dialect")]
pub(crate) mod dialect;
#[cfg(feature = "test-support")]
pub mod test_support;

#[cfg(test)]
mod tests;
