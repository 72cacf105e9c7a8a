//! Connects, runs one job, and closes; shared by `get`, `push` and `sync`.

use std::io::{self, IsTerminal};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shiplane::{Client, ClientBuilder, Connection, Error, ErrorKind, Report, Target};
use tokio_util::sync::CancellationToken;

use crate::doctor::{Prediction, Way};
use crate::events::{Event, Phase};
use crate::failure::Failure;
use crate::job::Job;
use crate::logging::print_line;
use crate::progress::count;
use crate::settings::{JobSettings, OutputMode};
use crate::{runtime, signals};

/// Runs a command until it is done or, after Ctrl-C, has stopped in order.
pub(super) fn run<F>(command: impl FnOnce(CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let stop = signals::watch("stopping; press Ctrl-C again to stop now", signals::JOB_LIMIT)
        .map_err(Failure::Runtime)?;
    runtime::run(command(stop)).map_err(Failure::Runtime)?
}

/// Tells people that what was listed was not done.
pub(super) fn end_dry_run(job: &Job, report: &Report) {
    job.end_bar();
    if io::stderr().is_terminal() {
        let actions = report.actions.len() as u64 + report.actions_unnamed;
        print_line(&match actions {
            0 => "dry run: there is nothing to do".to_owned(),
            _ => format!("dry run: {} to make, none made", count(actions, "change")),
        });
    }
}

/// A connection and the job that reports on it.
pub(super) struct Transfer<'a> {
    job: &'a Arc<Job>,
    client: Client,
    connection: Connection,
}

impl<'a> Transfer<'a> {
    /// Connects and reports it, with `destination` as shown to the user.
    pub(super) async fn connect(
        job: &'a Arc<Job>,
        target: Target,
        client: ClientBuilder,
        destination: String,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        Self::connect_within(job, target, client, Duration::ZERO, destination, stop).await
    }

    /// The same, but waits so long for a server that is absent.
    pub(super) async fn connect_within(
        job: &'a Arc<Job>,
        target: Target,
        client: ClientBuilder,
        patience: Duration,
        destination: String,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        let client = client.build().await?;
        Self::open(job, client, target, patience, destination, stop).await
    }

    async fn open(
        job: &'a Arc<Job>,
        client: Client,
        target: Target,
        patience: Duration,
        destination: String,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        // What ssh asks at the terminal must not be painted over.
        if !(target.is_over_ssh() && job.output_mode() == OutputMode::Human) {
            job.phase(Phase::Connecting);
        }
        let connection = tokio::select! {
            connection = client.connect_within(target, patience, job.events()) => connection?,
            () = stop.cancelled() => return Err(Failure::Interrupted),
        };
        job.tell(&Event::Started {
            peer_id: connection.peer_id().to_string(),
            address: connection.route(),
            destination,
        });
        Ok(Self { job, client, connection })
    }

    /// Of a connection that is there already.
    pub(super) fn over(job: &'a Arc<Job>, client: Client, connection: Connection) -> Self {
        Self { job, client, connection }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What `--explain` compares the run with, if it was asked for: measured now.
    pub(super) async fn predict(
        &self,
        settings: &JobSettings,
        ways: &[Way],
        directory: &Path,
        stop: &CancellationToken,
    ) -> Result<Option<Prediction>, Failure> {
        if !settings.explain {
            return Ok(None);
        }
        self.job.phase(Phase::Measuring);
        let (algorithm, limit) = (settings.digest.algorithm(), settings.rate.map(NonZeroU64::get));
        tokio::select! {
            measured = Prediction::measure(&self.connection, ways, directory, algorithm, limit) => measured.map(Some),
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    }

    /// Connects to another target.
    pub(super) async fn reconnect(
        self,
        target: Target,
        destination: String,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        Self::open(self.job, self.client, target, Duration::ZERO, destination, stop).await
    }

    /// Runs the job, then closes the connection and waits for a moment until the server has been told; for a
    /// shorter one after Ctrl-C.
    pub(super) async fn finish(
        self,
        work: impl IntoFuture<Output = Result<Report, Error>>,
    ) -> Result<Report, Error> {
        let ended = self.run(work).await;
        self.close(&ended).await;
        ended
    }

    /// Runs the job.
    pub(super) async fn run(
        &self,
        work: impl IntoFuture<Output = Result<Report, Error>>,
    ) -> Result<Report, Error> {
        let ended = tokio::select! {
            ended = work.into_future() => ended,
            never = self.job.watch_for_silence() => match never {},
        };
        self.job.end_bar();
        ended
    }

    /// Runs the job that `prepare` makes; once more with consent, if it would delete most of a tree and the user at the
    /// terminal agrees.
    pub(super) async fn run_agreed<J>(&self, prepare: impl Fn(bool) -> J) -> Result<Report, Error>
    where
        J: IntoFuture<Output = Result<Report, Error>>,
    {
        match self.run(prepare(false)).await {
            Err(error) if error.needs_consent() && self.job.output_mode() == OutputMode::Human => {
                let question = format!("{error}. Delete them? [y/N]");
                match tokio::task::spawn_blocking(move || is_agreed(&question)).await {
                    Ok(true) => self.run(prepare(true)).await,
                    Ok(false) | Err(_) => Err(error),
                }
            }
            ended => ended,
        }
    }

    /// Closes the connection after its last job, as [`finish`](Self::finish) does.
    pub(super) async fn close(self, ended: &Result<Report, Error>) {
        let is_interrupted = matches!(ended, Err(error) if error.kind() == ErrorKind::Interrupted);
        if is_interrupted {
            let _ = tokio::time::timeout(INTERRUPTED_CLOSE_TIMEOUT, self.client.close()).await;
        } else {
            self.client.close().await;
        }
    }
}

/// What a job has done. That paths are left out is an error, with a report of the rest.
pub(super) fn report_of(ended: &Result<Report, Error>) -> Option<&Report> {
    ended.as_ref().map_or_else(Error::report, Some)
}

/// Asks at the terminal; `false` if there is none.
pub(super) fn is_agreed(question: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    print_line(question);
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Half of the second within which Ctrl-C must end the program.
const INTERRUPTED_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
