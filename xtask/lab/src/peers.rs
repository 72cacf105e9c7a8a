//! Peers that overload a server: many, stalled, silent or unauthorised.
//! And [`hostile`] peers, which speak the wire and lie, to a server and to a client alike.
//!
//! One kind of load a run. When it is all there the process prints `ready` and some figures as one line of
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

use shiplane_transport::PeerId;

use crate::peers::hostile::Lie;
use crate::peers::keys::Keys;
use crate::peers::peer::Server;

pub use self::keys::make as make_keys;

/// Whatever ends a run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

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

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Connections that do nothing
    Idle,
    /// Handshakes that are begun and never finished, addresses proven where that is asked for
    HalfOpen,
    /// First packets of connections, each from an address of its own, and nothing after them
    Spoofed,
    /// Datagrams that belong to nothing
    Garbage,
    /// Calls: so many on one connection one after another, then 50 rounds of 64 at a time
    Streams,
    /// The same with chunks of a fetch of the file `large`
    Chunks,
    /// Fetches of the file `large` that want all they may and read none of it
    Readers,
    /// Pushes that stop in the middle of every chunk
    Pushers,
    /// Pushes that go on by a byte at a time
    Drip,
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
    fn target(&self) -> Result<Server, Failure> {
        let id = self.id.ok_or("--id is missing")?;
        Ok(Server { addr: self.server, id, keys: Keys::open(&self.keys)? })
    }
}

/// Does it.
///
/// # Errors
/// Whatever ends the run early.
pub fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(play(args));
    // Standard input is read on a thread that ends only with it.
    runtime.shutdown_background();
    outcome
}

async fn play(args: &Args) -> Result<(), Failure> {
    let (count, entries) = (args.count, args.entries);
    match args.kind {
        Kind::Idle => streams::idle(&args.target()?, count).await,
        Kind::Streams => streams::calls(&args.target()?, count).await,
        Kind::Chunks => streams::chunks(&args.target()?, count).await,
        Kind::Readers => readers::stalled(&args.target()?, count).await,
        Kind::Pushers => senders::push(&args.target()?, count, senders::Then::Stall).await,
        Kind::Drip => senders::push(&args.target()?, count, senders::Then::Drip).await,
        Kind::GapBytes => gaps::send(&args.target()?, count, gaps::Left::Bytes).await,
        Kind::GapPackets => gaps::send(&args.target()?, count, gaps::Left::Packets).await,
        Kind::LyingServer => {
            let lie = *args.lie.first().ok_or("--lie is missing")?;
            hostile::serve(lie, entries).await
        }
        Kind::LyingPushers => hostile::push(&args.target()?, count, &args.lie, entries).await,
        Kind::HalfOpen => handshakes::half_open(args.server, count as u64).await,
        Kind::Spoofed => handshakes::spoofed(args.server, count as u64).await,
        Kind::Garbage => datagrams::garbage(args.server, count as u64).await,
    }
}
