//! The long programmes of `cargo xtask`, which builds and runs this: `sim | crash | races | load | soak | wan | bench`.
//!
//! They share xtask's library (child processes, the driver of the program, data sets, comparison of trees), and here
//! `fixture` (two sides of a transfer), `stats` (a process from outside) and `suspend`. Other tests use peers that lie ([`peers`]) and the simulation ([`sim`]).

#![cfg(target_os = "linux")]

#[cfg(target_arch = "x86_64")]
mod crash;
mod fixture;
mod load;
mod measure;
mod netns;
pub mod peers;
mod races;
mod run;
pub mod sim;
mod simulate;
mod soak;
mod stats;
mod suspend;

pub use self::run::main;
