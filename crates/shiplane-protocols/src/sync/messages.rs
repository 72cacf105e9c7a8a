//! The RPC messages of a sync (SPEC 5.14 to 5.18).

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use shiplane_files::internals::sync::Side;
use shiplane_rpc::Method;

use crate::{
    Compression,
    filters::OpenFilters,
    methods::{Step, fuzz_body},
};

/// Begins a sync, for which the callee lists its dataset, and compares if the caller has listed its own.
pub(crate) const SYNC_OPEN: Method<SyncRequest, Step<SyncResponse>> = Method::new("sync.open");

/// Compares the two lists.
pub(crate) const SYNC_COMPARE: Method<SyncCompare, Step<SyncResponse>> = Method::new("sync.compare");

/// Sends the caller's changes, and starts the transfers.
pub(crate) const SYNC_START: Method<SyncStart, Step<SyncReady>> = Method::new("sync.start");

/// Exchanges the outcomes, and ends the sync.
pub(crate) const SYNC_SETTLE: Method<SyncSettle, Step<SyncDone>> = Method::new("sync.settle");

/// Shows that the caller is alive, however long its part takes.
pub(crate) const SYNC_ALIVE: Method<[u8; 16], ()> = Method::new("sync.alive");

/// Waits until the callee's dataset has changed.
pub(crate) const SYNC_WATCH: Method<SyncWatch, Step<SyncWatched>> = Method::new("sync.watch");

/// The body of `sync.open` (SPEC 5.14).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Names the sync: chosen by the caller at random.
    pub sync: [u8; 16],
    /// The dataset, below what is served; empty for all of that.
    pub path: Vec<u8>,
    /// What the caller has. `None` if it is still being listed; then it comes by `sync.compare`.
    pub list: Option<SyncList>,
    /// Whether nothing is to be changed.
    pub dry_run: bool,
    /// A digest of what the caller calls its own dataset: by that a sync that it has left is known for the same.
    pub source: [u8; 32],
    /// The digest of all of it: one bit (SPEC 4.21).
    pub digest: u8,
    /// The mode of the caller's directory, for one that the callee creates; `None` if it has none.
    pub mode: Option<u32>,
    /// What is not part of it, on either side (SPEC 5.23).
    pub filters: OpenFilters,
    /// Whether owners, access lists and extended attributes are part of it (SPEC 4.31).
    pub attributes: bool,
    /// The caller's watch of that path (SPEC 5.25), by which the callee may look only at what has changed since the sync
    /// before; `true`: it looks at everything all the same.
    pub watch: Option<([u8; 16], bool)>,
    /// Whose changes are taken.
    pub direction: SyncDirection,
}

/// The body of `sync.compare` (SPEC 5.15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncCompare {
    /// The sync.
    pub sync: [u8; 16],
    /// What the caller has.
    pub list: SyncList,
}

/// What the caller of a sync has listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SyncList {
    /// Digest of the caller's manifest.
    pub manifest_digest: [u8; 32],
    /// Digests of the bases that the caller remembers, the newest first.
    pub bases: Vec<[u8; 32]>,
}

/// The answer to it, once the callee has read its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncResponse {
    /// The digests are equal: there is nothing to do, and the callee stores that state as its base.
    Same,
    /// They are not.
    Differs {
        /// Which of the caller's bases the callee remembers, too.
        base: Option<[u8; 32]>,
        /// Digest of the callee's manifest.
        manifest_digest: [u8; 32],
        /// What has changed there since that base, or since there was nothing.
        changes: SyncBody,
    },
}

/// Bytes of any length: short ones in the call itself, longer ones as a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncBody {
    /// Here they are.
    Inline(Vec<u8>),
    /// They are sent as the chunk with this index, of the transfer that has the sync's id.
    Lane {
        /// The chunk's index.
        index: u64,
        /// Their number.
        len_bytes: u64,
    },
}

/// The body of `sync.start` (SPEC 5.16).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SyncStart {
    pub(crate) sync: [u8; 16],
    /// The transfer of what the callee takes.
    pub(crate) up: [u8; 16],
    /// The transfer of what the caller takes.
    pub(crate) down: [u8; 16],
    /// Whether either side may lose most of its files.
    pub(crate) mass_deletion: bool,
    /// The most that either side may try.
    pub(crate) compression: Compression,
    /// The most that the callee may send.
    pub(crate) bytes_per_second: Option<NonZeroU64>,
    pub(crate) changes: SyncBody,
    /// If the callee remembers none, and only the caller is changed: the caller's base, as changes since there was nothing.
    pub(crate) base: Option<SyncBody>,
}

/// In which direction changes are taken (SPEC 5.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SyncDirection {
    /// In both.
    Both,
    /// Only the callee is changed.
    ToCallee,
    /// Only the caller is changed.
    ToCaller,
}

impl SyncDirection {
    /// Of a caller of which only this side is to be changed.
    pub(crate) fn of_caller(only_to: Option<Side>) -> Self {
        match only_to {
            None => Self::Both,
            Some(Side::Local) => Self::ToCaller,
            Some(Side::Remote) => Self::ToCallee,
        }
    }

