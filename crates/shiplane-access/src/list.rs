//! The peers file on disk, and the list loaded from it; errors refuse everyone.

use std::io;
use std::path::{Path, PathBuf};

use shiplane_files::internals::{EditLock, read_file, replace_file};
use shiplane_transport::PeerId;

use crate::peers::{LineFault, PeerName, PeersText, StandingPeer};

/// The peers file, for the commands that show and edit it. Holds nothing open.
#[derive(Debug, Clone)]
pub struct PeersFile {
    path: PathBuf,
}

/// The standing peers as a serving program knows them.
///
/// Loading never fails: a file that cannot be read or understood makes an empty list,
/// says so ([`error`](Self::error)), and makes `AccessControl` refuse
/// everyone. No file at all is an empty list.
#[derive(Debug)]
pub struct AccessList {
    peers: Result<Vec<StandingPeer>, PeersError>,
}

/// Why the peers file cannot be used. Its owner has to mend it; until then everyone is refused.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another user could add keys to it.
    #[error("{} is writable by other users (mode {mode:04o}), so no peer is admitted; run chmod 600 on it", .path.display())]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than any sensible list.
    #[error("{} is longer than {max_bytes} bytes", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        max_bytes: usize,
    },
    /// A line that cannot be understood.
    #[error("{}, line {line}: {fault}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
}

/// Why the peers file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// A broken file is mended by hand, not edited.
    #[error(transparent)]
    List(#[from] PeersError),
    /// The name stands for another key. Never overwritten: remove the name first if the key has
    /// really changed.
    #[error("the name {name} belongs to another key, {known}")]
    NameTaken {
        /// The name.
        name: PeerName,
        /// The key it stands for.
        known: PeerId,
    },
    /// The key has another name.
    #[error("this key already has the name {name}")]
    IdTaken {
        /// That name.
        name: PeerName,
    },
    /// There is no such peer to remove.
    #[error("there is no peer {name}")]
    NoSuchPeer {
        /// The name.
        name: PeerName,
    },
    /// The file could not be replaced; it is as it was.
    #[error("cannot write {}: {source}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PeersFile {
    /// The file at this path, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The peers in the order of the file; none if there is no file.
    ///
    /// # Errors
    /// See [`PeersError`].
    pub fn read(&self) -> Result<Vec<StandingPeer>, PeersError> {
        Ok(self.text()?.peers().cloned().collect())
    }

    /// Adds a peer, or gives one whose name and key are there already other rights or addresses, and returns what
    /// was there before. Without an address it keeps those that it has. Comments and other lines stay as they are; a crash leaves the old file or the new one.
    ///
    /// # Errors
    /// See [`EditError`]; the file is unchanged then.
    pub fn add(&self, peer: &StandingPeer) -> Result<Option<StandingPeer>, EditError> {
        let (lock, mut text) = self.edit()?;
        let mut before = None;
        for known in text.peers() {
            match (known.name == peer.name, known.id == peer.id) {
                (true, true) => before = Some(known.clone()),
                (true, false) => {
                    let (name, known) = (known.name.clone(), known.id);
                    return Err(EditError::NameTaken { name, known });
                }
                (false, true) => {
                    return Err(EditError::IdTaken { name: known.name.clone() });
                }
                (false, false) => {}
            }
        }
        // Other rights are no other addresses.
        let known_at = before.as_ref().and_then(|before| before.at.clone());
        let peer = StandingPeer { at: peer.at.clone().or(known_at), ..peer.clone() };
        if before.as_ref() != Some(&peer) {
            text.put(&peer);
            self.replace(&text, &lock)?;
        }
        Ok(before)
    }

    /// Takes a peer out and returns it.
    ///
    /// # Errors
    /// See [`EditError`]; the file is unchanged then.
    pub fn remove(&self, name: &PeerName) -> Result<StandingPeer, EditError> {
        let (lock, mut text) = self.edit()?;
        let peer = text.take(name).ok_or_else(|| EditError::NoSuchPeer { name: name.clone() })?;
        self.replace(&text, &lock)?;
        Ok(peer)
    }

    fn edit(&self) -> Result<(EditLock, PeersText), EditError> {
        // The lock first: what is read must still be there when it is written back.
        let lock = EditLock::take(&self.path).map_err(|source| self.unwritable(source))?;
        Ok((lock, self.text()?))
    }

    /// The lock keeps edits from being lost.
    fn replace(&self, text: &PeersText, _lock: &EditLock) -> Result<(), EditError> {
        replace_file(&self.path, &text.to_bytes()).map_err(|source| self.unwritable(source))
    }

    fn unwritable(&self, source: io::Error) -> EditError {
        EditError::Unwritable { path: self.path.clone(), source }
    }

    fn text(&self) -> Result<PeersText, PeersError> {
        let path = || self.path.clone();
        let content = match read_file(&self.path, MAX_FILE_LEN_BYTES as u64) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PeersText::default()),
            read => read.map_err(|source| PeersError::Unreadable { path: path(), source })?,
        };
        if let Some(mode) = content.writable_by_others {
            return Err(PeersError::WritableByOthers { path: path(), mode });
        }
        if content.bytes.len() > MAX_FILE_LEN_BYTES {
            return Err(PeersError::TooLong { path: path(), max_bytes: MAX_FILE_LEN_BYTES });
        }
        PeersText::parse(&content.bytes).map_err(|(line, fault)| PeersError::Malformed {
            path: path(),
            line,
            fault,
        })
    }
}

