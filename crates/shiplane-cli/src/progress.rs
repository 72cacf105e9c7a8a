//! Shows the progress of a transfer: a bar on a terminal, JSON events, or nothing.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::checksums;
use crate::events::{Event, Phase, seconds};
use crate::logging::{is_capable, print_line, set_bar};
use crate::settings::OutputMode;

/// The progress of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) phase: Phase,
    pub(crate) files: u64,
    /// Bytes verified and written at the receiver, including resumed ones. They survive a kill of either program.
    pub(crate) bytes_done: u64,
    pub(crate) bytes_resumed: u64,
    /// Bytes received, verified or not.
    pub(crate) bytes_moved: u64,
    /// The average of the last few seconds.
    pub(crate) bytes_per_second: u64,
    /// Unknown until the server has listed everything.
    pub(crate) bytes_total: Option<u64>,
    /// What kept it from being faster in the last second.
    pub(crate) limited_by: Option<&'static str>,
}

impl Progress {
    /// Nothing has happened yet.
    pub(crate) fn at(phase: Phase) -> Self {
        Self {
            phase,
            files: 0,
            bytes_done: 0,
            bytes_resumed: 0,
            bytes_moved: 0,
            bytes_per_second: 0,
            bytes_total: None,
            limited_by: None,
        }
    }
}

impl From<&shiplane::Event> for Progress {
    fn from(event: &shiplane::Event) -> Self {
        Self {
            phase: event.phase.into(),
            files: event.files_done,
            bytes_done: event.bytes_done,
            bytes_resumed: event.bytes_resumed,
            bytes_moved: event.bytes_moved,
            bytes_per_second: event.bytes_per_second,
            bytes_total: event.bytes_total,
            limited_by: event.limited_by,
        }
    }
}

/// Reports the progress of a transfer. Time is an argument, for tests.
pub(crate) struct Reporter<W> {
    output_mode: OutputMode,
    /// Events and digests go here.
    out: W,
    /// Why nothing is written to `out` any more; the transfer continues without it.
    out_error: Option<io::Error>,
    /// Whether `out` is a terminal, which must not get the bytes of a name as they are.
    is_terminal: bool,
    bar: Option<ProgressBar>,
    /// Whether the bar is gone only as long as nothing is to be expected.
    is_bar_hidden: bool,
    /// Whether output goes to a terminal: the run then ends with a line.
    is_watched: bool,
    began_at: Instant,
    last: Option<Shown>,
    /// `bytes_resumed` as last reported.
    resumed_told: u64,
    /// Why there is no connection, as last reported.
    loss_told: Option<String>,
}

struct Shown {
    progress: Progress,
    /// When anything last moved.
    moved_at: Instant,
    /// When an event last said so, and what.
    told_at: Option<Instant>,
    told: Option<Progress>,
}

impl<W: Write> Reporter<W> {
    /// Starts; draws a bar on a terminal.
    pub(crate) fn new(output_mode: OutputMode, out: W, is_terminal: bool, now: Instant) -> Self {
        let bar = (output_mode == OutputMode::Human && is_capable()).then(new_bar);
        set_bar(bar.clone());
        Self {
            output_mode,
            out,
            out_error: None,
            is_terminal,
            is_watched: io::stderr().is_terminal(),
            bar,
            is_bar_hidden: false,
            began_at: now,
            last: None,
            resumed_told: 0,
            loss_told: None,
        }
    }

