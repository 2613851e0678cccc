//! Parts of byte slices, taken without a panic.

use std::ops::Range;

/// Takes parts of bytes at positions that the caller knows to be in range.
///
/// A position beyond the end is a defect of this program. A debug build panics; a release build returns an empty part,
/// so one request suffers and not the whole core.
pub trait SliceExt {
    /// The bytes of this range.
    fn slice(&self, places: Range<usize>) -> &[u8];

    /// The bytes before this position.
    fn prefix(&self, place: usize) -> &[u8] {
        self.slice(0..place)
    }

    /// The bytes from this position on.
    fn suffix(&self, place: usize) -> &[u8];

    /// The first `most` bytes, or all if there are fewer.
    fn limit(&mut self, most: usize) -> &mut [u8];
}

impl SliceExt for [u8] {
    fn slice(&self, places: Range<usize>) -> &[u8] {
        debug_assert!(places.start <= places.end && places.end <= self.len(), "{places:?} of {}", self.len());
        self.get(places).unwrap_or_default()
    }

    fn suffix(&self, place: usize) -> &[u8] {
        debug_assert!(place <= self.len(), "{place} of {}", self.len());
        self.get(place..).unwrap_or_default()
    }

    fn limit(&mut self, most: usize) -> &mut [u8] {
        let len = most.min(self.len());
        self.get_mut(..len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::SliceExt;

    #[test]
    fn parts() {
        let bytes = &mut *b"abc".to_vec();
        assert_eq!((bytes.slice(1..2), bytes.prefix(2), bytes.suffix(1)), (&b"b"[..], &b"ab"[..], &b"bc"[..]));
        assert_eq!((bytes.slice(3..3), bytes.prefix(0), bytes.suffix(3)), (&b""[..], &b""[..], &b""[..]));
        assert_eq!((bytes.limit(2).len(), bytes.limit(9).len()), (2, 3));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "4 of 3")]
    fn a_place_that_is_not_there_stops_a_debug_build() {
        b"abc"[..].suffix(4);
    }
}
