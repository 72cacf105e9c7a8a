//! Builds tickets.

use std::time::{Duration, Instant};

use shiplane_protocols::internals::access::{Grant, HostPort, Scope, Ticket};

use super::Server;
use crate::error::{Cause, Error, TargetError};

/// Makes a ticket of a server. Made by [`Server::ticket`].
///
/// Without any setting it is good for one key within an hour, for all that is served, and without any right.
#[derive(Debug)]
#[must_use = "there is no ticket until `create` is called"]
pub struct TicketBuilder {
    server: Server,
    read: bool,
    write: bool,
    path: Vec<u8>,
    ttl: Duration,
    uses: u32,
}

impl TicketBuilder {
    pub(super) fn new(server: Server) -> Self {
        Self { server, read: false, write: false, path: Vec::new(), ttl: DEFAULT_TTL, uses: 1 }
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

    /// Restricts it to a path and what is below it, relative to what is served.
    pub fn below(mut self, path: impl AsRef<[u8]>) -> Self {
        self.path = path.as_ref().to_vec();
        self
    }

    /// How long it is good for, from now. The default is an hour.
    pub fn valid_for(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How many keys may redeem it. Each of them may use it any number of times until it expires. The default is one.
    pub fn uses(mut self, keys: u32) -> Self {
        self.uses = keys;
        self
    }

    /// Makes the ticket. Its text is the URL, secret included.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) without any right or with a path that cannot be, and
    /// [`ErrorKind::Other`](crate::ErrorKind::Other) if too many tickets are alive.
    pub fn create(self) -> Result<Ticket, Error> {
        let Self { server, read, write, path, ttl, uses } = self;
        if !(read || write) || uses == 0 {
            return Err(Cause::TicketWithoutRight.into());
        }
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        let paths = Scope::below(path).map_err(TargetError::Path)?;
        let grant = Grant { read, write, paths };
        let tickets = server.inner.access.tickets();
        let secret = tickets.issue_shared(grant, uses, ttl, Instant::now()).map_err(Cause::from)?;
        let at = HostPort { host: server.inner.advertised.clone(), port: server.inner.address.port() };
        Ok(Ticket::new(server.id(), at, path, secret).map_err(TargetError::from)?)
    }
}

/// One hour: enough to send the ticket and use it.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);
