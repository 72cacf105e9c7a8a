//! `shiplane push PATH... TARGET`

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shiplane::{PushJob, Report, escape};
use tokio_util::sync::CancellationToken;

use super::transfer::{self, Transfer, report_of};
use crate::doctor::Way;
use crate::events::{Event, Limited};
use crate::failure::{Failure, check_source};
use crate::job::Job;
use crate::settings::{OutputMode, PushSettings, Pushed, with_common, with_existing};

pub(super) fn run(settings: PushSettings) -> Result<(), Failure> {
    transfer::run(|stop| push(settings, stop))
}

async fn push(settings: PushSettings, stop: CancellationToken) -> Result<(), Failure> {
    let job = Job::begin(settings.output_mode, io::stdout());
    let ended = send(settings, &job, stop).await;
    job.end(ended)
}

async fn send(settings: PushSettings, job: &Arc<Job>, stop: CancellationToken) -> Result<(), Failure> {
    if let Pushed::Paths(paths) = &settings.pushed {
        paths.iter().try_for_each(|path| check_source(path))?;
    }
    let destination = escape(settings.target.path());
    let (target, client) = (settings.target.clone(), settings.client.builder());
    let transfer = Transfer::connect(job, target, client, destination, &stop).await?;
    // Where the disk is that it comes from.
    let directory = match &settings.pushed {
        Pushed::Paths(paths) => paths.first().map_or_else(|| Path::new("."), PathBuf::as_path),
        Pushed::Stdin => Path::new("."),
    };
    let predicted = transfer.predict(&settings.common, &[Way::ToServer], directory, &stop).await?;
    let prepare = |push: PushJob, consented: bool| {
        let push = push.durable(settings.durability.is_durable());
        with_common!(with_existing!(push, &settings.existing, consented), &settings.common, job, stop)
    };
    let pushed = match settings.pushed {
        Pushed::Paths(paths) => {
            let push = || transfer.connection().push(paths.clone());
            transfer.run_agreed(|consented| prepare(push(), consented)).await
        }
        Pushed::Stdin => {
            let input = stdin().map_err(Failure::Stdin)?;
            transfer.run(prepare(transfer.connection().push_file(input), false)).await
        }
    };
    transfer.close(&pushed).await;
    if let Some(report) = report_of(&pushed) {
        report.actions.iter().for_each(|action| job.tell(&Event::action(action)));
        done(job, report, settings.existing.dry_run);
        job.explain(predicted.as_ref(), report);
    }
    pushed?;
    Ok(())
}

fn done(job: &Arc<Job>, report: &Report, dry_run: bool) {
    if dry_run && job.output_mode() == OutputMode::Human {
        return transfer::end_dry_run(job, report);
    }
    job.tell(&Event::Pushed {
        files: report.files,
        bytes_total: report.bytes_total,
        bytes_sent: report.bytes_sent,
        bytes_wire: report.bytes_wire,
        bytes_resumed: report.bytes_resumed,
        kept: report.kept,
        deleted: report.deleted,
        left_out: report.left_out_count,
        durable: report.is_durable,
        seconds: job.seconds(),
        limited_by: Limited::of(report),
    });
}

/// Standard input as a file: that of the standard library reads ahead.
fn stdin() -> io::Result<File> {
    #[cfg(unix)]
    let input = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?;
    #[cfg(windows)]
    let input = std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned()?;
    Ok(input.into())
}
