//! How much one read may bring.

use crate::exchange::Side;

/// What a read may bring at least, however slow the other side is.
pub(super) const SMALLEST_READ: usize = SMALLEST_KIB as usize * 1024;

/// What a read may bring at the most. It leaves again before the core's cache has lost it, and it fills no more than two of
/// the largest packets that the system makes at once: of more, those behind would wait for their time, where the
/// connection is paced, and each time is a timer.
pub(super) const LARGEST_READ: usize = LARGEST_KIB as usize * 1024;

const SMALLEST_KIB: u8 = 16;
const LARGEST_KIB: u8 = 128;

/// How many bytes one read of an exchange may bring: fewer while the other side does not take as many, and as many as fill
/// whole segments of the connection that they go to. What is left over behind those leaves as a segment of its own.
///
/// It is small: every idle client has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLimit {
    /// What it is where no segments are to be filled.
    kib: u8,
    /// From where there was more to read last.
    side: Side,
    /// How many bytes a segment has that goes from there to the other side; 0 as long as that is of no interest.
    segment: u16,
}

impl Default for ReadLimit {
    fn default() -> Self {
        Self { kib: LARGEST_KIB, side: Side::Upstream, segment: 0 }
    }
}

impl ReadLimit {
    /// How much may be read from a side; `framing` tells by how much that many bytes grow on their way.
    pub(super) fn of(self, side: Side, framing: impl FnOnce(usize) -> usize) -> usize {
        let most = usize::from(self.kib) * 1024;
        match most.checked_rem(self.segment.into()) {
            Some(rest) if rest < most && side == self.side => most - rest - framing(most - rest),
            _ => most,
        }
    }

    /// The other side has taken all at once.
    pub(super) fn widen(&mut self) {
        self.kib = self.kib.saturating_mul(2).min(LARGEST_KIB);
    }

    /// The other side has not taken all.
    pub(super) fn narrow(&mut self) {
        self.kib = (self.kib / 4).max(SMALLEST_KIB);
    }

    /// What is read from this side is to fill segments of so many bytes.
    pub(super) fn fit(&mut self, side: Side, segment: Option<u16>) {
        (self.side, self.segment) = (side, segment.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_narrows_the_reads_and_a_fast_one_widens_them() {
        let mut limit = ReadLimit::default();
        let narrowed = [(); 4].map(|()| (limit.narrow(), limit.of(Side::Client, |_| 0)).1);
        let widened = [(); 5].map(|()| (limit.widen(), limit.of(Side::Upstream, |_| 0)).1);
        assert_eq!(narrowed, [32, 16, 16, 16].map(|kib| kib * 1024));
        assert_eq!(widened, [32, 64, 128, 128, 128].map(|kib| kib * 1024));
    }

    #[test]
    fn reads_of_a_side_fill_whole_segments_to_the_other() {
        // Of Ethernet with and without timestamps, of loopback, of nobody.
        let table = [
            (Some(1448), 90 * 1448, 11 * 1448),
            (Some(1460), 89 * 1460, 11 * 1460),
            (Some(65_483), 2 * 65_483, 16_384),
            (Some(0), 131_072, 16_384),
            (None, 131_072, 16_384),
        ];
        for (segment, largest, smallest) in table {
            for side in [Side::Client, Side::Upstream] {
                let mut limit = ReadLimit::default();
                limit.fit(side, segment);
                assert_eq!(limit.of(side, |_| 0), largest, "{segment:?}");
                assert_eq!(limit.of(side.other(), |_| 9), 131_072);
                let frame = if segment.unwrap_or(0) == 0 { 0 } else { 9 };
                assert_eq!(limit.of(side, |_| 9), largest - frame, "{segment:?}");
                limit.narrow();
                limit.narrow();
                assert_eq!(limit.of(side, |_| 0), smallest, "{segment:?}");
            }
        }
    }
}
