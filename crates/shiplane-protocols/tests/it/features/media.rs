//! The media example, run.

#[path = "../../../examples/media/service.rs"]
mod service;

use std::{num::NonZeroU64, path::Path, sync::Arc};

use shiplane_rpc::{CallError, FaultCode};
use shiplane_transport::{LaneOptions, RateLimit, RateLimiter};
use tempfile::TempDir;

use self::service::{DownloadError, MediaClient, MediaStreamingService};
use super::pair::{Pair, until};
use crate::harness::noise;

struct Studio {
    pair: Pair,
    client: Arc<MediaClient>,
    service: Arc<MediaStreamingService>,
    media: TempDir,
    output: TempDir,
}

impl Studio {
    fn new(lane: LaneOptions) -> Self {
        let (pair, media, output) = (Pair::new(), TempDir::new().unwrap(), TempDir::new().unwrap());
        for id in 0..3 {
            std::fs::write(media.path().join(format!("{id}.mp4")), Self::content(id)).unwrap();
        }
        let service = MediaStreamingService::new(Arc::clone(&pair.bob), media.path(), lane).unwrap();
        tokio::spawn(Arc::clone(&service).serve());
        let client = Arc::new(MediaClient::new(Arc::clone(&pair.alice)));
        Self { pair, client, service, media, output }
    }

    fn content(id: u64) -> Vec<u8> {
        noise(id, 300_000 + id as usize)
    }

    async fn download(&self, name: &str, output: &str) -> Result<u64, DownloadError> {
        let output = self.output.path().join(output);
        self.client.download_media(self.pair.bob_addr(), name, &output).await
    }

    async fn check(&self, id: u64, output: &str) {
        assert_eq!(self.download(&format!("{id}.mp4"), output).await.unwrap(), 300_000 + id);
        assert_eq!(std::fs::read(self.output.path().join(output)).unwrap(), Self::content(id));
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[tokio::test]
async fn three_downloads_in_sequence_and_three_at_a_time() {
    let studio = Studio::new(LaneOptions::default());
    for id in 0..3 {
        studio.check(id, &format!("sequence {id}")).await;
    }
    tokio::join!(studio.check(0, "a"), studio.check(1, "b"), studio.check(2, "c"));
    assert_eq!(studio.pair.alice.open_connections(), 1);
    let metrics = studio.service.metrics();
    until(|| metrics.snapshot().sent.completed == 6).await;
    assert_eq!(metrics.snapshot().sent.bytes, 2 * (300_000 + 300_001 + 300_002));
    studio.client.close().await;
}

#[tokio::test]
async fn a_download_that_is_refused_names_the_reason() {
    let studio = Studio::new(LaneOptions::default());
    let outside = TempDir::new().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    std::fs::create_dir(studio.media.path().join("folder")).unwrap();
    let mut refused =
        vec![("none.mp4".to_owned(), FaultCode::NotFound), ("folder".to_owned(), FaultCode::NotFound)];
    refused.push((outside.path().join("secret").to_str().unwrap().to_owned(), FaultCode::PathRefused));
    refused.push(("../secret".to_owned(), FaultCode::PathRefused));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path().join("secret"), studio.media.path().join("link")).unwrap();
        refused.push(("link".to_owned(), FaultCode::PathRefused));
    }
    for (name, code) in refused {
        match studio.download(&name, "output").await {
            Err(DownloadError::Call(CallError::Fault(fault))) => assert_eq!(fault.code, code, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(is_empty(studio.output.path()));
    studio.check(1, "still works").await;
}

#[tokio::test]
async fn a_download_that_is_given_up_leaves_no_file() {
    let rate = RateLimiter::new(RateLimit::per_second(NonZeroU64::new(500_000).unwrap()));
    let studio = Studio::new(LaneOptions::default().rate(Some(rate)));
    tokio::select! {
        biased;
        () = until(|| !is_empty(studio.output.path())) => {}
        done = studio.download("0.mp4", "output") => panic!("too fast: {done:?}"),
    }
    // The writing thread notices, and removes what it has written.
    until(|| is_empty(studio.output.path())).await;
    let metrics = studio.service.metrics();
    until(|| metrics.snapshot().sent.failed == 1).await;
}
