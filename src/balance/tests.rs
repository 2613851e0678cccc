use super::*;
use crate::cluster::{
    Backend, BackendId, BackendUrl, Choice, ClusterSpec, GrantSink, Granted, Joined, Options, Permit, Route, Ticket, Waiter, key_of,
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
    Cluster::edit(None, ClusterSpec { key: "a", id: "x", entries, options: &Arc::new(options) }, Moment::ZERO)
}

struct Client {
    rng: fastrand::Rng,
    now: Moment,
    key: u64,
    wanted: Option<usize>,
}

impl Client {
    fn new() -> Self {
        Self { rng: fastrand::Rng::with_seed(7), now: Moment::ZERO, key: 0, wanted: None }
    }

    fn ask_but(&mut self, cluster: &Arc<Cluster>, may_serve: &dyn Fn(usize) -> bool) -> Admit {
        let Self { rng, now, key, wanted } = self;
        admit(cluster, &mut View { may_serve, now: *now, rng, key: *key, wanted: *wanted })
    }

    fn ask(&mut self, cluster: &Arc<Cluster>) -> Permit {
        match self.ask_but(cluster, &|_| true) {
            Admit::Slot(slot) => Permit::of_route(Arc::new(Route::new("a", Arc::clone(cluster))), slot),
            other => panic!("{other:?}"),
        }
    }

    /// How many of `count` requests, one after the other, each member gets.
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
        match client.ask_but(&cluster, &|place| place % 4 == 1) {
            Admit::Slot(slot) => {
                let route = Arc::new(Route::new("a", Arc::clone(&cluster)));
                shares[Permit::of_route(route, slot).place()] += 1;
            }
            other => panic!("{other:?}"),
        }
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
    let mut client = Client { wanted: Some(1), ..Client::new() };
    let held = client.ask(&cluster);
    assert_eq!(held.place(), 1);
    assert_eq!(client.ask(&cluster).place(), 0);
    client.wanted = Some(2);
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
    assert!(cluster.is_ramping(client.now));
    let shares = client.shares(&cluster, 60_000);
    assert!(is_near(shares[0], 40_000) && is_near(shares[1], 10_000), "{shares:?}");
    let slots: Vec<_> = (0..64).filter_map(|_| cluster.try_take(2, client.now)).collect();
    assert_eq!(slots.len(), 16);
    client.now = client.now + Duration::from_secs(12);
    assert!(!cluster.is_ramping(client.now) && cluster.try_take(2, client.now).is_some());
}

#[test]
fn a_newcomer_does_not_overtake_but_learns_that_nothing_is_up() {
    #[derive(Debug)]
    struct Nowhere;
    impl GrantSink for Nowhere {
        fn grant(&self, _: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
            Err(granted)
        }
    }
    let cluster = cluster(&["capacity=1", ""], &[]);
    let mut client = Client::new();
    let held = cluster.try_take(0, Moment::ZERO).expect("room");
    let waiter =
        Waiter { sink: Arc::new(Nowhere), exchange: 1, choice: Choice::Only(BackendId::new(1)), has_token: false };
    assert!(matches!(cluster.join(waiter, None, Moment::ZERO), Joined::Waiting(_)));
    assert!(matches!(client.ask_but(&cluster, &|_| true), Admit::Full));
    assert!(matches!(client.ask_but(&cluster, &|_| false), Admit::Unavailable));
    drop(held);
    client.ask(&cluster);
}
