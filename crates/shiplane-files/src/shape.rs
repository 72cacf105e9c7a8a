//! The shape of a transfer: one file, a directory with its name, or a directory's content.

/// What a transfer consists of, which decides where it lands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file.
    File {
        /// Its name at the provider.
        name: Vec<u8>,
    },
    /// The content of a directory that has a name.
    Directory {
        /// Its name at the provider.
        name: Vec<u8>,
    },
    /// The content of a directory without a name: of `/`, or what is pushed as `dir/.`.
    Contents,
}
