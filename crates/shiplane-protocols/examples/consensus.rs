//! What a consensus library such as openraft needs of a network: a follower that has fallen behind
//! gets a snapshot, and the heartbeats that keep the leader in office go on meanwhile.
//!
//! Both share one connection. The snapshot is one chunk down the lane, verified before the follower
//! installs it; heartbeats are calls, which overtake it. The figures at the end show by how much.
//!
//! `cargo run --release -p shiplane-protocols --example consensus`

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use shiplane_rpc::{Fault, FaultCode, Method, Router, RpcClient};
use shiplane_transport::{
    ChunkExpectation, ChunkSource, Identity, PeerAddr, PeerConnection, QuicTransport, Trust,
};
use shiplane_wire::Digest;

type Failure = Box<dyn Error + Send + Sync>;

/// The leader of a term is alive; the answer is the follower's own term.
const HEARTBEAT: Method<u64, u64> = Method::new("raft.heartbeat");

/// A snapshot of this length and digest comes next, as a bare chunk; answered once it is installed.
const INSTALL: Method<(u64, [u8; 32]), ()> = Method::new("raft.install-snapshot");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (leader, follower) = (Identity::generate()?, Identity::generate()?);
    let (leader_id, follower_id) = (leader.peer_id(), follower.peer_id());
    let bind = |identity, trusted| {
        let builder = QuicTransport::builder().identity(identity).trust(Trust::only([trusted]));
        builder.bind(([127, 0, 0, 1], 0).into())
    };
    let (leader, follower) = (bind(leader, follower_id)?, bind(follower, leader_id)?);
    let follower_addr = PeerAddr { id: follower_id, addr: follower.local_addr()? };
    let following = tokio::spawn(async move {
        if let Ok((_, peer)) = follower.accept().await {
            Arc::new(follower_methods()).serve(peer).await;
        }
    });

    let peer = leader.connect_to(follower_addr).await?;
    let client = RpcClient::new(Arc::clone(&peer));
    let idle = heartbeats(&client, idle_time()).await?;
    let beside = heartbeats(&client, install(&client, &peer)).await?;
    println!("heartbeats while idle:              {}", figures(idle));
    println!("heartbeats beside the snapshot:     {}", figures(beside));
    leader.shutdown(Duration::from_secs(1)).await;
    following.await?;
    Ok(())
}

async fn idle_time() -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

fn follower_methods() -> Router {
    Router::new().typed(HEARTBEAT, |_context, term| async move { Ok(term) }).typed(
        INSTALL,
        |context, (len_bytes, digest)| async move {
            let expected =
                ChunkExpectation::default().len_bytes(len_bytes).digest(Digest::from_bytes(digest));
            let received = context.connection.recv_chunk_expecting(&expected).await;
            match received {
                // Here a state machine would be replaced by `snapshot`.
                Ok(Some(snapshot)) => {
                    println!("installed a snapshot of {} bytes", snapshot.len());
                    Ok(())
                }
                Ok(None) => Err(Fault::new(FaultCode::Gone, "the connection ended")),
                Err(error) => Err(Fault::new(FaultCode::SinkIo, error.to_string())),
            }
        },
    )
}

/// Asks the follower to expect the snapshot, and sends it.
async fn install(client: &RpcClient, peer: &PeerConnection) -> Result<(), Failure> {
    let snapshot = Bytes::from(vec![7; SNAPSHOT_LEN_BYTES]);
    let announced = (snapshot.len() as u64, *Digest::sha256(&snapshot).as_bytes());
    let source = ChunkSource::Memory(snapshot);
    let installed = client.call_typed(INSTALL, &announced, Duration::from_secs(60));
    let (installed, sent) = tokio::join!(installed, peer.send_chunk_verified(&source));
    sent?;
    Ok(installed?)
}

/// One heartbeat after another until `work` is done; how long each took, the shortest first.
async fn heartbeats(
    client: &RpcClient,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<Vec<Duration>, Failure> {
    let mut work = std::pin::pin!(work);
    let mut took = Vec::new();
    for term in 0.. {
        let began = Instant::now();
        let beat = client.call_typed(HEARTBEAT, &term, Duration::from_secs(1));
        let mut beat = std::pin::pin!(beat);
        let is_done = tokio::select! {
            answer = &mut beat => {
                answer?;
                false
            }
            done = &mut work => {
                done?;
                true
            }
        };
        if is_done {
            break;
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

fn figures(took: Vec<Duration>) -> String {
    let at = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1)));
    match (at(50), at(99)) {
        (Some(p50), Some(p99)) => format!("{} calls, p50 {p50:?}, p99 {p99:?}", took.len()),
        _ => "none".to_owned(),
    }
}

/// 256 MiB: a second or less on loopback.
const SNAPSHOT_LEN_BYTES: usize = 256 << 20;
