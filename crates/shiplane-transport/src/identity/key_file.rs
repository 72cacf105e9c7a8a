//! Reads the key file strictly and creates it once.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, HEXLOWER};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{Identity, IdentityError, KeyFileStep, PKCS8_PREFIX, PeerId, PrivateKey};

impl Identity {
    /// Loads the identity kept in the file `path`; makes one and keeps it there if there is no
    /// such file.
    ///
    /// The file is a PKCS#8 key in PEM (`openssl pkey -in FILE -noout -text` reads it) below a
    /// comment line that names the peer id. It is created with mode 0600, missing directories
    /// above it with 0700; it and they are durable before this returns. It appears whole or not at
    /// all: processes that race to make it end with the same key, and a crash leaves at most a
    /// stray `.NAME.*.tmp` beside it. Modes are neither set nor checked outside Unix, where
    /// the user's directory has to be private by itself.
    ///
    /// # Errors
    ///
    /// An existing file is never overwritten nor repaired; every variant of [`IdentityError`]
    /// names the file and says what to do.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match Self::load(path) {
            Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        let fresh = Self::generate()?;
        if create(path, &fresh)? {
            return Ok(fresh);
        }
        // Another process was first: its key is this machine's.
        Self::load(path)
    }

    fn load(path: &Path) -> Result<Self, IdentityError> {
        let (private, stated) = read(path)?;
        let identity = Self::from_private(private);
        if stated.is_some_and(|stated| stated != identity.id) {
            return Err(IdentityError::Damaged { path: path.to_owned() });
        }
        Ok(identity)
    }
}

/// Reads the key, and the id that the comment line states if there is one.
fn read(path: &Path) -> Result<(PrivateKey, Option<PeerId>), IdentityError> {
    let failed = |source| io_error(KeyFileStep::Read, path, source);
    let malformed = || IdentityError::Malformed { path: path.to_owned() };
    let file = File::open(path).map_err(failed)?;
    // The open file's mode, not the path's, which may have changed hands since.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(malformed());
    }
    refuse_if_shared(path, &metadata)?;
    // Room for all that is read: a buffer that grew would leave a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * MAX_LEN_BYTES));
    file.take(MAX_LEN_BYTES as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    parse(&text).ok_or_else(malformed)
}

/// Keeps a fresh identity in the file `path`, unless there is one by now: then `false`.
fn create(path: &Path, fresh: &Identity) -> Result<bool, IdentityError> {
    let at = |step| move |source| io_error(step, path, source);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let existing = directory.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(directory).to_owned();
    create_private_directories(directory).map_err(at(KeyFileStep::CreateDirectory))?;

    let temporary = Temporary::beside(path, directory)?;
    write_private(&temporary.0, &render(fresh)).map_err(at(KeyFileStep::Write))?;
    match publish(&temporary.0, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(at(KeyFileStep::Publish)(error)),
    }
    for changed in directory.ancestors() {
        sync_directory(changed).map_err(at(KeyFileStep::Publish))?;
        if changed == existing {
            break;
        }
    }
    Ok(true)
}

fn render(identity: &Identity) -> Zeroizing<Vec<u8>> {
    let mut base64 = Zeroizing::new([0; BASE64_LEN_BYTES]);
    BASE64.encode_mut(identity.pkcs8(), base64.as_mut_slice());
    let id = identity.peer_id().to_string();
    let parts = [COMMENT_START, id.as_bytes(), b"\n", BEGIN, b"\n", base64.as_slice(), b"\n", END, b"\n"];
    // One allocation of the right size; see `read`.
    Zeroizing::new(parts.concat())
}

/// `None` if this is anything but comment lines and one PEM block with an Ed25519 key.
fn parse(text: &[u8]) -> Option<(PrivateKey, Option<PeerId>)> {
    if text.len() > MAX_LEN_BYTES {
        return None;
    }
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    let mut stated = None;
    loop {
        let line = lines.next()?;
        if line == BEGIN {
            break;
        }
        if let Some(id) = line.strip_prefix(COMMENT_START) {
            stated = Some(str::from_utf8(id).ok()?.parse().ok()?);
        } else if !line.starts_with(b"#") {
            return None;
        }
    }
    let base64 = lines.next()?;
    let ended = lines.next()? == END && lines.all(<[u8]>::is_empty);
    if !ended || base64.len() != BASE64_LEN_BYTES {
        return None;
    }
    let mut private = PrivateKey::blank();
    BASE64.decode_mut(base64, private.0.as_mut_slice()).ok()?;
    private.pkcs8().starts_with(&PKCS8_PREFIX).then_some((private, stated))
}

/// For the fuzzer: a file is a key or none.
pub fn fuzz_key_file(data: &[u8]) {
    if let Some((key, _)) = parse(data) {
        assert!(data.len() <= MAX_LEN_BYTES && key.pkcs8().starts_with(&PKCS8_PREFIX));
    }
}

/// A unique temporary name beside the file, removed on drop.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path, directory: &Path) -> Result<Self, IdentityError> {
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| IdentityError::NoRandomness)?;
        let Some(name) = path.file_name() else {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(io_error(KeyFileStep::Write, path, source));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", HEXLOWER.encode(&random)));
        Ok(Self(directory.join(hidden)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already if it was published. If it cannot be removed it is an unused key that only
        // its owner can read.
        drop(fs::remove_file(&self.0));
    }
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

fn create_private_directories(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    retry(|| builder.create(directory))
}

/// Makes a call again that a signal has interrupted.
fn retry(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Gives a file its final name, or fails with `AlreadyExists`.
fn publish(temporary: &Path, path: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        let rename = || Ok(renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE)?);
        let is_missing = |error: &io::Error| {
            let missing = [Errno::NOSYS, Errno::INVAL, Errno::NOTSUP];
            missing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        };
        match retry(rename) {
            // An older kernel or a file system without such a rename.
            Err(error) if is_missing(&error) => {}
            done => return done,
        }
    }
    // The temporary name goes when it is dropped.
    retry(|| fs::hard_link(temporary, path))
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    // The parent of a one-component relative path is the empty path.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn refuse_if_shared(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::NotPrivate { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_if_shared(_: &Path, _: &fs::Metadata) -> Result<(), IdentityError> {
    Ok(())
}

fn io_error(step: KeyFileStep, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { step, path: path.to_owned(), source }
}

/// What precedes the peer id in the first line. Its claim is checked against the key: it costs a
/// line and notices a damaged or mixed-up file, which base64 alone does not.
const COMMENT_START: &[u8] = b"# shiplane identity ";
const BEGIN: &[u8] = b"-----BEGIN PRIVATE KEY-----";
const END: &[u8] = b"-----END PRIVATE KEY-----";

/// 48 bytes in base64: exactly one line of PEM (RFC 7468 section 3).
const BASE64_LEN_BYTES: usize = 64;

/// Ours have 201 bytes; the rest is room for a person's own comments.
const MAX_LEN_BYTES: usize = 4096;
