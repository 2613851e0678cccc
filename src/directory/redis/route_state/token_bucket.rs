//! The cost limit of a flood of unknown hosts: a rate of look-ups that find nothing, shared fairly by clients.
//!
//! A client that has recently asked for unknown hosts leaves a part of the bucket to others, up to half of it. A client
//! without such misses may overdraw the bucket by as much again, so it is served even when a flood has just emptied the
//! bucket. The more look-ups of a client are in flight, the less it may overdraw: so a flood whose clients have no
//! misses yet leaves that part to others. A look-up that finds a route returns its token.

use crate::base::client_network::network_of;
use crate::base::clock::Moment;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// The least time for which a miss counts; it counts at most twice as long.
const SPAN: Duration = Duration::from_secs(10);
/// This many misses cost a client half of the bucket. A client without misses has the whole bucket.
const MOST_MISSES: u32 = 4;
/// This many look-ups in flight cost a client without misses all of its overdraft, and half of the bucket.
const MOST_WAITS: u32 = 16;
/// The greatest number of clients that are tracked in each span. Further ones count as clients without misses.
const MAX_CLIENTS: usize = 65_536;

/// The standing of a client whose look-up has a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A client without recent misses and without other look-ups in flight.
    Good,
    Suspect,
}

/// A bucket with the tokens of one second. A look-up that finds a route returns its token.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    /// The tokens left; negative if overdrawn.
    left: f64,
    filled_at: Moment,
    /// Look-ups in flight by client.
    under_way: HashMap<IpAddr, u32>,
    /// Misses by client in the current span and the one before.
    misses: [HashMap<IpAddr, u32>; 2],
    span_ends: Moment,
}

