//! Pushes the tree to a writable server.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::Fixture;
use super::report::Act;
use crate::shiplane::{Pushed, Server};

impl Fixture<'_> {
    /// Pushes the tree into `theirs`, which `server` serves, and again, which sends nothing.
    pub(super) fn push(&self, server: &Server, theirs: &Path) -> Result<Act> {
        println!("pushing the tree to it");
        let push = || {
            let mut command = self.in_chunks(self.shiplane.push(self.source, server, &self.home));
            command.arg("--json");
            command
        };
        let (act, events) = self.run(PUSH, &mut push())?;
        let Pushed { total_bytes, sent_bytes } = Pushed::of(&events)?;
        if (total_bytes, sent_bytes) != (self.survey.bytes, self.survey.bytes) {
            bail!("{sent_bytes} of {total_bytes} bytes were pushed, and the tree has {}", self.survey.bytes);
        }
        let pushed = theirs.join(self.source.file_name().context("the tree has no name")?);
        self.expect_equal(self.source, &pushed)?;
        let (_, events) = self.run(PUSH, &mut push())?;
        match Pushed::of(&events)?.sent_bytes {
            0 => println!("  pushed again: nothing to send"),
            sent_bytes => bail!("pushed again, it sent {sent_bytes} bytes"),
        }
        Ok(act)
    }
}

const PUSH: &str = "shiplane push";
