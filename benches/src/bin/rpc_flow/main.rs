//! Calls of 256 bytes there and back over loopback: shiplane's beside tarpc's and bare quinn's, which
//! opens a stream for each.
//!
//! Each has two threads with a `current_thread` runtime, one a side. Rounds are interleaved and the
//! medians of the rounds are told, and those of shiplane's calls while a bulk transfer fills their connection.

mod contenders;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use shiplane_benches::{Failure, quantile, runtime};

use self::contenders::{BareQuinn, Echo, Shiplane, Tarpc};

#[derive(Parser)]
struct Args {
    /// Rounds of which the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of one measurement, in milliseconds
    #[arg(long, default_value_t = 700)]
    each_ms: u64,
}

/// One round of one contender: calls a second, the median and the 99th percentile in µs, and what the bulk carried
/// meanwhile in MB/s.
type Sample = [f64; 4];

/// All rounds, by the calls in flight and the contender.
type Figures = BTreeMap<(usize, &'static str), Vec<Sample>>;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let each = Duration::from_millis(args.each_ms);
    runtime()?.block_on(async {
        let mut figures = Figures::new();
        let shiplane = Arc::new(Shiplane::connect().await?);
        let quinn = Arc::new(BareQuinn::connect().await?);
        let tarpc = Arc::new(Tarpc::connect().await?);
        for _ in 0..args.rounds {
            for in_flight in [1, 64, 256] {
                round(&shiplane, in_flight, each, &mut figures).await?;
                round(&quinn, in_flight, each, &mut figures).await?;
                round(&tarpc, in_flight, each, &mut figures).await?;
            }
            let sample = beside_bulk(3 * each).await?;
            figures.entry((1, "shiplane beside bulk")).or_default().push(sample);
        }
        print(&figures);
        Ok(())
    })
}

async fn round<E: Echo>(
    echo: &Arc<E>,
    in_flight: usize,
    each: Duration,
    figures: &mut Figures,
) -> Result<(), Failure> {
    // Not counted: caches warm up and windows open.
    calls(echo, in_flight, each / 5).await?;
    let sample = calls(echo, in_flight, each).await?;
    figures.entry((in_flight, E::NAME)).or_default().push(sample);
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
            let mut latencies_us = Vec::new();
            let mut now = Instant::now();
            while now < began + duration {
                if echo.echo(body.clone()).await?.len() != body.len() {
                    return Err("the echo is another".into());
                }
                let done = Instant::now();
                latencies_us.push((done - now).as_secs_f64() * 1e6);
                now = done;
            }
            Ok::<_, Failure>(latencies_us)
        });
    }
    let mut latencies_us = Vec::new();
    while let Some(caller) = running.join_next().await {
        latencies_us.extend(caller??);
    }
    let calls_s = latencies_us.len() as f64 / began.elapsed().as_secs_f64();
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&mut latencies_us, share));
    Ok([calls_s, p50, p99, f64::NAN])
}

/// Calls one at a time while chunks go the same way, as many lanes at a time as a transfer has.
async fn beside_bulk(duration: Duration) -> Result<Sample, Failure> {
    let shiplane = Arc::new(Shiplane::connect().await?);
    let sent_bytes = Arc::new(AtomicU64::new(0));
    let _bulk = shiplane.start_bulk(&sent_bytes);
    // A second, so that the window is open and the path known.
    calls(&shiplane, 1, Duration::from_secs(1)).await?;
    let (began, before) = (Instant::now(), sent_bytes.load(Ordering::Relaxed));
    let mut sample = calls(&shiplane, 1, duration).await?;
    let bytes = sent_bytes.load(Ordering::Relaxed) - before;
    sample[3] = bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    Ok(sample)
}

/// A Markdown table; ratios are those to bare quinn with as many calls in flight.
fn print(figures: &Figures) {
    println!(
        "| | in flight | calls/s | p50, µs | p99, µs | the bulk, MB/s | calls ÷ quinn's | p50 ÷ quinn's |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for ((in_flight, name), samples) in figures {
        let [calls, p50, p99, bulk] = medians(samples);
        let [quinns_calls, quinns_p50, ..] = medians(&figures[&(*in_flight, BareQuinn::NAME)]);
        let ratios = format!("{:.2} | {:.2}", calls / quinns_calls, p50 / quinns_p50);
        println!("| {name} | {in_flight} | {calls:.0} | {p50:.1} | {p99:.1} | {bulk:.0} | {ratios} |");
    }
}

fn medians(samples: &[Sample]) -> Sample {
    [0, 1, 2, 3].map(|at| quantile(&mut samples.iter().map(|sample| sample[at]).collect::<Vec<_>>(), 0.5))
}

/// A small request and its small answer; with its header and envelope each fits one packet of any size.
const BODY_LEN_BYTES: usize = 256;