    /// Reports progress. Cheap enough for every buffer.
    pub(crate) fn progress(&mut self, progress: Progress, now: Instant) {
        let before = self.last.take();
        if let Some(bar) = self.bar.as_ref().filter(|bar| bar.is_hidden()) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(TICK);
        }
        if progress.phase != Phase::Reconnecting {
            self.loss_told = None;
        }
        let phase_is_new = before.as_ref().is_none_or(|last| last.progress.phase != progress.phase);
        let moved_at = match &before {
            Some(last) if last.progress == progress => last.moved_at,
            _ => now,
        };
        if progress.phase == Phase::Watching {
            self.is_bar_hidden |= self.bar.is_some();
            self.end_bar();
        } else if std::mem::take(&mut self.is_bar_hidden) {
            self.bar = Some(new_bar());
            set_bar(self.bar.clone());
        }
        if let Some(bar) = &self.bar {
            draw(bar, &progress, phase_is_new);
        }
        if progress.phase == Phase::Receiving && progress.bytes_resumed != self.resumed_told {
            self.resumed_told = progress.bytes_resumed;
            self.emit(&Event::Resumed { bytes_resumed: progress.bytes_resumed });
        }
        let (mut told_at, mut told) = before.map_or((None, None), |last| (last.told_at, last.told));
        let is_due = told_at.is_none_or(|at| now.duration_since(at) >= EVENT_INTERVAL);
        if phase_is_new || is_due {
            self.emit(&self.progress_event(&progress, now));
            (told_at, told) = (Some(now), Some(progress));
        }
        self.last = Some(Shown { progress, moved_at, told_at, told });
    }

    /// Whether nothing is to be expected until something happens: there is nothing to report meanwhile.
    pub(crate) fn is_idle(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.progress.phase == Phase::Watching)
    }

    /// Reports progress that was held back by the event interval, and stalls. Call it every [`TICK_INTERVAL`].
    pub(crate) fn tick(&mut self, now: Instant) {
        let Some(last) = &mut self.last else { return };
        let still = now.duration_since(last.moved_at);
        if still >= STILL_AFTER {
            last.progress.bytes_per_second = 0;
            if let Some(bar) = &self.bar {
                let words = last.progress.phase.words();
                bar.set_message(format!("{words}: no data for {}", HumanDuration(still)));
            }
        }
        let is_due = last.told_at.is_none_or(|at| now.duration_since(at) >= EVENT_INTERVAL);
        if is_due && last.told != Some(last.progress) {
            (last.told_at, last.told) = (Some(now), Some(last.progress));
            let progress = last.progress;
            self.emit(&self.progress_event(&progress, now));
        }
    }

    /// Reports any other event.
    pub(crate) fn event(&mut self, event: &Event) {
        self.emit(event);
        match (self.output_mode, event) {
            (OutputMode::Human | OutputMode::Quiet, Event::LeftOut { side, path, reason, .. }) => {
                print_line(&format!("left out {side}: {path}: {reason}"));
            }
            (OutputMode::Human, Event::ConnectionLost { message, .. })
                if self.loss_told.as_ref() != Some(message) =>
            {
                self.loss_told = Some(message.clone());
                print_line(&format!("no connection: {message}; connecting again"));
            }
            (OutputMode::Human, Event::Route { address, message }) if self.is_watched => {
                print_line(&match message {
                    Some(why) => format!("data goes through {address}: {why}"),
                    None => format!("data goes to {address}"),
                });
            }
            (OutputMode::Human | OutputMode::Quiet, Event::NotWatched { side, message, scan_seconds }) => {
                let every = Duration::try_from_secs_f64(*scan_seconds).unwrap_or_default();
                print_line(&format!(
                    "not everything {side} is watched, and both sides are compared every {every:.0?}: {message}"
                ));
            }
            (OutputMode::Human, round @ Event::Round { .. }) if self.is_watched => {
                print_line(&summary(round));
            }
            (OutputMode::Human | OutputMode::Quiet, Event::File { path, sha256: Some(sha256), .. }) => {
                let line = checksums::line(sha256, path, self.is_terminal);
                self.write(|out| out.write_all(&line));
            }
            (OutputMode::Human, Event::Explained { line, .. }) => print_line(line),
            (OutputMode::Human, Event::Entry { line, .. }) => self.write(|out| writeln!(out, "{line}")),
            (OutputMode::Human, Event::Action { side, change, path, from, why }) => {
                let from = from.as_ref().map_or_else(String::new, |from| format!(" from {from}"));
                let change = change.replace('_', " ");
                self.write(|out| writeln!(out, "{side}: {change} {path}{from} ({why})"));
            }
            (
                OutputMode::Human,
                done @ (Event::Done { .. } | Event::Pushed { .. } | Event::Synced { dry_run: false, .. }),
            ) if self.is_watched => {
                self.end_bar();
                print_line(&summary(done));
            }
            _ => {}
        }
    }

    /// Removes the bar.
    pub(crate) fn end_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            set_bar(None);
        }
    }

    fn progress_event(&self, progress: &Progress, now: Instant) -> Event {
        let Progress { phase, files, bytes_done, bytes_resumed, bytes_per_second, .. } = *progress;
        let Progress { bytes_total, limited_by, .. } = *progress;
        Event::Progress {
            phase,
            files,
            bytes_done,
            bytes_resumed,
            bytes_per_second,
            bytes_total,
            limited_by,
            seconds: seconds(now.duration_since(self.began_at)),
        }
    }

    fn emit(&mut self, event: &Event) {
        if self.output_mode == OutputMode::Json {
            self.write(|out| event.write_line(out));
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        if self.out_error.is_none()
            && let Err(error) = write(&mut self.out).and_then(|()| self.out.flush())
        {
            tracing::warn!(%error, "cannot write to standard output; the transfer continues");
            self.out_error = Some(error);
        }
    }

    /// Why standard output could not be written, if it could not.
    pub(crate) fn take_output_error(&mut self) -> Option<io::Error> {
        self.out_error.take()
    }
}

