//! Placeholder.

mod identity;
mod trust;

pub use identity::{Identity, IdentityError, KeyFileStep, PeerAddr, PeerId, PeerIdError};
pub use trust::{Admission, Trust};
