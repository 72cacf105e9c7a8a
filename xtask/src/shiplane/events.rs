//! The `--json` events of `shiplane get`: one object a line.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What a finished `get` says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Content of all files.
    pub(crate) total_bytes: u64,
    /// What of it crossed the network in this run.
    pub(crate) received_bytes: u64,
    /// What of it was there from a run before.
    pub(crate) resumed_bytes: u64,
}

/// Reads all events of one run. Every line must be one, and the last must say that it is done.
pub(crate) fn outcome(lines: &[String]) -> Result<Outcome> {
    let mut last = None;
    for line in lines {
        let event: Value =
            serde_json::from_str(line).with_context(|| format!("this event is no JSON: {line:?}"))?;
        last = Some(event);
    }
    let done = last.context("the receiver printed no event")?;
    if done["event"] != "done" {
        bail!("the receiver's last event is not `done` but {done}");
    }
    let number = |field: &str| {
        let number = done[field].as_u64();
        number.with_context(|| format!("the event `done` has no number `{field}`: {done}"))
    };
    Ok(Outcome {
        total_bytes: number("bytes_total")?,
        received_bytes: number("bytes_received")?,
        resumed_bytes: number("bytes_resumed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome_of(lines: &[&str]) -> Result<Outcome> {
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        outcome(&lines)
    }

    #[test]
    fn the_last_event_tells_how_it_went() {
        let lines = [
            r#"{"event":"progress","bytes_done":5}"#,
            r#"{"event":"done","bytes_total":16,"bytes_received":7,"bytes_resumed":9,"seconds":0.5}"#,
        ];
        let told = Outcome { total_bytes: 16, received_bytes: 7, resumed_bytes: 9 };
        assert_eq!(outcome_of(&lines).unwrap(), told);
    }

    #[test]
    fn no_end_no_number_and_no_json_are_errors() {
        assert!(outcome_of(&[]).is_err());
        assert!(outcome_of(&[r#"{"event":"progress"}"#]).is_err());
        assert!(outcome_of(&[r#"{"event":"done","bytes_received":7}"#]).is_err());
        assert!(outcome_of(&["done"]).is_err());
    }
}
