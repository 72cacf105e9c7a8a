//! Receiving a chunk.

use bytes::Bytes;
use proptest::prelude::*;
use shiplane_wire::fuzz::{ReceiveError, receive};
use shiplane_wire::limits::{MAX_HASHED_LEN_BYTES, MAX_STEP_LEN_BYTES};
use shiplane_wire::{ChunkReceiver, Digest, FrameError, Hasher, Offer, RecvError, RecvStep};

use crate::split::{cut, cuts, payload};

proptest! {
    #[test]
    fn a_frame_is_verified_however_it_is_cut(data in payload(), cuts in cuts()) {
        let received = receive(cut(&frame(&data), &cuts), LIMIT);
        prop_assert_eq!(received.error, None);
        prop_assert_eq!(received.verified, Some(Digest::sha256(&data)));
        prop_assert_eq!(received.payload, data);
    }

    #[test]
    fn a_flipped_bit_is_never_verified(data in payload(), cuts in cuts(), bit in any::<prop::sample::Index>()) {
        let mut frame = frame(&data);
        let bit = bit.index(frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        let received = receive(cut(&frame, &cuts), LIMIT);
        prop_assert_eq!(received.verified, None);
        let in_size = bit < 64;
        match received.error {
            Some(ReceiveError::Frame(FrameError::TooLarge { .. })) => prop_assert!(in_size),
            Some(ReceiveError::Recv(RecvError::Truncated { .. })) => prop_assert!(in_size),
            Some(ReceiveError::Recv(RecvError::ChecksumMismatch { .. })) => (),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_cut_frame_is_truncated(data in payload(), cuts in cuts(), end in any::<prop::sample::Index>()) {
        let frame = frame(&data);
        let end = end.index(frame.len());
        let received = receive(cut(&frame[..end], &cuts), LIMIT);
        prop_assert_eq!(received.verified, None);
        prop_assert!(data.starts_with(&received.payload));
        let expected = match end.checked_sub(8) {
            None => ReceiveError::Frame(FrameError::Truncated { received_bytes: end }),
            Some(received_bytes) => ReceiveError::Recv(RecvError::Truncated {
                received_bytes: received_bytes as u64,
                expected_bytes: data.len() as u64 + 32,
            }),
        };
        prop_assert_eq!(received.error, Some(expected));
    }

    #[test]
    fn bytes_after_the_digest_are_refused(
        data in payload(),
        cuts in cuts(),
        more in prop::collection::vec(any::<u8>(), 1..50),
    ) {
        let stream = [frame(&data), more].concat();
        let received = receive(cut(&stream, &cuts), LIMIT);
        let error = RecvError::TrailingBytes { len_bytes: data.len() as u64 };
        prop_assert_eq!(received.error, Some(ReceiveError::Recv(error)));
        prop_assert_eq!(&received.payload, &data);
        // Only a byte that came later than the digest finds the chunk verified.
        if cuts == [usize::MAX] {
            prop_assert_eq!(received.verified, None);
        }
    }

    #[test]
    fn any_bytes_give_the_same_outcome_however_they_are_cut(
        stream in prop::collection::vec(any::<u8>(), 0..200),
        len in 0u64..100,
        cuts in cuts(),
    ) {
        let stream = [&len.to_le_bytes()[..], &stream].concat();
        let whole = receive(vec![Bytes::copy_from_slice(&stream)], LIMIT);
        let pieces = receive(cut(&stream, &cuts), LIMIT);
        prop_assert_eq!(whole.error, pieces.error);
        prop_assert_eq!(whole.payload, pieces.payload);
    }

    #[test]
    fn a_size_over_the_limit_is_refused_on_the_size(len in any::<u64>(), limit in any::<u64>()) {
        match Offer::new(len, limit) {
            Ok(offer) => {
                prop_assert_eq!(offer.len_bytes(), len);
                prop_assert!(len <= limit && len <= MAX_HASHED_LEN_BYTES);
                // However much is announced, nothing is set aside for it, and no sum overflows.
                let mut receiver = offer.accept(Hasher::sha256());
                receiver.push(Bytes::from_static(&[0; 40]));
                receiver.end();
                while let Ok(step) = receiver.poll() {
                    prop_assert!(!matches!(step, RecvStep::Verified(_)));
                }
            }
            Err(error) => {
                let max_bytes = limit.min(MAX_HASHED_LEN_BYTES);
                prop_assert_eq!(error, FrameError::TooLarge { len_bytes: len, max_bytes });
                prop_assert!(len > max_bytes);
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_small_frame_is_noticed() {
    let good = frame(b"hello");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let received = receive(vec![bad.into()], LIMIT);
        assert!(received.verified.is_none() && received.error.is_some(), "bit {bit}");
    }
}

#[test]
fn a_flipped_bit_is_not_verified_before_the_stream_ends_either() {
    let good = frame(b"hello");
    for bit in 64..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let mut receiver = Offer::new(5, LIMIT).unwrap().accept(Hasher::sha256());
        receiver.push(Bytes::copy_from_slice(&bad[8..]));
        assert!(matches!(receiver.poll(), Ok(RecvStep::Payload { .. })));
        assert!(matches!(receiver.poll(), Err(RecvError::ChecksumMismatch { .. })), "bit {bit}");
    }
}

#[test]
fn payload_is_not_copied_and_not_kept() {
    let buffer = Bytes::from(vec![7; 3 * MAX_STEP_LEN_BYTES + 1]);
    let mut receiver = Offer::new(buffer.len() as u64, LIMIT).unwrap().accept(Hasher::sha256());
    receiver.push(buffer.clone());
    let mut lens = Vec::new();
    loop {
        match receiver.poll().unwrap() {
            RecvStep::Payload { offset, data } => {
                assert_eq!(data.as_ptr(), buffer[offset as usize..].as_ptr(), "a slice of what was pushed");
                lens.push(data.len());
            }
            RecvStep::NeedInput => break,
            step @ (RecvStep::Verified(_) | RecvStep::Ended) => panic!("{step:?}"),
        }
    }
    assert_eq!(lens, [MAX_STEP_LEN_BYTES, MAX_STEP_LEN_BYTES, MAX_STEP_LEN_BYTES, 1]);
    assert!(buffer.is_unique(), "nothing is held once all was polled");
}

#[test]
fn a_flood_after_the_digest_is_not_kept() {
    let mut receiver = receiver_with(b"hello", &[]);
    let flood = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..3 {
        receiver.push(flood.clone());
        assert!(flood.is_unique(), "not even until the next poll");
    }
    assert!(matches!(receiver.poll(), Ok(RecvStep::Payload { .. })));
    assert!(matches!(receiver.poll(), Err(RecvError::TrailingBytes { len_bytes: 5 })));
    receiver.push(flood.clone());
    assert!(flood.is_unique());
}

#[test]
fn the_answer_need_not_wait_for_the_end() {
    let mut receiver = receiver_with(b"", &[]);
    assert!(matches!(receiver.poll(), Ok(RecvStep::Verified(_))));
    assert!(matches!(receiver.poll(), Ok(RecvStep::NeedInput)));
    receiver.end();
    assert!(matches!(receiver.poll(), Ok(RecvStep::Ended)));
    assert!(matches!(receiver.poll(), Ok(RecvStep::Ended)));
}

#[test]
fn a_wrong_digest_counts_more_than_what_follows_it() {
    let mut receiver = Offer::new(0, LIMIT).unwrap().accept(Hasher::sha256());
    receiver.push(Bytes::from_static(&[0; 33]));
    assert!(matches!(receiver.poll(), Err(RecvError::ChecksumMismatch { .. })));
}

#[test]
fn only_the_agreed_size_is_accepted_for_a_chunk_that_was_asked_for() {
    assert_eq!(Offer::exactly(7, 7).unwrap().len_bytes(), 7);
    let error = FrameError::WrongLen { len_bytes: u64::MAX, agreed_bytes: 7 };
    assert_eq!(Offer::exactly(u64::MAX, 7).unwrap_err(), error);
    let error = FrameError::TooLarge { len_bytes: u64::MAX, max_bytes: MAX_HASHED_LEN_BYTES };
    assert_eq!(Offer::exactly(u64::MAX, u64::MAX).unwrap_err(), error);
}

const LIMIT: u64 = 1 << 20;

fn frame(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    [&len[..], data, Digest::sha256(data).as_bytes()].concat()
}

/// A receiver of `data` that has been given its whole frame and `more`.
fn receiver_with(data: &[u8], more: &[u8]) -> ChunkReceiver {
    let mut receiver = Offer::new(data.len() as u64, LIMIT).unwrap().accept(Hasher::sha256());
    receiver.push(Bytes::from([&frame(data)[8..], more].concat()));
    receiver
}
