//! The journal: what an interrupted run has verified and kept.
//!
//! A file in the destination directory, appended to and locked for as long as the run lasts. It is a hint, not a
//! promise: it is never synced, a torn end is cut away, and whatever it says is kept is read and hashed
//! again before it counts. So nothing but time is lost when it is wrong.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use shiplane_wire::{DigestAlgorithm, escape};

use crate::{
    buffers::CountedMemory,
    dirs::DirHandle,
    error::{DestinationError, Operation},
    journal_state::JournalState,
    names::JobKey,
    platform::{self, Kind, Locked},
    record::{self, Batch, Next, read_next},
};

/// The open and locked journal.
#[derive(Debug)]
pub(super) struct Journal {
    root: Arc<DirHandle>,
    file: File,
    name: String,
    /// Its whole path, for messages.
    shown: PathBuf,
    /// Where the next record goes; what may be behind it is of a write that failed.
    len_bytes: u64,
}

/// A journal as it was found.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) earlier: JournalState,
    /// Another run was here before. Its journal may have lost its end, or all there was in it, so that
    /// there may be temporary files that no journal names.
    pub(super) was_there: bool,
}

impl Journal {
    /// Opens or creates the journal of `key` in `root`, whose path is `shown`, locks it and reads what is
    /// there. One that is malformed, or that somebody else put there, is moved aside.
    /// What was kept under another digest, or by an earlier version, is begun anew. What it leaves is counted in `memory`.
    pub(super) fn open(
        root: &Arc<DirHandle>,
        key: JobKey,
        digest: DigestAlgorithm,
        shown: &Path,
        memory: &mut dyn CountedMemory,
    ) -> Result<Opened, DestinationError> {
        let shown = shown.join(key.journal_name());
        let mut was_there = false;
        for _ in 0..OPEN_ATTEMPTS {
            match try_open(root, key, digest, &shown, memory)
                .map_err(|error| failed(Operation::Open, &shown, error))?
            {
                Attempt::Opened(mut opened) => {
                    opened.was_there |= was_there;
                    return Ok(*opened);
                }
                Attempt::Held => {
                    let journal = escape(shown.as_os_str().as_encoded_bytes()).to_string();
                    return Err(DestinationError::Busy { journal });
                }
                Attempt::NoMemory => return Err(DestinationError::NoMemory),
                Attempt::Gone => {}
                Attempt::Foreign => {
                    set_aside(&root.dir, key).map_err(|error| failed(Operation::Rename, &shown, error))?;
                    was_there = true;
                }
            }
        }
        Err(failed(Operation::Lock, &shown, io::ErrorKind::ResourceBusy.into()))
    }

    /// Whether nothing was ever recorded.
    pub(super) fn is_pristine(&self) -> bool {
        self.len_bytes == HEADER_LEN_BYTES
    }

    /// Appends `batch` in one write. After an error nothing of it counts, and appending may go on.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<(), DestinationError> {
        let bytes = batch.as_bytes();
        platform::write_all_at(&self.file, self.len_bytes, bytes)
            .map_err(|error| failed(Operation::Write, &self.shown, error))?;
        self.len_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Removes the journal: the job is done, or never began. It may be gone already, by somebody else's hand.
    pub(super) fn remove(&self) -> Result<(), DestinationError> {
        platform::remove_if_there(&self.root.dir, self.name.as_bytes())
            .map_err(|error| failed(Operation::Remove, &self.shown, error))
    }

    /// Name of the file in the destination directory.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        platform::unlock(&self.file);
    }
}

enum Attempt {
    Opened(Box<Opened>),
    /// Another process has it.
    Held,
    /// Its owner removed it between our opening and locking it.
    Gone,
    /// Not one that this program wrote.
    Foreign,
    /// What it leaves finds no memory now.
    NoMemory,
}

fn try_open(
    root: &Arc<DirHandle>,
    key: JobKey,
    digest: DigestAlgorithm,
    shown: &Path,
    memory: &mut dyn CountedMemory,
) -> io::Result<Attempt> {
    let (dir, name) = (&root.dir, key.journal_name());
    let (file, was_there) = match platform::open_locked(dir, name.as_bytes()) {
        Ok(Locked::New(file)) => (file, false),
        Ok(Locked::Found(file)) => (file, true),
        Ok(Locked::Held) => return Ok(Attempt::Held),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Gone),
        Err(error) => {
            // A link, directory or socket in its place fails to open.
            let found = platform::stat(dir, name.as_bytes());
            let is_foreign = found.is_ok_and(|stat| stat.kind != Kind::File);
            return if is_foreign { Ok(Attempt::Foreign) } else { Err(error) };
        }
    };
    let opened = platform::stat_open(&file)?;
    match platform::stat(dir, name.as_bytes()) {
        Ok(named) if (named.device, named.inode) == (opened.device, opened.inode) => {}
        Ok(_) => return Ok(Attempt::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Gone),
        Err(error) => return Err(error),
    }
    // Another name for the file would let our writes appear elsewhere.
    if opened.kind != Kind::File || opened.links > 1 {
        return Ok(Attempt::Foreign);
    }
    match read_header(&file, key, digest)? {
        Header::Ours => {}
        Header::Foreign => return Ok(Attempt::Foreign),
        Header::New => {
            platform::set_len(&file, 0)?;
            platform::write_all_at(&file, 0, &header_of(key, digest))?;
        }
    }
    let Replayed { earlier, len_bytes } = match replay(&file, memory)? {
        Ok(replayed) => replayed,
        Err(failed) => return Ok(failed),
    };
    platform::set_len(&file, len_bytes)?;
    let journal = Journal { root: Arc::clone(root), file, name, shown: shown.into(), len_bytes };
    Ok(Attempt::Opened(Box::new(Opened { journal, earlier, was_there })))
}

