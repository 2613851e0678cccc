use super::*;
use crate::cluster::{
    Backend, BackendId, BackendUrl, ClusterSpec, GrantSink, Granted, Joined, Notice, Options, Permit, Route, Ticket,
    Waiter, key_of,
};
use std::sync::Arc;
use std::time::Duration;

/// A cluster of members with these attributes.
fn cluster(attributes: &[&str], options: &[(&str, &str)]) -> Arc<Cluster> {
    let url = |(attributes, id): (&&str, usize)| format!("http://10.0.{}.{}#{attributes}", id / 256, id % 256);
    let urls = attributes.iter().zip(1..).map(url).map(|url| BackendUrl::parse(&url).expect("a good URL"));
    let urls: Vec<_> = urls.collect();
    let backend =
        |(url, id): (_, u64)| (url, Arc::new(Backend::new(BackendId::new(id), BackendUrl::endpoint(url).clone())));
    let (options, errors) = Options::read(options.iter().copied(), &Options::default());
    assert_eq!(errors, []);
    let entries = urls.iter().zip(1..).map(backend).collect();
    Cluster::edit(
        None,
        ClusterSpec { created: 0, key: "a", id: "x", entries, options: &Arc::new(options) },
        Moment::ZERO,
    )
}

struct Client {
    rng: fastrand::Rng,
    now: Moment,
    key: u64,
    /// The place of the session's member.
    session: Option<usize>,
}

impl Client {
    fn new() -> Self {
        Self { rng: fastrand::Rng::with_seed(7), now: Moment::ZERO, key: 0, session: None }
    }

    /// Asks for a slot of a member that satisfies `may_serve`; the other members have failed the request.
    fn ask_but(&mut self, cluster: &Arc<Cluster>, may_serve: &dyn Fn(usize) -> bool) -> Result<Permit, Admit> {
        let Self { rng, now, key, session } = self;
        let route = Arc::new(Route::new("a", Arc::clone(cluster)));
        let failed = cluster.members.iter().enumerate().filter(|(place, _)| !may_serve(*place));
        let tried: Vec<_> = failed.map(|(_, member)| member.backend.id()).collect();
        let demand = Demand { route: &route, tried: &tried, named: None, wanted: None };
        let session = session.map(|place| cluster.members[place].session());
        match admit(cluster, &mut View { demand, now: *now, rng, key: *key, session }) {
            Admit::Slot(slot) => Ok(Permit::of_route(Arc::clone(&route), slot)),
            other => Err(other),
        }
    }

    fn ask(&mut self, cluster: &Arc<Cluster>) -> Permit {
        self.ask_but(cluster, &|_| true).expect("a slot")
    }

    /// Number of requests that each member gets, of `count` requests one after the other.
    fn shares(&mut self, cluster: &Arc<Cluster>, count: usize) -> Vec<usize> {
        let mut shares = vec![0; cluster.members.len()];
        (0..count).for_each(|_| shares[self.ask(cluster).place()] += 1);
        shares
    }
}

fn is_near(found: usize, expected: usize) -> bool {
    found.abs_diff(expected) <= expected / 20
}

#[test]
fn random_and_rr_follow_the_weights() {
    let attributes = ["weight=1", "weight=2", "weight=0", "weight=5"];
    let random = Client::new().shares(&cluster(&attributes, &[]), 80_000);
    assert!([(0, 10_000), (1, 20_000), (3, 50_000)].iter().all(|(place, count)| is_near(random[*place], *count)));
    assert_eq!(random[2], 0, "{random:?}");
    assert_eq!(Client::new().shares(&cluster(&attributes, &[("scheduler", "rr")]), 800), [100, 200, 0, 500]);
}

#[test]
fn random_is_even_where_many_are_left_out() {
    let cluster = cluster(&[""; 12], &[]);
    let mut client = Client::new();
    let mut shares = [0; 12];
    for _ in 0..30_000 {
        shares[client.ask_but(&cluster, &|place| place % 4 == 1).expect("a slot").place()] += 1;
    }
    for (place, share) in shares.into_iter().enumerate() {
        assert!(if place % 4 == 1 { is_near(share, 10_000) } else { share == 0 }, "{shares:?}");
    }
}

