//! The `--json` output: one object per line. Scripts rely on the names; fields are only added.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use shiplane::{Action, Report, Side};

use crate::args::Digest;
use crate::doctor::Explained;

/// One line. Paths and texts are escaped, so they are valid text even if a file name is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// `serve` accepts connections.
    Listening {
        ticket: String,
        peer_id: String,
        address: String,
        ticket_seconds: u64,
        writable: bool,
        /// Where `--metrics` is shown.
        #[serde(skip_serializing_if = "Option::is_none")]
        metrics: Option<String>,
    },
    /// `send` waits for a receiver.
    Waiting { code: String, command: String, peer_id: String, address: String },
    /// Somebody has used the code of `send`.
    Code {
        /// `guessed`, `admitted`, `taken` or `declined`.
        change: &'static str,
        /// The receiver's id, or where a wrong guess came from.
        peer: String,
        message: String,
    },
    /// `send` has ended: everyone has it.
    Sent { seconds: f64, bytes: u64, receivers: u64 },
    /// `receive` knows what the sender offers.
    Offered {
        peer_id: String,
        address: String,
        files: u64,
        bytes: u64,
        /// Whether the sender has counted everything.
        counted: bool,
        names: Vec<String>,
    },
    /// `receive` has received a text.
    Text { text: String },
    /// `get`, `push` or `sync` has connected.
    Started { peer_id: String, address: String, destination: String },
    /// Bytes found from an earlier run or in equal files; they are not sent again.
    Resumed { bytes_resumed: u64 },
    /// Progress, at most a few times a second.
    Progress {
        phase: Phase,
        files: u64,
        /// Bytes verified and written at the receiver, including resumed ones.
        bytes_done: u64,
        bytes_resumed: u64,
        /// Bytes that arrive per second, averaged over the last few seconds.
        bytes_per_second: u64,
        /// Unknown until the server has listed everything.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes_total: Option<u64>,
        /// What kept it from being faster in the last second.
        #[serde(skip_serializing_if = "Option::is_none")]
        limited_by: Option<&'static str>,
        seconds: f64,
    },
    /// A file is published and verified.
    File {
        path: String,
        bytes: u64,
        /// Whether it was received now, rather than present with the same content.
        received: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// A path is left out: it did not arrive, or `sync` did not change it.
    LeftOut {
        /// The side that has the reason.
        side: &'static str,
        /// `links`, `special`, `names`, `unreadable`, `changed`, `refused` or, of `sync --one-way`, `conflict`.
        kind: &'static str,
        path: String,
        reason: String,
    },
    /// The connection is lost; it is dialled again after a pause.
    ConnectionLost { message: String, pause_seconds: f64 },
    /// A server that was started by ssh is reached in another way, or in no better one.
    Route {
        /// As in `started`.
        address: String,
        /// Why there is no better one.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// `get` is done, with the requested durability.
    Done {
        files: u64,
        bytes_total: u64,
        bytes_received: u64,
        /// Bytes on the wire: fewer if compressed.
        bytes_wire: u64,
        /// Bytes kept by an interrupted run or in equal files.
        bytes_resumed: u64,
        /// Number of files that exist with other content and stay.
        kept: u64,
        /// Number of files that were deleted because the source does not have them.
        deleted: u64,
        /// Number of paths that are left out.
        left_out: u64,
        seconds: f64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        limited_by: Vec<Limited>,
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        /// The algorithm: `blake3`, as b3sum prints it, or `sha256`.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest_algorithm: Option<Digest>,
    },
    /// `push` is done, with the requested durability.
    #[serde(rename = "done")]
    Pushed {
        files: u64,
        bytes_total: u64,
        bytes_sent: u64,
        /// Bytes on the wire: fewer if compressed.
        bytes_wire: u64,
        /// Bytes kept by an interrupted run or in equal files.
        bytes_resumed: u64,
        /// Number of files that exist with other content and stay.
        kept: u64,
        /// Number of files that were deleted because the source does not have them.
        deleted: u64,
        /// Number of paths that are left out.
        left_out: u64,
        /// Whether the files are durable, or only verified.
        durable: bool,
        seconds: f64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        limited_by: Vec<Limited>,
    },
    /// `serve` has ended in order, with these totals.
    Stopped { seconds: f64, sent: Totals, received: Totals },
    /// `sync` makes this change, on one of the two sides.
    Action {
        side: &'static str,
        change: &'static str,
        path: String,
        /// The current path, if it differs.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        why: String,
    },
    /// `sync --watch` has made both sides equal once more; what it has changed comes before.
    #[serde(rename = "synced")]
    Round {
        files: u64,
        /// Number of changes.
        actions: u64,
        /// Number of paths that are left out.
        left_out: u64,
        bytes_sent: u64,
        bytes_received: u64,
        /// Bytes on the wire in both directions: fewer if compressed.
        bytes_wire: u64,
        /// The manifest digest: over all names and contents.
        digest: String,
        seconds: f64,
    },
    /// `sync --watch`: not all directories of a side can be watched, so that both sides are compared now and then.
    NotWatched {
        side: &'static str,
        message: String,
        /// From one comparison to the next.
        scan_seconds: f64,
    },
    /// `sync` is done and durable, or its dry run is.
    #[serde(rename = "done")]
    Synced {
        files: u64,
        /// Number of changes, done or planned.
        actions: u64,
        /// Number of paths that are left out.
        left_out: u64,
        bytes_sent: u64,
        bytes_received: u64,
        /// Bytes on the wire in both directions: fewer if compressed.
        bytes_wire: u64,
        dry_run: bool,
        /// The manifest digest: over all names and contents.
        digest: String,
        seconds: f64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        limited_by: Vec<Limited>,
    },
    /// `ls`: the server has this.
    Entry {
        path: String,
        /// `file`, `directory` or `link`.
        kind: &'static str,
        /// The size of a file; 0 for anything else.
        bytes: u64,
        /// The permission bits.
        mode: u32,
        /// When it was modified, in seconds since 1970.
        modified_seconds: i64,
        /// What a link points to.
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// The same for people.
        #[serde(skip)]
        line: String,
    },
    /// `ls` is done.
    #[serde(rename = "done")]
    Listed {
        files: u64,
        bytes_total: u64,
        /// Number of paths that are left out.
        left_out: u64,
        seconds: f64,
    },
    /// `ping` is done.
    Pinged {
        peer_id: String,
        /// The one that has answered.
        address: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// How many round trips were measured.
        probes: u64,
        min_seconds: f64,
        median_seconds: f64,
        max_seconds: f64,
        /// Over this connection, in this direction.
        packets_sent: u64,
        packets_lost: u64,
        /// Of this program.
        version: &'static str,
        peer_version: String,
    },
    /// `doctor` has looked at this.
    Finding {
        check: &'static str,
        /// `fine`, `poor` or `bad`.
        grade: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        unit: Option<&'static str>,
        message: String,
        /// What to do.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// `doctor SOURCE`: what such a command can reach.
    Predicted {
        command: &'static str,
        bytes_per_second: u64,
        /// `path`, `disk`, `digest` or `AES`.
        limited_by: &'static str,
    },
    /// `--explain`: the rate of the run, and the rate predicted right before it.
    Explained {
        bytes_per_second: u64,
        predicted_bytes_per_second: u64,
        /// The one divided by the other.
        ratio: f64,
        /// As in `predicted`, or `--rate`.
        limited_by: &'static str,
        /// Whether enough was moved to compare the two.
        comparable: bool,
        /// For people.
        #[serde(skip)]
        line: String,
    },
    /// `clean` is done.
    #[serde(rename = "done")]
    Cleaned {
        /// Number of files that were, or would be, removed.
        files: u64,
        /// What they occupied.
        bytes: u64,
        dry_run: bool,
        seconds: f64,
    },
    /// The command failed.
    Error { class: &'static str, side: String, message: String, hint: String, exit_code: u8 },
}

/// What kept a job from being faster, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Limited {
    pub(crate) by: &'static str,
    pub(crate) seconds: f64,
}

impl Limited {
    /// Of a job, the longest first.
    pub(crate) fn of(report: &Report) -> Vec<Self> {
        report.limited_by.iter().map(|(by, time)| Self { by, seconds: time.as_secs_f64() }).collect()
    }
}

/// A server's totals in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Payload bytes of the transfers that completed.
    pub(crate) bytes: u64,
}

/// The phase of a transfer, as in the bar and the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Connecting,
    Listing,
    Checking,
    Receiving,
    AwaitingInput,
    Publishing,
    Waiting,
    Offering,
    Sending,
    Settling,
    Scanning,
    Comparing,
    Syncing,
    Reconnecting,
    Watching,
    Measuring,
}

