//! Peers that overload a server: many, stalled, silent or unauthorised.
//! And [`hostile`] peers, which speak the wire and lie, to a server and to a client alike.
//!
//! One kind of load a run. When it is all there the program prints `ready` and some figures as one line of
//! JSON, keeps the load up until its standard input ends, then prints `done` likewise. `cargo xtask load` drives it
//! and watches the server from outside. What an honest peer cannot do is done with raw quinn and raw UDP, from what
//! SPEC.md says.

mod datagrams;
mod gaps;
mod handshakes;
pub mod hostile;
mod keys;
mod peer;
mod readers;
mod report;
mod senders;
mod streams;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use shiplane_transport::PeerId;

use crate::hostile::Lie;
use crate::keys::Keys;
use crate::peer::Server;

/// Whatever ends a run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, clap::Subcommand)]
enum Kind {
    /// Makes keys and writes them into a server's list of peers, with every right
    Keys {
        /// The server's state directory
        #[arg(long)]
        home: PathBuf,
        #[arg(long)]
        keys: PathBuf,
        #[arg(long)]
        count: usize,
    },
    /// Connections that do nothing
    Idle(Many),
    /// Handshakes that are begun and never finished, addresses proven where that is asked for
    HalfOpen(Nameless),
    /// First packets of connections, each from an address of its own, and nothing after them
    Spoofed(Nameless),
    /// Datagrams that belong to nothing
    Garbage(Nameless),
    /// Calls: so many on one connection one after another, then 50 rounds of 64 at a time
    Streams(Many),
    /// The same with chunks of a fetch of the file `large`
    Chunks(Many),
    /// Fetches of the file `large` that want all they may and read none of it
    Readers(Many),
    /// Pushes that stop in the middle of every chunk
    Pushers(Many),
    /// Pushes that go on by a byte at a time
    Drip(Many),
    /// Connections that send every second byte of their streams
    GapBytes(Many),
    /// Connections that send every second packet of their streams
    GapPackets(Many),
    /// A server that lies to every client that gets something from it; prints the ticket
    LyingServer {
        #[arg(long)]
        lie: Lie,
        /// How many entries a lie about entries has
        #[arg(long, default_value_t = hostile::ENTRIES)]
        entries: u32,
    },
    /// Pushes that lie
    LyingPushers {
        #[command(flatten)]
        many: Many,
        /// Several are told in turn
        #[arg(long, required = true)]
        lie: Vec<Lie>,
        /// How many entries a lie about entries has
        #[arg(long, default_value_t = hostile::ENTRIES)]
        entries: u32,
    },
}

/// Peers with a right.
#[derive(Debug, clap::Args)]
struct Many {
    #[command(flatten)]
    target: Target,
    /// The server's id
    #[arg(long)]
    id: PeerId,
    /// Where the keys are
    #[arg(long)]
    keys: PathBuf,
    /// How many
    #[arg(long)]
    count: usize,
}

/// Peers that have no key, or never show it.
#[derive(Debug, clap::Args)]
struct Nameless {
    #[command(flatten)]
    target: Target,
    /// How many a second; as fast as it goes, if 0
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How many in all before it is `ready`
    #[arg(long)]
    count: u64,
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Where the server listens
    #[arg(long)]
    server: SocketAddr,
}

impl Many {
    fn server(&self) -> Result<Server, Failure> {
        Ok(Server { addr: self.target.server, id: self.id, keys: Keys::open(&self.keys)? })
    }
}

/// The program: does what the command line says.
///
/// # Errors
/// Whatever ends the run early.
pub fn run() -> Result<(), Failure> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(play(args.kind));
    // Standard input is read on a thread that ends only with it.
    runtime.shutdown_background();
    outcome
}

async fn play(kind: Kind) -> Result<(), Failure> {
    match kind {
        Kind::Keys { home, keys, count } => keys::make(&home, &keys, count),
        Kind::Idle(many) => streams::idle(&many.server()?, many.count).await,
        Kind::Streams(many) => streams::calls(&many.server()?, many.count).await,
        Kind::Chunks(many) => streams::chunks(&many.server()?, many.count).await,
        Kind::Readers(many) => readers::stalled(&many.server()?, many.count).await,
        Kind::Pushers(many) => senders::push(&many.server()?, many.count, senders::Then::Stall).await,
        Kind::Drip(many) => senders::push(&many.server()?, many.count, senders::Then::Drip).await,
        Kind::GapBytes(many) => gaps::send(&many.server()?, many.count, gaps::Left::Bytes).await,
        Kind::GapPackets(many) => gaps::send(&many.server()?, many.count, gaps::Left::Packets).await,
        Kind::LyingServer { lie, entries } => hostile::serve(lie, entries).await,
        Kind::LyingPushers { many, lie, entries } => {
            hostile::push(&many.server()?, many.count, &lie, entries).await
        }
        Kind::HalfOpen(flood) => handshakes::half_open(flood.target.server, flood.count, flood.rate).await,
        Kind::Spoofed(flood) => handshakes::spoofed(flood.target.server, flood.count, flood.rate).await,
        Kind::Garbage(flood) => datagrams::garbage(flood.target.server, flood.count, flood.rate).await,
    }
}
