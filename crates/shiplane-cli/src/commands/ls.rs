//! `shiplane ls SOURCE`

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::BinaryBytes;
use shiplane::{Client, EventKind};
use tokio_util::sync::CancellationToken;

use super::transfer::{self, Transfer, report_of};
use crate::events::Event;
use crate::failure::Failure;
use crate::job::Job;
use crate::settings::{LsSettings, with_filters};
use crate::units::show_utc;

pub(super) fn run(settings: LsSettings) -> Result<(), Failure> {
    transfer::run(|stop| ls(settings, stop))
}

async fn ls(settings: LsSettings, stop: CancellationToken) -> Result<(), Failure> {
    let job = Job::begin(settings.output_mode, io::stdout());
    let ended = list(settings, &job, stop).await;
    job.end(ended)
}

async fn list(settings: LsSettings, job: &Arc<Job>, stop: CancellationToken) -> Result<(), Failure> {
    let LsSettings { source, ssh, long, recursive, skip, filters, .. } = settings;
    let client = ssh.apply(Client::builder().foreground(true).buffer_len_bytes(BUFFER_LEN_BYTES));
    let transfer = Transfer::connect(job, source, client, String::new(), &stop).await?;
    let listing =
        Arc::new(Mutex::new(Listing { job: Arc::clone(job), long, rows: Vec::new(), held_bytes: 0 }));
    let (taking, mut others) = (Arc::clone(&listing), job.events());
    let listed = transfer
        .connection()
        .list("")
        .recursive(recursive)
        .skip(skip.iter().map(|kind| kind.name()))
        .cancel_on(stop.cancelled_owned())
        .on_progress(move |event| match Row::of(event) {
            Some(row) => taking.lock().unwrap_or_else(PoisonError::into_inner).add(row),
            None => others(event),
        });
    let listed = with_filters!(listed, &filters);
    let ended = transfer.finish(listed).await;
    listing.lock().unwrap_or_else(PoisonError::into_inner).print();
    if let Some(report) = report_of(&ended) {
        job.tell(&Event::Listed {
            files: report.files,
            bytes_total: report.bytes_total,
            left_out: report.left_out_count,
            seconds: job.seconds(),
        });
    }
    ended?;
    Ok(())
}

/// What the server has listed and is not printed yet.
struct Listing {
    job: Arc<Job>,
    long: bool,
    rows: Vec<Row>,
    held_bytes: usize,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    path: String,
    what: &'static str,
    len_bytes: u64,
    mode: u32,
    modified_secs: i64,
    target: Option<String>,
}

impl Listing {
    fn add(&mut self, row: Row) {
        self.held_bytes += row.held_bytes();
        self.rows.push(row);
        if self.held_bytes > MAX_HELD_BYTES {
            self.print();
        }
    }

    /// Prints what is held, sorted so that what is in a directory follows it.
    fn print(&mut self) {
        self.job.end_bar();
        self.held_bytes = 0;
        let mut rows = mem::take(&mut self.rows);
        rows.sort_unstable_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
        for row in rows {
            self.job.tell(&row.event(self.long));
        }
    }
}

impl Row {
    fn of(event: &shiplane::Event) -> Option<Self> {
        let (EventKind::Listed { what, len_bytes, mode, modified_secs, target }, Some(path)) =
            (&event.kind, &event.path)
        else {
            return None;
        };
        let (path, target) = (path.clone(), target.clone());
        Some(Self { path, what, len_bytes: *len_bytes, mode: *mode, modified_secs: *modified_secs, target })
    }

    fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.path.len() + self.target.as_ref().map_or(0, String::len)
    }

    fn event(self, long: bool) -> Event {
        let line = self.line(long);
        let Self { path, what, len_bytes, mode, modified_secs, target } = self;
        Event::Entry {
            path,
            kind: what,
            bytes: len_bytes,
            mode,
            modified_seconds: modified_secs,
            target,
            line,
        }
    }

    /// The line for people.
    fn line(&self, long: bool) -> String {
        let slash = if self.what == "directory" { "/" } else { "" };
        let name = format!("{}{slash}", self.path);
        if !long {
            return name;
        }
        let target = self.target.as_ref().map_or_else(String::new, |target| format!(" -> {target}"));
        let size = if self.what == "file" { BinaryBytes(self.len_bytes).to_string() } else { "-".to_owned() };
        format!("{} {size:>11} {} {name}{target}", self.permissions(), show_utc(self.modified_secs))
    }

    /// As `ls -l` writes them.
    fn permissions(&self) -> String {
        let kind = match self.what {
            "directory" => 'd',
            "link" => 'l',
            _ => '-',
        };
        let bit = |at: u32, letter| if self.mode >> at & 1 == 1 { letter } else { '-' };
        let bits = (0..9).rev().zip("rwxrwxrwx".chars()).map(|(at, letter)| bit(at, letter));
        std::iter::once(kind).chain(bits).collect()
    }
}

/// 16 MiB, some hundred thousand names. A longer list is sorted in parts of that size.
const MAX_HELD_BYTES: usize = 16 << 20;

/// Nothing is read or written.
const BUFFER_LEN_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, what: &'static str) -> Row {
        let target = (what == "link").then(|| "../x".to_owned());
        Row {
            path: path.to_owned(),
            what,
            len_bytes: 3_000_000,
            mode: 0o750,
            modified_secs: 1_700_000_000,
            target,
        }
    }

    #[test]
    fn a_long_line_has_permissions_size_time_and_target() {
        assert_eq!(row("a", "file").line(true), "-rwxr-x---    2.86 MiB 2023-11-14 22:13 a");
        assert_eq!(row("d", "directory").line(true), "drwxr-x---           - 2023-11-14 22:13 d/");
        assert_eq!(row("l", "link").line(true), "lrwxr-x---           - 2023-11-14 22:13 l -> ../x");
        assert_eq!(row("d", "directory").line(false), "d/");
    }

    #[test]
    fn a_directory_is_followed_by_its_entries() {
        let mut paths = ["a.b", "a/b", "b", "a"];
        paths.sort_unstable_by(|a, b| a.split('/').cmp(b.split('/')));
        assert_eq!(paths, ["a", "a/b", "a.b", "b"]);
    }
}
