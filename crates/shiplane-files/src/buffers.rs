//! Memory that file content is read into, given back for what is read next.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use memmap2::MmapMut;

use crate::lock;

/// A zeroed buffer that goes back to the system as it is dropped: a mapping of its own, since cut out of an
/// allocator's heaps, of which there is one a thread, large buffers would leave holes that no other use fits.
#[derive(Debug)]
pub struct Scratch(Memory);

#[derive(Debug)]
enum Memory {
    /// Nothing of it is there before it is touched.
    Mapped(MmapMut),
    /// What cannot be mapped, such as nothing.
    Heap(Vec<u8>),
}

impl Scratch {
    /// Allocates `len_bytes`.
    #[must_use]
    pub fn new(len_bytes: usize) -> Self {
        let mapped = MmapMut::map_anon(len_bytes);
        Self(mapped.map_or_else(|_| Memory::Heap(vec![0; len_bytes]), Memory::Mapped))
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Mapped(bytes) => bytes,
            Memory::Heap(bytes) => bytes,
        }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Mapped(bytes) => bytes,
            Memory::Heap(bytes) => bytes,
        }
    }
}

/// Buffers of several MiB, as many as threads have used one at the same time: to have the system hand out such
/// memory anew costs as much as a third of what reading into it does.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Scratch>>);

impl Buffers {
    /// Does `work` with a buffer of this length, with whatever content.
    pub fn with<R>(&self, len_bytes: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = lock(&self.0).pop().unwrap_or_else(|| Scratch::new(0));
        if buffer.len() < len_bytes {
            buffer = Scratch::new(len_bytes);
        }
        let result = work(&mut buffer[..len_bytes]);
        lock(&self.0).push(buffer);
        result
    }

    /// Lets go of those that are not in use.
    pub fn free(&self) {
        lock(&self.0).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_zeroed_and_can_be_empty() {
        for len_bytes in [0, 1, 4096, 5 << 20] {
            let mut scratch = Scratch::new(len_bytes);
            assert_eq!((scratch.len(), scratch.iter().any(|byte| *byte != 0)), (len_bytes, false));
            scratch.fill(7);
        }
    }

    #[test]
    fn a_buffer_is_used_again_and_has_the_length_that_is_wanted() {
        let buffers = Buffers::default();
        let long = buffers.with(1000, |buffer| {
            buffer.fill(1);
            buffer.as_ptr() as usize
        });
        buffers.with(10, |buffer| {
            assert_eq!((buffer.len(), buffer.as_ptr() as usize), (10, long));
            buffers.with(5, |other| assert_eq!((other.len(), other[4]), (5, 0)));
        });
        assert_eq!(buffers.0.lock().unwrap().len(), 2);
        buffers.free();
        assert!(buffers.0.lock().unwrap().is_empty());
    }
}
