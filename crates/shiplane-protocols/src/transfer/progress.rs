//! Checks that the peer makes progress at a minimum rate. Pure: time is an argument.

use std::{num::NonZeroU64, time::Duration};

use tokio::time::Instant;

/// Counts what a peer moves, and says when that has been too little for too long.
///
/// The peer has to move [`LEAST_BYTES_PER_SECOND`] in each window. Signs of life move nothing. Time runs only
/// while it is the peer's turn; for work that this side has asked for it gets as long as that may take.
#[derive(Debug)]
pub(super) struct ProgressWatch {
    window: Duration,
    least_bytes: u64,
    /// When the window that is being counted began, and what has moved in it.
    began: Instant,
    moved_bytes: u64,
    /// The peer's last record, whatever it said.
    heard: Instant,
    checked: Instant,
    small_steps_left: u32,
}

/// Whom a transfer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// This side: its disk, its memory, its rate limit.
    Ours,
    /// The peer, which has something to move: this many files together, each of which it opens.
    Peers { files: u64 },
    /// The peer, which reads this many bytes because of what this side has sent or asked for, and says that it lives.
    PeersWork { bytes: u64 },
    /// The peer, whose input may have nothing to give for as long as it likes; and says that it lives.
    PeersInput,
    /// The peer, which decides about files of this many bytes, makes them durable, or has no room for more; and says
    /// that it lives.
    PeersChoice { bytes: u64 },
}

impl ProgressWatch {
    pub(super) fn new(window: Duration, now: Instant) -> Self {
        let least_bytes = bytes_in(window, LEAST_BYTES_PER_SECOND);
        Self {
            window,
            least_bytes,
            began: now,
            moved_bytes: 0,
            heard: now,
            checked: now,
            small_steps_left: MAX_SMALL_STEPS,
        }
    }

    /// Either side has limited the rate: half of that is enough.
    pub(super) fn limit_to(&mut self, bytes_per_second: Option<NonZeroU64>) {
        if let Some(limit) = bytes_per_second {
            let rate = (limit.get() / 2).max(LEAST_LIMITED_BYTES_PER_SECOND);
            self.least_bytes = self.least_bytes.min(bytes_in(self.window, rate));
        }
    }

    /// The peer has said something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// So much has moved.
    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
        if self.moved_bytes >= self.least_bytes {
            self.begin_window(now);
        }
    }

    /// Something that this side has asked for is complete, however little that was.
    pub(super) fn completed(&mut self, now: Instant) {
        self.begin_window(now);
    }

    /// The peer goes on with something else, which may be little. A peer cannot gain time by that without end.
    pub(super) fn stepped(&mut self, now: Instant) {
        if let Some(left) = self.small_steps_left.checked_sub(1) {
            self.small_steps_left = left;
            self.begin_window(now);
        }
    }

    /// Whether the peer has had enough time. To be asked several times in each window.
    pub(super) fn is_stalled(&mut self, turn: Turn, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.checked);
        self.checked = now;
        let waited = now.saturating_duration_since(self.began);
        match turn {
            Turn::Ours => {
                self.began = (self.began + since).min(now);
                self.heard = (self.heard + since).min(now);
                false
            }
            Turn::PeersInput => {
                self.began = (self.began + since).min(now);
                self.is_silent(now)
            }
            Turn::Peers { files } => {
                let windows = files.div_ceil(FILES_A_WINDOW).clamp(1, MAX_FILE_WINDOWS);
                waited > self.window * windows as u32
            }
            Turn::PeersWork { bytes } => self.is_silent(now) || waited > self.window + work_on(bytes),
            Turn::PeersChoice { bytes } => self.is_silent(now) || waited > longest_choice(self.window, bytes),
        }
    }

    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) > self.window
    }

    fn begin_window(&mut self, now: Instant) {
        self.began = now;
        self.moved_bytes = 0;
    }
}

