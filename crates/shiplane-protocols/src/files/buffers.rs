//! Memory that file content is read into, given back for what is read next.

use std::sync::Mutex;

use shiplane_transport::Scratch;

use super::lock;

/// Buffers of several MiB, as many as threads have used one at the same time: to have the system hand out such
/// memory anew costs as much as a third of what reading into it does.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Scratch>>);

impl Buffers {
    /// Does `work` with a buffer of this length, with whatever content.
    pub(crate) fn with<R>(&self, len_bytes: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = lock(&self.0).pop().unwrap_or_else(|| Scratch::new(0));
        if buffer.len() < len_bytes {
            buffer = Scratch::new(len_bytes);
        }
        let result = work(&mut buffer[..len_bytes]);
        lock(&self.0).push(buffer);
        result
    }

    /// Lets go of those that are not in use.
    pub(crate) fn free(&self) {
        lock(&self.0).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
