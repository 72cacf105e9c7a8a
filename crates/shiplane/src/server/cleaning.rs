//! Removes what interrupted pushes have left, while a server runs.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use crate::leftovers::clean;

/// Removes what interrupted pushes have left, in a directory and of an age.
pub(super) async fn clean_now_and_then(cleaning: Option<(PathBuf, Duration)>) -> Infallible {
    let Some((directory, age)) = cleaning else { return std::future::pending().await };
    let interval = age.clamp(SHORTEST_CLEANING_INTERVAL, LONGEST_CLEANING_INTERVAL);
    // Also done by a server that is restarted often.
    let mut pause = interval.min(FIRST_CLEANING);
    loop {
        tokio::time::sleep(pause).await;
        pause = interval;
        match clean(&directory, age, false).await {
            Ok(report) if report.files == 0 => {}
            Ok(report) => {
                tracing::info!(files = report.files, bytes = report.bytes_total, "leftovers were removed");
            }
            Err(error) => tracing::warn!(%error, "leftovers cannot be removed"),
        }
    }
}

/// A cleaning lists the whole tree.
const SHORTEST_CLEANING_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_CLEANING_INTERVAL: Duration = Duration::from_secs(24 * 3600);
const FIRST_CLEANING: Duration = Duration::from_secs(600);
