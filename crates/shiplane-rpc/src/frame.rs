//! Reassembles one envelope after its stream header.
//!
//! Feed [`EnvelopeReader::push`] what arrives, and say [`EnvelopeReader::end`] at the end of the stream.
//! It holds what has arrived, never what was announced.

use bytes::{Bytes, BytesMut};
use shiplane_wire::{Opened, OpeningError, OpeningReader};
use thiserror::Error;

/// Reassembles one envelope.
#[derive(Debug)]
pub(crate) struct EnvelopeReader {
    state: State,
}

/// The peer did not send one whole envelope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// The first 8 bytes announce nothing that can be here, or too much.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// The first 8 bytes announce something else than the envelope of an answer.
    #[error("the peer sent something other than an answer")]
    NotAnAnswer,
    /// The stream ended before the envelope did.
    #[error("the peer's envelope ended after {received_bytes} of {expected_bytes} bytes")]
    Truncated {
        /// Bytes of the envelope that arrived.
        received_bytes: usize,
        /// Bytes that were announced.
        expected_bytes: usize,
    },
    /// More bytes followed the envelope.
    #[error("the peer sent more than one envelope")]
    Excess,
}

impl EnvelopeReader {
    /// For an answer: its header comes first.
    pub(crate) fn answer() -> Self {
        Self { state: State::Opening(OpeningReader::new()) }
    }

    /// For a request whose header has been read; `len_bytes` is its body's length.
    pub(crate) fn request(envelope_len_bytes: u32) -> Self {
        Self { state: State::of_body(envelope_len_bytes) }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// The peer broke the frame; give the stream up. `Excess` comes only after the envelope is whole,
    /// and [`take`](Self::take) still has it then.
    pub(crate) fn push(&mut self, mut piece: Bytes) -> Result<(), EnvelopeError> {
        if let State::Opening(reader) = &mut self.state {
            let body_len_bytes = match reader.push(&mut piece)? {
                None => return Ok(()),
                Some(Opened::Rpc { body_len_bytes }) => body_len_bytes,
                Some(_) => return Err(EnvelopeError::NotAnAnswer),
            };
            self.state = State::of_body(body_len_bytes);
        }
        if let State::Body { gathered, len_bytes } = &mut self.state {
            let part = piece.split_to(piece.len().min(*len_bytes - gathered.len()));
            if part.len() == *len_bytes {
                // Nearly always: all of it in one piece, which needs no copy.
                self.state = State::Whole(Some(part));
            } else {
                gathered.extend_from_slice(&part);
                if gathered.len() == *len_bytes {
                    self.state = State::Whole(Some(gathered.split().freeze()));
                }
            }
        }
        if piece.is_empty() { Ok(()) } else { Err(EnvelopeError::Excess) }
    }

    /// The envelope, once, as soon as it is whole.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        match &mut self.state {
            State::Whole(envelope) => envelope.take(),
            State::Opening(_) | State::Body { .. } => None,
        }
    }

    /// The stream has ended; all of the envelope that there will be is here.
    ///
    /// # Errors
    /// [`EnvelopeError::Truncated`] if that was too early.
    pub(crate) fn end(&mut self) -> Result<(), EnvelopeError> {
        match &mut self.state {
            State::Opening(reader) => reader.end().map_err(EnvelopeError::Opening),
            State::Body { gathered, len_bytes } => {
                Err(EnvelopeError::Truncated { received_bytes: gathered.len(), expected_bytes: *len_bytes })
            }
            State::Whole(_) => Ok(()),
        }
    }
}

/// For the fuzzer: an answer's stream, in pieces whose length the first byte says. It ends in an error
/// or in the envelope that was announced, the same for every split.
#[doc(hidden)]
pub fn fuzz_answer_stream(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    let run = |piece_len_bytes: usize| {
        let mut reader = EnvelopeReader::answer();
        let mut pieces = data.chunks(piece_len_bytes).map(Bytes::copy_from_slice);
        let pushed = pieces.try_for_each(|piece| reader.push(piece));
        let ended = pushed.and_then(|()| reader.end());
        (ended, reader.take())
    };
    let (ended, envelope) = run(usize::from(cut) + 1);
    assert_eq!((ended, envelope.clone()), run(data.len().max(1)));
    if let Some(envelope) = envelope {
        let rest = data.get(shiplane_wire::OPENING_LEN_BYTES..).unwrap_or_default();
        assert!(rest.starts_with(&envelope));
    }
}