impl AccessList {
    /// Loads the file; what is wrong with it is in [`error`](Self::error).
    #[must_use]
    pub fn load(path: &Path) -> Self {
        Self { peers: PeersFile::at(path).read() }
    }

    /// An empty list.
    pub(super) fn empty() -> Self {
        Self { peers: Ok(Vec::new()) }
    }

    /// Why this list refuses everyone, if it does.
    #[must_use]
    pub fn error(&self) -> Option<&PeersError> {
        self.peers.as_ref().err()
    }

    /// The peer with this key; `None` if the list is broken.
    #[must_use]
    pub fn find(&self, id: &PeerId) -> Option<&StandingPeer> {
        self.peers().iter().find(|peer| peer.id == *id)
    }

    /// All peers; none if the list is broken.
    #[must_use]
    pub fn peers(&self) -> &[StandingPeer] {
        self.peers.as_deref().unwrap_or_default()
    }
}

/// Some thousands of peers. A server reads the file once a second.
const MAX_FILE_LEN_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::grant::{Grant, Scope};

    struct Home {
        dir: TempDir,
        file: PeersFile,
    }

    impl Home {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let file = PeersFile::at(dir.path().join("home/peers"));
            Self { dir, file }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("home/peers")
        }
    }

    fn peer(name: &str, byte: u8) -> StandingPeer {
        let (name, id) = (name.parse().unwrap(), PeerId::from_bytes([byte; 32]));
        StandingPeer { name, id, grant: Grant::read_only(Scope::everything()), at: None }
    }

    #[test]
    fn peers_come_change_and_go() {
        let home = Home::new();
        assert_eq!(home.file.read().unwrap(), []);
        assert_eq!(home.file.add(&peer("a", 1)).unwrap(), None);
        assert_eq!(home.file.add(&peer("b", 2)).unwrap(), None);
        assert_eq!(home.file.add(&peer("a", 1)).unwrap(), Some(peer("a", 1)));
        let mute = StandingPeer { grant: Grant::none(), ..peer("a", 1) };
        assert_eq!(home.file.add(&mute).unwrap(), Some(peer("a", 1)));
        assert_eq!(home.file.read().unwrap(), [mute, peer("b", 2)]);

        assert_eq!(home.file.remove(&"b".parse().unwrap()).unwrap(), peer("b", 2));
        let gone = home.file.remove(&"b".parse().unwrap());
        assert!(matches!(gone, Err(EditError::NoSuchPeer { .. })), "{gone:?}");
        assert_eq!(home.file.read().unwrap().len(), 1);
    }

    #[test]
    fn a_name_never_silently_gets_another_key() {
        let home = Home::new();
        home.file.add(&peer("a", 1)).unwrap();
        let before = fs::read(home.path()).unwrap();

        let changed = home.file.add(&peer("a", 2)).unwrap_err();
        assert!(matches!(&changed, EditError::NameTaken { known, .. } if *known == peer("a", 1).id));
        let renamed = home.file.add(&peer("b", 1)).unwrap_err();
        assert!(matches!(&renamed, EditError::IdTaken { name } if name.as_str() == "a"));
        assert_eq!(fs::read(home.path()).unwrap(), before);
    }

    #[test]
    fn a_broken_peers_file_admits_no_peer_and_is_not_edited() {
        let home = Home::new();
        home.file.add(&peer("a", 1)).unwrap();
        let mut text = fs::read_to_string(home.path()).unwrap();
        text.push_str("nonsense\n");
        fs::write(home.path(), &text).unwrap();

        let refused = home.file.add(&peer("b", 2));
        assert!(matches!(refused, Err(EditError::List(PeersError::Malformed { line: 6, .. }))));
        assert_eq!(fs::read_to_string(home.path()).unwrap(), text);

        let list = AccessList::load(&home.path());
        assert!(list.error().unwrap().to_string().contains("line 6"));
        assert_eq!(list.find(&peer("a", 1).id), None);
        assert_eq!(list.peers(), []);
    }

    #[test]
    fn no_file_is_an_empty_list_and_a_directory_a_broken_one() {
        let home = Home::new();
        assert!(AccessList::load(&home.path()).error().is_none());
        fs::create_dir_all(home.path()).unwrap();
        let list = AccessList::load(&home.path());
        assert!(matches!(list.error(), Some(PeersError::Unreadable { .. })));
    }

    #[test]
    fn a_file_that_is_too_long_is_broken() {
        let home = Home::new();
        // Created by us first, so that the mode does not depend on the umask.
        home.file.add(&peer("a", 1)).unwrap();
        fs::write(home.path(), vec![b'#'; MAX_FILE_LEN_BYTES]).unwrap();
        assert!(AccessList::load(&home.path()).error().is_none());
        fs::write(home.path(), vec![b'#'; MAX_FILE_LEN_BYTES + 1]).unwrap();
        let list = AccessList::load(&home.path());
        assert!(matches!(list.error(), Some(PeersError::TooLong { .. })));
    }

    #[test]
    fn two_writers_lose_nothing() {
        let home = Home::new();
        let file = Arc::new(home.file.clone());
        std::thread::scope(|scope| {
            for byte in 0..8 {
                let file = Arc::clone(&file);
                scope.spawn(move || file.add(&peer(&format!("peer{byte}"), byte)).unwrap());
            }
        });
        assert_eq!(home.file.read().unwrap().len(), 8);
    }

    #[cfg(unix)]
    mod modes {
        use std::os::unix::fs::PermissionsExt;

        use super::*;

        fn mode(path: &Path) -> u32 {
            fs::metadata(path).unwrap().permissions().mode() & 0o7777
        }

        #[test]
        fn the_file_is_private_even_if_its_predecessor_was_not() {
            let home = Home::new();
            home.file.add(&peer("a", 1)).unwrap();
            assert_eq!(mode(&home.path()), 0o600);
            assert_eq!(mode(&home.dir.path().join("home")), 0o700);
            fs::set_permissions(home.path(), fs::Permissions::from_mode(0o644)).unwrap();
            home.file.add(&peer("b", 2)).unwrap();
            assert_eq!(mode(&home.path()), 0o600);
            let left: Vec<_> = fs::read_dir(home.dir.path().join("home"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name.to_string_lossy().contains("tmp"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }

        #[test]
        fn a_file_that_others_can_write_is_not_believed() {
            let home = Home::new();
            home.file.add(&peer("a", 1)).unwrap();
            for others in [0o620, 0o602, 0o666] {
                fs::set_permissions(home.path(), fs::Permissions::from_mode(others)).unwrap();
                let list = AccessList::load(&home.path());
                assert!(matches!(list.error(), Some(PeersError::WritableByOthers { .. })));
                assert_eq!(list.find(&peer("a", 1).id), None);
            }
            fs::set_permissions(home.path(), fs::Permissions::from_mode(0o644)).unwrap();
            assert!(AccessList::load(&home.path()).find(&peer("a", 1).id).is_some());
        }
    }
}
