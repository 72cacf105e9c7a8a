//! The whole stack in virtual time, over a network and a disk with faults from a seed.
//!
//! Quinn and shiplane are the real ones; what is made up is beneath them: the [`network`], the disk, the clock, and
//! the order in which threads run. A seed draws a [`Scenario`], which a [`Simulation`] runs and the [`oracle`] judges:
//! safety all the way, liveness once nothing goes wrong any more.
//!
//! Read `scenario`, `run`, `job`, `oracle`; beneath them `world`, `network`, `disk`, `scheduler` (blocking work), `entropy`.

mod cuts;
mod disk;
mod entropy;
mod job;
pub mod network;
pub mod oracle;
mod run;
mod scenario;
mod scheduler;
pub mod tree;
mod world;

pub use cuts::{CutRun, CutSeries};
pub use disk::DiskFaults;
pub use run::{Report, Simulation, Summary};
pub use scenario::{Job, Lie, Scenario};
