//! Calls of 256 bytes there and back over loopback: shiplane's beside tarpc's and bare quinn's, which
//! opens a stream for each.
//!
//! Each has two threads with a `current_thread` runtime, one a side. Rounds are interleaved and the
//! medians of the rounds are told, and those of shiplane's calls while a bulk transfer fills their connection.

mod contenders;
mod figures;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use shiplane_benches::{Failure, runtime};

use self::{
    contenders::{BareQuinn, Echo, Shiplane, Tarpc},
    figures::{Figures, Sample, sample},
};

#[derive(Parser)]
struct Args {
    /// Rounds of which the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of one measurement, in milliseconds
    #[arg(long, default_value_t = 700)]
    each_ms: u64,
    /// Calls in flight; repeat for several
    #[arg(long, default_values_t = [1, 64, 256])]
    in_flight: Vec<usize>,
    /// Only the contender with this name
    #[arg(long)]
    only: Option<String>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    runtime()?.block_on(async {
        let mut figures = Figures::default();
        let shiplane = Arc::new(Shiplane::connect().await?);
        let quinn = Arc::new(BareQuinn::connect().await?);
        let tarpc = Arc::new(Tarpc::connect().await?);
        for _ in 0..args.rounds {
            for &in_flight in &args.in_flight {
                round(&args, &shiplane, in_flight, &mut figures).await?;
                round(&args, &quinn, in_flight, &mut figures).await?;
                round(&args, &tarpc, in_flight, &mut figures).await?;
            }
            beside_bulk(&args, &mut figures).await?;
        }
        figures.print(BareQuinn::NAME);
        Ok(())
    })
}

async fn round<E: Echo>(
    args: &Args,
    echo: &Arc<E>,
    in_flight: usize,
    figures: &mut Figures,
) -> Result<(), Failure> {
    if args.only.as_ref().is_some_and(|only| only != E::NAME) {
        return Ok(());
    }
    let each = Duration::from_millis(args.each_ms);
    // Not counted: caches warm up and windows open.
    calls(echo, in_flight, each / 5).await?;
    figures.add(E::NAME, in_flight, calls(echo, in_flight, each).await?);
    Ok(())
}

/// Concurrent callers, each with one call after another.
async fn calls<E: Echo>(echo: &Arc<E>, callers: usize, duration: Duration) -> Result<Sample, Failure> {
    let body = Bytes::from(vec![7; BODY_LEN_BYTES]);
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (echo, body) = (Arc::clone(echo), body.clone());
        running.spawn(async move {
            let mut latencies_ns = Vec::new();
            let mut now = Instant::now();
            while now < began + duration {
                if echo.echo(body.clone()).await?.len() != body.len() {
                    return Err("the echo is another".into());
                }
                let done = Instant::now();
                latencies_ns.push((done - now).as_nanos() as u64);
                now = done;
            }
            Ok::<_, Failure>(latencies_ns)
        });
    }
    let mut latencies_ns = Vec::new();
    while let Some(caller) = running.join_next().await {
        latencies_ns.extend(caller??);
    }
    Ok(sample(latencies_ns, began.elapsed()))
}

/// Calls one at a time while chunks go the same way, as many lanes at a time as a transfer has.
async fn beside_bulk(args: &Args, figures: &mut Figures) -> Result<(), Failure> {
    let shiplane = Arc::new(Shiplane::connect().await?);
    let sent_bytes = Arc::new(AtomicU64::new(0));
    let _bulk = shiplane.start_bulk(&sent_bytes);
    // A second, so that the window is open and the path known.
    calls(&shiplane, 1, Duration::from_secs(1)).await?;
    let (began, before) = (Instant::now(), sent_bytes.load(Ordering::Relaxed));
    let mut sample = calls(&shiplane, 1, Duration::from_millis(args.each_ms) * 3).await?;
    let bytes = sent_bytes.load(Ordering::Relaxed) - before;
    sample[3] = bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    figures.add("shiplane beside bulk", 1, sample);
    Ok(())
}

/// A small request and its small answer; with its header and envelope each fits one packet of any size.
const BODY_LEN_BYTES: usize = 256;
