//! Large bodies whose content can be checked without keeping it.

use std::io::{self, Write};
use std::sync::LazyLock;

/// A body repeats this block. Its length is a prime, so whatever is lost, doubled or swapped in units of any buffer's
/// size makes a difference.
static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(65_521);
    std::iter::repeat_with(|| random.u8(..)).take(65_521).collect()
});

/// Writes the first `length` bytes of the pattern.
pub(crate) fn write_pattern(to: &mut dyn Write, length: u64) -> io::Result<()> {
    let mut written = 0;
    while written < length {
        let piece = pattern_at(written, length - written);
        to.write_all(piece)?;
        written += piece.len() as u64;
    }
    Ok(())
}

/// Bytes of the pattern from `start`: at least one, at most `limit`.
pub(crate) fn pattern_at(start: u64, limit: u64) -> &'static [u8] {
    let from = usize::try_from(start % BLOCK.len() as u64).expect("less than the block");
    let rest = &BLOCK[from..];
    &rest[..rest.len().min(usize::try_from(limit).unwrap_or(usize::MAX))]
}

/// Compares what arrives, piece by piece, with the pattern.
#[derive(Default)]
pub(crate) struct Checker {
    length: u64,
    first_fault: Option<u64>,
}

impl Checker {
    /// Takes the next piece.
    pub(crate) fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let expected = pattern_at(self.length, piece.len() as u64);
            let (here, rest) = piece.split_at(expected.len());
            if here != expected && self.first_fault.is_none() {
                let within = here.iter().zip(expected).position(|(found, expected)| found != expected);
                self.first_fault = within.map(|within| self.length + within as u64);
            }
            self.length += here.len() as u64;
            piece = rest;
        }
    }

    /// Fails unless exactly the pattern's first `length` bytes have come.
    #[track_caller]
    pub(crate) fn expect(&self, length: u64) {
        assert_eq!(self.first_fault, None, "the first byte that differs, of {}", self.length);
        assert_eq!(self.length, length, "the length of the body");
    }
}
