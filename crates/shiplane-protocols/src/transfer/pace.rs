//! Chooses the chunk size. Pure: time is an argument.

use std::time::Duration;

use shiplane_wire::Piece;
use tokio::time::Instant;

/// Lets the length of chunks follow the rate at which they arrive: what a cut costs is about a chunk, so on a slow path
/// chunks are short; on a fast one they are long, and few. On a long path, all that may be wanted at a time fill it.
#[derive(Debug)]
pub(super) struct ChunkPace {
    /// Chunks that may be wanted at a time.
    lanes: u32,
    max_len_bytes: u64,
    sampled_at: Instant,
    sampled_bytes: u64,
    bytes_per_second: f64,
    /// How long a chunk should take at that rate.
    chunk_time: Duration,
}

impl ChunkPace {
    /// Begins with the shortest chunks; none will be longer than `max_len_bytes`.
    pub(super) fn new(lanes: usize, max_len_bytes: u64, now: Instant) -> Self {
        let lanes = u32::try_from(lanes).unwrap_or(u32::MAX).max(1);
        Self {
            lanes,
            max_len_bytes,
            sampled_at: now,
            sampled_bytes: 0,
            bytes_per_second: 0.0,
            chunk_time: CHUNK_TIME,
        }
    }

    /// The length for chunks from now on, when `moved_bytes` have arrived in all and `to_come_bytes` are still to come.
    /// `rtt` gives the path's round trip; it is called only once much has arrived since the last time.
    pub(super) fn chunk_len_bytes(
        &mut self,
        moved_bytes: u64,
        to_come_bytes: u64,
        rtt: impl FnOnce() -> Duration,
        now: Instant,
    ) -> u64 {
        self.sample(moved_bytes, rtt, now);
        let by_rate = (self.bytes_per_second * self.chunk_time.as_secs_f64()) as u64;
        let most_bytes = by_rate.min(to_come_bytes / CHUNKS_TO_COME).max(Piece::CELL_LEN_BYTES);
        // A power of two, so that chunks are pieces of their file.
        (1 << most_bytes.ilog2()).min(self.max_len_bytes)
    }

    fn sample(&mut self, moved_bytes: u64, rtt: impl FnOnce() -> Duration, now: Instant) {
        let (elapsed, bytes) = (now - self.sampled_at, moved_bytes.saturating_sub(self.sampled_bytes));
        let is_telling = elapsed >= MIN_SAMPLE_TIME && bytes >= MIN_SAMPLE_BYTES;
        if !is_telling && (elapsed < MAX_SAMPLE_TIME || bytes == 0) {
            return;
        }
        let sample = bytes as f64 / elapsed.as_secs_f64();
        let weight = if sample > self.bytes_per_second { 1.0 } else { FALLING_WEIGHT };
        self.bytes_per_second += (sample - self.bytes_per_second) * weight;
        (self.sampled_at, self.sampled_bytes) = (now, moved_bytes);
        self.chunk_time = (rtt() * ROUND_TRIPS_AHEAD / self.lanes).clamp(CHUNK_TIME, MAX_CHUNK_TIME);
    }
}

/// A twentieth of a second: where packets are lost a chunk is complete three round trips after it was sent, and several
/// that are short fill the path meanwhile better than two that are as long as a stream's window.
const CHUNK_TIME: Duration = Duration::from_millis(50);

/// Two products of rate and round trip, so that a rate which the wants hold back doubles each round trip; twice that, as
/// the length is rounded down to a power of two.
const ROUND_TRIPS_AHEAD: u32 = 4;

/// Half a second: a cut costs no more than a chunk or two of it.
const MAX_CHUNK_TIME: Duration = Duration::from_millis(500);

/// 16: towards the end chunks become shorter, so that the last one does not arrive alone.
const CHUNKS_TO_COME: u64 = 16;

/// Shorter than that a burst would pass for the rate.
const MIN_SAMPLE_TIME: Duration = Duration::from_millis(20);
const MIN_SAMPLE_BYTES: u64 = 256 << 10;

/// On a slow path, the bytes that have arrived by then show the rate.
const MAX_SAMPLE_TIME: Duration = Duration::from_millis(500);

