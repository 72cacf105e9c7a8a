//! The records of a transfer, in both directions (SPEC 4.2 to 4.4).

mod cuts;
mod error;
mod fields;
mod provider;
mod reader;
mod receiver;

pub use cuts::{Cut, Cuts};
pub use error::RecordError;
pub use provider::{Entry, EntryKind, FailReason, Mtime, ProviderRecord, SkipReason, Version};
pub use reader::{Record, RecordReader};
pub use receiver::{ReceiverRecord, Span};

pub use provider::fuzz_records_provider;
pub use receiver::fuzz_records_receiver;

pub(crate) use reader::sealed;