#[derive(Debug)]
enum State {
    Opening(OpeningReader),
    Body {
        gathered: BytesMut,
        len_bytes: usize,
    },
    /// None: it was taken.
    Whole(Option<Bytes>),
}

impl State {
    fn of_body(len_bytes: u32) -> Self {
        match len_bytes {
            0 => Self::Whole(Some(Bytes::new())),
            len => Self::Body { gathered: BytesMut::new(), len_bytes: len as usize },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shiplane_wire::{Code, StreamHeader, StreamKind};

    use super::*;

    fn framed(kind: StreamKind, body: &[u8]) -> Vec<u8> {
        let header = StreamHeader::new(kind, body.len() as u64).unwrap();
        [&header.encode()[..], body].concat()
    }

    #[test]
    fn an_envelope_in_one_piece_is_not_copied() {
        let piece = Bytes::from(framed(StreamKind::RpcCall, b"envelope"));
        let mut reader = EnvelopeReader::answer();
        reader.push(piece.clone()).unwrap();
        reader.end().unwrap();
        let envelope = reader.take().unwrap();
        assert_eq!(&envelope[..], b"envelope");
        assert_eq!(envelope.as_ptr(), piece[8..].as_ptr());
    }

    #[test]
    fn an_announcement_of_4_gib_is_refused_by_its_header() {
        let mut reader = EnvelopeReader::answer();
        let mut header = framed(StreamKind::RpcCall, b"");
        header[..4].fill(0xff);
        let error = reader.push(header.into()).unwrap_err();
        let EnvelopeError::Opening(refused @ OpeningError::TooLarge { len_bytes, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!((len_bytes, refused.code()), (u64::from(u32::MAX), Code::TooLarge));
    }

    #[test]
    fn another_kind_is_not_an_answer() {
        for kind in [StreamKind::OneWay, StreamKind::Message] {
            let mut reader = EnvelopeReader::answer();
            assert_eq!(reader.push(framed(kind, b"x").into()), Err(EnvelopeError::NotAnAnswer));
        }
        let mut chunk = EnvelopeReader::answer();
        assert_eq!(chunk.push(Bytes::from(vec![5; 8])), Err(EnvelopeError::NotAnAnswer));
    }

    #[test]
    fn a_second_envelope_is_an_error_and_the_first_one_is_kept() {
        let mut reader = EnvelopeReader::answer();
        let twice = framed(StreamKind::RpcCall, b"first").repeat(2);
        assert_eq!(reader.push(twice.into()), Err(EnvelopeError::Excess));
        assert_eq!(reader.take().as_deref(), Some(&b"first"[..]));
        assert_eq!(reader.take(), None);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_envelope(
            body in proptest::collection::vec(any::<u8>(), 0..300),
            sizes in proptest::collection::vec(1..40_usize, 1..50),
            is_answer in any::<bool>(),
        ) {
            let whole = framed(StreamKind::RpcCall, &body);
            let (mut reader, mut rest) = if is_answer {
                (EnvelopeReader::answer(), &whole[..])
            } else {
                (EnvelopeReader::request(body.len() as u32), &whole[8..])
            };
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                prop_assert!(reader.take().is_none());
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                reader.push(Bytes::copy_from_slice(piece)).unwrap();
                rest = after;
            }
            reader.end().unwrap();
            prop_assert_eq!(reader.take().unwrap(), body);
        }

        #[test]
        fn an_early_end_is_truncated_wherever_it_is(
            body in proptest::collection::vec(any::<u8>(), 1..300),
            cut in any::<proptest::sample::Index>(),
        ) {
            let whole = framed(StreamKind::RpcCall, &body);
            let cut = cut.index(whole.len());
            let mut reader = EnvelopeReader::answer();
            reader.push(Bytes::copy_from_slice(&whole[..cut])).unwrap();
            let error = reader.end().unwrap_err();
            let is_truncated = matches!(
                error,
                EnvelopeError::Truncated { .. } | EnvelopeError::Opening(OpeningError::Truncated { .. })
            );
            prop_assert!(is_truncated, "{error:?}");
        }
    }
}
