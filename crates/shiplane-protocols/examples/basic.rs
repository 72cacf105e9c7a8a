//! One side sends ten megabytes from memory and then a file; the other receives both, over one
//! connection.
//!
//! ```text
//! cargo run -p shiplane-protocols --example basic
//! ```

use std::{error::Error, path::PathBuf, sync::Arc};

use bytes::Bytes;
use shiplane_transport::{ChunkSource, Identity, PeerAddr, QuicTransport, Trust};

/// Sends both chunks to `peer`; returns their sizes.
pub(crate) async fn send_file(
    transport: &QuicTransport,
    peer: PeerAddr,
    file: PathBuf,
) -> Result<[u64; 2], Box<dyn Error + Send + Sync>> {
    let peer = transport.connect_to(peer).await?;

    // From memory.
    let data = Bytes::from(vec![0; 10_000_000]);
    let from_memory = peer.send_chunk_verified(&ChunkSource::Memory(data)).await?;
    println!("Sent {from_memory} bytes");

    // From a file, read once, as it is sent.
    let from_file = peer.send_chunk_verified(&ChunkSource::File(file)).await?;
    println!("Sent {from_file} bytes from file");
    Ok([from_memory, from_file])
}

/// Receives whatever the next peer sends, until it closes.
pub(crate) async fn receive_files(
    transport: &QuicTransport,
) -> Result<Vec<Bytes>, Box<dyn Error + Send + Sync>> {
    let (peer_addr, peer) = transport.accept().await?;
    println!("Connection from {peer_addr}");
    let mut received = Vec::new();
    while let Some(data) = peer.recv_chunk_verified().await? {
        println!("Received {} bytes", data.len());
        received.push(data);
    }
    println!("Connection closed");
    Ok(received)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (sender, receiver) = (Identity::generate()?, Identity::generate()?);
    let (sender_id, receiver_id) = (sender.peer_id(), receiver.peer_id());
    let localhost = "127.0.0.1:0".parse()?;
    let bind = |identity, trusted| {
        QuicTransport::builder().identity(identity).trust(Trust::only([trusted])).bind(localhost)
    };
    let (sender, receiver) = (bind(sender, receiver_id)?, Arc::new(bind(receiver, sender_id)?));
    let peer = PeerAddr { id: receiver_id, addr: receiver.local_addr()? };

    let receiving = tokio::spawn(async move { receive_files(&receiver).await });
    send_file(&sender, peer, PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/basic.rs")))
        .await?;
    sender.shutdown(std::time::Duration::from_secs(5)).await;
    assert_eq!(receiving.await??.len(), 2);
    Ok(())
}