#[test]
fn chance_fills_one_after_the_other() {
    let cluster = cluster(&["capacity=2", "capacity=1", ""], &[("scheduler", "chance")]);
    let mut client = Client::new();
    let permits: Vec<_> = (0..5).map(|_| client.ask(&cluster)).collect();
    assert_eq!(permits.iter().map(Permit::place).collect::<Vec<_>>(), [0, 0, 1, 2, 2]);
}

#[test]
fn least_load_takes_the_most_free_slots_or_the_fewest_requests() {
    let options = [("scheduler", "leastLoad")];
    let slots = cluster(&["capacity=1", "capacity=3"], &options);
    let mut client = Client::new();
    let permits: Vec<_> = (0..4).map(|_| client.ask(&slots)).collect();
    assert_eq!(permits.iter().map(Permit::place).collect::<Vec<_>>(), [1, 1, 0, 1]);
    let weights = cluster(&["weight=1", "weight=3"], &options);
    let permits: Vec<_> = (0..40).map(|_| client.ask(&weights)).collect();
    assert_eq!(permits.iter().filter(|permit| permit.place() == 1).count(), 30);
    let many = cluster(&[""; 64], &options);
    let permits: Vec<_> = (0..6_400).map(|_| client.ask(&many)).collect();
    let most = many.members.iter().map(|member| member.state.in_flight()).max().expect("some");
    assert!(most <= 110, "the better of two keeps 100 requests a member even, found {most}");
    drop(permits);
}

#[test]
fn hash_keeps_a_key_at_its_member_and_bounds_the_load() {
    let cluster = cluster(&[""; 10], &[("scheduler", "hash")]);
    let mut client = Client::new();
    for key in 0..200_u64 {
        client.key = key_of(&key.to_be_bytes());
        let [first, second] = [client.ask(&cluster).place(), client.ask(&cluster).place()];
        assert_eq!(first, second);
    }
    let hot: Vec<_> = (0..100).map(|_| client.ask(&cluster)).collect();
    let most = cluster.members.iter().map(|member| member.state.in_flight()).max().expect("some");
    assert!(most <= 13, "one hot key of 100 requests at 10 members: {most} at one");
    drop(hot);
}

#[test]
fn a_session_stays_while_its_member_has_room() {
    let cluster = cluster(&["", "capacity=1", "role=backup"], &[]);
    let mut client = Client { session: Some(1), ..Client::new() };
    let held = client.ask(&cluster);
    assert_eq!(held.place(), 1);
    assert_eq!(client.ask(&cluster).place(), 0);
    client.session = Some(2);
    assert_eq!(client.ask(&cluster).place(), 0, "a backup does not serve while others are up");
}

#[test]
fn slow_start_raises_share_and_capacity() {
    let cluster = cluster(&["", "", "capacity=64"], &[("slowStart", "16s")]);
    let mut client = Client { now: Moment::ZERO + Duration::from_secs(100), ..Client::new() };
    for place in [1, 2] {
        cluster.members[place].state.set_down(true, client.now);
        cluster.members[place].state.set_down(false, client.now);
    }
    client.now = client.now + Duration::from_secs(4);
    let shares = client.shares(&cluster, 60_000);
    assert!(is_near(shares[0], 40_000) && is_near(shares[1], 10_000), "{shares:?}");
    let slots: Vec<_> = (0..64).filter_map(|_| cluster.try_take(2, client.now)).collect();
    assert_eq!(slots.len(), 16);
    client.now = client.now + Duration::from_secs(12);
    assert!(cluster.try_take(2, client.now).is_some());
}

