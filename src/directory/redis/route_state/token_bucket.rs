//! What a flood of unknown hosts may cost: so many look-ups a second that find nothing.

use crate::base::clock::Moment;

/// A bucket that holds a second's worth. A look-up that finds a route gives its token back.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    left: f64,
    filled_at: Moment,
}

impl TokenBucket {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), left: f64::from(per_second), filled_at: Moment::ZERO }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let passed = now.since(self.filled_at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.per_second);
        self.filled_at = now;
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }

    /// Gives a token back, where one was taken.
    pub(super) fn give_back(&mut self, taken: bool) {
        if taken {
            self.left = (self.left + 1.0).min(self.per_second);
        }
    }

    /// Starts with a full bucket.
    pub(super) fn refill(&mut self, now: Moment) {
        self.left = self.per_second;
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_second_holds_so_many_and_what_was_found_costs_none() {
        let mut bucket = TokenBucket::new(10);
        let start = Moment::ZERO + Duration::from_secs(1);
        assert_eq!((0..50).filter(|_| bucket.take(start)).count(), 10);
        assert_eq!((0..50).filter(|_| bucket.take(start + Duration::from_millis(500))).count(), 5);
        bucket.give_back(true);
        bucket.give_back(false);
        assert_eq!((0..50).filter(|_| bucket.take(start + Duration::from_millis(500))).count(), 1);
    }
}
