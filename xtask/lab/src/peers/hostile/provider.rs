//! A lying provider of a transfer (SPEC 4).

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::BytesMut;
use shiplane_wire::{
    BlockSignature, BlockSignatures, Digest, Entry, EntryKind, EscapedPath, Holes, LeftOutReason, LinkTarget,
    Mtime, ProviderRecord, ReceiverRecord, RecordReader, RelPath, Span, TaggedChunk, TransferId, Version,
    limits,
};

use super::{HUGE, Lie};

/// The lie that a client gets, and how much of it.
#[derive(Debug, Clone)]
pub(super) struct Telling {
    pub(super) lie: Lie,
    /// How many entries a lie about entries has.
    pub(super) entries: u32,
    /// Told once a lie that goes on by itself does so.
    pub(super) goes_on: Option<mpsc::Sender<()>>,
}

/// A transfer whose records stream is open.
pub(super) struct Provider {
    connection: quinn::Connection,
    transfer: TransferId,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    reader: RecordReader<ReceiverRecord>,
    telling: Telling,
    /// Entries that were sent and may be, in bytes (SPEC 4.10).
    sent_bytes: u64,
    admitted_bytes: u64,
}

/// An entry of a manifest, or what was left out of it.
type Listed = Result<ProviderRecord>;

impl Provider {
    /// `is_invited`: the victim waits to be offered chunks (SPEC 4.24).
    pub(super) async fn open(
        connection: quinn::Connection,
        transfer: TransferId,
        (send, recv): (quinn::SendStream, quinn::RecvStream),
        is_invited: bool,
        telling: Telling,
    ) -> Result<Self> {
        let (reader, sent_bytes, admitted_bytes) = (RecordReader::new(), 0, limits::FIRST_ENTRY_BYTES);
        let mut provider =
            Self { connection, transfer, send, recv, reader, telling, sent_bytes, admitted_bytes };
        if is_invited {
            provider.say(&ProviderRecord::OffersEnd).await?;
        }
        Ok(provider)
    }

    /// Tells the lie; returns once the victim has ended the transfer.
    pub(super) async fn tell(mut self) -> Result<()> {
        let lie = self.telling.lie;
        self.play(lie, self.telling.entries).await?;
        // After the lie comes silence, until the victim has had enough, or has everything.
        while let Some(record) = self.record().await? {
            if matches!(record, ReceiverRecord::Done { .. }) && lie != Lie::Unconfirmed {
                self.send.finish()?;
            }
        }
        if lie == Lie::Unconfirmed {
            // A stream that is dropped is finished, and that would confirm.
            self.connection.closed().await;
        }
        Ok(())
    }

