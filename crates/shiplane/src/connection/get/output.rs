//! A writer that also computes a digest.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use shiplane_wire::{Digest, Hasher};

/// Hashes what it passes on, if that is wanted.
pub(super) struct HashingOutput<W> {
    out: W,
    hasher: SharedHasher,
}

/// The digest of what a [`HashingOutput`] has passed on.
pub(super) struct OutputDigest(SharedHasher);

type SharedHasher = Arc<Mutex<Option<Hasher>>>;

impl<W: Write> HashingOutput<W> {
    pub(super) fn new(out: W, wanted: bool) -> (Self, OutputDigest) {
        let hasher = Arc::new(Mutex::new(wanted.then(Hasher::sha256)));
        (Self { out, hasher: Arc::clone(&hasher) }, OutputDigest(hasher))
    }
}

impl<W: Write> Write for HashingOutput<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.out.write(data)?;
        let mut hasher = self.hasher.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(hasher), Some(data)) = (hasher.as_mut(), data.get(..written)) {
            hasher.update(data);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl OutputDigest {
    /// The digest of everything so far, once; `None` if it is not wanted.
    pub(super) fn finish(&self) -> Option<Digest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(Hasher::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes three bytes at a time.
    struct Narrow(Vec<u8>);

    impl Write for Narrow {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let taken = data.len().min(3);
            self.0.extend_from_slice(&data[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_bytes_that_were_passed_on_are_hashed() {
        let (mut output, digest) = HashingOutput::new(Narrow(Vec::new()), true);
        output.write_all(b"hello").unwrap();
        assert_eq!(output.out.0, b"hello");
        assert_eq!(digest.finish(), Some(Digest::sha256(b"hello")));
        let (_, unwanted) = HashingOutput::new(Narrow(Vec::new()), false);
        assert_eq!(unwanted.finish(), None);
    }
}
