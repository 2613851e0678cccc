//! Writes whole lines to an output that may fail in the middle of one.

use std::io::{self, ErrorKind, Write};

/// An output, and whether the last write to it stopped within a line.
#[derive(Debug)]
pub(super) struct Sink<W> {
    out: W,
    torn: bool,
}

/// Why lines were lost, and how many were not, or not completely, written.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: io::Error,
    pub(super) lost_lines: u64,
}

impl<W: Write> Sink<W> {
    /// `torn`: an earlier write to the output stopped within a line.
    pub(super) const fn new(out: W, torn: bool) -> Self {
        Self { out, torn }
    }

    /// Writes whole lines. After a failure within a line the next one starts on a new line, so a full disk costs only
    /// the lines that did not fit.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Failure> {
        if self.torn {
            self.out.write_all(b"\n").map_err(|error| Failure::new(error, lines))?;
            self.torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(Failure::new(ErrorKind::WriteZero.into(), rest)),
                Ok(len) => {
                    self.torn = rest[len - 1] != b'\n';
                    rest = &rest[len..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::new(error, rest)),
            }
        }
        Ok(())
    }
}

impl Failure {
    fn new(error: io::Error, rest: &[u8]) -> Self {
        Self { error, lost_lines: memchr::memchr_iter(b'\n', rest).count() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts a number of bytes, then fails.
    #[derive(Default)]
    struct Disk {
        written: Vec<u8>,
        free_bytes: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.free_bytes == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let len = bytes.len().min(self.free_bytes);
            self.free_bytes -= len;
            self.written.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failure_costs_the_lines_it_had_no_room_for_and_no_other() {
        let table: [(usize, u64, &str); 6] = [
            (0, 3, "e\nf\n"),
            (1, 3, "a\ne\nf\n"),
            (2, 3, "aa\ne\nf\n"),
            (3, 2, "aa\ne\nf\n"),
            (4, 2, "aa\nb\ne\nf\n"),
            (8, 1, "aa\nbb\ncc\ne\nf\n"),
        ];
        for (free_bytes, lost_lines, expected) in table {
            let mut sink = Sink::new(Disk { free_bytes, ..Disk::default() }, false);
            let failure = sink.write(b"aa\nbb\ncc\n").expect_err("the disk is full");
            assert_eq!(failure.lost_lines, lost_lines, "{free_bytes} bytes free");
            assert_eq!(failure.error.kind(), ErrorKind::StorageFull);
            let failure = sink.write(b"d\n").expect_err("it is still full");
            assert_eq!(failure.lost_lines, 1);
            sink.out.free_bytes = 100;
            sink.write(b"e\n").expect("there is room again");
            sink.write(b"f\n").expect("there is room");
            assert_eq!(String::from_utf8_lossy(&sink.out.written), expected, "{free_bytes} bytes free");
        }
    }
}
