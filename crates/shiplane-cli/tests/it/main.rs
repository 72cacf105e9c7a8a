//! The program as scripts and people meet it: its output, its exit codes, its files. Signals, modes and links make
//! up much of that, so these stories are told on Unix.
#![cfg(unix)]

mod failures;
mod flow;
mod local;
mod push;
mod sessions;
mod snapshots;
mod sync;
mod tickets;
mod transfers;

// `cfg(test)` tells clippy that these may panic outside the tests themselves.
#[cfg(test)]
mod addresses;
#[cfg(test)]
mod choices;
#[cfg(test)]
mod codes;
#[cfg(test)]
mod delete;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod dry_run;
#[cfg(target_os = "linux")]
#[cfg(test)]
mod everything;
#[cfg(test)]
mod filters;
#[cfg(target_os = "linux")]
#[cfg(test)]
mod foreign;
#[cfg(target_os = "linux")] // Only there is writable memory what `ulimit -d` limits.
#[cfg(test)]
mod hostile;
#[cfg(target_os = "linux")] // Only there is writable memory what `ulimit -d` limits.
#[cfg(test)]
mod input;
#[cfg(test)]
mod inspect;
#[cfg(test)]
mod landing;
#[cfg(test)]
mod limits;
#[cfg(target_os = "linux")]
#[cfg(test)]
mod namespaces;
#[cfg(target_os = "linux")] // Network namespaces.
#[cfg(test)]
mod nearby;
#[cfg(test)]
#[cfg(feature = "octopii")]
mod octopii;
#[cfg(test)]
mod one_way;
#[cfg(target_os = "linux")] // Network namespaces.
#[cfg(test)]
mod outages;
#[cfg(test)]
#[cfg(feature = "status")]
mod page;
#[cfg(test)]
mod program;
#[cfg(test)]
mod redial;
#[cfg(test)]
mod service;
#[cfg(test)]
mod sessions_shown;
#[cfg(target_os = "linux")] // /proc.
#[cfg(test)]
mod ssh;
#[cfg(target_os = "linux")]
#[cfg(test)]
mod sshd;
#[cfg(test)]
#[cfg(feature = "status")]
mod status;
#[cfg(test)]
mod terminal;
#[cfg(target_os = "linux")]
#[cfg(test)]
mod trees;
#[cfg(test)]
mod watch;
