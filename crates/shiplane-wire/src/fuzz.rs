//! Fuzz entries, and the drivers that tests share with them.
//!
//! Each entry is one line beside the code it is for. It takes any bytes and panics if a law of the crate
//! is broken. A driver runs a machine as its caller would, to the end, and checks on the way what holds
//! for every input.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::Debug;

use bytes::{Bytes, BytesMut};

mod session;

pub use self::session::fuzz_session;
pub use crate::attributes::fuzz_attributes;
pub use crate::frame::{fuzz_recv, fuzz_send, fuzz_status};
pub use crate::header::fuzz_opening;
pub use crate::path::fuzz_path;
pub use crate::records::{fuzz_records_provider, fuzz_records_receiver};

use crate::limits::MAX_STEP_LEN_BYTES;
use crate::{
    ChunkSender, Digest, FrameError, Hasher, Offer, Opened, OpeningError, OpeningReader, RecordError,
    RecordReader, RecvError, RecvStep, RelPath, SendError, SendStep, SizeReader, Status, StatusError,
    StatusReader, escape, escape_truncated, records::Record,
};

/// Runs a driver on the whole input and on pieces of it, whose length the first byte says: the outcome
/// must be the same.
pub fn any_split<T: Debug + PartialEq>(data: &[u8], run: impl Fn(Vec<Bytes>) -> T) {
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    let pieces = data.chunks(usize::from(cut) + 1);
    let in_pieces = run(pieces.map(Bytes::copy_from_slice).collect());
    assert_eq!(in_pieces, run([Bytes::copy_from_slice(data)].into()));
}

/// Reads an opening; returns the stream type and the rest of the input.
pub fn open(pieces: Vec<Bytes>) -> (Result<Option<Opened>, OpeningError>, Vec<u8>) {
    let mut reader = OpeningReader::new();
    let mut opened = None;
    let mut rest = Vec::new();
    for mut piece in pieces {
        let answer = reader.push(&mut piece);
        assert_eq!(answer, reader.push(&mut Bytes::new()), "decided once");
        assert!(answer != Ok(None) || piece.is_empty(), "takes what it asks for");
        opened = answer.ok().flatten();
        rest.extend_from_slice(&piece);
    }
    (reader.end().map(|()| opened), rest)
}

/// How receiving a chunk went.
#[derive(Debug, Default)]
pub struct Received {
    /// All payload that was given out.
    pub payload: Vec<u8>,
    /// The digest, if the chunk was verified.
    pub verified: Option<Digest>,
    /// What ended it, if not the sender's FIN in its place.
    pub error: Option<ReceiveError>,
}

/// Either error of the receiving side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// On the size.
    Frame(FrameError),
    /// After it.
    Recv(RecvError),
}

/// Receives a frame of at most `max_len_bytes`, its size included, and then FIN.
pub fn receive(pieces: Vec<Bytes>, max_len_bytes: u64) -> Received {
    let mut received = Received::default();
    received.error = receive_into(&mut received, pieces, max_len_bytes).err();
    received
}

fn receive_into(received: &mut Received, pieces: Vec<Bytes>, max_len_bytes: u64) -> Result<(), ReceiveError> {
    // A step for each piece to ask for it and one to use it, and a few to end.
    let given_bytes: usize = pieces.iter().map(Bytes::len).sum();
    let max_steps = 2 * pieces.len() + given_bytes / MAX_STEP_LEN_BYTES + 4;
    let mut pieces = pieces.into_iter();
    let (mut size, mut piece) = (SizeReader::new(), Bytes::new());
    let len_bytes = loop {
        if let Some(len_bytes) = size.push(&mut piece) {
            break len_bytes;
        }
        match pieces.next() {
            Some(next) => piece = next,
            None => return size.end().map_err(ReceiveError::Frame),
        }
    };
    let offer = Offer::new(len_bytes, max_len_bytes).map_err(ReceiveError::Frame)?;
    let mut receiver = offer.accept(Hasher::sha256());
    receiver.push(piece);
    for _ in 0..max_steps {
        match receiver.poll() {
            Ok(RecvStep::NeedInput) => match pieces.next() {
                Some(piece) => receiver.push(piece),
                None => receiver.end(),
            },
            Ok(RecvStep::Payload { offset, data }) => {
                assert_eq!(offset, received.payload.len() as u64, "in order, no gaps");
                received.payload.extend_from_slice(&data);
                assert!(received.payload.len() as u64 <= len_bytes, "no more than the size");
                assert!(!data.is_empty() && received.verified.is_none());
            }
            Ok(RecvStep::Verified(verified)) => {
                assert_eq!(verified.len_bytes(), len_bytes);
                assert_eq!(verified.digest(), Digest::sha256(&received.payload));
                assert_eq!(received.verified.replace(verified.digest()), None, "only once");
            }
            Ok(RecvStep::Ended) => {
                assert!(received.verified.is_some(), "no other end than after that");
                return Ok(());
            }
            Err(error) => {
                receiver.push(Bytes::from_static(b"more"));
                assert_eq!(receiver.poll().err(), Some(error), "an error is final");
                return Err(ReceiveError::Recv(error));
            }
        }
    }
    panic!("not done after {max_steps} steps");
}

