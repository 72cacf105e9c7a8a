//! The last layer of the ladder: a whole fetch, file to file, both peers in one process.
//!
//! Two threads, each with a transport and a `current_thread` runtime, as two programs would have. Prints
//! one line of JSON: seconds, bytes, and what the path came to.

use std::{
    error::Error,
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;
use shiplane_files::internals::{Destination, ReceiveOptions, SourceRoot};
use shiplane_protocols::internals::{
    Fetch, FileServer,
    access::{AccessControl, Grant, Scope},
    redeem,
    transfer::TransferOptions,
};
use shiplane_rpc::RpcClient;
use shiplane_transport::{PeerAddr, QuicTransport, TransportConfig, Trust};
use shiplane_wire::Durability;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser, Clone)]
struct Args {
    /// Size of the file.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Where source and destination go; a memory file system leaves the disk out.
    #[arg(long, default_value = "/dev/shm")]
    dir: std::path::PathBuf,
    /// Sync and publish durably.
    #[arg(long)]
    durable: bool,
    /// Chunks at a time.
    #[arg(long, default_value_t = shiplane_protocols::internals::transfer::DEFAULT_LANES)]
    lanes: usize,
    /// Payload of a chunk, KiB.
    #[arg(long, default_value_t = 4096)]
    chunk_kib: u64,
    /// Buffer of the lanes, KiB.
    #[arg(long, default_value_t = 256)]
    buffer_kib: usize,
    /// Start from an older version of the file, which differs at so many places, by 4 KiB each.
    #[arg(long)]
    edits: Option<u64>,
    /// The largest UDP payload to try; without it, as long as this machine lets pass.
    #[arg(long)]
    mtu: Option<u16>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let scratch = tempfile::tempdir_in(&args.dir)?;
    let source = scratch.path().join("source");
    fs::create_dir(&source)?;
    fill(&source.join("file"), args.mib)?;
    if let Some(edits) = args.edits {
        edit(&source.join("file"), &scratch.path().join("dest"), args.mib, edits)?;
    }

    let access = Arc::new(AccessControl::open(&scratch.path().join("peers")));
    let grant = Grant::read_only(Scope::everything());
    let secret = access.tickets().issue(grant, Duration::from_secs(3600), Instant::now())?;
    let (told, address) = std::sync::mpsc::channel();
    let stop = CancellationToken::new();
    let (server_args, stopped, served) = (args.clone(), stop.clone(), source.clone());
    let server = std::thread::spawn(move || -> Result<(), Failure> {
        runtime()?.block_on(async {
            let transport = QuicTransport::builder().trust(AccessControl::trust(&access));
            let transport = Arc::new(transport.config(config(&server_args)).bind(localhost())?);
            told.send(PeerAddr { id: transport.peer_id(), addr: transport.local_addr()? })?;
            let files = FileServer::new(SourceRoot::open(&served)?, access, options(&server_args));
            files.run(transport, stopped).await;
            Ok(())
        })
    });
    let server_addr = address.recv()?;
    let outcome = runtime()?.block_on(fetch(&args, server_addr, &secret, &scratch.path().join("dest")));
    stop.cancel();
    server.join().map_err(|_| "the server panicked")??;
    println!("{}", outcome?);
    Ok(())
}

async fn fetch(
    args: &Args,
    server: PeerAddr,
    secret: &shiplane_protocols::internals::access::TicketSecret,
    dest: &Path,
) -> Result<String, Failure> {
    let transport = QuicTransport::builder().trust(Trust::nobody()).config(config(args)).bind(localhost())?;
    let connection = transport.connect_to(server).await?;
    let client = RpcClient::new(Arc::clone(&connection));
    redeem(&client, secret).await?;
    let start = Instant::now();
    let fetch = Fetch::open(&client, b"file").await?;
    let options = options(args);
    let durability = if args.durable { Durability::Durable } else { Durability::Verified };
    let chunk_len_bytes = options.chunk_len_bytes;
    let receive = ReceiveOptions {
        overwrite: true,
        durability,
        verify: false,
        digest: fetch.digest(),
        chunk_len_bytes,
    };
    let target = Destination::open(dest, fetch.shape(), fetch.job(), receive)?;
    let report = fetch.receive(target, &options, Arc::new(|_| ())).await?;
    let seconds = start.elapsed().as_secs_f64();
    let path = connection.stats().path;
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(format!(
        "{{\"seconds\":{seconds:.4},\"bytes\":{},\"mtu\":{},\"lost\":{},\"sent\":{}}}",
        report.received_bytes, path.datagram_len_bytes, path.lost_packets, path.sent_packets
    ))
}

fn fill(path: &Path, mib: u64) -> Result<(), Failure> {
    let mut file = fs::File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..mib {
        let mut block = Vec::with_capacity(1 << 20);
        while block.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    Ok(())
}

/// An older version of `new`: as long as that, with other bytes at places that are far from each other.
fn edit(new: &Path, old: &Path, mib: u64, edits: u64) -> Result<(), Failure> {
    fs::copy(new, old)?;
    let file = fs::OpenOptions::new().write(true).open(old)?;
    let step_bytes = (mib << 20) / (edits + 1);
    for at in 1..=edits {
        file.write_all_at(&[at as u8; 4096], at * step_bytes)?;
    }
    Ok(file.set_modified(SystemTime::UNIX_EPOCH)?)
}

fn options(args: &Args) -> TransferOptions {
    TransferOptions {
        lanes: args.lanes,
        chunk_len_bytes: args.chunk_kib * 1024,
        ..TransferOptions::default()
    }
}

fn config(args: &Args) -> TransportConfig {
    TransportConfig {
        buffer_len_bytes: args.buffer_kib * 1024,
        max_datagram_len_bytes: args.mtu,
        ..TransportConfig::default()
    }
}

fn localhost() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
