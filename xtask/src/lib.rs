//! What `cargo xtask` and the lab share: child processes that cannot outlive us, the one driver of the program under test,
//! data sets, and comparison of trees that shares no code with the program.

pub mod cargo;
pub mod dataset;
pub mod driver;
pub mod interrupt;
mod names;
pub mod process;
pub mod scratch;
pub mod tree;
pub mod units;
