//! Encoding and decoding, and hostile encoders.

use proptest::prelude::*;
use shiplane_transport::ChunkSource;
use shiplane_wire::Durability;

use super::*;

/// Keeps what was committed.
#[derive(Debug, Default)]
struct Keep(Vec<u8>);

impl ChunkSink for Keep {
    type Output = (Vec<u8>, Digest);
    type Error = io::Error;

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn commit(self, verified: Verified) -> io::Result<(Stored, Self::Output)> {
        let digest = verified.digest();
        Ok((verified.stored(Durability::Verified), (self.0, digest)))
    }
}

type Decoded = Result<(Vec<u8>, Digest), DecodeSinkError<io::Error>>;

fn encode(content: &[u8], compression: Compression) -> EncodedSource {
    let source = ChunkSource::Memory(Bytes::copy_from_slice(content)).open().unwrap();
    EncodedSource::encode(source, compression).unwrap()
}

fn payload(content: &[u8], compression: Compression) -> Vec<u8> {
    let mut source = encode(content, compression);
    let len = usize::try_from(source.len_bytes()).unwrap();
    source.read(len).unwrap().to_vec()
}

/// As the lane would: writes in pieces, then commits with a proof for the payload.
fn decode(payload: &[u8], content_bytes: u64, piece: usize) -> Decoded {
    let mut sink = DecodingSink::new(Keep::default(), Hasher::sha256(), content_bytes, payload.len() as u64)?;
    for piece in payload.chunks(piece.max(1)) {
        sink.write(piece)?;
    }
    sink.commit(verified(payload)).map(|(_stored, output)| output)
}

fn verified(payload: &[u8]) -> Verified {
    let mut receiver = Offer::new(payload.len() as u64, u64::MAX).unwrap().accept(Hasher::sha256());
    receiver.push(Bytes::copy_from_slice(payload));
    receiver.push(Bytes::copy_from_slice(Digest::sha256(payload).as_bytes()));
    loop {
        if let RecvStep::Verified(verified) = receiver.poll().unwrap() {
            return verified;
        }
    }
}

fn noise(len: usize) -> Vec<u8> {
    testlink::Rng::new(1).bytes(len)
}

#[test]
fn text_shrinks_and_comes_back_with_its_own_digest() {
    let text = "the quick brown fox jumps over the lazy dog, ".repeat(100_000).into_bytes();
    let payload = payload(&text, Compression::Auto);
    assert!(payload.len() < text.len() / 2);
    let (back, digest) = decode(&payload, text.len() as u64, 1000).unwrap();
    assert_eq!(back, text);
    assert_eq!(digest, Digest::sha256(&text), "the inner sink's proof is of the content");
}

/// SPEC 4.16: written down, so that no release can change them.
#[test]
fn the_bytes_of_a_payload_never_change() {
    let (stored, frame) = (&b"\x00"[..], &b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0hello"[..]);
    let digest = Digest::sha256(b"hello");
    let golden = [stored, digest.as_bytes(), b"hello"].concat();
    assert_eq!(payload(b"hello", Compression::Always), golden);
    assert_eq!(decode(&golden, 5, 3).unwrap().0, b"hello");
    let golden = [b"\x01", &digest.as_bytes()[..], frame].concat();
    assert_eq!(decode(&golden, 5, 3).unwrap().0, b"hello");
}

#[test]
fn content_that_does_not_shrink_is_stored() {
    let noise = noise(300_000);
    for compression in [Compression::Never, Compression::Auto, Compression::Always] {
        let payload = payload(&noise, compression);
        assert_eq!(payload.len(), noise.len() + HEAD_LEN);
        assert_eq!(decode(&payload, noise.len() as u64, 4096).unwrap().0, noise);
    }
}

#[test]
fn mere_zeros_are_no_bomb() {
    let zeros = vec![0; MAX_ENCODED_CONTENT_BYTES as usize];
    let payload = payload(&zeros, Compression::Always);
    assert!(payload.len() < 32 * 1024, "{}", payload.len());
    assert_eq!(decode(&payload, zeros.len() as u64, 4096).unwrap().0, zeros);
}

#[test]
fn a_bomb_is_refused_before_it_is_read() {
    let too_dense = DecodingSink::new(Keep::default(), Hasher::sha256(), 1024 * 100 + 1, 100);
    assert!(matches!(too_dense, Err(DecodeSinkError::Bomb { .. })));
    let too_large =
        DecodingSink::new(Keep::default(), Hasher::sha256(), MAX_ENCODED_CONTENT_BYTES + 1, u64::MAX);
    assert!(matches!(too_large, Err(DecodeSinkError::Bomb { .. })));
}

#[test]
fn a_body_that_holds_more_than_agreed_is_cut_off_there() {
    let zeros = vec![0; 1 << 20];
    let payload = payload(&zeros, Compression::Always);
    let mut sink = DecodingSink::new(Keep::default(), Hasher::sha256(), 1000, payload.len() as u64).unwrap();
    let refused = sink.write(&payload);
    assert!(matches!(refused, Err(DecodeSinkError::TooLong { content_bytes: 1000 })), "{refused:?}");
    let Body::Zstd(decoder) = &sink.body else { panic!("it was zstd") };
    assert!(decoder.get_ref().sink.0.len() <= 1000);
}

#[test]
fn a_body_that_holds_less_than_agreed_is_refused() {
    let payload = payload(b"short", Compression::Never);
    let refused = decode(&payload, 6, 3);
    assert!(matches!(refused, Err(DecodeSinkError::Content(RecvError::Truncated { .. }))), "{refused:?}");
}

#[test]
fn a_digest_that_is_not_the_contents_is_refused() {
    for compression in [Compression::Never, Compression::Always] {
        let text = "text ".repeat(1000).into_bytes();
        let mut payload = payload(&text, compression);
        payload[7] ^= 1;
        let refused = decode(&payload, text.len() as u64, 100);
        assert!(
            matches!(refused, Err(DecodeSinkError::Content(RecvError::ChecksumMismatch { .. }))),
            "{refused:?}"
        );
    }
}

#[test]
fn an_unknown_encoding_is_named() {
    let mut payload = payload(b"text", Compression::Never);
    payload[0] = 9;
    assert!(matches!(decode(&payload, 4, 100), Err(DecodeSinkError::UnknownEncoding { byte: 9 })));
}

#[test]
fn a_window_beyond_the_limit_is_refused() {
    // RFC 8878 3.1.1: magic, a descriptor without single segment, a window of 2^30.
    let mut payload = vec![ZSTD];
    payload.extend_from_slice(&[0; 32]);
    payload.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00]);
    payload.resize(1000, 0);
    let refused = decode(&payload, 1, 1000);
    assert!(matches!(refused, Err(DecodeSinkError::Undecodable(_))), "{refused:?}");
}

