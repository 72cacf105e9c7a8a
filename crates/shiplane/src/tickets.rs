//! The tickets that this machine's servers have given out.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use shiplane_protocols::internals::access::{HostPort, RootId, StoredTicket, TicketBook, TicketsFile};

use crate::{
    error::{Cause, Error, TargetError},
    home::HomePaths,
    server::{TicketBuilder, host_for},
};

/// The tickets of this machine's servers, a file. Its methods block for as long as reading or replacing a short file
/// takes.
///
/// A server that runs reads it twice a second: what is revoked ends the sessions of its owners, and what is made here is
/// good for it.
#[derive(Debug, Clone)]
pub struct Tickets {
    file: TicketsFile,
    places: HomePaths,
}

/// A ticket that was given out, without its secret, which nobody but its holder has. Its text is one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedTicket(StoredTicket);

impl Tickets {
    /// The tickets in the usual place: see [`ClientBuilder`](crate::ClientBuilder).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is no usual place.
    pub fn open() -> Result<Self, Error> {
        let places = HomePaths::default();
        Ok(Self { file: TicketsFile::at(places.tickets_path()?), places })
    }

    /// Those that have not expired, in the order in which they were made.
    ///
    /// # Errors
    /// If the file cannot be read or understood.
    pub fn list(&self) -> Result<Vec<IssuedTicket>, Error> {
        let stored = self.file.read().map_err(Cause::from)?;
        Ok(stored.into_iter().map(IssuedTicket).collect())
    }

    /// Revokes the ticket with this [`id`](IssuedTicket::id), and returns it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is none, among others; nothing has changed then.
    pub fn revoke(&self, id: &str) -> Result<IssuedTicket, Error> {
        let revoked = self.file.edit(|tickets| {
            let at = tickets.iter().position(|ticket| ticket.id() == id)?;
            Some(tickets.remove(at))
        });
        let revoked = revoked.map_err(Cause::from)?;
        Ok(IssuedTicket(revoked.ok_or_else(|| Cause::NoSuchTicket { id: id.to_owned() })?))
    }

    /// Makes a ticket for the server of `root` on this machine, which may run already or be started later. Clients find
    /// it at `at`, a `HOST:PORT`; without, at this machine's address and the port of `listens`, where the server listens.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for an address that is none, and
    /// [`ErrorKind::LocalIo`](crate::ErrorKind::LocalIo) if there is no such directory, or no key can be had.
    pub fn create(
        &self,
        root: impl AsRef<Path>,
        at: Option<&str>,
        listens: SocketAddr,
    ) -> Result<TicketBuilder, Error> {
        let root = root.as_ref();
        let at = match at {
            Some(at) => at.parse().map_err(TargetError::from)?,
            None => HostPort { host: host_for(listens), port: listens.port() },
        };
        let unreadable = |source| Cause::Root { path: root.to_owned(), source };
        let id = self.places.identity()?.peer_id();
        let root = RootId::of(root).map_err(unreadable)?;
        let book = TicketBook::open(self.file.clone(), root, Instant::now()).map_err(Cause::from)?;
        Ok(TicketBuilder::of_book(book, id, at))
    }
}

impl IssuedTicket {
    /// What it is called here: the first digits of a hash of its secret.
    #[must_use]
    pub fn id(&self) -> String {
        self.0.id()
    }

    /// The directory or file that it is for.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        path_of(self.0.root.path())
    }

    /// How long it is still good.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.0.expires_at.duration_since(SystemTime::now()).unwrap_or_default()
    }

    /// How many keys have redeemed it; `None` if any number may, which nobody counts.
    #[must_use]
    pub fn uses(&self) -> Option<usize> {
        self.0.max_owners.map(|_| self.0.owners.len())
    }

    /// How many keys may redeem it; `None` is any number.
    #[must_use]
    pub fn max_uses(&self) -> Option<u32> {
        self.0.max_owners
    }
}

impl fmt::Display for IssuedTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grant = &self.0.grant;
        let rights = match (grant.read, grant.write) {
            (true, true) => "read,write",
            (false, true) => "write",
            _ => "read",
        };
        let path = grant.paths.paths().and_then(<[_]>::first).map_or_else(String::new, ToString::to_string);
        let root = shiplane_wire::escape(self.0.root.path());
        let uses = match (self.uses(), self.max_uses()) {
            (Some(uses), Some(max)) => format!("used by {uses} of {max}"),
            _ => "for any key".to_owned(),
        };
        write!(f, "{} {rights} /{path} of {root}, {uses}", self.id())
    }
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}
