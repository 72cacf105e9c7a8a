//! The server's tickets and their owners.

use std::io;
use std::path::Path;
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::{Duration, Instant, SystemTime};

use shiplane_transport::PeerId;
use subtle::ConstantTimeEq;

use crate::grant::Grant;
use crate::ticket::{NoRandomness, TicketSecret};
use crate::ticket_file::{RootId, SecretHash, StoredTicket, TicketsError, TicketsFile};

/// The tickets of one serving process: in memory, and in a file if servers that are started later are to honour them.
///
/// A ticket is *open* until as many keys as it is for have redeemed it. From then on those keys alone own it, until it
/// expires. Expiry ends admission and the answering of new requests; what is under way is the caller's to decide.
#[derive(Debug, Default)]
pub struct TicketBook {
    tickets: Mutex<Vec<Issued>>,
    /// Grows with each ticket that is issued here: what was read from the file before is out of date.
    issued: AtomicU64,
    store: Option<Store>,
}

/// Where tickets are kept, and for what.
#[derive(Debug)]
struct Store {
    file: TicketsFile,
    root: RootId,
}

/// Why no ticket was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// As many are alive as may be; wait until one expires.
    #[error(
        "there are already {max} valid tickets, which is the limit; revoke one or wait until one expires"
    )]
    Full {
        /// The limit.
        max: usize,
    },
    /// The time to live reaches beyond what the clock can say.
    #[error("the lifetime of the ticket is too long")]
    TtlTooLong,
    /// No secret could be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// It could not be recorded.
    #[error(transparent)]
    File(#[from] TicketsError),
}

/// Why a secret is refused. The peer may learn it: a peer that learns more than `Unknown` had the
/// secret already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedeemError {
    /// No ticket has that secret, or it expired long ago.
    #[error("no ticket has this secret")]
    Unknown,
    /// The ticket's time is over; its owner needs a new one.
    #[error("the ticket has expired")]
    Expired,
    /// As many other keys as may own it were first.
    #[error("the ticket was already used by another key")]
    OwnedByAnother,
    /// The owner could not be recorded.
    #[error("the server cannot record that this key uses it{}", cause(*.errno))]
    NotRecorded {
        /// What the system said, if it was the system.
        errno: Option<i32>,
    },
}

impl TicketBook {
    /// A book without tickets, in memory alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of the tickets in `file` that are for `root`; new ones are added to it. Blocks for as long as reading a
    /// short file takes.
    ///
    /// # Errors
    /// See [`TicketsError`].
    pub fn open(file: TicketsFile, root: RootId, now: Instant) -> Result<Self, TicketsError> {
        let book = Self { store: Some(Store { file, root }), ..Self::default() };
        book.reload(now)?;
        Ok(book)
    }

