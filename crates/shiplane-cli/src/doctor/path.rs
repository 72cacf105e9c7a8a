//! Checks of the path to a server.

use std::time::Duration;

use indicatif::BinaryBytes;
use shiplane::Connection;

use super::{Finding, Grade};
use crate::failure::Failure;

/// Measures the path for about five seconds. Gives the rates to here and to the server, too.
pub(crate) async fn check_path(connection: &Connection) -> Result<(Vec<Finding>, [u64; 2]), Failure> {
    let (_, version) = connection.ping().await?;
    let mut times = Vec::new();
    for _ in 0..PINGS {
        times.push(connection.ping().await?.0);
    }
    times.sort_unstable();
    let (rtt, jitter) = (times[0], times[times.len() - 1] - times[0]);
    let to_here = connection.measure(false).await?;
    let to_server = connection.measure(true).await?;
    let (sent, lost) = connection.packets();
    let findings = vec![
        versions(env!("CARGO_PKG_VERSION"), &version),
        Finding::new("round_trip", Grade::Fine, format!("round trip: {rtt:.1?}, up to {jitter:.1?} more"))
            .value(rtt.as_secs_f64(), "seconds"),
        packets(u64::from(connection.packet_len_bytes())),
        rate("path_to_here", "to here", to_here),
        rate("path_to_server", "to the server", to_server),
        loss(sent, lost, rtt),
    ];
    Ok((findings, [to_here, to_server]))
}

fn versions(here: &str, there: &str) -> Finding {
    let grade = if here == there { Grade::Fine } else { Grade::Poor };
    Finding::new("versions", grade, format!("shiplane {here} here, {there} there"))
        .hint("use the same version on both sides")
}

fn packets(len_bytes: u64) -> Finding {
    let grade = if len_bytes >= USUAL_PACKET_BYTES { Grade::Fine } else { Grade::Poor };
    Finding::new("path_packets", grade, format!("packets of the path: {len_bytes} bytes"))
        .value(len_bytes as f64, "bytes")
        .hint("a tunnel on the path, or a very new connection, limits them")
}

fn rate(check: &'static str, whither: &str, rate: u64) -> Finding {
    let grade = if rate == 0 { Grade::Bad } else { Grade::Fine };
    let message = match rate {
        0 => format!("path {whither}: less than 128 KiB in 2 seconds"),
        rate => format!("path {whither}: {}/s", BinaryBytes(rate)),
    };
    Finding::new(check, grade, message)
        .value(rate as f64, "bytes_per_second")
        .hint("the path is very slow; check the network, and --rate at the server")
}

/// Of what was sent from here: the other way, only the server knows.
fn loss(sent: u64, lost: u64, rtt: Duration) -> Finding {
    let percent = if sent == 0 { 0.0 } else { 100.0 * lost as f64 / sent as f64 };
    let grade = match percent {
        percent if percent > 10.0 => Grade::Bad,
        percent if percent > 1.0 => Grade::Poor,
        _ => Grade::Fine,
    };
    let where_to_look = match rtt < NEAR {
        true => "look for a small socket buffer at the server, or a busy machine",
        false => "look for a bad link or a policer on the path; a --rate below its limit avoids losses",
    };
    Finding::new("loss", grade, format!("packets lost on the path to the server: {percent:.1} % of {sent}"))
        .value(percent, "percent")
        .hint(where_to_look)
}

const PINGS: usize = 5;

/// 1,372: those of an IPv6 path with a tunnel, and less than Ethernet carries.
const USUAL_PACKET_BYTES: u64 = 1372;

/// 2 ms: the local network.
const NEAR: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_follow_the_numbers() {
        let rtt = Duration::from_millis(20);
        assert_eq!(loss(0, 0, rtt).grade, Grade::Fine);
        assert_eq!(loss(1000, 50, rtt).grade, Grade::Poor);
        assert_eq!(loss(1000, 200, rtt).grade, Grade::Bad);
        assert_eq!((packets(1452).grade, packets(1200).grade), (Grade::Fine, Grade::Poor));
        assert_eq!((rate("r", "x", 1).grade, rate("r", "x", 0).grade), (Grade::Fine, Grade::Bad));
        assert_eq!((versions("1", "1").grade, versions("1", "2").grade), (Grade::Fine, Grade::Poor));
    }
}
