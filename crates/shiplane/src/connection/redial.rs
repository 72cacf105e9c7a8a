//! Keeps a job going over lost connections.

use std::{convert::Infallible, pin::pin, time::Duration};

use shiplane_protocols::internals::ping;
use tokio::time::{Instant, sleep, timeout};

use super::Connection;
use crate::{
    client::Client,
    error::{Cause, Error, ErrorKind, SshFailure},
    event::{Event, Phase},
    target::Target,
    tracker::{ProgressState, Tracker},
};

/// The connection that a job uses at present, and how long the job tries to get another.
pub(super) struct Redial {
    connection: Connection,
    give_up_after: Duration,
    /// Since when nothing has moved, and what had moved by then.
    still: Option<(Instant, u64)>,
    pause: Duration,
}

impl Redial {
    pub(super) fn new(connection: &Connection, give_up_after: Duration) -> Self {
        Self { connection: connection.clone(), give_up_after, still: None, pause: FIRST_PAUSE }
    }

    /// The connection for the next attempt.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs an attempt, and gives it up as soon as there is a better route for the next one. Over ssh, says so if there
    /// is none.
    pub(super) async fn attempt<T>(
        &self,
        attempt: impl Future<Output = Result<T, Error>>,
        tracker: &Tracker,
    ) -> Result<T, Error> {
        let mut attempt = pin!(attempt);
        let Some(session) = self.connection.carrying_session() else { return attempt.await };
        let staying = async {
            let why = session.stays().await;
            tracker.route(session.route(), Some(why));
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            ended = &mut attempt => ended,
            () = session.moved() => Err(Cause::from(SshFailure::Moved).into()),
            never = staying => match never {},
        }
    }

    /// Goes on over the better route. What the attempt has left is settled first.
    async fn move_on(&mut self, tracker: &Tracker) -> Result<(), Error> {
        // A reset reaches the server before a call, and the answer shows that it has.
        let _ = timeout(SETTLE_TIMEOUT, ping(self.connection.rpc())).await;
        self.connection = self.connection.redial().await?;
        tracker.route(self.connection.route(), None);
        Ok(())
    }

    /// All is well: whatever fails later is another failure.
    pub(super) fn succeeded(&mut self) {
        self.still = None;
    }

    /// Connects again after an attempt that has failed.
    ///
    /// # Errors
    /// The failure itself, unless it is the loss of the connection; why the server is not reached again.
    pub(super) async fn after(&mut self, failed: Error, tracker: &Tracker) -> Result<(), Error> {
        if matches!(failed.cause(), Cause::Ssh(SshFailure::Moved)) {
            return self.move_on(tracker).await;
        }
        if self.give_up_after.is_zero() || !self.connection.is_lost_by(&failed).await {
            return Err(self.connection.explained(failed));
        }
        let moved_bytes = tracker.read(|progress| progress.moved_bytes);
        let since = match self.still {
            Some((since, before)) if before == moved_bytes => since,
            _ => {
                self.pause = FIRST_PAUSE;
                Instant::now()
            }
        };
        self.still = Some((since, moved_bytes));
        let why = self.connection.explained(failed);
        let lost = self.connection.clone();
        let (tried, pause) = (self.give_up_after, &mut self.pause);
        self.connection = dial_again(why, since, tried, pause, tracker, || lost.redial()).await?;
        Ok(())
    }
}

/// Dials after growing pauses, until the server answers or time is up.
async fn dial_again<F>(
    mut why: Error,
    since: Instant,
    give_up_after: Duration,
    next_pause: &mut Duration,
    tracker: &Tracker,
    dial: impl Fn() -> F,
) -> Result<Connection, Error>
where
    F: Future<Output = Result<Connection, Error>>,
{
    loop {
        let left = give_up_after.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Err(Cause::NotConnectedAgain { tried: give_up_after, source: Box::new(why) }.into());
        }
        let pause = (*next_pause).min(left);
        tracing::info!(%why, ?pause, "there is no connection; dialling again");
        tracker.connection_lost(why.to_string(), pause);
        sleep(pause).await;
        *next_pause = (*next_pause * 2).min(LONGEST_PAUSE);
        let left = give_up_after.saturating_sub(since.elapsed()).max(SHORTEST_DIAL);
        match timeout(left, dial()).await {
            Ok(Err(error)) if is_worth_another_dial(&error) => why = error,
            Ok(ended) => return ended,
            Err(_) => {}
        }
    }
}

impl Client {
    /// Like [`connect`](Self::connect), but waits for an absent server, like a job that has lost its connection: it dials
    /// after growing pauses, and `on_event` gets each, as [`ConnectionLost`](crate::EventKind::ConnectionLost). With a
    /// `give_up_after` of zero it tries once, with `Duration::MAX` without end.
    ///
    /// Cancel-safe: dropping the future ends the attempts.
    ///
    /// # Errors
    /// As `connect`.
    pub async fn connect_within<T>(
        &self,
        target: T,
        give_up_after: Duration,
        on_event: impl FnMut(&Event) + Send + 'static,
    ) -> Result<Connection, Error>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let (target, since) = (target.try_into()?, Instant::now());
        match self.connect::<Target>(target.clone()).await {
            Err(why) if !give_up_after.is_zero() && is_worth_another_dial(&why) => {
                let state = ProgressState::new(Phase::Reconnecting, 0, None);
                let tracker = Tracker::new(state, Vec::new(), Some(Box::new(on_event)));
                let mut pause = FIRST_PAUSE;
                dial_again(why, since, give_up_after, &mut pause, &tracker, || {
                    self.connect::<Target>(target.clone())
                })
                .await
            }
            connected => connected,
        }
    }
}

impl Connection {
    /// Whether a job failed because the connection was lost, and not because either side ended it for good.
    async fn is_lost_by(&self, failed: &Error) -> bool {
        if self.inner.ssh.as_ref().is_some_and(|session| session.lost(&self.inner.peer).is_some()) {
            return true;
        }
        if !matches!(failed.kind(), ErrorKind::Unreachable | ErrorKind::Other) {
            return false;
        }
        // A server that shuts down resets the streams first.
        let end = timeout(CLOSE_GRACE, self.inner.peer.closed()).await;
        end.is_ok_and(|end| end.is_retryable())
    }
}

/// Whether the server may be reached later.
fn is_worth_another_dial(error: &Error) -> bool {
    match error.cause() {
        Cause::Dial(error) => error.may_pass,
        Cause::Connect(error) => error.is_retryable(),
        Cause::Resolve { .. } | Cause::ResolveSilent { .. } => true,
        Cause::Ssh(error) => error.may_pass(),
        _ => false,
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// 5 s: short compared with an outage, and no load for a server to which many clients return.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// 1 s: some round trips. However short the time that is left, one dial is tried.
const SHORTEST_DIAL: Duration = Duration::from_secs(1);

/// 2 s: a round trip of any path that a session survives, with what waits in its buffers.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// 300 ms: a round trip of most paths.
const CLOSE_GRACE: Duration = Duration::from_millis(300);
