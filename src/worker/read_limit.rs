//! How much one read may bring.

/// What a read brings at least, however slow the other side is.
pub(super) const SMALLEST_READ: usize = SMALLEST as usize;

/// What a read brings at the most. It leaves again before the core's cache has lost it, and it fills no more than the two
/// largest packets that the system makes of it at once: of more, those behind would wait for their time, where the
/// connection is paced, and each time is a timer.
pub(super) const LARGEST_READ: usize = LARGEST as usize;

const SMALLEST: u32 = 16 * 1024;
const LARGEST: u32 = 128 * 1024;

/// How many bytes one read of an exchange may bring: fewer while the other side does not take as many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadLimit(u32);

impl Default for ReadLimit {
    fn default() -> Self {
        Self(LARGEST)
    }
}

impl ReadLimit {
    pub(super) fn bytes(self) -> usize {
        self.0 as usize
    }

    /// The other side has taken all at once.
    pub(super) fn widen(&mut self) {
        if self.0 <= LARGEST / 2 {
            self.0 *= 2;
        }
    }

    /// The other side has not taken all.
    pub(super) fn narrow(&mut self) {
        self.0 = (self.0 / 4).max(SMALLEST);
    }

    /// Has a read fill whole segments of the connection that its bytes go to, where it can fill one: what is left over
    /// behind them would leave as a segment of its own each time. Of twice as much, this holds as well.
    pub(super) fn fit(&mut self, segment: u32) {
        if (1..=self.0).contains(&segment) {
            self.0 -= self.0 % segment;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_narrows_the_reads_and_a_fast_one_widens_them() {
        let mut limit = ReadLimit::default();
        let narrowed = [(); 4].map(|()| (limit.narrow(), limit.bytes()).1);
        let widened = [(); 5].map(|()| (limit.widen(), limit.bytes()).1);
        assert_eq!(narrowed, [32, 16, 16, 16].map(|kib| kib * 1024));
        assert_eq!(widened, [32, 64, 128, 128, 128].map(|kib| kib * 1024));
    }

    #[test]
    fn reads_fill_whole_segments_and_go_on_doing_so() {
        // Of Ethernet with and without timestamps, of loopback, of nobody.
        for (segment, whole, whole_of_the_smallest) in [
            (1448, 90 * 1448, 11 * 1448),
            (1460, 89 * 1460, 11 * 1460),
            (65_483, 2 * 65_483, 16_384),
            (0, 131_072, 16_384),
        ] {
            let mut limit = ReadLimit::default();
            limit.fit(segment);
            assert_eq!(limit, ReadLimit(whole), "{segment}");
            limit.widen();
            assert_eq!(limit, ReadLimit(whole), "{segment}");

            let mut limit = ReadLimit(SMALLEST);
            limit.fit(segment);
            assert_eq!(limit, ReadLimit(whole_of_the_smallest), "{segment}");
            limit.widen();
            assert_eq!(limit, ReadLimit(2 * whole_of_the_smallest), "{segment}");
        }
    }
}
