//! The tables: printed, judged by targets, and written into the documents.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use xtask::units;

use super::machine::{self, Kind};
use super::programs::{Contender, Program};
use super::transfer::End;
use super::workload::Workload;
use super::{Conditions, Must, Row, Sample};

/// All counted runs of one program, or of the lane alone.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) contender: Option<Contender>,
    pub(super) samples: Vec<Sample>,
    /// What else there is to say.
    pub(super) note: String,
}

impl Measured {
    /// Of something before its runs.
    pub(super) fn new(name: &str, contender: Option<Contender>) -> Self {
        Self { name: name.to_owned(), contender, samples: Vec::new(), note: String::new() }
    }

    fn is_ours(&self) -> bool {
        self.contender.as_ref().is_some_and(Contender::is_ours)
    }

    /// What has failed is not run again, and what is too slow once needs no second minute.
    pub(super) fn goes_on(&self) -> bool {
        match self.samples.last().map(|sample| &sample.end) {
            None | Some(End::Done) => true,
            Some(End::Stopped) => self.is_ours(),
            Some(End::Failed(_)) => false,
        }
    }

    fn each(&self, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(figure).collect()
    }

    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.each(figure))
    }
}

/// A table with the targets that belong to it.
pub(super) struct Section {
    title: String,
    tables: Vec<Vec<Vec<String>>>,
}

impl Section {
    pub(super) fn new(title: &str, rows: Vec<Vec<String>>) -> Self {
        Self { title: title.to_owned(), tables: vec![rows] }
    }

    /// What was measured of a row, and how that compares with what must be reached.
    pub(super) fn of(row: &Row, measured: &[Measured]) -> Self {
        let columns = if row.link.is_some() { LINK } else { LOOPBACK };
        let mut rows = vec![units::cells(&format!("{}{columns}", machine::today()))];
        let perfect = measured.iter().find(|one| one.name == PERFECT);
        let perfect_mbit_s = perfect.map_or(f64::NAN, |one| one.median(Sample::mbit_s));
        let measured_once = measured.iter().filter(|one| !one.samples.is_empty());
        rows.extend(measured_once.map(|one| cells(row, one, perfect_mbit_s)));
        let mut targets = vec![units::cells(TARGETS)];
        targets.extend(targets_of(row, Kind::here(), measured).iter().map(Target::row));
        Self { title: row.name.to_owned(), tables: vec![rows, targets] }
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        self.tables.iter().map(|table| units::table(table) + "\n").collect()
    }

    fn markdown(&self) -> String {
        let tables: String = self.tables.iter().map(|table| markdown(table) + "\n").collect();
        format!("## {}\n\n{tables}", self.title)
    }
}

