//! `shiplane sync DIR TARGET`

use std::io;
use std::sync::Arc;

use shiplane::{Report, escape};
use tokio_util::sync::CancellationToken;

use super::transfer::{self, Transfer, report_of};
use crate::events::Event;
use crate::failure::Failure;
use crate::job::Job;
use crate::progress::OutputMode;
use crate::settings::{SyncSettings, with_common};

pub(super) fn run(settings: SyncSettings) -> Result<(), Failure> {
    transfer::run(|stop| sync(settings, stop))
}

async fn sync(settings: SyncSettings, stop: CancellationToken) -> Result<(), Failure> {
    let job = Job::begin(settings.output_mode, io::stdout());
    let ended = synchronise(settings, &job, stop).await;
    job.end(ended)
}

async fn synchronise(settings: SyncSettings, job: &Arc<Job>, stop: CancellationToken) -> Result<(), Failure> {
    let destination = escape(settings.target.path());
    let transfer =
        Transfer::connect(job, settings.target.clone(), settings.buffer_len_bytes, destination, &stop)
            .await?;
    let sync = transfer
        .connection()
        .sync(&settings.directory)
        .dry_run(settings.dry_run)
        .allow_mass_deletion(settings.allow_mass_deletion);
    let sync = with_common!(sync, &settings, job, stop);
    let synced = transfer.finish(sync).await;
    if let Some(report) = report_of(&synced) {
        done(job, report, settings.dry_run);
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
        left_out: report.left_out_count,
        bytes_sent: report.bytes_sent,
        bytes_received: report.bytes_received,
        bytes_wire: report.bytes_wire,
        dry_run,
        digest: report.digest.clone().unwrap_or_default(),
        seconds: job.seconds(),
    });
}
