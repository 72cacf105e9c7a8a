//! What a transfer consists of.

/// What a transfer consists of, which decides where it lands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file.
    File {
        /// Its name at the provider.
        name: Vec<u8>,
    },
    /// The content of a directory that was asked for by its path.
    Directory {
        /// Its name at the provider.
        name: Vec<u8>,
    },
    /// The content of the whole directory that is served, which has no name.
    Contents,
}
