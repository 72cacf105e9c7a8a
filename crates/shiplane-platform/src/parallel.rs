//! Runs blocking work on a few threads.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::thread;

#[cfg(unix)]
use crate::disk;

/// Applies `work` to every item, on a few threads if there are several, and gives the results in order.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = if items.len() > 1 { threads().min(items.len()) } else { 1 };
    if threads == 1 {
        return items.iter().map(work).collect();
    }
    // Thread t takes items t, t + threads, ..: neighbours in a file are then read at the same time.
    let stride = |at: usize| items.iter().skip(at).step_by(threads).map(&work).collect::<Vec<_>>();
    let mut strides: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|at| thread::Builder::new().spawn_scoped(scope, move || stride(at)).map_err(|_| at))
            .collect();
        let first = stride(0);
        let finished = others.into_iter().map(|other| match other {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            // The system has no thread for us: slower, but done.
            Err(at) => stride(at),
        });
        std::iter::once(first).chain(finished).map(Vec::into_iter).collect()
    });
    (0..items.len()).filter_map(|at| strides[at % threads].next()).collect()
}

/// Does two things at the same time, or one after the other where work has one thread only.
pub fn join<A, B: Send>(one: impl FnOnce() -> A, other: impl FnOnce() -> B + Send) -> (A, B) {
    if threads() <= 1 {
        let one = one();
        return (one, other());
    }
    thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        (one, other.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// How many threads work at a time; one in a simulation, which has to repeat what it did.
fn threads() -> usize {
    #[cfg(unix)]
    if disk::is_simulated() {
        return 1;
    }
    // The system reads the limits of a control group from files whenever it is asked.
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        thread::available_parallelism().map_or(1, NonZero::get).clamp(MIN_THREADS, MAX_THREADS)
    })
}

/// Even one core waits for several syncs of a disk at the same time.
const MIN_THREADS: usize = 2;

/// Above this, disks gain little, and each thread has a read buffer.
const MAX_THREADS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_things_are_done_and_each_gives_its_result() {
        let (sum, text) = join(|| 1 + 2, || "other".to_owned());
        assert_eq!((sum, &text[..]), (3, "other"));
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [0, 1, 2, 5, 100] {
            let items: Vec<usize> = (0..count).collect();
            let squares: Vec<usize> = items.iter().map(|item| item * item).collect();
            assert_eq!(map(&items, |item| item * item), squares);
        }
    }
}
