//! `shiplane sync DIR TARGET`

mod tally;

use std::io;
use std::sync::Arc;

use shiplane_protocols::sync::{Consent, SyncJob, SyncReport, SyncState, synchronise};
use shiplane_protocols::transfer::TransferOptions;
use shiplane_rpc::RpcClient;
use shiplane_transport::{Identity, PeerId, TransportConfig};
use shiplane_wire::escape;
use tokio_util::sync::CancellationToken;

use self::tally::SyncTally;
use super::push::take_leave;
use crate::dial::{Dialled, dial, transport_config};
use crate::events::{Event, Phase};
use crate::failure::Failure;
use crate::home::Home;
use crate::job::Job;
use crate::remote::Remote;
use crate::settings::{SyncSettings, limiter};
use crate::{runtime, signals};

pub(super) fn run(settings: SyncSettings, home: &Home) -> Result<(), Failure> {
    let remote = Remote::of(&settings.target, home)?;
    let stop = signals::watch("stopping; Ctrl-C again ends at once").map_err(Failure::Runtime)?;
    runtime::run(sync(settings, remote, home, stop))
}

/// Dials, syncs, and takes leave of the server whatever came of it.
async fn sync(
    settings: SyncSettings,
    remote: Remote,
    home: &Home,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let job = Job::begin(settings.audience, io::stdout(), SyncTally::new());
    let config = TransportConfig { buffer_len_bytes: settings.buffer_len_bytes, ..transport_config() };
    let identity = || Ok(Identity::load_or_create(&home.identity_path())?);
    job.phase(Phase::Connecting);
    let dialled = tokio::select! {
        dialled = dial(remote.server, &remote.at, &config, identity) => dialled?,
        () = stop.cancelled() => return Err(Failure::Interrupted),
    };
    let client = remote.client(&dialled.connection);
    let synced = tokio::select! {
        synced = bring_together(&job, &settings, &remote, home, &dialled, &client) => synced,
        () = job.watch_for_silence() => Err(Failure::Interrupted), // It never ends.
        () = stop.cancelled() => Err(Failure::Interrupted),
    };
    let synced = dialled.explained(synced);
    job.end_bar();
    let is_interrupted = matches!(synced, Err(Failure::Interrupted));
    if is_interrupted {
        take_leave(&client).await;
    }
    dialled.close(is_interrupted).await;
    let report = synced?;
    Failure::of_left(&report.left).map_or(Ok(()), Err)
}

async fn bring_together(
    job: &Arc<Job<SyncTally>>,
    settings: &SyncSettings,
    remote: &Remote,
    home: &Home,
    dialled: &Dialled,
    client: &RpcClient,
) -> Result<SyncReport, Failure> {
    job.tell(&Event::Started {
        peer_id: remote.server.to_string(),
        address: dialled.connection.remote_addr().to_string(),
        destination: escape(&remote.path).to_string(),
    });
    let wanted = wanted(settings, remote, home, dialled.transport.peer_id());
    let report = synchronise(client, &wanted, job.events()).await?;
    job.done(&report, settings.dry_run);
    Ok(report)
}

fn wanted(settings: &SyncSettings, remote: &Remote, home: &Home, own: PeerId) -> SyncJob {
    SyncJob {
        directory: settings.directory.clone(),
        remote_path: remote.path.clone(),
        state: SyncState::at(home.sync_path()),
        own,
        consent: Consent { mass_deletion: settings.allow_mass_deletion },
        dry_run: settings.dry_run,
        transfer: TransferOptions {
            lanes: settings.jobs.into(),
            chunk_len_bytes: settings.chunk_len_bytes,
            rate: limiter(settings.rate),
            compression: settings.compress.compression(),
            digest: settings.digest.algorithm(),
            ..TransferOptions::default()
        },
    }
}