impl<W> Drop for Reporter<W> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            set_bar(None);
        }
    }
}

/// Nothing is drawn before there is something to show: ssh may still ask for a password.
fn new_bar() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style(false))
}

fn draw(bar: &ProgressBar, progress: &Progress, phase_is_new: bool) {
    if phase_is_new || bar.length() != progress.bytes_total {
        bar.set_style(style(progress.bytes_total.is_some()));
    }
    match progress.bytes_total {
        Some(total) => bar.set_length(total),
        None => bar.unset_length(),
    }
    bar.set_position(progress.bytes_done);
    bar.set_message(message(progress));
}

/// What is going on, the most important first: a narrow terminal shows only the beginning.
fn message(progress: &Progress) -> String {
    let words = progress.phase.words();
    let resumed = match progress.bytes_resumed {
        0 => String::new(),
        resumed => format!(", {} resumed", BinaryBytes(resumed)),
    };
    let limit = progress.limited_by.map_or_else(String::new, |limit| format!(", limited by {limit}"));
    match speed(progress) {
        speed if speed.is_empty() => format!("{words}{resumed}"),
        speed => format!("{speed}, {words}{limit}{resumed}"),
    }
}

/// The rate and the time left, if known.
fn speed(progress: &Progress) -> String {
    let rate = progress.bytes_per_second;
    if rate == 0 {
        return String::new();
    }
    let speed = format!("{}/s", BinaryBytes(rate));
    let left = progress.bytes_total.map(|total| {
        let left_bytes = total - progress.bytes_done.min(total);
        Duration::from_secs(left_bytes.saturating_add(rate / 2) / rate)
    });
    match left {
        Some(left) if !left.is_zero() => format!("{speed}, {} left", HumanDuration(left)),
        Some(_) | None => speed,
    }
}

fn style(has_total: bool) -> ProgressStyle {
    // The templates are constants and checked by a test.
    ProgressStyle::with_template(template(has_total))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// With a known total a bar, otherwise a byte counter. The message is cut to what fits, so that the line never wraps.
fn template(has_total: bool) -> &'static str {
    if has_total {
        "[{bar:10}] {binary_bytes}/{binary_total_bytes} {wide_msg}"
    } else {
        "{spinner} {binary_bytes} {wide_msg}"
    }
}

/// A number of things, in words.
pub(crate) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

