//! `shiplane get SOURCE [DEST]`

mod output;
mod tally;

use std::io;
use std::path::{self, Path};
use std::sync::Arc;

use shiplane_files::{Destination, DestinationError, ReceiveOptions, Shape};
use shiplane_protocols::transfer::{StreamTarget, Target, TransferError, TransferOptions};
use shiplane_protocols::{Fetch, FetchError, FetchReport, FetchRequest};
use shiplane_transport::{Identity, TransportConfig};
use shiplane_wire::escape;
use tokio_util::sync::CancellationToken;

use self::output::HashingOutput;
use self::tally::GetTally;
use crate::dial::{Dialled, dial, transport_config};
use crate::events::{Event, Phase};
use crate::failure::Failure;
use crate::home::Home;
use crate::job::Job;
use crate::progress::Audience;
use crate::remote::Remote;
use crate::settings::{Dest, GetSettings, limiter};
use crate::watched::Watched;
use crate::{runtime, signals};

pub(super) fn run(settings: GetSettings, home: &Home) -> Result<(), Failure> {
    let remote = Remote::of(&settings.source, home)?;
    let stop = signals::watch("stopping; Ctrl-C again ends at once").map_err(Failure::Runtime)?;
    runtime::run(get(settings, remote, home, stop))
}

/// Dials, fetches, and takes leave of the server whatever came of it.
async fn get(
    settings: GetSettings,
    remote: Remote,
    home: &Home,
    stop: CancellationToken,
) -> Result<(), Failure> {
    // Where the file itself goes to standard output, digests go beside it.
    let out: Box<dyn io::Write + Send> = match settings.dest {
        Dest::Stdout => Box::new(io::stderr()),
        Dest::Path(_) => Box::new(io::stdout()),
    };
    let job = Job::begin(settings.audience, out, GetTally::new());
    let config = TransportConfig { buffer_len_bytes: settings.buffer_len_bytes, ..transport_config() };
    let identity = || Ok(Identity::load_or_create(&home.identity_path())?);
    job.phase(Phase::Connecting);
    let dialled = tokio::select! {
        dialled = dial(remote.server, &remote.at, &config, identity) => dialled?,
        () = stop.cancelled() => return Err(Failure::Interrupted),
    };
    let fetched = tokio::select! {
        fetched = fetch(&job, &settings, &remote, &dialled) => fetched,
        () = job.watch_for_silence() => Err(Failure::Interrupted), // It never ends.
        () = stop.cancelled() => Err(Failure::Interrupted),
    };
    let fetched = dialled.explained(fetched);
    job.end_bar();
    dialled.close(matches!(fetched, Err(Failure::Interrupted))).await;
    fetched
}

async fn fetch(
    job: &Arc<Job<GetTally>>,
    settings: &GetSettings,
    remote: &Remote,
    dialled: &Dialled,
) -> Result<(), Failure> {
    let client = remote.client(&dialled.connection);
    job.tell(&Event::Started {
        peer_id: remote.server.to_string(),
        address: dialled.connection.remote_addr().to_string(),
        destination: settings.dest.to_string(),
    });
    job.phase(Phase::Listing);
    let options = TransferOptions {
        lanes: settings.jobs.into(),
        chunk_len_bytes: settings.chunk_len_bytes,
        rate: limiter(settings.rate),
        compression: settings.compress.compression(),
        digest: settings.digest.algorithm(),
        ..TransferOptions::default()
    };
    let is_new_here = match &settings.dest {
        Dest::Stdout => true,
        Dest::Path(dest) => is_new_at(dest, &remote.path),
    };
    let request = FetchRequest { path: remote.path.clone(), is_new_here };
    let fetch = Fetch::open_with(&client, request, &options).await?;
    let opened = Opened { fetch, options };
    let report = match &settings.dest {
        Dest::Stdout => to_stdout(job, settings, opened).await?,
        Dest::Path(dest) => to_disk(job, settings, opened, dest.clone()).await?,
    };
    job.done(&report);
    Ok(())
}

/// Whether nothing of `path` is at DEST yet, nor what an earlier run has kept of it. A guess: what it is, a file or a
/// directory, only the server knows.
fn is_new_at(dest: &Path, path: &[u8]) -> bool {
    // A link that leads nowhere is something, too.
    let is_missing =
        |path: &Path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let Ok(entries) = dest.read_dir() else { return is_missing(dest) };
    let mut names = entries.flatten().map(|entry| entry.file_name()).peekable();
    if names.peek().is_none() {
        return true;
    }
    let name = path.rsplit(|byte| *byte == b'/').next().and_then(|name| str::from_utf8(name).ok());
    let has_leftovers = names.any(|name| name.as_encoded_bytes().starts_with(b".shiplane-"));
    !has_leftovers && name.is_some_and(|name| !name.is_empty() && is_missing(&dest.join(name)))
}

