//! Two machines bring their copies of a directory together: what either has written since the last time is on
//! both then, and what either has deleted is on neither.
//! It is made of the engine's own parts (feature `internals`); a program uses the crate `shiplane`.
//!
//! ```text
//! cargo run -p shiplane-protocols --example two_way
//! ```

use std::{error::Error, fs, path::Path, sync::Arc, time::Duration};

use shiplane_access::internals::{AccessControl, Grant, Scope};
use shiplane_files::internals::{
    SourceRoot,
    sync::{Consent, SyncState},
};
use shiplane_protocols::internals::{
    FileServer, WriteLimits, redeem,
    sync::{SyncJob, SyncReport, synchronise},
    transfer::TransferOptions,
};
use shiplane_rpc::RpcClient;
use shiplane_transport::{Identity, PeerAddr, QuicTransport, Trust};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn Error + Send + Sync>;

/// Syncs `home/laptop` with `home/server`, which a server offers, twice: at first, and after edits.
pub(crate) async fn sync_twice(home: &Path) -> Result<[SyncReport; 2], Failure> {
    let (laptop, served) = (home.join("laptop"), home.join("server"));
    fs::create_dir_all(&laptop)?;
    fs::create_dir_all(&served)?;

    // The server: a ticket to read and write admits its holder.
    let access = Arc::new(AccessControl::open(&home.join("peers")));
    let everything = Grant { read: true, write: true, paths: Scope::everything() };
    let ticket = access.tickets().issue(everything, Duration::from_secs(60), std::time::Instant::now())?;
    let transport =
        QuicTransport::builder().trust(AccessControl::trust(&access)).bind("127.0.0.1:0".parse()?)?;
    let server = PeerAddr { id: transport.peer_id(), addr: transport.local_addr()? };
    let options = TransferOptions::default();
    let (root, state) = (SourceRoot::open(&served)?, SyncState::at(home.join("server-state")));
    let files = FileServer::new(root, access, options.clone()).writable(WriteLimits::default());
    let files = Arc::new(files.syncing(&served, state));
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(files.run(Arc::new(transport), shutdown.clone()));

    // The laptop.
    let identity = Identity::generate()?;
    let own = identity.peer_id();
    let transport =
        QuicTransport::builder().identity(identity).trust(Trust::none()).bind("127.0.0.1:0".parse()?)?;
    let client = RpcClient::new(transport.connect_to(server).await?);
    redeem(&client, &ticket).await?;
    let job = SyncJob {
        directory: laptop.clone(),
        remote_path: Vec::new(),
        state: SyncState::at(home.join("laptop-state")),
        own,
        root: None,
        only_to: None,
        consent: Consent::default(),
        filters: Arc::default(),
        attributes: false,
        dry_run: false,
        relisting: None,
        peer_watch: None,
        transfer: options,
    };

    fs::write(laptop.join("notes.txt"), "from the laptop")?;
    fs::write(served.join("photo.jpg"), "from the server")?;
    let first = synchronise(&client, &job, Arc::new(|_| ())).await?;
    println!(
        "{} actions, {} bytes sent, {} received",
        first.actions.len(),
        first.sent_bytes,
        first.received_bytes
    );

    fs::write(served.join("notes.txt"), "edited on the server")?;
    fs::remove_file(laptop.join("photo.jpg"))?;
    let second = synchronise(&client, &job, Arc::new(|_| ())).await?;
    for action in &second.actions {
        println!("{:?}: {} {:?} ({:?})", action.side, action.path, action.change, action.why);
    }

    transport.shutdown(Duration::from_secs(1)).await;
    shutdown.cancel();
    serving.await?;
    Ok([first, second])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let home = tempfile::TempDir::new()?;
    sync_twice(home.path()).await?;
    Ok(())
}
