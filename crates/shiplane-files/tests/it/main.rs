//! Receiving, refusing, resuming and serving on real file systems.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[cfg(target_os = "linux")]
mod attributes;
#[cfg(target_os = "linux")]
mod broken_disk;
mod conflicts;
mod disks;
#[cfg(target_os = "linux")]
mod durable;
#[cfg(target_os = "linux")]
mod hard_links;
mod hostile;
#[cfg(target_os = "linux")]
mod left_out;
mod leftovers;
mod links;
mod metadata;
mod mishaps;
#[cfg(target_os = "linux")]
mod orphaned_temps;
mod parts;
mod resolve;
mod resume;
mod several;
mod source;
#[cfg(target_os = "linux")]
mod sparse;
mod threads;
mod tree;
