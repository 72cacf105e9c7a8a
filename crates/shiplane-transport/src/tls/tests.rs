//! Handshakes between real quinn endpoints: the result on each side.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use data_encoding::BASE64;
use quinn::{ConnectionClose, Endpoint, crypto::rustls::HandshakeData};
use rustls::{
    SignatureAlgorithm,
    pki_types::PrivateKeyDer,
    quic::{ClientConnection, ServerConnection, Version},
    server::WebPkiClientVerifier,
    sign::{Signer, SigningKey, SingleCertAndKey},
};

use super::*;

/// What became of a handshake on both sides. Of two sides that are connected each has the other.
struct Met {
    client: Result<quinn::Connection, ConnectionError>,
    server: Result<quinn::Connection, ConnectionError>,
    _endpoints: [Endpoint; 2],
}

impl Met {
    async fn over(
        server: impl TryInto<QuicServerConfig, Error: fmt::Debug>,
        client: impl TryInto<QuicClientConfig, Error: fmt::Debug>,
    ) -> Self {
        let server = Arc::new(server.try_into().expect("a QUIC server"));
        let client = Arc::new(client.try_into().expect("a QUIC client"));
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener =
            Endpoint::server(quinn::ServerConfig::with_crypto(server), local).expect("a server socket");
        let dialler = Endpoint::client(local).expect("a client socket");
        let addr = listener.local_addr().expect("an address");
        let dial = async {
            let config = quinn::ClientConfig::new(client);
            dialler.connect_with(config, addr, SERVER_NAME).expect("dials").await
        };
        let accept = async { listener.accept().await.expect("is open").await };
        let both = async {
            match tokio::join!(dial, accept) {
                // The client is done before the server has judged it.
                (Ok(client), Err(server)) => (Err(client.closed().await), Err(server)),
                both => both,
            }
        };
        let (client, server) = tokio::time::timeout(DEADLINE, both).await.expect("the handshake ends");
        Self { client, server, _endpoints: [listener, dialler] }
    }

    #[track_caller]
    fn expect_connected(&self) -> (&quinn::Connection, &quinn::Connection) {
        match (&self.client, &self.server) {
            (Ok(client), Ok(server)) => (client, server),
            (client, server) => panic!("client {client:?}, server {server:?}"),
        }
    }

    /// The faults as classified, and the one alert that both sides have to agree on.
    #[track_caller]
    fn expect_failed(&self, alert: AlertDescription) -> (HandshakeFault, HandshakeFault) {
        let (Err(client), Err(server)) = (&self.client, &self.server) else {
            panic!("client {:?}, server {:?}", self.client, self.server);
        };
        for error in [client, server] {
            let code = match error {
                ConnectionError::TransportError(ours) => ours.code,
                ConnectionError::ConnectionClosed(theirs) => theirs.error_code,
                other => panic!("{other:?}"),
            };
            assert_eq!(alert_of(code), Some(alert), "{error:?}");
        }
        (classify(client), classify(server))
    }
}

/// A handshake that gets stuck shall fail the test, not the whole run.
const DEADLINE: Duration = Duration::from_secs(20);

fn identity() -> Identity {
    Identity::generate().expect("random bytes")
}

fn everybody() -> Trust {
    Trust::ask(|_| Admission::Trusted)
}

/// Trust in everybody that keeps whom it was asked for.
fn asked() -> (Trust, Arc<Mutex<Vec<PeerId>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&asked);
    let trust = Trust::ask(move |id| {
        list.lock().expect("no panic").push(*id);
        Admission::Trusted
    });
    (trust, asked)
}

fn server(identity: &Identity, trust: &Trust) -> QuicServerConfig {
    server_crypto(identity, trust).expect("a server")
}

fn client(identity: &Identity, trust: &Trust, pin: Option<&Identity>) -> QuicClientConfig {
    client_crypto(identity, trust, pin.map(Identity::peer_id)).expect("a client")
}

