//! The table at the end of a demo.

use std::time::Duration;

use super::cut::Resumed;
use crate::compare::Survey;
use crate::units;

/// The table. `resumed` is `None` where the tree was too small for a receiver to be killed.
pub(super) fn table(survey: &Survey, first_run: Duration, resumed: Option<&Resumed>) -> String {
    let mut rows = vec![
        row(["", "files", "bytes", "time", "rate"]),
        row([
            "first run",
            &units::count(survey.files),
            &units::bytes(survey.bytes),
            &units::seconds(first_run),
            &units::rate(survey.bytes, first_run),
        ]),
    ];
    if let Some(resumed) = resumed {
        let had = format!("{} ({})", units::bytes(resumed.had_bytes), share(survey, resumed.had_bytes));
        rows.push(row(["killed, having", "", &had, "", ""]));
        let received_bytes = resumed.outcome.received_bytes;
        let sent = format!("{} ({})", units::bytes(received_bytes), share(survey, received_bytes));
        let rate = units::rate(received_bytes, resumed.time);
        rows.push(row(["resumed, sending", "", &sent, &units::seconds(resumed.time), &rate]));
    }
    let mut text = format!("\n{}\n", units::table(&rows));
    text.push_str(&format!(
        "Both copies equal the original: {} files and {} directories, verified and durable.",
        units::count(survey.files),
        units::count(survey.directories),
    ));
    if survey.others > 0 {
        text.push_str(&format!("\nLeft out: {} links or special files.", units::count(survey.others)));
    }
    if resumed.is_none() {
        text.push_str("\nToo small to be killed half-way, so nothing was resumed.");
    }
    text
}

fn share(survey: &Survey, bytes: u64) -> String {
    units::percent(bytes, survey.bytes)
}

fn row(cells: [&str; 5]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shiplane::Outcome;

    const SURVEY: Survey = Survey { files: 2053, directories: 60, others: 0, bytes: 1_000_000_000 };

    #[test]
    fn a_resumed_run_is_told_with_its_share() {
        let outcome =
            Outcome { total_bytes: 1_000_000_000, received_bytes: 480_000_000, resumed_bytes: 520_000_000 };
        let resumed = Resumed { had_bytes: 530_000_000, outcome, time: Duration::from_secs(1) };
        let text = table(&SURVEY, Duration::from_secs(2), Some(&resumed));
        assert!(text.contains("500 MB/s") && text.contains("480.0 MB (48 %)"), "{text}");
        assert!(text.contains("530.0 MB (53 %)") && text.contains("2,053 files"), "{text}");
    }

    #[test]
    fn a_tree_that_was_not_cut_does_not_claim_it() {
        let text = table(&SURVEY, Duration::from_secs(2), None);
        assert!(text.contains("nothing was resumed") && !text.contains("killed, having"), "{text}");
    }
}
