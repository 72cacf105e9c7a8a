//! The table at the end of a demo.

use std::time::Duration;

use anyhow::{Result, bail};

use super::cut::Resumed;
use super::sync::Reunited;
use crate::compare::Survey;
use crate::units;

/// One run of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act {
    pub(super) time: Duration,
    pub(super) peak_rss_bytes: u64,
}

/// What all of it came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) survey: Survey,
    pub(super) got: Act,
    /// `None` where the tree was too small for a receiver to be killed.
    pub(super) resumed: Option<Resumed>,
    pub(super) pushed: Act,
    pub(super) synced: Reunited,
    /// The larger one of the two servers.
    pub(super) served_rss_bytes: u64,
}

impl Report {
    /// An error if any process held more.
    pub(super) fn expect_memory_within(&self, max_bytes: u64) -> Result<()> {
        let resumed = self.resumed.map(|resumed| resumed.act);
        let acts = [Some(self.got), resumed, Some(self.pushed), Some(self.synced.act)];
        let most = acts.into_iter().flatten().map(|act| act.peak_rss_bytes).max();
        let most_bytes = most.unwrap_or(0).max(self.served_rss_bytes);
        if most_bytes > max_bytes {
            bail!("a process held {most_bytes} bytes of memory, and {max_bytes} ought to do");
        }
        Ok(())
    }

    /// The table, and what it means.
    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{}\n", units::table(&self.rows()));
        text.push_str(&format!(
            "All copies equal the original: {} files and {} directories, verified and durable.\n",
            units::count(self.survey.files),
            units::count(self.survey.directories),
        ));
        text.push_str(&format!(
            "The servers held {} of memory at most.",
            units::bytes(self.served_rss_bytes)
        ));
        if self.survey.others > 0 {
            text.push_str(&format!(
                "\nLeft out: {} links or special files.",
                units::count(self.survey.others)
            ));
        }
        if self.resumed.is_none() {
            text.push_str("\nToo small to be killed on the way, so nothing was resumed.");
        }
        text
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let Survey { files, bytes, .. } = self.survey;
        let mut rows = vec![row(["", "files", "bytes", "time", "rate", "memory"])];
        rows.push(of_act("got", files, &units::bytes(bytes), bytes, self.got));
        if let Some(resumed) = &self.resumed {
            let had = format!("{} ({})", units::bytes(resumed.had_bytes), self.share(resumed.had_bytes));
            rows.push(row(["killed, having", "", &had, "", "", ""]));
            let received_bytes = resumed.outcome.received_bytes;
            let sent = format!("{} ({})", units::bytes(received_bytes), self.share(received_bytes));
            let mut row = of_act("resumed, sending", 0, &sent, received_bytes, resumed.act);
            row[1].clear();
            rows.push(row);
        }
        rows.push(of_act("pushed", files, &units::bytes(bytes), bytes, self.pushed));
        let Reunited { files, moved_bytes, act } = self.synced;
        let mut synced = of_act("synced, sending", files, &units::bytes(moved_bytes), moved_bytes, act);
        // Most of its time is spent reading both sides.
        synced[4].clear();
        rows.push(synced);
        rows
    }

    fn share(&self, bytes: u64) -> String {
        units::percent(bytes, self.survey.bytes)
    }
}

fn of_act(name: &str, files: u64, bytes: &str, moved_bytes: u64, act: Act) -> Vec<String> {
    let (time, rate) = (units::seconds(act.time), units::rate(moved_bytes, act.time));
    row([name, &units::count(files), bytes, &time, &rate, &units::bytes(act.peak_rss_bytes)])
}

fn row(cells: [&str; 6]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shiplane::Outcome;

    fn report(resumed: bool) -> Report {
        let act = |seconds| Act { time: Duration::from_secs(seconds), peak_rss_bytes: 20_000_000 };
        let outcome =
            Outcome { total_bytes: 1_000_000_000, received_bytes: 380_000_000, resumed_bytes: 620_000_000 };
        let resumed = resumed.then(|| Resumed { had_bytes: 630_000_000, outcome, act: act(1) });
        Report {
            survey: Survey { files: 2053, directories: 60, others: 0, bytes: 1_000_000_000 },
            got: act(2),
            resumed,
            pushed: act(4),
            synced: Reunited { files: 2054, moved_bytes: 12_345, act: act(3) },
            served_rss_bytes: 30_000_000,
        }
    }

    #[test]
    fn each_act_is_told_with_its_time_and_its_share() {
        let text = report(true).text();
        for told in ["500 MB/s", "250 MB/s", "380.0 MB (38 %)", "630.0 MB (63 %)", "2,053 files", "12.3 kB"] {
            assert!(text.contains(told), "{told} is not in {text}");
        }
        assert!(text.contains("20.0 MB") && text.contains("30.0 MB of memory"), "{text}");
    }

    #[test]
    fn a_tree_that_was_not_cut_does_not_claim_it() {
        let text = report(false).text();
        assert!(text.contains("nothing was resumed") && !text.contains("killed, having"), "{text}");
    }

    #[test]
    fn too_much_memory_is_an_error_whoever_held_it() {
        report(true).expect_memory_within(30_000_000).unwrap();
        report(true).expect_memory_within(29_999_999).unwrap_err();
        let mut resumed = report(true);
        resumed.resumed.as_mut().unwrap().act.peak_rss_bytes = 70_000_000;
        resumed.expect_memory_within(64_000_000).unwrap_err();
    }
}
