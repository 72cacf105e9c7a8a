//! A lying provider of a transfer (SPEC 4).

use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use shiplane_wire::{
    BlockSignature, BlockSignatures, Digest, Entry, EntryKind, EscapedPath, Holes, LeftOutReason, LinkTarget,
    Mtime, ProviderRecord, ReceiverRecord, RecordReader, RelPath, Span, TaggedChunk, TransferId, Version,
    limits,
};

use super::Lie;
use crate::peers::Failure;

/// A transfer whose records stream is open.
pub(super) struct Provider {
    connection: quinn::Connection,
    transfer: TransferId,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    reader: RecordReader<ReceiverRecord>,
    /// The name of the one file, where only one was asked for.
    pub(super) only: Option<&'static str>,
    /// Entries that were sent and may be, in bytes (SPEC 4.10).
    sent_bytes: u64,
    admitted_bytes: u64,
    /// Whether the victim waits to be offered chunks (SPEC 4.24).
    is_invited: bool,
    /// Told once a lie that goes on by itself does so.
    pub(super) goes_on: Option<mpsc::Sender<()>>,
}

impl Provider {
    pub(super) fn new(
        connection: quinn::Connection,
        transfer: TransferId,
        (send, recv): (quinn::SendStream, quinn::RecvStream),
        is_invited: bool,
    ) -> Self {
        let (reader, only, goes_on) = (RecordReader::new(), None, None);
        let (sent_bytes, admitted_bytes) = (0, limits::FIRST_ENTRY_BYTES);
        Self {
            connection,
            transfer,
            send,
            recv,
            reader,
            only,
            sent_bytes,
            admitted_bytes,
            is_invited,
            goes_on,
        }
    }

    /// Tells the lie; returns once the victim has ended the transfer.
    pub(super) async fn tell(mut self, lie: Lie, entries: u32) -> Result<(), Failure> {
        if self.is_invited {
            self.say(&[ProviderRecord::OffersEnd]).await?;
        }
        self.play(lie, entries).await?;
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

    async fn play(&mut self, lie: Lie, entries: u32) -> Result<(), Failure> {
        match lie {
            Lie::HugeFile | Lie::HugeStream => self.promise(limits::MAX_FRAME_LEN_BYTES).await,
            Lie::VastFile => self.promise(1 << 46).await,
            Lie::LongDirectories => self.long_paths(EntryKind::Directory, entries).await,
            Lie::UnadmittedEntries => {
                self.admitted_bytes = u64::MAX;
                // Files that never come: a receiver is done with directories, and admits more, as fast as it can.
                self.long_paths(EntryKind::File, entries).await
            }
            Lie::LongFiles => {
                self.long_paths(EntryKind::File, entries).await?;
                self.stay_alive().await
            }
            Lie::EndlessFiles => self.endless(|path| entry(EntryKind::File, path, 0)).await,
            Lie::LongLinks => self.long_links(entries).await,
            Lie::EndlessLinks => self.endless(|path| link(path, b"..")).await,
            Lie::ThroughLink => self.through_link().await,
            Lie::EndlessSkipped => self.endless_skipped().await,
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
                self.list(entry(EntryKind::File, b"late", 1)?).await
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
    async fn promise(&mut self, size_bytes: u64) -> Result<(), Failure> {
        let name = self.name();
        self.list(entry(EntryKind::File, name, size_bytes)?).await?;
        self.say(&[end(1, size_bytes)]).await
    }

    fn name(&self) -> &'static [u8] {
        self.only.unwrap_or("file").as_bytes()
    }

    async fn long_paths(&mut self, kind: EntryKind, entries: u32) -> Result<(), Failure> {
        let size_bytes = u64::from(kind == EntryKind::File);
        let mut parent = Vec::new();
        for _ in 0..LONG_PATH_DEPTH {
            parent.extend([1; limits::MAX_COMPONENT_LEN_BYTES]);
            self.list(entry(EntryKind::Directory, &parent, 0)?).await?;
            parent.push(b'/');
        }
        for number in 0..entries {
            let mut path = parent.clone();
            path.extend([1; limits::MAX_COMPONENT_LEN_BYTES - 8]);
            path.extend(format!("{number:08x}").as_bytes());
            self.list(entry(kind, &path, size_bytes)?).await?;
        }
        let all = u64::from(entries) + LONG_PATH_DEPTH as u64;
        self.say(&[end(all, size_bytes * u64::from(entries))]).await
    }

    /// Entries that `make` makes of their paths.
    async fn endless(&mut self, make: impl Fn(&[u8]) -> Result<Entry, Failure>) -> Result<(), Failure> {
        for number in 0_u64.. {
            self.goes_on_from(number);
            self.list(make(format!("{number}").as_bytes())?).await?;
        }
        Ok(())
    }

    async fn long_links(&mut self, entries: u32) -> Result<(), Failure> {
        let target = [b'x'; limits::MAX_LINK_TARGET_LEN_BYTES];
        for number in 0..entries {
            self.list(link(format!("{number}").as_bytes(), &target)?).await?;
        }
        self.say(&[end(entries.into(), 0)]).await
    }

    async fn through_link(&mut self) -> Result<(), Failure> {
        self.list(link(b"link", b"..")?).await?;
        self.list(entry(EntryKind::File, b"link/file", 0)?).await?;
        self.say(&[end(2, 0)]).await
    }

    async fn endless_skipped(&mut self) -> Result<(), Failure> {
        let path = EscapedPath::new(&[1; limits::MAX_PATH_LEN_BYTES]);
        let record = ProviderRecord::LeftOut { reason: LeftOutReason::Symlink, path };
        for number in 0_u64.. {
            self.goes_on_from(number);
            self.say(std::slice::from_ref(&record)).await?;
        }
        Ok(())
    }

    /// A sign of life every few seconds, as an honest provider gives it, and nothing else.
    async fn stay_alive(&mut self) -> Result<(), Failure> {
        self.goes_on();
        let mut signs = tokio::time::interval(SIGN_OF_LIFE_INTERVAL);
        loop {
            tokio::select! {
                want = self.want() => if want?.is_none() { return Ok(()) },
                _ = signs.tick() => {}
            }
            // With the lowest rate that can be announced, so that the least is expected.
            self.say(&[ProviderRecord::Alive { scanned_entries: 0, bytes_per_second: 1 }]).await?;
        }
    }

    /// Sends the first `percent` of each wanted chunk, and then single bytes, if at all.
    async fn parts(&mut self, percent: u64, then_every: Option<Duration>) -> Result<(), Failure> {
        self.promise(4 * FILE_LEN_BYTES).await?;
        let mut lanes = tokio::task::JoinSet::new();
        while let Some((tag, len_bytes)) = self.want().await? {
            self.goes_on();
            let lens_bytes = [len_bytes, len_bytes / 100 * percent];
            lanes.spawn(part_chunk(self.connection.clone(), tag, lens_bytes, then_every));
        }
        Ok(())
    }

    /// Answers each want with what `make` makes of it, more often than the victim believes.
    async fn chunks(&mut self, make: impl Fn(TaggedChunk, u64) -> Vec<u8>) -> Result<(), Failure> {
        self.promise(FILE_LEN_BYTES).await?;
        let mut lanes = tokio::task::JoinSet::new();
        while let Some((tag, len_bytes)) = self.want().await? {
            lanes.spawn(repeat_chunk(self.connection.clone(), make(tag, len_bytes)));
        }
        Ok(())
    }

    /// Sends all requested block signatures, then signatures that were not requested.
    async fn endless_signatures(&mut self) -> Result<(), Failure> {
        for name in CUT_FILES {
            self.list(entry(EntryKind::File, name, CUT_FILE_LEN_BYTES)?).await?;
        }
        let files = CUT_FILES.len() as u64;
        self.say(&[end(files, files * CUT_FILE_LEN_BYTES)]).await?;
        let mut number = 0_u64;
        loop {
            let Some(record) = self.record().await? else { return Ok(()) };
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
                    part.signatures.push(BlockSignature {
                        len_bytes: u32::try_from(len_bytes)?,
                        digest: invented(number),
                    });
                    at += len_bytes;
                }
                self.say(&[ProviderRecord::Signatures(part)]).await?;
            }
        }
    }

