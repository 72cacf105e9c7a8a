//! Sending a chunk, and its answer.

use bytes::Bytes;
use proptest::prelude::*;
use shiplane_wire::fuzz::{answer, receive, send};
use shiplane_wire::limits::{MAX_HASHED_LEN_BYTES, MAX_STEP_LEN_BYTES};
use shiplane_wire::{ChunkSender, Digest, Hasher, SendError, SendStep, Status, StatusError, StatusReader};

use crate::split::{cut, cuts, payload};

proptest! {
    #[test]
    fn what_is_sent_is_received(data in payload(), source in cuts(), stream in cuts()) {
        let frame = send(data.len() as u64, cut(&data, &source)).unwrap();
        prop_assert_eq!(frame.len(), 8 + data.len() + 32);
        prop_assert_eq!(&frame[8..8 + data.len()], &data[..]);
        let received = receive(cut(&frame, &stream), u64::MAX);
        prop_assert_eq!(received.error, None);
        prop_assert_eq!(received.verified, Some(Digest::sha256(&data)));
        prop_assert_eq!(received.payload, data);
    }

    #[test]
    fn a_source_of_another_size_never_makes_a_frame(data in payload(), len in 0u64..800, source in cuts()) {
        let supplied_bytes = data.len() as u64;
        let sent = send(len, cut(&data, &source));
        if supplied_bytes < len {
            prop_assert_eq!(sent, Err(SendError::SourceShort { supplied_bytes, len_bytes: len }));
        } else if supplied_bytes > len {
            let too_long = matches!(sent, Err(SendError::SourceLong { .. }));
            prop_assert!(too_long);
        } else {
            prop_assert!(sent.is_ok());
        }
    }

    #[test]
    fn only_one_zero_is_success(bytes in prop::collection::vec(0u8..5, 0..4), cuts in cuts()) {
        let expected = match bytes[..] {
            [] => Err(StatusError::Missing),
            [byte @ 3..=u8::MAX, ..] => Err(StatusError::Unknown { byte }),
            [_, _, ..] => Err(StatusError::Extra),
            [0] => Ok(Status::Stored),
            [1] => Ok(Status::ChecksumFailed),
            [2] => Ok(Status::Error),
        };
        prop_assert_eq!(answer(cut(&bytes, &cuts)), expected);
    }
}

#[test]
fn success_counts_only_once_all_was_sent() {
    let mut early = StatusReader::while_sending();
    assert_eq!(early.push(&[0]), Err(StatusError::Early));
    early.all_sent();
    assert_eq!(early.end(), Err(StatusError::Early));

    let mut in_time = StatusReader::while_sending();
    in_time.all_sent();
    assert_eq!(in_time.arrived(), None);
    in_time.push(&[0]).unwrap();
    assert_eq!(in_time.end(), Ok(Status::Stored));
}

#[test]
fn a_refusal_may_come_early() {
    for (byte, status) in [(1, Status::ChecksumFailed), (2, Status::Error)] {
        let mut reader = StatusReader::while_sending();
        reader.push(&[byte]).unwrap();
        assert_eq!(reader.arrived(), Some(status));
        assert_eq!(reader.end(), Ok(status));
    }
}

#[test]
fn payload_is_not_copied() {
    let source = Bytes::from(vec![7; 2 * MAX_STEP_LEN_BYTES + 1]);
    let mut sender = ChunkSender::new(source.len() as u64, Hasher::sha256()).unwrap();
    sender.supply(source.clone()).unwrap();
    let mut sent = Vec::new();
    while let SendStep::Transmit(bytes) = sender.poll().unwrap() {
        sent.push(bytes);
    }
    assert_eq!(sent[1].as_ptr(), source.as_ptr());
    let lens: Vec<_> = sent.iter().map(Bytes::len).collect();
    assert_eq!(lens, [8, MAX_STEP_LEN_BYTES, MAX_STEP_LEN_BYTES, 1, 32]);
}

#[test]
fn it_says_how_much_is_missing() {
    let mut sender = ChunkSender::new(5, Hasher::sha256()).unwrap();
    assert!(matches!(sender.poll(), Ok(SendStep::Transmit(_))));
    assert!(matches!(sender.poll(), Ok(SendStep::NeedPayload { remaining_bytes: 5 })));
    sender.supply(Bytes::from_static(b"hel")).unwrap();
    assert!(matches!(sender.poll(), Ok(SendStep::Transmit(_))));
    assert!(matches!(sender.poll(), Ok(SendStep::NeedPayload { remaining_bytes: 2 })));
}

#[test]
fn a_size_without_a_digest_is_refused() {
    let error = SendError::TooLarge { len_bytes: u64::MAX, max_bytes: MAX_HASHED_LEN_BYTES };
    assert_eq!(ChunkSender::new(u64::MAX, Hasher::sha256()).unwrap_err(), error);
    assert!(ChunkSender::new(MAX_HASHED_LEN_BYTES, Hasher::sha256()).is_ok());
}
