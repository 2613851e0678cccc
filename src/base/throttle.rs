//! Limits frequent log lines: a log must not grow at the rate of requests.

use super::clock::Moment;
use std::time::Duration;

/// The window in which a few lines pass.
const SPAN: Duration = Duration::from_secs(10);

/// Lets a few lines pass in each window of ten seconds, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    most: u32,
    admitted: u32,
    until: Moment,
    suppressed: u64,
}

impl Throttle {
    /// Lets `most` lines pass in ten seconds.
    pub fn new(most: u32) -> Self {
        Self { most, admitted: 0, until: Moment::ZERO, suppressed: 0 }
    }

    /// `None` suppresses the line; otherwise the number of lines suppressed since the last one that passed.
    pub fn admit(&mut self, now: Moment) -> Option<u64> {
        if self.until <= now {
            (self.admitted, self.until) = (0, now + SPAN);
        }
        if self.admitted < self.most {
            self.admitted += 1;
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_are_admitted_and_the_others_counted() {
        let mut throttle = Throttle::new(2);
        let mut now = Moment::ZERO + Duration::from_secs(5);
        let admitted: Vec<_> = (0..5).map(|_| throttle.admit(now)).collect();
        assert_eq!(admitted, [Some(0), Some(0), None, None, None]);
        now = now + SPAN;
        assert_eq!([throttle.admit(now), throttle.admit(now), throttle.admit(now)], [Some(3), Some(0), None]);
    }
}