impl Phase {
    /// The text for the bar.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Listing => "waiting for the list of files",
            Self::Checking => "checking existing files",
            Self::Receiving => "receiving",
            Self::Publishing => "syncing to disk",
            Self::Waiting => "waiting for the busy server",
            Self::Offering => "waiting for the server to be ready",
            Self::Sending => "sending",
            Self::Settling => "waiting for the server to confirm",
            Self::Scanning => "reading the directory",
            Self::AwaitingInput => "waiting for standard input",
            Self::Comparing => "waiting for the server to compare",
            Self::Syncing => "sending and receiving",
            Self::Reconnecting => "connecting again",
            Self::Watching => "waiting for changes",
            Self::Measuring => "measuring disk, processor and path",
        }
    }
}

impl From<shiplane::Phase> for Phase {
    fn from(phase: shiplane::Phase) -> Self {
        match phase {
            shiplane::Phase::Listing => Self::Listing,
            shiplane::Phase::Checking => Self::Checking,
            shiplane::Phase::Receiving => Self::Receiving,
            shiplane::Phase::Publishing => Self::Publishing,
            shiplane::Phase::Waiting => Self::Waiting,
            shiplane::Phase::Offering => Self::Offering,
            shiplane::Phase::Sending => Self::Sending,
            shiplane::Phase::Settling => Self::Settling,
            shiplane::Phase::Scanning => Self::Scanning,
            shiplane::Phase::AwaitingInput => Self::AwaitingInput,
            shiplane::Phase::Comparing => Self::Comparing,
            shiplane::Phase::Reconnecting => Self::Reconnecting,
            shiplane::Phase::Watching => Self::Watching,
            // `Syncing`, and what a later library may add.
            _ => Self::Syncing,
        }
    }
}

