//! A harness: two connected peers, and helpers to play one of them by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use shiplane_rpc::{CallError, Fault, FaultCode, RequestContext, Router, RpcClient};
use shiplane_transport::{Identity, PeerAddr, PeerConnection, QuicTransport, Trust};
use shiplane_wire::{StreamHeader, StreamKind};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

/// What a handler returns.
pub(crate) type Handled = Result<Bytes, Fault>;

/// Far more than any story takes.
pub(crate) const AMPLE: Duration = Duration::from_secs(60);

/// Alice dialled Bob.
pub(crate) struct Pair {
    pub(crate) alice: Arc<PeerConnection>,
    pub(crate) bob: Arc<PeerConnection>,
    // Dropped, a transport closes its connections.
    _transports: [QuicTransport; 2],
}

impl Pair {
    pub(crate) async fn new() -> Self {
        let (alice, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (alice_id, bob_id) = (alice.peer_id(), bob.peer_id());
        let bind = |identity, trusted| {
            let builder = QuicTransport::builder().identity(identity).trust(Trust::only([trusted]));
            builder.bind("127.0.0.1:0".parse().unwrap()).unwrap()
        };
        let (alice, bob) = (bind(alice, bob_id), bind(bob, alice_id));
        let bob_addr = PeerAddr { id: bob_id, addr: bob.local_addr().unwrap() };
        let (dialled, accepted) = tokio::join!(alice.connect_to(bob_addr), bob.accept());
        Self { alice: dialled.unwrap(), bob: accepted.unwrap().1, _transports: [alice, bob] }
    }

    /// Alice's client, with Bob serving `router`.
    pub(crate) async fn serving(router: Router) -> (Self, RpcClient) {
        let pair = Self::new().await;
        pair.bob_serves(router);
        let client = RpcClient::new(Arc::clone(&pair.alice));
        (pair, client)
    }

    pub(crate) fn bob_serves(&self, router: Router) -> JoinHandle<()> {
        tokio::spawn(Arc::new(router).serve(Arc::clone(&self.bob)))
    }

    pub(crate) fn alice_serves(&self, router: Router) -> JoinHandle<()> {
        tokio::spawn(Arc::new(router).serve(Arc::clone(&self.alice)))
    }
}

/// Two programs with one key, each connected to Bob.
pub(crate) async fn twins() -> (QuicTransport, [(QuicTransport, Arc<PeerConnection>); 2]) {
    let home = tempfile::TempDir::new().unwrap();
    let alice = || Identity::load_or_create(&home.path().join("identity")).unwrap();
    let loopback = "127.0.0.1:0".parse().unwrap();
    let bob = QuicTransport::builder().trust(Trust::only([alice().peer_id()])).bind(loopback).unwrap();
    let bob_addr = PeerAddr { id: bob.peer_id(), addr: bob.local_addr().unwrap() };
    let dial = async || {
        let trust = Trust::only([bob_addr.id]);
        let alice = QuicTransport::builder().identity(alice()).trust(trust).bind(loopback).unwrap();
        let connection = alice.connect_to(bob_addr).await.unwrap();
        (alice, connection)
    };
    let twins = [dial().await, dial().await];
    (bob, twins)
}

/// A header and its body.
pub(crate) fn framed(kind: StreamKind, body: &[u8]) -> Bytes {
    let header = StreamHeader::new(kind, body.len() as u64).unwrap();
    [&header.encode()[..], body].concat().into()
}

/// A request envelope by hand.
pub(crate) fn request(id: u64, method: &str, remaining_ms: u64, body: &[u8]) -> Vec<u8> {
    let mut envelope = id.to_le_bytes().to_vec();
    envelope.extend((method.len() as u64).to_le_bytes());
    envelope.extend(method.as_bytes());
    envelope.extend(remaining_ms.to_le_bytes());
    envelope.extend((body.len() as u64).to_le_bytes());
    envelope.extend(body);
    envelope
}

/// The envelope of a good answer by hand.
pub(crate) fn answer(id: u64, body: &[u8]) -> Vec<u8> {
    let mut envelope = id.to_le_bytes().to_vec();
    envelope.extend(0_u32.to_le_bytes());
    envelope.extend((body.len() as u64).to_le_bytes());
    envelope.extend(body);
    envelope
}

/// The id in a request envelope.
pub(crate) fn id_of(envelope: &[u8]) -> u64 {
    u64::from_le_bytes(envelope[..8].try_into().unwrap())
}

pub(crate) fn fault_code(outcome: Result<Bytes, CallError>) -> FaultCode {
    match outcome {
        Err(CallError::Fault(fault)) => fault.code,
        other => panic!("no fault: {other:?}"),
    }
}

/// Counts what reached a handler.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a handler that never ends tells of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Began,
    /// Whether its token had been triggered by then.
    Dropped {
        cancelled: bool,
    },
}

/// A handler that never ends, and what becomes of it.
pub(crate) fn endless()
-> (impl Fn(RequestContext, Bytes) -> BoxFuture<'static, Handled>, mpsc::UnboundedReceiver<Seen>) {
    struct Tell(mpsc::UnboundedSender<Seen>, RequestContext);
    impl Drop for Tell {
        fn drop(&mut self) {
            let cancelled = self.1.cancelled.is_cancelled();
            let _ = self.0.send(Seen::Dropped { cancelled });
        }
    }
    let (tell, told) = mpsc::unbounded_channel();
    let handler = move |context, _body| {
        let tell = Tell(tell.clone(), context);
        async move {
            let _ = tell.0.send(Seen::Began);
            std::future::pending().await
        }
        .boxed()
    };
    (handler, told)
}

/// Stands for `duration` of work; the clock is virtual.
pub(crate) async fn work(duration: Duration) {
    tokio::time::sleep_until(Instant::now() + duration).await;
}

/// Answers with what it gets.
pub(crate) async fn echo(_context: RequestContext, body: Bytes) -> Handled {
    Ok(body)
}
