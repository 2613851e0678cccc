//! What decides in a scenario: a seed, or bytes that somebody else has chosen and, when they are used up, a seed.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

/// Decisions. The same seed and bytes make the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    /// One byte a decision, for those who look for a decision that changes something.
    bytes: Arc<[u8]>,
    at: usize,
    rest: fastrand::Rng,
}

impl Dice {
    #[allow(dead_code, reason = "the simulation uses it")]
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self { bytes: Arc::default(), at: 0, rest: fastrand::Rng::with_seed(seed) }
    }

    #[allow(dead_code, reason = "the fuzz targets use it")]
    pub(crate) fn with_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), at: 0, rest: fastrand::Rng::with_seed(0) }
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.next().map_or_else(|| self.rest.bool(), |byte| byte & 1 == 1)
    }

    pub(crate) fn u8(&mut self, range: impl RangeBounds<u8>) -> u8 {
        let (low, high) = ends(&range, u8::MAX, |end| end.saturating_sub(1));
        match self.next() {
            Some(byte) => u8::try_from(scale(byte, u64::from(low), u64::from(high))).expect("a number of the range"),
            None => self.rest.u8(low..=high),
        }
    }

    pub(crate) fn u32(&mut self, range: impl RangeBounds<u32>) -> u32 {
        let (low, high) = ends(&range, u32::MAX, |end| end.saturating_sub(1));
        match self.next() {
            Some(byte) => u32::try_from(scale(byte, u64::from(low), u64::from(high))).expect("a number of the range"),
            None => self.rest.u32(low..=high),
        }
    }

    pub(crate) fn u64(&mut self, range: impl RangeBounds<u64>) -> u64 {
        let (low, high) = ends(&range, u64::MAX, |end| end.saturating_sub(1));
        match self.next() {
            Some(byte) => scale(byte, low, high),
            None => self.rest.u64(low..=high),
        }
    }

    pub(crate) fn usize(&mut self, range: impl RangeBounds<usize>) -> usize {
        let (low, high) = ends(&range, usize::MAX, |end| end.saturating_sub(1));
        match self.next() {
            Some(byte) => usize::try_from(scale(byte, low as u64, high as u64)).expect("a number of the range"),
            None => self.rest.usize(low..=high),
        }
    }

    pub(crate) fn choice<'t, T>(&mut self, items: &'t [T]) -> Option<&'t T> {
        (!items.is_empty()).then(|| &items[self.usize(..items.len())])
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in 1..items.len() {
            items.swap(last, self.usize(..=last));
        }
    }

    /// The content of a body: of no consequence, so that nobody's bytes are used up for it.
    pub(crate) fn content(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.rest.u8(..)).collect()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }
}

/// Both ends of a range, which has at least one number.
fn ends<N: Copy + Default + PartialOrd>(range: &impl RangeBounds<N>, most: N, before: impl Fn(N) -> N) -> (N, N) {
    let low = match range.start_bound() {
        Bound::Included(low) => *low,
        _ => N::default(),
    };
    let high = match range.end_bound() {
        Bound::Included(high) => *high,
        Bound::Excluded(end) => before(*end),
        Bound::Unbounded => most,
    };
    assert!(low <= high, "a range without numbers");
    (low, high)
}

/// Small ranges in full, of large ones a byte's worth of places, both ends among them.
fn scale(byte: u8, low: u64, high: u64) -> u64 {
    match high - low {
        span @ 0..=255 => low + u64::from(byte) % (span + 1),
        span => low + u64::try_from(u128::from(byte) * u128::from(span) / 255).expect("no more than the span"),
    }
}
