//! Inputs of unknown length that can be read once, such as a pipe.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Reads an input ahead, in parts, and holds each part until it is released. A handle: clones share the input.
///
/// A thread of its own reads, at most 24 MiB ahead: a caller that waits for a part can give up, while a read of a
/// silent pipe cannot be interrupted. That thread ends with the input, or at its next read once the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Input {
    shared: Arc<Shared>,
    _closer: Arc<Closer>,
}

/// A part of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub offset_bytes: u64,
    /// All of it. Only the part that ends an input is empty.
    pub content: Arc<[u8]>,
}

/// Gives the parts of an input in order, those first that are held. At least one: the last may be empty.
#[derive(Debug)]
pub struct InputParts {
    shared: Arc<Shared>,
    number: u64,
    next_bytes: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    /// Tells this input from all others.
    id: [u8; 8],
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: VecDeque<Part>,
    held_bytes: usize,
    /// How much has been read.
    end_bytes: u64,
    /// No more will be, and why, if that was an error.
    ended: Option<Option<Failure>>,
    /// The listing that is given parts; earlier ones are given up.
    listing: u64,
    is_closed: bool,
}

/// An error of the system, which every listing ends with.
#[derive(Clone, Copy, Debug)]
struct Failure {
    errno: Option<i32>,
    kind: io::ErrorKind,
}

/// Ends the reading when the last handle is dropped.
#[derive(Debug)]
struct Closer(Arc<Shared>);

