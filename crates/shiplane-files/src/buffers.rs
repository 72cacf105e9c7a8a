//! The memory that destinations share: read buffers, and what journals leave.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use memmap2::MmapMut;

use crate::lock;

/// What a destination shares with others, such as all of a server.
#[derive(Debug)]
pub struct SharedMemory {
    /// What old versions of files are read into.
    pub buffers: Buffers,
    /// What the journal of an earlier run leaves in memory.
    pub journal: Box<dyn CountedMemory>,
    /// The files with several names.
    pub links: Box<dyn CountedMemory>,
}

impl Default for SharedMemory {
    /// Buffers of its own, and all the memory that it takes.
    fn default() -> Self {
        Self { buffers: Buffers::default(), journal: Box::new(()), links: Box::new(()) }
    }
}

/// Memory that somebody else counts; given back when this is dropped.
pub trait CountedMemory: fmt::Debug + Send + Sync {
    /// Holds about `len_bytes` from now on; `false` if there is not as much, and it stays as it was.
    fn resize(&mut self, len_bytes: u64) -> bool;
}

/// How many more fit into a list of `len` that is full, counted in `memory` at so many bytes each: as many again, so that
/// there are at least and at most so many. `None` if there is no more memory.
pub(super) fn room_for_more(
    memory: &mut dyn CountedMemory,
    len: usize,
    (least, most): (usize, usize),
    each_bytes: u64,
) -> Option<usize> {
    let all = (2 * len).clamp(least, most);
    (all > len && memory.resize(all as u64 * each_bytes)).then(|| all - len)
}

/// Not counted.
impl CountedMemory for () {
    fn resize(&mut self, _: u64) -> bool {
        true
    }
}

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

/// Buffers of several MiB, used again, at most four at a time: to have the system hand out such memory anew
/// costs as much as a third of what reading into it does. A handle: clones share them.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    given_back: Condvar,
}

#[derive(Debug, Default)]
struct State {
    in_use: usize,
    free: Vec<Scratch>,
}

impl Buffers {
    /// Does `work` with a buffer of this length, with whatever content, once there is one. `work` must wait for nothing
    /// but the disk and the processor.
    pub fn with<R>(&self, len_bytes: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = self.take();
        if buffer.memory.len() < len_bytes {
            buffer.memory = Scratch::new(len_bytes);
        }
        work(&mut buffer.memory[..len_bytes])
    }

    /// Frees the buffers that are not in use.
    pub fn free(&self) {
        lock(&self.0.state).free.clear();
    }

    /// How many buffers are not in use.
    pub fn kept(&self) -> usize {
        lock(&self.0.state).free.len()
    }

    fn take(&self) -> Taken<'_> {
        let state = lock(&self.0.state);
        let state = self.0.given_back.wait_while(state, |state| state.in_use >= MAX_IN_USE);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.in_use += 1;
        Taken { memory: state.free.pop().unwrap_or_else(|| Scratch::new(0)), shared: &self.0 }
    }
}

/// A buffer in use; given back when this is dropped, also by a panic.
struct Taken<'a> {
    memory: Scratch,
    shared: &'a Shared,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.in_use -= 1;
        state.free.push(std::mem::replace(&mut self.memory, Scratch::new(0)));
        drop(state);
        self.shared.given_back.notify_one();
    }
}

/// 4: as many as threads read at a time for one transfer; 24 MiB.
const MAX_IN_USE: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        assert_eq!(lock(&buffers.0.state).free.len(), 2);
        buffers.free();
        assert!(lock(&buffers.0.state).free.is_empty());
    }

    #[test]
    fn a_crowd_uses_no_more_buffers_than_the_limit_and_all_are_served() {
        let (buffers, in_use, most) = (Buffers::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 * MAX_IN_USE {
                scope.spawn(|| {
                    buffers.clone().with(1 << 20, |buffer| {
                        most.fetch_max(in_use.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        buffer.fill(1);
                        std::thread::yield_now();
                        in_use.fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= MAX_IN_USE);
        assert!(lock(&buffers.0.state).free.len() <= MAX_IN_USE);
        let panics = std::panic::catch_unwind(|| buffers.with(1, |_| panic!("as it may")));
        assert!(panics.is_err());
        assert_eq!(lock(&buffers.0.state).in_use, 0, "given back all the same");
    }
}
