//! Bringing two versions of a dataset together: what is to be done on which side, and what was last common.
//!
//! [`plan`] is pure. It takes what both sides last had in common, and what each has now, and says what each
//! must do so that both have the same, with nothing lost that anybody wrote. Both sides come to the same
//! plan by themselves. [`BaseStore`] remembers what was last common.

mod base;
mod conflict;
mod manifest;
mod plan;

pub use base::{BaseError, BaseKey, BaseStore};
pub use manifest::{FileState, Manifest, Node};
pub use plan::{Action, Change, Consent, Outcome, PlanError, Side, Why, plan};