/// Writes a section behind `head` into the file of this name for this kind of machine, in place of its own of the same
/// title, whose others stay. Does nothing without a directory for documents.
pub(super) fn write(docs: Option<&Path>, name: &str, head: &str, section: &Section) -> Result<()> {
    let Some(docs) = docs else { return Ok(()) };
    let directory = docs.join(Kind::here().slug());
    let path = directory.join(name);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let others = old.split("\n## ").skip(1).filter(|old| old.lines().next() != Some(&section.title));
    let others: String = others.map(|old| format!("## {}\n\n", old.trim_end())).collect();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    fs::write(&path, format!("{head}\n\n{others}{}\n", section.markdown().trim_end()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// An error if our own program has failed.
pub(super) fn failures(row: &Row, measured: &[Measured]) -> Result<()> {
    for one in measured.iter().filter(|one| one.is_ours()) {
        if let Some(End::Failed(why)) = one.samples.last().map(|sample| &sample.end) {
            bail!("{}, {}: {why}", row.name, one.name);
        }
    }
    Ok(())
}

/// A run in one line.
pub(super) fn described(sample: &Sample) -> String {
    let end = match &sample.end {
        End::Done => String::new(),
        End::Stopped => ", stopped".to_owned(),
        End::Failed(why) => format!(", failed: {why}"),
    };
    let resent = match sample.resent_percent {
        percent if percent.is_nan() => String::new(),
        percent => format!(", resent {percent:.1} %"),
    };
    let (seconds, bytes, rate) = (sample.time.as_secs_f64(), units::bytes(sample.bytes), sample.mbit_s());
    format!("{seconds:7.2} s  {bytes:>9}  {rate:7.1} Mbit/s{resent}{end}")
}

/// The one in the middle, or the mean of the two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn cells(row: &Row, measured: &Measured, perfect_mbit_s: f64) -> Vec<String> {
    let time_s = measured.median(seconds);
    let (figures, last) = if let Some(link) = row.link {
        let rate = measured.median(Sample::mbit_s);
        let resent = measured.median(|sample| sample.resent_percent);
        let rates = [one(rate), two(rate / link.rate_mbit), two(rate / perfect_mbit_s)];
        let figures = [&rates[..], &[one(time_s * 1e3 / link.rtt_ms), one(resent)]].concat();
        (figures, measured.note.clone())
    } else {
        let bytes = measured.samples.first().map_or(0, |sample| sample.bytes);
        // Where nothing has to be carried, there is no rate.
        let is_carried = !matches!(row.workload, Workload::Unchanged(_));
        let gigabytes = if is_carried { bytes as f64 / 1e9 } else { f64::NAN };
        let cpu = |figure: fn(&Sample) -> f64| {
            two(measured.median(figure) / if is_carried { gigabytes } else { 1.0 })
        };
        let [server, client] =
            [cpu(|sample| sample.server.cpu.as_secs_f64()), cpu(|sample| sample.client.cpu.as_secs_f64())];
        let wire_bytes = measured.median(|sample| sample.wire_bytes as f64);
        (vec![two(gigabytes / time_s), cpu(Sample::cpu), server, client], units::megabytes(wire_bytes as u64))
    };
    [&times(measured)[..], &figures, &peaks(measured), &[last]].concat()
}

/// Name, median and range; a star where a run was stopped.
fn times(measured: &Measured) -> [String; 3] {
    let times = measured.each(seconds);
    let mark = match measured.samples.iter().map(|sample| &sample.end).find(|end| **end != End::Done) {
        None => "",
        Some(End::Stopped | End::Done) => "*",
        Some(End::Failed(_)) => ", failed",
    };
    [measured.name.clone(), format!("{} s{mark}", two(median(times.clone()))), range(&times)]
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{least:.2}–{most:.2}")
}

/// Of the server and of the client, in any run.
fn peaks(measured: &Measured) -> [String; 2] {
    [|sample: &Sample| sample.server, |sample: &Sample| sample.client].map(|side| {
        let most = measured.samples.iter().map(|sample| side(sample).peak_rss_bytes).max();
        most.filter(|most| *most > 0).map_or_else(dash, units::bytes)
    })
}

fn two(value: f64) -> String {
    if value.is_nan() { dash() } else { format!("{value:.2}") }
}

fn one(value: f64) -> String {
    if value.is_nan() { dash() } else { format!("{value:.1}") }
}

pub(super) fn dash() -> String {
    "–".to_owned()
}

/// A figure, with a mark to be reached and one to be aimed at, as far as there are any.
#[derive(Debug)]
struct Target {
    what: &'static str,
    /// Of each round; empty if a program that it takes is missing.
    values: Vec<f64>,
    is_floor: bool,
    marks: Vec<f64>,
}

impl Target {
    fn at_least(what: &'static str, marks: &[f64], values: Vec<f64>) -> Self {
        Self { what, values, is_floor: true, marks: marks.to_vec() }
    }

    fn at_most(what: &'static str, marks: &[f64], values: Vec<f64>) -> Self {
        Self { is_floor: false, ..Self::at_least(what, marks, values) }
    }

    fn row(&self) -> Vec<String> {
        let value = (!self.values.is_empty()).then(|| median(self.values.clone()));
        let mut row = vec![
            self.what.to_owned(),
            value.map_or_else(|| "something is missing".to_owned(), two),
            value.map_or_else(String::new, |_| range(&self.values)),
        ];
        for mark in &self.marks {
            let holds = |value: f64| if self.is_floor { value >= *mark } else { value <= *mark };
            row.push(format!("{} {mark}", if self.is_floor { "≥" } else { "≤" }));
            row.push(value.map_or("?", |value| yes_or_no(holds(value))).to_owned());
        }
        row.resize(TARGETS.split('|').count(), String::new());
        row
    }
}

pub(super) fn yes_or_no(holds: bool) -> &'static str {
    if holds { "yes" } else { "NO" }
}

/// What a row is judged by on a kind of machine.
fn targets_of(row: &Row, kind: Kind, measured: &[Measured]) -> Vec<Target> {
    let judged = Judged { row, measured };
    match row.link {
        Some(link) => judged.over_link(link).into_iter().collect(),
        None => judged.on_loopback(kind),
    }
}

struct Judged<'a> {
    row: &'a Row,
    measured: &'a [Measured],
}

