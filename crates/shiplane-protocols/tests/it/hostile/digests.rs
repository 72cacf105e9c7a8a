//! A provider that sends false digests.

use std::fs;

use shiplane_protocols::internals::transfer::TransferError;
use shiplane_transport::LaneOptions;
use shiplane_wire::{Digest, DigestAlgorithm, Piece, TaggedChunk};

use super::{
    Claimed, PATIENT, TransferShape, file,
    liar::{end, fetch_within, script, transfer_error},
};

/// Sends the right bytes with this digest, whenever a chunk is wanted.
async fn sent_with(content: &'static [u8], digest: Digest) -> TransferError {
    let (result, dir) = fetch_within(
        PATIENT,
        TransferShape::Contents,
        script(move |mut fixture| async move {
            let len_bytes = content.len() as u64;
            fixture.say(&[file("x", len_bytes), end(1, len_bytes)]).await;
            while let Some((index, _)) = fixture.want().await {
                for _ in 0..3 {
                    let source = Claimed { len_bytes, data: content.into() };
                    let tag = TaggedChunk { transfer: fixture.transfer, index };
                    let options =
                        LaneOptions::default().digest(DigestAlgorithm::Blake3).known_digest(Some(digest));
                    let _ = fixture.connection.send_tagged_chunk(tag, source, &options).await;
                }
            }
        }),
    )
    .await;
    let error = transfer_error(result);
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| name.to_string_lossy().starts_with(".shiplane-")));
    error
}

#[tokio::test]
async fn a_digest_that_lies_is_found_out_and_nothing_is_published() {
    let content = &[7; 1000];
    // Of other bytes; of the other function; of the same bytes at another place of a file.
    let part = Piece::of_file(64 << 10, 1000, (64 << 10) + 1000);
    let mut of_part = DigestAlgorithm::Blake3.chunk_hasher(part);
    of_part.update(content);
    for digest in [Digest::blake3(b"other"), Digest::sha256(content), of_part.finish()] {
        let error = sent_with(content, digest).await;
        assert!(matches!(error, TransferError::Corrupt { attempts: 3, .. }), "{error}");
    }
}
