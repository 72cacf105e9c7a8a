//! What a running job reports: one event type for all jobs.

use std::time::Duration;

pub(crate) use crate::action::{Action, Side};
use crate::report::Report;

/// One step of a running job, with the job's progress.
///
/// Given to the callback of [`on_progress`](crate::GetJob::on_progress), often several thousand times a
/// second: draw or log it only as often as a person can read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What has happened.
    pub kind: EventKind,
    /// What the job is doing now.
    pub phase: Phase,
    /// The path that the event is about, if it is about one. Escaped: safe to print.
    pub path: Option<String>,
    /// Files that have been completed.
    pub files_done: u64,
    /// Of the source's bytes, those that are at the receiver, verified and written, the resumed part included.
    /// They survive the death of either program: no later run sends them again.
    pub bytes_done: u64,
    /// Of these, what was at the receiver already and need not be sent.
    pub bytes_resumed: u64,
    /// What has moved, verified or not; the rate is computed from this.
    pub bytes_moved: u64,
    /// The size of the source; `None` until all of it has been listed.
    pub bytes_total: Option<u64>,
    /// The rate of the last few seconds.
    pub bytes_per_second: u64,
    /// What kept the job from being faster in the last second, as measured by both sides: `source disk`, `input` (a pipe, say),
    /// `source hash`, `source CPU`, `window` (of flow control), `path` (the network), `receiver hash`, `receiver disk`, `receiver CPU`,
    /// `rate limit` or `other transfers`. `None` in the first second, and where neither says.
    pub limited_by: Option<&'static str>,
    /// Since the job began.
    pub elapsed: Duration,
}

/// The kinds of events of a running job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// Bytes have moved, or a phase has begun.
    Progress,
    /// A file is complete at its destination: `get` only.
    File {
        /// The size of the file.
        len_bytes: u64,
        /// Whether it came now. If not, it was here already with the same content.
        is_received: bool,
        /// Its SHA-256 in hexadecimal digits, if that was asked for.
        sha256: Option<String>,
    },
    /// The server has this: a job of [`Connection::list`](crate::Connection::list) only.
    Listed {
        /// `file`, `directory` or `link`.
        what: &'static str,
        /// The size of a file; 0 for anything else.
        len_bytes: u64,
        /// The permission bits.
        mode: u32,
        /// When it was modified, in seconds since 1970. The server may say anything.
        modified_secs: i64,
        /// What a link points to. Escaped: safe to print.
        target: Option<String>,
    },
    /// Something was removed because the source does not have it: `get` only. [`Action::change`] is `remove_file` or
    /// `remove_directory`.
    Deleted(Action),
    /// Something is left out: [`Action::change`] says what kind of thing, [`Action::why`] the reason.
    LeftOut(Action),
    /// A [watching](crate::SyncJob::watch) sync has made both sides equal once more. The first such event comes when they
    /// are equal for the first time, the others only if something had changed.
    Synced(Box<Report>),
    /// Not all directories of a side can be watched for changes, so that a watching sync compares both sides now and then.
    NotWatched {
        /// Whose directories.
        side: Side,
        /// Why, and what to do, as text.
        why: String,
        /// How long it waits from one comparison to the next.
        pause: Duration,
    },
    /// The connection is lost. The job dials again after a pause, and goes on where it was.
    ConnectionLost {
        /// Why, as text: of the connection, or of the last attempt to dial.
        why: String,
        /// How long it waits before it dials.
        pause: Duration,
    },
    /// A server that was started by ssh is reached in another way, or in no better one. The job goes on.
    Route {
        /// How it is reached: its address, or `ssh HOST` while packets go through the ssh session.
        route: String,
        /// Why there is no better one. Escaped: safe to print.
        why: Option<String>,
    },
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Waits for the server's list of files.
    Listing,
    /// Looks at what is here already.
    Checking,
    /// Receives.
    Receiving,
    /// Waits for what it is to send, such as the output of another program.
    AwaitingInput,
    /// Makes what was received durable.
    Publishing,
    /// Waits for a server that is busy.
    Waiting,
    /// Waits until the server is ready for a push.
    Offering,
    /// Sends.
    Sending,
    /// Waits for the server's confirmation.
    Settling,
    /// Reads the local directory.
    Scanning,
    /// Waits for the server to compare the two sides.
    Comparing,
    /// Sends and receives.
    Syncing,
    /// Dials again, because the connection was lost.
    Reconnecting,
    /// Waits for changes on either side.
    Watching,
}
