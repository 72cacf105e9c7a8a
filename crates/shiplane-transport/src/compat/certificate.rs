//! What a server of the octopii dialect shows: a certificate that says nothing.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::tls::OCTOPII_SERVER_NAME;

/// A fresh key and its self-signed X.509 certificate for `localhost`, good for one transport's life.
// SPEC 9.3
pub(super) fn self_signed() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
    let made = rcgen::generate_simple_self_signed([OCTOPII_SERVER_NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((made.cert.into(), key.into()))
}
