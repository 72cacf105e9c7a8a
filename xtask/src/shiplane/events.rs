//! Parses the `--json` events of `shiplane`.

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

impl Outcome {
    /// Reads all events of one run.
    pub(crate) fn of(lines: &[String]) -> Result<Self> {
        let done = Done::of(lines)?;
        Ok(Self {
            total_bytes: done.number("bytes_total")?,
            received_bytes: done.number("bytes_received")?,
            resumed_bytes: done.number("bytes_resumed")?,
        })
    }
}

/// What a finished `push` says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Content of all files.
    pub(crate) total_bytes: u64,
    /// What of it crossed the network in this run.
    pub(crate) sent_bytes: u64,
}

impl Pushed {
    /// Reads all events of one run. One that is not durable is an error.
    pub(crate) fn of(lines: &[String]) -> Result<Self> {
        let done = Done::of(lines)?;
        if done.0["durable"] != true {
            bail!("the push is not durable: {}", done.0);
        }
        Ok(Self { total_bytes: done.number("bytes_total")?, sent_bytes: done.number("bytes_sent")? })
    }
}

/// What a finished `sync` says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    /// What had to be done, on both sides.
    pub(crate) actions: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

impl Synced {
    /// Reads all events of one run. One that left something alone is an error.
    pub(crate) fn of(lines: &[String]) -> Result<Self> {
        let done = Done::of(lines)?;
        if done.number("left")? != 0 {
            bail!("the sync has left something alone: {}", done.0);
        }
        Ok(Self {
            actions: done.number("actions")?,
            sent_bytes: done.number("bytes_sent")?,
            received_bytes: done.number("bytes_received")?,
        })
    }
}

/// The last event.
struct Done(Value);

impl Done {
    /// Every line must be an event, and the last must say that it is done.
    fn of(lines: &[String]) -> Result<Self> {
        let mut last = None;
        for line in lines {
            let event: Value =
                serde_json::from_str(line).with_context(|| format!("this event is no JSON: {line:?}"))?;
            last = Some(event);
        }
        let done = last.context("it printed no event")?;
        if done["event"] != "done" {
            bail!("the last event is not `done` but {done}");
        }
        Ok(Self(done))
    }

    fn number(&self, field: &str) -> Result<u64> {
        let number = self.0[field].as_u64();
        number.with_context(|| format!("the event `done` has no number `{field}`: {}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_event_tells_how_it_went() {
        let got = lines(&[
            r#"{"event":"progress","bytes_done":5}"#,
            r#"{"event":"done","bytes_total":16,"bytes_received":7,"bytes_resumed":9,"seconds":0.5}"#,
        ]);
        let told = Outcome { total_bytes: 16, received_bytes: 7, resumed_bytes: 9 };
        assert_eq!(Outcome::of(&got).unwrap(), told);
        let pushed = lines(&[r#"{"event":"done","bytes_total":16,"bytes_sent":7,"durable":true}"#]);
        assert_eq!(Pushed::of(&pushed).unwrap(), Pushed { total_bytes: 16, sent_bytes: 7 });
        let synced = lines(&[r#"{"event":"done","actions":3,"left":0,"bytes_sent":7,"bytes_received":9}"#]);
        let told = Synced { actions: 3, sent_bytes: 7, received_bytes: 9 };
        assert_eq!(Synced::of(&synced).unwrap(), told);
    }

    #[test]
    fn no_end_no_number_and_no_json_are_errors() {
        assert!(Outcome::of(&[]).is_err());
        assert!(Outcome::of(&lines(&[r#"{"event":"progress"}"#])).is_err());
        assert!(Outcome::of(&lines(&[r#"{"event":"done","bytes_received":7}"#])).is_err());
        assert!(Outcome::of(&lines(&["done"])).is_err());
    }

    #[test]
    fn less_than_was_promised_is_an_error() {
        let merely = r#"{"event":"done","bytes_total":16,"bytes_sent":7,"durable":false}"#;
        assert!(Pushed::of(&lines(&[merely])).is_err());
        let left = r#"{"event":"done","actions":3,"left":1,"bytes_sent":7,"bytes_received":9}"#;
        assert!(Synced::of(&lines(&[left])).is_err());
    }
}
