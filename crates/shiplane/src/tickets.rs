//! The tickets that this machine's servers have given out.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Instant, SystemTime},
};

use shiplane_access::internals::{RootId, StoredTicket, TicketBook, TicketsFile};

use crate::{
    error::{Cause, Error},
    home::HomePaths,
    server::{TicketBuilder, addresses_of},
};

/// The tickets of this machine's servers, a file. Its methods block for as long as reading or replacing a short file
/// takes.
///
/// A server that runs reads it once a second: what is revoked ends the sessions of its owners, and what is made here is
/// good for it.
#[derive(Debug, Clone)]
pub struct Tickets {
    file: TicketsFile,
    places: HomePaths,
}

impl Tickets {
    /// The tickets in the usual place: see [`ClientBuilder`](crate::ClientBuilder).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is no usual place.
    pub fn open() -> Result<Self, Error> {
        let places = HomePaths::default();
        Ok(Self { file: TicketsFile::at(places.tickets_path()?), places })
    }

    /// The tickets that have not expired, in order of creation, one line each: first an id, the beginning of a
    /// hash of the secret, which only its holder has, then what it permits, who has used it and how long it is good.
    ///
    /// # Errors
    /// If the file cannot be read or understood.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let stored = self.file.read().map_err(Cause::from)?;
        Ok(stored.iter().map(line).collect())
    }

    /// Revokes the ticket with this id, and returns its line.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is none, among others; nothing has changed then.
    pub fn revoke(&self, id: &str) -> Result<String, Error> {
        let revoked = self.file.edit(|tickets| {
            let at = tickets.iter().position(|ticket| ticket.id() == id)?;
            Some(tickets.remove(at))
        });
        let revoked = revoked.map_err(Cause::from)?;
        let revoked = revoked.ok_or_else(|| Cause::NoSuchTicket { id: id.to_owned() })?;
        Ok(line(&revoked))
    }

    /// Makes a ticket for the server of `root` on this machine, which may run already or be started later. Clients find
    /// it at `at`, each a `HOST` or `HOST:PORT`; without any, at this machine's addresses. `listens` is where the server
    /// listens.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for an address that is none, and
    /// [`ErrorKind::LocalIo`](crate::ErrorKind::LocalIo) if there is no such directory, or no key can be had.
    pub fn create(
        &self,
        root: impl AsRef<Path>,
        at: &[String],
        listens: SocketAddr,
    ) -> Result<TicketBuilder, Error> {
        let root = root.as_ref();
        let at = addresses_of(listens, at)?;
        let unreadable = |source| Cause::Root { path: root.to_owned(), source };
        let id = self.places.identity()?.peer_id();
        let root = RootId::of(root).map_err(unreadable)?;
        let book = TicketBook::open(self.file.clone(), root, Instant::now()).map_err(Cause::from)?;
        Ok(TicketBuilder::of_book(book, id, at))
    }
}

/// A ticket, for people.
fn line(ticket: &StoredTicket) -> String {
    let rights = ticket.grant.rights();
    let [path, root] = [ticket.path(), ticket.root.path()].map(shiplane_wire::escape);
    let uses = match ticket.max_owners {
        Some(max) => format!("used by {} of {max}", ticket.owners.len()),
        None => "for any client".to_owned(),
    };
    let left = ticket.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
    let left = match left.as_secs() {
        secs @ 0..60 => format!("{secs}s"),
        secs @ 60..3600 => format!("{}m", secs / 60),
        secs @ 3600..86_400 => format!("{}h{}m", secs / 3600, secs / 60 % 60),
        secs => format!("{}d{}h", secs / 86_400, secs / 3600 % 24),
    };
    format!("{} {rights} /{path} of {root}, {uses}, expires in {left}", ticket.id())
}
