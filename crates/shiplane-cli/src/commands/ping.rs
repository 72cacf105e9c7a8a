//! `shiplane ping SOURCE`

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use shiplane::{Client, Connection};
use tokio_util::sync::CancellationToken;

use super::transfer;
use crate::events::{Event, seconds};
use crate::failure::Failure;
use crate::progress::count;
use crate::settings::{OutputMode, PingSettings};

pub(super) fn run(settings: PingSettings) -> Result<(), Failure> {
    transfer::run(|stop| ping(settings, stop))
}

async fn ping(settings: PingSettings, stop: CancellationToken) -> Result<(), Failure> {
    let PingSettings { source, ssh, count, output_mode } = settings;
    let client = ssh.apply(Client::builder().foreground(true)).build().await?;
    let probing = async {
        let connection = client.connect(source).await?;
        let pinged = probe(&connection, count).await?;
        Ok::<_, shiplane::Error>((connection, pinged))
    };
    let (connection, pinged) = tokio::select! {
        probed = probing => probed?,
        () = stop.cancelled() => return Err(Failure::Interrupted),
    };
    let told = tell(&connection, &pinged, output_mode);
    client.close().await;
    told.map_err(Failure::Stdout)
}

/// A summary of several round trips.
struct Pinged {
    /// Sorted.
    round_trips: Vec<Duration>,
    version: String,
}

/// Measures this number of round trips, after one that opens the connection and redeems a ticket.
async fn probe(connection: &Connection, count: u16) -> Result<Pinged, shiplane::Error> {
    let (_, version) = connection.ping().await?;
    let mut round_trips = Vec::new();
    for _ in 0..count {
        tokio::time::sleep(INTERVAL).await;
        round_trips.push(connection.ping().await?.0);
    }
    round_trips.sort_unstable();
    Ok(Pinged { round_trips, version })
}

fn tell(connection: &Connection, pinged: &Pinged, output_mode: OutputMode) -> io::Result<()> {
    let Pinged { round_trips, version } = pinged;
    let at = |index: usize| round_trips.get(index).copied().unwrap_or_default();
    let (min, median, max) = (at(0), at(round_trips.len() / 2), at(round_trips.len().saturating_sub(1)));
    let (sent, lost) = connection.packets();
    let address = connection.route();
    let family = match address.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(_)) => "IPv4",
        Ok(SocketAddr::V6(_)) => "IPv6",
        Err(_) => "ssh",
    };
    let (peer_id, own_version) = (connection.peer_id().to_string(), env!("CARGO_PKG_VERSION"));
    let mut out = io::stdout().lock();
    if output_mode == OutputMode::Json {
        let event = Event::Pinged {
            peer_id,
            address,
            family,
            probes: round_trips.len() as u64,
            min_seconds: precise(min),
            median_seconds: precise(median),
            max_seconds: precise(max),
            packets_sent: sent,
            packets_lost: lost,
            version: own_version,
            peer_version: version.clone(),
        };
        return event.write_line(&mut out);
    }
    let probes = count(round_trips.len() as u64, "probe");
    match family {
        "ssh" => writeln!(out, "{peer_id} through {address}")?,
        family => writeln!(out, "{peer_id} at {address} ({family})")?,
    }
    writeln!(out, "round trip: {min:.1?} to {max:.1?}, median {median:.1?}, {probes}")?;
    writeln!(out, "packets: {sent} sent, {lost} lost")?;
    writeln!(out, "shiplane {own_version} here, {version} there")?;
    out.flush()
}

/// Seconds to the microsecond.
fn precise(time: Duration) -> f64 {
    seconds(time * 1000) / 1000.0
}

/// 200 ms: five probes take a second, and each finds the path idle.
const INTERVAL: Duration = Duration::from_millis(200);
