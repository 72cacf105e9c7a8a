//! An action of a job: the path, the change and the side.

use std::{borrow::Cow, fmt};

use shiplane_wire::LeftOutReason;

use crate::left_out::kind_of;

/// One of the two machines, or the network between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The machine that this program runs on.
    ThisMachine,
    /// The peer's machine.
    Peer,
    /// The network between them.
    Network,
}

/// One change that a job made, would make in a dry run, or left undone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Action {
    /// On which side.
    pub side: Side,
    /// What a sync does: `keep_as`, `rename`, `remove_file`, `remove_directory`, `create_directory`,
    /// `create_link`, `set_metadata` or `take`.
    ///
    /// What any job leaves out is of a kind: `links`, `special` (devices, sockets, FIFOs), `names` (that a file system
    /// does not take), `unreadable`, `changed` (while it was read), `refused` (by the receiver's system) or `conflict`
    /// (in a sync in one direction). The job's `skip` says beforehand that a kind is not wanted.
    pub change: &'static str,
    /// Where. Escaped: safe to print.
    pub path: String,
    /// Where the file is now, if that is elsewhere. Escaped.
    pub from: Option<String>,
    /// Why, as text.
    pub why: Cow<'static, str>,
}

impl Action {
    pub(crate) fn left_out(side: Side, reason: LeftOutReason, path: String, why: Option<String>) -> Self {
        let why = why.unwrap_or_else(|| reason.to_string()).into();
        Self { side, change: kind_of(reason), path, from: None, why }
    }
}

impl Side {
    /// The other one of the two machines.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::ThisMachine => Self::Peer,
            Self::Peer => Self::ThisMachine,
            Self::Network => Self::Network,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisMachine => "this machine",
            Self::Peer => "peer",
            Self::Network => "network",
        })
    }
}
