//! Placeholder.

pub mod access;
