//! Keeps a job going over lost connections.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Connection;
use crate::{
    error::{Cause, Error, ErrorKind},
    tracker::Tracker,
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

    /// Connects again after an attempt that has failed.
    ///
    /// # Errors
    /// The failure itself, unless it is the loss of the connection; why the server is not reached again.
    pub(super) async fn after(&mut self, failed: Error, tracker: &Tracker) -> Result<(), Error> {
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
        let mut why = self.connection.explained(failed);
        loop {
            let left = self.give_up_after.saturating_sub(since.elapsed());
            if left.is_zero() {
                let tried = self.give_up_after;
                return Err(Cause::NotConnectedAgain { tried, source: Box::new(why) }.into());
            }
            let pause = self.pause.min(left);
            tracing::info!(%why, ?pause, "the connection is lost; dialling again");
            tracker.connection_lost(why.to_string(), pause);
            sleep(pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            let left = self.give_up_after.saturating_sub(since.elapsed()).max(SHORTEST_DIAL);
            match timeout(left, self.connection.redial()).await {
                Ok(Ok(connection)) => {
                    self.connection = connection;
                    return Ok(());
                }
                Ok(Err(error)) if is_worth_another_dial(&error) => why = error,
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
    }
}

impl Connection {
    /// Whether a job failed because the connection was lost, and not because either side ended it for good.
    async fn is_lost_by(&self, failed: &Error) -> bool {
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
        _ => false,
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// 5 s: little beside what a person waits for a network, and no load for a server that comes back to many.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// 1 s: some round trips. However short the time that is left, one dial is tried.
const SHORTEST_DIAL: Duration = Duration::from_secs(1);

/// 300 ms: a round trip of most paths.
const CLOSE_GRACE: Duration = Duration::from_millis(300);
