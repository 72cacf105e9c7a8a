//! The records of a transfer, in both directions (SPEC 4.2 to 4.4).

mod error;
mod fields;
mod left_out;
mod load;
mod provider;
mod reader;
mod receiver;
mod signatures;

pub use error::RecordError;
pub use left_out::LeftOutReason;
pub use load::Load;
pub use provider::{Entry, Mtime, ProviderRecord, Version};
pub use reader::{Record, RecordReader};
pub use receiver::{ReceiverRecord, Span};
pub use signatures::{BlockSignature, BlockSignatures};

pub use provider::fuzz_records_provider;
pub use receiver::fuzz_records_receiver;

pub(crate) use reader::sealed;