impl Input {
    /// Begins to read `input`.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub fn new(input: impl Read + Send + 'static) -> io::Result<Self> {
        let id = RandomState::new().hash_one(std::process::id()).to_le_bytes();
        let shared = Arc::new(Shared { id, state: Mutex::default(), changed: Condvar::new() });
        let reading = Arc::clone(&shared);
        thread::Builder::new().name("input".to_owned()).spawn(move || reading.read_all(input))?;
        Ok(Self { _closer: Arc::new(Closer(Arc::clone(&shared))), shared })
    }

    /// Tells this input from all others.
    pub fn id(&self) -> [u8; 8] {
        self.shared.id
    }

    /// Begins to list the parts from the first that is held. An earlier listing fails with
    /// [`Interrupted`](io::ErrorKind::Interrupted).
    pub fn parts(&self) -> InputParts {
        let mut state = self.shared.lock();
        state.listing += 1;
        let number = state.listing;
        drop(state);
        self.shared.changed.notify_all();
        InputParts { shared: Arc::clone(&self.shared), number, next_bytes: None }
    }

    /// Ends the listing that is under way, as another one does.
    pub fn stop_listing(&self) {
        self.shared.lock().listing += 1;
        self.shared.changed.notify_all();
    }

    /// The part that begins there, if it is held.
    pub fn find(&self, offset_bytes: u64) -> Option<Arc<[u8]>> {
        let state = self.shared.lock();
        let part = state.held.iter().find(|part| part.offset_bytes == offset_bytes)?;
        Some(Arc::clone(&part.content))
    }

    /// Drops the bytes before that offset.
    pub fn release(&self, end_bytes: u64) {
        let mut state = self.shared.lock();
        while let Some(part) = state.held.front().filter(|part| part.end_bytes() <= end_bytes) {
            let len = part.content.len();
            state.held.pop_front();
            state.held_bytes -= len;
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Whether nothing more is read before something is released.
    pub fn is_full(&self) -> bool {
        self.shared.lock().is_full()
    }

    /// How much has been read.
    pub fn read_bytes(&self) -> u64 {
        self.shared.lock().end_bytes
    }
}

impl Part {
    fn end_bytes(&self) -> u64 {
        self.offset_bytes + self.content.len() as u64
    }
}

impl Iterator for InputParts {
    type Item = io::Result<Part>;

    /// Waits for the next part.
    fn next(&mut self) -> Option<io::Result<Part>> {
        let mut state = self.shared.lock();
        loop {
            if state.listing != self.number {
                // No end of the input: it must not be taken for one.
                return Some(Err(io::ErrorKind::Interrupted.into()));
            }
            let next_bytes = self.next_bytes;
            let next = state.held.iter().find(|part| next_bytes.is_none_or(|at| part.offset_bytes >= at));
            if let Some(part) = next.cloned() {
                self.next_bytes = Some(part.end_bytes());
                return Some(Ok(part));
            }
            match state.ended {
                Some(Some(failure)) => return Some(Err(failure.into())),
                Some(None) if self.next_bytes.is_none() => {
                    self.next_bytes = Some(state.end_bytes);
                    return Some(Ok(Part { offset_bytes: state.end_bytes, content: Arc::default() }));
                }
                Some(None) => return None,
                None => state = self.shared.wait(state),
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self, mut input: impl Read) {
        let mut buffer = Vec::new();
        let mut last_part = None;
        let ended = loop {
            if !self.has_room() {
                return;
            }
            buffer.resize(PART_LEN_BYTES, 0);
            match self.fill(&mut input, &mut buffer, last_part) {
                Ok(0) => break None,
                Ok(len) => self.hold(&buffer[..len]),
                Err(error) => break Some(Failure { errno: error.raw_os_error(), kind: error.kind() }),
            }
            last_part = Some(Instant::now());
        };
        self.lock().ended = Some(ended);
        self.changed.notify_all();
    }

    /// Waits until a part may be held; `false` if none is wanted any more.
    fn has_room(&self) -> bool {
        let mut state = self.lock();
        while state.is_full() && !state.is_closed {
            state = self.wait(state);
        }
        !state.is_closed
    }

    /// Reads a part: all that fits, or less where nothing is waiting to be sent anyway. 0 at the end.
    fn fill(
        &self,
        input: &mut impl Read,
        buffer: &mut [u8],
        last_part: Option<Instant>,
    ) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody has made a pipe that is shared with others non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(WAIT),
                Err(error) => return Err(error),
            }
            let is_due = filled >= SHORT_PART_LEN_BYTES || last_part.is_none_or(|at| at.elapsed() >= PAUSE);
            if filled > 0 && is_due && self.lock().held.is_empty() {
                break;
            }
        }
        Ok(filled)
    }

    fn hold(&self, content: &[u8]) {
        let mut state = self.lock();
        let part = Part { offset_bytes: state.end_bytes, content: content.into() };
        state.end_bytes = part.end_bytes();
        state.held_bytes += content.len();
        state.held.push_back(part);
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.held_bytes + PART_LEN_BYTES > MAX_HELD_BYTES
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        failure.errno.map_or_else(|| failure.kind.into(), Self::from_raw_os_error)
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

/// 24 MiB: what a path of 100 MB/s and a quarter of a second holds unacknowledged.
const MAX_HELD_BYTES: usize = 24 << 20;

/// 1 MiB: entries of a list cost little beside that.
const PART_LEN_BYTES: usize = 1 << 20;

/// 64 KiB, which is what a pipe holds: what is sent at once where nothing else is on its way.
const SHORT_PART_LEN_BYTES: usize = 64 << 10;

/// 1 s: a shorter part may follow another one after that, so that an input that trickles makes few of them.
const PAUSE: Duration = Duration::from_secs(1);

/// 10 ms: too short to be seen, and it costs nothing.
const WAIT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Gives what is sent to it, each in a read of its own.
    struct Producer(mpsc::Receiver<io::Result<Vec<u8>>>);

    impl Read for Producer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Ok(next) = self.0.recv() else { return Ok(0) };
            let bytes = next?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn produced() -> (mpsc::Sender<io::Result<Vec<u8>>>, Input) {
        let (producer, read) = mpsc::channel();
        (producer, Input::new(Producer(read)).unwrap())
    }

    #[test]
    fn an_input_is_read_no_further_than_may_be_held_and_comes_whole() {
        let len = 3 * MAX_HELD_BYTES + 12_345;
        let content: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
        let input = Input::new(io::Cursor::new(content.clone())).unwrap();
        let (mut came, mut most) = (Vec::new(), 0);
        for part in input.parts() {
            let part = part.unwrap();
            assert_eq!(part.offset_bytes, came.len() as u64);
            assert_eq!(input.find(part.offset_bytes).as_ref(), Some(&part.content));
            came.extend_from_slice(&part.content);
            let state = input.shared.lock();
            let held: usize = state.held.iter().map(|part| part.content.len()).sum();
            assert_eq!(held, state.held_bytes);
            most = most.max(held);
            drop(state);
            // Once as much as may be is held, and then each as it comes.
            if input.is_full() {
                input.release(part.offset_bytes + part.content.len() as u64);
            }
        }
        assert!(came == content, "other bytes");
        assert!(most <= MAX_HELD_BYTES);
        assert_eq!(input.read_bytes(), len as u64);
    }

    #[test]
    fn a_new_listing_begins_with_what_is_held_and_ends_the_one_before_in_an_error() {
        let (producer, input) = produced();
        producer.send(Ok(vec![1; 10])).unwrap();
        let mut first = input.parts();
        assert_eq!(first.next().unwrap().unwrap().content[..], [1; 10]);
        let waiting = thread::spawn(move || first.next().unwrap().unwrap_err().kind());
        let mut second = input.parts();
        assert_eq!(waiting.join().unwrap(), io::ErrorKind::Interrupted);
        assert_eq!(second.next().unwrap().unwrap().offset_bytes, 0, "not released yet");
        input.release(10);
        assert_eq!(input.find(0), None);
        drop(producer);
        assert!(second.next().is_none());
        // What is listed then is an empty part, which says where the end is.
        let last: Vec<_> = input.parts().map(Result::unwrap).collect();
        assert_eq!(last, [Part { offset_bytes: 10, content: Arc::default() }]);
    }

    #[test]
    fn an_empty_input_is_one_empty_part_and_an_error_is_no_end() {
        let (producer, input) = produced();
        drop(producer);
        assert_eq!(input.parts().map(|part| part.unwrap().content.len()).collect::<Vec<_>>(), [0]);

        let (producer, input) = produced();
        producer.send(Ok(vec![7; 5])).unwrap();
        producer.send(Err(io::Error::from_raw_os_error(5))).unwrap();
        for _ in 0..2 {
            let mut parts = input.parts();
            assert_eq!(parts.next().unwrap().unwrap().content[..], [7; 5]);
            assert_eq!(parts.next().unwrap().unwrap_err().raw_os_error(), Some(5));
        }
    }

    #[test]
    fn an_input_that_trickles_makes_few_parts() {
        let (producer, input) = produced();
        (0..100).for_each(|_| producer.send(Ok(vec![3])).unwrap());
        let mut parts = input.parts();
        assert_eq!(parts.next().unwrap().unwrap().content[..], [3], "what comes first goes at once");
        drop(producer);
        // Nothing was released: the rest is one part.
        assert_eq!(parts.next().unwrap().unwrap().content[..], [3; 99]);
        assert!(parts.next().is_none());
    }

    #[test]
    fn reading_stops_when_the_last_handle_is_dropped() {
        let (producer, input) = produced();
        let full = MAX_HELD_BYTES / PART_LEN_BYTES;
        (0..full).for_each(|_| producer.send(Ok(vec![1; PART_LEN_BYTES])).unwrap());
        let mut parts = input.parts();
        (0..full).for_each(|_| drop(parts.next().unwrap().unwrap()));
        drop((parts, input));
        // The reader has dropped its end.
        while producer.send(Ok(vec![1])).is_ok() {
            thread::yield_now();
        }
    }
}
