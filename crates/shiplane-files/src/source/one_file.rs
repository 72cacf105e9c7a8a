//! Sources of one file: beneath a directory, or open already.

use std::fs::File;

use shiplane_wire::{Entry, EntryKind, Holes, Version};

use super::{Content, OneFile, OpenFile, Source};
use crate::{
    attributes::AttributesReader,
    error::SourceError,
    made_up::MadeUpFiles,
    platform::{self, Input, Kind, Stat},
    sparse,
};

impl OpenFile {
    pub(super) fn entry(&self) -> Result<Entry, SourceError> {
        let path = || self.name.to_string();
        let stat = platform::stat_open(self.file.as_ref())
            .map_err(|source| SourceError::Unreadable { path: path(), source })?;
        if stat.kind != Kind::File {
            return Err(SourceError::NotServable { path: path(), found: stat.kind });
        }
        let holes = sparse::holes_of(&stat, || self.file.try_clone());
        Ok(Entry { mode: NEW_FILE_MODE, holes, ..stat.entry(EntryKind::File, self.name.clone()) })
    }
}

impl OneFile {
    pub(super) fn entry(
        &self,
        made_up: &MadeUpFiles,
        reader: Option<&mut AttributesReader>,
    ) -> Result<Entry, SourceError> {
        let (file, stat) = self.open()?;
        let mut entry = stat.entry(EntryKind::File, self.name.clone());
        entry.attributes = reader.and_then(|reader| reader.of_open(&file, &stat, self.name.as_bytes()));
        if platform::has_true_size(&file, &stat) {
            entry.holes = sparse::holes_of(&stat, || Ok(file));
        } else {
            let opening = |error| SourceError::opening(self.name.as_bytes(), error);
            made_up.list(file, &mut entry).map_err(opening)?;
        }
        Ok(entry)
    }

    pub(super) fn open(&self) -> Result<(File, Stat), SourceError> {
        let opening = |error| SourceError::opening(self.name.as_bytes(), error);
        let file = platform::open_file_following(&self.root, self.path.as_bytes()).map_err(opening)?;
        let stat = platform::stat_open(&file).map_err(opening)?;
        match stat.kind {
            Kind::File => Ok((file, stat)),
            found => Err(SourceError::NotServable { path: self.name.to_string(), found }),
        }
    }
}

impl Source {
    /// What it is read from, if it is of unknown length and can be read once.
    pub fn input(&self) -> Option<&Input> {
        if let Content::Input(input, _) = &self.content { Some(input) } else { None }
    }

    /// The parts of that, each of which is an entry (SPEC 4.32). Waits for each. None if there is no such input.
    pub fn parts(&self) -> impl Iterator<Item = Result<Entry, SourceError>> + use<> {
        let input = match &self.content {
            Content::Input(input, name) => Some((input.id(), name.clone(), input.parts())),
            _ => None,
        };
        input.into_iter().flat_map(|(id, name, parts)| {
            parts.map(move |part| {
                let part =
                    part.map_err(|source| SourceError::Unreadable { path: name.to_string(), source })?;
                Ok(Entry {
                    kind: EntryKind::File,
                    mode: NEW_FILE_MODE,
                    size_bytes: part.content.len() as u64,
                    mtime: platform::now(),
                    version: Version::of_part(id, part.offset_bytes),
                    path: name.clone(),
                    target: None,
                    first: None,
                    holes: Holes::default(),
                    attributes: None,
                })
            })
        })
    }
}

/// As most programs make files under most umasks.
const NEW_FILE_MODE: u32 = 0o644;
