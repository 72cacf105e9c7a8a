//! Figures of shiplane's parts (criterion, under `benches/`) and the reference programs that the
//! whole-program comparison runs beside it (`src/bin/`). Here is what those programs share.

/// Whatever ends a bench.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One thread for each side: on two cores that is three times faster than a multi-threaded runtime.
///
/// # Errors
/// The system has no resources left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
