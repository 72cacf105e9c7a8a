//! Settings shared by all jobs.

use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

use futures::future::{self, BoxFuture, FutureExt};
use shiplane_files::internals::{Existing, Filters, LinkPolicy, Suffix};
use shiplane_protocols::{Compression, internals::transfer::TransferOptions};
use shiplane_transport::{RateLimit, RateLimiter, internals::blocking};
use shiplane_wire::{DigestAlgorithm, limits::MAX_PAYLOAD_CHUNK_LEN_BYTES};

use crate::{
    error::{Cause, ChoiceError},
    filters::FilterSettings,
    left_out::{LINKS, skippable},
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
    pub(crate) filters: FilterSettings,
    /// Only symbolic links that stay inside the tree are carried.
    pub(crate) inside_links_only: bool,
    /// Owners, access lists and extended attributes are carried.
    pub(crate) attributes: bool,
    pub(crate) on_progress: Option<ProgressFn>,
    pub(crate) cancelled: BoxFuture<'static, ()>,
}

impl Settings {
    /// What cancels the job.
    pub(crate) fn take_cancelled(&mut self) -> BoxFuture<'static, ()> {
        std::mem::replace(&mut self.cancelled, future::pending().boxed())
    }

    /// What takes part, once the files that say so have been read.
    pub(crate) async fn filters(&mut self) -> Result<Arc<Filters>, Cause> {
        let filters = std::mem::take(&mut self.filters);
        Ok(blocking::spawn(move || filters.settle()).await.map_err(|_| Cause::Abandoned)??)
    }

    /// Watches the job from now on.
    pub(crate) fn tracker(&mut self, progress: ProgressState) -> Result<Arc<Tracker>, Cause> {
        let known = |name: &String| skippable(name).ok_or_else(|| Cause::UnknownKind { name: name.clone() });
        let skipped = self.skip.iter().map(known).collect::<Result<_, _>>()?;
        Ok(Tracker::new(progress, skipped, self.on_progress.take()))
    }

    /// Which symbolic links are carried.
    pub(crate) fn links(&self) -> LinkPolicy {
        match self.inside_links_only {
            _ if self.skip.iter().any(|kind| kind == LINKS) => LinkPolicy::Skip,
            true => LinkPolicy::Inside,
            false => LinkPolicy::All,
        }
    }

    /// As the engine takes them.
    pub(crate) fn options(&self) -> TransferOptions {
        TransferOptions {
            lanes: self.concurrency,
            chunk_len_bytes: self.chunk_len_bytes,
            rate: limiter(self.rate),
            compression: self.compression,
            digest: self.digest,
            links: self.links(),
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
            filters: FilterSettings::default(),
            inside_links_only: false,
            attributes: false,
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
            .field("filters", &self.filters)
            .field("inside_links_only", &self.inside_links_only)
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

/// What a job does with files that exist with other content.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExistingFiles {
    pub(crate) overwrite: bool,
    pub(crate) keep: bool,
    pub(crate) backup: Option<String>,
    pub(crate) delete: bool,
    pub(crate) allows_mass_deletion: bool,
}

impl ExistingFiles {
    /// Whether files that are not at the source are removed; then, whether most of the files may be.
    pub(crate) fn deletion(&self) -> Option<bool> {
        self.delete.then_some(self.allows_mass_deletion)
    }

    pub(crate) fn settle(&self) -> Result<Existing, ChoiceError> {
        Ok(match (self.keep, &self.backup) {
            (true, None) if !self.overwrite => Existing::Keep,
            (true, _) => return Err(ChoiceError::KeepOrReplace),
            (false, Some(suffix)) => Existing::BackUp(Suffix::new(suffix.as_bytes())?),
            (false, None) if self.overwrite => Existing::Replace,
            (false, None) => Existing::Refuse,
        })
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
        /// The maximum number of chunks in flight, from 1 to 32. The default is 32.
        pub fn concurrency(mut self, chunks: u16) -> Self {
            self.settings.concurrency = usize::from(chunks).clamp(1, $crate::settings::MAX_CONCURRENCY);
            self
        }

        /// The maximum size of a chunk, which is verified and kept as a whole, from 64 KiB to 16 MiB. The default is 4 MiB; on
        /// a slow path chunks are smaller by themselves.
        pub fn chunk_len_bytes(mut self, len: u64) -> Self {
            let range = $crate::settings::CHUNK_LEN_BYTES;
            self.settings.chunk_len_bytes = len.clamp(*range.start(), *range.end());
            self
        }

        /// Limits the rate in each direction, in bytes a second. A limit below 1,000 counts as 1,000.
        pub fn rate(mut self, bytes_per_second: u64) -> Self {
            self.settings.rate = Some(bytes_per_second);
            self
        }

        /// Whether data is compressed in transit. By default it is not.
        pub fn compression(mut self, compression: $crate::Compression) -> Self {
            self.settings.compression = compression;
            self
        }

        /// The digest that verifies data in transit, if the server offers it too. The default is BLAKE3.
        pub fn digest(mut self, digest: $crate::DigestAlgorithm) -> Self {
            self.settings.digest = digest;
            self
        }

        /// Kinds of paths to skip: `links`, `special`, `names`, `unreadable`, `changed` or `attributes`, as in
        /// [`Action::change`](crate::Action::change). By default none. Whatever else does not arrive is reported, and the
        /// job ends with [`ErrorKind::LeftOut`](crate::ErrorKind::LeftOut).
        pub fn skip<K: Into<String>>(mut self, kinds: impl IntoIterator<Item = K>) -> Self {
            self.settings.skip = kinds.into_iter().map(Into::into).collect();
            self
        }

        /// How long a job that has lost its connection tries to connect again, with growing pauses. It then continues where it
        /// was. The default is two minutes; `Duration::ZERO` is not at all, and `Duration::MAX` without end. The time
        /// begins anew with everything that arrives.
        pub fn give_up_after(mut self, time: std::time::Duration) -> Self {
            self.settings.give_up_after = time;
            self
        }

        /// Excludes what this pattern matches, written as in a `.gitignore` at the top of the tree. An excluded directory
        /// is excluded with everything in it. Of all patterns, in the order in which they are given, the last that
        /// matches decides. A file that is copied by its own path is never excluded. What a sync excludes is neither sent
        /// nor deleted, on either side.
        pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
            self.settings.filters.patterns.push($crate::filters::Pattern::Exclude(pattern.into()));
            self
        }

        /// Includes what this pattern matches, though an earlier pattern or an ignore file excludes it. The directories
        /// above it must be included too.
        pub fn include(mut self, pattern: impl Into<String>) -> Self {
            self.settings.filters.patterns.push($crate::filters::Pattern::Include(pattern.into()));
            self
        }

        /// Reads patterns from a local file, written as a `.gitignore`, where `!` includes.
        pub fn exclude_from(mut self, file: impl Into<std::path::PathBuf>) -> Self {
            self.settings.filters.patterns.push($crate::filters::Pattern::File(file.into()));
            self
        }

        /// Copies only these paths, relative to the source, and what is in them. One that does not exist is left out.
        pub fn only<P: Into<Vec<u8>>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
            self.settings.filters.listed = Some(paths.into_iter().map(Into::into).collect());
            self
        }

        /// Whether the files `.gitignore` and `.shiplaneignore` of the tree itself exclude paths, where no pattern
        /// decides. By default they are files like any other.
        pub fn ignore_files(mut self, ignore_files: bool) -> Self {
            self.settings.filters.ignore_files = ignore_files;
            self
        }

        /// Whether directories on other file systems than the top of the tree are excluded.
        pub fn one_file_system(mut self, one_file_system: bool) -> Self {
            self.settings.filters.one_file_system = one_file_system;
            self
        }

        /// Whether to carry only symbolic links that stay inside the tree; the others are left out. By
        /// default all are carried, as they are. With [`skip`](Self::skip) of `links`, none is.
        ///
        /// A server that is written to has a rule of its own: [`ServerBuilder::all_links`](crate::ServerBuilder::all_links).
        pub fn inside_links_only(mut self, is_inside_only: bool) -> Self {
            self.settings.inside_links_only = is_inside_only;
            self
        }

        /// Whether to carry owners, POSIX access lists and extended attributes too, in place of the present ones. By
        /// default they are left as they are.
        ///
        /// Owners go by name, by number where there is no such name, and need the superuser, but for groups that one is
        /// in. What could not be set is left out, once of each kind. Of extended attributes `user.*` is carried, and
        /// `trusted.*` between superusers; never one that would raise a privilege, such as a capability. A server that is
        /// written to takes none unless it is [told to](crate::ServerBuilder::attributes), and refuses the job.
        pub fn attributes(mut self, are_carried: bool) -> Self {
            self.settings.attributes = are_carried;
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

/// The setters of jobs that write on one side. Their field `existing` is [`ExistingFiles`].
macro_rules! existing_setters {
    () => {
        /// Whether files that exist with other content are replaced. By default the job fails.
        pub fn overwrite(mut self, overwrite: bool) -> Self {
            self.existing.overwrite = overwrite;
            self
        }

        /// Whether files that exist with other content, or at another time, stay as they are, and everything else is
        /// copied. [`Report::kept`](crate::Report::kept) counts them.
        pub fn keep_existing(mut self, keep: bool) -> Self {
            self.existing.keep = keep;
            self
        }

        /// Replaces files that exist with other content, and keeps each under its name with `suffix` at its end, and a
        /// number if something else has that name.
        pub fn backup(mut self, suffix: impl Into<String>) -> Self {
            self.existing.backup = Some(suffix.into());
            self
        }

        /// Whether files and directories that are not at the source are removed from the destination directory, once
        /// everything else is there. What filters exclude stays, and nothing is removed if anything is left out.
        /// [`Report::deleted`](crate::Report::deleted) counts the files.
        pub fn delete(mut self, delete: bool) -> Self {
            self.existing.delete = delete;
            self
        }

        /// Whether more than half of the destination's files, or more than a thousand, may be removed. By default the
        /// job fails then, and removes nothing.
        pub fn allow_mass_deletion(mut self, allows: bool) -> Self {
            self.existing.allows_mass_deletion = allows;
            self
        }
    };
}

pub(crate) use common_setters;
pub(crate) use existing_setters;

/// 2 minutes: a restart, a lift, a change of network.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// 32: what any path needs, and all that one window for streams fits.
pub(crate) const MAX_CONCURRENCY: usize = 32;

/// 64 KiB: below it every chunk is mostly its own overhead of a stream and a round trip.
pub(crate) const CHUNK_LEN_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=MAX_PAYLOAD_CHUNK_LEN_BYTES;

/// 1 KB: below it, what is shared by 32 chunks could be too little for each to be alive.
const MIN_RATE_BYTES_PER_SECOND: u64 = 1000;
