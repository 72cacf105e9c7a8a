//! Settings shared by all jobs.

use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

use futures::future::{self, BoxFuture, FutureExt};
use shiplane_protocols::{Compression, internals::transfer::TransferOptions};
use shiplane_transport::{RateLimit, RateLimiter};
use shiplane_wire::{DigestAlgorithm, limits::MAX_PAYLOAD_CHUNK_LEN_BYTES};

use crate::{
    error::Cause,
    left_out::skippable,
    tracker::{ProgressFn, ProgressState, Tracker},
};

/// How a job moves data, who watches it, and what cancels it.
pub(crate) struct Settings {
    pub(crate) concurrency: usize,
    pub(crate) chunk_len_bytes: u64,
    pub(crate) rate: Option<u64>,
    pub(crate) compression: Compression,
    pub(crate) digest: DigestAlgorithm,
    /// Names of kinds that are not wanted.
    pub(crate) skip: Vec<String>,
    pub(crate) give_up_after: Duration,
    pub(crate) on_progress: Option<ProgressFn>,
    pub(crate) cancelled: BoxFuture<'static, ()>,
}

impl Settings {
    /// What cancels the job.
    pub(crate) fn take_cancelled(&mut self) -> BoxFuture<'static, ()> {
        std::mem::replace(&mut self.cancelled, future::pending().boxed())
    }

    /// Watches the job from now on.
    pub(crate) fn tracker(&mut self, progress: ProgressState) -> Result<Arc<Tracker>, Cause> {
        let known = |name: &String| skippable(name).ok_or_else(|| Cause::UnknownKind { name: name.clone() });
        let skipped = self.skip.iter().map(known).collect::<Result<_, _>>()?;
        Ok(Tracker::new(progress, skipped, self.on_progress.take()))
    }

    /// As the engine takes them.
    pub(crate) fn options(&self) -> TransferOptions {
        TransferOptions {
            lanes: self.concurrency,
            chunk_len_bytes: self.chunk_len_bytes,
            rate: limiter(self.rate),
            compression: self.compression,
            digest: self.digest,
            ..TransferOptions::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let TransferOptions { lanes, chunk_len_bytes, compression, digest, .. } = TransferOptions::default();
        Self {
            concurrency: lanes,
            chunk_len_bytes,
            rate: None,
            compression,
            digest,
            skip: Vec::new(),
            give_up_after: GIVE_UP_AFTER,
            on_progress: None,
            cancelled: future::pending().boxed(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("concurrency", &self.concurrency)
            .field("chunk_len_bytes", &self.chunk_len_bytes)
            .field("rate", &self.rate)
            .field("compression", &self.compression)
            .field("digest", &self.digest)
            .field("skip", &self.skip)
            .field("give_up_after", &self.give_up_after)
            .finish_non_exhaustive()
    }
}

/// One limit for all that is given a clone.
pub(crate) fn limiter(bytes_per_second: Option<u64>) -> Option<RateLimiter> {
    let rate = NonZeroU64::new(bytes_per_second?.max(MIN_RATE_BYTES_PER_SECOND))?;
    Some(RateLimiter::new(RateLimit::per_second(rate)))
}

/// The setters that each job has. Its field `settings` is a [`Settings`].
macro_rules! common_setters {
    () => {
        /// The most chunks under way at a time, from 1 to 32. The default is 32.
        pub fn concurrency(mut self, chunks: u16) -> Self {
            self.settings.concurrency = usize::from(chunks).clamp(1, $crate::settings::MAX_CONCURRENCY);
            self
        }

        /// The most bytes that are verified and kept as one chunk, from 64 KiB to 16 MiB. The default is 4 MiB; on
        /// a slow path chunks are smaller by themselves.
        pub fn chunk_len_bytes(mut self, len: u64) -> Self {
            let range = $crate::settings::CHUNK_LEN_BYTES;
            self.settings.chunk_len_bytes = len.clamp(*range.start(), *range.end());
            self
        }

        /// Limits the rate in each direction, in bytes a second. A limit below 1,000 counts as that.
        pub fn rate(mut self, bytes_per_second: u64) -> Self {
            self.settings.rate = Some(bytes_per_second);
            self
        }

        /// Whether data is compressed on its way. By default it is not.
        pub fn compression(mut self, compression: $crate::Compression) -> Self {
            self.settings.compression = compression;
            self
        }

        /// What data is verified with on its way, if the server offers it too. The default is BLAKE3.
        pub fn digest(mut self, digest: $crate::DigestAlgorithm) -> Self {
            self.settings.digest = digest;
            self
        }

        /// Kinds of paths that are not wanted: `links`, `special`, `names`, `unreadable` or `changed`, as in
        /// [`Action::change`](crate::Action::change). By default none. Whatever else does not arrive is reported, and the
        /// job ends with [`ErrorKind::LeftOut`](crate::ErrorKind::LeftOut).
        pub fn skip<K: Into<String>>(mut self, kinds: impl IntoIterator<Item = K>) -> Self {
            self.settings.skip = kinds.into_iter().map(Into::into).collect();
            self
        }

        /// How long a job whose connection was lost tries to connect again, with growing pauses. It then goes on where it
        /// was. The default is two minutes; `Duration::ZERO` is not at all, and `Duration::MAX` without end. The time
        /// begins anew with everything that arrives.
        pub fn give_up_after(mut self, time: std::time::Duration) -> Self {
            self.settings.give_up_after = time;
            self
        }

        /// Calls `callback` with every event. It is called often, on threads of the transfer: it must be quick and
        /// must not wait for the job.
        pub fn on_progress(mut self, callback: impl FnMut(&$crate::Event) + Send + 'static) -> Self {
            self.settings.on_progress = Some(Box::new(callback));
            self
        }

        /// Cancels the job when `signal` is ready. The job then ends with
        /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted), and only after the server has noticed, so that
        /// the same job can be continued at once.
        pub fn cancel_on(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
            self.settings.cancelled = Box::pin(signal);
            self
        }
    };
}

pub(crate) use common_setters;

/// 2 minutes: a restart, a lift, a change of network.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// 32: what any path needs, and all that one window for streams fits.
pub(crate) const MAX_CONCURRENCY: usize = 32;

/// 64 KiB: below it every chunk is mostly its own overhead of a stream and a round trip.
pub(crate) const CHUNK_LEN_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=MAX_PAYLOAD_CHUNK_LEN_BYTES;

/// 1 KB: below it, what is shared by 32 chunks could be too little for each to be alive.
const MIN_RATE_BYTES_PER_SECOND: u64 = 1000;
