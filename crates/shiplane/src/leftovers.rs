//! Removes what abandoned jobs have left in a directory.

use std::{borrow::Cow, num::NonZeroU64, path::PathBuf, time::Duration};

use shiplane_files::internals as files;
use shiplane_transport::internals::blocking;
use shiplane_wire::{DigestAlgorithm, LeftOutReason};

use crate::{
    error::{Cause, Error},
    event::{Action, Side},
    report::Report,
};

/// Removes temporary files and journals below `directory` that interrupted jobs have left, that no running job uses, and
/// that nothing has changed for `older_than`. With `dry_run` nothing is removed. [`Report::actions`] names each file,
/// [`Report::bytes_total`] is what they occupy.
///
/// An interrupted job can be resumed until then. Dropping the future lets the work go on in the background.
///
/// # Errors
/// [`ErrorKind::LocalIo`](crate::ErrorKind::LocalIo) if the directory cannot be listed,
/// [`ErrorKind::LeftOut`](crate::ErrorKind::LeftOut) if some files cannot be removed.
pub async fn clean(
    directory: impl Into<PathBuf>,
    older_than: Duration,
    dry_run: bool,
) -> Result<Report, Error> {
    let directory = directory.into();
    let cleaning = blocking::spawn(move || files::clean(&directory, older_than, dry_run));
    let found = cleaning.await.map_err(|_| Cause::Abandoned)?.map_err(Cause::Clean)?;
    let mut report = Report::new(DigestAlgorithm::default());
    report.files = found.removed.len() as u64;
    report.bytes_total = found.removed.iter().map(|leftover| leftover.allocated_bytes).sum();
    let action = |leftover: files::Leftover| Action {
        side: Side::ThisMachine,
        change: "remove_file",
        path: leftover.path.to_string(),
        from: None,
        why: Cow::Borrowed("left by an interrupted run"),
    };
    report.actions = found.removed.into_iter().map(action).collect();
    for (path, error) in found.failed {
        let why = Some(error.to_string());
        report.left_out.push(Action::left_out(Side::ThisMachine, LeftOutReason::Failed, path, why));
    }
    report.left_out_count = report.left_out.len() as u64;
    match NonZeroU64::new(report.left_out_count) {
        None => Ok(report),
        Some(paths) => {
            Err(Error::from(Cause::LeftOut { paths, side: Side::ThisMachine }).with_report(report))
        }
    }
}
