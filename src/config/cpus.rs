//! Lists of processors, such as `0-3,8`.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// The highest number of a processor: the limit of Linux's affinity masks of fixed size.
pub(super) const HIGHEST: usize = 1023;

/// Processors in the order in which workers are pinned to them; not empty, without duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// A list of these processors.
    pub(super) fn new(cpus: Vec<usize>) -> Result<Self, CpuListFault> {
        let mut sorted = cpus.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CpuListFault::Twice { cpu: pair[0] });
        }
        match sorted.last() {
            None => Err(CpuListFault::Empty),
            Some(&highest) if highest > HIGHEST => Err(CpuListFault::TooHigh { cpu: highest }),
            Some(_) => Ok(Self(cpus)),
        }
    }

    /// The numbers.
    pub fn into_vec(self) -> Vec<usize> {
        self.0
    }
}

impl FromStr for CpuList {
    type Err = CpuListFault;

    fn from_str(text: &str) -> Result<Self, CpuListFault> {
        let mut cpus = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(CpuListFault::Backwards { first, last });
            }
            cpus.extend(first..=last);
        }
        Self::new(cpus)
    }
}

fn number(text: &str) -> Result<usize, CpuListFault> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let cpu = text.parse().ok().filter(|_| is_number).ok_or_else(|| CpuListFault::NoNumber { text: text.into() })?;
    // The limit is checked before a range is expanded: `0-99999999999` must not exhaust the memory.
    if cpu > HIGHEST { Err(CpuListFault::TooHigh { cpu }) } else { Ok(cpu) }
}

/// A fault of a list of processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuListFault {
    /// It is empty.
    Empty,
    /// It has an item other than a number or a range.
    NoNumber {
        /// The item.
        text: String,
    },
    /// It has a range that ends before it begins.
    Backwards {
        /// Its first number.
        first: usize,
        /// Its last number.
        last: usize,
    },
    /// It has a number beyond the highest processor.
    TooHigh {
        /// The number.
        cpu: usize,
    },
    /// It names a processor twice.
    Twice {
        /// Its number.
        cpu: usize,
    },
}

impl fmt::Display for CpuListFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the list is empty"),
            Self::NoNumber { text } => write!(f, "{text:?} is no number of a processor"),
            Self::Backwards { first, last } => write!(f, "the range {first}-{last} ends before it begins"),
            Self::TooHigh { cpu } => write!(f, "{cpu} is higher than {HIGHEST}"),
            Self::Twice { cpu } => write!(f, "{cpu} stands in it more than once"),
        }
    }
}

impl Error for CpuListFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let no_number = |text: &str| Err(CpuListFault::NoNumber { text: text.into() });
        let table = [
            ("0", Ok(vec![0])),
            ("0-3,8", Ok(vec![0, 1, 2, 3, 8])),
            ("8, 2-2", Ok(vec![8, 2])),
            ("1023", Ok(vec![1023])),
            ("", no_number("")),
            ("x", no_number("x")),
            ("+1", no_number("+1")),
            ("1,", no_number("")),
            ("1-", no_number("")),
            ("-1", no_number("")),
            ("1-2-3", no_number("2-3")),
            ("3-1", Err(CpuListFault::Backwards { first: 3, last: 1 })),
            ("0-99999999", Err(CpuListFault::TooHigh { cpu: 99_999_999 })),
            ("0-3,2", Err(CpuListFault::Twice { cpu: 2 })),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<CpuList>().map(CpuList::into_vec), expected, "{text:?}");
        }
    }
}
