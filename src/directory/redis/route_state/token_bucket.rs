//! What a flood of unknown hosts may cost: so many look-ups a second that find nothing, shared fairly by clients.
//!
//! A client that has lately asked for hosts that there are not leaves a part of the bucket to others: up to half of it.
//! So however many clients flood this node, whoever asks for hosts that exist finds tokens, and gives them back.

use crate::base::clock::Moment;
use crate::net::connection_limiter::network_of;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long a miss counts at least; at most twice as long.
const SPAN: Duration = Duration::from_secs(10);
/// So many misses cost a client half of the bucket. It has the whole bucket with none.
const MOST_MISSES: u32 = 4;
/// Clients that are remembered in each span. More than these count as if they had missed nothing.
const MAX_CLIENTS: usize = 65_536;

/// A bucket that holds a second's worth. A look-up that finds a route gives its token back.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    left: f64,
    filled_at: Moment,
    /// Misses by client in this span and the one before.
    misses: [HashMap<IpAddr, u32>; 2],
    span_ends: Moment,
}

impl TokenBucket {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            left: f64::from(per_second),
            filled_at: Moment::ZERO,
            misses: Default::default(),
            span_ends: Moment::ZERO,
        }
    }

    /// Takes a token for this client, if there is one for it. `None` is a client that is not limited by itself.
    pub(super) fn take(&mut self, client: Option<IpAddr>, now: Moment) -> bool {
        let passed = now.since(self.filled_at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.per_second);
        self.filled_at = now;
        let misses = client.map_or(0, |client| self.misses_of(client, now)).min(MOST_MISSES);
        let for_others = self.per_second / 2.0 * f64::from(misses) / f64::from(MOST_MISSES);
        let has_one = self.left >= 1.0 + for_others;
        if has_one {
            self.left -= 1.0;
        } else if misses > 0 {
            // It goes on asking: it is not forgotten that it has missed.
            self.note_miss(client, now);
        }
        has_one
    }

    /// A look-up for this client has found nothing.
    pub(super) fn note_miss(&mut self, client: Option<IpAddr>, now: Moment) {
        let Some(client) = client else { return };
        self.begin_span_if_due(now);
        let misses = &mut self.misses[0];
        let client = network_of(client);
        if misses.len() < MAX_CLIENTS || misses.contains_key(&client) {
            let count = misses.entry(client).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn misses_of(&mut self, client: IpAddr, now: Moment) -> u32 {
        self.begin_span_if_due(now);
        let client = network_of(client);
        self.misses.iter().map(|misses| misses.get(&client).copied().unwrap_or_default()).sum()
    }

    fn begin_span_if_due(&mut self, now: Moment) {
        if self.span_ends <= now {
            self.misses.swap(0, 1);
            self.misses[0] = HashMap::new();
            self.span_ends = now + SPAN;
        }
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

    #[test]
    fn a_second_holds_so_many_and_what_was_found_costs_none() {
        let mut bucket = TokenBucket::new(10);
        let start = Moment::ZERO + Duration::from_secs(1);
        assert_eq!((0..50).filter(|_| bucket.take(None, start)).count(), 10);
        assert_eq!((0..50).filter(|_| bucket.take(None, start + Duration::from_millis(500))).count(), 5);
        bucket.give_back(true);
        bucket.give_back(false);
        assert_eq!((0..50).filter(|_| bucket.take(None, start + Duration::from_millis(500))).count(), 1);
    }

    #[test]
    fn a_thousand_clients_that_guess_leave_half_of_the_bucket_to_those_that_do_not() {
        let mut bucket = TokenBucket::new(1000);
        let mut now = Moment::ZERO + Duration::from_secs(100);
        let address = |number: u32| Some(IpAddr::from(std::net::Ipv4Addr::from_bits(0x7f01_0000 + number)));
        let good = Some(IpAddr::from([192, 0, 2, 1]));
        let (mut let_through, mut asked) = (0, 0_u32);
        // A minute of 10,000 guesses a second.
        for tick in 0..60_000 {
            now = now + Duration::from_millis(1);
            for _ in 0..10 {
                asked += 1;
                let client = address(asked % 1000);
                if bucket.take(client, now) {
                    let_through += 1;
                    bucket.note_miss(client, now);
                }
            }
            if tick > 5_000 {
                assert!(bucket.take(good, now), "refused at {tick}");
                bucket.give_back(true);
            }
        }
        assert!((59_000..62_000).contains(&let_through), "{let_through} of {asked}");
    }

    #[test]
    fn who_stops_to_guess_is_forgiven() {
        let mut bucket = TokenBucket::new(10);
        let mut now = Moment::ZERO + Duration::from_secs(100);
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        (0..10).for_each(|_| bucket.note_miss(client, now));
        assert_eq!((0..50).filter(|_| bucket.take(client, now)).count(), 5);
        now = now + 2 * SPAN + SPAN;
        assert_eq!((0..50).filter(|_| bucket.take(client, now)).count(), 5, "the span of the refusals follows");
        now = now + SPAN;
        bucket.begin_span_if_due(now);
        now = now + SPAN;
        assert_eq!((0..50).filter(|_| bucket.take(client, now)).count(), 10);
    }
}