fn bytes_in(window: Duration, bytes_per_second: u64) -> u64 {
    let bytes = window.as_millis() * u128::from(bytes_per_second) / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

/// How long a peer may take to decide about files of this many bytes, or to make them durable.
pub(crate) fn longest_choice(window: Duration, bytes: u64) -> Duration {
    CHOICE_WINDOWS * window + work_on(bytes)
}

/// How long a peer may take to read this many bytes.
fn work_on(bytes: u64) -> Duration {
    Duration::from_secs(bytes / LEAST_WORK_BYTES_PER_SECOND)
}

/// 1 KiB: an eighth of what the slowest link carries that a transfer is meant for, 64 kbit/s.
const LEAST_BYTES_PER_SECOND: u64 = 1 << 10;

/// 32: a peer that announces a lower limit than that is not waited for any longer.
const LEAST_LIMITED_BYTES_PER_SECOND: u64 = 32;

/// 10 MB: what a peer at least reads and hashes in a second, from a slow disk.
const LEAST_WORK_BYTES_PER_SECOND: u64 = 10_000_000;

/// 128: small files that a peer at least opens in a window, of those whose bytes come together: four a second.
const FILES_A_WINDOW: u64 = 128;

/// 2: for the most files that a chunk may have.
const MAX_FILE_WINDOWS: u64 = 2;

/// 10 windows, five minutes: others may have a server's memory for a while.
const CHOICE_WINDOWS: u32 = 10;

/// What an entry of a list counts as, or a small file in a chunk: it may cost the peer a seek. At the least rate
/// that is an entry a second.
pub(super) const ENTRY_BYTES: u64 = LEAST_BYTES_PER_SECOND;

/// 64: enough for any honest peer, which rather moves much at a time; half an hour for one that is not.
const MAX_SMALL_STEPS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);
    const PEERS: Turn = Turn::Peers { files: 0 };
    const SECOND: Duration = Duration::from_secs(1);

    fn watch() -> (ProgressWatch, Instant) {
        let now = Instant::now();
        (ProgressWatch::new(WINDOW, now), now)
    }

    /// After how many seconds a peer is given up for which `each_second` is done; at most an hour.
    fn lasts(turn: Turn, mut each_second: impl FnMut(&mut ProgressWatch, Instant)) -> Option<u64> {
        let (mut watch, mut now) = watch();
        (1..=3600).find(|_| {
            now += SECOND;
            each_second(&mut watch, now);
            watch.is_stalled(turn, now)
        })
    }

    #[test]
    fn a_peer_that_moves_nothing_is_given_up_after_a_window_whatever_it_says() {
        assert_eq!(lasts(PEERS, |watch, now| watch.heard(now)), Some(31));
    }

    #[test]
    fn a_peer_that_trickles_is_given_up() {
        assert_eq!(lasts(PEERS, |watch, now| watch.moved(1, now)), Some(31));
        assert_eq!(lasts(PEERS, |watch, now| watch.moved(900, now)), Some(31));
    }

    #[test]
    fn a_peer_that_keeps_the_least_rate_is_waited_for() {
        assert_eq!(lasts(PEERS, |watch, now| watch.moved(LEAST_BYTES_PER_SECOND, now)), None);
        // In one piece a window.
        let mut second = 0;
        let in_bursts = |watch: &mut ProgressWatch, now| {
            second += 1;
            if second % 30 == 0 {
                watch.moved(30 << 10, now);
            }
        };
        assert_eq!(lasts(PEERS, in_bursts), None);
    }

    #[test]
    fn an_announced_limit_lowers_the_least_rate_but_not_to_zero() {
        let lasts_at = |limit: u64, moved_bytes| {
            lasts(PEERS, |watch, now| {
                watch.limit_to(NonZeroU64::new(limit));
                watch.moved(moved_bytes, now);
            })
        };
        assert_eq!(lasts_at(200, 100), None);
        assert_eq!(lasts_at(200, 90), Some(31));
        assert_eq!(lasts_at(1, 1), Some(31));
        assert_eq!(lasts_at(1 << 30, LEAST_BYTES_PER_SECOND), None);
        assert_eq!(lasts_at(1 << 30, 900), Some(31), "a high limit raises nothing");
    }

    #[test]
    fn work_that_was_asked_for_is_waited_for_as_long_as_it_takes_and_no_longer() {
        let turn = Turn::PeersWork { bytes: 600_000_000 };
        assert_eq!(lasts(turn, |watch, now| watch.heard(now)), Some(91));
        assert_eq!(lasts(turn, |_, _| ()), Some(31), "but not in silence");
        assert_eq!(lasts(Turn::PeersWork { bytes: u64::MAX }, |watch, now| watch.heard(now)), None);
    }

    #[test]
    fn a_peer_that_chooses_has_more_time_and_one_that_opens_many_files_too() {
        assert_eq!(lasts(Turn::PeersChoice { bytes: 0 }, |watch, now| watch.heard(now)), Some(301));
        assert_eq!(lasts(Turn::PeersChoice { bytes: 0 }, |_, _| ()), Some(31));
        assert_eq!(lasts(Turn::Peers { files: 64 }, |_, _| ()), Some(31));
        assert_eq!(lasts(Turn::Peers { files: 256 }, |_, _| ()), Some(61));
        assert_eq!(
            lasts(Turn::Peers { files: u64::MAX }, |_, _| ()),
            Some(61),
            "whatever it is made to want"
        );
    }

    #[test]
    fn our_own_time_is_not_the_peers() {
        assert_eq!(lasts(Turn::Ours, |_, _| ()), None);
        let (mut watch, mut now) = watch();
        for turn in [PEERS, Turn::Ours, PEERS] {
            for _ in 0..14 {
                now += SECOND;
                assert!(!watch.is_stalled(turn, now));
            }
        }
        now += 3 * SECOND;
        assert!(watch.is_stalled(PEERS, now), "what it has had before counts");
    }

    #[test]
    fn an_input_may_be_idle_for_ever_but_its_peer_may_not_be_silent() {
        assert_eq!(lasts(Turn::PeersInput, |watch, now| watch.heard(now)), None);
        assert_eq!(lasts(Turn::PeersInput, |_, _| ()), Some(31));
        let (mut watch, now) = watch();
        let later = now + 1000 * SECOND;
        watch.heard(later);
        assert!(!watch.is_stalled(Turn::PeersInput, later));
        assert!(!watch.is_stalled(PEERS, later + SECOND), "the peer's time begins when it has something");
    }

    #[test]
    fn small_steps_give_time_but_not_without_end() {
        let mut second = 0;
        let steps = |watch: &mut ProgressWatch, now| {
            second += 1;
            if second % 20 == 0 {
                watch.stepped(now);
            }
        };
        let lasts = lasts(PEERS, steps).unwrap();
        assert!((20 * 64..20 * 66).contains(&lasts), "{lasts}");
    }
}