    /// An endless list goes on once the victim is at work on it.
    fn goes_on_from(&mut self, number: u64) {
        if number == ENTRIES_BEFORE_IT_GOES_ON {
            self.goes_on();
        }
    }

    fn goes_on(&mut self) {
        if let Some(goes_on) = self.goes_on.take() {
            // It does so whether anybody waits for it or not.
            let _unheard = goes_on.send(());
        }
    }

    /// Sends an entry as soon as the victim has admitted it.
    async fn list(&mut self, entry: Entry) -> Result<(), Failure> {
        self.sent_bytes += entry.cost_bytes();
        while self.sent_bytes > self.admitted_bytes {
            match self.record().await? {
                Some(ReceiverRecord::Admit { bytes }) => {
                    self.admitted_bytes = self.admitted_bytes.max(bytes);
                }
                Some(_) => {}
                None => return Err("the victim has ended it amidst the list".into()),
            }
        }
        self.say(&[ProviderRecord::Entry(entry)]).await
    }

    async fn say(&mut self, records: &[ProviderRecord]) -> Result<(), Failure> {
        let mut bytes = BytesMut::new();
        for record in records {
            record.encode(&mut bytes)?;
        }
        Ok(self.send.write_chunk(bytes.freeze()).await?)
    }

    /// The next chunk that is wanted, and its length; `None` once the victim has ended its half.
    async fn want(&mut self) -> Result<Option<(TaggedChunk, u64)>, Failure> {
        while let Some(record) = self.record().await? {
            if let ReceiverRecord::WantChunk { index, spans } = record {
                let tag = TaggedChunk { transfer: self.transfer, index };
                return Ok(Some((tag, spans.iter().map(|span: &Span| span.len_bytes).sum())));
            }
        }
        Ok(None)
    }

    /// Cancel-safe.
    async fn record(&mut self) -> Result<Option<ReceiverRecord>, Failure> {
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
) -> Result<(), Failure> {
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
async fn repeat_chunk(connection: quinn::Connection, frame: Vec<u8>) -> Result<(), Failure> {
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

fn entry(kind: EntryKind, path: &[u8], size_bytes: u64) -> Result<Entry, Failure> {
    Ok(Entry {
        kind,
        mode: if kind == EntryKind::File { 0o644 } else { 0o755 },
        size_bytes,
        mtime: Mtime { secs: 1, nanos: 0 },
        version: Version::from_bytes([7; 16]),
        path: RelPath::parse(path)?,
        target: None,
        first: None,
        holes: Holes::default(),
        attributes: None,
    })
}

fn link(path: &[u8], target: &[u8]) -> Result<Entry, Failure> {
    let target = Some(LinkTarget::parse(target)?);
    Ok(Entry { mode: 0o777, target, ..entry(EntryKind::Symlink, path, 0)? })
}

const fn end(entries: u64, total_bytes: u64) -> ProviderRecord {
    ProviderRecord::End { entries, total_bytes }
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
const ENTRIES_BEFORE_IT_GOES_ON: u64 = 1000;

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
