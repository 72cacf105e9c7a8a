//! Draws flame graphs as SVG, with full names on hover.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::category::Category;
use super::stacks::{Frame, Sample};

/// Draws the samples of one side. What is too narrow to matter is left out, more of it the more there is.
pub(super) fn draw(title: &str, samples: &[Sample]) -> String {
    let root = Node::of(samples);
    let mut least_share = LEAST_SHARE;
    loop {
        let text = draw_from(title, &root, least_share);
        if text.len() <= MAX_LEN_BYTES || least_share > 1.0 {
            return text;
        }
        least_share *= 1.5;
    }
}

/// A function beneath those that called it.
#[derive(Debug, Default)]
struct Node {
    ns: u64,
    category: Option<Category>,
    is_kernel: bool,
    calls: BTreeMap<String, Self>,
}

impl Node {
    fn of(samples: &[Sample]) -> Self {
        let mut root = Self::default();
        for sample in samples {
            root.ns += sample.ns;
            let mut at = &mut root;
            for frame in sample.frames.iter().rev().filter(|frame| !frame.name.is_empty()) {
                at = at.call(frame);
                at.ns += sample.ns;
            }
        }
        root
    }

    fn call(&mut self, frame: &Frame) -> &mut Self {
        self.calls.entry(frame.name.clone()).or_insert_with(|| Self {
            category: Category::of_frame(frame),
            is_kernel: frame.is_kernel,
            ..Self::default()
        })
    }

    /// How many rows it takes with what it calls.
    fn height(&self, least_ns: f64) -> usize {
        let shown = self.calls.values().filter(|node| node.ns as f64 >= least_ns);
        1 + shown.map(|node| node.height(least_ns)).max().unwrap_or(0)
    }

    fn color(&self) -> &'static str {
        match self.category {
            Some(Category::Blake3 | Category::Sha256) => "#e8a33d",
            Some(Category::Aes) => "#d9cf4a",
            Some(Category::Copies) => "#b7a6d8",
            Some(Category::Quic) => "#8fc27a",
            Some(Category::Tokio) => "#9ad0d3",
            Some(Category::Ours) => "#7fb0e0",
            _ if self.is_kernel => "#e29090",
            _ => "#d0d3d8",
        }
    }
}

fn draw_from(title: &str, root: &Node, least_share: f64) -> String {
    let all_ns = root.ns.max(1) as f64;
    let least_ns = least_share * all_ns;
    let height = HEAD_HEIGHT + ROW_HEIGHT * root.height(least_ns) + MARGIN;
    let mut canvas = Canvas { text: String::new(), all_ns, least_ns, bottom: height - MARGIN };
    let _infallible = writeln!(
        canvas.text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" font-size=\"15\">{}</text>",
        escaped(title),
    );
    canvas.add("all", root, 0.0, 0);
    canvas.text.push_str("</svg>\n");
    canvas.text
}

struct Canvas {
    text: String,
    all_ns: f64,
    least_ns: f64,
    bottom: usize,
}

impl Canvas {
    /// A bar, and above it, from its left end on, what it calls.
    fn add(&mut self, name: &str, node: &Node, left_ns: f64, row: usize) {
        let scale = (WIDTH - 2 * MARGIN) as f64 / self.all_ns;
        let (x, width) = (MARGIN as f64 + left_ns * scale, node.ns as f64 * scale);
        let y = self.bottom.saturating_sub((row + 1) * ROW_HEIGHT);
        let share = 100.0 * node.ns as f64 / self.all_ns;
        let shown: String = name.chars().take(MAX_NAME_LEN).collect();
        let _infallible = write!(
            self.text,
            "<g><title>{} {share:.1} %</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>",
            escaped(&shown),
            ROW_HEIGHT - 1,
            node.color(),
        );
        let room = (width / LETTER_WIDTH) as usize;
        if room >= 4 {
            let label: String = last_parts(name, room).chars().take(room).collect();
            let _infallible =
                write!(self.text, "<text x=\"{:.1}\" y=\"{}\">{}</text>", x + 2.0, y + 11, escaped(&label));
        }
        self.text.push_str("</g>\n");
        let mut left_ns = left_ns;
        for (name, call) in &node.calls {
            if call.ns as f64 >= self.least_ns {
                self.add(name, call, left_ns, row + 1);
            }
            left_ns += call.ns as f64;
        }
    }
}

/// As much of the end of a path as there is room for, from the beginning of a part on.
fn last_parts(name: &str, room: usize) -> &str {
    let mut shown = name;
    while shown.chars().count() > room {
        match shown.split_once("::") {
            Some((_, rest)) => shown = rest,
            None => break,
        }
    }
    shown
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What is narrower than this is left out: three pixels.
const LEAST_SHARE: f64 = 0.0025;

/// So that a repository does not grow with it.
const MAX_LEN_BYTES: usize = 200_000;

const MAX_NAME_LEN: usize = 120;
const WIDTH: usize = 1200;
const MARGIN: usize = 10;
const HEAD_HEIGHT: usize = 34;
const ROW_HEIGHT: usize = 15;

/// Of a monospaced font of this size, about.
const LETTER_WIDTH: f64 = 6.7;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ns: u64, names: &[&str]) -> Sample {
        let frames = names.iter().map(|name| Frame { name: (*name).to_owned(), is_kernel: false }).collect();
        Sample { ns, frames }
    }

    #[test]
    fn a_bar_is_as_wide_as_its_share_and_stands_on_its_caller() {
        let samples = [sample(3, &["hash", "main"]), sample(1, &["send", "main"])];
        let text = draw("a & b", &samples);
        let bar = |name: &str| {
            let line = text.lines().find(|line| line.contains(&format!("<title>{name} "))).unwrap();
            let number = |key: &str| -> f64 {
                let rest = line.split_once(&format!(" {key}=\"")).unwrap().1;
                rest.split('"').next().unwrap().parse().unwrap()
            };
            (number("x"), number("y"), number("width"))
        };
        let (main, hash, send) = (bar("main"), bar("hash"), bar("send"));
        assert_eq!((main.2, hash.2, send.2), (1180.0, 885.0, 295.0));
        assert_eq!((hash.0, send.0), (main.0, main.0 + hash.2));
        assert_eq!((hash.1, send.1), (main.1 - ROW_HEIGHT as f64, hash.1));
        assert!(text.contains("a &amp; b") && text.ends_with("</svg>\n"), "{text}");
    }

    #[test]
    fn the_drawing_of_very_many_functions_stays_small() {
        let stacks = (0..300).map(|at| (0..40).map(|depth| format!("{depth}-{at}")).collect::<Vec<_>>());
        let samples: Vec<Sample> =
            stacks.map(|names| sample(1, &names.iter().map(String::as_str).collect::<Vec<_>>())).collect();
        let text = draw("many", &samples);
        assert!(text.len() <= MAX_LEN_BYTES && text.contains("<title>all 100.0 %"), "{}", text.len());
    }

    #[test]
    fn a_label_begins_where_a_part_does() {
        assert_eq!(last_parts("a::bc::def", 7), "bc::def");
        assert_eq!(last_parts("a::bc::def", 6), "def");
        assert_eq!(last_parts("longer", 3), "longer");
    }
}
