//! The result of a job: one report type for all jobs.

use std::{path::PathBuf, time::Duration};

use shiplane_protocols::internals::transfer::FilesReport;
use shiplane_wire::{DigestAlgorithm, Durability};

use crate::action::Action;

/// The result of a job. Everything in it is verified, and durable if that was requested.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Files that are at the destination now; after a sync, on both sides.
    pub files: u64,
    /// The sum of the sizes of the source's files; 0 for a sync.
    pub bytes_total: u64,
    /// Payload bytes that were sent to the peer.
    pub bytes_sent: u64,
    /// Payload bytes that were received from the peer.
    pub bytes_received: u64,
    /// Both as they were sent: fewer if they were compressed.
    pub bytes_wire: u64,
    /// Bytes that were at the receiver already: kept by an interrupted run, or in identical files.
    pub bytes_resumed: u64,
    /// Files that were at the receiver with other content, and stay: `keep_existing`.
    pub kept: u64,
    /// Files that were removed because the source does not have them: `delete`.
    pub deleted: u64,
    /// Whether everything is durable, and not merely received and verified.
    pub is_durable: bool,
    /// The file or the directory here that a `get` has become; `None` for other jobs, and for a writer.
    pub landed: Option<PathBuf>,
    /// How long the job took.
    pub elapsed: Duration,
    /// What limited it, for how long, as [`Event::limited_by`](crate::Event::limited_by) says; the longest first. What
    /// moves side by side, as the two directions of a sync, is added up.
    pub limited_by: Vec<(&'static str, Duration)>,
    /// The digest of the content as hexadecimal digits: of a small single file for `get`, of all names and contents
    /// for `sync`.
    pub digest: Option<String>,
    /// The function that computed it.
    pub digest_algorithm: DigestAlgorithm,
    /// What a sync changed, or what any job would do in a dry run.
    pub actions: Vec<Action>,
    /// How many more actions there are than are listed.
    pub actions_unnamed: u64,
    /// What was left out; of a list whose paths have more than [`Report::MAX_LEFT_OUT_BYTES`], the first part. The
    /// events name all of it.
    pub left_out: Vec<Action>,
    /// How many paths were left out. If there are any, the job ends with
    /// [`ErrorKind::LeftOut`](crate::ErrorKind::LeftOut), and [`Error::report`](crate::Error::report) gives this report.
    pub left_out_count: u64,
}

impl Report {
    /// 1 MiB: ten thousand usual paths, more than a person reads. The peer decides how many there are.
    pub const MAX_LEFT_OUT_BYTES: usize = 1 << 20;

    /// Of nothing yet.
    pub(crate) fn new(digest_algorithm: DigestAlgorithm) -> Self {
        Self {
            files: 0,
            bytes_total: 0,
            bytes_sent: 0,
            bytes_received: 0,
            bytes_wire: 0,
            bytes_resumed: 0,
            kept: 0,
            deleted: 0,
            is_durable: true,
            landed: None,
            elapsed: Duration::ZERO,
            limited_by: Vec::new(),
            digest: None,
            digest_algorithm,
            actions: Vec::new(),
            actions_unnamed: 0,
            left_out: Vec::new(),
            left_out_count: 0,
        }
    }

    /// Adds the result of a fetch or a push.
    pub(crate) fn add(&mut self, moved: &FilesReport) {
        self.files += moved.summary.published_files + moved.summary.identical_files;
        self.deleted += moved.summary.deleted_files;
        self.kept += moved.summary.kept_files;
        self.bytes_total += moved.total_bytes;
        self.bytes_sent += moved.sent_bytes;
        self.bytes_received += moved.received_bytes;
        self.bytes_wire += moved.wire_bytes;
        self.bytes_resumed += moved.total_bytes.saturating_sub(moved.sent_bytes + moved.received_bytes);
        self.is_durable &= moved.durability == Durability::Durable;
        self.digest = moved.digest.map(|digest| digest.to_string());
        self.digest_algorithm = moved.digest_algorithm;
    }
}
