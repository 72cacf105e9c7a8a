//! `shiplane get SOURCE [DEST]`

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use shiplane::{ErrorKind, Report};
use tokio_util::sync::CancellationToken;

use super::transfer::{self, Transfer, report_of};
use crate::events::Event;
use crate::failure::Failure;
use crate::job::Job;
use crate::settings::{Dest, GetSettings};

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

async fn fetch(settings: GetSettings, job: &Arc<Job>, stop: CancellationToken) -> Result<(), Failure> {
    let transfer =
        Transfer::connect(job, settings.source, settings.buffer_len_bytes, settings.dest.shown(), &stop);
    let transfer = transfer.await?;
    let fetch = transfer
        .connection()
        .get("")
        .overwrite(settings.overwrite)
        .verify(settings.verify)
        .sha256(settings.sha256)
        .durable(settings.durability.is_durable())
        .concurrency(settings.jobs)
        .chunk_len_bytes(settings.chunk_len_bytes)
        .compression(settings.compress.compression())
        .digest(settings.digest.algorithm())
        .skip(settings.skip.iter().map(|kind| kind.name()))
        .give_up_after(settings.give_up_after)
        .on_progress(job.events())
        .cancel_on(stop.cancelled_owned());
    let fetch = settings.rate.iter().fold(fetch, |fetch, rate| fetch.rate(rate.get()));
    let is_stdout = settings.dest == Dest::Stdout;
    let fetch = match settings.dest {
        Dest::Stdout => fetch.to_writer(io::stdout()),
        Dest::Path(dest) => fetch.to(dest),
    };
    let fetched = transfer.finish(fetch).await;
    if let Some(report) = report_of(&fetched) {
        done(job, report);
    }
    match fetched {
        Ok(_) => Ok(()),
        Err(error) if is_stdout => Err(of_stdout(error)),
        Err(error) => Err(error.into()),
    }
}

fn done(job: &Arc<Job>, report: &Report) {
    job.tell(&Event::Done {
        files: report.files,
        bytes_total: report.bytes_total,
        bytes_received: report.bytes_received,
        bytes_wire: report.bytes_wire,
        bytes_resumed: report.bytes_resumed,
        left_out: report.left_out_count,
        seconds: job.seconds(),
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
