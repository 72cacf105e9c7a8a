//! Golden bytes, round trips and hostile input for the codec.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde::de::{SeqAccess, Visitor};

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn golden_request() {
    let request = Request {
        call_id: CallId::from_u64(0x0102_0304_0506_0708),
        method: "fetch.open".into(),
        remaining_ms: 5000,
        body: Bytes::from_static(b"\xca\xfe"),
    };
    let framed = hex("2c000000 000000c1
         0807060504030201
         0a00000000000000 66657463682e6f70656e
         8813000000000000
         0200000000000000 cafe");
    assert_eq!(request.encode(StreamKind::RpcCall).unwrap(), framed);
    assert_eq!(Request::decode(&Bytes::copy_from_slice(&framed[8..])), Ok(request.clone()));

    let one_way = request.encode(StreamKind::OneWay).unwrap();
    assert_eq!(one_way[..8], hex("2c000000 000000c2"));
    assert_eq!(one_way[8..], framed[8..]);
}

#[test]
fn golden_answer() {
    let answer = Answer {
        call_id: CallId::from_u64(0x0102_0304_0506_0708),
        outcome: Ok(Bytes::from_static(b"\xca\xfe\x00")),
    };
    let framed = hex("17000000 000000c1
         0807060504030201
         00000000
         0300000000000000 cafe00");
    assert_eq!(answer.encode().unwrap(), framed);
    assert_eq!(Answer::decode(&Bytes::copy_from_slice(&framed[8..])), Ok(answer));
}

#[test]
fn golden_fault() {
    let answer = Answer {
        call_id: CallId::from_u64(1),
        outcome: Err(Fault::new(FaultCode::NotFound, "no such file")),
    };
    let framed = hex("24000000 000000c1
         0100000000000000
         01000000
         06000000
         0c00000000000000 6e6f20737563682066696c65");
    assert_eq!(answer.encode().unwrap(), framed);
    assert_eq!(Answer::decode(&Bytes::copy_from_slice(&framed[8..])), Ok(answer));
}

#[test]
fn a_body_is_cut_out_of_the_envelope_not_copied() {
    let request = Request {
        call_id: CallId::from_u64(1),
        method: "m".into(),
        remaining_ms: 1,
        body: Bytes::from_static(b"payload"),
    };
    let envelope = request.encode(StreamKind::RpcCall).unwrap().slice(8..);
    let decoded = Request::decode(&envelope).unwrap();
    assert_eq!(decoded.body.as_ptr_range().end, envelope.as_ptr_range().end);
}

#[test]
fn the_limit_is_exact_and_names_the_lane() {
    let request = |len: usize| Request {
        call_id: CallId::from_u64(1),
        method: String::new(),
        remaining_ms: 1,
        body: Bytes::from(vec![0; len]),
    };
    let fits = MAX_LEN_BYTES as usize - 32;
    let framed = request(fits).encode(StreamKind::RpcCall).unwrap();
    assert_eq!(framed.len(), MAX_LEN_BYTES as usize + 8);
    assert_eq!(Request::decode(&framed.slice(8..)), Ok(request(fits)));

    let error = request(fits + 1).encode(StreamKind::RpcCall).unwrap_err();
    let expected = EncodeError::TooLarge { len_bytes: MAX_LEN_BYTES + 1, max_bytes: MAX_LEN_BYTES };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("lane"), "{error}");

    assert!(encode(&vec![0_u8; fits + 24]).is_ok());
    assert!(matches!(encode(&vec![0_u8; fits + 25]), Err(EncodeError::TooLarge { .. })));
    let too_long = vec![0_u8; MAX_LEN_BYTES as usize + 1];
    assert!(matches!(decode::<Vec<u8>>(&too_long), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn a_peers_endless_message_is_cut() {
    let message = "x".repeat(MAX_LEN_BYTES as usize - 64);
    let raw = RawAnswer { call_id: 1, outcome: RawOutcome::Fault(9, &message) };
    let envelope = encode(&raw).unwrap();
    let fault = Answer::decode(&envelope).unwrap().outcome.unwrap_err();
    assert_eq!(fault.code, FaultCode::Gone);
    assert_eq!(fault.message().len(), MAX_FAULT_MESSAGE_LEN_BYTES);
}

#[test]
fn each_malformed_value_has_its_error() {
    assert_eq!(decode::<u32>(&[1, 2, 3]), Err(DecodeError::Truncated));
    assert_eq!(decode::<u32>(&[1, 2, 3, 4, 5]), Err(DecodeError::TrailingBytes));
    assert_eq!(decode::<bool>(&[2]), Err(DecodeError::InvalidTag { tag: 2 }));
    assert_eq!(decode::<Option<u8>>(&[7, 0]), Err(DecodeError::InvalidTag { tag: 7 }));
    assert_eq!(decode::<char>(&[0xff]), Err(DecodeError::InvalidValue));
    assert_eq!(decode::<Result<u8, u8>>(&[2, 0, 0, 0, 0]), Err(DecodeError::InvalidValue));
    assert_eq!(decode::<String>(b"\x01\0\0\0\0\0\0\0\xff"), Err(DecodeError::InvalidText));
    assert_eq!(decode::<String>(b"\x02\0\0\0\0\0\0\0a"), Err(DecodeError::Truncated));
}

/// 2^62, as a length prefix.
const ENDLESS: [u8; 8] = (1_u64 << 62).to_le_bytes();

#[test]
fn an_endless_length_is_refused_whatever_it_counts() {
    let claimed = |possible| DecodeError::TooManyElements { claimed: 1 << 62, possible };
    assert_eq!(decode::<Vec<u64>>(&ENDLESS), Err(claimed(8)));
    assert_eq!(decode::<BTreeMap<u64, u64>>(&ENDLESS), Err(claimed(8)));
    assert_eq!(decode::<String>(&ENDLESS), Err(DecodeError::Truncated));
    // Without the fence this one would count to 2^62.
    assert_eq!(decode::<Vec<()>>(&ENDLESS), Err(claimed(8)));
    // Inside other values just the same.
    let nested = [&[1][..], &ENDLESS].concat();
    assert_eq!(decode::<Option<(Vec<String>,)>>(&nested), Err(claimed(9)));
}

/// Remembers how many elements a container was told to expect.
struct Probe;

static LARGEST_HINT: AtomicUsize = AtomicUsize::new(0);

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Probe;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Probe, A::Error> {
                LARGEST_HINT.fetch_max(access.size_hint().unwrap(), Ordering::Relaxed);
                while access.next_element::<u8>()?.is_some() {}
                Ok(Probe)
            }
        }
        deserializer.deserialize_seq(Look)
    }
}

#[test]
fn no_container_is_ever_told_to_expect_more_than_the_input_has() {
    for claimed in [0, 1, 7, 8, 9, 1 << 20, 1 << 32, 1 << 62, u64::MAX] {
        let input = [&claimed.to_le_bytes()[..], &[0; 8]].concat();
        let _ = decode::<Probe>(&input);
    }
    assert_eq!(LARGEST_HINT.load(Ordering::Relaxed), 9, "9 of 16 bytes could be, 2^20 could not");
}

#[test]
fn many_small_lies_do_not_add_up() {
    // Each inner sequence claims what would be possible for it alone.
    let inner = 500_u64.to_le_bytes();
    let input = [&100_u64.to_le_bytes()[..], &inner.repeat(100)].concat();
    let error = decode::<Vec<Vec<()>>>(&input).unwrap_err();
    assert_eq!(error, DecodeError::TooManyElements { claimed: 500, possible: 208 });
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(u8),
    Node(Box<Self>),
}

#[test]
fn bottomless_nesting_ends_in_an_error_not_in_the_stack() {
    let deep = 1_u32.to_le_bytes().repeat(1 << 18);
    let error = decode::<Tree>(&deep).unwrap_err();
    assert_eq!(error, DecodeError::TooDeep { max_depth: MAX_DEPTH });

    let nest = |depth| (1..depth).fold(Tree::Leaf(1), |inner, _| Tree::Node(Box::new(inner)));
    let deepest = nest(MAX_DEPTH);
    assert_eq!(decode::<Tree>(&encode(&deepest).unwrap()), Ok(deepest));
    let deeper = encode(&nest(MAX_DEPTH + 1)).unwrap();
    assert_eq!(decode::<Tree>(&deeper), Err(DecodeError::TooDeep { max_depth: MAX_DEPTH }));
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    numbers: (u8, i16, u32, i64, u128, f64),
    text: String,
    letter: char,
    maybe: Option<Box<(bool, ())>>,
    list: Vec<Vec<u16>>,
    map: BTreeMap<String, Kind>,
    digest: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    New(Wrapped),
    Pair(u8, String),
    Named { id: u64, tags: Vec<String> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(i128);

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Unit),
        any::<i128>().prop_map(|n| Kind::New(Wrapped(n))),
        any::<(u8, String)>().prop_map(|(n, s)| Kind::Pair(n, s)),
        (any::<u64>(), proptest::collection::vec(any::<String>(), 0..3))
            .prop_map(|(id, tags)| Kind::Named { id, tags }),
    ]
}

fn everything() -> impl Strategy<Value = Everything> {
    let numbers = (any::<u8>(), any::<i16>(), any::<u32>(), any::<i64>(), any::<u128>(), -1e9..1e9);
    let list = proptest::collection::vec(proptest::collection::vec(any::<u16>(), 0..5), 0..5);
    let map = proptest::collection::btree_map(any::<String>(), kind(), 0..4);
    let maybe = proptest::option::of(any::<bool>().prop_map(|b| Box::new((b, ()))));
    (numbers, any::<String>(), any::<char>(), maybe, list, map, any::<[u8; 32]>()).prop_map(
        |(numbers, text, letter, maybe, list, map, digest)| Everything {
            numbers,
            text,
            letter,
            maybe,
            list,
            map,
            digest,
        },
    )
}

fn outcome() -> impl Strategy<Value = Result<Bytes, Fault>> {
    let body = proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let fault = (any::<u32>(), any::<String>())
        .prop_map(|(code, message)| Fault::new(FaultCode::from_u32(code), message));
    prop_oneof![body.prop_map(Ok), fault.prop_map(Err)]
}

proptest! {
    #[test]
    fn every_value_comes_back(value in everything()) {
        let bytes = encode(&value).unwrap();
        prop_assert_eq!(decode::<Everything>(&bytes), Ok(value));
    }

    #[test]
    fn no_cut_or_longer_value_is_taken(value in everything(), cut in any::<proptest::sample::Index>()) {
        let mut bytes = encode(&value).unwrap().to_vec();
        let cut = cut.index(bytes.len());
        prop_assert!(decode::<Everything>(&bytes[..cut]).is_err());
        bytes.push(0);
        prop_assert_eq!(decode::<Everything>(&bytes), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn every_request_comes_back(
        id in any::<u64>(),
        method in any::<String>(),
        remaining_ms in any::<u64>(),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let request =
            Request { call_id: CallId::from_u64(id), method, remaining_ms, body: body.into() };
        let framed = request.encode(StreamKind::RpcCall).unwrap();
        prop_assert_eq!(Request::decode(&framed.slice(8..)), Ok(request));
    }

    #[test]
    fn every_answer_comes_back(id in any::<u64>(), outcome in outcome()) {
        let answer = Answer { call_id: CallId::from_u64(id), outcome };
        let framed = answer.encode().unwrap();
        prop_assert_eq!(Answer::decode(&framed.slice(8..)), Ok(answer));
    }

    #[test]
    fn byte_soup_is_survived(soup in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_envelopes(&soup);
        fuzz_body(&soup);
        let _ = decode::<Everything>(&soup);
        let _ = decode::<Tree>(&soup);
    }

    /// Small numbers make soup that gets further than random bytes do.
    #[test]
    fn plausible_soup_is_survived(words in proptest::collection::vec(0..9_u64, 0..60)) {
        let soup: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        fuzz_envelopes(&soup);
        fuzz_body(&soup);
        let _ = decode::<Everything>(&soup);
        let _ = decode::<Vec<Tree>>(&soup);
    }
}
