use super::*;
use std::time::Duration;

const NOW: Moment = Moment::ZERO;

fn record(id: &str, urls: &[&str]) -> FrontendRecord {
    let url = |url: &&str| BackendUrl::parse(url).expect("a good URL");
    FrontendRecord { id: id.into(), backends: urls.iter().map(url).collect(), options: Options::none() }
}

#[test]
fn a_changed_list_keeps_the_members_that_stay_and_removes_the_rest() {
    let (one, two, three) = ("http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3");
    let mut catalog = Catalog::default();
    let host: Arc<str> = "a.example".into();
    assert!(catalog.set(&host, "a.example", &record("x", &[one, two]), NOW));
    let old = catalog.get(&host).expect("in use");
    old.marks[1].mark_dead(NOW + Duration::from_secs(30));

    assert!(!catalog.set(&host, "a.example", &record("x", &[one, two]), NOW), "the same list is no change");
    assert!(Arc::ptr_eq(&old, &catalog.get(&host).expect("in use")));

    assert!(catalog.set(&host, "a.example", &record("x", &["http://10.0.0.2#weight=2", three]), NOW));
    let new = catalog.get(&host).expect("in use");
    assert!(Arc::ptr_eq(&new.marks[0], &old.marks[1]), "at another index, and still itself");
    assert!(Arc::ptr_eq(&new.cluster.members[0].state, &old.cluster.members[1].state));
    assert_eq!(new.cluster.members[0].attributes.weight, 2);
    assert!(new.marks[0].dead_until(NOW).is_some());
    let removed: Vec<_> = old.marks.iter().chain(&new.marks).map(|mark| mark.is_removed()).collect();
    assert_eq!(removed, [true, false, false, false]);
    assert!(old.cluster.members[0].state.is_removed());

    assert!(catalog.remove(&host));
    assert!(!catalog.remove(&host));
    assert!(new.marks.iter().all(|mark| mark.is_removed()));

    assert!(catalog.set(&host, "*", &record("x", &[two]), NOW));
    let again = catalog.get(&host).expect("in use");
    assert!(!again.marks[0].is_removed(), "a URL that comes back is a new member");
}

#[test]
fn a_url_that_stands_twice_is_one_member_at_two_places() {
    let (one, two) = ("http://10.0.0.1", "http://10.0.0.2");
    let mut catalog = Catalog::default();
    let host: Arc<str> = "a".into();
    catalog.set(&host, "a", &record("x", &[one, two, one]), NOW);
    let before = catalog.get(&host).expect("in use");
    assert_eq!(before.marks.len(), 3);
    assert!(Arc::ptr_eq(&before.marks[0], &before.marks[2]));
    catalog.set(&host, "a", &record("x", &[two, one]), NOW);
    let after = catalog.get(&host).expect("in use");
    assert!(Arc::ptr_eq(&before.marks[0], &after.marks[1]));
    assert!(!after.marks[1].is_removed(), "one place of two is left");
}

#[test]
fn hosts_share_a_cluster_but_not_marks() {
    let mut catalog = Catalog::default();
    for host in ["a", "b"] {
        catalog.set(&host.into(), "*", &record("x", &["http://10.0.0.1"]), NOW);
    }
    catalog.set(&"c".into(), "c", &record("x", &["http://10.0.0.1"]), NOW);
    let [a, b, c] = ["a", "b", "c"].map(|host| catalog.get(host).expect("in use"));
    assert!(Arc::ptr_eq(&a.cluster, &b.cluster) && !Arc::ptr_eq(&a.marks[0], &b.marks[0]));
    assert!(Arc::ptr_eq(&a.marks[0].backend, &c.marks[0].backend));
    assert!(!Arc::ptr_eq(&a.cluster.members[0].state, &c.cluster.members[0].state));
    assert!(catalog.adopt(&"d".into(), "*") && !catalog.adopt(&"d".into(), "*.d"));
    assert!(Arc::ptr_eq(&catalog.get("d").expect("in use").cluster, &a.cluster));
}

#[test]
fn what_nobody_holds_is_let_go_but_not_at_once() {
    let mut catalog = Catalog::default();
    let record = record("x", &["http://10.0.0.1"]);
    let mut held = Vec::new();
    for number in 0..20 * MIN_PURGE {
        let host: Arc<str> = format!("h{number}").into();
        catalog.set(&host, "*", &record, NOW);
        if number % 20 == 0 {
            held.push(catalog.get(&host).expect("in use"));
        }
        assert!(catalog.by_host.len() <= held.len() + 3 * MIN_PURGE, "{}", catalog.by_host.len());
        if number >= MIN_PURGE {
            let lately = format!("h{}", number - MIN_PURGE / 2);
            assert!(catalog.contains(&lately), "{lately} is kept for a while at {number}");
        }
    }
    for route in &held {
        let found = catalog.get(&route.host).expect("what somebody holds stays");
        assert!(Arc::ptr_eq(route, &found));
    }
}

#[test]
fn a_cluster_is_let_go_when_no_route_and_no_slot_of_it_is_left() {
    let mut catalog = Catalog::default();
    let mut held = None;
    for number in 0..20 * MIN_PURGE {
        let host: Arc<str> = format!("h{number}").into();
        catalog.set(&host, &host, &record("x", &["http://10.0.0.1"]), NOW);
        if number == 0 {
            let route = catalog.get(&host).expect("in use");
            held = route.cluster.try_take(0, NOW);
        }
        assert!(catalog.clusters.by_key.read().expect("a lock").len() <= 6 * MIN_PURGE);
    }
    assert!(catalog.cluster("h1").is_none());
    let cluster = catalog.cluster("h0").expect("a slot is held");
    assert!(held.is_some_and(|permit| Arc::ptr_eq(permit.cluster(), &cluster)));
}