    async fn play(&mut self, lie: Lie, entries: u32) -> Result<()> {
        match lie {
            Lie::HugeFile => self.promise(limits::MAX_FRAME_LEN_BYTES).await,
            Lie::HugeStream => self.manifest([file(HUGE.as_bytes(), limits::MAX_FRAME_LEN_BYTES)]).await,
            Lie::VastFile => self.promise(1 << 46).await,
            Lie::LongDirectories => self.manifest(long_paths(EntryKind::Directory, entries)).await,
            Lie::UnadmittedEntries => {
                self.admitted_bytes = u64::MAX;
                // Files that never come: a receiver is done with directories, and admits more, as fast as it can.
                self.manifest(long_paths(EntryKind::File, entries)).await
            }
            Lie::LongFiles => {
                self.manifest(long_paths(EntryKind::File, entries)).await?;
                self.stay_alive().await
            }
            Lie::EndlessFiles => self.manifest(numbered(u64::MAX, |path| file(path, 0))).await,
            Lie::LongLinks => {
                let target = [b'x'; limits::MAX_LINK_TARGET_LEN_BYTES];
                self.manifest(numbered(entries.into(), |path| link(path, &target))).await
            }
            Lie::EndlessLinks => self.manifest(numbered(u64::MAX, |path| link(path, b".."))).await,
            Lie::ThroughLink => self.manifest([link(b"link", b".."), file(b"link/file", 0)]).await,
            Lie::EndlessSkipped => {
                let path = EscapedPath::new(&[1; limits::MAX_PATH_LEN_BYTES]);
                let skipped = ProviderRecord::LeftOut { reason: LeftOutReason::Symlink, path };
                self.manifest(std::iter::repeat_with(|| Ok(skipped.clone()))).await
            }
            Lie::AliveForEntries => self.stay_alive().await,
            Lie::AliveForChunks => {
                self.promise(FILE_LEN_BYTES).await?;
                self.stay_alive().await
            }
            Lie::Drip => self.parts(0, Some(DRIP_INTERVAL)).await,
            Lie::Trickle => self.parts(50, Some(TRICKLE_INTERVAL)).await,
            Lie::Stall => self.parts(50, None).await,
            Lie::WrongDigest => self.chunks(|tag, len| frame(&tag.encode(), len, len)).await,
            Lie::LongChunks => self.chunks(|tag, len| frame(&tag.encode(), len + 1, len + 1)).await,
            Lie::UnwantedChunk => {
                self.chunks(|tag, len| {
                    let tag = TaggedChunk { index: tag.index + (1 << 40), ..tag };
                    frame(&tag.encode(), len, len)
                })
                .await
            }
            Lie::LateEntry => {
                self.promise(FILE_LEN_BYTES).await?;
                self.list(file(b"late", 1)?).await
            }
            Lie::UnwantedCompression => {
                self.chunks(|tag, len| frame(&tag.encode_compressed(), len, len)).await
            }
            Lie::Bomb => self.chunks(|tag, _| frame(&tag.encode_compressed(), BOMB_LEN_BYTES, 0)).await,
            Lie::EndlessSignatures => self.endless_signatures().await,
            Lie::Unconfirmed => self.promise(0).await,
            Lie::Mute => Ok(()),
        }
    }

    /// A manifest of one file.
    async fn promise(&mut self, size_bytes: u64) -> Result<()> {
        self.manifest([file(b"file", size_bytes)]).await
    }

    /// Sends a manifest and its end.
    async fn manifest(&mut self, all: impl IntoIterator<Item = Listed>) -> Result<()> {
        let (mut entries, mut total_bytes) = (0, 0);
        for (number, listed) in all.into_iter().enumerate() {
            // An endless one goes on once the victim is at work on it.
            if number == ENTRIES_BEFORE_IT_GOES_ON {
                self.goes_on();
            }
            let listed = listed?;
            if let ProviderRecord::Entry(entry) = &listed {
                (entries, total_bytes) = (entries + 1, total_bytes + entry.size_bytes);
            }
            self.list(listed).await?;
        }
        self.say(&ProviderRecord::End { entries, total_bytes }).await
    }

    /// A sign of life every few seconds, as an honest provider gives it, and nothing else.
    async fn stay_alive(&mut self) -> Result<()> {
        self.goes_on();
        let mut signs = tokio::time::interval(SIGN_OF_LIFE_INTERVAL);
        loop {
            tokio::select! {
                want = self.want() => if want?.is_none() { return Ok(()) },
                _ = signs.tick() => {}
            }
            // With the lowest rate that can be announced, so that the least is expected.
            self.say(&ProviderRecord::Alive { scanned_entries: 0, bytes_per_second: 1 }).await?;
        }
    }

    /// Sends the first `percent` of each wanted chunk, and then single bytes, if at all.
    async fn parts(&mut self, percent: u64, then_every: Option<Duration>) -> Result<()> {
        self.lanes(4 * FILE_LEN_BYTES, |connection, tag, len_bytes| {
            part_chunk(connection, tag, [len_bytes, len_bytes / 100 * percent], then_every)
        })
        .await
    }

    /// Answers each want with what `make` makes of it, more often than the victim believes.
    async fn chunks(&mut self, make: impl Fn(TaggedChunk, u64) -> Vec<u8>) -> Result<()> {
        let send = |connection, tag, len_bytes| repeat_chunk(connection, make(tag, len_bytes));
        self.lanes(FILE_LEN_BYTES, send).await
    }

    /// Promises a file, and answers each want on a lane of its own.
    async fn lanes<F>(
        &mut self,
        size_bytes: u64,
        send: impl Fn(quinn::Connection, TaggedChunk, u64) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.promise(size_bytes).await?;
        let mut lanes = tokio::task::JoinSet::new();
        while let Some((tag, len_bytes)) = self.want().await? {
            self.goes_on();
            lanes.spawn(send(self.connection.clone(), tag, len_bytes));
        }
        Ok(())
    }

