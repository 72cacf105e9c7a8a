//! Options that choose the paths that take part, in the order in which they are typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches};

/// Options of `get`, `push` and `sync`: patterns, lists, ignore files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FilterArgs {
    /// In the order in which they were typed.
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) files_from: Option<PathBuf>,
    pub(crate) null: bool,
    pub(crate) ignore: bool,
    pub(crate) one_file_system: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exclude(String),
    Include(String),
    /// A file with patterns.
    File(PathBuf),
}

/// The same as clap has it: each option by itself.
#[derive(Debug, Args)]
struct Typed {
    /// Exclude what PATTERN matches, written as in a .gitignore
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Include what PATTERN matches, in spite of an earlier pattern; the last that matches decides
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Read patterns from FILE, one per line; `!` includes
    #[arg(long, value_name = "FILE")]
    exclude_from: Vec<OsString>,
    /// Copy only the paths listed in FILE, one per line, relative to the source; `-` is standard input
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
    /// Paths of --files-from end with a zero byte
    #[arg(short = '0', long, requires = "files_from")]
    null: bool,
    /// Exclude what .gitignore and .shiplaneignore files of the tree ignore
    #[arg(long)]
    ignore: bool,
    /// Stay on the file system of the source
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = Typed::from_arg_matches(matches)?;
        let at = |id| matches.indices_of(id).into_iter().flatten();
        let excluded = at("exclude").zip(typed.exclude.into_iter().map(Pattern::Exclude));
        let included = at("include").zip(typed.include.into_iter().map(Pattern::Include));
        let files = typed.exclude_from.into_iter().map(|file| Pattern::File(file.into()));
        let mut patterns: Vec<_> = excluded.chain(included).chain(at("exclude_from").zip(files)).collect();
        patterns.sort_by_key(|(at, _)| *at);
        Ok(Self {
            patterns: patterns.into_iter().map(|(_, pattern)| pattern).collect(),
            files_from: typed.files_from,
            null: typed.null,
            ignore: typed.ignore,
            one_file_system: typed.one_file_system,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for FilterArgs {
    fn augment_args(command: Command) -> Command {
        Typed::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Typed::augment_args_for_update(command)
    }
}
