//! Remembers the sender of a code, so that the same command resumes.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use shiplane_files::internals::{read_file, replace_file};
use shiplane_transport::PeerId;
use shiplane_wire::Digest;

/// The senders whose codes were proven and whose files have not all arrived: a small file each, named by a hash of the
/// code. Its methods block.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedCodes {
    directory: PathBuf,
}

/// A sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) id: PeerId,
    /// Where it was found.
    pub(crate) addr: SocketAddr,
}

impl ReceivedCodes {
    pub(crate) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Whose code it was. A file that cannot be read or understood counts for no one.
    pub(crate) fn find(&self, code: &str) -> Option<Sender> {
        let file = read_file(&self.path(code), MAX_FILE_LEN_BYTES).ok()?;
        if file.writable_by_others.is_some() {
            return None;
        }
        parse(&file.bytes)
    }

    /// Writes it down, and removes what is too old to be of use.
    pub(crate) fn remember(&self, code: &str, sender: &Sender) -> io::Result<()> {
        self.remove_old();
        let text = format!("{VERSION}\n{}\n{}\n", sender.id, sender.addr);
        replace_file(&self.path(code), text.as_bytes())
    }

    /// Forgets it: everything has arrived.
    pub(crate) fn forget(&self, code: &str) {
        let _ = fs::remove_file(self.path(code));
    }

    fn remove_old(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if age.is_some_and(|age| age > MAX_AGE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, code: &str) -> PathBuf {
        let mut name = Digest::blake3(code.as_bytes()).to_string();
        name.truncate(NAME_LEN);
        self.directory.join(name)
    }
}

fn parse(bytes: &[u8]) -> Option<Sender> {
    let mut lines = str::from_utf8(bytes).ok()?.lines();
    if lines.next()? != VERSION {
        return None;
    }
    let sender = Sender { id: lines.next()?.parse().ok()?, addr: lines.next()?.parse().ok()? };
    lines.next().is_none().then_some(sender)
}

const VERSION: &str = "shiplane code 1";

/// 128 bits of the hash.
const NAME_LEN: usize = 32;

/// Far above two lines.
const MAX_FILE_LEN_BYTES: u64 = 1024;

/// Seven days: no sender waits longer to be resumed.
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_remembered_by_its_code_until_it_is_forgotten() {
        let dir = tempfile::TempDir::new().unwrap();
        let codes = ReceivedCodes::at(&dir.path().join("received"));
        let addr = "[fe80::1%3]:7514".parse().unwrap();
        let sender = Sender { id: PeerId::from_bytes([7; 32]), addr };
        assert_eq!(codes.find("7-a-b"), None);
        codes.remember("7-a-b", &sender).unwrap();
        assert_eq!((codes.find("7-a-b"), codes.find("7-a-c")), (Some(sender), None));
        let name = fs::read_dir(dir.path().join("received")).unwrap().next().unwrap().unwrap().file_name();
        assert!(!name.to_string_lossy().contains("7-a-b"));
        codes.forget("7-a-b");
        assert_eq!(codes.find("7-a-b"), None);
    }

    #[test]
    fn an_index_without_an_entry_has_no_owner() {
        let id = PeerId::from_bytes([7; 32]);
        for text in
            ["", "shiplane code 2\n", &format!("{VERSION}\n{id}\n"), &format!("{VERSION}\nx\n1.1.1.1:1\n")]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(format!("{VERSION}\n{id}\n1.1.1.1:1\nmore\n").as_bytes()), None);
        assert!(parse(format!("{VERSION}\n{id}\n1.1.1.1:1\n").as_bytes()).is_some());
    }
}
