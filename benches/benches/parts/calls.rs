//! Calls of 256 bytes over loopback, one runtime thread per side: one and 64 at a time.

use std::{sync::Arc, sync::mpsc, thread, time::Duration};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use shiplane_benches::{Failure, runtime};
use shiplane_rpc::{Router, RpcClient};
use shiplane_transport::{Identity, PeerAddr, PeerId, QuicTransport, Trust};
use tokio::task::JoinSet;

use crate::expect;

pub(crate) fn bench(criterion: &mut Criterion) {
    let runtime = expect(runtime());
    let (_transport, client) = expect(runtime.block_on(connect()));
    let mut group = criterion.benchmark_group("calls");
    for in_flight in [1, 64] {
        group.throughput(Throughput::Elements(in_flight));
        group.bench_function(BenchmarkId::new("echo of 256 bytes", in_flight), |bench| {
            bench.iter(|| expect(runtime.block_on(echoes(&client, in_flight))));
        });
    }
    group.finish();
}

async fn echoes(client: &Arc<RpcClient>, count: u64) -> Result<(), Failure> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let client = Arc::clone(client);
        calls.spawn(async move { client.call(ECHO, Bytes::from_static(&[7; 256]), BUDGET).await });
    }
    while let Some(answered) = calls.join_next().await {
        answered??;
    }
    Ok(())
}

/// The server has a thread of its own and runs until the program ends.
async fn connect() -> Result<(QuicTransport, Arc<RpcClient>), Failure> {
    let identity = Identity::generate()?;
    let client_id = identity.peer_id();
    let (told, address) = mpsc::channel();
    thread::spawn(move || -> Result<(), Failure> { runtime()?.block_on(serve(client_id, told)) });
    let server = address.recv()?;
    let trust = Trust::only([server.id]);
    let transport = QuicTransport::builder().identity(identity).trust(trust).bind(LOCALHOST.into())?;
    let client = RpcClient::new(transport.connect_to(server).await?);
    Ok((transport, Arc::new(client)))
}

async fn serve(client: PeerId, told: mpsc::Sender<PeerAddr>) -> Result<(), Failure> {
    let transport = QuicTransport::builder().trust(Trust::only([client])).bind(LOCALHOST.into())?;
    told.send(PeerAddr { id: transport.peer_id(), addr: transport.local_addr()? })?;
    let router = Arc::new(Router::new().method(ECHO, |_context, body| async move { Ok(body) }));
    while let Ok((_, peer)) = transport.accept().await {
        tokio::spawn(Arc::clone(&router).serve(peer));
    }
    Ok(())
}

const LOCALHOST: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const ECHO: &str = "echo";

/// Only against a hang.
const BUDGET: Duration = Duration::from_secs(10);
