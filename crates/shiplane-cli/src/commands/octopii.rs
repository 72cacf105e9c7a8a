//! `serve`, `get` and `push` with `--insecure-octopii`: one file to or from nodes of the original
//! program (SPEC 9). Every run warns that no peer is authenticated.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shiplane::escape;
use shiplane_octopii::{
    AcceptAnyPeer, ChunkSource, InsecureOctopiiConnection, InsecureOctopiiTransport, Lane, LaneOptions,
    SendChunkError, TransportConfig,
    internals::{LaneThreads, SourceError},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{GetArgs, PushArgs, ServeArgs};
use crate::failure::Failure;
use crate::failure::octopii::OctopiiFailure;
use crate::logging::print_line;
use crate::settings::octopii::{OctopiiGet, OctopiiPush, OctopiiServe};
use crate::{runtime, signals};

/// Sends the file to each client, until stopped.
pub(super) fn serve(args: ServeArgs) -> Result<(), Failure> {
    let settings = OctopiiServe::from_args(args)?;
    warn("anyone who reaches this port gets the file");
    let stop =
        signals::watch("finishing running transfers; press Ctrl-C again to stop now", signals::DRAIN_LIMIT)
            .map_err(Failure::Runtime)?;
    runtime::run(serve_until(settings, stop)).map_err(Failure::Runtime)?
}

/// Receives the chunk that the node sends to each client.
pub(super) fn get(args: GetArgs) -> Result<(), Failure> {
    let settings = OctopiiGet::from_args(args)?;
    warn("anyone on the network path can replace the file");
    let stop = signals::watch("stopping; press Ctrl-C again to stop now", signals::JOB_LIMIT)
        .map_err(Failure::Runtime)?;
    runtime::run(async {
        tokio::select! {
            done = get_chunk(&settings) => done,
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    })
    .map_err(Failure::Runtime)?
}

/// Sends the file to the node.
pub(super) fn push(args: PushArgs) -> Result<(), Failure> {
    let settings = OctopiiPush::from_args(args)?;
    warn("anyone on the network path can read the file");
    let stop = signals::watch("stopping; press Ctrl-C again to stop now", signals::JOB_LIMIT)
        .map_err(Failure::Runtime)?;
    runtime::run(async {
        tokio::select! {
            done = push_file(&settings) => done,
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    })
    .map_err(Failure::Runtime)?
}

/// Printed even with --quiet.
fn warn(consequence: &str) {
    print_line(&format!("warning: --insecure-octopii AUTHENTICATES NO PEER: {consequence}"));
}

async fn serve_until(settings: OctopiiServe, stop: CancellationToken) -> Result<(), Failure> {
    let source = ChunkSource::File(settings.file);
    expect_readable(&source).await?;
    let transport = bind(settings.listen, config(BUFFER_LEN_BYTES))?;
    announce(transport.local_addr().map_err(Failure::Runtime)?)?;
    let (tasks, places) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_SENDS)));
    loop {
        let connection = tokio::select! {
            connection = transport.accept(Lane) => connection,
            () = stop.cancelled() => break,
        };
        let Some(connection) = connection else { break };
        // A stranger more than these is turned away, by the drop of its connection.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let source = source.clone();
        tasks.spawn(async move {
            let addr = connection.remote_addr();
            match send(&connection, &source).await {
                Ok(bytes) => tracing::info!(%addr, bytes, "sent"),
                Err(error) => tracing::warn!(%addr, %error, "not sent"),
            }
            drop(place);
        });
    }
    tasks.close();
    tasks.wait().await;
    transport.shutdown().await;
    Ok(())
}

/// Reports a file that cannot be read before the connection is made.
async fn expect_readable(source: &ChunkSource) -> Result<(), Failure> {
    let source = source.clone();
    let opened = tokio::task::spawn_blocking(move || source.open().map(drop)).await;
    opened.unwrap_or(Err(SourceError::Abandoned)).map_err(|error| OctopiiFailure::Send(error.into()).into())
}

