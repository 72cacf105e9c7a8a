//! Drives a sender, a receiver and the stream between them by a script of arbitrary bytes.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::limits::MAX_CHUNK_LEN_BYTES;
use crate::{
    ChunkReceiver, ChunkSender, Digest, Durability, Hasher, Offer, RecvStep, Refusal, Reply, SendStep,
    SizeReader, Status, StatusReader,
};

/// Fuzz entry: the size of a chunk, then one byte for each thing that happens to it.
///
/// The sender learns of success only if the receiver has the chunk; and if nothing is
/// damaged, it does learn of it.
pub fn fuzz_session(data: &[u8]) {
    let Some((&len, script)) = data.split_first() else {
        return;
    };
    let mut session = Session::new(usize::from(len) * 3);
    script.iter().for_each(|op| session.step(op & 7, usize::from(op >> 3) + 1));
    session.finish();
}

struct Session {
    content: Bytes,
    supplied: usize,
    sender: ChunkSender,
    sending: Sending,
    in_flight: VecDeque<u8>,
    receiver: Receiving,
    received: Vec<u8>,
    verified: Option<Digest>,
    answer: VecDeque<u8>,
    status: StatusReader,
    /// Whether anybody has done what an honest side or network does not.
    is_harmed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// FIN is behind what is in flight.
    Finished,
    /// The stream was reset.
    Failed,
}

enum Receiving {
    Size(SizeReader),
    Frame(Box<ChunkReceiver>),
    Done,
}

impl Session {
    fn new(len: usize) -> Self {
        let content: Bytes = (0..len).map(|at| (at * 31) as u8).collect();
        // No script makes a chunk over the limit.
        let Ok(sender) = ChunkSender::new(len as u64, Hasher::sha256()) else {
            unreachable!("a small chunk")
        };
        Self {
            content,
            supplied: 0,
            sender,
            sending: Sending::Open,
            in_flight: VecDeque::new(),
            receiver: Receiving::Size(SizeReader::new()),
            received: Vec::new(),
            verified: None,
            answer: VecDeque::new(),
            status: StatusReader::while_sending(),
            is_harmed: false,
        }
    }

    fn step(&mut self, op: u8, count: usize) {
        match op {
            0 => self.supply(count),
            1 if count == 32 => self.supply_too_much(),
            1 if count == 31 => self.end_source(),
            1 | 2 => self.send(count),
            3 => self.deliver(count),
            4 => self.receive(count),
            5 => self.harm(count),
            6 if count == 32 => self.cut(),
            6 => self.deliver_end(),
            _ => self.read_answer(),
        }
    }

    fn supply(&mut self, count: usize) {
        if self.sending != Sending::Open {
            return;
        }
        let until = self.content.len().min(self.supplied + count);
        let piece = self.content.slice(self.supplied..until);
        assert_eq!(self.sender.supply(piece), Ok(()));
        self.supplied = until;
    }

    fn supply_too_much(&mut self) {
        let missing = self.content.len() - self.supplied;
        let piece = Bytes::from(alloc::vec![0; missing + 1]);
        if let Err(error) = self.sender.supply(piece) {
            self.fail_sending(error);
        }
    }

    fn end_source(&mut self) {
        match self.sender.source_ended() {
            Ok(()) => assert_eq!(self.supplied, self.content.len()),
            Err(error) => self.fail_sending(error),
        }
    }

    fn fail_sending(&mut self, error: crate::SendError) {
        assert_eq!(self.sender.poll().err(), Some(error), "an error is final");
        assert_eq!(self.sender.digest(), None);
        self.is_harmed = true;
        self.sending = Sending::Failed;
    }

    fn send(&mut self, count: usize) {
        for _ in 0..count {
            if self.sending != Sending::Open {
                return;
            }
            match self.sender.poll() {
                Ok(SendStep::Transmit(bytes)) => self.in_flight.extend(&bytes),
                Ok(SendStep::NeedPayload { .. }) => {
                    assert!(self.supplied < self.content.len(), "asks for no more than there is");
                    return;
                }
                Ok(SendStep::Finish) => {
                    assert_eq!(self.sender.digest(), Some(Digest::sha256(&self.content)));
                    self.sending = Sending::Finished;
                    self.status.all_sent();
                }
                Err(error) => panic!("without a fault of the source: {error}"),
            }
        }
    }

