//! The file of a user's tickets, from which a restarted server loads the tickets that it has issued.
//!
//! ```text
//! # HASH    EXPIRES     KEYS  RIGHTS      PATH     ROOT                     OWNER...
//! 5f0c...   1795957638  1     read        /photos  2049:131077:/srv/photos  sl1qyqszqg...
//! 9a31...   1795960000  any   read,write  /        2049:131077:/srv/photos
//! ```
//!
//! HASH is the SHA-256 of the secret, which itself is stored nowhere. EXPIRES is in seconds of Unix time. ROOT is what is
//! served (device, inode and path): a ticket for one directory never opens another that a server of the same user serves
//! later. Paths are percent-encoded.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use percent_encoding::{percent_decode_str, percent_encode};
use ring::digest;
use shiplane_files::internals::{EditLock, identity_of, read_file, replace_file};
use shiplane_transport::PeerId;
use shiplane_wire::RelPath;

use crate::grant::{Grant, Scope};
use crate::peers::ESCAPED;
use crate::ticket::{TicketSecret, decode_path};

/// The tickets of a user, for servers and for the commands that list and revoke them. Holds nothing open.
#[derive(Debug, Clone)]
pub struct TicketsFile {
    path: PathBuf,
}

/// A ticket as it is stored. Its text is its line in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTicket {
    /// Of the secret.
    pub hash: SecretHash,
    /// When it ends, in whole seconds.
    pub expires_at: SystemTime,
    /// How many keys may redeem it; `None` is any number.
    pub max_owners: Option<u32>,
    /// What it allows.
    pub grant: Grant,
    /// Where.
    pub root: RootId,
    /// The keys that have redeemed it. Not recorded if any number may.
    pub owners: Vec<PeerId>,
}

/// The SHA-256 of a ticket's secret. It reveals nothing of 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash([u8; 32]);

/// What a server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootId {
    device: u64,
    inode: u64,
    path: Vec<u8>,
}

/// Why the tickets file cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TicketsError {
    /// It cannot be read, or not be replaced; it is as it was.
    #[error("cannot {} {}: {source}", if *.writing { "write" } else { "read" }, .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Whether it was to be replaced.
        writing: bool,
        /// What the system said.
        source: io::Error,
    },
    /// Another user could add tickets to it.
    #[error("{} is writable by other users (mode {mode:04o}); run chmod 600 on it", .path.display())]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line that is no ticket, or too many of them.
    #[error("{}, line {line}: this is not a ticket; remove the line, or the file to revoke all tickets", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

impl TicketsFile {
    /// The file at this path, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// All tickets that have not expired, in the order in which they were made; none if there is no file.
    ///
    /// # Errors
    /// See [`TicketsError`].
    pub fn read(&self) -> Result<Vec<StoredTicket>, TicketsError> {
        let content = match read_file(&self.path, MAX_FILE_LEN_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|source| self.failed(false, source))?,
        };
        if let Some(mode) = content.writable_by_others {
            return Err(TicketsError::WritableByOthers { path: self.path.clone(), mode });
        }
        let now = SystemTime::now();
        let mut tickets = Vec::new();
        for (index, line) in content.bytes.split(|byte| *byte == b'\n').enumerate() {
            let malformed = || TicketsError::Malformed { path: self.path.clone(), line: index + 1 };
            let line = str::from_utf8(line).map_err(|_| malformed())?.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let ticket: StoredTicket = line.parse().map_err(|_| malformed())?;
            tickets.extend((ticket.expires_at > now).then_some(ticket));
        }
        Ok(tickets)
    }

    /// Changes the tickets. What `change` gives is durable when this returns; expired ones are dropped. Other
    /// processes wait meanwhile.
    ///
    /// # Errors
    /// See [`TicketsError`]; the file is as it was then.
    pub fn edit<R>(&self, change: impl FnOnce(&mut Vec<StoredTicket>) -> R) -> Result<R, TicketsError> {
        let _lock = EditLock::take(&self.path).map_err(|source| self.failed(true, source))?;
        let before = self.read()?;
        let mut tickets = before.clone();
        let result = change(&mut tickets);
        if tickets != before {
            let lines = tickets.iter().map(|ticket| format!("{ticket}\n"));
            let text = std::iter::once(HEADER.to_owned()).chain(lines).collect::<String>();
            replace_file(&self.path, text.as_bytes()).map_err(|source| self.failed(true, source))?;
        }
        Ok(result)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, writing: bool, source: io::Error) -> TicketsError {
        TicketsError::Io { path: self.path.clone(), writing, source }
    }
}

impl StoredTicket {
    /// The name that people give it: the first digits of its hash.
    #[must_use]
    pub fn id(&self) -> String {
        HEXLOWER.encode(&self.hash.0[..ID_LEN_BYTES])
    }

    /// The path that it is limited to, relative to the root; empty for all of it.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.grant.paths.paths().and_then(<[_]>::first).map_or(b"", RelPath::as_bytes)
    }
}

impl SecretHash {
    /// The hash of a secret.
    #[must_use]
    pub fn of(secret: &TicketSecret) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret.expose()).as_ref());
        Self(hash)
    }

    /// The bytes, for a comparison in constant time.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl RootId {
    /// The file or directory at `path` now.
    ///
    /// # Errors
    /// If there is nothing, or it cannot be examined.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (device, inode) = identity_of(path)?;
        let path = path.canonicalize()?.into_os_string().into_encoded_bytes();
        Ok(Self { device, inode, path })
    }

    /// The path, as it was when the server began.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl fmt::Display for StoredTicket {
    /// The line of the file, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        write!(f, "{} {secs} ", HEXLOWER.encode(&self.hash.0))?;
        match self.max_owners {
            None => f.write_str("any")?,
            Some(keys) => write!(f, "{keys}")?,
        }
        write!(f, " {} /{}", self.grant.rights(), percent_encode(self.path(), ESCAPED))?;
        let RootId { device, inode, path } = &self.root;
        write!(f, " {device}:{inode}:{}", percent_encode(path, ESCAPED))?;
        self.owners.iter().try_for_each(|owner| write!(f, " {owner}"))
    }
}

