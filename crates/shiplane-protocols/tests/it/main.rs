//! Whole transfers between two peers on loopback.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

#[cfg(target_os = "linux")]
#[path = "../../../shiplane-files/tests/it/broken_disk.rs"]
#[expect(dead_code, reason = "the tests of shiplane-files use all of it")]
mod broken_disk;
mod compression;
mod counting;
mod delta;
#[cfg(unix)]
mod digest_cache;
#[cfg(unix)]
mod digests;
mod features;
mod fetch;
mod harness;
mod hostile;
#[cfg(target_os = "linux")]
mod left_out;
mod limits;
#[cfg(unix)]
mod one_connection;
#[cfg(unix)]
mod probe;
mod push;
mod resting;
#[cfg(unix)]
mod sync;
#[cfg(unix)]
mod trees;
#[cfg(unix)]
mod whole_trees;