    fn deliver(&mut self, count: usize) {
        let count = count.min(self.in_flight.len());
        let mut piece: Bytes = self.in_flight.drain(..count).collect();
        if let Receiving::Size(size) = &mut self.receiver {
            let Some(len_bytes) = size.push(&mut piece) else {
                return;
            };
            match Offer::new(len_bytes, MAX_CHUNK_LEN_BYTES) {
                Ok(offer) => self.receiver = Receiving::Frame(Box::new(offer.accept(Hasher::sha256()))),
                Err(_) => self.refuse(Refusal::Error),
            }
        }
        if let Receiving::Frame(receiver) = &mut self.receiver {
            receiver.push(piece);
        }
    }

    fn receive(&mut self, count: usize) {
        for _ in 0..count {
            let Receiving::Frame(receiver) = &mut self.receiver else {
                return;
            };
            match receiver.poll() {
                Ok(RecvStep::NeedInput) => return,
                Ok(RecvStep::Payload { offset, data }) => {
                    assert_eq!(offset, self.received.len() as u64);
                    self.received.extend_from_slice(&data);
                }
                Ok(RecvStep::Verified(verified)) => {
                    assert_eq!(self.received, self.content, "nothing else has the digest");
                    self.verified = Some(verified.digest());
                    self.answer.push_back(Reply::stored(&verified.stored(Durability::Verified)).byte());
                }
                Ok(RecvStep::Ended) => self.receiver = Receiving::Done,
                Err(error) => {
                    assert_eq!(receiver.poll().err(), Some(error), "an error is final");
                    assert!(self.is_harmed, "{error}");
                    match self.verified {
                        // It is stored: what comes after it is noticed and changes nothing.
                        Some(_) => self.receiver = Receiving::Done,
                        None => self.refuse(error.refusal()),
                    }
                }
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        assert!(self.is_harmed);
        self.answer.push_back(Reply::refused(refusal).byte());
        self.receiver = Receiving::Done;
    }

    /// Changes, adds or loses a byte on the way.
    fn harm(&mut self, count: usize) {
        let at = count % (self.in_flight.len() + 1);
        match count % 3 {
            0 => self.in_flight.insert(at, count as u8),
            1 => drop(self.in_flight.remove(at)),
            _ => {
                if let Some(byte) = self.in_flight.get_mut(at) {
                    *byte ^= count as u8;
                }
            }
        }
        self.is_harmed = true;
    }

    /// The stream ends early.
    fn cut(&mut self) {
        self.is_harmed |= self.sending != Sending::Finished || !self.in_flight.is_empty();
        self.in_flight.clear();
        self.end_input();
    }

    fn deliver_end(&mut self) {
        if self.sending == Sending::Finished && self.in_flight.is_empty() {
            self.end_input();
        }
    }

    fn end_input(&mut self) {
        match &mut self.receiver {
            Receiving::Size(size) => {
                if size.end().is_err() {
                    self.refuse(Refusal::Error);
                }
            }
            Receiving::Frame(receiver) => receiver.end(),
            Receiving::Done => {}
        }
    }

    fn read_answer(&mut self) {
        // Success that comes before all was sent is an error; the honest answer to a sender that has not
        // noticed yet that all was sent waits.
        let is_early = self.sending != Sending::Finished && self.answer.front() == Some(&0);
        if !is_early && let Some(byte) = self.answer.pop_front() {
            let was = self.status.arrived();
            let pushed = self.status.push(&[byte]);
            assert!(pushed.is_ok() || was.is_some(), "one answer is right, whichever");
        }
    }

    /// Does the remaining steps, and then checks the result.
    fn finish(mut self) {
        while self.sending == Sending::Open && self.supplied < self.content.len() {
            self.supply(usize::MAX >> 1);
        }
        self.send(usize::MAX);
        self.deliver(usize::MAX);
        self.receive(usize::MAX);
        if self.sending == Sending::Failed {
            self.cut();
        } else {
            self.deliver_end();
        }
        self.receive(usize::MAX);
        while !self.answer.is_empty() && self.sending == Sending::Finished {
            self.read_answer();
        }
        let outcome = self.status.end();
        if outcome == Ok(Status::Stored) {
            assert_eq!(self.verified, Some(Digest::sha256(&self.content)), "success without the chunk");
        }
        if !self.is_harmed {
            assert_eq!(outcome, Ok(Status::Stored), "an honest chunk fails");
        }
    }
}
