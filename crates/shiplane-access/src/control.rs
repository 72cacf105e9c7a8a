//! Access control: decides by tickets and standing peers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use std::{io, thread};

use shiplane_files::internals::read_file;

use shiplane_transport::{Admission, PeerId, Trust};

use crate::grant::{Denied, Grant, Right, decide};
use crate::list::{AccessList, PeersError};
use crate::tickets::TicketBook;

/// Decides who may connect and what each may do. One per serving process, shared in an [`Arc`].
///
/// ```no_run
/// # use std::{path::Path, sync::Arc, time::{Duration, Instant}};
/// # use shiplane_access::internals::{AccessControl, Grant, Scope};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let access = Arc::new(AccessControl::open(Path::new("/home/me/.config/shiplane/peers")));
/// if let Some(problem) = access.broken_list() {
///     eprintln!("{problem}; no peer is admitted");
/// }
/// let everything = Grant::read_only(Scope::everything());
/// let secret = access.tickets().issue(everything, Duration::from_secs(3600), Instant::now())?;
/// let trust = AccessControl::trust(&access); // for the endpoint
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct AccessControl {
    /// `None`: there are no standing peers.
    path: Option<PathBuf>,
    list: RwLock<Arc<AccessList>>,
    tickets: TicketBook,
}

/// What [`AccessControl::reload_if_changed`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reload {
    /// Whether the rules are other than before.
    pub changed: bool,
    /// The keys that may now do less than before. Close their sessions: a peer that still has some
    /// right connects again and finds the new rules.
    pub revoked: Vec<PeerId>,
    /// Why everyone is refused from now on, once, when the file breaks.
    pub broken: Option<Broken>,
}

/// The message of a [`PeersError`], for it to be printed or logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(String);

