//! The first rungs: quinn alone, memory to memory, no disk; bare streams, or with `--chunk-kib` a stream
//! for each chunk and a frame as shiplane's, or with `--hash` that frame with its SHA-256.
//!
//! Two threads, each with an endpoint and a `current_thread` runtime; parallel streams as shiplane has
//! them. Prints one line of JSON: seconds, bytes, and the datagram size that the path settled on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use clap::Parser;
use ring::digest::{Context, SHA256};
use shiplane_benches::{
    Failure,
    raw::{client_config, endpoint, server_config},
    runtime,
};
use shiplane_transport::LOCAL_DATAGRAM_LEN_BYTES;

#[derive(Parser)]
struct Args {
    /// MiB to move.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// The largest UDP payload to try; by default what two programs of ours on one machine use.
    #[arg(long, default_value_t = LOCAL_DATAGRAM_LEN_BYTES)]
    mtu: u16,
    /// Parallel streams.
    #[arg(long, default_value_t = 16)]
    streams: u64,
    /// A stream for each so many KiB, with size, digest and answer, 32 of them at a time.
    #[arg(long)]
    chunk_kib: Option<usize>,
    /// Both sides hash each chunk, on the thread that sends and receives.
    #[arg(long, requires = "chunk_kib")]
    hash: bool,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let (told, address) = std::sync::mpsc::channel();
    let (mtu, framing) = (args.mtu, args.framing());
    let receiver = std::thread::spawn(move || -> Result<u64, Failure> {
        runtime()?.block_on(async {
            let endpoint = endpoint(mtu, Some(server_config(mtu)?))?;
            told.send(endpoint.local_addr()?)?;
            let incoming = endpoint.accept().await.ok_or("closed")?;
            receive(incoming.await?, framing).await
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
    match args.framing() {
        Framing::None => send_streams(args, &connection).await?,
        Framing::Chunks { len_bytes, hashed } => send_chunks(args, &connection, len_bytes, hashed).await?,
    }
    let seconds = start.elapsed().as_secs_f64();
    let datagram_len_bytes = connection.stats().path.current_mtu;
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    Ok((seconds, datagram_len_bytes))
}

/// Long streams, as many as were asked for.
async fn send_streams(args: &Args, connection: &quinn::Connection) -> Result<(), Failure> {
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
    Ok(())
}

/// A stream for each chunk: size, data, digest; one byte back.
async fn send_chunks(
    args: &Args,
    connection: &quinn::Connection,
    len_bytes: usize,
    hashed: bool,
) -> Result<(), Failure> {
    let chunk = Bytes::from(vec![7; len_bytes]);
    let chunks = args.mib * 1024 * 1024 / len_bytes as u64;
    let taken = Arc::new(AtomicU64::new(0));
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..CHUNKS_AT_A_TIME {
        let (connection, chunk, taken) = (connection.clone(), chunk.clone(), Arc::clone(&taken));
        lanes.spawn(async move {
            while taken.fetch_add(1, Ordering::Relaxed) < chunks {
                let (mut stream, mut answer) = connection.open_bi().await?;
                let header = Bytes::copy_from_slice(&(chunk.len() as u64).to_be_bytes());
                let digest = if hashed { digest(&chunk) } else { Bytes::from_static(&[0; DIGEST_LEN_BYTES]) };
                stream.write_all_chunks(&mut [header, chunk.clone(), digest]).await?;
                stream.finish()?;
                if answer.read_to_end(1).await? != [STORED] {
                    return Err("a chunk was not taken".into());
                }
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(sent) = lanes.join_next().await {
        sent??;
    }
    Ok(())
}

async fn receive(connection: quinn::Connection, framing: Framing) -> Result<u64, Failure> {
    let mut streams = tokio::task::JoinSet::new();
    while let Ok((mut answer, stream)) = connection.accept_bi().await {
        streams.spawn(async move {
            let received = match framing {
                Framing::None => receive_all(stream).await?,
                Framing::Chunks { hashed, .. } => {
                    let received = receive_chunk(stream, hashed).await?;
                    answer.write_all(&[STORED]).await?;
                    received
                }
            };
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

async fn receive_all(mut stream: quinn::RecvStream) -> Result<u64, Failure> {
    let mut received = 0;
    let mut bufs: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
    while let Some(count) = stream.read_chunks(&mut bufs).await? {
        received += bufs[..count].iter().map(|piece| piece.len() as u64).sum::<u64>();
    }
    Ok(received)
}

/// Hashes as it comes, where it hashes at all.
async fn receive_chunk(mut stream: quinn::RecvStream, hashed: bool) -> Result<u64, Failure> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    let len_bytes = u64::from_be_bytes(header);
    let mut hasher = Context::new(&SHA256);
    let mut left = usize::try_from(len_bytes)?;
    while left > 0 {
        let piece = stream.read_chunk(left, true).await?.ok_or("a chunk ended early")?;
        left -= piece.bytes.len();
        if hashed {
            hasher.update(&piece.bytes);
        }
    }
    let digest = stream.read_to_end(DIGEST_LEN_BYTES).await?;
    if hashed && digest != hasher.finish().as_ref() {
        return Err("a wrong digest".into());
    }
    Ok(len_bytes)
}

fn digest(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(ring::digest::digest(&SHA256, data).as_ref())
}

/// What goes around the bytes.
#[derive(Clone, Copy)]
enum Framing {
    None,
    Chunks { len_bytes: usize, hashed: bool },
}

impl Args {
    fn framing(&self) -> Framing {
        match self.chunk_kib {
            Some(kib) => Framing::Chunks { len_bytes: kib * 1024, hashed: self.hash },
            None => Framing::None,
        }
    }
}

const PIECE_LEN_BYTES: usize = 256 * 1024;
const DIGEST_LEN_BYTES: usize = 32;
const STORED: u8 = 0;

/// As `shiplane get` has them.
const CHUNKS_AT_A_TIME: usize = 32;
