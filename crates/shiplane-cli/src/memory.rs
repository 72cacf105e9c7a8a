//! Sets how much free memory the allocator keeps.
//!
//! glibc gives back by itself only what is free at the end of its first heap. Each thread may have a heap of its own, which
//! stays as large as it ever was.

/// Lets all threads share a few heaps, if the environment does not say how many. To be called before there are threads.
pub(crate) fn share_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let is_set = glibc::mallopt(glibc::M_ARENA_MAX, cores.clamp(MIN_HEAPS, MAX_HEAPS) as i32);
        tracing::debug!(is_set, "heaps are shared");
    }
}

/// Gives free memory back to the system. It takes a few milliseconds, in which no thread can allocate.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let gave_back = glibc::malloc_trim(0);
        tracing::debug!(gave_back, "free memory");
    }
}

/// 2: one for the thread that has the connections.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MIN_HEAPS: usize = 2;

/// 8: more threads than that rarely allocate at the same time, since each keeps some small pieces for itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAX_HEAPS: usize = 8;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    /// From `malloc.h`.
    pub(super) const M_ARENA_MAX: c_int = -8;

    #[expect(
        unsafe_code,
        reason = "no safe crate has them; they take numbers, at any time and from any thread"
    )]
    unsafe extern "C" {
        /// Sets a limit of the allocator; 0 if it is none.
        pub(super) safe fn mallopt(parameter: c_int, value: c_int) -> c_int;

        /// Gives back all free pages, but for `pad` bytes at the end of the first heap; 0 if there are none.
        pub(super) safe fn malloc_trim(pad: usize) -> c_int;
    }
}