async fn send(
    connection: &InsecureOctopiiConnection<Lane>,
    source: &ChunkSource,
) -> Result<u64, SendChunkError> {
    let sent = connection.send_chunk_with(source, &LaneOptions::default()).await;
    connection.drained().await;
    sent
}

async fn get_chunk(settings: &OctopiiGet) -> Result<(), Failure> {
    if settings.file.symlink_metadata().is_ok() {
        return Err(OctopiiFailure::Exists { path: settings.file.clone() }.into());
    }
    let (transport, connection) = dial(&settings.node, settings.buffer_len_bytes).await?;
    if !settings.is_quiet {
        print_line(&format!("connected to {}; waiting for its chunk", settings.node));
    }
    let received = connection.recv_chunk_to_path(&settings.file, &LaneOptions::default()).await;
    connection.drained().await;
    transport.shutdown().await;
    let bytes = received.map_err(OctopiiFailure::Receive)?.ok_or(OctopiiFailure::Nothing)?;
    report(settings.is_quiet, "received", bytes, &settings.file);
    Ok(())
}

async fn push_file(settings: &OctopiiPush) -> Result<(), Failure> {
    let source = ChunkSource::File(settings.file.clone());
    expect_readable(&source).await?;
    let (transport, connection) = dial(&settings.node, settings.buffer_len_bytes).await?;
    let sent = send(&connection, &source).await;
    transport.shutdown().await;
    report(settings.is_quiet, "sent", sent.map_err(OctopiiFailure::Send)?, &settings.file);
    Ok(())
}

fn report(is_quiet: bool, what: &str, bytes: u64, file: &Path) {
    if !is_quiet {
        let name = escape(file.as_os_str().as_encoded_bytes());
        print_line(&format!("{what} {name}: {bytes} bytes, verified; the node is not authenticated"));
    }
}

/// Tries the node's addresses one after another; returns the last failure.
async fn dial(
    node: &str,
    buffer_len_bytes: usize,
) -> Result<(InsecureOctopiiTransport, InsecureOctopiiConnection<Lane>), Failure> {
    let mut failure = None;
    for addr in resolve(node).await? {
        let transport = bind(any_port(addr), config(buffer_len_bytes))?;
        match transport.connect(addr, Lane).await {
            Ok(connection) => return Ok((transport, connection)),
            Err(error) => failure = Some(OctopiiFailure::from(error).into()),
        }
    }
    Err(failure.unwrap_or_else(|| unresolved(node, io::ErrorKind::NotFound.into()).into()))
}

/// The addresses to try, in order.
async fn resolve(node: &str) -> Result<Vec<SocketAddr>, OctopiiFailure> {
    let looking = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(node)).await;
    let found = looking.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    Ok(found.map_err(|source| unresolved(node, source))?.take(MAX_ADDRESSES).collect())
}

fn unresolved(node: &str, source: io::Error) -> OctopiiFailure {
    OctopiiFailure::Resolve { node: node.to_owned(), source }
}

/// This machine's side of a dial, of the same family.
fn any_port(like: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

/// For a program whose one purpose is a transfer: its threads need not give way to calls.
fn config(buffer_len_bytes: usize) -> TransportConfig {
    TransportConfig::default().lane_threads(LaneThreads::Ordinary).buffer_len_bytes(buffer_len_bytes)
}

fn bind(listen: SocketAddr, config: TransportConfig) -> Result<InsecureOctopiiTransport, Failure> {
    Ok(InsecureOctopiiTransport::bind(listen, config, AcceptAnyPeer).map_err(OctopiiFailure::Bind)?)
}

/// The address alone on a line, for scripts.
fn announce(address: SocketAddr) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = io::stdout().lock();
    writeln!(out, "{address}").and_then(|()| out.flush()).map_err(Failure::Stdout)
}

/// 64 files at a time, like the limit of untaken connections: all clients are strangers.
const MAX_SENDS: usize = 64;

/// Longer than the resolvers of common systems take to try a second name server.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Each may take the whole handshake timeout; no user waits for more than these.
const MAX_ADDRESSES: usize = 4;

/// 256 KiB: hashed at full speed, and still in the cache of a core when it is written.
const BUFFER_LEN_BYTES: usize = 256 << 10;
