//! Limits frequent log lines: a log must not grow at the rate of requests.

use super::clock::Moment;
use std::time::Duration;

/// How long a few may be told.
const SPAN: Duration = Duration::from_secs(10);

/// Lets through a few in ten seconds, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    most: u32,
    told: u32,
    until: Moment,
    untold: u64,
}

impl Throttle {
    /// Lets `most` through in ten seconds.
    pub fn new(most: u32) -> Self {
        Self { most, told: 0, until: Moment::ZERO, untold: 0 }
    }

    /// Whether this one is told, and how many were not since the last that was.
    pub fn admit(&mut self, now: Moment) -> Option<u64> {
        if self.until <= now {
            (self.told, self.until) = (0, now + SPAN);
        }
        if self.told < self.most {
            self.told += 1;
            return Some(std::mem::take(&mut self.untold));
        }
        self.untold += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_told_and_the_others_counted() {
        let mut throttle = Throttle::new(2);
        let mut now = Moment::ZERO + Duration::from_secs(5);
        let told: Vec<_> = (0..5).map(|_| throttle.admit(now)).collect();
        assert_eq!(told, [Some(0), Some(0), None, None, None]);
        now = now + SPAN;
        assert_eq!([throttle.admit(now), throttle.admit(now), throttle.admit(now)], [Some(3), Some(0), None]);
    }
}
