//! Measures the bytes that an edited file costs, by the two block sizes.
//!
//! Counts, and times nothing: both versions are cut in memory as the two sides would cut them. Prints a
//! table of KiB: the list of large pieces, the list of small ones, and the bytes that are sent at last.

use std::{collections::HashSet, ops::Range};

use clap::Parser;
use fastcdc::v2020::FastCDC;
use shiplane_wire::Digest;

#[derive(Parser)]
struct Args {
    /// Size of the file.
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Places that differ.
    #[arg(long, default_value_t = 100)]
    edits: usize,
    /// Bytes that differ at each.
    #[arg(long, default_value_t = 4096)]
    edit_len: usize,
}

fn main() {
    let args = Args::parse();
    let old = noise(args.mib << 20);
    let mut new = old.clone();
    let step = new.len() / (args.edits + 1);
    for at in 1..=args.edits {
        new[at * step..][..args.edit_len].iter_mut().for_each(|byte| *byte ^= 0x55);
    }
    println!("large KiB, small KiB: list + list + sent = all, KiB");
    for coarse in [32, 64, 128, 256, 512].map(|kib| kib << 10) {
        let (wanted, ours, coarse_count) = round(&new, &[whole(&new)], &old, &[whole(&old)], coarse);
        for fine in [1, 2, 4, 8].map(|kib| kib << 10) {
            let (sent, _, fine_count) = round(&new, &wanted, &old, &ours, fine);
            let lists = [coarse_count, fine_count].map(|count| (count * CUT_LEN_BYTES) >> 10);
            let sent = sum(&sent) >> 10;
            let all = lists[0] + lists[1] + sent;
            println!(
                "{:4} {:2}: {:6} + {:6} + {sent:6} = {all:6}",
                coarse >> 10,
                fine >> 10,
                lists[0],
                lists[1]
            );
        }
    }
}

/// The ranges of the new version that are not found and those of the old that nothing was found in, and
/// the number of pieces in the list.
fn round(
    new: &[u8],
    wanted: &[Range<usize>],
    old: &[u8],
    regions: &[Range<usize>],
    average: usize,
) -> (Vec<Range<usize>>, Vec<Range<usize>>, usize) {
    let (theirs, ours) = (cut(new, wanted, average), cut(old, regions, average));
    let digests = |cuts: &[(Range<usize>, Digest)]| cuts.iter().map(|cut| cut.1).collect::<HashSet<_>>();
    let (known, had) = (digests(&ours), digests(&theirs));
    let count = theirs.len();
    let without = |cuts: Vec<(Range<usize>, Digest)>, found: &HashSet<Digest>| {
        let left = cuts.into_iter().filter(|cut| !found.contains(&cut.1));
        left.map(|cut| cut.0).fold(Vec::new(), joined)
    };
    (without(theirs, &known), without(ours, &had), count)
}

fn joined(mut ranges: Vec<Range<usize>>, next: Range<usize>) -> Vec<Range<usize>> {
    match ranges.last_mut().filter(|last| last.end == next.start) {
        Some(last) => last.end = next.end,
        None => ranges.push(next),
    }
    ranges
}

fn cut(data: &[u8], ranges: &[Range<usize>], average: usize) -> Vec<(Range<usize>, Digest)> {
    let cuts = ranges.iter().flat_map(|range| {
        let pieces = FastCDC::new(&data[range.clone()], average / 4, average, average * 4);
        pieces.map(|piece| range.start + piece.offset..range.start + piece.offset + piece.length)
    });
    cuts.map(|piece| (piece.clone(), Digest::blake3(&data[piece]))).collect()
}

fn sum(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(ExactSizeIterator::len).sum()
}

fn whole(data: &[u8]) -> Range<usize> {
    0..data.len()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut data = Vec::with_capacity(len);
    while data.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data
}

/// SPEC 4.3: a length and a digest.
const CUT_LEN_BYTES: usize = 4 + Digest::LEN_BYTES;
