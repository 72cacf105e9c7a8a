//! A media service and its client in one process: serves a directory, downloads a file from it.
//! It is made of the engine's own parts (feature `internals`); a program uses the crate `shiplane`.
//!
//! ```text
//! cargo run -p shiplane-protocols --example media
//! ```

mod service;

use std::sync::Arc;

use service::{MediaClient, MediaStreamingService};
use shiplane_transport::{Identity, LaneOptions, PeerAddr, QuicTransport, Trust};

// One thread drives a connection fastest; see the transport's documentation.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("video.mp4"), vec![7; 10_000_000])?;

    // Each side knows the other's id. There is no "accept anybody".
    let (server, client) = (Identity::generate()?, Identity::generate()?);
    let (server_id, client_id) = (server.peer_id(), client.peer_id());
    let localhost = "127.0.0.1:0".parse()?;
    let bind = |identity, trusted| {
        QuicTransport::builder().identity(identity).trust(Trust::only([trusted])).bind(localhost)
    };
    let (server, client) = (Arc::new(bind(server, client_id)?), Arc::new(bind(client, server_id)?));
    let server_addr = PeerAddr { id: server_id, addr: server.local_addr()? };

    let service = MediaStreamingService::new(server, dir.path(), LaneOptions::default())?;
    let metrics = Arc::clone(service.metrics());
    tokio::spawn(service.serve());

    let output = dir.path().join("downloaded_video.mp4");
    let client = MediaClient::new(client);
    let bytes = client.download_media(server_addr, "video.mp4", &output).await?;
    println!("Downloaded video.mp4 ({bytes} bytes)");
    client.close().await;
    print!("{}", metrics.report());
    Ok(())
}
