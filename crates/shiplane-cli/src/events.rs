//! What `--json` prints: one object a line. Scripts rely on the names; fields are only ever added.

use std::io::{self, Write};

use serde::Serialize;
use shiplane::{Action, LeftOut, Side};

use crate::args::Digest;

/// One line. Paths and texts are escaped, so that they are text even where a name is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// `serve` accepts connections from here on.
    Listening { ticket: String, peer_id: String, address: String, ticket_seconds: u64, writable: bool },
    /// `get`, `push` or `sync` sets out.
    Started { peer_id: String, address: String, destination: String },
    /// This much was here already when the last of it was found, and is not sent again.
    Resumed { bytes_resumed: u64 },
    /// How far it is; a few a second at most.
    Progress {
        phase: Phase,
        files: u64,
        /// Of the source's bytes, those that are at the receiver, verified and written, whether received or there before.
        bytes_done: u64,
        bytes_resumed: u64,
        /// What arrives in a second, the last few seconds counted.
        bytes_per_second: u64,
        /// Unknown until the server has listed everything.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes_total: Option<u64>,
        seconds: f64,
    },
    /// A file is at its place, verified.
    File {
        path: String,
        bytes: u64,
        /// Whether it came now, or was here already with the same content.
        received: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// Something of the source is not taken along.
    Skipped { path: String, reason: String },
    /// All is there, with the promise that was asked for.
    Done {
        files: u64,
        bytes_total: u64,
        bytes_received: u64,
        /// The same as it travelled: less, if it was compressed.
        bytes_wire: u64,
        /// Were here already: kept by a run that was cut, or in files that are equal.
        bytes_resumed: u64,
        seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        /// What that is: `blake3` as b3sum prints it, or `sha256`.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest_algorithm: Option<Digest>,
    },
    /// All is there on the other side, with the promise that was asked for.
    #[serde(rename = "done")]
    Pushed {
        files: u64,
        bytes_total: u64,
        bytes_sent: u64,
        /// The same as it travelled: less, if it was compressed.
        bytes_wire: u64,
        /// Were there already: kept from a run that was cut, or in files that are equal.
        bytes_resumed: u64,
        /// Whether it is on the disk for good, or merely received and verified.
        durable: bool,
        seconds: f64,
    },
    /// `serve` has ended in order. What there was.
    Stopped { seconds: f64, sent: Totals, received: Totals },
    /// `sync` has this to do, on one of the two sides.
    Action {
        side: &'static str,
        change: &'static str,
        path: String,
        /// Where it is now, if that is elsewhere.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        why: &'static str,
    },
    /// Something was left alone, on one of the two sides: it changed meanwhile, or the system failed.
    Left { side: &'static str, path: String, reason: String },
    /// Both sides have the same, for good; after a dry run, they would.
    #[serde(rename = "done")]
    Synced {
        files: u64,
        /// What was done, or is to be.
        actions: u64,
        /// What was left alone.
        left: u64,
        bytes_sent: u64,
        bytes_received: u64,
        /// Both as they travelled: less, if they were compressed.
        bytes_wire: u64,
        dry_run: bool,
        /// The digest of all names and contents.
        root: String,
        seconds: f64,
    },
    /// It ended otherwise.
    Error { class: &'static str, side: String, message: String, hint: String, exit_code: u8 },
}

/// What a server has done in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Payload bytes of the transfers that completed.
    pub(crate) bytes: u64,
}

/// What a transfer is at. The words are those of the bar and of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Connecting,
    Listing,
    Checking,
    Receiving,
    Publishing,
    Spooling,
    Waiting,
    Offering,
    Sending,
    Settling,
    Scanning,
    Comparing,
    Syncing,
}

impl Phase {
    /// For a person.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Listing => "waiting for the list of files",
            Self::Checking => "looking at what is here already",
            Self::Receiving => "receiving",
            Self::Publishing => "making it durable",
            Self::Spooling => "reading standard input",
            Self::Waiting => "waiting for the server, which is busy",
            Self::Offering => "waiting for the server to be ready",
            Self::Sending => "sending",
            Self::Settling => "waiting for the server to confirm",
            Self::Scanning => "reading the directory",
            Self::Comparing => "waiting for the server to compare",
            Self::Syncing => "sending and receiving",
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
            shiplane::Phase::Comparing => Self::Comparing,
            // `Syncing`, and what a later library may add.
            _ => Self::Syncing,
        }
    }
}

fn side_name(side: Side) -> &'static str {
    if side == Side::Peer { "there" } else { "here" }
}

impl Event {
    /// What `get` and `push` tell of what they do not carry over.
    pub(crate) fn skipped(left_out: &LeftOut) -> Self {
        Self::Skipped { path: left_out.path.clone(), reason: left_out.reason.clone() }
    }

    /// What `sync` tells of what it does not carry over.
    pub(crate) fn left(left_out: &LeftOut) -> Self {
        if left_out.is_skipped {
            return Self::skipped(left_out);
        }
        let (side, path) = (side_name(left_out.side), left_out.path.clone());
        Self::Left { side, path, reason: left_out.reason.clone() }
    }

    /// What `sync` tells of what it does.
    pub(crate) fn action(action: &Action) -> Self {
        Self::Action {
            side: side_name(action.side),
            change: action.change,
            path: action.path.clone(),
            from: action.from.clone(),
            why: action.why,
        }
    }

    /// Writes it as one line, at once: whoever reads wants to know now.
    pub(crate) fn write_line(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self).map_err(io::Error::other)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()
    }
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
    fn the_names_are_those_that_scripts_know() {
        let done = Event::Done {
            files: 2,
            bytes_total: 30,
            bytes_received: 20,
            bytes_wire: 15,
            bytes_resumed: 10,
            seconds: 0.5,
            digest: None,
            digest_algorithm: None,
        };
        assert_eq!(
            line(&done),
            "{\"event\":\"done\",\"files\":2,\"bytes_total\":30,\"bytes_received\":20,\
             \"bytes_wire\":15,\"bytes_resumed\":10,\"seconds\":0.5}\n"
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
            seconds: 1.0,
        };
        assert_eq!(
            line(&progress),
            "{\"event\":\"progress\",\"phase\":\"receiving\",\"files\":1,\"bytes_done\":2,\
             \"bytes_resumed\":0,\"bytes_per_second\":4,\"bytes_total\":3,\"seconds\":1.0}\n"
        );
    }

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let skipped = Event::Skipped { path: "a\nb\u{1b}\"".to_owned(), reason: "x\r".to_owned() };
        let text = line(&skipped);
        assert_eq!(text.trim_end_matches('\n').lines().count(), 1);
        assert!(!text.trim_end().contains(|symbol: char| symbol.is_control()), "{text:?}");
    }
}