#[test]
fn a_newcomer_does_not_overtake_but_learns_that_nothing_is_up() {
    #[derive(Debug)]
    struct Nowhere;
    impl GrantSink for Nowhere {
        fn grant(&self, _: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
            Err(granted)
        }

        fn notify(&self, _: u64, _: Ticket, _: Notice) {}
    }
    let cluster = cluster(&["capacity=1", ""], &[]);
    let mut client = Client::new();
    let held = cluster.try_take(0, Moment::ZERO).expect("room");
    let waiter = Waiter {
        sink: Arc::new(Nowhere),
        exchange: 1,
        arrived: Moment::ZERO,
        route: Arc::new(Route::new("a", Arc::clone(&cluster))),
        tried: [].into(),
        named: Some(BackendId::new(1)),
        wanted: None,
        pick,
        key: 0,
        session: None,
        has_token: false,
    };
    assert!(matches!(cluster.join(waiter, None, Moment::ZERO), Joined::Waiting { .. }));
    assert!(matches!(client.ask_but(&cluster, &|_| true), Err(Admit::Full)));
    assert!(matches!(client.ask_but(&cluster, &|_| false), Err(Admit::Unavailable)));
    drop(held);
    client.ask(&cluster);
}

#[test]
fn members_that_have_all_just_started_take_even_turns_and_one_that_has_takes_its_share() {
    let cluster = cluster(&["", "", ""], &[("scheduler", "rr"), ("slowStart", "16s")]);
    let mut client = Client { now: Moment::ZERO + Duration::from_secs(100), ..Client::new() };
    let restart = |places: &[usize], now: Moment| {
        for place in places {
            cluster.members[*place].state.set_down(true, now);
            cluster.members[*place].state.set_down(false, now);
        }
    };
    restart(&[0, 1, 2], client.now);
    let shares = client.shares(&cluster, 3_000);
    assert!(shares.iter().all(|share| is_near(*share, 1_000)), "{shares:?}");
    client.now = client.now + Duration::from_secs(60);
    restart(&[1], client.now);
    client.now = client.now + Duration::from_secs(4);
    let shares = client.shares(&cluster, 18_000);
    assert!(is_near(shares[0], 8_000) && shares[1].abs_diff(2_000) < 300 && is_near(shares[2], 8_000), "{shares:?}");
}

#[test]
fn the_turns_of_a_member_that_is_out_are_spread() {
    let cluster = cluster(&[""; 4], &[("scheduler", "rr")]);
    cluster.members[1].state.set_down(true, Moment::ZERO);
    assert_eq!(Client::new().shares(&cluster, 300), [100, 0, 100, 100]);
    // If nearly all members are closed, the open ones are chosen by their share.
    let attributes: Vec<_> = (0..200).map(|place| if place % 100 == 7 { "weight=2" } else { "" }).collect();
    let large = self::cluster(&attributes, &[("scheduler", "rr")]);
    let outside = (0..200).filter(|place| ![7, 50, 107].contains(place));
    outside.for_each(|place| large.members[place].state.set_down(true, Moment::ZERO));
    let shares = Client::new().shares(&large, 5_000);
    let found = [7, 50, 107].map(|place| shares[place]);
    assert!(found[0].abs_diff(2_000) < 200 && found[1].abs_diff(1_000) < 200, "{found:?}");
}

#[test]
fn hash_bounds_the_load_of_those_that_are_open() {
    let attributes: Vec<_> = (0..200).map(|_| "weight=16").collect();
    let cluster = cluster(&attributes, &[("scheduler", "hash")]);
    (0..196).for_each(|place| cluster.members[place].state.set_down(true, Moment::ZERO));
    let mut client = Client::new();
    client.key = key_of(b"one hot key");
    let hot: Vec<_> = (0..4_000).map(|_| client.ask(&cluster)).collect();
    let most = cluster.members.iter().map(|member| member.state.in_flight()).max().expect("some");
    assert!((1_000..=1_300).contains(&most), "of 4000 requests at 4 members, {most} are at one");
    drop(hot);
}

#[test]
fn a_member_that_is_named_serves_whatever_its_weight_and_the_scheduler() {
    for scheduler in ["random", "rr", "chance", "leastLoad", "hash"] {
        let cluster = cluster(&["", "weight=0"], &[("scheduler", scheduler)]);
        let route = Arc::new(Route::new("a", Arc::clone(&cluster)));
        let mut rng = fastrand::Rng::with_seed(7);
        let demand = Demand { route: &route, tried: &[], named: Some(cluster.members[1].backend.id()), wanted: None };
        let mut view = View { demand, now: Moment::ZERO, rng: &mut rng, key: 0, session: None };
        let Admit::Slot(slot) = admit(&cluster, &mut view) else { panic!("{scheduler}") };
        assert_eq!(Permit::of_route(Arc::clone(&route), slot).place(), 1, "{scheduler}");
    }
}

