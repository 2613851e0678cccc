//! Limits look-ups of hosts that do not exist. The directory refuses them beyond `server.unknownHostRate`, and this limiter keeps
//! a flood of them out of the directory's queue: there, each would take time from look-ups of hosts that exist.

use crate::base::client_network::network_of;
use crate::base::clock::Moment;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// A look-up without a route counts for its client for at most this time, in which a client may have `limit` of them.
const SPAN: Duration = Duration::from_secs(10);
/// How often the suspects' allowance is renewed.
const SECOND: Duration = Duration::from_secs(1);
/// A client with this many look-ups without a route is a suspect. 1,000 clients at two workers stay below the length of the
/// directory's queue with fewer.
const SUSPECT: u32 = 8;

/// Counts look-ups without a route by client network. A look-up in progress counts until it has found a route. Networks
/// without such look-ups are not stored.
#[derive(Debug)]
pub(super) struct UnknownHostLimiter {
    span_ends: Moment,
    counts: HashMap<IpAddr, u32>,
    second_ends: Moment,
    /// Look-ups that all suspects together may still begin in this second.
    left: u32,
}

impl UnknownHostLimiter {
    pub(super) fn new(now: Moment) -> Self {
        Self { span_ends: now + SPAN, counts: HashMap::new(), second_ends: now, left: 0 }
    }

    /// Whether a client may look up a host that is not known here. If so, the look-up counts. A client may have `limit`
    /// look-ups without a route in ten seconds, and all suspects together may begin `limit` in a second: the directory
    /// would refuse more.
    pub(super) fn begin(&mut self, client: IpAddr, limit: u32, now: Moment) -> bool {
        self.renew_if_due(limit, now);
        let client = network_of(client);
        let count = self.counts.get(&client).copied().unwrap_or_default();
        if count >= limit || (count >= SUSPECT && self.left == 0) {
            return false;
        }
        self.left -= u32::from(count >= SUSPECT);
        self.counts.insert(client, count + 1);
        true
    }

    /// A look-up of this client has found a route, or has ended without a result.
    pub(super) fn end_uncounted(&mut self, client: IpAddr) {
        let client = network_of(client);
        let Some(count) = self.counts.get_mut(&client) else { return };
        self.left = self.left.saturating_add(u32::from(*count > SUSPECT));
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&client);
        }
    }

    fn renew_if_due(&mut self, limit: u32, now: Moment) {
        if self.span_ends <= now {
            self.span_ends = now + SPAN;
            self.counts = HashMap::new();
        }
        if self.second_ends <= now {
            self.second_ends = now + SECOND;
            self.left = limit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_with_too_many_misses_waits_and_others_do_not() {
        let now = Moment::ZERO + Duration::from_secs(100);
        let [guesser, neighbour, other] = ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(address);
        let mut limiter = UnknownHostLimiter::new(now);
        for _ in 0..3 {
            assert!(limiter.begin(guesser, 3, now));
        }
        assert!(!limiter.begin(guesser, 3, now));
        assert!(!limiter.begin(neighbour, 3, now), "of the same network");
        assert!(limiter.begin(other, 3, now));
        assert!(limiter.begin(guesser, 3, now + SPAN));
    }

    #[test]
    fn a_look_up_that_finds_a_route_does_not_count() {
        let now = Moment::ZERO + Duration::from_secs(100);
        let mut limiter = UnknownHostLimiter::new(now);
        let client = address("192.0.2.1");
        for _ in 0..100 {
            assert!(limiter.begin(client, 1, now));
            limiter.end_uncounted(client);
        }
        assert!(limiter.counts.is_empty());
        limiter.end_uncounted(client);
    }

    #[test]
    fn a_thousand_guessing_clients_begin_no_more_in_a_second_than_one_may() {
        let now = Moment::ZERO + Duration::from_secs(100);
        let mut limiter = UnknownHostLimiter::new(now);
        let guessers: Vec<_> =
            (0..1000).map(|number| IpAddr::from(std::net::Ipv4Addr::from_bits(0x7f01_0000 + number))).collect();
        let mut round = |now| guessers.iter().filter(|client| limiter.begin(**client, 500, now)).count();
        let first: usize = (0..SUSPECT).map(|_| round(now)).sum();
        assert_eq!(first, 1000 * SUSPECT as usize, "no suspect yet");
        assert_eq!([round(now), round(now)], [500, 0]);
        assert_eq!(round(now + SECOND), 500);
        assert!(limiter.begin(address("192.0.2.1"), 500, now), "a client without misses");
    }
}
