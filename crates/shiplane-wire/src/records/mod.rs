//! The records of a transfer, in both directions (SPEC 4.2 to 4.4).

mod error;
mod fields;
mod provider;
mod reader;
mod receiver;

pub use error::RecordError;
pub use provider::{Entry, EntryKind, FailReason, Mtime, ProviderRecord, SkipReason, Version};
pub use reader::{Record, RecordReader};
pub use receiver::{ReceiverRecord, Span};

pub(crate) use reader::sealed;