impl AccessControl {
    /// Loads the peers file. A broken one admits no peer, see [`broken_list`](Self::broken_list);
    /// a missing one lets in only those with tickets.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let list = RwLock::new(Arc::new(AccessList::load(path)));
        Self { path: Some(path.to_owned()), list, tickets: TicketBook::new() }
    }

    /// Admits only peers with tickets, not the standing peers.
    #[must_use]
    pub fn without_peers() -> Self {
        Self { path: None, list: RwLock::new(Arc::new(AccessList::empty())), tickets: TicketBook::new() }
    }

    /// As [`open`](Self::open), with these tickets.
    #[must_use]
    pub fn with_tickets(self, tickets: TicketBook) -> Self {
        Self { tickets, ..self }
    }

    /// The tickets, to issue and to redeem.
    #[must_use]
    pub fn tickets(&self) -> &TicketBook {
        &self.tickets
    }

    /// Why everyone is refused, if the peers file is broken.
    #[must_use]
    pub fn broken_list(&self) -> Option<Broken> {
        self.list().error().map(Broken::new)
    }

    /// Whether this key may connect (SPEC 6.2, 6.3): trusted with a live ticket or standing rights,
    /// a guest while a ticket waits for its owner, else refused. While the peers file is broken
    /// everyone is refused, the owners of tickets too.
    #[must_use]
    pub fn admit(&self, peer: &PeerId, now: Instant) -> Admission {
        let list = self.list();
        if list.error().is_some() {
            return Admission::Refused;
        }
        let is_standing = list.find(peer).is_some_and(|peer| !peer.grant.is_none());
        if is_standing || self.tickets.is_owner(peer, now) {
            Admission::Trusted
        } else if self.tickets.open_for_strangers(now) {
            Admission::Guest
        } else {
            Admission::Refused
        }
    }

    /// The name of this key in the peers file.
    #[must_use]
    pub fn name_of(&self, peer: &PeerId) -> Option<String> {
        self.list().find(peer).map(|peer| peer.name.to_string())
    }

    /// Whether this key may read `path`, which is relative to what is served and empty for all of
    /// it.
    ///
    /// # Errors
    /// The reason, fit to be told to the peer.
    pub fn may_read(&self, peer: &PeerId, path: &[u8], now: Instant) -> Result<(), Denied> {
        self.may(Right::Read, peer, path, now)
    }

    /// Whether this key may write to `path`; see [`may_read`](Self::may_read).
    ///
    /// # Errors
    /// The reason, fit to be told to the peer.
    pub fn may_write(&self, peer: &PeerId, path: &[u8], now: Instant) -> Result<(), Denied> {
        self.may(Right::Write, peer, path, now)
    }

    /// Whether this key has a right anywhere in what is served: for what is about no path.
    ///
    /// # Errors
    /// The reason, fit to be told to the peer.
    pub fn may_somewhere(&self, right: Right, peer: &PeerId, now: Instant) -> Result<(), Denied> {
        decide(&self.grants_of(peer, now)?, right, None)
    }

    /// This control as what an endpoint asks inside the handshake.
    #[must_use]
    pub fn trust(this: &Arc<Self>) -> Trust {
        let access = Arc::clone(this);
        // The edge where the clock comes in: the handshake has none to hand over.
        Trust::ask(move |peer| access.admit(peer, Instant::now()))
    }

    /// Looks at the peers file and the tickets from a thread of its own, and calls `changed` within a second after either
    /// has changed, and then once more: an edit may have come between two looks. It ends with this control.
    ///
    /// # Errors
    /// What the system says when there can be no thread.
    pub fn watch(this: &Arc<Self>, changed: impl Fn() + Send + 'static) -> io::Result<()> {
        let access = Arc::downgrade(this);
        let seen = this.fingerprint();
        let look = move || {
            let (mut seen, mut is_due) = (seen, true);
            loop {
                thread::sleep(WATCH_INTERVAL);
                let Some(access) = access.upgrade() else { return };
                let now = access.fingerprint();
                if now != seen || is_due {
                    is_due = now != seen;
                    seen = now;
                    changed();
                }
            }
        };
        thread::Builder::new().name("rules".to_owned()).spawn(look).map(drop)
    }

    /// Of what the files contain, not just of their times: two edits within one tick of a file system's clock look alike
    /// from outside.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in self.path.as_deref().into_iter().chain(self.tickets.path()) {
            match read_file(path, MAX_WATCHED_BYTES) {
                Ok(content) => (content.bytes, content.writable_by_others).hash(&mut hasher),
                Err(error) => error.kind().hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    /// Reads the peers file again and returns the affected peers. Call it when [`watch`](Self::watch) says so.
    ///
    /// The file is read each time, not just its time stamp: two edits within one tick of a file
    /// system's clock look alike from outside. Blocks for as long as reading a short file takes.
    pub fn reload_if_changed(&self, now: Instant) -> Reload {
        let fresh = Arc::new(self.path.as_deref().map_or_else(AccessList::empty, AccessList::load));
        let old = std::mem::replace(
            &mut *self.list.write().unwrap_or_else(PoisonError::into_inner),
            Arc::clone(&fresh),
        );
        let (was_broken, is_broken) = (message(&old), message(&fresh));
        let changed = was_broken != is_broken || old.peers() != fresh.peers();
        let mut revoked: Vec<PeerId> = old
            .peers()
            .iter()
            .filter(|peer| !fresh.find(&peer.id).is_some_and(|now| now.grant.covers(&peer.grant)))
            .map(|peer| peer.id)
            .collect();
        if is_broken.is_some() && was_broken.is_none() {
            revoked.extend(self.tickets.owners(now));
        }
        match self.tickets.reload(now) {
            Ok(owners) => revoked.extend(owners),
            // The tickets that are known go on being honoured.
            Err(error) => tracing::debug!(%error, "the tickets cannot be read again"),
        }
        revoked.sort_unstable();
        revoked.dedup();
        let broken = is_broken.filter(|_| changed);
        Reload { changed, revoked, broken }
    }

    fn may(&self, right: Right, peer: &PeerId, path: &[u8], now: Instant) -> Result<(), Denied> {
        decide(&self.grants_of(peer, now)?, right, Some(path))
    }

    fn grants_of(&self, peer: &PeerId, now: Instant) -> Result<Vec<Grant>, Denied> {
        let list = self.list();
        if list.error().is_some() {
            return Err(Denied::RulesBroken);
        }
        let mut grants: Vec<Grant> = self.tickets.grants_of(peer, now);
        grants.extend(list.find(peer).map(|peer| peer.grant.clone()));
        Ok(grants)
    }

    fn list(&self) -> Arc<AccessList> {
        // What the lock guards is one pointer; a panic cannot leave it half written.
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Broken {
    fn new(error: &PeersError) -> Self {
        Self(error.to_string())
    }
}

fn message(list: &AccessList) -> Option<Broken> {
    list.error().map(Broken::new)
}

/// A withdrawn right ends sessions within a second.
const WATCH_INTERVAL: Duration = Duration::from_millis(900);

/// As much as either file may have, and a byte more.
const MAX_WATCHED_BYTES: u64 = (4 << 20) + 1;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::{grant::Scope, list::PeersFile, peers::StandingPeer};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A serving process with its peers file, at a moment that the story sets.
    struct Server {
        _dir: TempDir,
        file: PeersFile,
        path: PathBuf,
        access: AccessControl,
        now: Instant,
    }

    impl Server {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("peers");
            let file = PeersFile::at(&path);
            let access = AccessControl::open(&path);
            Self { _dir: dir, file, path, access, now: Instant::now() }
        }

        fn allow(&self, byte: u8, path: &str) {
            let name = format!("peer{byte}").parse().unwrap();
            let grant = Grant::read_only(Scope::below(path.as_bytes()).unwrap());
            self.file.add(&StandingPeer { name, id: key(byte), grant, at: None }).unwrap();
        }

        fn forget(&self, byte: u8) {
            self.file.remove(&format!("peer{byte}").parse().unwrap()).unwrap();
        }

        fn reload(&self) -> Reload {
            self.access.reload_if_changed(self.now)
        }

        fn admit(&self, byte: u8) -> Admission {
            self.access.admit(&key(byte), self.now)
        }

        fn reads(&self, byte: u8, path: &str) -> Result<(), Denied> {
            self.access.may_read(&key(byte), path.as_bytes(), self.now)
        }

        fn redeem(&self, byte: u8, path: &str) {
            let grant = Grant::read_only(Scope::below(path.as_bytes()).unwrap());
            let secret = self.access.tickets().issue(grant, HOUR, self.now).unwrap();
            self.access.tickets().redeem(&secret, key(byte), self.now).unwrap();
        }
    }

    fn key(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    #[test]
    fn a_change_of_the_file_is_noticed_by_a_watcher() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("peers");
        let access = Arc::new(AccessControl::open(&path));
        let (told, changes) = std::sync::mpsc::channel();
        AccessControl::watch(&access, move || told.send(()).unwrap()).unwrap();
        changes.recv().unwrap(); // A change between loading and watching.
        let peer = StandingPeer {
            name: "nas".parse().unwrap(),
            id: PeerId::from_bytes([7; 32]),
            grant: Grant::none(),
            at: None,
        };
        PeersFile::at(&path).add(&peer).unwrap();
        changes.recv().unwrap();
        changes.recv().unwrap(); // And once more, for an edit between two looks.
        drop(access);
        assert!(changes.recv().is_err(), "the thread has ended, and told nothing else");
    }

    #[test]
    fn without_rules_and_tickets_everyone_is_refused() {
        let server = Server::new();
        assert_eq!(server.admit(1), Admission::Refused);
        assert_eq!(server.reads(1, ""), Err(Denied::NoGrant));
    }

    #[test]
    fn a_stranger_is_a_guest_until_the_ticket_is_taken_or_expires() {
        let mut server = Server::new();
        let grant = Grant::read_only(Scope::below(b"a").unwrap());
        let secret = server.access.tickets().issue(grant, HOUR, server.now).unwrap();
        assert_eq!(server.admit(1), Admission::Guest);
        assert_eq!(server.reads(1, "a"), Err(Denied::NoGrant));

        server.access.tickets().redeem(&secret, key(1), server.now).unwrap();
        assert_eq!(server.admit(1), Admission::Trusted);
        assert_eq!(server.admit(2), Admission::Refused);
        assert_eq!(server.reads(1, "a/b"), Ok(()));
        assert_eq!(server.reads(1, ""), Err(Denied::OutsideScope));
        let right = Right::Write;
        let write = server.access.may_write(&key(1), b"a", server.now);
        assert_eq!(write, Err(Denied::WrongDirection { right }));

        server.now += HOUR;
        assert_eq!(server.admit(1), Admission::Refused);
        assert_eq!(server.reads(1, "a/b"), Err(Denied::NoGrant));
    }

    #[test]
    fn a_standing_peer_needs_a_right_to_be_admitted() {
        let server = Server::new();
        server.allow(1, "a");
        let grant = Grant::none();
        let name = "nobody".parse().unwrap();
        server.file.add(&StandingPeer { name, id: key(2), grant, at: None }).unwrap();
        assert_eq!(server.reload(), Reload { changed: true, ..Reload::default() });
        assert_eq!(server.admit(1), Admission::Trusted);
        assert_eq!(server.reads(1, "a"), Ok(()));
        assert_eq!(server.reads(1, "b"), Err(Denied::OutsideScope));
        assert_eq!(server.admit(2), Admission::Refused);
        assert_eq!(server.reload(), Reload::default());
    }

    #[test]
    fn only_peers_that_lose_a_right_are_named() {
        let server = Server::new();
        for byte in 1..=4 {
            server.allow(byte, "a");
        }
        server.reload();
        server.forget(1);
        server.allow(2, "a/b"); // less than before
        server.allow(3, ""); // more than before
        let reload = server.reload();
        assert_eq!((reload.revoked, reload.broken), (vec![key(1), key(2)], None));
        assert_eq!(server.admit(1), Admission::Refused);
        assert_eq!(server.reads(2, "a"), Err(Denied::OutsideScope));
        assert_eq!(server.reads(3, "x"), Ok(()));
    }

    #[test]
    fn a_right_on_any_path_is_enough_for_calls_without_a_path() {
        let server = Server::new();
        server.allow(1, "a/b");
        server.reload();
        let may = |right, byte| server.access.may_somewhere(right, &key(byte), server.now);
        assert_eq!(may(Right::Read, 1), Ok(()));
        assert_eq!(may(Right::Write, 1), Err(Denied::WrongDirection { right: Right::Write }));
        assert_eq!(may(Right::Read, 2), Err(Denied::NoGrant));
    }

    #[test]
    fn a_file_that_breaks_refuses_everyone_and_one_that_is_mended_does_not() {
        let server = Server::new();
        server.allow(1, "");
        server.reload();
        server.redeem(2, "");
        let good = fs::read(&server.path).unwrap();

        fs::write(&server.path, "what is this").unwrap();
        let reload = server.reload();
        assert_eq!(reload.revoked, [key(1), key(2)]);
        assert!(reload.broken.unwrap().to_string().contains("line 1"));
        for byte in 1..=3 {
            assert_eq!(server.admit(byte), Admission::Refused);
            assert_eq!(server.reads(byte, ""), Err(Denied::RulesBroken));
        }
        assert_eq!(server.reload(), Reload::default());
        assert!(server.access.broken_list().is_some());

        fs::write(&server.path, good).unwrap();
        assert_eq!(server.reload(), Reload { changed: true, ..Reload::default() });
        assert_eq!(server.admit(1), Admission::Trusted);
        assert_eq!(server.admit(2), Admission::Trusted);
    }

    #[test]
    fn a_ticket_survives_the_removal_of_a_standing_right() {
        let server = Server::new();
        server.allow(1, "a");
        server.reload();
        server.redeem(1, "b");
        server.forget(1);
        // Its sessions are closed; it may come again with what the ticket gives.
        assert_eq!(server.reload().revoked, [key(1)]);
        assert_eq!(server.admit(1), Admission::Trusted);
        assert_eq!(server.reads(1, "a"), Err(Denied::OutsideScope));
        assert_eq!(server.reads(1, "b"), Ok(()));
    }
}
