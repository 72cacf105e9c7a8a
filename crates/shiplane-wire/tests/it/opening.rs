//! Openings of streams.

use proptest::prelude::*;
use shiplane_wire::fuzz::open;
use shiplane_wire::limits::{MAX_FRAME_LEN_BYTES, MAX_MESSAGE_LEN_BYTES, MAX_RPC_FRAME_LEN_BYTES};
use shiplane_wire::{
    Opened, OpeningError, StreamHeader, StreamKind, TaggedChunk, TransferId, internals::Opening,
    records_opening,
};

use crate::split::{cut, cuts};

proptest! {
    #[test]
    fn an_opening_is_read_however_it_is_cut((bytes, opened) in openings(), rest: Vec<u8>, cuts in cuts()) {
        let stream = [&bytes[..], &rest].concat();
        prop_assert_eq!(open(cut(&stream, &cuts)), (Ok(Some(opened)), rest));
    }

    #[test]
    fn a_cut_opening_is_truncated((bytes, _) in openings(), cuts in cuts(), end in any::<prop::sample::Index>()) {
        let end = end.index(bytes.len());
        let expected_bytes = if end < 8 { 8 } else { bytes.len() };
        let error = OpeningError::Truncated { received_bytes: end, expected_bytes };
        prop_assert_eq!(open(cut(&bytes[..end], &cuts)), (Err(error), vec![]));
    }

    #[test]
    fn every_word_is_one_thing(word in words()) {
        let bytes = word.to_le_bytes();
        match Opening::decode(bytes) {
            Ok(Opening::BareChunk { len_bytes }) => {
                prop_assert_eq!(len_bytes, word);
                prop_assert!(len_bytes <= MAX_FRAME_LEN_BYTES);
            }
            // What is understood is all there is: no bit goes unread.
            Ok(Opening::Header(header)) => prop_assert_eq!(header.encode(), bytes),
            Err(OpeningError::ReservedTopBits { .. }) => prop_assert!(matches!(word >> 62, 1 | 2)),
            Err(OpeningError::UnknownKind { kind }) => prop_assert!(!(1..=5).contains(&kind)),
            Err(OpeningError::ReservedBits { .. }) => prop_assert!(word >> 32 & 0xff_ffff != 0),
            Err(OpeningError::TooLarge { len_bytes, max_bytes, .. }) => {
                prop_assert_eq!(len_bytes, word & 0xffff_ffff);
                prop_assert!(len_bytes > u64::from(max_bytes));
            }
            Err(OpeningError::WrongBodyLen { len_bytes, expected_bytes, .. }) => {
                prop_assert!(len_bytes != u64::from(expected_bytes));
            }
            Err(error @ OpeningError::Truncated { .. }) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(stream: Vec<u8>, cuts in cuts()) {
        prop_assert_eq!(open(cut(&stream, &cuts)), open(vec![stream.into()]));
    }
}

/// Every kind of opening, and its bytes.
fn openings() -> impl Strategy<Value = (Vec<u8>, Opened)> {
    let bare = (0..=MAX_FRAME_LEN_BYTES)
        .prop_map(|len_bytes| (len_bytes.to_le_bytes().to_vec(), Opened::Bare { len_bytes }));
    let tagged = (any::<[u8; 16]>(), any::<u64>()).prop_map(|(id, index)| {
        let tag = TaggedChunk { transfer: TransferId::from_bytes(id), index };
        (tag.encode().to_vec(), Opened::Tagged(tag))
    });
    let compressed = (any::<[u8; 16]>(), any::<u64>()).prop_map(|(id, index)| {
        let tag = TaggedChunk { transfer: TransferId::from_bytes(id), index };
        (tag.encode_compressed().to_vec(), Opened::Compressed(tag))
    });
    let records = any::<[u8; 16]>().prop_map(|id| {
        let id = TransferId::from_bytes(id);
        (records_opening(id).to_vec(), Opened::Records(id))
    });
    let rpc = (0..=MAX_RPC_FRAME_LEN_BYTES)
        .prop_map(|len| (header(StreamKind::RpcCall, len), Opened::Rpc { body_len_bytes: len }));
    let one_way = (0..=MAX_RPC_FRAME_LEN_BYTES)
        .prop_map(|len| (header(StreamKind::OneWay, len), Opened::OneWay { body_len_bytes: len }));
    let message = (0..=MAX_MESSAGE_LEN_BYTES)
        .prop_map(|len| (header(StreamKind::Message, len), Opened::Message { body_len_bytes: len }));
    prop_oneof![bare, tagged, compressed, records, rpc, one_way, message]
}

fn header(kind: StreamKind, body_len_bytes: u32) -> Vec<u8> {
    StreamHeader::new(kind, body_len_bytes.into()).unwrap().encode().to_vec()
}

/// Words of which many are nearly headers.
fn words() -> impl Strategy<Value = u64> {
    let header = (0u64..8, prop_oneof![9 => Just(0u64), 1 => 0u64..1 << 24], 0u64..1 << 21);
    prop_oneof![
        any::<u64>(),
        header.prop_map(|(kind, reserved, len)| 0b11 << 62 | kind << 56 | reserved << 32 | len),
        (0u64..8, 0u64..40).prop_map(|(kind, len)| 0b11 << 62 | kind << 56 | len),
    ]
}

/// SPEC 4.15: written down, so that no release can change them.
#[test]
fn the_opening_of_a_compressed_chunk_is_that_of_a_tagged_one_but_for_its_kind() {
    let tag = TaggedChunk { transfer: TransferId::from_bytes([7; 16]), index: 3 };
    let golden = [&b"\x18\0\0\0\0\0\0\xc6"[..], &[7; 16], b"\x03\0\0\0\0\0\0\0"].concat();
    assert_eq!(tag.encode_compressed()[..], golden[..]);
    assert_eq!((tag.encode()[7], &tag.encode()[8..]), (0xc4, &golden[8..]));
}
