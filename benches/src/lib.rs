//! Figures of shiplane's parts (criterion, under `benches/`) and the reference programs that the
//! whole-program comparison runs beside it (`src/bin/`). Here is what those programs share.

use shiplane_transport::{Admission, Trust};

/// Whatever ends a bench.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One thread for each side: on two cores that is three times faster than a multi-threaded runtime.
///
/// # Errors
/// The system has no resources left.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Trusts any key: the network is the bench's own.
pub fn anyone() -> Trust {
    Trust::ask(|_| Admission::Trusted)
}

/// The value below which this share of all lies. Sorts them.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}
