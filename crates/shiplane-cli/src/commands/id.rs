//! `shiplane id`

use std::io::{self, Write};

use shiplane_transport::Identity;

use crate::failure::Failure;
use crate::home::Home;

pub(super) fn run(home: &Home) -> Result<(), Failure> {
    let path = home.identity_path();
    let identity = Identity::load_or_create(&path)?;
    tracing::info!(path = %path.display(), "the key of this machine");
    writeln!(io::stdout(), "{}", identity.peer_id()).map_err(Failure::Stdout)
}
