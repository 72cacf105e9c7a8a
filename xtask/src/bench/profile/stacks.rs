//! Parses the output of `perf script`: one stack per sample, the innermost frame first.

use anyhow::{Context as _, Result};

/// A function that was running, or had called one that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// As perf names it, without what it was given for types; empty if it knows no name.
    pub(super) name: String,
    pub(super) is_kernel: bool,
}

/// What a processor did at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// The time that it stands for.
    pub(super) ns: u64,
    /// Innermost first.
    pub(super) frames: Vec<Frame>,
}

/// Reads what `perf script -F period,ip,sym,dso` prints of samples by time.
pub(super) fn read(text: &str) -> Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut begins = true;
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            begins = true;
        } else if begins {
            let ns = line.parse().with_context(|| format!("perf names no period: {line}"))?;
            samples.push(Sample { ns, frames: Vec::new() });
            begins = false;
        } else if let Some(sample) = samples.last_mut() {
            sample.frames.push(frame(line).with_context(|| format!("perf names no address: {line}"))?);
        }
    }
    Ok(samples)
}

/// `ffffffff81000000 name (where)`.
fn frame(line: &str) -> Option<Frame> {
    let (address, rest) = line.split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let name = rest.rsplit_once(" (").map_or(rest, |(name, _)| name);
    let name = if name == "[unknown]" { String::new() } else { plain(name) };
    Some(Frame { name, is_kernel: address >= KERNEL_STARTS_AT })
}

/// `<quinn_udp::Socket<T> as Trait>::send::<U>` is `quinn_udp::Socket::send`: the path without types.
fn plain(name: &str) -> String {
    let mut kept = String::new();
    let mut rest = name;
    if let Some(inner) = name.strip_prefix('<') {
        let end = closing(inner).unwrap_or(inner.len());
        // One that is itself in brackets has an ` as ` of its own.
        let nested = inner.strip_prefix('<').and_then(closing).map_or(0, |at| at + 1);
        let implementor = inner[nested..end].find(" as ").map_or(&inner[..end], |at| &inner[..nested + at]);
        let implementor = implementor.trim_start_matches(['&', '*', '[', '(']);
        let implementor =
            ["mut ", "const ", "dyn "].iter().fold(implementor, |name, word| name.trim_start_matches(word));
        kept = plain(implementor);
        rest = inner.get(end + 1..).unwrap_or_default();
    }
    let mut depth = 0_usize;
    let mut before = ' ';
    for c in rest.chars() {
        match c {
            '<' => depth += 1,
            // Not the arrow of a function's type.
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => kept.push(c),
            _ => {}
        }
        before = c;
    }
    kept.replace("::::", "::").trim_end_matches("::").to_owned()
}

/// Where the bracket closes that was open at the start.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
        before = c;
    }
    None
}

/// The upper half of the addresses belongs to the kernel.
const KERNEL_STARTS_AT: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_its_time_and_its_stack() {
        let text = "   1001001 \n\tffffffff81000000 vfs_write ([kernel.kallsyms])\n\t    7f00 write (/lib/libc.so.6)\n\n\
                    \x20  1001001 \n\t 10 [unknown] ([unknown])\n";
        let frame = |name: &str, is_kernel| Frame { name: name.to_owned(), is_kernel };
        let first = Sample { ns: 1_001_001, frames: vec![frame("vfs_write", true), frame("write", false)] };
        let second = Sample { ns: 1_001_001, frames: vec![frame("", false)] };
        assert_eq!(read(text).unwrap(), [first, second]);
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn what_is_no_stack_is_an_error() {
        assert!(read("shiplane 12").is_err());
        assert!(read("1001001\nhere is no address (x)").is_err());
    }

    #[test]
    fn a_name_is_a_path_without_types() {
        for (name, path) in [
            ("main", "main"),
            ("<quinn_udp::Socket<T> as a::Trait<U>>::send::<V>", "quinn_udp::Socket::send"),
            ("core::ptr::drop_in_place::<alloc::vec::Vec<u8>>", "core::ptr::drop_in_place"),
            ("<&mut tokio::net::Udp as core::Future>::poll", "tokio::net::Udp::poll"),
            ("a::b::<fn(u8) -> c::D>::{closure#0}", "a::b::{closure#0}"),
            ("<a::B<fn() -> u8> as c::D>::e", "a::B::e"),
            ("<<a::B as c::D>::E as f::G>::h", "a::B::E::h"),
        ] {
            assert_eq!(plain(name), path);
        }
    }
}