/// What the server is ready for, and how it was told that it is to be run.
struct Opened {
    fetch: Fetch,
    options: TransferOptions,
}

/// One file, in order, each chunk verified before a byte of it is printed.
async fn to_stdout(
    job: &Arc<Job<GetTally>>,
    settings: &GetSettings,
    opened: Opened,
) -> Result<FetchReport, Failure> {
    let Shape::File { name } = opened.fetch.shape() else {
        return Err(Failure::NotOneFile);
    };
    let name = escape(name).to_string();
    let (output, digest) = HashingOutput::new(io::stdout(), settings.sha256);
    let target = StreamTarget::new(output);
    // Chunks that come early are held whole.
    let chunk_len_bytes = opened.options.chunk_len_bytes.min(MAX_HELD_CHUNK_LEN_BYTES);
    let opened = Opened { options: TransferOptions { chunk_len_bytes, ..opened.options }, ..opened };
    let report = receive(job, opened, target).await.map_err(of_stdout)?;
    if let Some(sha256) = digest.finish() {
        let bytes = report.total_bytes;
        let sha256 = Some(sha256.to_string());
        job.tell(&Event::File { path: name, bytes, received: true, sha256 });
    }
    Ok(report)
}

/// A disk that fails is told from a pipe that nobody reads.
fn of_stdout(failure: Failure) -> Failure {
    match failure {
        Failure::Fetch(FetchError::Transfer(TransferError::Destination(DestinationError::Io {
            source,
            ..
        }))) => Failure::Stdout(source),
        other => other,
    }
}

/// A file or a tree, where `cp -r` would put it.
async fn to_disk(
    job: &Arc<Job<GetTally>>,
    settings: &GetSettings,
    opened: Opened,
    dest: path::PathBuf,
) -> Result<FetchReport, Failure> {
    let options = ReceiveOptions {
        overwrite: settings.overwrite,
        promise: settings.durability.promise(),
        verify: settings.verify,
        digest: opened.fetch.digest(),
        chunk_len_bytes: settings.chunk_len_bytes,
    };
    let (shape, key) = (opened.fetch.shape().clone(), opened.fetch.job());
    let opening = tokio::task::spawn_blocking(move || Destination::open(&dest, &shape, key, options));
    let destination = opening.await.map_err(|_| Failure::Interrupted)?.map_err(Failure::Destination)?;
    // Each file costs a line, and with a digest a reading: only for those who asked.
    if settings.sha256 || settings.audience == Audience::Program {
        let told = Arc::clone(job);
        let tell = Arc::new(move |event| told.tell(&event));
        let target = Watched::new(destination, settings.sha256, tell);
        receive(job, opened, target).await
    } else {
        receive(job, opened, destination).await
    }
}

async fn receive<T: Target>(
    job: &Arc<Job<GetTally>>,
    opened: Opened,
    target: T,
) -> Result<FetchReport, Failure> {
    let Opened { fetch, options } = opened;
    Ok(fetch.receive(target, &options, job.events()).await?)
}

/// 512 KiB: as many of them as there may be lanes are 16 MiB.
const MAX_HELD_CHUNK_LEN_BYTES: u64 = 512 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_new_is_guessed_by_the_destination() {
        let dir = tempfile::TempDir::new().unwrap();
        let (dest, below) = (dir.path().join("dest"), dir.path().join("dest/photos"));
        assert!(is_new_at(&dest, b""), "it is not there");
        fs::create_dir(&dest).unwrap();
        assert!(is_new_at(&dest, b""), "it is empty");
        fs::write(dest.join("other"), "").unwrap();
        assert!(!is_new_at(&dest, b""));
        assert!(is_new_at(&dest, b"2026/photos"));
        fs::create_dir(&below).unwrap();
        assert!(!is_new_at(&dest, b"2026/photos"));
        assert!(is_new_at(&dest, b"2026/videos"));
        fs::write(dest.join(".shiplane-1.part"), "").unwrap();
        assert!(!is_new_at(&dest, b"2026/videos"), "an earlier run has left something");
        assert!(!is_new_at(&dest.join("other"), b"other"), "a file");
    }
}
