//! Waits until a deadline, at no cost if nothing has to be awaited.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::time::{Instant, timeout_at};

/// What `work` gives, or `None` if it is not done by the deadline. It is looked at once before that: what is
/// ready at once, as nearly always, sees neither clock nor timer, and then the deadline is not computed.
///
/// As cancel-safe as `work`, which is dropped when the deadline has passed.
pub async fn until<F: Future>(deadline: impl FnOnce() -> Instant, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        return Some(output);
    }
    timeout_at(deadline(), work).await.ok()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_has_to_wait_asks_for_the_deadline() {
        assert_eq!(until(|| panic!("there is nothing to wait for"), ready(7)).await, Some(7));
        let began = Instant::now();
        let in_a_minute = || began + Duration::from_secs(60);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let told = tokio::join!(until(in_a_minute, receiver), async { sender.send(8) });
        assert_eq!(told, (Some(Ok(8)), Ok(())));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(until(in_a_minute, pending::<()>()).await, None);
        assert!(began.elapsed() >= Duration::from_secs(60));
    }
}
