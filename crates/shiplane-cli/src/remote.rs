//! What a SOURCE or a TARGET stands for: a key, an address, a path, and perhaps a ticket's secret.

use std::sync::Arc;

use shiplane_protocols::access::{HostPort, PeersFile, TicketSecret};
use shiplane_protocols::with_ticket;
use shiplane_rpc::RpcClient;
use shiplane_transport::{PeerConnection, PeerId};

use crate::failure::Failure;
use crate::home::Home;
use crate::source_arg::{Server, SourceArg};

/// Whom to ask, where, for what, and by what right.
pub(crate) struct Remote {
    pub(crate) server: PeerId,
    pub(crate) at: HostPort,
    /// Below what is served; empty for all of it.
    pub(crate) path: Vec<u8>,
    pub(crate) secret: Option<TicketSecret>,
}

impl Remote {
    pub(crate) fn of(source: &SourceArg, home: &Home) -> Result<Self, Failure> {
        Ok(match source {
            SourceArg::Ticket(ticket) => Self {
                server: ticket.server(),
                at: ticket.at().clone(),
                path: ticket.path().to_vec(),
                secret: Some(ticket.secret().clone()),
            },
            SourceArg::Standing { server, at, path } => {
                Self { server: known(server, home)?, at: at.clone(), path: path.clone(), secret: None }
            }
        })
    }
}

impl Remote {
    /// For calls to the server; the first one redeems the ticket, if there is one.
    pub(crate) fn client(&self, connection: &Arc<PeerConnection>) -> RpcClient {
        let client = RpcClient::new(Arc::clone(connection));
        match &self.secret {
            Some(secret) => with_ticket(client, secret),
            None => client,
        }
    }
}

/// The key that a name stands for here.
fn known(server: &Server, home: &Home) -> Result<PeerId, Failure> {
    let name = match server {
        Server::Id(id) => return Ok(*id),
        Server::Name(name) => name,
    };
    let peers = PeersFile::at(home.peers_path()).read()?;
    let found = peers.into_iter().find(|peer| peer.name == *name);
    found.map(|peer| peer.id).ok_or_else(|| Failure::NoSuchName { name: name.clone() })
}
