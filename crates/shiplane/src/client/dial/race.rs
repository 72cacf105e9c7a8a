//! Dials several addresses, each a little later than the one before, and takes the first that answers (RFC 8305).

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use shiplane_transport::ConnectError;
use tokio::time::{Instant, sleep_until};

use crate::error::{Cause, DialError};

/// Dials what `found` resolves to, until a dial succeeds; dropping the other ones cancels them. Families take turns; an
/// address that `is_connected` comes first. The next dial begins when the last one has failed, or after [`STAGGER`].
pub(super) async fn first_to_answer<T, R, D>(
    found: impl Iterator<Item = R>,
    is_connected: impl Fn(SocketAddr) -> bool,
    dial: impl Fn(SocketAddr) -> D,
) -> Result<T, Cause>
where
    R: Future<Output = Result<Vec<SocketAddr>, Cause>>,
    D: Future<Output = Result<T, ConnectError>>,
{
    let mut resolving: FuturesUnordered<R> = found.collect();
    let mut waiting: VecDeque<SocketAddr> = VecDeque::new();
    let mut dialled: Vec<SocketAddr> = Vec::new();
    let mut dialling = FuturesUnordered::new();
    let (mut failed, mut unresolved) = (None::<DialError>, None);
    let mut next_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            Some(answer) = dialling.next() => match answer {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    failed = Some(DialError::more_telling(failed, error));
                    next_at = Instant::now();
                }
            },
            Some(found) = resolving.next() => match found {
                Ok(found) => {
                    waiting.extend(found);
                    let is_new = |addr: &SocketAddr| !dialled.contains(addr);
                    waiting = in_turns(waiting.into_iter().filter(is_new), &is_connected);
                    waiting.truncate(MAX_DIALS.saturating_sub(dialled.len()));
                }
                Err(cause) => unresolved = Some(cause),
            },
            () = sleep_until(next_at), if !waiting.is_empty() => {
                let Some(addr) = waiting.pop_front() else { continue };
                dialled.push(addr);
                dialling.push(dial(addr));
                next_at = Instant::now() + STAGGER;
            }
            else => break,
        }
    }
    match (failed, unresolved) {
        (Some(failed), _) => Err(Cause::Dial(failed.among(dialled.len()))),
        (None, Some(unresolved)) => Err(unresolved),
        (None, None) => Err(Cause::Abandoned),
    }
}

/// Each once; connected ones first, then the families in turns, beginning with that of the first.
fn in_turns(
    addresses: impl Iterator<Item = SocketAddr>,
    is_connected: impl Fn(SocketAddr) -> bool,
) -> VecDeque<SocketAddr> {
    let mut each: Vec<SocketAddr> = Vec::new();
    addresses.for_each(|addr| {
        if !each.contains(&addr) {
            each.push(addr);
        }
    });
    let (connected, others): (Vec<_>, Vec<_>) = each.into_iter().partition(|addr| is_connected(*addr));
    let is_first = |addr: &SocketAddr| others.first().is_some_and(|first| first.is_ipv4() == addr.is_ipv4());
    let (first, second): (Vec<_>, Vec<_>) = others.iter().partition(|addr| is_first(addr));
    let mut turns = VecDeque::from(connected);
    for turn in 0..first.len().max(second.len()) {
        turns.extend(first.get(turn));
        turns.extend(second.get(turn));
    }
    turns
}

/// 250 ms, as RFC 8305 recommends.
const STAGGER: Duration = Duration::from_millis(250);

