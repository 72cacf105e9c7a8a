//! Packets in a byte stream: each after its length. No IO.

use thiserror::Error;

/// Something else than packets is in the stream. Nothing after it can be trusted to begin where a packet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stream contains other data than packets")]
pub(super) struct NotPackets;

/// Finds the packets in a stream, however it is cut.
///
/// Call `push` with what was read, then `next` until it gives `None`. It holds what was pushed last and one partial
/// packet, at most 64 KiB.
#[derive(Debug, Default)]
pub(super) struct FrameDecoder {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
    is_broken: bool,
}

impl FrameDecoder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next packet. Frames without one, which show that the other side is there, are passed over.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, NotPackets> {
        loop {
            if self.is_broken {
                return Err(NotPackets);
            }
            let Some((header, rest)) = self.buffer[self.at..].split_first_chunk::<HEADER_LEN_BYTES>() else {
                return Ok(None);
            };
            let [len_low, len_high, check_low, check_high] = *header;
            let len = u16::from_le_bytes([len_low, len_high]);
            if u16::from_le_bytes([check_low, check_high]) != !len {
                self.is_broken = true;
                continue;
            }
            let len = usize::from(len);
            if rest.len() < len {
                return Ok(None);
            }
            let start = self.at + HEADER_LEN_BYTES;
            self.at = start + len;
            if len > 0 {
                return Ok(Some(&self.buffer[start..start + len]));
            }
        }
    }
}

/// Appends a packet. An empty one only shows that this side is there.
///
/// A longer one than a frame can hold is left out, as a network drops what is too long for it. There is none: QUIC's
/// packets are no longer than UDP's.
pub(super) fn write(packet: &[u8], to: &mut Vec<u8>) {
    // SPEC 6.11
    let Ok(len) = u16::try_from(packet.len()) else { return };
    to.extend_from_slice(&len.to_le_bytes());
    to.extend_from_slice(&(!len).to_le_bytes());
    to.extend_from_slice(packet);
}

/// For the fuzzer: packets that were found make the stream again, and no cut of it changes what is found.
pub fn fuzz_frames(data: &[u8]) {
    let find = |step: usize| {
        let (mut decoder, mut packets) = (FrameDecoder::default(), Vec::new());
        for part in data.chunks(step.max(1)) {
            decoder.push(part);
            loop {
                match decoder.next() {
                    Ok(Some(packet)) => packets.push(packet.to_vec()),
                    Ok(None) => break,
                    Err(NotPackets) => return (packets, true),
                }
            }
            assert!(decoder.buffer.len() - decoder.at < HEADER_LEN_BYTES + usize::from(u16::MAX));
        }
        (packets, false)
    };
    let whole = find(data.len());
    let step = data.first().map_or(1, |byte| usize::from(*byte));
    assert_eq!(find(step), whole);
    let mut again = Vec::new();
    whole.0.iter().for_each(|packet| write(packet, &mut again));
    let (mut decoder, mut packets) = (FrameDecoder::default(), Vec::new());
    decoder.push(&again);
    while let Ok(Some(packet)) = decoder.next() {
        packets.push(packet.to_vec());
    }
    assert_eq!(packets, whole.0);
}

/// The length, and its complement: text in between is noticed at its first four bytes.
const HEADER_LEN_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_length_complement_packet() {
        let mut frame = Vec::new();
        write(b"hello", &mut frame);
        assert_eq!(frame, b"\x05\x00\xfa\xffhello");
        frame.clear();
        write(b"", &mut frame);
        assert_eq!(frame, b"\x00\x00\xff\xff");
        frame.clear();
        write(&vec![7; 1 << 16], &mut frame);
        assert_eq!(frame, b"");
    }

    #[test]
    fn text_in_the_stream_is_noticed_and_nothing_is_found_after_it() {
        let mut stream = Vec::new();
        write(b"one", &mut stream);
        stream.extend_from_slice(b"Broadcast message\n");
        write(b"two", &mut stream);
        let mut decoder = FrameDecoder::default();
        decoder.push(&stream);
        assert_eq!(decoder.next(), Ok(Some(&b"one"[..])));
        assert_eq!(decoder.next(), Err(NotPackets));
        write(b"three", &mut stream);
        decoder.push(&stream);
        assert_eq!(decoder.next(), Err(NotPackets));
    }

    proptest! {
        #[test]
        fn packets_are_found_however_the_stream_is_cut(
            packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            step in 1..100_usize,
        ) {
            let mut stream = Vec::new();
            packets.iter().for_each(|packet| write(packet, &mut stream));
            let (mut decoder, mut found) = (FrameDecoder::default(), Vec::new());
            for part in stream.chunks(step) {
                decoder.push(part);
                while let Ok(Some(packet)) = decoder.next() {
                    found.push(packet.to_vec());
                }
            }
            let packets: Vec<_> = packets.into_iter().filter(|packet| !packet.is_empty()).collect();
            prop_assert_eq!(found, packets);
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            fuzz_frames(&data);
        }
    }
}