    /// Sends all requested block signatures, then signatures that were not requested.
    async fn endless_signatures(&mut self) -> Result<()> {
        let files = CUT_FILES.len() as u64;
        self.manifest(CUT_FILES.map(|name| file(name, CUT_FILE_LEN_BYTES))).await?;
        let mut number = 0_u64;
        while let Some(record) = self.record().await? {
            let ReceiverRecord::WantSignatures { span, average_bytes } = record else { continue };
            let end = span.offset_bytes + span.len_bytes;
            // Beyond the last one that is asked for, so that what the victim keeps of all is kept by then.
            let is_last = span.entry + 1 == files && end == CUT_FILE_LEN_BYTES;
            let stop = if is_last { 2 * end } else { end };
            let (mut at, len_bytes) = (span.offset_bytes, u64::from(average_bytes / 4));
            while at < stop {
                let mut part =
                    BlockSignatures { entry: span.entry, offset_bytes: at, signatures: Vec::new() };
                while part.signatures.len() < limits::MAX_SIGNATURES_PER_RECORD && at < stop {
                    number += 1;
                    // The last one of a span ends with it.
                    let len_bytes = if at < end { len_bytes.min(end - at) } else { len_bytes };
                    let (digest, len_bytes) = (invented(number), u32::try_from(len_bytes)?);
                    part.signatures.push(BlockSignature { len_bytes, digest });
                    at += u64::from(len_bytes);
                }
                self.say(&ProviderRecord::Signatures(part)).await?;
            }
        }
        Ok(())
    }

    fn goes_on(&mut self) {
        if let Some(goes_on) = self.telling.goes_on.take() {
            // It does so whether anybody waits for it or not.
            let _unheard = goes_on.send(());
        }
    }

    /// Sends an entry as soon as the victim has admitted it.
    async fn list(&mut self, listed: ProviderRecord) -> Result<()> {
        if let ProviderRecord::Entry(entry) = &listed {
            self.sent_bytes += entry.cost_bytes();
        }
        while self.sent_bytes > self.admitted_bytes {
            let record = self.record().await?.context("the victim has ended it amidst the list")?;
            if let ReceiverRecord::Admit { bytes } = record {
                self.admitted_bytes = self.admitted_bytes.max(bytes);
            }
        }
        self.say(&listed).await
    }

    async fn say(&mut self, record: &ProviderRecord) -> Result<()> {
        let mut bytes = BytesMut::new();
        record.encode(&mut bytes)?;
        Ok(self.send.write_chunk(bytes.freeze()).await?)
    }

    /// The next chunk that is wanted, and its length; `None` once the victim has ended its half.
    async fn want(&mut self) -> Result<Option<(TaggedChunk, u64)>> {
        while let Some(record) = self.record().await? {
            if let ReceiverRecord::WantChunk { index, spans } = record {
                let tag = TaggedChunk { transfer: self.transfer, index };
                return Ok(Some((tag, spans.iter().map(|span: &Span| span.len_bytes).sum())));
            }
        }
        Ok(None)
    }

    /// Cancel-safe.
    async fn record(&mut self) -> Result<Option<ReceiverRecord>> {
        loop {
            if let Some(record) = self.reader.poll()? {
                return Ok(Some(record));
            }
            let Some(chunk) = self.recv.read_chunk(4096, true).await? else { return Ok(None) };
            self.reader.push(chunk.bytes);
        }
    }
}

/// Sends one chunk, never to its end.
async fn part_chunk(
    connection: quinn::Connection,
    tag: TaggedChunk,
    [len_bytes, first_bytes]: [u64; 2],
    then_every: Option<Duration>,
) -> Result<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&tag.encode()).await?;
    send.write_all(&len_bytes.to_le_bytes()).await?;
    send.write_all(&vec![0; usize::try_from(first_bytes)?]).await?;
    if let Some(interval) = then_every {
        for _ in 0..len_bytes / 4 {
            tokio::time::sleep(interval).await;
            send.write_all(&[0]).await?;
        }
    }
    // A status, or the end of the connection.
    recv.read_to_end(64).await?;
    Ok(())
}

