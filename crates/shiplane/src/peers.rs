//! The list of peers: names, keys and permissions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use shiplane_access::internals::{Addresses, Grant, NameError, PeerName, PeersFile, Scope, StandingPeer};
use shiplane_reach::internals::{Announced, MAX_ADDRESSES, Nearby, Search, SeekError};
use shiplane_transport::PeerId;

use crate::{
    error::{Cause, CodeFailure, Error, TargetError},
    home::HomePaths,
};

/// The list of peers of this machine, a file. Its methods block for as long as reading or replacing a short file takes.
///
/// A server that runs reads it once a second.
#[derive(Debug, Clone)]
pub struct Peers {
    file: PeersFile,
}

/// A key with a name, and its rights on this machine's servers. Its text form is its line in the list.
///
/// ```
/// # fn example(id: shiplane::PeerId) -> Result<(), shiplane::Error> {
/// use shiplane::{KnownPeer, Peers};
///
/// Peers::open()?.add(&KnownPeer::new("laptop", id)?.read().below("photos")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer(StandingPeer);

impl Peers {
    /// The list in the usual place: see [`ClientBuilder`](crate::ClientBuilder).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if there is no usual place.
    pub fn open() -> Result<Self, Error> {
        Ok(Self::at(HomePaths::default().peers_path()?))
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
    /// If the file cannot be read or understood; servers then refuse all peers.
    pub fn list(&self) -> Result<Vec<KnownPeer>, Error> {
        let peers = self.file.read().map_err(Cause::from)?;
        Ok(peers.into_iter().map(KnownPeer).collect())
    }

    /// The servers on the local network that [want to be seen](crate::ServerBuilder::announce): their ids, and their
    /// addresses with commas between them, as [`KnownPeer::at`] takes them one by one. They are as announced by the peer, and
    /// prove nothing. Listens for as long as `wait` says; at most 256 are given.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`](crate::ErrorKind::Unreachable) if this machine cannot listen.
    pub async fn nearby(wait: Duration) -> Result<Vec<(PeerId, String)>, Error> {
        let failed = |error| Cause::from(CodeFailure::Seek(SeekError::Nearby(error)));
        let mut search = Search::peers().map_err(failed)?;
        let mut found: BTreeMap<PeerId, BTreeSet<SocketAddr>> = BTreeMap::new();
        let listening = async {
            while let Some(Nearby { announced, addrs }) = search.next().await {
                if let Announced::Peer(id) = announced
                    && (found.len() < MAX_NEARBY || found.contains_key(&id))
                {
                    let known = found.entry(id).or_default();
                    known.extend(addrs.into_iter().take(MAX_ADDRESSES.saturating_sub(known.len())));
                }
            }
        };
        // It ends only with multicast DNS.
        let _ = tokio::time::timeout(wait, listening).await;
        let shown =
            |addrs: BTreeSet<SocketAddr>| addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(found.into_iter().map(|(id, addrs)| (id, shown(addrs))).collect())
    }

    /// Adds a peer, or changes its rights. Returns its earlier entry.
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
    /// A name for a key, without rights.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if this is no name for a peer ([`Peers::check_name`]).
    pub fn new(name: &str, id: PeerId) -> Result<Self, Error> {
        Ok(Self(StandingPeer { name: parse_name(name)?, id, grant: Grant::none(), at: None }))
    }

    /// Sets its address: `HOST` or `HOST:PORT`. Then its name alone is a target. Called again, it adds another address,
    /// up to eight.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if this is no address, or one too many.
    pub fn at(mut self, address: &str) -> Result<Self, Error> {
        let more: Addresses = address.parse().map_err(TargetError::from)?;
        match &mut self.0.at {
            Some(at) => more.iter().try_for_each(|one| at.push(one.clone())).map_err(TargetError::from)?,
            at @ None => *at = Some(more),
        }
        Ok(self)
    }

    /// Adds the right to fetch everything that is served, unless [`below`](Self::below) restricts it.
    #[must_use]
    pub fn read(self) -> Self {
        self.grant(|grant| grant.read = true)
    }

    /// Adds the right to push, as [`read`](Self::read) does to fetch. With both rights the peer may sync.
    #[must_use]
    pub fn write(self) -> Self {
        self.grant(|grant| grant.write = true)
    }

    /// Restricts the rights added so far to a path and what is below it, relative to what is served. A second path is
    /// added to the first.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) if this cannot be a path within what is served.
    pub fn below(self, path: impl AsRef<[u8]>) -> Result<Self, Error> {
        // `/photos/`, `photos` and `/photos` are one thing to a person.
        let path = path.as_ref();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let below = Scope::below(path).map_err(Cause::Path)?;
        Ok(self.grant(|grant| {
            let before =
                if grant.paths == Scope::everything() { Scope::nothing() } else { grant.paths.clone() };
            grant.paths = before.and(below);
        }))
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

    fn grant(mut self, change: impl FnOnce(&mut Grant)) -> Self {
        let grant = &mut self.0.grant;
        if grant.is_none() {
            grant.paths = Scope::everything();
        }
        change(grant);
        if grant.is_none() {
            *grant = Grant::none();
        }
        self
    }

    /// Whether the list has its address, so that its name alone is a target.
    #[must_use]
    pub fn has_address(&self) -> bool {
        self.0.at.is_some()
    }

    /// Whether it has only a name and no rights.
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

/// 256 servers: more than a person reads.
const MAX_NEARBY: usize = 256;

fn parse_name(name: &str) -> Result<PeerName, Error> {
    Ok(name.parse().map_err(|error: NameError| Cause::Name(error))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(change: impl FnOnce(KnownPeer) -> Result<KnownPeer, Error>) -> String {
        let peer = KnownPeer::new("nas", PeerId::from_bytes([7; 32])).unwrap();
        let id = peer.id().to_string();
        change(peer).unwrap().to_string().replace(&id, "ID")
    }

    #[test]
    fn rights_hold_everywhere_unless_paths_are_named() {
        let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(line(Ok)), "nas ID none");
        assert_eq!(words(line(|peer| Ok(peer.read()))), "nas ID read /");
        assert_eq!(
            words(line(|peer| peer.read().write().below("/a/")?.below("b"))),
            "nas ID read,write /a /b"
        );
        assert_eq!(words(line(|peer| peer.below("a"))), "nas ID none", "a path gives no right");
        assert!(KnownPeer::new("nas", PeerId::from_bytes([7; 32])).unwrap().read().below("..").is_err());
    }
}
