//! `shiplane man [COMMAND]`

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::Cli;
use crate::failure::Failure;

/// Prints the page of the command that these words lead to, in roff.
pub(super) fn run(words: &[String]) -> Result<(), Failure> {
    let mut program = Cli::command();
    // Gives the commands the names that their pages have: shiplane-peers-add.
    program.build();
    let mut command = &program;
    for word in words {
        command =
            command.find_subcommand(word).ok_or_else(|| Failure::NoSuchCommand { name: words.join(" ") })?;
    }
    // Made in memory first, so that an error of the output is not taken for one of the page.
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page).map_err(Failure::Stdout)?;
    let mut out = io::stdout();
    out.write_all(&page).and_then(|()| out.flush()).map_err(Failure::Stdout)
}
