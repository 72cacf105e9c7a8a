//! Stories of the library's features beside the files: two peers, who may have a relay between them.

mod batch;
mod delivery;
mod document;
mod flow;
mod media;
mod metrics;
mod pair;
mod shutdown;
mod snapshots;