/// A rate that falls is believed after some samples, since a path may be held up for a moment.
const FALLING_WEIGHT: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const RTT: Duration = Duration::from_millis(50);

    /// Moves at a rate for so long, asked every 10 ms; gives the length at the end.
    fn after(pace: &mut ChunkPace, from: (u64, Instant), rate: u64, time: Duration) -> (u64, (u64, Instant)) {
        let (mut moved, mut now) = from;
        let mut len = 0;
        for _ in 0..time.as_millis() / 10 {
            now += Duration::from_millis(10);
            moved += rate / 100;
            len = pace.chunk_len_bytes(moved, u64::MAX, || RTT, now);
        }
        (len, (moved, now))
    }

    fn settled(rate: u64) -> u64 {
        let start = Instant::now();
        after(&mut ChunkPace::new(32, 4 * MIB, start), (0, start), rate, Duration::from_secs(3)).0
    }

    #[test]
    fn chunks_follow_the_rate_from_64_kib_to_the_maximum() {
        for (rate, len) in [
            (8_000, 64 * KIB),
            (300_000, 64 * KIB),
            (3_000_000, 128 * KIB),
            (25_000_000, MIB),
            (1_250_000_000, 4 * MIB),
        ] {
            assert_eq!(settled(rate), len, "{rate} bytes a second");
        }
    }

    #[test]
    fn the_first_chunks_are_short_and_a_fast_path_is_known_within_a_few_of_them() {
        let start = Instant::now();
        let mut pace = ChunkPace::new(32, 4 * MIB, start);
        assert_eq!(pace.chunk_len_bytes(0, u64::MAX, || RTT, start), 64 * KIB);
        assert_eq!(
            pace.chunk_len_bytes(200 * KIB, u64::MAX, || RTT, start + Duration::from_millis(30)),
            64 * KIB
        );
        assert_eq!(
            pace.chunk_len_bytes(20 * MIB, u64::MAX, || RTT, start + Duration::from_millis(40)),
            4 * MIB
        );
    }

    #[test]
    fn a_chunk_is_at_most_a_sixteenth_of_the_remaining_bytes() {
        let start = Instant::now();
        let mut pace = ChunkPace::new(32, 4 * MIB, start);
        let now = start + Duration::from_secs(1);
        assert_eq!(pace.chunk_len_bytes(1 << 30, 64 * MIB, || RTT, now), 4 * MIB);
        assert_eq!(pace.chunk_len_bytes(1 << 30, 64 * MIB - 1, || RTT, now), 2 * MIB);
        assert_eq!(pace.chunk_len_bytes(1 << 30, 100, || RTT, now), 64 * KIB);
    }

    #[test]
    fn a_rate_that_falls_by_a_hundred_is_found_within_seconds_and_a_pause_changes_nothing() {
        let start = Instant::now();
        let mut pace = ChunkPace::new(32, 4 * MIB, start);
        let (fast, end) = after(&mut pace, (0, start), 25_000_000, Duration::from_secs(2));
        assert_eq!(fast, MIB);
        let paused = pace.chunk_len_bytes(end.0, u64::MAX, || RTT, end.1 + Duration::from_millis(150));
        assert_eq!(paused, MIB);
        let (slow, _) = after(&mut pace, end, 250_000, Duration::from_secs(10));
        assert_eq!(slow, 64 * KIB);
    }

    #[test]
    fn no_chunk_is_longer_than_was_asked_for() {
        let start = Instant::now();
        let mut pace = ChunkPace::new(32, 1000, start);
        assert_eq!(pace.chunk_len_bytes(1 << 30, u64::MAX, || RTT, start + Duration::from_secs(1)), 1000);
    }

    #[test]
    fn all_wanted_chunks_together_are_two_products_of_rate_and_round_trip_however_long_that_is() {
        let (rate, start) = (2_000_000, Instant::now());
        for (lanes, rtt_ms) in [(32, 50), (32, 200), (32, 1000), (32, 3000), (16, 1000), (8, 500)] {
            let rtt = Duration::from_millis(rtt_ms);
            let mut pace = ChunkPace::new(lanes, 4 * MIB, start);
            pace.chunk_len_bytes(rate, u64::MAX, || rtt, start + Duration::from_secs(1));
            let wanted =
                lanes as u64 * pace.chunk_len_bytes(rate, u64::MAX, || rtt, start + Duration::from_secs(1));
            assert!(wanted >= 2 * rate * rtt_ms / 1000, "{lanes} lanes, {rtt_ms} ms: {wanted}");
        }
    }

    #[test]
    fn a_chunk_takes_half_a_second_at_most_though_one_lane_is_to_fill_a_long_path() {
        let start = Instant::now();
        let mut pace = ChunkPace::new(1, 4 * MIB, start);
        let now = start + Duration::from_secs(1);
        assert_eq!(pace.chunk_len_bytes(2_000_000, u64::MAX, || Duration::from_secs(1), now), 512 * KIB);
    }
}
