//! `shiplane sync DIR TARGET`

use std::io;
use std::sync::Arc;

use shiplane::{Report, escape};
use tokio_util::sync::CancellationToken;

use super::transfer::{self, Transfer};
use crate::events::Event;
use crate::failure::Failure;
use crate::job::Job;
use crate::progress::OutputMode;
use crate::settings::SyncSettings;

pub(super) fn run(settings: SyncSettings) -> Result<(), Failure> {
    transfer::run(|stop| sync(settings, stop))
}

async fn sync(settings: SyncSettings, stop: CancellationToken) -> Result<(), Failure> {
    let job = Job::begin(settings.output_mode, io::stdout());
    let destination = escape(settings.target.path());
    let transfer =
        Transfer::connect(&job, settings.target, settings.buffer_len_bytes, destination, &stop).await?;
    let sync = transfer
        .connection()
        .sync(&settings.directory)
        .dry_run(settings.dry_run)
        .allow_mass_deletion(settings.allow_mass_deletion)
        .concurrency(settings.jobs)
        .chunk_len_bytes(settings.chunk_len_bytes)
        .compression(settings.compress.compression())
        .digest(settings.digest.algorithm())
        .on_progress(job.events(Event::left))
        .cancel_on(stop.cancelled_owned());
    let sync = settings.rate.iter().fold(sync, |sync, rate| sync.rate(rate.get()));
    let synced = transfer.finish(sync).await;
    // Paths left alone are an error, with a report of the rest.
    if let Some(report) = synced.as_ref().map_or_else(|error| error.report(), Some) {
        done(&job, report, settings.dry_run);
    }
    synced?;
    Ok(())
}

fn done(job: &Arc<Job>, report: &Report, dry_run: bool) {
    // Without --dry-run, a terminal shows only the summary.
    if dry_run || job.output_mode() == OutputMode::Json {
        report.actions.iter().for_each(|action| job.tell(&Event::action(action)));
    }
    job.tell(&Event::Synced {
        files: report.files,
        actions: report.actions.len() as u64,
        left: report.left_out.iter().filter(|left_out| left_out.change == "leave").count() as u64,
        bytes_sent: report.bytes_sent,
        bytes_received: report.bytes_received,
        bytes_wire: report.bytes_wire,
        dry_run,
        digest: report.digest.clone().unwrap_or_default(),
        seconds: job.seconds(),
    });
}