impl TokenBucket {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: f64::from(per_second),
            left: f64::from(per_second),
            filled_at: Moment::ZERO,
            under_way: HashMap::new(),
            misses: Default::default(),
            span_ends: Moment::ZERO,
        }
    }

    /// Takes a token for this client, if one is available. `None` is a client without a limit of its own. The end of
    /// the look-up has to be reported with [`TokenBucket::note_found`], [`TokenBucket::note_miss`] or
    /// [`TokenBucket::note_end`].
    pub(super) fn take(&mut self, client: Option<IpAddr>, now: Moment) -> Option<Standing> {
        let passed = now.since(self.filled_at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.per_second);
        self.filled_at = now;
        let client = client.map(network_of);
        let misses = client.map_or(0, |client| self.misses_of(client, now));
        let waits = client.and_then(|client| self.under_way.get(&client)).copied().unwrap_or_default();
        let half = self.per_second / 2.0;
        let spared = match misses.min(MOST_MISSES) {
            0 if client.is_some() => half * (3.0 * f64::from(waits.min(MOST_WAITS)) / f64::from(MOST_WAITS) - 2.0),
            0 => 0.0,
            count => half * f64::from(count) / f64::from(MOST_MISSES),
        };
        if self.left < 1.0 + spared {
            if misses > 0 {
                // Its requests continue, so its misses keep counting.
                self.count_miss(client, now);
            }
            return None;
        }
        self.left -= 1.0;
        if let Some(client) = client {
            *self.under_way.entry(client).or_default() += 1;
        }
        Some(if misses > 0 { Standing::Suspect } else { Standing::Good })
    }

    /// Reports that a look-up for this client has found nothing.
    pub(super) fn note_miss(&mut self, client: Option<IpAddr>, now: Moment) {
        self.note_end(client);
        self.count_miss(client.map(network_of), now);
    }

    /// Reports that a look-up for this client has found a route: the token is returned.
    pub(super) fn note_found(&mut self, client: Option<IpAddr>) {
        self.note_end(client);
        self.left = (self.left + 1.0).min(self.per_second);
    }

    /// Reports that a look-up for this client has ended without a result.
    pub(super) fn note_end(&mut self, client: Option<IpAddr>) {
        let Some(client) = client.map(network_of) else { return };
        if let Some(count) = self.under_way.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&client);
            }
        }
    }

    fn count_miss(&mut self, network: Option<IpAddr>, now: Moment) {
        let Some(client) = network else { return };
        self.begin_span_if_due(now);
        let misses = &mut self.misses[0];
        if misses.len() < MAX_CLIENTS || misses.contains_key(&client) {
            let count = misses.entry(client).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn misses_of(&mut self, client: IpAddr, now: Moment) -> u32 {
        self.begin_span_if_due(now);
        self.misses.iter().map(|misses| misses.get(&client).copied().unwrap_or_default()).sum()
    }

    fn begin_span_if_due(&mut self, now: Moment) {
        if self.span_ends <= now {
            self.misses.swap(0, 1);
            self.misses[0] = HashMap::new();
            self.span_ends = now + SPAN;
        }
    }

    /// Reports that no look-up is in flight any more.
    pub(super) fn end_all(&mut self) {
        self.under_way.clear();
    }

    /// Fills the bucket.
    pub(super) fn refill(&mut self, now: Moment) {
        self.left = self.per_second;
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::from(std::net::Ipv4Addr::from_bits(0x7f01_0000 + number)))
    }

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(100) + Duration::from_millis(millis)
    }

    #[test]
    fn a_second_holds_so_many_and_what_was_found_costs_none() {
        let mut bucket = TokenBucket::new(10);
        let taken = |bucket: &mut TokenBucket, now| (0..50).filter(|_| bucket.take(None, now).is_some()).count();
        assert_eq!(taken(&mut bucket, at(0)), 10);
        assert_eq!(taken(&mut bucket, at(500)), 5);
        bucket.note_found(None);
        bucket.note_end(None);
        assert_eq!(taken(&mut bucket, at(500)), 1);
    }

    #[test]
    fn a_thousand_clients_that_guess_leave_half_of_the_bucket_to_those_that_do_not() {
        let mut bucket = TokenBucket::new(1000);
        let good = Some(IpAddr::from([192, 0, 2, 1]));
        let (mut let_through, mut asked) = (0, 0_u32);
        // A minute of 10,000 guesses a second, each of which takes 20 ms.
        let mut under_way = std::collections::VecDeque::new();
        for tick in 0..60_000_u64 {
            while let Some((since, client)) = under_way.front().copied()
                && since + 20 <= tick
            {
                under_way.pop_front();
                bucket.note_miss(client, at(tick));
            }
            for _ in 0..10 {
                asked += 1;
                let client = address(asked % 1000);
                if bucket.take(client, at(tick)).is_some() {
                    let_through += 1;
                    under_way.push_back((tick, client));
                }
            }
            let standing = bucket.take(good, at(tick));
            assert_eq!(standing, Some(Standing::Good), "refused at {tick}");
            bucket.note_found(good);
        }
        assert!((59_000..63_000).contains(&let_through), "{let_through} of {asked}");
    }

    #[test]
    fn a_client_without_a_miss_is_served_when_a_flood_begins() {
        let mut bucket = TokenBucket::new(1000);
        // Very many clients have one look-up in flight each, and none has a history.
        let taken = (0..1_500).filter(|number| bucket.take(address(*number), at(0)).is_some()).count();
        assert_eq!(taken, 1_500);
        // A single client among them gets half of the rest.
        let (mut bucket, one) = (TokenBucket::new(1000), address(1));
        let taken = (0..5_000).filter(|_| bucket.take(one, at(0)).is_some()).count();
        assert_eq!(taken, 500);
        assert!(bucket.take(address(2), at(0)).is_some());
        (0..taken).for_each(|_| bucket.note_end(one));
        assert!(bucket.under_way.len() == 1 && bucket.take(one, at(0)).is_some(), "it waits for nothing any more");
    }

    #[test]
    fn a_client_with_two_look_ups_under_way_is_served_soon_after_a_flood_began() {
        let mut bucket = TokenBucket::new(1000);
        let flood: Vec<_> = (0..8)
            .flat_map(|_| (0..1000).map(address))
            .filter(|client| bucket.take(*client, at(0)).is_some())
            .collect();
        assert!(flood.len() > 1500, "{}", flood.len());
        flood.into_iter().for_each(|client| bucket.note_miss(client, at(50)));
        let good = Some(IpAddr::from([192, 0, 2, 1]));
        let standings = [60, 61, 110].map(|millis| bucket.take(good, at(millis)));
        assert_eq!(standings, [Some(Standing::Good); 3]);
    }

    #[test]
    fn who_stops_to_guess_is_forgiven() {
        let mut bucket = TokenBucket::new(10);
        let mut now = at(0);
        let client = Some(IpAddr::from([192, 0, 2, 1]));
        let ask = |bucket: &mut TokenBucket, now| {
            let taken = (0..50).filter(|_| bucket.take(client, now).is_some()).count();
            bucket.end_all();
            taken
        };
        (0..10).for_each(|_| bucket.count_miss(client, now));
        assert_eq!(ask(&mut bucket, now), 5);
        now = now + 2 * SPAN + SPAN;
        assert_eq!(bucket.take(client, now), Some(Standing::Suspect), "the span of the refusals follows");
        now = now + 3 * SPAN;
        bucket.begin_span_if_due(now);
        now = now + SPAN;
        bucket.end_all();
        assert_eq!(bucket.take(client, now), Some(Standing::Good));
    }
}