/// Sends a chunk of `len_bytes` from these pieces; returns the frame.
pub fn send(len_bytes: u64, pieces: Vec<Bytes>) -> Result<Vec<u8>, SendError> {
    let given_bytes: usize = pieces.iter().map(Bytes::len).sum();
    let max_steps = 2 * pieces.len() + given_bytes / MAX_STEP_LEN_BYTES + 5;
    let mut pieces = pieces.into_iter();
    let mut sender = ChunkSender::new(len_bytes, Hasher::sha256())?;
    let mut frame = Vec::new();
    for _ in 0..max_steps {
        let step = sender.poll()?;
        let supplied = match step {
            SendStep::Transmit(bytes) => {
                frame.extend_from_slice(&bytes);
                Ok(())
            }
            SendStep::NeedPayload { .. } => match pieces.next() {
                Some(piece) => sender.supply(piece),
                None => sender.source_ended(),
            },
            SendStep::Finish => {
                pieces.try_for_each(|piece| sender.supply(piece))?;
                assert!(sender.digest().is_some());
                return Ok(frame);
            }
        };
        if let Err(error) = supplied {
            assert_eq!(sender.poll().err(), Some(error), "an error is final");
            assert_eq!(sender.digest(), None);
        }
    }
    panic!("not done after {max_steps} steps");
}

/// Reads the answer to a chunk that was sent whole.
pub fn answer(pieces: Vec<Bytes>) -> Result<Status, StatusError> {
    let mut reader = StatusReader::new();
    for piece in pieces {
        if let Err(error) = reader.push(&piece) {
            assert_eq!(reader.end(), Err(error), "an error is final");
        }
    }
    reader.end()
}

/// Reads records, and checks that they have one encoding only.
pub fn records<R: Record + Debug>(
    pieces: Vec<Bytes>,
    encode: impl Fn(&R, &mut BytesMut) -> Result<(), RecordError>,
) -> (Vec<R>, Result<(), RecordError>) {
    let stream = pieces.concat();
    let mut reader = RecordReader::new();
    let mut records = Vec::new();
    let mut again = BytesMut::new();
    let mut outcome = Ok(());
    for piece in pieces {
        reader.push(piece);
        outcome = loop {
            match reader.poll() {
                Ok(Some(record)) => {
                    assert_eq!(outcome, Ok(()), "no record after an error");
                    assert_eq!(encode(&record, &mut again), Ok(()), "{record:?}");
                    records.push(record);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
    }
    assert!(stream.starts_with(&again));
    (records, reader.end().and(outcome))
}

/// Checks a path that may break every rule, and the text that is made of it.
pub fn path(bytes: &[u8]) {
    let text = escape(bytes).to_string();
    assert!(text.chars().all(escape::is_printable));
    for max_len_bytes in [0, 2, 3, 17, 256] {
        let cut = escape_truncated(bytes, max_len_bytes).to_string();
        assert!(cut.len() <= max_len_bytes);
        assert!(text.starts_with(cut.trim_end_matches('…')) || text == cut);
    }
    let Ok(path) = RelPath::parse(bytes) else {
        return;
    };
    assert_eq!(path.as_bytes(), bytes);
    assert!(path.components().all(|part| !matches!(part, b"" | b"." | b"..")));
    if let Some(parent) = path.parent() {
        assert!(parent < path);
        assert_eq!(parent.join(path.file_name()), Ok(path));
    }
}