impl Judged<'_> {
    /// A figure of each round of one program. Empty if it is missing.
    fn each(&self, program: Program, figure: fn(&Sample) -> f64) -> Vec<f64> {
        let is_it = |one: &&Measured| one.contender.as_ref().is_some_and(|one| one.program == program);
        self.measured.iter().find(is_it).map(|one| one.each(figure)).unwrap_or_default()
    }

    /// A figure of one program by that of another, round by round.
    fn ratio(&self, of: Program, by: Program, figure: fn(&Sample) -> f64) -> Vec<f64> {
        self.each(of, figure).into_iter().zip(self.each(by, figure)).map(|(of, by)| of / by).collect()
    }

    fn over_link(&self, link: Conditions) -> Option<Target> {
        let rtt_s = link.rtt_ms / 1e3;
        let rate_by =
            |by: f64| self.each(Program::DURABLE, Sample::mbit_s).into_iter().map(|rate| rate / by).collect();
        let times = |program| self.each(program, seconds).into_iter();
        let (what, mark, values) = match self.row.must {
            Must::PerfectWindow => {
                let perfect = self.measured.iter().find(|one| one.name == PERFECT);
                let needed_s = perfect.map(|one| one.median(seconds) * 1.03 + 3.0 * rtt_s);
                let needed_mbit_s = needed_s.map(|needed| self.row.file_bytes() as f64 * 8e-6 / needed);
                let what = "rate ÷ that of 1.03 times the perfect window's time and 3 round trips";
                (what, 1.0, needed_mbit_s.map(rate_by).unwrap_or_default())
            }
            Must::Rsync => {
                let values = self.ratio(Program::DURABLE, Program::RSYNC, Sample::mbit_s);
                ("rate ÷ that of rsync over BBR", 1.0, values)
            }
            Must::OfLink(must) => ("rate ÷ link", must, rate_by(link.rate_mbit)),
            Must::Scp => ("rate ÷ scp's", 1.0, self.ratio(Program::OVER_SSH, Program::SCP, Sample::mbit_s)),
            Must::RoundTrips(must) => {
                let values = times(Program::DURABLE).map(|time| time / rtt_s).collect();
                return Some(Target::at_most("round trips", &[must], values));
            }
            Must::BeyondLogin(must) => {
                let pairs = times(Program::OVER_SSH).zip(times(Program::LOGIN));
                let values = pairs.map(|(ours, login)| (ours - login) / rtt_s).collect();
                return Some(Target::at_most("round trips beyond a login", &[must], values));
            }
            Must::Usual => return None,
        };
        Some(Target::at_least(what, &[mark], values))
    }

    fn on_loopback(&self, kind: Kind) -> Vec<Target> {
        let (at_least, at_most) = (Target::at_least, Target::at_most);
        let time = |of, by| self.ratio(of, by, seconds);
        let (curl, rsync) = (Program::CURL_HTTPS, Program::RSYNC);
        let mut targets = match self.row.workload {
            _ if self.row.ways.contains(&Program::SECOND) => {
                let cpu =
                    self.ratio(Program::SECOND, Program::VERIFIED, |sample| sample.server.cpu.as_secs_f64());
                vec![
                    at_most("time, second receiver ÷ first", &[], time(Program::SECOND, Program::VERIFIED)),
                    at_most("CPU-s at the source, second ÷ first", &[], cpu),
                ]
            }
            Workload::File(_) => {
                let (rate, cpu) = match kind {
                    Kind::A => ([0.95, 1.15], [1.0, 0.85]),
                    Kind::B => ([0.9, 1.0], [1.25, 1.1]),
                };
                let cpu_to_curl = self.ratio(Program::VERIFIED, curl, Sample::cpu);
                let to_scp = time(Program::SCP, Program::VERIFIED);
                vec![
                    at_least(
                        "rate ÷ that of curl over HTTPS, verified",
                        &rate,
                        time(curl, Program::VERIFIED),
                    ),
                    at_least("rate ÷ scp's, verified", &[1.6, 2.2], to_scp),
                    at_most("CPU-s of both sides ÷ those of curl and nginx", &cpu, cpu_to_curl),
                ]
            }
            Workload::Tree(_) => {
                vec![at_most("time ÷ rsync daemon's, verified", &[0.8, 0.6], time(Program::VERIFIED, rsync))]
            }
            Workload::Unchanged(_) => vec![
                at_most("time of get ÷ rsync daemon's", &[0.3, 0.2], time(Program::DURABLE, rsync)),
                at_most("time of sync ÷ rsync daemon's", &[0.5, 0.35], time(Program::SYNC, rsync)),
            ],
            Workload::Edited(_) => {
                let wire = self.ratio(Program::VERIFIED, rsync, |sample| sample.wire_bytes as f64);
                vec![
                    at_most("time ÷ rsync daemon's, verified", &[1.0, 0.7], time(Program::VERIFIED, rsync)),
                    at_most("bytes on the wire ÷ rsync daemon's", &[0.5, 0.4], wire),
                ]
            }
        };
        // For any size, so in every scenario.
        let ours = self.measured.iter().filter(|one| one.is_ours()).flat_map(|one| &one.samples);
        let peak = ours.map(Sample::peak_bytes).max().map(|bytes| bytes as f64 / f64::from(1 << 20));
        let values = peak.into_iter().collect();
        targets.push(at_most("peak memory of either side, MiB", &[48.0, 24.0], values));
        targets
    }
}

