//! `shiplane sync DIR TARGET`

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shiplane::{Report, escape};
use tokio_util::sync::CancellationToken;

use super::transfer::{self, Transfer, report_of};
use crate::args::OneWay;
use crate::doctor::Way;
use crate::events::{Event, Limited};
use crate::failure::{Failure, check_source};
use crate::job::Job;
use crate::memory;
use crate::settings::{OutputMode, SyncSettings, with_common};

pub(super) fn run(settings: SyncSettings) -> Result<(), Failure> {
    // Each heap that has to grow for a list costs more than threads that wait for one.
    memory::share_heaps();
    transfer::run(|stop| sync(settings, stop))
}

async fn sync(settings: SyncSettings, stop: CancellationToken) -> Result<(), Failure> {
    let job = Job::begin(settings.output_mode, io::stdout());
    let ended = synchronise(settings, &job, stop).await;
    job.end(ended)
}

async fn synchronise(settings: SyncSettings, job: &Arc<Job>, stop: CancellationToken) -> Result<(), Failure> {
    check_source(&settings.directory)?;
    let destination = escape(settings.target.path());
    let (target, client) = (settings.target.clone(), settings.client.builder());
    let patience = if settings.watch { settings.common.give_up_after } else { Duration::ZERO };
    let transfer = Transfer::connect_within(job, target, client, patience, destination, &stop).await?;
    let ways = match settings.one_way {
        Some(OneWay::Get) => &[Way::ToHere][..],
        Some(OneWay::Push) => &[Way::ToServer],
        None => &[Way::ToHere, Way::ToServer],
    };
    let predicted = transfer.predict(&settings.common, ways, &settings.directory, &stop).await?;
    let sync = transfer
        .connection()
        .sync(&settings.directory)
        .dry_run(settings.dry_run)
        .watch(settings.watch)
        .one_way(settings.one_way.map(OneWay::to))
        .allow_mass_deletion(settings.allow_mass_deletion);
    let sync = with_common!(sync, &settings.common, job, stop);
    let synced = transfer.finish(sync).await;
    if let Some(report) = report_of(&synced) {
        done(job, report, settings.dry_run);
        job.explain(predicted.as_ref(), report);
    }
    synced?;
    Ok(())
}

fn done(job: &Arc<Job>, report: &Report, dry_run: bool) {
    job.tell_actions(report, dry_run);
    if dry_run && job.output_mode() == OutputMode::Human {
        return transfer::end_dry_run(job, report);
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
        limited_by: Limited::of(report),
    });
}
