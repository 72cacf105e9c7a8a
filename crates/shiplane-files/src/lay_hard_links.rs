//! Gives files their further names (SPEC 4.28), when all of them are here.

use std::io;

use shiplane_wire::{Entry, LeftOutReason, RelPath};

use crate::{
    destination::{Destination, Parts},
    error::{DestinationError, Operation},
    hard_links::LinkedFileState,
    path_list::PathList,
    plan::Plan,
    platform::{self, Kind, Stat},
    policy::{CopyPolicy, FileEvent, RenameMode},
    state::HardLink,
};

impl Destination {
    /// Lays the further names of files, now that the files are here. Where a file takes no other name, it is copied. A name
    /// that cannot be laid is left out. The policy learns of the others once they are durable, if they are to be.
    ///
    /// # Errors
    /// What ends the transfer.
    pub fn lay_hard_links(&self) -> Result<(), DestinationError> {
        let site = &self.parts.site;
        let unreadable = |error| site.failed_at_root(Operation::Read, error);
        let (links, mut laid) = (self.parts.linked.take_links(), PathList::default());
        links.newest_first(unreadable, |path, link| {
            let told = match self.lay_hard_link(path, link) {
                Ok(FileEvent::Published) => site.announce(&mut laid, path, link),
                Ok(event) => self.on_file(path, link.size_bytes, event),
                Err(error) => {
                    let error = site.leave_out(None, path, error)?;
                    self.on_file(path, link.size_bytes, FileEvent::Failed(error))
                }
            };
            told.and_then(|()| self.parts.publisher.sync_many())
        })?;
        if site.is_durable() && !laid.is_empty() {
            self.make_durable()?;
        }
        laid.newest_first(unreadable, |path, link| self.on_file(path, link.size_bytes, FileEvent::Published))
    }

    fn lay_hard_link(&self, path: &RelPath, link: &HardLink) -> Result<FileEvent, DestinationError> {
        let Parts { site, publisher, linked, .. } = &*self.parts;
        let altered = |path: &RelPath| DestinationError::Altered { path: site.show(path) };
        let missing = |reason| DestinationError::InLeftOut { path: site.show(path), reason };
        let first = linked.get(link.first).ok_or_else(|| missing(LeftOutReason::Failed))?;
        match first.state {
            LinkedFileState::Here(_) => {}
            LinkedFileState::Expected => return Err(missing(LeftOutReason::Failed)),
            LinkedFileState::LeftOut(reason) => return Err(missing(reason)),
        }
        // Others may have been at work there.
        let is_it = |found: &Stat| found.kind == Kind::File && found.size_bytes == link.size_bytes;
        let file = site.examine(&first.path)?.filter(is_it).ok_or_else(|| altered(&first.path))?;
        let found = site.examine(path)?;
        if found.is_some_and(|found| file.inode != 0 && found.identity() == file.identity()) {
            site.count(|summary| summary.identical_files += 1);
            return Ok(FileEvent::Identical);
        }
        let replaces = link.replaces_same || site.options.existing.replaces();
        let by_options = if replaces { RenameMode::Replace } else { RenameMode::New };
        let mode = self.policy().rename_mode(path).unwrap_or(by_options);
        let lay = || match mode {
            RenameMode::Refuse => Err(site.exists(path)),
            RenameMode::New => self.lay_new(path, &first.path),
            RenameMode::Replace => self.lay_replacing(path, &first.path, link),
        };
        if !lay()? {
            return self.copy_instead(path, &first.path, link, mode);
        }
        // The file is looked up by its name: what has got another one must be that file.
        let laid = site.examine(path)?;
        if laid.is_none_or(|laid| !is_it(&laid) || laid.identity() != file.identity()) {
            return Err(altered(path));
        }
        let parent = site.parent_of(path)?;
        publisher.changed(path.parent(), parent.device);
        self.parts.store.changed();
        self.rely_on_what_is_here();
        site.count(|summary| {
            summary.published_files += 1;
            summary.hard_links += 1;
        });
        Ok(FileEvent::Published)
    }

    /// Notes what an entry that is the first name of a file with several becomes by its plan.
    pub(super) fn note_first(&self, index: u64, entry: &Entry, plan: &Plan) -> Result<(), DestinationError> {
        if entry.first != Some(index) {
            return Ok(());
        }
        let target = self.parts.site.target_of(&entry.path);
        let state = match plan {
            Plan::Done => {
                let found = self.parts.site.examine(&target)?;
                LinkedFileState::Here(found.as_ref().map(Stat::identity))
            }
            Plan::Kept | Plan::LeftOut => LinkedFileState::LeftOut(LeftOutReason::InTheWay),
            Plan::Want { .. } | Plan::Compare { .. } | Plan::Delta { .. } | Plan::Linked => {
                LinkedFileState::Expected
            }
        };
        self.parts.linked.note(index, entry, &target, state);
        Ok(())
    }

    /// Whether an entry may become another name of a file: both are to have the same content.
    pub(super) fn may_be_linked(&self, entry: &Entry) -> bool {
        let first = entry.first.and_then(|first| self.parts.linked.get(first));
        let expected = |path: &RelPath| self.policy().expected_digest(path);
        first.is_none_or(|first| expected(&first.path) == expected(&entry.path))
    }

    /// `false` if the file takes no other name there.
    fn lay_new(&self, path: &RelPath, first: &RelPath) -> Result<bool, DestinationError> {
        let Parts { site, publisher, .. } = &*self.parts;
        let (from, to) = (site.parent_of(first)?, site.parent_of(path)?);
        let linked = platform::link_file(&from.dir, first.file_name(), &to.dir, path.file_name());
        linked.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => publisher.in_the_way(path, Kind::File),
            _ => site.failed_naming(Operation::Create, path, error),
        })
    }

    /// The same in place of what has the name.
    fn lay_replacing(
        &self,
        path: &RelPath,
        first: &RelPath,
        link: &HardLink,
    ) -> Result<bool, DestinationError> {
        let Parts { site, publisher, store, .. } = &*self.parts;
        let (from, to) = (site.parent_of(first)?, site.parent_of(path)?);
        let id = store.begin_name(path)?;
        let temp = site.key.temp_name(id);
        let temp = temp.as_bytes();
        let lay = || {
            let failed = |operation| move |error| site.failed_naming(operation, path, error);
            platform::remove_if_there(&to.dir, temp).map_err(failed(Operation::Remove))?;
            let linked = platform::link_file(&from.dir, first.file_name(), &to.dir, temp);
            if !linked.map_err(failed(Operation::Create))? {
                return Ok(false);
            }
            let (mode, backs_up) = (RenameMode::Replace, !link.replaces_same);
            publisher.rename_temp(&to, temp, path, mode, backs_up, Kind::File).map(|()| true)
        };
        let laid = lay();
        // Where both were the same file by then, nothing was renamed.
        store.drop_temp(id, path)?;
        laid
    }

    fn copy_instead(
        &self,
        path: &RelPath,
        first: &RelPath,
        link: &HardLink,
        mode: RenameMode,
    ) -> Result<FileEvent, DestinationError> {
        let entry = Entry { path: path.clone(), ..self.entry_at(first)? };
        if !self.copy_entry(link.entry, first, &entry, None)? {
            return Err(DestinationError::Altered { path: self.parts.site.show(first) });
        }
        let mode_of = |_: &RelPath| mode;
        let policy = CopyPolicy::new(&mode_of);
        self.parts.publisher.publish(&[link.entry], &policy)?;
        // What has failed is left out already.
        Ok(policy.outcomes().failed.map_or(FileEvent::Published, FileEvent::Failed))
    }
}