fn seconds(sample: &Sample) -> f64 {
    sample.time.as_secs_f64()
}

/// Rows as a table of Markdown: the first column to the left, the others to the right.
fn markdown(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let _infallible = writeln!(text, "| {} |", row.join(" | "));
        if number == 0 {
            let _infallible = writeln!(text, "|---|{}", "--:|".repeat(row.len().saturating_sub(1)));
        }
    }
    text
}

/// What the lane in a bench is called, with a window fixed at 1.1 bandwidth-delay products.
pub(super) const PERFECT: &str = "perfect window";

const TARGETS: &str = "target|median|rounds|must|holds|aim|holds";

const LOOPBACK: &str = "|time|runs|GB/s|CPU-s/GB|server|client|peak of server|client|on the wire";

const LINK: &str = "|time|runs|Mbit/s|÷ link|÷ perfect|round trips|resent %|peak of server|client|";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use xtask::driver::Verb;
    use xtask::process::Usage;

    use super::*;

    fn measured(program: Program, times_ms: &[u64], cpu_ms: u64) -> Measured {
        let used = Usage { cpu: Duration::from_millis(cpu_ms), peak_rss_bytes: 40 << 20 };
        let sample = |&ms: &u64| Sample {
            time: Duration::from_millis(ms),
            bytes: 1_000_000_000,
            server: used,
            client: used,
            wire_bytes: 1_000_000,
            resent_percent: f64::NAN,
            ..Sample::default()
        };
        let contender = Contender::other(program);
        Measured { samples: times_ms.iter().map(sample).collect(), ..Measured::new("x", Some(contender)) }
    }

    fn row(link: Option<Conditions>, workload: Workload, must: Must) -> Row {
        Row { name: "row", link, verb: Verb::Get, workload, ways: &[], others: &[], is_busy: false, must }
    }

    #[test]
    fn the_median_of_the_rounds_is_judged() {
        let ours = measured(Program::VERIFIED, &[1000, 1000, 1000], 300);
        let all = [ours, measured(Program::SCP, &[2000, 1800, 2600], 300)];
        let told = |row: &Row, at: usize| targets_of(row, Kind::B, &all)[at].row()[1..].join("|");
        let file = row(None, Workload::File(1), Must::Usual);
        assert_eq!(told(&file, 1), "2.00|1.80–2.60|≥ 1.6|yes|≥ 2.2|NO");
        assert_eq!(told(&file, 3), "40.00|40.00–40.00|≤ 48|yes|≤ 24|NO");
        assert_eq!(
            told(&row(None, Workload::Tree(1), Must::Usual), 0),
            "something is missing||≤ 0.8|?|≤ 0.6|?"
        );
        let second = Row { ways: &[Program::SECOND], ..file };
        assert_eq!(told(&second, 0), "something is missing|||||", "a figure without bounds is only told");
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    }

    #[test]
    fn the_perfect_window_and_the_link_are_what_a_row_over_a_link_is_judged_by() {
        let link = Some(Conditions::new(50.0, 200.0, 0.0));
        let workload = Workload::File(1_000_000_000);
        let mut all = vec![measured(Program::DURABLE, &[42_000], 1)];
        let target = |must, all: &[Measured]| {
            targets_of(&row(link, workload, must), Kind::B, all)[0].row()[1..].join("|")
        };
        assert_eq!(target(Must::OfLink(0.8), &all), "0.95|0.95–0.95|≥ 0.8|yes||");
        assert_eq!(target(Must::PerfectWindow, &all), "something is missing||≥ 1|?||");
        let perfect =
            Measured { name: PERFECT.to_owned(), contender: None, ..measured(Program::SCP, &[41_000], 1) };
        all.push(perfect);
        assert_eq!(target(Must::PerfectWindow, &all), "1.01|1.01–1.01|≥ 1|yes||");
        let cells = cells(&row(link, workload, Must::Usual), &all[0], 400.0).join("|");
        assert_eq!(cells, "x|42.00 s|42.00–42.00|190.5|0.95|0.48|840.0|–|41.9 MB|41.9 MB|");
    }

    #[test]
    fn a_section_that_is_measured_again_replaces_the_old_one_and_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let section =
            |title: &str, cell: &str| Section::new(title, vec![units::cells("a|b"), units::row(["x", cell])]);
        for (title, cell) in [("first", "1"), ("second", "2"), ("first", "3")] {
            write(Some(directory.path()), "wan.md", "# Wide area", &section(title, cell)).unwrap();
        }
        let path = directory.path().join(Kind::here().slug()).join("wan.md");
        let table = |cell| format!("| a | b |\n|---|--:|\n| x | {cell} |\n");
        let expected = format!("# Wide area\n\n## second\n\n{}\n## first\n\n{}", table(2), table(3));
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}
