//! `shiplane get SOURCE [DEST]`

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use shiplane::{ErrorKind, Report};
use tokio_util::sync::CancellationToken;

use super::transfer::{self, Transfer};
use crate::events::Event;
use crate::failure::Failure;
use crate::job::Job;
use crate::settings::{Dest, GetSettings};

pub(super) fn run(settings: GetSettings) -> Result<(), Failure> {
    transfer::run(|stop| get(settings, stop))
}

async fn get(settings: GetSettings, stop: CancellationToken) -> Result<(), Failure> {
    // Where the file itself goes to standard output, digests go beside it.
    let out: Box<dyn io::Write + Send> = match settings.dest {
        Dest::Stdout => Box::new(io::stderr()),
        Dest::Path(_) => Box::new(io::stdout()),
    };
    let job = Job::begin(settings.output_mode, out);
    let transfer =
        Transfer::connect(&job, settings.source, settings.buffer_len_bytes, settings.dest.shown(), &stop);
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
        .on_progress(job.events(Event::skipped))
        .cancel_on(stop.cancelled_owned());
    let fetch = settings.rate.iter().fold(fetch, |fetch, rate| fetch.rate(rate.get()));
    let is_stdout = settings.dest == Dest::Stdout;
    let fetch = match settings.dest {
        Dest::Stdout => fetch.to_writer(io::stdout()),
        Dest::Path(dest) => fetch.to(dest),
    };
    match transfer.finish(fetch).await {
        Ok(report) => done(&job, report),
        Err(error) if is_stdout => return Err(of_stdout(error)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn done(job: &Arc<Job>, report: Report) {
    job.tell(&Event::Done {
        files: report.files,
        bytes_total: report.bytes_total,
        bytes_received: report.bytes_received,
        bytes_wire: report.bytes_wire,
        bytes_resumed: report.bytes_resumed,
        seconds: job.seconds(),
        digest_algorithm: report.digest.as_ref().map(|_| report.digest_algorithm.into()),
        digest: report.digest,
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
