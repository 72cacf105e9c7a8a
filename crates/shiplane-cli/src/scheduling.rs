//! How the system's scheduler is to treat a program that transfers and does nothing else.

#![allow(unsafe_code, reason = "no safe binding of sched_setscheduler(2) leaves the niceness as it is")]

/// Asks for batch scheduling (`SCHED_BATCH`, sched(7)), for this thread and all that it starts from here on.
///
/// The share of the processor is that of any other program of the same niceness. But a thread that is woken does not
/// push aside the one that runs: what reads, hashes and stores chunks finishes its piece before the connection's thread
/// handles what has come, and the other way round, which is some thousand switches less for a gigabyte. Best effort;
/// elsewhere than on Linux nothing happens.
pub(crate) fn work_in_batches() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: all fields are integers, for which zero is a value: on this policy the priority must be 0.
        let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: 0 is the calling thread, and the pointer is to a live value of the type that the call reads.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "no batch scheduling");
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_thread_and_those_it_starts_work_in_batches() {
        // A thread of its own: the others of the tests keep their policy.
        let policy = std::thread::spawn(|| {
            super::work_in_batches();
            std::thread::spawn(|| std::fs::read_to_string("/proc/thread-self/stat").unwrap()).join().unwrap()
        });
        let stat = policy.join().unwrap();
        // proc_pid_stat(5): the 41st field; the name, in brackets, is the second.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let policy = fields.split_ascii_whitespace().nth(41 - 3).unwrap();
        assert_eq!(policy, libc::SCHED_BATCH.to_string());
    }
}
