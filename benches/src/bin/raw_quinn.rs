//! The first rung: quinn alone, memory to memory, no framing, no hash, no disk.
//!
//! Two threads, each with an endpoint and a `current_thread` runtime; parallel streams as shiplane has
//! them. Prints one line of JSON: seconds, bytes, and the datagram size that the path settled on.

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;
use clap::Parser;
use shiplane_benches::{
    Failure,
    raw::{client_config, endpoint, server_config},
    runtime,
};

#[derive(Parser)]
struct Args {
    /// MiB to move.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// The largest UDP payload to try.
    #[arg(long, default_value_t = 8952)]
    mtu: u16,
    /// Parallel streams.
    #[arg(long, default_value_t = 16)]
    streams: u64,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let (told, address) = std::sync::mpsc::channel();
    let mtu = args.mtu;
    let receiver = std::thread::spawn(move || -> Result<u64, Failure> {
        runtime()?.block_on(async {
            let endpoint = endpoint(mtu, Some(server_config(mtu)?))?;
            told.send(endpoint.local_addr()?)?;
            let incoming = endpoint.accept().await.ok_or("closed")?;
            receive(incoming.await?).await
        })
    });
    let server = address.recv()?;
    let (seconds, datagram_len_bytes) = runtime()?.block_on(send(&args, server))?;
    let received = receiver.join().map_err(|_| "the receiver panicked")??;
    println!("{{\"seconds\":{seconds:.4},\"bytes\":{received},\"mtu\":{datagram_len_bytes}}}");
    Ok(())
}

async fn send(args: &Args, server: SocketAddr) -> Result<(f64, u16), Failure> {
    let mut endpoint = endpoint(args.mtu, None)?;
    endpoint.set_default_client_config(client_config(args.mtu)?);
    let connection = endpoint.connect(server, "raw")?.await?;
    let start = Instant::now();
    let piece = Bytes::from(vec![7; PIECE_LEN_BYTES]);
    let pieces = args.mib * 1024 * 1024 / PIECE_LEN_BYTES as u64 / args.streams;
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..args.streams {
        let (mut stream, mut answer) = connection.open_bi().await?;
        let piece = piece.clone();
        streams.spawn(async move {
            for _ in 0..pieces {
                stream.write_chunk(piece.clone()).await?;
            }
            stream.finish()?;
            answer.read_to_end(1).await?;
            Ok::<_, Failure>(())
        });
    }
    while let Some(sent) = streams.join_next().await {
        sent??;
    }
    let seconds = start.elapsed().as_secs_f64();
    let datagram_len_bytes = connection.stats().path.current_mtu;
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    Ok((seconds, datagram_len_bytes))
}

async fn receive(connection: quinn::Connection) -> Result<u64, Failure> {
    let mut streams = tokio::task::JoinSet::new();
    while let Ok((mut answer, mut stream)) = connection.accept_bi().await {
        streams.spawn(async move {
            let mut received = 0;
            let mut bufs: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
            while let Some(count) = stream.read_chunks(&mut bufs).await? {
                received += bufs[..count].iter().map(|piece| piece.len() as u64).sum::<u64>();
            }
            answer.finish()?;
            Ok::<_, Failure>(received)
        });
    }
    let mut total = 0;
    while let Some(received) = streams.join_next().await {
        total += received??;
    }
    Ok(total)
}

const PIECE_LEN_BYTES: usize = 256 * 1024;
