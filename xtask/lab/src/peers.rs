//! Peers that overload a server: many, stalled, silent or unauthorised.
//! And [`hostile`] peers, which speak the wire and lie, to a server and to a client alike.
//!
//! One kind of load a run. When it is all there the process prints a line of figures, keeps the load up until its standard
//! input ends, then prints another. `cargo xtask load` drives it and watches the server from outside. What an honest peer cannot do is done with raw quinn and raw UDP, from what
//! SPEC.md says.

mod datagrams;
mod gaps;
pub mod hostile;
mod peer;
mod streams;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use shiplane_access::internals::{Grant, PeersFile, Scope, StandingPeer};
use shiplane_transport::{Identity, PeerId};

use crate::peers::hostile::{Lie, LyingServer};
use crate::peers::peer::Server;

/// What the peers do, and to whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    kind: Kind,
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:0")]
    server: SocketAddr,
    /// The server's id, for peers with a key
    #[arg(long)]
    id: Option<PeerId>,
    /// Where the keys are
    #[arg(long, default_value = "keys")]
    keys: PathBuf,
    /// How many
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Lies of a kind that lies; several are told in turn
    #[arg(long)]
    lie: Vec<Lie>,
    /// How many entries a lie about entries has
    #[arg(long, default_value_t = hostile::ENTRIES)]
    entries: u32,
}

/// What peers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Connections that do nothing
    Idle,
    /// Handshakes that are begun and never finished, addresses proven where that is asked for
    HalfOpen,
    /// First packets of connections, each from an address of its own, and nothing after them
    Spoofed,
    /// Datagrams that belong to nothing
    Garbage,
    /// Calls: this number on one connection one after another, then 50 rounds of 64 at a time
    Calls,
    /// The same with chunks of a fetch of the file `large`
    Chunks,
    /// Fetches of the file `large` that want all they may and read none of it
    Readers,
    /// Connections that send every second byte of their streams
    GapBytes,
    /// Connections that send every second packet of their streams
    GapPackets,
    /// A server that lies to every client that gets something from it; prints the ticket
    LyingServer,
    /// Pushes that lie
    LyingPushers,
}

impl Args {
    fn target(&self) -> Result<Server> {
        let id = self.id.context("--id is missing")?;
        let keys = fs::read_dir(&self.keys)?.map(|entry| Ok(Identity::load_or_create(&entry?.path())?));
        Ok(Server { addr: self.server, id, keys: keys.collect::<Result<_>>()? })
    }
}

/// As the command line has it.
pub(crate) fn name_of(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Makes `count` keys in `directory`, unless they are there, and adds them to the list of peers of the server whose state
/// is in `home`, with every right.
pub fn make_keys(home: &Path, directory: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(directory)?;
    let peers = PeersFile::at(home.join("peers"));
    for number in 0..count {
        let identity = Identity::load_or_create(&directory.join(format!("{number:04}")))?;
        let grant = Grant { read: true, write: true, paths: Scope::everything() };
        let name = format!("load-{number:04}").parse()?;
        peers.add(&StandingPeer { name, id: identity.peer_id(), grant, at: None })?;
    }
    Ok(())
}

/// Does it.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(play(args));
    // Standard input is read on a thread that ends only with it.
    runtime.shutdown_background();
    outcome
}

async fn play(args: &Args) -> Result<()> {
    let (count, entries) = (args.count, args.entries);
    match args.kind {
        Kind::Idle => streams::idle(&args.target()?, count).await,
        Kind::Calls => streams::calls(&args.target()?, count).await,
        Kind::Chunks => streams::chunks(&args.target()?, count).await,
        Kind::Readers => streams::readers(&args.target()?, count).await,
        Kind::GapBytes => gaps::send(&args.target()?, count, gaps::Left::Bytes).await,
        Kind::GapPackets => gaps::send(&args.target()?, count, gaps::Left::Packets).await,
        Kind::LyingServer => {
            let lie = *args.lie.first().context("--lie is missing")?;
            // It has a runtime of its own, which no task may wait for.
            let server = tokio::task::spawn_blocking(move || LyingServer::start(lie, entries)).await??;
            println!("{}", server.ticket());
            enough().await;
            Ok(())
        }
        Kind::LyingPushers => hostile::push(&args.target()?, count, &args.lie, entries).await,
        Kind::HalfOpen => datagrams::half_open(args.server, count as u64).await,
        Kind::Spoofed => datagrams::spoofed(args.server, count as u64).await,
        Kind::Garbage => datagrams::garbage(args.server, count as u64).await,
    }
}

/// Prints one line of figures. The first one says that all peers are at work.
fn tell(figures: &[(&str, u64)]) -> Result<()> {
    let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", figures.join(", "))?;
    Ok(stdout.flush()?)
}

/// Waits for the end of standard input: then it is enough.
async fn enough() {
    // However it ends.
    let _ended = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
}

/// Takes `count` steps, each with its number, says so, and goes on until it is enough.
async fn flood(name: &str, count: u64, mut step: impl AsyncFnMut(u64) -> Result<()>) -> Result<()> {
    for number in 0..count {
        step(number).await?;
        tokio::task::yield_now().await;
    }
    tell(&[(name, count)])?;
    let more = until_enough(async |more| step(count + more).await).await?;
    tell(&[(name, count + more)])
}

/// Takes one step after another, each with its number, until it is enough. How many there were.
async fn until_enough(mut step: impl AsyncFnMut(u64) -> Result<()>) -> Result<u64> {
    let mut enough = std::pin::pin!(enough());
    let mut steps = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut enough => return Ok(steps),
            stepped = step(steps) => stepped?,
        }
        tokio::task::yield_now().await;
        steps += 1;
    }
}