enum Header {
    Ours,
    Foreign,
    /// Nothing yet, or cut off while it was created.
    New,
}

fn read_header(file: &File, key: JobKey, digest: DigestAlgorithm) -> io::Result<Header> {
    let mut found = Vec::new();
    file.take(HEADER_LEN_BYTES).read_to_end(&mut found)?;
    let expected = header_of(key, digest);
    // What it keeps cannot be checked: by an earlier version, or under another digest.
    let is_older = found.starts_with(MAGIC_OF_VERSION_1) || is_of_other_digest(&found, key, digest);
    // A power cut may leave the file with its size and without its bytes.
    let is_blank = found.iter().all(|byte| *byte == 0);
    Ok(if found == expected {
        Header::Ours
    } else if expected.starts_with(&found) || is_blank || is_older {
        Header::New
    } else {
        Header::Foreign
    })
}

struct Replayed {
    earlier: JournalState,
    len_bytes: u64,
}

/// Reads the records behind the header, unless they are not ours or find no memory.
fn replay(file: &File, memory: &mut dyn CountedMemory) -> io::Result<Result<Replayed, Attempt>> {
    let mut input = BufReader::with_capacity(READ_BUFFER_LEN_BYTES, file);
    input.seek(io::SeekFrom::Start(HEADER_LEN_BYTES))?;
    let mut replayed = Replayed { earlier: JournalState::default(), len_bytes: HEADER_LEN_BYTES };
    let mut body = Vec::new();
    loop {
        match read_next(&mut input, &mut body)? {
            Next::Record { record, len_bytes } => {
                if replayed.earlier.apply(record).is_none() {
                    return Ok(Err(Attempt::Foreign));
                }
                if !memory.resize(replayed.earlier.cost_bytes()) {
                    return Ok(Err(Attempt::NoMemory));
                }
                replayed.len_bytes += len_bytes;
            }
            Next::End => return Ok(Ok(replayed)),
            Next::Malformed => return Ok(Err(Attempt::Foreign)),
        }
    }
}

/// For the fuzzer: records, each after its length, which get their check here, or no input would come past
/// it. Whatever they say, they are replayed or found to be no journal of ours.
pub fn fuzz_journal(data: &[u8]) {
    let (mut rest, mut journal) = (data, Vec::new());
    while let Some((&len, after)) = rest.split_first() {
        let (body, after) = after.split_at(after.len().min(len.into()));
        record::put_raw(&mut journal, body);
        rest = after;
    }
    for input in [data, &journal] {
        let (mut input, mut earlier, mut body) = (input, JournalState::default(), Vec::new());
        while let Ok(Next::Record { record, .. }) = read_next(&mut input, &mut body) {
            if earlier.apply(record).is_none() {
                break;
            }
        }
        let fresh = earlier.fresh_id();
        assert!(earlier.take_unsettled().iter().all(|(id, _)| *id < fresh), "numbers are not used twice");
        assert!(earlier.take_unsettled().is_empty());
    }
}

fn set_aside(dir: &Dir, key: JobKey) -> io::Result<()> {
    let name = key.journal_name();
    for attempt in 0..ASIDE_ATTEMPTS {
        match platform::rename_new(dir, name.as_bytes(), key.aside_name(attempt).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn failed(operation: Operation, path: &Path, error: io::Error) -> DestinationError {
    DestinationError::io(operation, path.as_os_str().as_encoded_bytes(), error)
}

fn header_of(key: JobKey, digest: DigestAlgorithm) -> Vec<u8> {
    [MAGIC.as_slice(), &[digest.bit()], key.as_bytes()].concat()
}

fn is_of_other_digest(header: &[u8], key: JobKey, digest: DigestAlgorithm) -> bool {
    let all = [DigestAlgorithm::Sha256, DigestAlgorithm::Blake3];
    all.into_iter().any(|other| other != digest && header == header_of(key, other))
}

const MAGIC: &[u8; 16] = b"shiplane-jrnl 2\n";

/// Its digests were SHA-256, and its header did not say so.
const MAGIC_OF_VERSION_1: &[u8; 16] = b"shiplane-jrnl 1\n";

const HEADER_LEN_BYTES: u64 = 16 + 1 + 32;

/// How often to begin again when the journal is moved aside or removed by its owner meanwhile.
const OPEN_ATTEMPTS: u32 = 8;

/// More journals than this were never set aside in one place by accident.
const ASIDE_ATTEMPTS: u32 = 100;

/// A journal of a large file has thousands of small records.
const READ_BUFFER_LEN_BYTES: usize = 64 << 10;
