//! Parses and shows sizes, rates and times.

use std::time::Duration;

/// Why a text is not a size, rate or duration. The argument parser shows it beside the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnitError {
    #[error("give a whole number and a unit, e.g. 64K, 4MiB or 20MB")]
    NoSize,
    #[error("give numbers with units, the longest first, as in 1h, 90s or 1h30m")]
    NoDuration,
    #[error("give bytes or bits per second, e.g. 10MB, 512KiB/s or 80Mbit")]
    NoRate,
    #[error("the number is too large")]
    TooLarge,
}

/// Parses a size in bytes. K, M, G, T and Ki.., with or without B, are powers of 1,024; KB, MB, GB
/// and TB are powers of 1,000, as disks and networks are sold.
pub(crate) fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split_number(text).ok_or(UnitError::NoSize)?;
    let number = number?;
    let unit = unit.to_ascii_lowercase();
    let factor = match unit.as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1000),
        "mb" => Some(1000_u64.pow(2)),
        "gb" => Some(1000_u64.pow(3)),
        "tb" => Some(1000_u64.pow(4)),
        "k" | "kib" | "ki" => Some(1 << 10),
        "m" | "mib" | "mi" => Some(1 << 20),
        "g" | "gib" | "gi" => Some(1 << 30),
        "t" | "tib" | "ti" => Some(1 << 40),
        _ => None,
    };
    number.checked_mul(factor.ok_or(UnitError::NoSize)?).ok_or(UnitError::TooLarge)
}

/// Parses a rate in bytes a second: a size, or a number of bit, kbit, Mbit or Gbit, which are powers of
/// 1,000; either may end in `/s`.
pub(crate) fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let text = text.strip_suffix("/s").unwrap_or(text);
    let (number, unit) = split_number(text).ok_or(UnitError::NoRate)?;
    let bits = match unit.to_ascii_lowercase().as_str() {
        "bit" => 1,
        "kbit" => 1000,
        "mbit" => 1000_u64.pow(2),
        "gbit" => 1000_u64.pow(3),
        _ => {
            return parse_size(text).map_err(|error| match error {
                UnitError::TooLarge => UnitError::TooLarge,
                UnitError::NoSize | UnitError::NoDuration | UnitError::NoRate => UnitError::NoRate,
            });
        }
    };
    Ok(number?.checked_mul(bits).ok_or(UnitError::TooLarge)? / 8)
}

/// Parses a duration of whole seconds: `90s`, `1h30m`, `7d`. A number without a unit is refused,
/// since its meaning is unclear.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text;
    let mut units = DURATION_UNITS.iter();
    let mut total_secs: u64 = 0;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest).ok_or(UnitError::NoDuration)?;
        // `find` goes on where the last unit was found, so each stands once and in order.
        let (unit, secs) = units.find(|(unit, _)| tail.starts_with(*unit)).ok_or(UnitError::NoDuration)?;
        let part_secs = number?.checked_mul(*secs).ok_or(UnitError::TooLarge)?;
        total_secs = total_secs.checked_add(part_secs).ok_or(UnitError::TooLarge)?;
        rest = &tail[unit.len_utf8()..];
    }
    if text.is_empty() { Err(UnitError::NoDuration) } else { Ok(Duration::from_secs(total_secs)) }
}

/// A duration as [`parse_duration`] takes it, in whole seconds.
pub(crate) fn show_duration(duration: Duration) -> String {
    let mut rest_secs = duration.as_secs();
    let mut text = String::new();
    for (unit, secs) in DURATION_UNITS {
        if rest_secs >= secs {
            text.push_str(&format!("{}{unit}", rest_secs / secs));
            rest_secs %= secs;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Seconds since 1970 as a date and a time of day in UTC, to the minute.
pub(crate) fn show_utc(secs: i64) -> String {
    let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    // Years that begin in March, in eras of 400 years: then a leap day is the last of its year, and all eras are alike.
    let since_era_0 = days + 719_468;
    let (era, of_era) = (since_era_0.div_euclid(146_097), since_era_0.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", of_day / 3600, of_day / 60 % 60)
}

/// The digits at the start as a number, and what follows. `None` without digits.
fn split_number(text: &str) -> Option<(Result<u64, UnitError>, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    (digits > 0).then(|| (number.parse().map_err(|_| UnitError::TooLarge), rest))
}

const DURATION_UNITS: [(char, u64); 4] = [('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (secs, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (4_107_542_400, "2100-03-01 00:00"),
            (-1, "1969-12-31 23:59"),
            (253_402_300_799, "9999-12-31 23:59"),
        ] {
            assert_eq!(show_utc(secs), text);
        }
        // A server may say anything.
        let _ = (show_utc(i64::MIN), show_utc(i64::MAX));
    }

    #[test]
    fn sizes_have_the_units_of_memory_and_of_disks() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KiB", 65_536),
            ("64kB", 64_000),
            ("4M", 4 << 20),
            ("4Mi", 4 << 20),
            ("20MB", 20_000_000),
            ("1G", 1 << 30),
            ("2T", 2 << 40),
            ("2TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn an_invalid_size_is_refused() {
        for text in ["", "K", "-1", "+1", "1.5M", "1 M", "4X", "4Mb/s", "0x10", "\u{664}"] {
            assert_eq!(parse_size(text), Err(UnitError::NoSize), "{text}");
        }
        assert_eq!(parse_size("18446744073709551616"), Err(UnitError::TooLarge));
        assert_eq!(parse_size("16777216T"), Err(UnitError::TooLarge));
    }

    #[test]
    fn rates_are_bytes_or_bits_each_second() {
        for (text, bytes) in [
            ("10MB", 10_000_000),
            ("20MB/s", 20_000_000),
            ("512KiB/s", 524_288),
            ("80Mbit", 10_000_000),
            ("1Gbit/s", 125_000_000),
            ("1000kbit", 125_000),
            ("64", 64),
        ] {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
        }
        for text in ["", "fast", "10MB/m", "1.5MB", "10 MB", "80Mbps", "/s", "-1MB"] {
            assert_eq!(parse_rate(text), Err(UnitError::NoRate), "{text}");
        }
        assert_eq!(parse_rate("18446744073709551615Gbit"), Err(UnitError::TooLarge));
    }

    #[test]
    fn durations_need_their_units_in_order() {
        for (text, secs) in [("90s", 90), ("1h", 3600), ("1h30m", 5400), ("2d1s", 172_801), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for text in ["", "1", "h", "1m1h", "1h1h", "1h 1m", "1.5h", "-1s", "1ms", "1w"] {
            assert_eq!(parse_duration(text), Err(UnitError::NoDuration), "{text}");
        }
        for text in ["999999999999999999999s", "18446744073709551615d", "18446744073709551615m59s"] {
            assert_eq!(parse_duration(text), Err(UnitError::TooLarge), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_read_as_it_is_shown(secs in any::<u64>()) {
            let duration = Duration::from_secs(secs);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_size_is_its_number_times_its_unit(number in 0..1_u64 << 20, unit in 0..4_usize) {
            let suffix = ["", "K", "M", "G"][unit];
            prop_assert_eq!(parse_size(&format!("{number}{suffix}")), Ok(number << (10 * unit)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}", tail in "[0-9dhmskKMGTiB.]{0,30}") {
            for text in [&text, &tail] {
                let _ = (parse_size(text), parse_duration(text), parse_rate(text));
            }
        }
    }
}
