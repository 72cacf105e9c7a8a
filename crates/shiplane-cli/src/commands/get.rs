//! `shiplane get SOURCE... [DEST]`

use std::cmp::Reverse;
use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shiplane::{ErrorKind, GetJob, Report};
use tokio_util::sync::CancellationToken;

use super::transfer::{self, Transfer, report_of};
use crate::doctor::Way;
use crate::events::{Event, Limited};
use crate::failure::Failure;
use crate::job::Job;
use crate::settings::{Dest, GetSettings, OutputMode, with_common, with_existing};

pub(super) fn run(settings: GetSettings) -> Result<(), Failure> {
    transfer::run(|stop| get(settings, stop))
}

async fn get(settings: GetSettings, stop: CancellationToken) -> Result<(), Failure> {
    // Where the file itself goes to standard output, digests go beside it.
    let job = match settings.dest {
        Dest::Stdout => Job::begin(settings.output_mode, io::stderr()),
        Dest::Path(_) => Job::begin(settings.output_mode, io::stdout()),
    };
    let ended = fetch(settings, &job, stop).await;
    job.end(ended)
}

/// Fetches one source after another. A failure ends it, unless it is of single paths.
async fn fetch(settings: GetSettings, job: &Arc<Job>, stop: CancellationToken) -> Result<(), Failure> {
    let mut sources = settings.sources.iter().cloned();
    let Some(source) = sources.next() else { return Ok(()) };
    let shown = || settings.dest.shown();
    let transfer = Transfer::connect(job, source, settings.client.builder(), shown(), &stop);
    let mut transfer = transfer.await?;
    let directory = match &settings.dest {
        Dest::Stdout => Path::new("."),
        Dest::Path(dest) => dest,
    };
    let predicted = transfer.predict(&settings.common, &[Way::ToHere], directory, &stop).await?;
    let (mut total, mut landed, mut left_out) = (None, Vec::new(), None);
    let ended = loop {
        let fetched = transfer
            .run_agreed(|consented| prepare(&settings, consented, &transfer, &landed, job, &stop))
            .await;
        let Some(report) = report_of(&fetched) else { break fetched };
        report.actions.iter().for_each(|action| job.tell(&Event::action(action)));
        landed.extend(report.landed.clone());
        total = Some(total.map_or_else(|| report.clone(), |total| sum(total, report)));
        match (fetched, sources.next()) {
            (fetched, None) => break fetched,
            (fetched, Some(source)) => {
                left_out = left_out.or_else(|| fetched.err());
                transfer = transfer.reconnect(source, shown(), &stop).await?;
            }
        }
    };
    transfer.close(&ended).await;
    if let Some(total) = total.filter(|_| report_of(&ended).is_some()) {
        done(job, &total, settings.existing.dry_run);
        job.explain(predicted.as_ref(), &total);
    }
    let failure = match ended {
        Ok(_) => left_out.map(Failure::from),
        Err(error) if settings.dest == Dest::Stdout => Some(of_stdout(error)),
        Err(error) => Some(error.into()),
    };
    failure.map_or(Ok(()), Err)
}

fn prepare(
    settings: &GetSettings,
    consented: bool,
    transfer: &Transfer<'_>,
    landed: &[PathBuf],
    job: &Arc<Job>,
    stop: &CancellationToken,
) -> GetJob {
    let fetch = transfer
        .connection()
        .get("")
        .not_at(landed.iter().cloned())
        .verify(settings.verify)
        .sha256(settings.sha256)
        .durable(settings.durability.is_durable());
    let fetch =
        with_common!(with_existing!(fetch, &settings.existing, consented), &settings.common, job, stop);
    match &settings.dest {
        Dest::Stdout => fetch.to_writer(io::stdout()),
        Dest::Path(dest) => fetch.to(dest),
    }
}

/// The sum of two reports.
fn sum(mut total: Report, more: &Report) -> Report {
    total.files += more.files;
    total.bytes_total += more.bytes_total;
    total.bytes_received += more.bytes_received;
    total.bytes_wire += more.bytes_wire;
    total.elapsed += more.elapsed;
    total.bytes_resumed += more.bytes_resumed;
    total.kept += more.kept;
    total.deleted += more.deleted;
    total.left_out_count += more.left_out_count;
    for (by, time) in &more.limited_by {
        match total.limited_by.iter_mut().find(|(known, _)| known == by) {
            Some((_, known)) => *known += *time,
            None => total.limited_by.push((by, *time)),
        }
    }
    total.limited_by.sort_by_key(|(_, time)| Reverse(*time));
    total.digest = None;
    total
}

pub(super) fn done(job: &Arc<Job>, report: &Report, dry_run: bool) {
    if dry_run && job.output_mode() == OutputMode::Human {
        return transfer::end_dry_run(job, report);
    }
    job.tell(&Event::Done {
        files: report.files,
        bytes_total: report.bytes_total,
        bytes_received: report.bytes_received,
        bytes_wire: report.bytes_wire,
        bytes_resumed: report.bytes_resumed,
        kept: report.kept,
        deleted: report.deleted,
        left_out: report.left_out_count,
        seconds: job.seconds(),
        limited_by: Limited::of(report),
        digest_algorithm: report.digest.as_ref().map(|_| report.digest_algorithm.into()),
        digest: report.digest.clone(),
    });
}

/// Names a pipe whose reader is gone.
fn of_stdout(error: shiplane::Error) -> Failure {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source {
        Some(source) if error.kind() == ErrorKind::LocalIo => {
            Failure::Stdout(io::Error::new(source.kind(), source.to_string()))
        }
        _ => error.into(),
    }
}
