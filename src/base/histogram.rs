//! Histograms of durations of one core. The owning core writes them; any thread reads them.
//!
//! The bounds are those of HdrHistogram with two bits: four buckets between two powers of two. So a value is known to a
//! quarter, and the size of a histogram is fixed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bits of a value, after its leading one, that select the bucket.
const BITS: u32 = 2;

/// The power of two of microseconds at which the last buckets begin: 134 seconds.
const LARGEST_POWER: u32 = 27;

/// Number of buckets.
const BUCKETS: usize = (LARGEST_POWER as usize) << BITS;

/// A measured phase of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the first byte of a request until the last one of its response.
    Total,
    /// The wait for a free slot or socket of the backend.
    Queue,
    /// Opening a connection to the backend.
    Connect,
    /// From the connection until the head of the response.
    FirstByte,
}

impl Phase {
    /// All phases, in the order of the enum.
    pub const ALL: [Self; 4] = [Self::Total, Self::Queue, Self::Connect, Self::FirstByte];

    /// The name in metrics and views.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::FirstByte => "first_byte",
        }
    }
}

/// The number of times that each duration was seen.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; _], sum_micros: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a duration. Only the owning core may call this.
    #[inline]
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(micros)) {
            bump(bucket, 1);
        }
        bump(&self.sum_micros, micros);
    }

    /// Adds the counts of another histogram. Only the owning core of this one may call this.
    pub fn absorb(&self, other: &Self) {
        for (mine, theirs) in self.buckets.iter().zip(&other.buckets) {
            bump(mine, theirs.load(Ordering::Relaxed));
        }
        bump(&self.sum_micros, other.sum_micros.load(Ordering::Relaxed));
    }

    /// Number of durations counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The sum of all durations, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// The quantile `part` of the durations, rounded up by at most a quarter; `None` if none was counted.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        let rank = (count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let place = counts.into_iter().position(|count| {
            seen += count;
            seen >= rank
        });
        place.filter(|_| count > 0).map(|place| Duration::from_micros(bound_of(place)))
    }

    /// The buckets that are not empty: upper bound, and the count above the bound before and up to this one.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).enumerate();
        counts.filter(|(_, count)| *count > 0).map(|(place, count)| (Duration::from_micros(bound_of(place)), count))
    }

    /// Counts by power of two: upper bound in seconds, and the count above the bound before and up to this one.
    /// Durations above the last bound are not included.
    pub fn by_powers(&self) -> impl Iterator<Item = (f64, u64)> {
        // Durations below 64 µs share one bucket.
        const FIRST: usize = 5 << BITS;
        let loaded = |range: std::ops::Range<usize>| -> u64 {
            self.buckets.get(range).unwrap_or_default().iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
        };
        let step = 1 << BITS;
        (FIRST - step..BUCKETS - step).step_by(step).map(move |start| {
            let from = if start == FIRST - step { 0 } else { start };
            let bound = bound_of(start + step - 1) as f64 / 1e6;
            (bound, loaded(from..start + step))
        })
    }
}

/// The bucket of a value: its bound is the lowest one that is not below the value.
fn bucket_of(micros: u64) -> usize {
    let value = micros.saturating_sub(1);
    if value < 1 << BITS {
        return value as usize;
    }
    let power = value.ilog2();
    if power > LARGEST_POWER {
        return BUCKETS - 1;
    }
    let step = (value >> (power - BITS)) as usize & ((1 << BITS) - 1);
    (((power - BITS + 1) as usize) << BITS) + step
}

/// The greatest value of a bucket, in microseconds.
fn bound_of(bucket: usize) -> u64 {
    let (group, step) = (bucket >> BITS, bucket as u64 & ((1 << BITS) - 1));
    match group {
        0 => step + 1,
        group => ((1 << BITS) + step + 1) << (group - 1),
    }
}

/// A single writer needs no locked instruction.
pub(super) fn bump(cell: &AtomicU64, number: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_bucket_whose_bounds_are_around_it() {
        let mut values: Vec<u64> = (0..5000).collect();
        values.extend((0..27).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]));
        for value in values {
            let bucket = bucket_of(value);
            assert!(value <= bound_of(bucket), "{value} in {bucket}");
            assert!(bucket == 0 || value > bound_of(bucket - 1), "{value} in {bucket}");
        }
        assert_eq!((bucket_of(u64::MAX), bucket_of(1 << 40)), (BUCKETS - 1, BUCKETS - 1));
    }

    #[test]
    fn quantiles_are_right_to_a_quarter_and_sums_are_kept() {
        let one = Histogram::default();
        assert_eq!((one.quantile(0.5), one.count()), (None, 0));
        let sum = Histogram::default();
        for millis in 1..=1000 {
            one.record(Duration::from_millis(millis));
        }
        sum.absorb(&one);
        sum.absorb(&one);
        assert_eq!(sum.count(), 2000);
        assert!((sum.sum_seconds() - 1001.0).abs() < 1e-6);
        for (part, millis) in [(0.5, 500), (0.9, 900), (0.99, 990), (1.0, 1000)] {
            let found = sum.quantile(part).expect("values").as_millis();
            assert!((millis..millis * 5 / 4 + 1).contains(&found), "{part}: {found} ms");
        }
    }

    #[test]
    fn powers_of_two_have_all_but_the_longest() {
        let histogram = Histogram::default();
        for micros in [1, 64, 65, 128, 1 << 26, (1 << 27) + 1] {
            histogram.record(Duration::from_micros(micros));
        }
        let powers: Vec<_> = histogram.by_powers().collect();
        assert_eq!(powers[0], (64e-6, 2));
        assert_eq!(powers[1], (128e-6, 2));
        assert!(powers.windows(2).all(|pair| pair[1].0 == 2.0 * pair[0].0));
        assert_eq!(powers.last().map(|(bound, _)| *bound), Some(f64::from(1 << 27) / 1e6));
        assert_eq!(powers.iter().map(|(_, count)| count).sum::<u64>(), 5);
    }
}