    /// The one side that is changed, as the callee names it.
    pub(crate) fn at_callee(self) -> Option<Side> {
        match self {
            Self::Both => None,
            Self::ToCallee => Some(Side::Local),
            Self::ToCaller => Some(Side::Remote),
        }
    }
}

/// The answer to it: the callee has computed this result, and is ready to provide and to receive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SyncReady {
    pub(crate) merged: [u8; 32],
    /// What both may try.
    pub(crate) compression: Compression,
    /// The most that the caller may send.
    pub(crate) bytes_per_second: Option<NonZeroU64>,
}

/// The body of `sync.settle` (SPEC 5.17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SyncSettle {
    pub(crate) sync: [u8; 16],
    pub(crate) end: SyncEnd,
}

/// The body of `sync.watch` (SPEC 5.25).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SyncWatch {
    /// Names the watch: chosen by the caller at random.
    pub(crate) watch: [u8; 16],
    /// The dataset, below what is served; empty for all of that.
    pub(crate) path: Vec<u8>,
    /// What the caller knows: the answer waits for more. `None` begins the watch.
    pub(crate) seen: Option<u64>,
    /// What is not part of the dataset, as the watch begins (SPEC 5.23).
    pub(crate) filters: OpenFilters,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SyncWatched {
    /// Grows with each change.
    pub(crate) changes: u64,
    /// If not everything is watched: what limits that, and its value.
    pub(crate) unwatched: Option<(u8, u64)>,
}

/// How a sync has ended at the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SyncEnd {
    /// It has done its part.
    Done(SyncHalf),
    /// It has failed, and the callee may know why.
    Failed,
    /// It goes no further.
    Withdrawn,
}

/// A path that is left alone, the reason, and the system's message, if there is one. If only mode, time or attributes could not
/// be set: the mode that it has, and its time in seconds and nanoseconds.
pub(crate) type Unsettled = (Vec<u8>, u8, String, Option<(u32, i64, u32)>);

/// The outcome of a sync on one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SyncHalf {
    /// The paths where it differs from the plan, the reasons (SPEC 4.25), and the system's messages; `None` if they are too
    /// many to be listed.
    pub(crate) unsettled: Option<Vec<Unsettled>>,
    /// The number of these paths.
    pub(crate) left: u64,
}

/// The answer to it: the callee is done, and remembers a base with this root, unless there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SyncDone {
    pub(crate) half: SyncHalf,
    pub(crate) base: Option<[u8; 32]>,
}

/// For the fuzzer: a body of any method of a sync.
pub(crate) fn fuzz_bodies(data: &[u8]) {
    fuzz_body::<SyncRequest>(data);
    fuzz_body::<SyncCompare>(data);
    fuzz_body::<Step<SyncResponse>>(data);
    fuzz_body::<SyncStart>(data);
    fuzz_body::<Step<SyncReady>>(data);
    fuzz_body::<SyncSettle>(data);
    fuzz_body::<Step<SyncDone>>(data);
    fuzz_body::<SyncWatch>(data);
    fuzz_body::<Step<SyncWatched>>(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_start_are_these() {
        let start = SyncStart {
            sync: [1; 16],
            up: [2; 16],
            down: [3; 16],
            mass_deletion: true,
            compression: Compression::Never,
            bytes_per_second: None,
            changes: SyncBody::Inline(vec![4]),
            base: Some(SyncBody::Inline(vec![])),
        };
        let rest =
            [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let expected = [&[1; 16][..], &[2; 16], &[3; 16], &rest].concat();
        assert_eq!(shiplane_rpc::internals::encode(&start).unwrap()[..], expected);
    }

    #[test]
    fn the_bytes_of_a_settled_sync_are_these() {
        let not_set = (b"c".to_vec(), 9, String::new(), Some((0o750, -2, 3)));
        let unsettled = Some(vec![(b"a/b".to_vec(), 9, "EIO".into(), None), not_set]);
        let half = SyncHalf { unsettled, left: 2 };
        let settle = SyncSettle { sync: [1; 16], end: SyncEnd::Done(half.clone()) };
        let expected = include_bytes!("../../corpus/methods/sync-settle");
        assert_eq!(shiplane_rpc::internals::encode(&settle).unwrap()[..], expected[..]);
        let done = Step::Done(SyncDone { half, base: Some([4; 32]) });
        let expected = include_bytes!("../../corpus/methods/sync-settled");
        assert_eq!(shiplane_rpc::internals::encode(&done).unwrap()[..], expected[..]);
    }

    #[test]
    fn the_bytes_of_a_watch_are_these() {
        let watch =
            SyncWatch { watch: [1; 16], path: vec![2], seen: Some(3), filters: OpenFilters::default() };
        let rest = [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 3, 0, 0, 0, 0, 0, 0, 0];
        let expected = [&[1; 16][..], &rest, &[0; 8], &[0, 0, 0]].concat();
        assert_eq!(shiplane_rpc::internals::encode(&watch).unwrap()[..], expected);
        let watched = Step::Done(SyncWatched { changes: 4, unwatched: Some((1, 5)) });
        let expected = [&[1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 5][..], &[0; 7]].concat();
        assert_eq!(shiplane_rpc::internals::encode(&watched).unwrap()[..], expected);
    }
}
