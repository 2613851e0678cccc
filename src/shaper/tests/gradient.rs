//! The limit follows latency: a simulated server with a known knee.

use crate::base::clock::Moment;
use crate::shaper::{Bounds, Gradient};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// The mean time of service, in microseconds.
const SERVICE: f64 = 20_000.0;

const BOUNDS: (u32, u32) = (1, 10_000);

/// A server that serves this many requests at once (the knee) and queues the others. A constant delay is added to its
/// service time. Its clients always have another request.
struct Server {
    random: fastrand::Rng,
    gradient: Gradient,
    now: u64,
    knee: usize,
    way: u64,
    /// The greatest number of requests that clients have at once.
    demand: u32,
    /// The capacity that is known.
    capacity: u32,
    /// Service times are exponentially distributed; otherwise they differ from the mean by at most a half.
    varies_much: bool,
    /// Ends of service, and arrivals of responses at the client.
    events: BinaryHeap<Reverse<(u64, u64, bool)>>,
    number: u64,
    busy: usize,
    waiting: VecDeque<()>,
    in_flight: u32,
    responses: u64,
}

impl Server {
    fn new(knee: usize, varies_much: bool, seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            gradient: Gradient::new(Bounds::new(BOUNDS.0, BOUNDS.1), Moment::ZERO),
            now: 0,
            knee,
            way: 0,
            demand: u32::MAX,
            capacity: u32::MAX,
            varies_much,
            events: BinaryHeap::new(),
            number: 0,
            busy: 0,
            waiting: VecDeque::new(),
            in_flight: 0,
            responses: 0,
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds")]
    fn begin_service(&mut self) {
        self.busy += 1;
        let factor = match self.varies_much {
            true => -(1.0 - self.random.f64()).ln(),
            false => 0.5 + self.random.f64(),
        };
        self.plan((SERVICE * factor) as u64, false);
    }

    fn plan(&mut self, time: u64, is_response: bool) {
        self.number += 1;
        self.events.push(Reverse((self.now + time, self.number, is_response)));
    }

    fn begin_what_fits(&mut self) {
        while self.busy < self.knee && self.waiting.pop_front().is_some() {
            self.begin_service();
        }
    }

    fn step(&mut self) {
        while self.in_flight < self.gradient.limit().min(self.demand).min(self.capacity) {
            self.in_flight += 1;
            self.waiting.push_back(());
        }
        self.begin_what_fits();
        let Some(Reverse((time, _, is_response))) = self.events.pop() else { panic!("nothing is under way") };
        self.now = time;
        if !is_response {
            self.busy -= 1;
            self.begin_what_fits();
            if self.way > 0 {
                return self.plan(self.way, true);
            }
        }
        self.gradient.set_capacity(self.capacity, Moment::from_micros(time));
        self.gradient.note_response(self.in_flight, Moment::from_micros(time));
        self.in_flight -= 1;
        self.responses += 1;
    }

    /// Advances time. Returns the least, the mean and the greatest limit.
    fn run(&mut self, seconds: u64) -> (f64, f64, f64) {
        let end = self.now + seconds * 1_000_000;
        let (mut least, mut most, mut sum, mut count) = (f64::MAX, 0.0_f64, 0.0, 0.0);
        while self.now < end {
            self.step();
            let limit = f64::from(self.gradient.limit());
            (least, most, sum, count) = (least.min(limit), most.max(limit), sum + limit, count + 1.0);
        }
        (least, sum / count, most)
    }
}

#[test]
fn the_limit_finds_the_knee_and_stays_there() {
    // The mean limit stays within 15 % of the knee, and at small knees within a request and a half.
    for knee in [2_u32, 5, 20, 100] {
        for (varies_much, seed) in [(false, 1), (true, 3)] {
            let mut server = Server::new(knee as usize, varies_much, seed);
            server.run(if knee < 10 { 60 } else { 15 });
            let seconds = if knee < 10 { 200 } else { 20 };
            let before = server.responses;
            let (least, mean, most) = server.run(seconds);
            let name = format!("knee {knee}, seed {seed}: {least}, {mean:.1}, {most}");
            let knee = f64::from(knee);
            assert!((mean - knee).abs() <= (0.15 * knee).max(1.5), "{name}");
            assert!(least >= (0.45 * knee).min(knee - 4.0) && most <= (1.7 * knee).max(knee + 6.0), "{name}");
            // The throughput lost to the low phases and to the search.
            let possible = knee * 1_000_000.0 / SERVICE * seconds as f64;
            let served = (server.responses - before) as f64 / possible;
            assert!(served > if knee < 3.0 { 0.85 } else { 0.93 }, "{name}: {served:.3} of the throughput");
        }
    }
}

#[test]
fn the_limit_follows_a_change_of_the_knee() {
    for varies_much in [false, true] {
        let mut server = Server::new(100, varies_much, 7);
        for (knee, settling) in [(60, 10), (20, 15), (80, 10)] {
            server.knee = knee;
            server.run(settling);
            let (_, mean, _) = server.run(10);
            let knee = knee as f64;
            assert!((0.8..1.3).contains(&(mean / knee)), "{mean} at a knee of {knee}");
        }
    }
}

#[test]
fn latency_that_jumps_by_a_constant_does_not_lower_the_limit() {
    for (varies_much, seed) in [(false, 1), (true, 2), (true, 3)] {
        let mut server = Server::new(30, varies_much, seed);
        server.run(15);
        let (_, before, _) = server.run(10);
        // Six times the latency: 180 requests now fit on the path and in the server.
        server.way = 100_000;
        let (least, _, _) = server.run(10);
        assert!(least >= 0.6 * before, "seed {seed}: {least} after {before}");
        server.run(20);
        let (_, mean, _) = server.run(10);
        assert!((144.0..250.0).contains(&mean), "seed {seed}: {mean} where 180 fit");
    }
}

#[test]
fn nothing_drifts_in_an_overload_that_does_not_end() {
    let mut server = Server::new(20, true, 11);
    server.run(30);
    let means: Vec<_> = (0..6).map(|_| server.run(50).1).collect();
    assert!(means.iter().all(|mean| (17.0..25.0).contains(mean)), "{means:?}");
}

#[test]
fn the_limit_stays_where_it_is_not_used_up_and_within_its_bounds() {
    let mut server = Server::new(100, false, 1);
    server.demand = 15;
    assert_eq!(server.run(20), (20.0, 20.0, 20.0), "15 requests say nothing about a limit of 20");
    for (min, max, expected) in [(1, 25, 25), (80, 1000, 80), (30, 10, 10)] {
        let mut server = Server::new(40, false, 1);
        server.gradient.set_bounds(Bounds::new(min, max));
        let (least, _, most) = server.run(15);
        assert!(least >= f64::from(min.min(max)) && most <= f64::from(max), "{least}..{most} in {min}..{max}");
        assert!(server.gradient.limit() >= expected * 3 / 4, "{min}..{max}");
        server.gradient.set_bounds(Bounds::new(7, 7));
        assert_eq!(server.gradient.limit(), 7);
    }
}

#[test]
fn a_known_capacity_beyond_the_knee_does_not_hide_it() {
    for (knee, capacity, seed) in [(5, 12, 1), (20, 40, 2), (30, 33, 3)] {
        let mut server = Server::new(knee, false, seed);
        server.capacity = capacity;
        server.run(40);
        let (_, mean, _) = server.run(40);
        let knee = knee as f64;
        assert!((mean - knee).abs() <= (0.15 * knee).max(1.5), "{mean} at a knee of {knee} below {capacity}");
    }
    // Below the knee the capacity is used, but for the low phases and the search; and when it is back, the knee is found again.
    let mut server = Server::new(100, false, 4);
    server.run(10);
    server.capacity = 10;
    server.run(10);
    let before = server.responses;
    server.run(20);
    let served = (server.responses - before) as f64 / (10.0 * 1_000_000.0 / SERVICE * 20.0);
    assert!(served > 0.85, "{served:.3} of the throughput");
    server.capacity = u32::MAX;
    server.run(15);
    let (_, mean, _) = server.run(10);
    assert!((85.0..115.0).contains(&mean), "{mean} at a knee of 100");
}

#[test]
fn responses_that_are_too_rare_move_nothing() {
    let mut gradient = Gradient::new(Bounds::new(1, 100), Moment::ZERO);
    let mut now = Moment::ZERO;
    for _ in 0..1000 {
        now = now + Duration::from_secs(1);
        gradient.note_response(20, now);
        assert_eq!(gradient.limit(), 20, "60 responses a minute are too few");
    }
}
