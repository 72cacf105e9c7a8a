//! What other tests use of the lab: peers that lie ([`peers`]) and the simulation ([`sim`]).

#![cfg(target_os = "linux")]

pub mod peers;
pub mod sim;
