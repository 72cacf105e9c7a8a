//! A multicast DNS daemon that keeps a bounded number of records.
//!
//! mdns-sd keeps whatever it hears until it expires, and the announcer says when. So what it keeps is counted now and
//! then; a daemon with too much of it is ended, and after a pause another one takes its place.

use std::{net::SocketAddr, time::Duration};

use mdns_sd::{IfKind, ServiceDaemon};
use tokio::time::{interval, timeout};

/// Multicast DNS does not work on this machine.
#[derive(Debug, thiserror::Error)]
#[error("multicast DNS does not work on this machine: {0}")]
pub struct NearbyError(#[from] mdns_sd::Error);

/// Starts one for all interfaces but loopback, and for the one family of addresses that `bound` is of, if it is of one.
pub(super) fn start(bound: Option<SocketAddr>) -> Result<ServiceDaemon, NearbyError> {
    let daemon = ServiceDaemon::new()?;
    let mut unwanted = vec![IfKind::LoopbackV4, IfKind::LoopbackV6];
    unwanted.extend(bound.map(|bound| if bound.is_ipv4() { IfKind::IPv6 } else { IfKind::IPv4 }));
    daemon.disable_interface(unwanted)?;
    Ok(daemon)
}

/// Ends the daemon once it keeps too much, and returns then, or once it has ended otherwise.
pub(super) async fn limit(daemon: ServiceDaemon) {
    let mut ticks = interval(CHECK_INTERVAL);
    loop {
        ticks.tick().await;
        let counted = match daemon.get_metrics() {
            Ok(counting) => answer(&counting).await,
            // It has more to do than it can.
            Err(mdns_sd::Error::Again) => continue,
            Err(_) => return,
        };
        let Some(counted) = counted else { continue };
        let kept: i64 = KEPT.iter().filter_map(|name| counted.get(*name)).sum();
        tracing::trace!(kept, "announcements");
        if kept > MAX_KEPT {
            tracing::debug!(kept, "too many announcements");
            end(&daemon).await;
            return;
        }
    }
}

/// Ends it, and waits until it has ended: while packets come faster than it reads them, it does nothing else. Cancel-safe.
pub(super) async fn end(daemon: &ServiceDaemon) {
    let mut ticks = interval(CHECK_INTERVAL);
    loop {
        match daemon.shutdown() {
            Ok(ending) if answer(&ending).await.is_some() => return,
            Ok(_) | Err(mdns_sd::Error::Again) => ticks.tick().await,
            Err(_) => return,
        };
    }
}

/// The daemon's answer. Without one, ask again: a command that it has not read when it ends stays in its queue, and is
/// neither answered nor dropped.
async fn answer<T>(answer: &mdns_sd::Receiver<T>) -> Option<T> {
    timeout(ANSWER_TIMEOUT, answer.recv_async()).await.ok()?.ok()
}

/// The pauses before another daemon: 1 s at first, each twice the one before, up to a minute.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

/// What mdns-sd calls that which it keeps.
const KEPT: [&str; 7] =
    ["cached-ptr", "cached-srv", "cached-addr", "cached-txt", "cached-nsec", "cached-subtype", "timer"];

/// 2,048: some 150 machines, each with four records and the timers of these. One record has at most 9 KB, and mdns-sd looks
/// at all of them for each packet.
const MAX_KEPT: i64 = 2048;

/// 100 ms, in which a network of 100 Mbit/s carries 1 MB.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// 1 s: one that is not flooded answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

const FIRST_PAUSE: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let mut pauses = Pauses::default();
        let first: Vec<u64> = (0..8).map(|_| pauses.next().as_secs()).collect();
        assert_eq!(first, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[tokio::test]
    async fn a_command_behind_the_one_that_ends_it_is_not_waited_for() {
        let daemon = start(None).unwrap();
        let _queued: Vec<_> = (0..8).map(|_| daemon.shutdown()).collect();
        end(&daemon).await;
        limit(daemon).await;
    }

    #[tokio::test]
    async fn the_counted_records_are_those_that_the_daemon_counts() {
        let daemon = start(None).unwrap();
        let counted = daemon.get_metrics().unwrap().recv_async().await.unwrap();
        for name in KEPT {
            assert!(counted.contains_key(name), "{name} is not among {counted:?}");
        }
        end(&daemon).await;
    }
}