fn summary(event: &Event) -> String {
    let (files, moved, wire, verb, bytes_resumed, left_out, seconds) = match event {
        Event::Done { files, bytes_received, bytes_wire, bytes_resumed, left_out, seconds, .. } => {
            (files, *bytes_received, *bytes_wire, "received", bytes_resumed, left_out, seconds)
        }
        Event::Pushed { files, bytes_sent, bytes_wire, bytes_resumed, left_out, seconds, .. } => {
            (files, *bytes_sent, *bytes_wire, "sent", bytes_resumed, left_out, seconds)
        }
        Event::Round { actions, left_out, bytes_sent, bytes_received, seconds, .. } => {
            let took = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
            let (sent, received) = (BinaryBytes(*bytes_sent), BinaryBytes(*bytes_received));
            let left_out = if *left_out == 0 { String::new() } else { format!(", {left_out} left out") };
            let done = format!("synced: {}{left_out}", count(*actions, "change"));
            return format!("{done}, {sent} sent, {received} received in {took:.1?}; watching");
        }
        Event::Synced { files, actions, left_out, bytes_sent, bytes_received, seconds, .. } => {
            let took = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
            let (sent, received) = (BinaryBytes(*bytes_sent), BinaryBytes(*bytes_received));
            let (files, actions) = (count(*files, "file"), count(*actions, "change"));
            let done = format!("done: {files} on both sides, {actions}");
            let limits = event.limits();
            return format!(
                "{done}, {left_out} left out, {sent} sent, {received} received in {took:.1?}{limits}"
            );
        }
        _ => return String::new(),
    };
    let took = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
    if moved == 0 && *left_out == 0 && *bytes_resumed > 0 {
        let there = BinaryBytes(*bytes_resumed);
        return format!(
            "nothing to do: {} with {there}, all there already ({took:.1?})",
            count(*files, "file")
        );
    }
    let rate = moved as f64 / seconds.max(MIN_RATE_SECONDS);
    let resumed = match bytes_resumed {
        0 => String::new(),
        bytes if moved == 0 => format!(", {} there already", BinaryBytes(*bytes)),
        bytes => format!(", {} resumed", BinaryBytes(*bytes)),
    };
    let squeezed = if wire < moved { format!(" as {}", BinaryBytes(wire)) } else { String::new() };
    let moved = BinaryBytes(moved);
    let rate = BinaryBytes(rate as u64);
    let left_out = if *left_out == 0 { String::new() } else { format!(", {left_out} left out") };
    let files = count(*files, "file");
    let limits = event.limits();
    format!("done: {files}, {moved} {verb}{squeezed} in {took:.1?} ({rate}/s){resumed}{left_out}{limits}")
}

/// Four a second: enough for a script that draws, few enough for one that logs.
const EVENT_INTERVAL: Duration = Duration::from_millis(250);

/// The event interval.
pub(crate) const TICK_INTERVAL: Duration = EVENT_INTERVAL;

/// Longer than any round trip and retransmission on a working path.
const STILL_AFTER: Duration = Duration::from_secs(5);

/// The bar's own redraw interval.
const TICK: Duration = Duration::from_millis(200);

