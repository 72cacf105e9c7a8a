//! Placeholder.

mod identity;
mod tls;
mod trust;

pub use identity::{Identity, IdentityError, KeyFileStep, PeerAddr, PeerId, PeerIdError};
pub use tls::TlsError;
pub use trust::{Admission, Trust};
