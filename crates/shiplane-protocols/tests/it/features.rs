//! The library's features for single chunks: two peers, with or without a relay between them.

mod batch;
mod delivery;
mod document;
mod flow;
mod media;
mod metrics;
mod pair;
mod shutdown;
mod snapshots;
