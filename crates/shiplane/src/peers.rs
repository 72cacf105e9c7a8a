//! The list of peers: names for keys, and rights on what this machine serves.

use std::{fmt, path::PathBuf};

use shiplane_protocols::access::{Grant, NameError, PeerName, PeersFile, Scope, StandingPeer};
use shiplane_transport::PeerId;

use crate::{
    error::{Cause, Error},
    home::Places,
};

/// The list of peers of this machine, a file. Its methods block for as long as reading or replacing a short file takes.
///
/// A server that runs reads it twice a second.
#[derive(Debug, Clone)]
pub struct Peers {
    file: PeersFile,
}

/// A key with a name, and its rights on what this machine serves. Its text is its line in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer(StandingPeer);

impl Peers {
    /// The list in the usual place: see [`ClientBuilder`](crate::ClientBuilder).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is no usual place.
    pub fn open() -> Result<Self, Error> {
        Ok(Self::at(Places::default().peers_path()?))
    }

    /// Whether this is a name for a peer: 1 to 64 letters, digits, dots, underscores and hyphens, not beginning with
    /// `sl1`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage), with what a name is.
    pub fn check_name(name: &str) -> Result<(), Error> {
        parse_name(name).map(drop)
    }

    /// The list in this file, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { file: PeersFile::at(path) }
    }

    /// All peers, in the order of the file.
    ///
    /// # Errors
    /// If the file cannot be read or understood; servers then let nobody in.
    pub fn list(&self) -> Result<Vec<KnownPeer>, Error> {
        let peers = self.file.read().map_err(Cause::from)?;
        Ok(peers.into_iter().map(KnownPeer).collect())
    }

    /// Adds a peer, or changes the rights of one. Returns what the list had of it before.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`](crate::ErrorKind::Identity) if the name belongs to another key, among others; the file is
    /// unchanged then.
    pub fn add(&self, peer: &KnownPeer) -> Result<Option<KnownPeer>, Error> {
        Ok(self.file.add(&peer.0).map_err(Cause::from)?.map(KnownPeer))
    }

    /// Removes a peer and returns it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is none of that name, among others; the file is unchanged
    /// then.
    pub fn remove(&self, name: &str) -> Result<KnownPeer, Error> {
        Ok(KnownPeer(self.file.remove(&parse_name(name)?).map_err(Cause::from)?))
    }
}

impl KnownPeer {
    /// A name for a key, without any right here.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if this is no name for a peer ([`Peers::check_name`]).
    pub fn new(name: &str, id: PeerId) -> Result<Self, Error> {
        Ok(Self(StandingPeer { name: parse_name(name)?, id, grant: Grant::none() }))
    }

    /// Adds rights on all that is served, or below the given `roots` if there are any: `read` to fetch, `write` to push,
    /// both to sync.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if a root cannot be a path within what is served.
    pub fn with_rights<P: AsRef<[u8]>>(
        mut self,
        read: bool,
        write: bool,
        roots: impl IntoIterator<Item = P>,
    ) -> Result<Self, Error> {
        let mut scope = None;
        for root in roots {
            // `/photos/`, `photos` and `/photos` are one thing to a person.
            let root = root.as_ref();
            let root = root.strip_prefix(b"/").unwrap_or(root);
            let root = root.strip_suffix(b"/").unwrap_or(root);
            let below = Scope::below(root).map_err(Cause::Root)?;
            scope = Some(scope.unwrap_or_else(Scope::nothing).and(below));
        }
        self.0.grant = match (read || write, scope) {
            (false, _) => Grant::none(),
            (true, scope) => Grant { read, write, roots: scope.unwrap_or_else(Scope::everything) },
        };
        Ok(self)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// The key.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.0.id
    }

    /// Whether it is a mere name, without any right here.
    #[must_use]
    pub fn is_name_only(&self) -> bool {
        self.0.grant.is_none()
    }
}

impl fmt::Display for KnownPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn parse_name(name: &str) -> Result<PeerName, Error> {
    Ok(name.parse().map_err(|error: NameError| Cause::Name(error))?)
}