pub(crate) fn side_name(side: Side) -> &'static str {
    if side == Side::Peer { "there" } else { "here" }
}

impl Event {
    /// The event for a path that is left out.
    pub(crate) fn left_out(left_out: &Action) -> Self {
        Self::LeftOut {
            side: side_name(left_out.side),
            kind: left_out.change,
            path: left_out.path.clone(),
            reason: left_out.why.to_string(),
        }
    }

    /// The event of `sync` for a change.
    pub(crate) fn action(action: &Action) -> Self {
        Self::Action {
            side: side_name(action.side),
            change: action.change,
            path: action.path.clone(),
            from: action.from.clone(),
            why: action.why.to_string(),
        }
    }

    /// For the end of a summary: what limited a job that took a while, each with its share of the time.
    pub(crate) fn limits(&self) -> String {
        let (Self::Done { limited_by, .. }
        | Self::Pushed { limited_by, .. }
        | Self::Synced { limited_by, .. }) = self
        else {
            return String::new();
        };
        let all: f64 = limited_by.iter().map(|limited| limited.seconds).sum();
        if all < MIN_LIMITED_SECONDS {
            return String::new();
        }
        let share = |limited: &Limited| (100.0 * limited.seconds / all).round();
        let named = limited_by.iter().filter(|limited| share(limited) >= MIN_LIMIT_PERCENT);
        let named: Vec<String> =
            named.take(MAX_LIMITS).map(|limited| format!("{} {} %", limited.by, share(limited))).collect();
        format!("; limited by {}", named.join(", "))
    }

    /// The event of `sync --watch` after a round.
    pub(crate) fn round(report: &Report) -> Self {
        Self::Round {
            files: report.files,
            actions: report.actions.len() as u64,
            left_out: report.left_out_count,
            bytes_sent: report.bytes_sent,
            bytes_received: report.bytes_received,
            bytes_wire: report.bytes_wire,
            digest: report.digest.clone().unwrap_or_default(),
            seconds: seconds(report.elapsed),
        }
    }

