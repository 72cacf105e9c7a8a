//! Stories of the local disk: what is received, refused, resumed and served, on real file systems.

mod conflicts;
mod disks;
mod hostile;
mod landing;
mod metadata;
mod resume;
mod source;
mod tree;
