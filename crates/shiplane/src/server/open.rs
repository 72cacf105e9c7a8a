//! Opens what a server serves, its key and its rules. Blocking.

use std::{sync::Arc, time::Instant};

use shiplane_access::internals::{AccessControl, PeersFile, RootId, TicketBook, TicketsFile};
use shiplane_files::internals::{Source, SourceRoot, sync::SyncState};
use shiplane_protocols::{
    Compression, TransferMetrics,
    internals::{FileServer, transfer::TransferOptions},
};
use shiplane_transport::Identity;

use super::{
    ServerBuilder,
    advertise::{Advertised, advertised},
    sending::Sending,
};
use crate::{
    error::{Cause, Error},
    settings::limiter,
};

/// What a server is made of, once everything that blocks is done.
pub(super) struct Opened {
    pub(super) files: Arc<FileServer>,
    pub(super) access: Arc<AccessControl>,
    pub(super) identity: Identity,
    pub(super) advertised: Vec<Advertised>,
    pub(super) metrics: Arc<TransferMetrics>,
    /// What is sent by a code.
    pub(super) sending: Option<(Sending, Source)>,
}

impl<S: Clone + Send + Sync + 'static> ServerBuilder<S> {
    /// All that blocks.
    pub(super) fn open(mut self) -> Result<(Opened, Self), Error> {
        if let Some((identity, settings)) = self.sending.take() {
            return Ok((self.open_sending(identity, settings)?, self));
        }
        let root = SourceRoot::open(&self.path).map_err(Cause::Serve)?;
        if self.is_writable && !root.is_directory() {
            return Err(Cause::WritableFile.into());
        }
        let access = self.access()?;
        let advertised = advertised(&self.advertised)?;
        let metrics = Arc::new(TransferMetrics::new());
        let options = TransferOptions {
            rate: limiter(self.rate),
            // The client decides.
            compression: Compression::Always,
            metrics: Some(Arc::clone(&metrics)),
            ..TransferOptions::default()
        };
        let state = SyncState::at(self.places.sync_path()?);
        let files = FileServer::new(root, Arc::clone(&access), options);
        let files = if self.is_writable { files.writable(self.limits.clone()) } else { files };
        let files = Arc::new(files.syncing(&self.path, state));
        let identity = match self.places.identity() {
            // What an interrupted run has fetched is then not recognised as this server's.
            Err(error) if self.is_for_ssh => {
                tracing::info!(%error, "no key is kept here");
                Identity::generate().map_err(Cause::from)?
            }
            identity => identity?,
        };
        Ok((Opened { files, access, identity, advertised, metrics, sending: None }, self))
    }

    /// Who may do what. Blocking.
    fn access(&self) -> Result<Arc<AccessControl>, Error> {
        if self.is_for_ssh {
            return Ok(Arc::new(AccessControl::without_peers()));
        }
        let peers = self.places.peers_path()?;
        // A broken list would refuse everyone: better reported here than found out by every peer.
        PeersFile::at(&peers).read().map_err(Cause::from)?;
        Ok(Arc::new(AccessControl::open(&peers).with_tickets(self.tickets()?)))
    }

    /// Those that servers of the same directory have given out, and this one will. Blocking.
    fn tickets(&self) -> Result<TicketBook, Error> {
        let file = match self.places.tickets_path() {
            // The tickets of a key that is stored nowhere end with it.
            Ok(path) if !self.places.has_fresh_key => TicketsFile::at(path),
            _ => return Ok(TicketBook::new()),
        };
        let unreadable = |source| Cause::Root { path: self.path.clone(), source };
        let root = RootId::of(&self.path).map_err(unreadable)?;
        Ok(TicketBook::open(file, root, Instant::now()).map_err(Cause::from)?)
    }
}