/// A server that trusts everybody and shows this key.
fn server_with(key: impl ResolvesServerCert + 'static) -> ServerConfig {
    let verifier = RawKeyVerifier::new(Policy::Clients(everybody()));
    server_config(Arc::new(verifier), Arc::new(key)).expect("a server")
}

/// A client that trusts everybody and shows this key.
fn client_with(key: impl ResolvesClientCert + 'static) -> ClientConfig {
    let verifier = RawKeyVerifier::new(Policy::Servers(everybody()));
    client_config(Arc::new(verifier), Arc::new(key)).expect("a client")
}

/// These bytes as if they were raw keys, with a signature by `signer`.
fn shown(keys: &[&[u8]], signer: Arc<dyn SigningKey>) -> Arc<CertifiedKey> {
    let keys = keys.iter().map(|key| CertificateDer::from(key.to_vec()));
    Arc::new(CertifiedKey::new(keys.collect(), signer))
}

fn signing_key(identity: &Identity) -> Arc<dyn SigningKey> {
    any_eddsa_type(&PrivatePkcs8KeyDer::from(identity.pkcs8())).expect("a key")
}

/// What a server of another program would show: a certificate for `localhost` with its key.
fn self_signed_x509() -> CertifiedKey {
    let decode = |base64: &str| BASE64.decode(base64.as_bytes()).expect("is base64");
    let key = PrivateKeyDer::Pkcs8(decode(X509_KEY).into());
    CertifiedKey::from_der(vec![decode(X509).into()], key, &provider()).expect("they fit")
}

// openssl req -x509 -newkey ed25519 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost
const X509: &str = "\
    MIIBVTCCAQegAwIBAgIUHmzWCZ3jBMkFABOk4ELSrtoIvSUwBQYDK2VwMBQxEjAQ\
    BgNVBAMMCWxvY2FsaG9zdDAgFw0yNjExMjIxNTA0MzVaGA8yMTI2MTAyOTE1MDQz\
    NVowFDESMBAGA1UEAwwJbG9jYWxob3N0MCowBQYDK2VwAyEA9gF4OWxDHVN3uzDN\
    bITVGwEp4zBbfHASCrHJ6Q5m+FSjaTBnMB0GA1UdDgQWBBQIIyaqhPx1biR+sX/T\
    pkjb9BDjBzAfBgNVHSMEGDAWgBQIIyaqhPx1biR+sX/Tpkjb9BDjBzAPBgNVHRMB\
    Af8EBTADAQH/MBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAFBgMrZXADQQCmDlWQMoTE\
    Zk66IY2gWlfSfk1CTKFlkTO0ECx3SPBaoz2ne/QE3kiOYp/k0njIXJlZfLFwQ1/9\
    l3deoCwzvRcL";
const X509_KEY: &str = "MC4CAQAwBQYDK2VwBCIEIB34eHgrQSHlffnXwGYzuSE1lxHN0xl/llbXtP44vq36";

/// A client without any key, that says or does not say that it deals in raw ones.
#[derive(Debug)]
struct NoKey {
    offers_raw: bool,
}

impl ResolvesClientCert for NoKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }

    fn only_raw_public_keys(&self) -> bool {
        self.offers_raw
    }
}

#[tokio::test]
async fn each_side_learns_the_others_id() {
    let (alice, bob) = (identity(), identity());
    let met =
        Met::over(server(&bob, &Trust::only([alice.peer_id()])), client(&alice, &Trust::none(), Some(&bob)))
            .await;
    let (at_client, at_server) = met.expect_connected();
    assert_eq!(peer_id_of_connection(at_client), Some(bob.peer_id()));
    assert_eq!(peer_id_of_connection(at_server), Some(alice.peer_id()));
}