    /// The event of `--explain`.
    pub(crate) fn explained(explained: &Explained<'_>) -> Self {
        Self::Explained {
            bytes_per_second: explained.actual,
            predicted_bytes_per_second: explained.predicted,
            ratio: explained.ratio(),
            limited_by: explained.limited_by,
            comparable: explained.is_long_enough,
            line: explained.line(),
        }
    }

    /// Writes and flushes one line.
    pub(crate) fn write_line(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self).map_err(io::Error::other)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()
    }
}

/// A shorter run does not say what limited it.
const MIN_LIMITED_SECONDS: f64 = 3.0;

/// What limits for less is noise.
const MIN_LIMIT_PERCENT: f64 = 5.0;

/// As many as a line holds.
const MAX_LIMITS: usize = 3;

/// Seconds for an event, to the millisecond.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &Event) -> String {
        let mut out = Vec::new();
        event.write_line(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_json_names_do_not_change() {
        let done = Event::Done {
            files: 2,
            bytes_total: 30,
            bytes_received: 20,
            bytes_wire: 15,
            bytes_resumed: 10,
            kept: 3,
            deleted: 4,
            left_out: 1,
            seconds: 0.5,
            limited_by: vec![Limited { by: "path", seconds: 4.0 }],
            digest: None,
            digest_algorithm: None,
        };
        assert_eq!(
            line(&done),
            "{\"event\":\"done\",\"files\":2,\"bytes_total\":30,\"bytes_received\":20,\
\"bytes_wire\":15,\"bytes_resumed\":10,\"kept\":3,\"deleted\":4,\"left_out\":1,\"seconds\":0.5,\
\"limited_by\":[{\"by\":\"path\",\"seconds\":4.0}]}\n"
        );
        let sent = Totals { completed: 1, failed: 0, bytes: 20 };
        let stopped = Event::Stopped { seconds: 2.0, sent, received: Totals { failed: 3, ..sent } };
        assert_eq!(
            line(&stopped),
            "{\"event\":\"stopped\",\"seconds\":2.0,\"sent\":{\"completed\":1,\"failed\":0,\"bytes\":20},\
             \"received\":{\"completed\":1,\"failed\":3,\"bytes\":20}}\n"
        );
        let progress = Event::Progress {
            phase: Phase::Receiving,
            files: 1,
            bytes_done: 2,
            bytes_resumed: 0,
            bytes_per_second: 4,
            bytes_total: Some(3),
            limited_by: Some("window"),
            seconds: 1.0,
        };
        assert_eq!(
            line(&progress),
            "{\"event\":\"progress\",\"phase\":\"receiving\",\"files\":1,\"bytes_done\":2,\
             \"bytes_resumed\":0,\"bytes_per_second\":4,\"bytes_total\":3,\
             \"limited_by\":\"window\",\"seconds\":1.0}\n"
        );
    }

    #[test]
    fn a_longer_run_says_what_limited_it() {
        let pushed = |limited_by: &[(&'static str, f64)]| Event::Pushed {
            files: 1,
            bytes_total: 4 << 20,
            bytes_sent: 4 << 20,
            bytes_wire: 4 << 20,
            bytes_resumed: 0,
            kept: 0,
            deleted: 0,
            left_out: 0,
            durable: true,
            seconds: 4.0,
            limited_by: limited_by.iter().map(|(by, seconds)| Limited { by, seconds: *seconds }).collect(),
        };
        assert_eq!(pushed(&[("path", 2.0)]).limits(), "");
        let limits = [("path", 50.0), ("receiver disk", 49.0), ("window", 1.0)];
        assert_eq!(pushed(&limits).limits(), "; limited by path 50 %, receiver disk 49 %");
    }

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let (path, reason) = ("a\nb\u{1b}\"".to_owned(), "x\r".to_owned());
        let text = line(&Event::LeftOut { side: "here", kind: "links", path, reason });
        assert_eq!(text.trim_end_matches('\n').lines().count(), 1);
        assert!(!text.trim_end().contains(|symbol: char| symbol.is_control()), "{text:?}");
    }
}
