//! `shiplane push PATH... TARGET`

mod offer;
mod tally;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use shiplane_protocols::transfer::TransferOptions;
use shiplane_protocols::{Push, PushError, PushReport};
use shiplane_rpc::{CallError, Method, RpcClient};
use shiplane_transport::{Identity, RateLimiter, TransportConfig};
use shiplane_wire::escape;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::offer::Offer;
use self::tally::PushTally;
use crate::dial::{Dialled, dial, transport_config};
use crate::events::{Event, Phase};
use crate::failure::Failure;
use crate::home::Home;
use crate::job::Job;
use crate::remote::Remote;
use crate::settings::{PushSettings, Pushed, limiter};
use crate::{runtime, signals};

pub(super) fn run(settings: PushSettings, home: &Home) -> Result<(), Failure> {
    let remote = Remote::of(&settings.target, home)?;
    let stop = signals::watch("stopping; Ctrl-C again ends at once").map_err(Failure::Runtime)?;
    runtime::run(push(settings, remote, home, stop))
}

/// Everything that one run needs at each of its steps.
struct Run<'a> {
    settings: &'a PushSettings,
    remote: &'a Remote,
    home: &'a Home,
    job: Arc<Job<PushTally>>,
    /// Shared by all paths.
    rate: Option<RateLimiter>,
}

/// Dials, pushes, and takes leave of the server whatever came of it.
async fn push(
    settings: PushSettings,
    remote: Remote,
    home: &Home,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let job = Job::begin(settings.audience, io::stdout(), PushTally::new(settings.pushed.len()));
    let rate = limiter(settings.rate);
    let run = Run { settings: &settings, remote: &remote, home, job: Arc::clone(&job), rate };
    let prepared = tokio::select! {
        // Before the server is dialled: standard input may take as long as it likes.
        offers = run.offers() => offers,
        () = stop.cancelled() => Err(Failure::Interrupted),
    };
    let offers = prepared?;
    job.phase(Phase::Connecting);
    let dialled = tokio::select! {
        dialled = run.dial() => dialled?,
        () = stop.cancelled() => return Err(Failure::Interrupted),
    };
    let client = remote.client(&dialled.connection);
    let pushed = tokio::select! {
        pushed = run.push_all(offers, &client) => pushed,
        () = job.watch_for_silence() => Err(Failure::Interrupted), // It never ends.
        () = stop.cancelled() => Err(Failure::Interrupted),
    };
    let pushed = dialled.explained(pushed);
    job.end_bar();
    let is_interrupted = matches!(pushed, Err(Failure::Interrupted));
    if is_interrupted {
        take_leave(&client).await;
    }
    dialled.close(is_interrupted).await;
    pushed
}

/// Sees to it that the server notices the end of a push that was cut, so that the same command can go on
/// at once. A close may be lost where the path is full of what was sent before it; the reset of a stream is
/// not, and any answer, if only that there is no such method, shows that it has arrived.
pub(super) async fn take_leave(client: &RpcClient) {
    const PING: Method<(), ()> = Method::new("ping");
    let _ = client.call_typed(PING, &(), LEAVE_TIMEOUT).await;
}

impl Run<'_> {
    async fn offers(&self) -> Result<Vec<Offer>, Failure> {
        let mut offers = Vec::new();
        for pushed in &self.settings.pushed {
            if *pushed == Pushed::Stdin {
                self.job.phase(Phase::Spooling);
            }
            offers.push(Offer::of(pushed, &self.remote.path, self.settings).await?);
        }
        Ok(offers)
    }

    async fn dial(&self) -> Result<Dialled, Failure> {
        let buffer_len_bytes = self.settings.buffer_len_bytes;
        let config = TransportConfig { buffer_len_bytes, ..transport_config() };
        let identity = || Ok(Identity::load_or_create(&self.home.identity_path())?);
        dial(self.remote.server, &self.remote.at, &config, identity).await
    }

    async fn push_all(&self, offers: Vec<Offer>, client: &RpcClient) -> Result<(), Failure> {
        self.job.tell(&Event::Started {
            peer_id: self.remote.server.to_string(),
            address: client.connection().remote_addr().to_string(),
            destination: escape(&self.remote.path).to_string(),
        });
        self.job.phase(Phase::Offering);
        // What goes without a name of its own lies around all the others.
        let has_content = self.settings.pushed.iter().any(|pushed| pushed.name().is_none());
        let at_a_time = if has_content { 1 } else { offers.len().clamp(1, MAX_AT_A_TIME) };
        let lanes = usize::from(self.settings.jobs).div_ceil(at_a_time);
        futures::stream::iter(offers)
            .map(|offer| self.push_one(offer, client, lanes))
            .buffer_unordered(at_a_time)
            .try_for_each(|report| {
                self.job.add(&report);
                std::future::ready(Ok(()))
            })
            .await?;
        self.job.done();
        Ok(())
    }

    async fn push_one(&self, offer: Offer, client: &RpcClient, lanes: usize) -> Result<PushReport, Failure> {
        let options = TransferOptions {
            lanes,
            chunk_len_bytes: self.settings.chunk_len_bytes,
            rate: self.rate.clone(),
            compression: self.settings.compress.compression(),
            digest: self.settings.digest.algorithm(),
            ..TransferOptions::default()
        };
        let push = self.open(&offer, client, &options).await?;
        match push.send(&options, self.job.events()).await {
            // The connection broke after all was sent. What has become of it can be asked for again.
            Err(PushError::Unknown { receipt, source: CallError::ConnectionLost(_) }) => {
                let again = self.dial().await?;
                let client = self.remote.client(&again.connection);
                let asked = receipt.ask(&client).await;
                again.close(false).await;
                Ok(asked?)
            }
            other => Ok(other?),
        }
    }

    /// A server may be busy with what another run has put there. An interrupted one of this very push it lets
    /// us take over from; of any other it notices within its idle timeout that nobody is behind it any more.
    async fn open(
        &self,
        offer: &Offer,
        client: &RpcClient,
        options: &TransferOptions,
    ) -> Result<Push, Failure> {
        let give_up_at = Instant::now() + BUSY_PATIENCE;
        loop {
            match Push::open_with(client, offer.source.clone(), &offer.request, options).await {
                Err(error) if error.is_busy() && Instant::now() < give_up_at => {
                    self.job.phase(Phase::Waiting);
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                opened => return Ok(opened?),
            }
        }
    }
}

/// Four: enough that small files do not wait for each other's round trips, and few enough that all the
/// lanes of each still find streams.
const MAX_AT_A_TIME: usize = 4;

/// 400 ms: with the close that follows it, Ctrl-C takes less than a second.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(400);

/// 40 s: a server forgets a pusher that has vanished after 30.
const BUSY_PATIENCE: Duration = Duration::from_secs(40);

/// 1 s: soon enough for a person, and nothing to the server.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
