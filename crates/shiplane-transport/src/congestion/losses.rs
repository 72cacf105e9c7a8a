//! Which losses are the path's own, and which ones we cause.

/// The share of packets that gets lost whatever we send.
#[derive(Debug, Clone, Default)]
pub(super) struct PathLoss {
    /// Seen while there was no queue: little, else it would have been tested.
    light: f64,
    /// What a test has shown.
    tested: f64,
}

impl PathLoss {
    /// A round without a queue and without heavy loss lost so much.
    pub(super) fn observe(&mut self, share: f64) {
        self.light += (share - self.light) / MEMORY_ROUNDS;
        if share < self.tested {
            // Noise that fades must not hide a policer.
            self.tested -= (self.tested - share) / FADING_ROUNDS;
        }
    }

    /// So much was lost while we sent less than the path had delivered.
    pub(super) fn set_tested(&mut self, share: f64) {
        self.tested = share;
    }

    pub(super) fn share(&self) -> f64 {
        self.light.max(self.tested)
    }

    /// Of so many segments, how many may get lost without being a sign of congestion: `margin` is a share that is
    /// tolerated on top.
    pub(super) fn tolerated_segments(&self, segments: f64, margin: f64) -> f64 {
        let share = if margin > 0.0 { self.tested } else { self.share() };
        let expected = share * segments;
        // Three deviations: chance.
        expected + margin * segments + 3.0 * expected.sqrt()
    }
}

/// Rounds that light loss is averaged over.
const MEMORY_ROUNDS: f64 = 16.0;
const FADING_ROUNDS: f64 = 64.0;