/// Avoids a division by zero for very short transfers.
const MIN_RATE_SECONDS: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bytes_done: u64) -> Progress {
        let phase = Phase::Receiving;
        Progress {
            phase,
            files: 0,
            bytes_done,
            bytes_resumed: 0,
            bytes_moved: bytes_done,
            bytes_per_second: 0,
            bytes_total: Some(100),
            limited_by: None,
        }
    }

    fn file(sha256: Option<&str>) -> Event {
        Event::File { path: r"a\\b".to_owned(), bytes: 1, received: true, sha256: sha256.map(str::to_owned) }
    }

    /// The events that a script would have read.
    fn told(out: &[u8]) -> Vec<serde_json::Value> {
        let text = str::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn events_name_every_phase_and_not_every_buffer() {
        let (mut out, now) = (Vec::new(), Instant::now());
        let mut reporter = Reporter::new(OutputMode::Json, &mut out, false, now);
        reporter.progress(Progress { phase: Phase::Listing, ..at(0) }, now);
        for bytes in 0..50 {
            reporter.progress(at(bytes), now + Duration::from_millis(bytes * 10));
        }
        drop(reporter);
        let done: Vec<_> = told(&out).iter().map(|event| event["bytes_done"].as_u64().unwrap()).collect();
        assert_eq!(done, [0, 0, 25]);
    }

    #[test]
    fn the_last_step_is_reported_and_then_the_end() {
        let (mut out, start) = (Vec::new(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        let mut reporter = Reporter::new(OutputMode::Json, &mut out, false, start);
        reporter.progress(at(0), start);
        reporter.progress(Progress { bytes_per_second: 7, ..at(40) }, after(400));
        reporter.progress(Progress { bytes_per_second: 7, ..at(60) }, after(500));
        for ms in (600..60_000).step_by(250) {
            reporter.tick(after(ms));
        }
        drop(reporter);
        let told = told(&out);
        let of = |name: &str| told.iter().map(|event| event[name].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(of("bytes_done"), [0, 40, 60, 60]);
        assert_eq!(of("bytes_per_second")[1..], [7, 7, 0]);
    }

    #[test]
    fn a_peer_gets_only_the_digests_that_it_asked_for() {
        for output_mode in [OutputMode::Quiet, OutputMode::Human] {
            let (mut out, now) = (Vec::new(), Instant::now());
            let mut reporter = Reporter::new(output_mode, &mut out, false, now);
            reporter.progress(at(1), now);
            reporter.event(&file(None));
            reporter.event(&file(Some("abc")));
            drop(reporter);
            assert_eq!(out, b"\\abc  a\\\\b\n", "{output_mode:?}");
        }
    }

    #[test]
    fn a_reader_that_leaves_does_not_end_the_transfer() {
        struct Gone(u32);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut out, now) = (Gone(0), Instant::now());
        let mut reporter = Reporter::new(OutputMode::Json, &mut out, false, now);
        reporter.event(&file(None));
        reporter.event(&file(None));
        let error = reporter.take_output_error().map(|error| error.kind());
        assert_eq!(error, Some(io::ErrorKind::BrokenPipe), "it counts at the end");
        drop(reporter);
        assert_eq!(out.0, 1);
    }

    #[test]
    fn the_bar_shows_finished_bytes_out_of_all() {
        let (bar, mut now) = (ProgressBar::hidden(), Instant::now());
        let mut out = Vec::new();
        let mut reporter = Reporter::new(OutputMode::Quiet, &mut out, false, now);
        reporter.bar = Some(bar.clone());
        let mut positions = Vec::new();
        for bytes in [0, 10, 40, 100] {
            now += Duration::from_millis(1);
            reporter.progress(at(bytes), now);
            positions.push((bar.position(), bar.length()));
        }
        assert_eq!(positions, [0, 10, 40, 100].map(|bytes| (bytes, Some(100))));
    }

    #[test]
    fn the_speed_says_how_long_the_rest_takes() {
        let shown = Progress { bytes_total: Some(14_000), bytes_per_second: 1000, ..at(11_000) };
        assert_eq!(speed(&shown), "1000 B/s, 3 seconds left");
        assert_eq!(speed(&Progress { bytes_done: 14_000, ..shown }), "1000 B/s");
        assert_eq!(speed(&Progress { bytes_total: None, ..shown }), "1000 B/s");
        assert_eq!(speed(&Progress { bytes_per_second: 0, ..shown }), "");
    }

    #[test]
    fn the_templates_are_valid() {
        for has_total in [true, false] {
            assert!(ProgressStyle::with_template(template(has_total)).is_ok());
        }
    }

    #[test]
    fn the_summary_says_what_was_resumed_and_left_out() {
        let done = |bytes_resumed, bytes_wire, left_out| Event::Done {
            files: 3,
            bytes_total: 3 << 20,
            bytes_received: 2 << 20,
            bytes_wire,
            bytes_resumed,
            kept: 0,
            deleted: 0,
            left_out,
            seconds: 2.0,
            limited_by: Vec::new(),
            digest: None,
            digest_algorithm: None,
        };
        let plain = "done: 3 files, 2.00 MiB received in 2.0s (1.00 MiB/s)";
        assert_eq!(summary(&done(0, 2 << 20, 0)), plain);
        assert_eq!(summary(&done(1 << 20, 2 << 20, 0)), format!("{plain}, 1.00 MiB resumed"));
        assert_eq!(summary(&done(0, 2 << 20, 7)), format!("{plain}, 7 left out"));
        let squeezed = "done: 3 files, 2.00 MiB received as 512.00 KiB in 2.0s (1.00 MiB/s)";
        assert_eq!(summary(&done(0, 1 << 19, 0)), squeezed);
        let nothing = Event::Done {
            files: 1,
            bytes_total: 1 << 20,
            bytes_received: 0,
            bytes_wire: 0,
            bytes_resumed: 1 << 20,
            left_out: 0,
            kept: 0,
            deleted: 0,
            seconds: 0.5,
            limited_by: Vec::new(),
            digest: None,
            digest_algorithm: None,
        };
        assert_eq!(summary(&nothing), "nothing to do: 1 file with 1.00 MiB, all there already (500.0ms)");
    }

    #[test]
    fn a_narrow_terminal_shows_the_rate_first() {
        let moving =
            Progress { bytes_total: Some(14_000), bytes_per_second: 1000, bytes_resumed: 5, ..at(11_000) };
        assert_eq!(message(&moving), "1000 B/s, 3 seconds left, receiving, 5 B resumed");
        let limited = Progress { limited_by: Some("path"), bytes_resumed: 0, ..moving };
        assert_eq!(message(&limited), "1000 B/s, 3 seconds left, receiving, limited by path");
        assert_eq!(message(&Progress::at(Phase::Listing)), "waiting for the list of files");
    }
}