/// 16: the last one begins within four seconds. A ticket has at most eight hosts, and few have more than two addresses.
const MAX_DIALS: usize = 16;

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::{Arc, Mutex},
    };

    use futures::future::{BoxFuture, FutureExt};
    use tokio::time::timeout;

    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| addr(text)).collect()
    }

    /// A network that does what a test says, and writes down what is done with it.
    #[derive(Clone, Default)]
    struct Network {
        log: Arc<Mutex<Vec<String>>>,
    }

    struct Dialled {
        network: Network,
        addr: SocketAddr,
    }

    impl Drop for Dialled {
        fn drop(&mut self) {
            self.network.note(format!("ended {}", self.addr));
        }
    }

    impl Network {
        fn note(&self, line: String) {
            self.log.lock().unwrap().push(line);
        }

        fn dial<'a>(
            &self,
            addr: SocketAddr,
            answer: BoxFuture<'a, Result<SocketAddr, ConnectError>>,
        ) -> BoxFuture<'a, Result<SocketAddr, ConnectError>> {
            self.note(format!("began {addr}"));
            let dialled = Dialled { network: self.clone(), addr };
            async move {
                let _dialled = dialled;
                answer.await
            }
            .boxed()
        }

        fn log(&self) -> Vec<String> {
            self.log.lock().unwrap().clone()
        }
    }

    fn silent(addr: SocketAddr) -> ConnectError {
        ConnectError::TimedOut { addr, timeout: Duration::from_secs(5) }
    }

    fn all_of(texts: &[&str]) -> std::iter::Once<std::future::Ready<Result<Vec<SocketAddr>, Cause>>> {
        std::iter::once(ready(Ok(addrs(texts))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_address_first_delays_the_next_by_no_more_than_the_staggering() {
        let (network, began) = (Network::default(), Instant::now());
        let dial = |addr: SocketAddr| {
            let answer = if addr.is_ipv4() { pending().boxed() } else { ready(Ok(addr)).boxed() };
            network.dial(addr, answer)
        };
        let won = first_to_answer(all_of(&["192.0.2.1:1", "[::1]:1", "192.0.2.2:1"]), |_| false, dial).await;
        assert_eq!(won.unwrap(), addr("[::1]:1"));
        let log = ["began 192.0.2.1:1", "began [::1]:1", "ended [::1]:1", "ended 192.0.2.1:1"];
        assert_eq!(network.log(), log, "the loser is cancelled, the third never dialled");
        assert_eq!(began.elapsed(), STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_gives_way_at_once() {
        let (network, began) = (Network::default(), Instant::now());
        let dial = |addr: SocketAddr| {
            let answer = if addr.is_ipv4() { Err(ConnectError::Refused { addr }) } else { Ok(addr) };
            network.dial(addr, ready(answer).boxed())
        };
        let won = first_to_answer(all_of(&["192.0.2.1:1", "[::1]:1"]), |_| false, dial).await;
        assert_eq!((won.unwrap(), began.elapsed()), (addr("[::1]:1"), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_answers_wins_even_if_it_began_earlier() {
        let network = Network::default();
        let dial = |addr: SocketAddr| {
            let answer = async move {
                let time = if addr.port() == 1 { STAGGER * 3 / 2 } else { STAGGER };
                timeout(time, pending()).await.unwrap_or(Ok(addr))
            };
            network.dial(addr, answer.boxed())
        };
        let won = first_to_answer(all_of(&["192.0.2.1:1", "192.0.2.1:2"]), |_| false, dial).await;
        assert_eq!(won.unwrap().port(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_slow_to_resolve_holds_up_no_address() {
        let (network, began) = (Network::default(), Instant::now());
        let found = [
            pending().boxed(),
            ready(Err(Cause::Abandoned)).boxed(),
            ready(Ok(addrs(&["192.0.2.1:1"]))).boxed(),
        ];
        let dial = |addr| network.dial(addr, ready(Ok(addr)).boxed());
        let won = first_to_answer(found.into_iter(), |_| false, dial).await;
        assert_eq!((won.unwrap(), began.elapsed()), (addr("192.0.2.1:1"), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_most_telling_failure_is_reported_and_whether_any_may_pass() {
        let network = Network::default();
        let dial = |addr: SocketAddr| {
            let error =
                if addr.is_ipv4() { ConnectError::WrongKey { addr, expected: None } } else { silent(addr) };
            network.dial(addr, ready(Err(error)).boxed())
        };
        let lost = first_to_answer(all_of(&["[::1]:1", "192.0.2.1:1", "[::2]:1"]), |_| false, dial).await;
        let Err(Cause::Dial(error)) = lost else { panic!("{lost:?}") };
        assert!(matches!(error.worst, ConnectError::WrongKey { .. }) && error.may_pass, "{error:?}");
        assert!(error.to_string().ends_with("no other of 3 addresses can be reached)"), "{error}");
        let lost = first_to_answer(all_of(&["192.0.2.1:1"]), |_| false, dial).await;
        let Err(Cause::Dial(error)) = lost else { panic!("{lost:?}") };
        assert!(!error.may_pass && !error.to_string().contains("addresses"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn dials_are_bounded_however_many_addresses_there_are() {
        let network = Network::default();
        let many: Vec<SocketAddr> = (1..100).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        let dial = |addr| network.dial(addr, ready(Err(silent(addr))).boxed());
        let found = many.chunks(8).map(|some| ready(Ok(some.to_vec())));
        assert!(first_to_answer(found, |_| false, dial).await.is_err());
        assert_eq!(network.log().len(), 2 * MAX_DIALS);
    }

    #[test]
    fn families_take_turns_and_a_connected_address_comes_first() {
        let all = addrs(&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.2:1", "[::1]:1", "[::2]:1", "192.0.2.3:1"]);
        let turns = in_turns(all.iter().copied(), |_| false);
        let order = ["192.0.2.1:1", "[::1]:1", "192.0.2.2:1", "[::2]:1", "192.0.2.3:1"];
        assert_eq!(Vec::from(turns), addrs(&order));
        let turns = in_turns(all.into_iter(), |addr| addr == "[::2]:1".parse().unwrap());
        assert_eq!(turns.front(), Some(&addr("[::2]:1")));
    }
}
