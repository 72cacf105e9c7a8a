//! The program as scripts and people meet it: its output, its exit codes, its files.

mod local;
// `cfg(test)` tells clippy that the harness may panic like the tests themselves.
#[cfg(test)]
mod program;
