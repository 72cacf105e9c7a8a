//! One flow of shiplane's lane over a real link, memory to memory: what `cargo xtask wan` compares the program with.
//!
//! `lane_flow receive` prints its address and serves one sender; `lane_flow send ADDR` keeps parallel
//! chunk streams busy for a number of bytes or seconds and prints one line of JSON. Both trust any key: the
//! link is a test's own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use shiplane_benches::{Failure, anyone, quantile, runtime};
use shiplane_transport::{
    ChunkSource, LaneOptions, PeerConnection, QuicTransport, TransportConfig,
    internals::{ChunkSink, CongestionControl, SinkError},
};
use shiplane_wire::{DigestAlgorithm, Durability, Stored, Verified};

#[derive(Parser)]
enum Args {
    /// Take chunks from one sender until it has gone
    Receive,
    /// Send, then print the figures
    Send(SendArgs),
}

#[derive(clap::Args)]
struct SendArgs {
    addr: SocketAddr,
    /// Stop after this number of MiB
    #[arg(long)]
    mib: u64,
    /// Start no chunk after this number of seconds
    #[arg(long)]
    seconds: f64,
    /// A window that stays as it is, in place of our congestion control
    #[arg(long)]
    window_bytes: Option<u64>,
}

fn main() -> Result<(), Failure> {
    runtime()?.block_on(async {
        match Args::parse() {
            Args::Receive => receive().await,
            Args::Send(args) => send(args).await,
        }
    })
}

async fn receive() -> Result<(), Failure> {
    let transport = QuicTransport::builder().trust(anyone()).bind(ANYWHERE)?;
    println!("{}", transport.local_addr()?);
    let (_, peer) = transport.accept().await?;
    let mut lanes = tokio::task::JoinSet::new();
    let options = LaneOptions::default().digest(DigestAlgorithm::Blake3);
    for _ in 0..RECEIVERS {
        let (peer, options) = (Arc::clone(&peer), options.clone());
        lanes.spawn(async move {
            while let Ok(Some(chunk)) = peer.next_chunk().await {
                let len_bytes = chunk.len_bytes();
                if chunk.receive(len_bytes, Nowhere, &options).await.is_err() {
                    break;
                }
            }
        });
    }
    while peer.recv().await.is_ok_and(|message| message.is_some()) {}
    lanes.join_all().await;
    Ok(())
}

async fn send(args: SendArgs) -> Result<(), Failure> {
    let fixed = args.window_bytes.map(|window_bytes| CongestionControl::Fixed { window_bytes });
    let config = TransportConfig::default().congestion(fixed.unwrap_or(CongestionControl::Shiplane));
    let transport = QuicTransport::builder().trust(anyone()).config(config).bind(ANYWHERE)?;
    let start = Instant::now();
    let peer = transport.connect(args.addr).await?;
    let idle_rtt = peer.stats().path.rtt;
    let done = Arc::new(AtomicBool::new(false));
    let messages =
        tokio::spawn(send_messages(Arc::clone(&peer), Arc::clone(&done), START_UP_RTTS * idle_rtt));
    let sent_bytes = send_lanes(&args, &peer, start).await?;
    let seconds = start.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    let mut messages_ms = messages.await?;
    let stats = peer.stats();
    println!(
        "{{\"seconds\":{seconds:.4},\"mbit_s\":{:.2},\"sent_packets\":{},\"lost_packets\":{},\"message_p99_ms\":{:.3}}}",
        sent_bytes as f64 * 8e-6 / seconds,
        stats.path.sent_packets,
        stats.path.lost_packets,
        quantile(&mut messages_ms, 0.99),
    );
    transport.shutdown(GRACE).await;
    Ok(())
}

/// Keeps [`STREAMS`] chunks under way until the bytes or the time are used up.
async fn send_lanes(args: &SendArgs, peer: &Arc<PeerConnection>, start: Instant) -> Result<u64, Failure> {
    let chunk = Bytes::from(vec![7; CHUNK_LEN_BYTES]);
    let chunks = args.mib * 1024 * 1024 / chunk.len() as u64;
    let taken = Arc::new(AtomicU64::new(0));
    let until = start + Duration::from_secs_f64(args.seconds);
    let mut lanes = tokio::task::JoinSet::new();
    let options = LaneOptions::default().digest(DigestAlgorithm::Blake3);
    for _ in 0..STREAMS {
        let (peer, taken, source) =
            (Arc::clone(peer), Arc::clone(&taken), ChunkSource::Memory(chunk.clone()));
        let options = options.clone();
        lanes.spawn(async move {
            let mut sent_bytes = 0;
            while Instant::now() < until && taken.fetch_add(1, Ordering::Relaxed) < chunks {
                sent_bytes += peer.send_chunk_with(&source, &options).await?;
            }
            Ok::<u64, Failure>(sent_bytes)
        });
    }
    let mut total = 0;
    while let Some(sent_bytes) = lanes.join_next().await {
        total += sent_bytes??;
    }
    Ok(total)
}

/// Once the bulk has found its rate, sends small messages beside it and returns how many milliseconds each
/// took until it was acknowledged.
async fn send_messages(peer: Arc<PeerConnection>, done: Arc<AtomicBool>, start_up: Duration) -> Vec<f64> {
    tokio::time::sleep(start_up).await;
    let mut messages = tokio::task::JoinSet::new();
    let mut tick = tokio::time::interval(MESSAGE_INTERVAL);
    while !done.load(Ordering::Relaxed) {
        tick.tick().await;
        let peer = Arc::clone(&peer);
        messages.spawn(async move {
            let began = Instant::now();
            let sent = peer.send(Bytes::from_static(&[7; 256])).await;
            sent.ok().map(|()| began.elapsed().as_secs_f64() * 1e3)
        });
    }
    messages.join_all().await.into_iter().flatten().collect()
}

/// Takes chunks and keeps nothing.
struct Nowhere;

impl ChunkSink for Nowhere {
    type Output = ();
    type Error = SinkError;

    fn is_immediate(&self) -> bool {
        true
    }

    fn write(&mut self, _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }

    fn commit(self, verified: Verified) -> Result<(Stored, ()), SinkError> {
        Ok((verified.stored(Durability::Verified), ()))
    }
}

const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

const STREAMS: u64 = 16;

const CHUNK_LEN_BYTES: usize = 2 << 20;

/// The queue of the start is the start's.
const START_UP_RTTS: u32 = 12;

/// More than a round trip of any path this is used on, so that the receiver ends too.
const GRACE: Duration = Duration::from_secs(1);

/// Rare beside the bulk, and yet hundreds in a few seconds.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(20);

/// As many as the sender may have streams.
const RECEIVERS: usize = 64;
