//! Any peer that speaks the dialect is accepted, and no other; a warning says that no peer is authenticated.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use rustls::RootCertStore;
use shiplane_transport::{Admission, BindError, ConnectError, Identity, PeerAddr, QuicTransport, Trust};
use tracing::{Event, Level, Metadata, Subscriber, field, span};

use super::*;

#[tokio::test]
async fn another_protocol_is_refused_both_ways() {
    let ours = transport();
    let endpoint = quinn::Endpoint::server(raw_server("h3"), LOCALHOST).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let accept = async { endpoint.accept().await.unwrap().await };
    let (theirs, dialled) = tokio::join!(accept, ours.connect(addr, Lane));
    assert!(theirs.is_err());
    assert!(matches!(dialled, Err(ConnectError::WrongProtocol { addr: at }) if at == addr));

    let client = raw_client_trusting(RootCertStore::empty(), "h3");
    let refused = endpoint.connect_with(client, ours.local_addr().unwrap(), "localhost").unwrap().await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn neither_dialect_gets_into_the_others_endpoint() {
    let identity = Identity::generate().unwrap();
    let id = identity.peer_id();
    // Even one that admits every key.
    let trust = Trust::ask(|_| Admission::Trusted);
    let shiplane = QuicTransport::builder().identity(identity).trust(trust).bind(LOCALHOST).unwrap();
    let octopii = transport();

    let addr = shiplane.local_addr().unwrap();
    let refused = octopii.connect(addr, Lane).await.unwrap_err();
    let is_expected = matches!(refused, ConnectError::WrongProtocol { .. } | ConnectError::Failed { .. });
    assert!(is_expected, "{refused:?}");

    let addr = octopii.local_addr().unwrap();
    let refused = shiplane.connect(addr).await.unwrap_err();
    let is_expected = |error: &ConnectError| {
        matches!(error, ConnectError::WrongProtocol { .. } | ConnectError::Failed { .. })
    };
    assert!(is_expected(&refused), "{refused:?}");
    let refused = shiplane.connect_to(PeerAddr { id, addr }).await.unwrap_err();
    assert!(is_expected(&refused), "{refused:?}");
    // Both have heard of the other's refusal by now, so an admitted peer would be here.
    assert!(timeout(Duration::ZERO, octopii.accept(Lane)).await.is_err());
    assert!(timeout(Duration::ZERO, shiplane.accept()).await.is_err());
}

/// A client that does verify finds a sound certificate for the name that the original asks for.
#[tokio::test]
async fn the_certificate_is_a_sound_one_for_localhost() {
    let (certificate, key) = tls::self_signed().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let tls = tls::server(certificate, key).unwrap();
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(server, LOCALHOST).unwrap();
    let addr = endpoint.local_addr().unwrap();

    for (name, is_known) in [("localhost", true), ("somebody.example", false)] {
        let client = raw_client_trusting(roots.clone(), "octopii");
        let accept = async { endpoint.accept().await.unwrap().await };
        let dial = endpoint.connect_with(client, addr, name).unwrap();
        let (_, dialled) = tokio::join!(accept, dial);
        assert_eq!(dialled.is_ok(), is_known, "{name}: {dialled:?}");
    }
}

#[tokio::test]
async fn two_transports_share_no_certificate() {
    let [one, other] = [(); 2].map(|()| tls::self_signed().unwrap());
    assert_ne!(one.0, other.0);
}

#[tokio::test]
async fn a_closed_transport_does_not_answer() {
    let (ours, other) = (transport(), transport());
    let addr = other.local_addr().unwrap();
    other.shutdown().await;
    assert!(other.accept(Lane).await.is_none());
    assert!(matches!(
        other.connect(ours.local_addr().unwrap(), Lane).await,
        Err(ConnectError::CannotDial { .. })
    ));
    drop(other);
    let config = TransportConfig::default().handshake_timeout(Duration::from_millis(200));
    let hasty = transport_with(config);
    let refused = hasty.connect(addr, Lane).await.unwrap_err();
    assert!(matches!(refused, ConnectError::TimedOut { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_taken_address_is_an_error() {
    let ours = transport();
    let addr = ours.local_addr().unwrap();
    let refused = InsecureOctopiiTransport::bind(addr, TransportConfig::default(), AcceptAnyPeer);
    assert!(matches!(refused, Err(BindError::Socket { addr: at, .. }) if at == addr));
}

/// Connections of strangers that are not accepted are bounded in number, and get no stream.
#[tokio::test]
async fn untaken_connections_are_bounded_and_get_no_stream() {
    const PLACES: usize = 64;
    let ours = transport();
    let addr = ours.local_addr().unwrap();
    let endpoint = quinn::Endpoint::client(LOCALHOST).unwrap();
    let mut ends = tokio::task::JoinSet::new();
    for _ in 0..=PLACES {
        let connection = endpoint.connect_with(raw_client(), addr, "localhost").unwrap().await.unwrap();
        ends.spawn(async move { connection.closed().await });
    }
    let refused = timeout(AMPLE, ends.join_next()).await.expect("one is too many").unwrap().unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = refused else { panic!("{refused:?}") };
    assert_eq!(close.error_code.into_inner(), shiplane_wire::Code::Busy.as_u64());
    assert_eq!(ends.len(), PLACES);
    assert!(timeout(Duration::ZERO, ends.join_next()).await.is_err(), "the others have a place");

    for _ in 0..PLACES {
        ours.accept(Lane).await.unwrap();
    }
    let next = endpoint.connect_with(raw_client(), addr, "localhost").unwrap().await.unwrap();
    let mut opening = std::pin::pin!(next.open_bi());
    assert!(timeout(Duration::ZERO, &mut opening).await.is_err(), "nobody has taken it");
    let _taken = ours.accept(Lane).await.unwrap();
    timeout(AMPLE, opening).await.expect("now there is a stream").unwrap();
}

#[test]
fn a_warning_says_that_no_peer_is_authenticated() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // With less than two subscribers, a place in the code that is first reached by another test's thread,
    // which has none, stays silent for all. So it is known before, and there are two.
    runtime.block_on(async { drop(transport()) });
    let _second = tracing::Dispatch::new(Warnings::default());
    let warnings = Warnings::default();
    let seen = Arc::clone(&warnings.0);
    tracing::subscriber::with_default(warnings, || {
        runtime.block_on(async { drop(transport()) });
    });
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|text| text.contains("NO PEER IS AUTHENTICATED")), "{seen:?}");
}

/// A client that verifies against `roots`.
fn raw_client_trusting(roots: RootCertStore, alpn: &str) -> quinn::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    quinn::ClientConfig::new(Arc::new(crypto))
}

/// Keeps the texts of warnings.
#[derive(Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

static SPANS: AtomicU64 = AtomicU64::new(1);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        struct Text<'a>(&'a mut Vec<String>);
        impl field::Visit for Text<'_> {
            fn record_debug(&mut self, field: &field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.push(format!("{value:?}"));
                }
            }
        }
        event.record(&mut Text(&mut self.0.lock().unwrap()));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(SPANS.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
