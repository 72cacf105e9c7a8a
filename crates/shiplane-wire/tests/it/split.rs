//! Streams cut into pieces.

use bytes::Bytes;
use proptest::prelude::*;

/// Lengths of pieces; some are empty.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![usize::MAX]), Just(vec![1]), prop::collection::vec(0usize..50, 1..12),]
}

/// `stream` in pieces of these lengths, over and over.
pub(crate) fn cut(stream: &[u8], lens: &[usize]) -> Vec<Bytes> {
    let mut stream = Bytes::copy_from_slice(stream);
    let mut pieces = Vec::new();
    let mut lens = lens.iter().copied().cycle();
    // Pieces in a row may be empty, but not all.
    let mut patience = 100;
    while !stream.is_empty() {
        patience -= 1;
        let len = if patience > 0 { lens.next().unwrap_or(0) } else { 64 };
        pieces.push(stream.split_to(len.min(stream.len())));
    }
    pieces
}

/// Payload of a size that matters.
pub(crate) fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 1..40),
        prop::collection::vec(any::<u8>(), 40..700),
    ]
}