/// Not a line of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotATicket;

impl FromStr for StoredTicket {
    type Err = NotATicket;

    fn from_str(line: &str) -> Result<Self, NotATicket> {
        let mut words = line.split_ascii_whitespace();
        let mut word = || words.next().ok_or(NotATicket);
        let hash = HEXLOWER.decode(word()?.as_bytes()).map_err(|_| NotATicket)?;
        let hash = SecretHash(hash.try_into().map_err(|_| NotATicket)?);
        let expires_secs: u64 = word()?.parse().map_err(|_| NotATicket)?;
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(expires_secs)).ok_or(NotATicket)?;
        let max_owners = match word()? {
            "any" => None,
            keys => Some(keys.parse().map_err(|_| NotATicket)?),
        };
        let (read, write) =
            Grant::parse_rights(word()?).filter(|rights| *rights != (false, false)).ok_or(NotATicket)?;
        let path = word()?.strip_prefix('/').ok_or(NotATicket)?;
        let path = decode_path(path).map_err(|_| NotATicket)?;
        let grant = Grant { read, write, paths: Scope::below(&path).map_err(|_| NotATicket)? };
        let mut root = word()?.splitn(3, ':');
        let mut part = || root.next().ok_or(NotATicket);
        let device = part()?.parse().map_err(|_| NotATicket)?;
        let inode = part()?.parse().map_err(|_| NotATicket)?;
        let path = percent_decode_str(part()?).collect();
        let root = RootId { device, inode, path };
        let owners = words.map(|id| id.parse().map_err(|_| NotATicket)).collect::<Result<_, _>>()?;
        Ok(Self { hash, expires_at, max_owners, grant, root, owners })
    }
}

/// For the fuzzer: a line that is understood says the same when it is written again.
pub fn fuzz_stored_ticket(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(ticket) = text.parse::<StoredTicket>() else { return };
    assert_eq!(ticket.to_string().parse(), Ok(ticket));
}

/// 4 bytes: with a thousand tickets, one chance in four million that two are called alike.
const ID_LEN_BYTES: usize = 4;

/// 4 MiB: 1,024 tickets of some owners each.
const MAX_FILE_LEN_BYTES: u64 = 4 << 20;

const HEADER: &str = "\
# Tickets of shiplane: HASH EXPIRES KEYS RIGHTS PATH ROOT OWNER...
# Written by the program: see shiplane ticket list, and shiplane ticket revoke.
";

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn ticket(byte: u8, lifetime: Duration) -> StoredTicket {
        let secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        StoredTicket {
            hash: SecretHash::of(&TicketSecret::from_bytes([byte; 16])),
            expires_at: UNIX_EPOCH + Duration::from_secs(secs) + lifetime,
            max_owners: Some(2),
            grant: Grant {
                read: true,
                write: byte.is_multiple_of(2),
                paths: Scope::below(b"a b/\xff").unwrap(),
            },
            root: RootId {
                device: 3,
                inode: 4,
                path: if byte == 1 { b"/" } else { &b"/srv/x y:\n"[..] }.to_vec(),
            },
            owners: vec![PeerId::from_bytes([byte; 32])],
        }
    }

    #[test]
    fn a_line_says_all_of_a_ticket() {
        let hour = Duration::from_secs(3600);
        let any = StoredTicket { max_owners: None, owners: Vec::new(), ..ticket(2, hour) };
        let all = StoredTicket { grant: Grant::read_only(Scope::everything()), ..ticket(1, hour) };
        for stored in [ticket(1, hour), any, all] {
            assert_eq!(stored.to_string().parse(), Ok(stored));
        }
        for broken in ["", "00 1 1 read / 1:2:/", "x", "# HASH"] {
            assert_eq!(broken.parse::<StoredTicket>(), Err(NotATicket), "{broken}");
        }
    }

    #[test]
    fn the_file_keeps_valid_tickets_and_no_secret() {
        let dir = TempDir::new().unwrap();
        let file = TicketsFile::at(dir.path().join("state/tickets"));
        assert_eq!(file.read().unwrap(), []);
        let (lives, expired) = (ticket(1, Duration::from_secs(60)), ticket(2, Duration::ZERO));
        file.edit(|tickets| tickets.extend([lives.clone(), expired])).unwrap();
        assert_eq!(file.read().unwrap(), std::slice::from_ref(&lives));
        assert!(!std::fs::read_to_string(&file.path).unwrap().contains(&"01".repeat(16)));
        file.edit(|tickets| tickets.retain(|ticket| ticket.id() != lives.id())).unwrap();
        assert_eq!(file.read().unwrap(), []);
        std::fs::write(&file.path, "# x\nnonsense\n").unwrap();
        assert!(matches!(file.read(), Err(TicketsError::Malformed { line: 2, .. })));
        assert!(file.edit(|_| ()).is_err(), "a file that cannot be parsed is not overwritten");
    }

    #[test]
    fn a_root_is_a_directory_and_not_just_a_path() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("served");
        std::fs::create_dir(&path).unwrap();
        let before = RootId::of(&path).unwrap();
        assert_eq!(RootId::of(&path).unwrap(), before);
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_ne!(RootId::of(&path).unwrap(), before);
    }
}