#[test]
fn the_last_resort_begins_with_the_mark_that_ends_first() {
    let cluster = cluster(&["capacity=1"; 3], &[]);
    let route = Arc::new(Route::new("a", Arc::clone(&cluster)));
    for (mark, seconds) in route.marks.iter().zip([9, 3, 6]) {
        mark.mark_dead(Moment::ZERO + Duration::from_secs(seconds));
    }
    let mut rng = fastrand::Rng::with_seed(7);
    let demand = Demand { route: &route, tried: &[], named: None, wanted: None };
    let mut take =
        || match admit(&cluster, &mut View { demand, now: Moment::ZERO, rng: &mut rng, key: 0, session: None }) {
            Admit::Slot(slot) => Some(Permit::of_route(Arc::clone(&route), slot)),
            _ => None,
        };
    let held: Vec<_> = std::iter::from_fn(&mut take).collect();
    assert_eq!(held.iter().map(Permit::place).collect::<Vec<_>>(), [1, 2, 0]);
}

/// Receives the grants of waiting requests.
#[derive(Debug)]
struct Grants(std::sync::Mutex<std::sync::mpsc::Sender<Permit>>);

impl GrantSink for Grants {
    fn grant(&self, _: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
        let Granted::Slot(permit) = granted else { return Err(granted) };
        self.0.lock().expect("a lock").send(permit).map_err(|error| Granted::Slot(error.0))
    }

    fn notify(&self, _: u64, _: Ticket, _: Notice) {}
}

/// Number of requests that each member gets, of `count` requests that all have to wait.
fn shares_of_waiters(cluster: &Arc<Cluster>, count: usize, session: Option<usize>) -> Vec<usize> {
    let (sender, grants) = std::sync::mpsc::channel();
    let sink: Arc<dyn GrantSink> = Arc::new(Grants(std::sync::Mutex::new(sender)));
    let route = Arc::new(Route::new("a", Arc::clone(cluster)));
    let mut held: std::collections::VecDeque<_> = [cluster.try_take(0, Moment::ZERO).expect("room")].into();
    let mut shares = vec![0; cluster.members.len()];
    for exchange in 0..count as u64 {
        let waiter = Waiter {
            sink: Arc::clone(&sink),
            exchange,
            arrived: Moment::ZERO,
            route: Arc::clone(&route),
            tried: [].into(),
            named: None,
            wanted: None,
            pick,
            key: key_of(&exchange.to_be_bytes()),
            session: session.map(|place| cluster.members[place].session()),
            has_token: false,
        };
        assert!(matches!(cluster.join(waiter, None, Moment::ZERO), Joined::Waiting { .. }));
        drop(held.pop_front());
        held.extend(grants.try_recv());
        shares[held.back().expect("a grant").place()] += 1;
    }
    shares
}

#[test]
fn requests_that_wait_are_spread_as_others_are() {
    let limit = ("maxRequests", "1");
    let weights = ["weight=1", "weight=3"];
    assert_eq!(shares_of_waiters(&cluster(&weights, &[limit, ("scheduler", "rr")]), 400, None), [100, 300]);
    let random = shares_of_waiters(&cluster(&weights, &[limit]), 4_000, None);
    assert!(random[1].abs_diff(3_000) < 150, "{random:?}");
    assert_eq!(shares_of_waiters(&cluster(&weights, &[limit]), 100, Some(0)), [100, 0], "they belong to a session");
    let hash = cluster(&[""; 4], &[limit, ("scheduler", "hash")]);
    let mut expected = vec![0; 4];
    let mut client = Client::new();
    for exchange in 0..400_u64 {
        client.key = key_of(&exchange.to_be_bytes());
        expected[client.ask(&hash).place()] += 1;
    }
    assert_eq!(shares_of_waiters(&hash, 400, None), expected);
}