#[tokio::test]
async fn the_protocol_is_negotiated_and_no_name_is_sent() {
    let (alice, bob) = (identity(), identity());
    let met = Met::over(server(&bob, &everybody()), client(&alice, &everybody(), None)).await;
    let (at_client, at_server) = met.expect_connected();
    for connection in [at_client, at_server] {
        let data = connection.handshake_data().expect("is over");
        let data = data.downcast::<HandshakeData>().expect("is rustls's");
        assert_eq!(data.protocol.as_deref(), Some(b"shiplane/1".as_slice()));
        assert_eq!(data.server_name, None);
    }
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_a_wrong_key() {
    let (alice, bob, carol) = (identity(), identity(), identity());
    let (trust, asked) = asked();
    // Even though the key is trusted.
    let met = Met::over(server(&bob, &everybody()), client(&alice, &trust, Some(&carol))).await;
    let faults = met.expect_failed(AlertDescription::CertificateUnknown);
    assert_eq!(faults, (HandshakeFault::WrongKey, HandshakeFault::RefusedByPeer));
    assert!(asked.lock().expect("no panic").is_empty());
    // The wrong server is not told whom the client was looking for.
    let told = met.server.expect_err("failed").to_string();
    assert!(!told.contains("sl1"), "{told}");
}

#[tokio::test]
async fn without_a_pin_trust_decides_about_the_server() {
    let (alice, bob) = (identity(), identity());
    let trusting = client(&alice, &Trust::only([bob.peer_id()]), None);
    Met::over(server(&bob, &everybody()), trusting).await.expect_connected();

    for wary in [Trust::none(), Trust::ask(|_| Admission::Guest)] {
        let met = Met::over(server(&bob, &everybody()), client(&alice, &wary, None)).await;
        let faults = met.expect_failed(AlertDescription::AccessDenied);
        assert_eq!(faults, (HandshakeFault::UntrustedKey, HandshakeFault::RefusedByPeer));
    }
}

#[tokio::test]
async fn a_client_that_the_server_does_not_know_is_refused() {
    let (alice, bob, carol) = (identity(), identity(), identity());
    for trust in [Trust::only([carol.peer_id()]), Trust::none()] {
        let met = Met::over(server(&bob, &trust), client(&alice, &Trust::none(), Some(&bob))).await;
        let faults = met.expect_failed(AlertDescription::AccessDenied);
        assert_eq!(faults, (HandshakeFault::RefusedByPeer, HandshakeFault::UntrustedKey));
    }
}

#[tokio::test]
async fn a_guest_gets_in() {
    let (alice, bob) = (identity(), identity());
    let met = Met::over(
        server(&bob, &Trust::ask(|_| Admission::Guest)),
        client(&alice, &Trust::none(), Some(&bob)),
    )
    .await;
    met.expect_connected();
}

#[tokio::test]
async fn a_revoked_key_does_not_get_in_again() {
    let (alice, bob) = (identity(), identity());
    let revoked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&revoked);
    let trust = Trust::ask(move |_| match seen.load(Ordering::Relaxed) {
        false => Admission::Trusted,
        true => Admission::Refused,
    });
    let server = RawKeyVerifier::new(Policy::Clients(trust));
    let key = AlwaysResolvesServerRawPublicKeys::new(certified_key(&bob).expect("a key"));
    let server = server_config(Arc::new(server), Arc::new(key)).expect("a server");
    // One configuration, hence one store of sessions if there were one.
    let key = AlwaysResolvesClientRawPublicKeys::new(certified_key(&alice).expect("a key"));
    let client = client_with(key);

    Met::over(server.clone(), client.clone()).await.expect_connected();
    revoked.store(true, Ordering::Relaxed);
    let met = Met::over(server, client).await;
    let (fault, _) = met.expect_failed(AlertDescription::AccessDenied);
    assert_eq!(fault, HandshakeFault::RefusedByPeer);
}

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    let bob = identity();
    let empty = client_with(NoKey { offers_raw: true });
    let met = Met::over(server(&bob, &everybody()), empty).await;
    let (fault, _) = met.expect_failed(AlertDescription::CertificateRequired);
    assert_eq!(fault, HandshakeFault::RefusedByPeer);

    let silent = client_with(NoKey { offers_raw: false });
    Met::over(server(&bob, &everybody()), silent).await.expect_failed(AlertDescription::HandshakeFailure);
}

