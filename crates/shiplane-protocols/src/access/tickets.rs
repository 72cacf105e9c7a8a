//! The server's tickets and their owners.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shiplane_transport::PeerId;
use subtle::ConstantTimeEq;

use super::grant::Grant;
use super::ticket::{NoRandomness, TicketSecret};

/// The tickets of one serving process; they live in memory only and end with it.
///
/// A ticket is *open* from [`issue`](Self::issue) until a key redeems it. From then on that key
/// alone owns it, until it expires. A [shared](Self::issue_shared) ticket stays open until more keys have. Expiry ends admission and the answering of new requests; what
/// is under way is the caller's to decide.
#[derive(Debug, Default)]
pub struct TicketBook {
    tickets: Mutex<Vec<Issued>>,
}

/// Why no ticket was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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
}

/// Why a secret lets nobody in. The peer may be told: whoever learns more than `Unknown` had the
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
}

impl TicketBook {
    /// A book without tickets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a ticket that gives `grant` to the first key to redeem it within `ttl` of `now`, and
    /// to that key until the same moment.
    ///
    /// # Errors
    /// See [`IssueError`]; nothing has been issued then.
    pub fn issue(&self, grant: Grant, ttl: Duration, now: Instant) -> Result<TicketSecret, IssueError> {
        self.issue_shared(grant, 1, ttl, now)
    }

    /// As [`issue`](Self::issue), for the first `max_owners` keys to redeem it, at most [`MAX_OWNERS`] of them.
    ///
    /// # Errors
    /// See [`IssueError`]; nothing has been issued then.
    pub fn issue_shared(
        &self,
        grant: Grant,
        max_owners: u32,
        ttl: Duration,
        now: Instant,
    ) -> Result<TicketSecret, IssueError> {
        let max_owners = usize::try_from(max_owners).unwrap_or(MAX_OWNERS).min(MAX_OWNERS);
        let expires_at = now.checked_add(ttl).ok_or(IssueError::TtlTooLong)?;
        let mut tickets = self.lock();
        if tickets.len() >= MAX_TICKETS {
            // Expired ones are kept till now only to be able to say `Expired`.
            tickets.retain(|ticket| ticket.is_live(now));
        }
        if tickets.len() >= MAX_TICKETS {
            return Err(IssueError::Full { max: MAX_TICKETS });
        }
        let secret = TicketSecret::random()?;
        tickets.push(Issued { secret: secret.clone(), grant, expires_at, max_owners, owners: Vec::new() });
        Ok(secret)
    }

    /// Makes `peer` the owner of the ticket with this secret, if it is open; the owner may redeem
    /// it again and again until it expires. Takes the same time whichever secret is presented.
    ///
    /// # Errors
    /// See [`RedeemError`]; nothing has changed then.
    pub fn redeem(&self, secret: &TicketSecret, peer: PeerId, now: Instant) -> Result<Grant, RedeemError> {
        let mut tickets = self.lock();
        // SPEC 6.2: every secret is compared whole, with no early end.
        let found = tickets.iter_mut().fold(None, |found, ticket| {
            if bool::from(ticket.secret.ct_eq(secret)) { Some(ticket) } else { found }
        });
        let ticket = found.ok_or(RedeemError::Unknown)?;
        if !ticket.is_live(now) {
            return Err(RedeemError::Expired);
        }
        if !ticket.owners.contains(&peer) {
            if !ticket.is_open() {
                return Err(RedeemError::OwnedByAnother);
            }
            ticket.owners.push(peer);
        }
        Ok(ticket.grant.clone())
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
    secret: TicketSecret,
    grant: Grant,
    expires_at: Instant,
    max_owners: usize,
    owners: Vec<PeerId>,
}

impl Issued {
    /// Whether another key may redeem it.
    fn is_open(&self) -> bool {
        self.owners.len() < self.max_owners
    }

    fn is_live(&self, now: Instant) -> bool {
        now < self.expires_at
    }
}

/// Every redemption compares with every ticket; 1,024 comparisons of 16 bytes cost a guest's
/// handshake many times over, and nobody hands out more by hand.
const MAX_TICKETS: usize = 1024;

/// 1,024 keys, as many as there may be connections: 32 KiB a ticket. More peers than that belong into the peers file.
pub const MAX_OWNERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Scope;

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
        let secret = book.issue_shared(grant("a"), 2, HOUR, now).unwrap();
        for byte in [1, 2, 1] {
            assert_eq!(book.redeem(&secret, key(byte), now), Ok(grant("a")));
        }
        assert!(!book.open_for_strangers(now));
        assert_eq!(book.redeem(&secret, key(3), now), Err(RedeemError::OwnedByAnother));
        assert_eq!(book.owners(now), [key(1), key(2)]);
        assert_eq!(book.grants_of(&key(3), now), []);
    }

    #[test]
    fn an_expired_ticket_opens_no_door() {
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
        let full = IssueError::Full { max: MAX_TICKETS };
        assert_eq!(book.issue(grant(""), HOUR, now), Err(full));
        assert_eq!(book.redeem(&old, key(1), now + SECOND), Err(RedeemError::Expired));
        assert!(book.issue(grant(""), HOUR, now + SECOND).is_ok());
        assert_eq!(book.redeem(&old, key(1), now + SECOND), Err(RedeemError::Unknown));
    }

    #[test]
    fn a_time_to_live_beyond_the_clock_is_refused() {
        let book = TicketBook::new();
        let issued = book.issue(grant(""), Duration::MAX, Instant::now());
        assert_eq!(issued, Err(IssueError::TtlTooLong));
    }
}
