//! Who asks for hosts that do not exist. All look-ups that find nothing share one allowance (`server.unknownHostRate`), and
//! a client that uses all of it would keep others from hosts that do exist and are not yet known here.

use crate::base::clock::Moment;
use crate::net::connection_limiter::network_of;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// In this time a client has what all have in a second.
const SPAN: Duration = Duration::from_secs(10);

/// How many unknown hosts each client address has asked for lately. There are no more addresses than clients that have
/// waited for a look-up in the time.
#[derive(Debug)]
pub(super) struct UnknownHostLimiter {
    until: Moment,
    counts: HashMap<IpAddr, u32>,
}

impl UnknownHostLimiter {
    pub(super) fn new(now: Moment) -> Self {
        Self { until: now + SPAN, counts: HashMap::new() }
    }

    /// Whether a client may ask for a host that is not known here.
    pub(super) fn may_ask(&mut self, client: IpAddr, most: u32, now: Moment) -> bool {
        self.begin_anew_if_due(now);
        self.counts.get(&network_of(client)).is_none_or(|count| *count < most)
    }

    /// A client has asked for a host that there is not, or for more hosts than the directory looks up.
    pub(super) fn note(&mut self, client: IpAddr, now: Moment) {
        self.begin_anew_if_due(now);
        let count = self.counts.entry(network_of(client)).or_default();
        *count = count.saturating_add(1);
    }

    fn begin_anew_if_due(&mut self, now: Moment) {
        if self.until <= now {
            self.until = now + SPAN;
            self.counts = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_too_much_waits_and_others_do_not() {
        let now = Moment::ZERO + Duration::from_secs(100);
        let [guesser, neighbour, other] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| text.parse().expect("an address"));
        let mut unknown_host_limiter = UnknownHostLimiter::new(now);
        for _ in 0..3 {
            assert!(unknown_host_limiter.may_ask(guesser, 3, now));
            unknown_host_limiter.note(guesser, now);
        }
        assert!(!unknown_host_limiter.may_ask(guesser, 3, now));
        assert!(!unknown_host_limiter.may_ask(neighbour, 3, now), "of the same network");
        assert!(unknown_host_limiter.may_ask(other, 3, now));
        assert!(unknown_host_limiter.may_ask(guesser, 3, now + SPAN));
    }
}
