//! Builds tickets.

use std::time::{Duration, Instant};

use shiplane_access::internals::{Addresses, Grant, IssueError, Scope, Ticket, TicketBook};
use shiplane_transport::PeerId;

use super::Server;
use crate::error::{Cause, Error, TargetError};

/// Makes a ticket. Made by [`Server::ticket`] and [`Tickets::create`](crate::Tickets::create).
///
/// Without any setting it is good for one key within an hour, for all that is served, and without any right.
#[derive(Debug)]
#[must_use = "there is no ticket until `create` is called"]
pub struct TicketBuilder {
    issuer: Issuer,
    server: PeerId,
    at: Addresses,
    read: bool,
    write: bool,
    path: Vec<u8>,
    ttl: Duration,
    uses: Option<u32>,
}

/// Who writes the ticket down.
#[derive(Debug)]
enum Issuer {
    Server(Server),
    Book(TicketBook),
}

impl Server {
    /// Makes a ticket, with the rights that are added to it.
    pub fn ticket(&self) -> TicketBuilder {
        TicketBuilder::new(self.clone())
    }
}

impl TicketBuilder {
    fn new(server: Server) -> Self {
        let at = server.inner.advertised.clone();
        Self::of(server.id(), at, Issuer::Server(server))
    }

    pub(crate) fn of_book(book: TicketBook, server: PeerId, at: Addresses) -> Self {
        Self::of(server, at, Issuer::Book(book))
    }

    fn of(server: PeerId, at: Addresses, issuer: Issuer) -> Self {
        let (path, ttl, uses) = (Vec::new(), DEFAULT_TTL, Some(1));
        Self { issuer, server, at, read: false, write: false, path, ttl, uses }
    }

    /// Adds the right to fetch.
    pub fn read(mut self) -> Self {
        self.read = true;
        self
    }

    /// Adds the right to push and, together with [`read`](Self::read), to sync.
    pub fn write(mut self) -> Self {
        self.write = true;
        self
    }

    /// Restricts it to a path and everything below it, relative to the served root.
    pub fn below(mut self, path: impl AsRef<[u8]>) -> Self {
        self.path = path.as_ref().to_vec();
        self
    }

    /// How long it is valid, from now. The default is an hour.
    pub fn valid_for(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The number of keys that may redeem it. Each may use it any number of times until it expires. The default is one.
    pub fn uses(mut self, keys: u32) -> Self {
        self.uses = Some(keys);
        self
    }

    /// Any key may redeem it.
    pub fn any_uses(mut self) -> Self {
        self.uses = None;
        self
    }

    /// Makes the ticket. Its text is the URL, secret included. Blocks for as long as writing a short file takes: a
    /// server that is started again honours the ticket, unless its key is fresh.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) without any right or with a path that cannot be,
    /// [`ErrorKind::LocalIo`](crate::ErrorKind::LocalIo) if it cannot be written down, and
    /// [`ErrorKind::Other`](crate::ErrorKind::Other) if too many tickets are alive.
    pub fn create(self) -> Result<Ticket, Error> {
        let Self { issuer, server, at, read, write, path, ttl, uses } = self;
        if !(read || write) || uses == Some(0) {
            return Err(Cause::TicketWithoutRight.into());
        }
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        let paths = Scope::below(path).map_err(TargetError::Path)?;
        let grant = Grant { read, write, paths };
        let book = match &issuer {
            Issuer::Server(server) => server.inner.access.tickets(),
            Issuer::Book(book) => book,
        };
        let issue = || book.issue_shared(grant.clone(), uses, ttl, Instant::now());
        let secret = match issue() {
            // A server that is started again and again must not fail because of the tickets of its earlier starts.
            Err(IssueError::Full { .. })
                if matches!(issuer, Issuer::Server(_))
                    && book
                        .remove_unredeemed(&grant, uses)
                        .map_err(IssueError::from)
                        .map_err(Cause::from)? =>
            {
                issue()
            }
            issued => issued,
        };
        let secret = secret.map_err(Cause::from)?;
        Ok(Ticket::new(server, at, path, secret).map_err(TargetError::from)?)
    }
}

/// One hour: enough to send the ticket and use it.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);
