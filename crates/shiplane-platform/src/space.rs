//! What a transfer still needs of each file system that its files land on.

use std::collections::HashMap;

use shiplane_wire::RelPath;

/// Files that are wanted and have no space yet, by the file system of their directory.
#[derive(Debug, Default)]
pub struct Needs {
    file_systems: HashMap<u64, Need>,
    /// By number of the file.
    files: HashMap<u64, (u64, u64)>,
}

/// What is needed of one file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// How many bytes.
    pub bytes: u64,
    /// Inodes, as many as files.
    pub files: u64,
    /// A directory on it; `None` is the root.
    pub at: Option<RelPath>,
}

impl Needs {
    /// Adds a file in a directory of the file system `device`.
    pub fn add(&mut self, id: u64, device: u64, directory: Option<RelPath>, bytes: u64) {
        self.settle(id);
        let need = self.file_systems.entry(device).or_default();
        need.bytes = need.bytes.saturating_add(bytes);
        need.files += 1;
        need.at = directory;
        self.files.insert(id, (device, bytes));
    }

    /// The file has its space, or is given up.
    pub fn settle(&mut self, id: u64) {
        let Some((device, bytes)) = self.files.remove(&id) else { return };
        if let Some(need) = self.file_systems.get_mut(&device) {
            need.bytes = need.bytes.saturating_sub(bytes);
            need.files = need.files.saturating_sub(1);
        }
    }

    /// By file system.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Need)> {
        self.file_systems.iter().map(|(device, need)| (*device, need))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_counts_once_and_until_it_has_its_space() {
        let mut needs = Needs::default();
        let below = RelPath::parse(b"mount").ok();
        needs.add(1, 7, None, 100);
        needs.add(2, 8, below.clone(), 50);
        needs.add(3, 8, below.clone(), 5);
        needs.add(3, 8, below.clone(), 6);
        let of = |needs: &Needs, device| needs.iter().find(|(found, _)| *found == device).unwrap().1.clone();
        assert_eq!(of(&needs, 8), Need { bytes: 56, files: 2, at: below.clone() });
        needs.settle(2);
        needs.settle(2);
        assert_eq!(of(&needs, 8), Need { bytes: 6, files: 1, at: below });
        assert_eq!(of(&needs, 7), Need { bytes: 100, files: 1, at: None });
    }
}
