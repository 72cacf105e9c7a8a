//! Keys with full permissions at the server under test.

use std::fs;
use std::path::Path;

use shiplane_access::internals::{Grant, PeersFile, Scope, StandingPeer};
use shiplane_transport::Identity;

use crate::peers::Failure;

/// Keys that the server knows.
#[derive(Debug)]
pub(crate) struct Keys(Vec<Identity>);

impl Keys {
    /// Reads them all.
    pub(crate) fn open(directory: &Path) -> Result<Self, Failure> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(directory)? {
            keys.push(Identity::load_or_create(&entry?.path())?);
        }
        if keys.is_empty() {
            return Err("there are no keys".into());
        }
        Ok(Self(keys))
    }

    /// Just this one.
    pub(crate) fn of(key: Identity) -> Self {
        Self(vec![key])
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Identity] {
        &self.0
    }
}

/// Makes `count` keys in `directory`, unless they are there, and adds them to the list of peers of the server whose state
/// is in `home`, with every right.
///
/// # Errors
/// If a file cannot be written.
pub fn make(home: &Path, directory: &Path, count: usize) -> Result<(), Failure> {
    fs::create_dir_all(directory)?;
    let peers = PeersFile::at(home.join("peers"));
    for number in 0..count {
        let identity = Identity::load_or_create(&directory.join(format!("{number:04}")))?;
        let grant = Grant { read: true, write: true, paths: Scope::everything() };
        let name = format!("load-{number:04}").parse()?;
        peers.add(&StandingPeer { name, id: identity.peer_id(), grant, at: None })?;
    }
    Ok(())
}
