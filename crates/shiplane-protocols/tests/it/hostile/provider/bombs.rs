//! Compressed chunks with too much content, or none.

use shiplane_protocols::{
    Compression,
    internals::{
        compress::DecodeSinkError,
        transfer::{ProtocolFault, TransferOptions},
    },
};
use tempfile::TempDir;

use super::*;
use crate::hostile::liar::fetch_with;

/// The head of an encoded payload (SPEC 4.16), and its body.
fn payload(encoding: u8, content: &[u8], body: &[u8]) -> Vec<u8> {
    [&[encoding][..], Digest::blake3(content).as_bytes(), body].concat()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 3).unwrap()
}

/// Offers a file of `size_bytes` and sends `payload` as its one chunk, to a victim with this wish.
async fn chunk_sent(wish: Compression, size_bytes: u64, payload: Vec<u8>) -> TransferError {
    let liar = Liar::meet(
        PATIENT,
        TransferShape::Contents,
        script(move |mut fixture| {
            let payload = Bytes::from(payload.clone());
            async move {
                fixture.say(&[file("x", size_bytes), end(1, size_bytes)]).await;
                let (index, _) = fixture.want().await.unwrap();
                let tag = TaggedChunk { transfer: fixture.transfer, index };
                let source = Claimed { len_bytes: payload.len() as u64, data: payload };
                let options = transfer_lane().encoded();
                let sent = fixture.connection.send_tagged_chunk(tag, source, &options).await;
                assert!(sent.is_err(), "it must not be told that this is stored");
                fixture.linger().await;
            }
        }),
    )
    .await;
    let dir = TempDir::new().unwrap();
    let options = TransferOptions {
        lanes: 4,
        chunk_len_bytes: 1 << 20,
        compression: wish,
        ..TransferOptions::default()
    };
    let error = transfer_error(fetch_with(&liar.rpc, false, dir.path(), &options).await);
    assert!(published(&dir).is_empty(), "{error}");
    error
}

fn undecodable(error: TransferError) -> DecodeSinkError<DestinationError> {
    match error {
        TransferError::Undecodable { index: 0, source } => *source,
        other => panic!("not the encoding's fault: {other}"),
    }
}

#[tokio::test]
async fn content_that_claims_to_be_a_thousand_times_its_size_is_not_decoded() {
    let size_bytes = 64 << 10;
    let error = chunk_sent(Compression::Auto, size_bytes, payload(1, b"", &[0; 20])).await;
    let DecodeSinkError::Bomb { content_bytes, wire_bytes } = undecodable(error) else { panic!("no bomb") };
    assert!(content_bytes == size_bytes && wire_bytes * 1024 < size_bytes);
}

#[tokio::test]
async fn no_byte_more_than_was_asked_for_is_decoded() {
    let bomb = payload(1, b"", &zstd(&vec![0; 1 << 20]));
    let error = undecodable(chunk_sent(Compression::Auto, 1000, bomb).await);
    assert!(matches!(error, DecodeSinkError::TooLong { content_bytes: 1000 }), "{error}");
}

#[tokio::test]
async fn a_window_that_would_take_much_memory_is_refused() {
    let vast = payload(1, b"", &zstd(&vec![0; 2 << 20]));
    let error = undecodable(chunk_sent(Compression::Auto, 1000, vast).await);
    assert!(matches!(error, DecodeSinkError::Undecodable(_)), "{error}");
}

#[tokio::test]
async fn a_payload_that_is_longer_than_its_content_is_refused_on_its_size() {
    let error = undecodable(chunk_sent(Compression::Auto, 10, payload(0, b"", &[0; 11])).await);
    assert!(matches!(error, DecodeSinkError::Frame(_)), "{error}");
}

#[tokio::test]
async fn content_that_is_short_or_another_is_no_file() {
    let told = b"hello".repeat(100);
    for content in [b"hello".repeat(99), b"jello".repeat(100)] {
        let lie = payload(1, &told, &zstd(&content));
        let error = undecodable(chunk_sent(Compression::Always, 500, lie).await);
        assert!(matches!(error, DecodeSinkError::Content(_)), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_encoding_is_refused() {
    let unknown = undecodable(chunk_sent(Compression::Auto, 5, payload(2, b"hello", b"hello")).await);
    assert!(matches!(unknown, DecodeSinkError::UnknownEncoding { byte: 2 }), "{unknown}");
    let noise = undecodable(chunk_sent(Compression::Auto, 5, payload(1, b"hello", b"hello")).await);
    assert!(matches!(noise, DecodeSinkError::Undecodable(_)), "{noise}");
}

#[tokio::test]
async fn a_peer_that_has_not_agreed_to_compression_gets_none() {
    let honest = payload(1, b"hello", &zstd(b"hello"));
    match chunk_sent(Compression::Never, 5, honest).await {
        TransferError::Protocol(ProtocolFault::UnwantedCompression { index: 0 }) => {}
        other => panic!("{other}"),
    }
}