#[tokio::test]
async fn a_server_that_asks_for_no_key_is_refused() {
    let (alice, bob) = (identity(), identity());
    let key = AlwaysResolvesServerRawPublicKeys::new(certified_key(&bob).expect("a key"));
    let server = server_config(WebPkiClientVerifier::no_client_auth(), Arc::new(key));
    Met::over(server.expect("a server"), client(&alice, &everybody(), None))
        .await
        .expect_failed(AlertDescription::HandshakeFailure);
}

#[tokio::test]
async fn x509_is_refused_both_ways() {
    let alice = identity();
    let x509 = self_signed_x509();
    let theirs = server_with(SingleCertAndKey::from(x509.clone()));
    Met::over(theirs, client(&alice, &everybody(), None))
        .await
        .expect_failed(AlertDescription::HandshakeFailure);

    let theirs = client_with(SingleCertAndKey::from(x509));
    Met::over(server(&alice, &everybody()), theirs).await.expect_failed(AlertDescription::HandshakeFailure);
}

#[tokio::test]
async fn only_the_44_bytes_of_one_ed25519_key_are_a_key() {
    let (alice, mallory) = (identity(), identity());
    let spki = spki_of(&mallory.peer_id());
    let x509 = self_signed_x509();
    let long = [&spki[..], &[0]].concat();
    let mut x25519 = spki.clone();
    x25519[8] = 0x6e;
    let signer = signing_key(&mallory);
    let wrong = [
        Arc::new(x509),
        shown(&[&spki, &spki], Arc::clone(&signer)),
        shown(&[&long], Arc::clone(&signer)),
        shown(&[&spki[..43]], Arc::clone(&signer)),
        shown(&[&x25519], signer),
    ];
    for key in wrong {
        let (trust, asked) = asked();
        let theirs = client_with(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&key)));
        let met = Met::over(server(&alice, &trust), theirs).await;
        let (fault, _) = met.expect_failed(AlertDescription::BadCertificate);
        assert_eq!(fault, HandshakeFault::RefusedByPeer);

        let theirs = server_with(AlwaysResolvesServerRawPublicKeys::new(key));
        let met = Met::over(theirs, client(&alice, &trust, None)).await;
        let (_, fault) = met.expect_failed(AlertDescription::BadCertificate);
        assert_eq!(fault, HandshakeFault::RefusedByPeer);
        assert!(asked.lock().expect("no panic").is_empty());
    }
}

// SPEC 1.3
#[tokio::test]
async fn a_key_that_is_not_the_peers_own_is_not_even_asked_about() {
    let (alice, victim, mallory) = (identity(), identity(), identity());
    let stolen = shown(&[&spki_of(&victim.peer_id())], signing_key(&mallory));
    let (trust, asked) = asked();
    let thief = client_with(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&stolen)));
    Met::over(server(&alice, &trust), thief).await.expect_failed(AlertDescription::DecryptError);

    let thief = || server_with(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&stolen)));
    Met::over(thief(), client(&alice, &trust, None)).await.expect_failed(AlertDescription::DecryptError);
    Met::over(thief(), client(&alice, &trust, Some(&victim)))
        .await
        .expect_failed(AlertDescription::DecryptError);
    assert!(asked.lock().expect("no panic").is_empty());
}

/// Signs with its key, but calls the signature something else.
#[derive(Debug)]
struct Mislabelled(Arc<dyn SigningKey>);

impl SigningKey for Mislabelled {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(MislabelledSigner(self.0.choose_scheme(offered)?)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct MislabelledSigner(Box<dyn Signer>);

impl Signer for MislabelledSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

#[tokio::test]
async fn a_signature_of_another_scheme_is_refused() {
    let (alice, mallory) = (identity(), identity());
    let signer = Arc::new(Mislabelled(signing_key(&mallory)));
    let key = shown(&[&spki_of(&mallory.peer_id())], signer);
    let theirs = client_with(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&key)));
    Met::over(server(&alice, &everybody()), theirs).await.expect_failed(AlertDescription::IllegalParameter);
    let theirs = server_with(AlwaysResolvesServerRawPublicKeys::new(key));
    Met::over(theirs, client(&alice, &everybody(), None))
        .await
        .expect_failed(AlertDescription::IllegalParameter);
}

