//! Separates losses of the path from losses that we cause.

/// The share of packets that gets lost whatever we send.
#[derive(Debug, Clone, Default)]
pub(super) struct PathLoss {
    /// The mean of rounds without a queue and without heavy loss.
    light: f64,
    /// What was lost although we had sent less.
    tested: f64,
}

impl PathLoss {
    /// A round without a queue and without heavy loss lost so much.
    pub(super) fn observe(&mut self, share: f64) {
        self.light += (share - self.light) / MEMORY_ROUNDS;
        // Noise that has gone must not hide a policer.
        self.tested -= (self.tested - share).max(0.0) / FADING_ROUNDS;
    }

    /// So much was lost while we sent no more than the path had delivered.
    pub(super) fn set_tested(&mut self, share: f64) {
        self.tested = share;
    }

    /// The number of losses among `segments` that means nothing: the path's own losses, plus the share `on_top`. Light
    /// loss counts only without `on_top`; otherwise the drops of a policer would pass for noise.
    pub(super) fn tolerated_segments(&self, segments: f64, on_top: f64) -> f64 {
        let (share, few) =
            if on_top > 0.0 { (self.tested, FEW_SEGMENTS) } else { (self.light.max(self.tested), 0.0) };
        let expected = share * segments;
        // Three deviations are chance.
        (expected + on_top * segments + 3.0 * expected.sqrt()).max(few)
    }
}

/// Rounds that light loss is averaged over, and in which a test fades.
const MEMORY_ROUNDS: f64 = 16.0;
const FADING_ROUNDS: f64 = 64.0;

/// Of so few, any share is chance.
const FEW_SEGMENTS: f64 = 8.0;