    /// Whether tickets are in a file: to issue and to redeem one then blocks for as long as a disk takes.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.store.is_some()
    }

    /// Makes a ticket that gives `grant` to the first key to redeem it within `ttl` of `now`, and
    /// to that key until the same moment.
    ///
    /// # Errors
    /// See [`IssueError`]; nothing has been issued then.
    pub fn issue(&self, grant: Grant, ttl: Duration, now: Instant) -> Result<TicketSecret, IssueError> {
        self.issue_shared(grant, Some(1), ttl, now)
    }

    /// As [`issue`](Self::issue), for the first `max_owners` keys to redeem it, at most [`MAX_OWNERS`] of them; `None` is
    /// for any key. The ticket is durable when this returns, if it is kept in a file.
    ///
    /// # Errors
    /// See [`IssueError`]; nothing has been issued then.
    pub fn issue_shared(
        &self,
        grant: Grant,
        max_owners: Option<u32>,
        ttl: Duration,
        now: Instant,
    ) -> Result<TicketSecret, IssueError> {
        let max_owners = max_owners.map(|keys| keys.min(MAX_OWNERS as u32));
        let expires_at = now.checked_add(ttl).ok_or(IssueError::TtlTooLong)?;
        let secret = TicketSecret::random()?;
        let hash = SecretHash::of(&secret);
        if let Some(Store { file, root }) = &self.store {
            let expires_at = SystemTime::now().checked_add(ttl).ok_or(IssueError::TtlTooLong)?;
            let (grant, root) = (grant.clone(), root.clone());
            let stored = StoredTicket { hash, expires_at, max_owners, grant, root, owners: Vec::new() };
            file.edit(|tickets| {
                let is_full = tickets.len() >= MAX_TICKETS;
                tickets.extend((!is_full).then_some(stored));
                if is_full { Err(IssueError::Full { max: MAX_TICKETS }) } else { Ok(()) }
            })??;
        }
        let mut tickets = self.lock();
        if tickets.len() >= MAX_TICKETS {
            // Expired ones are kept till now only to be able to say `Expired`.
            tickets.retain(|ticket| ticket.is_live(now));
        }
        if tickets.len() >= MAX_TICKETS {
            return Err(IssueError::Full { max: MAX_TICKETS });
        }
        self.issued.fetch_add(1, Ordering::Relaxed);
        add(&mut tickets, Issued { hash, grant, expires_at, max_owners, owners: Vec::new() });
        Ok(secret)
    }

    /// Removes the oldest ticket of the file that no key has redeemed and that a new one of this root, with this grant and
    /// number of keys, would equal. Returns whether there was one.
    ///
    /// # Errors
    /// See [`TicketsError`]; nothing has changed then.
    pub fn remove_unredeemed(&self, grant: &Grant, max_owners: Option<u32>) -> Result<bool, TicketsError> {
        let Some(Store { file, root }) = &self.store else { return Ok(false) };
        let removed = file.edit(|tickets| {
            let is_like = |ticket: &StoredTicket| {
                let unredeemed = ticket.max_owners.is_some() && ticket.owners.is_empty();
                unredeemed
                    && ticket.root == *root
                    && ticket.grant == *grant
                    && ticket.max_owners == max_owners
            };
            tickets.iter().position(is_like).map(|oldest| tickets.remove(oldest))
        })?;
        let Some(removed) = removed else { return Ok(false) };
        tracing::warn!(
            ticket = removed.id(),
            "too many valid tickets: the oldest that no key has redeemed is revoked"
        );
        self.lock().retain(|ticket| ticket.hash != removed.hash);
        Ok(true)
    }

    /// Makes `peer` the owner of the ticket with this secret, if it is open; the owner may redeem
    /// it again and again until it expires. Takes the same time whichever secret is presented. That `peer` owns it is
    /// durable when this returns, if tickets are kept in a file.
    ///
    /// # Errors
    /// See [`RedeemError`]; nothing has changed then.
    pub fn redeem(&self, secret: &TicketSecret, peer: PeerId, now: Instant) -> Result<Grant, RedeemError> {
        let presented = SecretHash::of(secret);
        let grant = {
            let mut tickets = self.lock();
            let ticket = find(&mut tickets, presented, now)?;
            if ticket.owners.contains(&peer) {
                return Ok(ticket.grant.clone());
            }
            if !ticket.is_open() {
                return Err(RedeemError::OwnedByAnother);
            }
            if self.store.is_none() || ticket.max_owners.is_none() {
                ticket.own(peer);
                return Ok(ticket.grant.clone());
            }
            ticket.grant.clone()
        };
        self.record(presented, peer)?;
        // It may have been revoked meanwhile.
        find(&mut self.lock(), presented, now)?.own(peer);
        Ok(grant)
    }

    /// Writes down that a key owns a ticket. Another process with the same tickets may have been first.
    fn record(&self, hash: SecretHash, peer: PeerId) -> Result<(), RedeemError> {
        let Some(store) = &self.store else { return Ok(()) };
        let recorded = store.file.edit(|tickets| {
            let ticket = tickets.iter_mut().find(|ticket| ticket.hash == hash).ok_or(RedeemError::Unknown)?;
            if ticket.owners.contains(&peer) {
                return Ok(());
            }
            if ticket.max_owners.is_some_and(|keys| ticket.owners.len() >= keys as usize) {
                return Err(RedeemError::OwnedByAnother);
            }
            ticket.owners.push(peer);
            Ok(())
        });
        recorded.map_err(|error| {
            tracing::error!(%error, "a ticket cannot be redeemed");
            let errno = match &error {
                TicketsError::Io { source, .. } => source.raw_os_error(),
                TicketsError::WritableByOthers { .. } | TicketsError::Malformed { .. } => None,
            };
            RedeemError::NotRecorded { errno }
        })?
    }

    /// Ends every ticket that this key alone owns, as when it needs none any more. Of a book in memory only.
    pub fn forget(&self, peer: &PeerId) {
        self.lock().retain(|ticket| ticket.owners != [*peer]);
    }

    /// The file that keeps them, if one does.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.store.as_ref().map(|store| store.file.path())
    }

    /// Reads the file again, and gives the keys that have lost a ticket: to revocation, not to time. Blocks for as long
    /// as reading a short file takes.
    ///
    /// # Errors
    /// See [`TicketsError`]; nothing has changed then.
    pub fn reload(&self, now: Instant) -> Result<Vec<PeerId>, TicketsError> {
        let Some(Store { file, root }) = &self.store else { return Ok(Vec::new()) };
        let issued = self.issued.load(Ordering::Relaxed);
        let stored = file.read()?;
        let wall = SystemTime::now();
        let mut tickets = self.lock();
        if self.issued.load(Ordering::Relaxed) != issued {
            // One that was issued meanwhile would pass for revoked; the next reload is soon.
            return Ok(Vec::new());
        }
        let mut revoked = Vec::new();
        tickets.retain_mut(|ticket| {
            let is_there = stored.iter().any(|stored| stored.hash == ticket.hash);
            if !is_there && ticket.is_live(now) {
                revoked.append(&mut ticket.owners);
            }
            is_there || !ticket.is_live(now)
        });
        for stored in stored.into_iter().filter(|stored| stored.root == *root) {
            let left = stored.expires_at.duration_since(wall).unwrap_or_default();
            let Some(expires_at) = now.checked_add(left) else { continue };
            let StoredTicket { hash, max_owners, grant, owners, .. } = stored;
            add(&mut tickets, Issued { hash, grant, expires_at, max_owners, owners });
        }
        Ok(revoked)
    }

    /// Whether any ticket still waits for its owner, so that unknown keys are to be admitted as
    /// guests (SPEC 6.2).
    #[must_use]
    pub fn open_for_strangers(&self, now: Instant) -> bool {
        self.lock().iter().any(|ticket| ticket.is_open() && ticket.is_live(now))
    }

    /// What the live tickets of this key grant; empty if it owns none.
    #[must_use]
    pub fn grants_of(&self, peer: &PeerId, now: Instant) -> Vec<Grant> {
        self.lock()
            .iter()
            .filter(|ticket| ticket.owners.contains(peer) && ticket.is_live(now))
            .map(|ticket| ticket.grant.clone())
            .collect()
    }

    /// Whether this key owns a live ticket.
    #[must_use]
    pub fn is_owner(&self, peer: &PeerId, now: Instant) -> bool {
        self.lock().iter().any(|ticket| ticket.owners.contains(peer) && ticket.is_live(now))
    }

    /// The keys that own a live ticket, each once.
    #[must_use]
    pub fn owners(&self, now: Instant) -> Vec<PeerId> {
        let tickets = self.lock();
        let live = tickets.iter().filter(|ticket| ticket.is_live(now));
        let mut owners: Vec<PeerId> = live.flat_map(|ticket| ticket.owners.iter().copied()).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Issued>> {
        // No step under the lock leaves a ticket half changed, so a panic elsewhere spoils nothing.
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Issued {
    hash: SecretHash,
    grant: Grant,
    expires_at: Instant,
    /// `None`: any number.
    max_owners: Option<u32>,
    owners: Vec<PeerId>,
}

impl Issued {
    /// Whether another key may redeem it.
    fn is_open(&self) -> bool {
        self.max_owners.is_none_or(|keys| self.owners.len() < keys as usize)
    }

    fn is_live(&self, now: Instant) -> bool {
        now < self.expires_at
    }

    /// Makes a key an owner. Of a ticket for any key, the one that came first is forgotten when they are too many: it
    /// redeems the ticket anew with its next connection.
    fn own(&mut self, peer: PeerId) {
        if self.owners.contains(&peer) {
            return;
        }
        if self.owners.len() >= MAX_OWNERS {
            self.owners.remove(0);
        }
        self.owners.push(peer);
    }
}

/// Adds a ticket, or the owners of one that is there already: a reload may have found it in the file first.
fn add(tickets: &mut Vec<Issued>, new: Issued) {
    match tickets.iter_mut().find(|ticket| ticket.hash == new.hash) {
        Some(known) => new.owners.into_iter().for_each(|owner| known.own(owner)),
        None => tickets.push(new),
    }
}

fn cause(errno: Option<i32>) -> String {
    errno.map_or_else(String::new, |errno| format!(": {}", io::Error::from_raw_os_error(errno)))
}

/// The live ticket with this hash. SPEC 6.2: each is compared whole, with no early end.
fn find(tickets: &mut [Issued], presented: SecretHash, now: Instant) -> Result<&mut Issued, RedeemError> {
    let found = tickets.iter_mut().fold(None, |found, ticket| {
        let is_it = ticket.hash.as_bytes().ct_eq(presented.as_bytes());
        if bool::from(is_it) { Some(ticket) } else { found }
    });
    let ticket = found.ok_or(RedeemError::Unknown)?;
    if ticket.is_live(now) { Ok(ticket) } else { Err(RedeemError::Expired) }
}

/// Every redemption compares with every ticket; 1,024 comparisons of 32 bytes cost a guest's
/// handshake many times over, and more are never handed out by hand.
const MAX_TICKETS: usize = 1024;

/// 1,024 keys, as many as there may be connections: 32 KiB a ticket. More peers than that belong into the peers file.
pub const MAX_OWNERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Scope;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);

    fn key(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn grant(path: &str) -> Grant {
        Grant::read_only(Scope::below(path.as_bytes()).unwrap())
    }

    #[test]
    fn the_first_key_owns_the_ticket_until_it_expires() {
        let (book, now) = (TicketBook::new(), Instant::now());
        let secret = book.issue(grant("a"), HOUR, now).unwrap();
        assert!(book.open_for_strangers(now));
        assert!(!book.is_owner(&key(1), now));

        assert_eq!(book.redeem(&secret, key(1), now), Ok(grant("a")));
        assert!(!book.open_for_strangers(now));
        assert_eq!(book.redeem(&secret, key(2), now), Err(RedeemError::OwnedByAnother));
        assert_eq!(book.redeem(&secret, key(1), now + HOUR - SECOND), Ok(grant("a")));
        assert_eq!(book.grants_of(&key(1), now), [grant("a")]);
        assert_eq!(book.grants_of(&key(2), now), []);
        assert_eq!(book.owners(now), [key(1)]);

        let later = now + HOUR;
        assert_eq!(book.redeem(&secret, key(1), later), Err(RedeemError::Expired));
        assert_eq!(book.grants_of(&key(1), later), []);
        assert!(!book.is_owner(&key(1), later));
        assert_eq!(book.owners(later), []);
    }

    #[test]
    fn a_shared_ticket_is_for_as_many_keys_as_it_says() {
        let (book, now) = (TicketBook::new(), Instant::now());
        let secret = book.issue_shared(grant("a"), Some(2), HOUR, now).unwrap();
        for byte in [1, 2, 1] {
            assert_eq!(book.redeem(&secret, key(byte), now), Ok(grant("a")));
        }
        assert!(!book.open_for_strangers(now));
        assert_eq!(book.redeem(&secret, key(3), now), Err(RedeemError::OwnedByAnother));
        assert_eq!(book.owners(now), [key(1), key(2)]);
        assert_eq!(book.grants_of(&key(3), now), []);
    }

    #[test]
    fn an_expired_ticket_admits_no_stranger() {
        let (book, now) = (TicketBook::new(), Instant::now());
        let secret = book.issue(grant(""), SECOND, now).unwrap();
        assert!(book.open_for_strangers(now));
        assert!(!book.open_for_strangers(now + SECOND));
        assert_eq!(book.redeem(&secret, key(1), now + SECOND), Err(RedeemError::Expired));
        assert!(!book.is_owner(&key(1), now));
    }

    #[test]
    fn a_wrong_secret_takes_nothing() {
        let (book, now) = (TicketBook::new(), Instant::now());
        let secret = book.issue(grant(""), HOUR, now).unwrap();
        let guess = TicketSecret::random().unwrap();
        assert_eq!(book.redeem(&guess, key(1), now), Err(RedeemError::Unknown));
        assert!(book.open_for_strangers(now));
        assert_eq!(book.redeem(&secret, key(2), now), Ok(grant("")));
    }

    #[test]
    fn a_key_may_own_several_tickets() {
        let (book, now) = (TicketBook::new(), Instant::now());
        let first = book.issue(grant("a"), SECOND, now).unwrap();
        let second = book.issue(grant("b"), HOUR, now).unwrap();
        book.redeem(&first, key(1), now).unwrap();
        book.redeem(&second, key(1), now).unwrap();
        assert_eq!(book.grants_of(&key(1), now), [grant("a"), grant("b")]);
        assert_eq!(book.owners(now), [key(1)]);
        assert_eq!(book.grants_of(&key(1), now + SECOND), [grant("b")]);
    }

    #[test]
    fn the_book_is_bounded_and_expired_tickets_make_room() {
        let (book, now) = (TicketBook::new(), Instant::now());
        let old = book.issue(grant(""), SECOND, now).unwrap();
        for _ in 1..MAX_TICKETS {
            book.issue(grant(""), HOUR, now).unwrap();
        }
        assert!(matches!(book.issue(grant(""), HOUR, now), Err(IssueError::Full { max: MAX_TICKETS })));
        assert_eq!(book.redeem(&old, key(1), now + SECOND), Err(RedeemError::Expired));
        assert!(book.issue(grant(""), HOUR, now + SECOND).is_ok());
        assert_eq!(book.redeem(&old, key(1), now + SECOND), Err(RedeemError::Unknown));
    }

    #[test]
    fn in_a_full_file_only_a_ticket_that_is_like_the_new_one_and_unredeemed_is_removed() {
        let (dir, now) = (tempfile::tempdir().unwrap(), Instant::now());
        let book = started(&dir, "root", now);
        let redeemed = book.issue(grant("a"), HOUR, now).unwrap();
        book.redeem(&redeemed, key(1), now).unwrap();
        let [oldest, newer] = [(); 2].map(|()| book.issue(grant("a"), HOUR, now).unwrap());
        let different = book.issue(grant("b"), HOUR, now).unwrap();
        started(&dir, "other root", now).issue(grant("a"), HOUR, now).unwrap();
        assert!(!book.remove_unredeemed(&grant("c"), Some(1)).unwrap());
        assert!(!book.remove_unredeemed(&grant("a"), None).unwrap());
        assert!(book.remove_unredeemed(&grant("a"), Some(1)).unwrap());
        assert_eq!(book.redeem(&oldest, key(2), now), Err(RedeemError::Unknown));
        for kept in [&redeemed, &newer, &different] {
            book.redeem(kept, key(1), now).unwrap();
        }
        assert!(!book.remove_unredeemed(&grant("a"), Some(1)).unwrap());
        assert_eq!(TicketsFile::at(dir.path().join("tickets")).read().unwrap().len(), 4);
    }

    #[test]
    fn a_time_to_live_beyond_the_clock_is_refused() {
        let book = TicketBook::new();
        let issued = book.issue(grant(""), Duration::MAX, Instant::now());
        assert!(matches!(issued, Err(IssueError::TtlTooLong)));
    }

    /// A server of `root` with the tickets of `dir`.
    fn started(dir: &tempfile::TempDir, root: &str, now: Instant) -> TicketBook {
        let root = dir.path().join(root);
        std::fs::create_dir_all(&root).unwrap();
        let file = TicketsFile::at(dir.path().join("tickets"));
        TicketBook::open(file, RootId::of(&root).unwrap(), now).unwrap()
    }

    #[test]
    fn a_server_that_is_started_again_honours_its_tickets_and_their_owners() {
        let (dir, now) = (tempfile::TempDir::new().unwrap(), Instant::now());
        let before = started(&dir, "root", now);
        let (used, open) =
            (before.issue(grant("a"), HOUR, now).unwrap(), before.issue(grant("b"), HOUR, now).unwrap());
        before.redeem(&used, key(1), now).unwrap();
        drop(before);

        let after = started(&dir, "root", now);
        assert!(after.is_owner(&key(1), now));
        assert_eq!(after.redeem(&used, key(1), now), Ok(grant("a")));
        assert_eq!(after.redeem(&used, key(2), now), Err(RedeemError::OwnedByAnother));
        assert_eq!(after.redeem(&open, key(2), now), Ok(grant("b")));
        let other = started(&dir, "other", now);
        assert_eq!(other.redeem(&used, key(1), now), Err(RedeemError::Unknown), "another directory");
        assert!(!other.is_owner(&key(1), now));
    }

    #[test]
    fn of_two_servers_with_the_same_tickets_one_gives_a_ticket_away() {
        let (dir, now) = (tempfile::TempDir::new().unwrap(), Instant::now());
        let (one, other) = (started(&dir, "root", now), started(&dir, "root", now));
        let secret = one.issue(grant("a"), HOUR, now).unwrap();
        assert_eq!(other.redeem(&secret, key(1), now), Err(RedeemError::Unknown), "not read yet");
        assert_eq!(other.reload(now).unwrap(), []);
        assert_eq!(one.redeem(&secret, key(1), now), Ok(grant("a")));
        assert_eq!(other.redeem(&secret, key(2), now), Err(RedeemError::OwnedByAnother));
    }

    #[test]
    fn a_ticket_that_a_reload_has_found_first_is_there_once() {
        let (dir, now) = (tempfile::TempDir::new().unwrap(), Instant::now());
        let book = started(&dir, "root", now);
        let secret = book.issue(grant("a"), HOUR, now).unwrap();
        let again = Issued {
            hash: SecretHash::of(&secret),
            grant: grant("a"),
            expires_at: now + HOUR,
            max_owners: Some(1),
            owners: Vec::new(),
        };
        add(&mut book.lock(), again);
        book.redeem(&secret, key(1), now).unwrap();
        assert!(!book.open_for_strangers(now), "no second one waits for an owner");
    }

    #[test]
    fn a_ticket_that_is_revoked_is_gone_and_its_owners_are_named() {
        let (dir, now) = (tempfile::TempDir::new().unwrap(), Instant::now());
        let book = started(&dir, "root", now);
        let revoked = book.issue(grant("a"), HOUR, now).unwrap();
        let stays = book.issue(grant("b"), HOUR, now).unwrap();
        book.redeem(&revoked, key(1), now).unwrap();
        book.redeem(&stays, key(2), now).unwrap();
        let file = TicketsFile::at(dir.path().join("tickets"));
        file.edit(|tickets| tickets.retain(|ticket| ticket.hash != SecretHash::of(&revoked))).unwrap();
        assert_eq!(book.reload(now).unwrap(), [key(1)]);
        assert_eq!(book.redeem(&revoked, key(1), now), Err(RedeemError::Unknown));
        assert_eq!(book.grants_of(&key(2), now), [grant("b")]);
    }

    #[test]
    fn a_ticket_for_any_key_stays_open_and_is_bounded() {
        let (dir, now) = (tempfile::TempDir::new().unwrap(), Instant::now());
        let book = started(&dir, "root", now);
        let secret = book.issue_shared(grant("a"), None, HOUR, now).unwrap();
        for number in 0..MAX_OWNERS as u32 + 5 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            book.redeem(&secret, PeerId::from_bytes(bytes), now).unwrap();
        }
        assert!(book.open_for_strangers(now));
        assert_eq!(book.owners(now).len(), MAX_OWNERS);
        assert!(started(&dir, "root", now).open_for_strangers(now));
    }

    #[test]
    fn a_file_that_is_broken_gives_and_takes_nothing() {
        let (dir, now) = (tempfile::TempDir::new().unwrap(), Instant::now());
        let book = started(&dir, "root", now);
        let secret = book.issue(grant("a"), HOUR, now).unwrap();
        std::fs::write(dir.path().join("tickets"), "nonsense").unwrap();
        assert!(book.reload(now).is_err());
        assert_eq!(book.redeem(&secret, key(1), now), Err(RedeemError::NotRecorded { errno: None }));
        assert!(matches!(book.issue(grant("b"), HOUR, now), Err(IssueError::File(_))));
        assert!(!book.is_owner(&key(1), now));
    }
}