#[tokio::test]
async fn another_protocol_or_none_is_refused() {
    let (alice, bob) = (identity(), identity());
    let wrong: [&[&[u8]]; 6] =
        [&[], &[b"octopii"], &[b"shiplane/2"], &[b"shiplane/1 "], &[b"Shiplane/1"], &[b"shiplane/", b"1"]];
    for protocols in wrong {
        let offered: Vec<_> = protocols.iter().map(|name| name.to_vec()).collect();
        let key = certified_key(&alice).expect("a key");
        let mut theirs = client_with(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&key)));
        theirs.alpn_protocols = offered.clone();
        let met = Met::over(server(&bob, &everybody()), theirs).await;
        let faults = met.expect_failed(AlertDescription::NoApplicationProtocol);
        assert_eq!(faults, (HandshakeFault::WrongProtocol, HandshakeFault::WrongProtocol));

        let mut theirs = server_with(AlwaysResolvesServerRawPublicKeys::new(key));
        theirs.alpn_protocols = offered;
        let met = Met::over(theirs, client(&bob, &everybody(), None)).await;
        let (fault, _) = met.expect_failed(AlertDescription::NoApplicationProtocol);
        assert_eq!(fault, HandshakeFault::WrongProtocol);
    }
}

#[test]
fn aes_128_is_negotiated_and_no_session_can_be_resumed() {
    let key = certified_key(&identity()).expect("a key");
    let client = client_with(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&key)));
    let server = server_with(AlwaysResolvesServerRawPublicKeys::new(key));
    let name = SERVER_NAME.try_into().expect("a name");
    let mut client =
        ClientConnection::new(Arc::new(client), Version::V1, name, Vec::new()).expect("a connection");
    let mut server = ServerConnection::new(Arc::new(server), Version::V1, Vec::new()).expect("a connection");
    // Level by level, as QUIC has it. There are four; a ticket would come in the last one.
    for _ in 0..4 {
        let mut level = Vec::new();
        client.write_hs(&mut level);
        server.read_hs(&level).expect("goes on");
        level.clear();
        server.write_hs(&mut level);
        client.read_hs(&level).expect("goes on");
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.tls13_tickets_received(), 0);
    let suite = client.negotiated_cipher_suite().expect("is over").suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn what_the_peer_closes_with_is_never_our_own_finding() {
    let alerts = (0..=u8::MAX).map(TransportErrorCode::crypto);
    for error_code in alerts.chain([TransportErrorCode::CONNECTION_REFUSED]) {
        let theirs = ConnectionError::ConnectionClosed(ConnectionClose {
            error_code,
            frame_type: None,
            reason: "not the key that was asked for".into(),
        });
        let fault = classify(&theirs);
        assert_ne!(fault, HandshakeFault::WrongKey, "{error_code}");
        assert_ne!(fault, HandshakeFault::UntrustedKey, "{error_code}");
    }
    assert_eq!(classify(&ConnectionError::TimedOut), HandshakeFault::Other);
}

#[test]
fn an_id_is_read_from_exactly_its_spki() {
    let id = identity().peer_id();
    let spki = spki_of(&id);
    assert_eq!(spki.len(), 44);
    assert_eq!(peer_id_of(&spki), Some(id));
    for len_bytes in 0..44 {
        assert_eq!(peer_id_of(&spki[..len_bytes]), None);
    }
    for at in 0..SPKI_PREFIX.len() {
        let mut wrong = spki.clone();
        wrong[at] ^= 1;
        assert_eq!(peer_id_of(&wrong), None);
    }
}
