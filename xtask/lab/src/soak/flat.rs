//! Compares the first quarter of a server's life with the last.

use xtask::units;

/// A look at a server: what each of [`FIGURES`] is.
pub(super) type Look = [u64; FIGURES.len()];

/// What is looked at: its name, how it is shown, and what may come on top of a tenth.
type Figure = (&'static str, fn(u64) -> String, u64);

/// Of the looks at one life of a server, a table of the medians of the quarters, and the figures whose median in the last
/// quarter is over that in the first by more than a tenth and its slack. None if the life was too short to say anything.
/// The first tenth of it does not count: a server warms up.
pub(super) fn compare(looks: &[Look]) -> Option<(Vec<Vec<String>>, Vec<&'static str>)> {
    let warm = &looks[looks.len() / 10..];
    let quarter = warm.len() / 4;
    if quarter < MIN_LOOKS {
        return None;
    }
    let mut rows = vec![units::row(["", "first quarter", "last quarter", "most", "verdict"])];
    let mut grown = Vec::new();
    for (number, (name, show, slack)) in FIGURES.into_iter().enumerate() {
        let sorted = |looks: &[Look]| {
            let mut figures: Vec<_> = looks.iter().map(|look| look[number]).collect();
            figures.sort_unstable();
            figures
        };
        let [first, last] =
            [&warm[..quarter], &warm[warm.len() - quarter..]].map(|looks| sorted(looks)[quarter / 2]);
        let most = sorted(looks).last().copied().unwrap_or_default();
        let is_flat = last <= first + first / 10 + slack;
        let [first, last, most] = [first, last, most].map(show);
        rows.push(units::row([name, &first, &last, &most, if is_flat { "flat" } else { "grew" }]));
        grown.extend((!is_flat).then_some(name));
    }
    Some((rows, grown))
}

/// 4 MiB: what an allocator keeps differs from hour to hour. 8: as many things as two clients have under way.
const FIGURES: [Figure; 4] = [
    ("memory", units::bytes, 4 << 20),
    ("descriptors", units::count, 8),
    ("threads", units::count, 8),
    ("leftovers", units::count, 8),
];

/// In a quarter: below that a median says little.
const MIN_LOOKS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(seconds: u64, resident_bytes: impl Fn(u64) -> u64) -> Option<Vec<&'static str>> {
        let looks: Vec<_> = (0..seconds).map(|second| [resident_bytes(second), 20, 0, 3]).collect();
        compare(&looks).map(|(_, grown)| grown)
    }

    #[test]
    fn what_stays_or_swings_is_flat_and_what_grows_is_named_however_slowly() {
        assert_eq!(grown(400, |_| 30 << 20), Some(vec![]));
        assert_eq!(grown(400, |second| (30 << 20) + ((second % 7) << 20)), Some(vec![]));
        // It warms up.
        assert_eq!(grown(400, |second| (second.min(30) + 5) << 20), Some(vec![]));
        assert_eq!(grown(400, |second| (30 << 20) + (second << 15)), Some(vec!["memory"]));
        assert_eq!(grown(10, |_| 0), None);
    }
}