/// Sends one chunk again and again, whatever the answer is.
async fn repeat_chunk(connection: quinn::Connection, frame: Vec<u8>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let (mut send, mut recv) = connection.open_bi().await?;
        // The victim may stop it before it is written whole, or answer early.
        let _ = send.write_all(&frame).await;
        let _ = send.finish();
        let _ = recv.read_to_end(64).await;
    }
    Ok(())
}

/// A chunk frame (SPEC 3.1) after `tag`: a size, as many bytes of data, and a digest that is none.
fn frame(tag: &[u8], claimed_bytes: u64, len_bytes: u64) -> Vec<u8> {
    let mut frame = tag.to_vec();
    frame.extend(claimed_bytes.to_le_bytes());
    frame.resize(frame.len() + usize::try_from(len_bytes).unwrap_or_default() + DIGEST_LEN_BYTES, 0);
    frame
}

fn file(path: &[u8], size_bytes: u64) -> Listed {
    entry(EntryKind::File, path, size_bytes, None)
}

fn link(path: &[u8], target: &[u8]) -> Listed {
    entry(EntryKind::Symlink, path, 0, Some(target))
}

fn entry(kind: EntryKind, path: &[u8], size_bytes: u64, target: Option<&[u8]>) -> Listed {
    Ok(ProviderRecord::Entry(Entry {
        kind,
        mode: if kind == EntryKind::File { 0o644 } else { 0o755 },
        size_bytes,
        mtime: Mtime { secs: 1, nanos: 0 },
        version: Version::from_bytes([7; 16]),
        path: RelPath::parse(path)?,
        target: target.map(LinkTarget::parse).transpose()?,
        first: None,
        holes: Holes::default(),
        attributes: None,
    }))
}

/// Entries of which `make` makes each of a number.
fn numbered(count: u64, make: impl Fn(&[u8]) -> Listed) -> impl Iterator<Item = Listed> {
    (0..count).map(move |number| make(number.to_string().as_bytes()))
}

/// Entries with paths of 4,095 bytes, after the directories that they are in.
fn long_paths(kind: EntryKind, entries: u32) -> impl Iterator<Item = Listed> {
    let parents = |depth| vec![[1; limits::MAX_COMPONENT_LEN_BYTES]; depth].join(&b'/');
    let directory = move |depth| entry(EntryKind::Directory, &parents(depth), 0, None);
    let below = move |number| {
        let name = [&[1; limits::MAX_COMPONENT_LEN_BYTES - 8], format!("{number:08x}").as_bytes()].concat();
        let path = [parents(LONG_PATH_DEPTH), name].join(&b'/');
        entry(kind, &path, u64::from(kind == EntryKind::File), None)
    };
    (1..=LONG_PATH_DEPTH).map(directory).chain((0..entries).map(below))
}

/// A digest of nothing, each another one.
fn invented(number: u64) -> Digest {
    let mut bytes = [0; DIGEST_LEN_BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Digest::from_bytes(bytes)
}

const DIGEST_LEN_BYTES: usize = 32;

/// Components of 255 bytes above the last one: together 4,095 bytes.
const LONG_PATH_DEPTH: usize = 15;

/// What is promised where the size is not the lie: several chunks.
const FILE_LEN_BYTES: u64 = 8 << 20;

/// By then the victim processes them.
const ENTRIES_BEFORE_IT_GOES_ON: usize = 1000;

/// With an eighth of it at the victim, the most signatures at the smallest average.
const CUT_FILE_LEN_BYTES: u64 = 7 << 30;

/// As many as are split at a time.
const CUT_FILES: [&[u8]; 2] = [b"file", b"file2"];

/// A payload that no content of a few chunks can have.
const BOMB_LEN_BYTES: u64 = 34;

/// More often than a victim believes a chunk that fails.
const ATTEMPTS: usize = 4;

/// A sixth of the progress timeout, as everybody does.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(5);

/// Well within the progress timeout.
const DRIP_INTERVAL: Duration = Duration::from_secs(5);
const TRICKLE_INTERVAL: Duration = Duration::from_secs(1);
