//! Formats numbers in decimal units.

use std::time::Duration;

/// `561.2 MB`, with the unit that leaves at most three digits before the point.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = 0;
    // 999.95 would be shown as "1000.0".
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// `1,073.7 MB`: for sizes that are compared to the last digit.
pub fn megabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000) / 100_000;
    format!("{}.{} MB", count(tenths / 10), tenths % 10)
}

/// `572 MB/s`; a dash where no time has passed.
pub fn rate(count: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return "–".to_owned();
    }
    format!("{:.0} MB/s", count as f64 / seconds / 1e6)
}

/// `0.98 s`, `1 min 04 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0..60 => format!("{:.2} s", time.as_secs_f64()),
        60.. => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

/// `2,053`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The share of `part` in `whole`, `50 %`.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.0} %", 100.0 * part as f64 / whole as f64)
}

/// A row of a table.
pub fn row<const CELLS: usize>(cells: [&str; CELLS]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// The cells of a row that are written in one line.
pub fn cells(line: &str) -> Vec<String> {
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// Rows as aligned columns: the first to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => line.push_str(&format!("  {cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_change_unit_before_four_digits_show() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_949), "999.9 kB");
        assert_eq!(bytes(999_950), "1.0 MB");
        assert_eq!(bytes(536_870_912), "536.9 MB");
    }

    #[test]
    fn megabytes_keep_their_unit() {
        assert_eq!(megabytes(1 << 30), "1,073.7 MB");
        assert_eq!(megabytes(149_999), "0.1 MB");
        assert_eq!(megabytes(150_000), "0.2 MB");
    }

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!(count(7), "7");
        assert_eq!(count(2053), "2,053");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn no_time_has_no_rate() {
        assert_eq!(rate(5, Duration::ZERO), "–");
        assert_eq!(rate(5_000_000, Duration::from_millis(500)), "10 MB/s");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "5".to_owned()]];
        assert_eq!(table(&rows), "  a     10\n  long   5\n");
    }
}