#[test]
fn nothing_is_encoded_too() {
    let payload = payload(b"", Compression::Auto);
    assert_eq!(decode(&payload, 0, 1).unwrap().0, b"");
    assert!(decode(b"", 0, 1).is_err(), "even nothing has a head");
}

#[test]
fn a_source_over_the_limit_is_not_read() {
    struct Huge;
    impl ChunkRead for Huge {
        fn len_bytes(&self) -> u64 {
            MAX_ENCODED_CONTENT_BYTES + 1
        }
        fn read(&mut self, _max_len_bytes: usize) -> Result<Bytes, SourceError> {
            panic!("it was read");
        }
        fn check_unchanged(&mut self) -> Result<(), SourceError> {
            panic!("it was read");
        }
    }
    let refused = EncodedSource::encode(Huge, Compression::Always);
    assert!(matches!(refused, Err(SourceError::Io(error)) if error.kind() == io::ErrorKind::FileTooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_content_comes_back_however_it_is_split(
        content in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..5000),
            prop::collection::vec(0_u8..3, 0..50_000),
        ],
        piece in 1_usize..3000,
        compression in prop::sample::select(vec![Compression::Never, Compression::Auto, Compression::Always]),
    ) {
        let payload = payload(&content, compression);
        let (back, digest) = decode(&payload, content.len() as u64, piece).unwrap();
        prop_assert_eq!(digest, Digest::sha256(&content));
        prop_assert_eq!(back, content);
    }

    #[test]
    fn content_that_is_compressed_while_it_is_read_comes_back(
        content in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..5000),
            prop::collection::vec(0_u8..3, 0..300_000),
        ],
        compression in prop::sample::select(vec![Compression::Auto, Compression::Always]),
    ) {
        let source = ChunkSource::Memory(content.clone().into()).open().unwrap();
        let Some(mut encoded) = EncodedSource::compress(source, compression, Hasher::sha256()).unwrap() else {
            return Ok(()); // It does not shrink.
        };
        prop_assert_eq!(encoded.digest(), Digest::sha256(&content));
        let payload = encoded.read(usize::MAX).unwrap();
        prop_assert_eq!(decode(&payload, content.len() as u64, 1000).unwrap().0, content);
    }

    #[test]
    fn no_flipped_bit_and_no_soup_yields_content_without_its_digest(
        content in prop::collection::vec(0_u8..5, 1..2000),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut payload = payload(&content, Compression::Always);
        let at = at.index(payload.len());
        payload[at] ^= 1 << bit;
        if let Ok((back, digest)) = decode(&payload, content.len() as u64, 100) {
            // Some bits of a zstd frame carry nothing; what is accepted is the content all the same.
            prop_assert_eq!(digest, Digest::sha256(&content));
            prop_assert_eq!(back, content);
        }
    }
}
