//! Lying peers in both roles: a typed error for each, and nothing under a final name.

mod crowd;
mod digests;
#[cfg(unix)]
mod filters;
mod gated_disk;
mod liar;
#[cfg(target_os = "linux")]
mod memory;
mod offers;
mod provider;
mod receiver;
#[cfg(unix)]
mod silent;
#[cfg(target_os = "linux")]
mod unread;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use shiplane_rpc::Method;
use shiplane_transport::{
    Admission, QuicTransport, TransportConfig, Trust,
    internals::{ChunkRead, LaneThreads, SourceError},
};
use shiplane_wire::{Entry, EntryKind, Holes, LinkTarget, Mtime, ProviderRecord, RelPath, Version};

/// The bodies as they travel, written down again: a change on the wire must fail here.
pub(crate) const FETCH_OPEN: Method<FetchOpen, FetchOpened> = Method::new("fetch.open");

#[derive(Serialize, Deserialize)]
pub(crate) struct FetchOpen {
    pub(crate) transfer: [u8; 16],
    pub(crate) path: Vec<u8>,
    /// 0 never, 1 where a sample shrinks, 2 always.
    pub(crate) compression: u32,
    pub(crate) bytes_per_second: Option<u64>,
    /// A set of bits: 1 SHA-256, 2 BLAKE3.
    pub(crate) digests: u8,
    pub(crate) filters: RawFilters,
    /// Whether the first chunks may come unasked.
    pub(crate) invites: bool,
    /// Whether owners and attributes are wanted.
    pub(crate) attributes: bool,
}

/// What is excluded (SPEC 5.23).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RawFilters {
    pub(crate) patterns: Vec<String>,
    pub(crate) listed: Option<Vec<Vec<u8>>>,
    pub(crate) ignore_files: bool,
    pub(crate) one_file_system: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FetchOpened {
    pub(crate) shape: TransferShape,
    pub(crate) digest: u8,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum TransferShape {
    File { name: Vec<u8> },
    Directory { name: Vec<u8> },
    Contents,
    Parts { name: Vec<u8> },
}

/// A transport that trusts everybody and waits for `patience`.
pub(crate) fn transport(patience: Duration) -> Arc<QuicTransport> {
    let config = TransportConfig::default()
        .lane_threads(LaneThreads::Ordinary)
        // They keep short deadlines on a busy machine too.
        .header_timeout(patience)
        .progress_timeout(patience);
    let builder = QuicTransport::builder().trust(Trust::ask(|_| Admission::Trusted)).config(config);
    Arc::new(builder.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap())
}

/// For victims that are to notice a lie, however busy the machine is.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

/// For those that are to notice silence.
pub(crate) const IMPATIENT: Duration = Duration::from_millis(400);

pub(crate) fn file(path: &str, size_bytes: u64) -> ProviderRecord {
    entry(EntryKind::File, path, size_bytes)
}

pub(crate) fn directory(path: &str) -> ProviderRecord {
    entry(EntryKind::Directory, path, 0)
}

pub(crate) fn link(path: &str, target: &str) -> ProviderRecord {
    let ProviderRecord::Entry(entry) = entry(EntryKind::File, path, 0) else { unreachable!() };
    let target = Some(LinkTarget::parse(target.as_bytes()).unwrap());
    ProviderRecord::Entry(Entry { kind: EntryKind::Symlink, target, ..entry })
}

/// A file, another name of which is that entry.
pub(crate) fn named(path: &str, size_bytes: u64, first: u64) -> ProviderRecord {
    let ProviderRecord::Entry(entry) = file(path, size_bytes) else { unreachable!() };
    ProviderRecord::Entry(Entry { first: Some(first), ..entry })
}

/// A file that is nothing but a hole.
pub(crate) fn hole(path: &str, size_bytes: u64) -> ProviderRecord {
    let ProviderRecord::Entry(entry) = file(path, size_bytes) else { unreachable!() };
    let whole = 0..size_bytes;
    ProviderRecord::Entry(Entry { holes: Holes::parse(&[whole], size_bytes).unwrap(), ..entry })
}

fn entry(kind: EntryKind, path: &str, size_bytes: u64) -> ProviderRecord {
    let (mode, mtime, version) = (0o644, Mtime { secs: 1, nanos: 0 }, Version::from_bytes([7; 16]));
    let path = RelPath::parse(path.as_bytes()).unwrap();
    ProviderRecord::Entry(Entry {
        kind,
        mode,
        size_bytes,
        mtime,
        version,
        path,
        target: None,
        first: None,
        holes: Holes::default(),
        attributes: None,
    })
}

/// An entry whose path is `path`, which may be anything: its bytes are exchanged after encoding.
pub(crate) fn file_called(path: &[u8]) -> Bytes {
    let last = path.len().max(1) - 1;
    let innocent: String = (0..=last).map(|i| if i % 100 == 50 && i != last { '/' } else { 'x' }).collect();
    let mut bytes = encode(&file(&innocent, 1)).to_vec();
    let at = bytes.len() - innocent.len();
    if path.is_empty() {
        // One byte less in the path, its length and the record's.
        bytes.truncate(at);
        bytes[at - 2..at].copy_from_slice(&0u16.to_le_bytes());
        let body_len = u32::try_from(bytes.len() - 5).unwrap();
        bytes[1..5].copy_from_slice(&body_len.to_le_bytes());
    } else {
        bytes[at..].copy_from_slice(path);
    }
    bytes.into()
}

pub(crate) fn encode(record: &ProviderRecord) -> Bytes {
    let mut out = BytesMut::new();
    record.encode(&mut out).unwrap();
    out.freeze()
}

/// A source that says it has `len_bytes` and gives `data`.
pub(crate) struct Claimed {
    pub(crate) len_bytes: u64,
    pub(crate) data: Bytes,
}

impl ChunkRead for Claimed {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
    fn read(&mut self, max_len_bytes: usize) -> Result<Bytes, SourceError> {
        Ok(self.data.split_to(max_len_bytes.min(self.data.len())))
    }
    fn check_unchanged(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}
