use super::*;
use crate::cluster::AdminState;
use std::time::Duration;

const NOW: Moment = Moment::ZERO;

impl Catalog {
    /// Checks the invariants: a host leads to the newest list of its key, and the keys know their hosts.
    pub(in crate::directory) fn check(&self) {
        let mut indexed = 0;
        for (host, route) in self.iter() {
            let newest = self.cluster(&route.cluster.key).expect("a cluster in use");
            assert!(Arc::ptr_eq(&newest, &route.cluster), "{host} leads to an older list");
            assert!(!route.is_stale(), "{host} has an old route");
            assert!(route.marks.iter().all(|mark| !mark.is_removed()), "{host} has members that have left");
            assert!(self.hosts_of(&route.cluster.key).contains(host), "{host} is missing below its key");
            indexed += usize::from(*route.cluster.key != **host);
        }
        assert_eq!(self.by_key.len(), indexed, "keys have hosts that are not in use");
    }
}

fn record(id: &str, urls: &[&str]) -> FrontendRecord {
    let url = |url: &&str| BackendUrl::parse(url).expect("a good URL");
    FrontendRecord { id: id.into(), backends: urls.iter().map(url).collect(), options: Options::none(), created: 0 }
}

#[test]
fn a_changed_list_keeps_the_members_that_stay_and_removes_the_rest() {
    let (one, two, three) = ("http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3");
    let mut catalog = Catalog::default();
    let host: Arc<str> = "a.example".into();
    assert_eq!(catalog.set(&host, "a.example", &record("x", &[one, two]), NOW), [Arc::clone(&host)]);
    let old = catalog.get(&host).expect("in use");
    old.marks[1].mark_dead(NOW + Duration::from_secs(30));

    assert!(catalog.set(&host, "a.example", &record("x", &[one, two]), NOW).is_empty(), "the same list is no change");
    assert!(Arc::ptr_eq(&old, &catalog.get(&host).expect("in use")));

    assert!(!catalog.set(&host, "a.example", &record("x", &["http://10.0.0.2#weight=2", three]), NOW).is_empty());
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

    assert!(!catalog.set(&host, "*", &record("x", &[two]), NOW).is_empty());
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
fn unreferenced_routes_are_purged_with_a_delay() {
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
        let found = catalog.get(&route.host).expect("a route with a holder stays");
        assert!(Arc::ptr_eq(route, &found));
    }
}

#[test]
fn a_cluster_is_let_go_when_no_route_and_no_slot_of_it_is_left() {
    let mut catalog = Catalog::default();
    let mut held = None;
    let record = record("x", &["http://10.0.0.1"]);
    assert!(catalog.clusters.out_of_service.set("h1", record.backends[0].endpoint(), AdminState::Disabled));
    for number in 0..20 * MIN_PURGE {
        let host: Arc<str> = format!("h{number}").into();
        catalog.set(&host, &host, &record, NOW);
        if number == 0 {
            let route = catalog.get(&host).expect("in use");
            held = route.cluster.try_take(0, NOW);
        }
        assert!(catalog.clusters.by_key.read().expect("a lock").len() <= 6 * MIN_PURGE);
    }
    assert!(catalog.cluster("h1").is_none());
    let cluster = catalog.cluster("h0").expect("a slot is held");
    assert!(held.is_some_and(|permit| Arc::ptr_eq(permit.cluster(), &cluster)));
    catalog.set(&"h1".into(), "h1", &record, NOW);
    let again = catalog.cluster("h1").expect("in use");
    assert!(again.members[0].state.is_disabled(), "an operator has taken its backend out of service");
}

#[test]
fn an_edit_that_comes_with_one_host_leads_all_hosts_of_the_key_there() {
    let (one, two, three) = ("http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3");
    let mut catalog = Catalog::default();
    let hosts: Vec<Arc<str>> = (0..500).map(|number| format!("h{number}.wild").into()).collect();
    let other: Arc<str> = "other".into();
    catalog.set(&other, "other", &record("o", &[one]), NOW);
    for host in &hosts {
        assert_eq!(catalog.set(host, "*.wild", &record("x", &[one, two]), NOW), [Arc::clone(host)]);
    }
    let before: Vec<_> = hosts.iter().map(|host| catalog.get(host).expect("in use")).collect();
    before[7].marks[1].mark_dead(NOW + Duration::from_secs(30));

    let mut changed = catalog.set(&hosts[3], "*.wild", &record("x", &[two, three]), NOW);
    changed.sort();
    let mut all = hosts.clone();
    all.sort();
    assert_eq!(changed, all);
    for (host, before) in hosts.iter().zip(&before) {
        let after = catalog.get(host).expect("in use");
        assert!(Arc::ptr_eq(&after.marks[0], &before.marks[1]), "{host} keeps the mark of what stays");
        assert!(before.marks[0].is_removed() && before.is_stale(), "it is an old route");
        assert_eq!(after.marks[0].dead_until(NOW).is_some(), *host == hosts[7], "marks are each host's own");
        assert!(catalog.set(host, "*.wild", &record("x", &[two, three]), NOW).is_empty(), "it is there already");
    }
    catalog.check();
    // A host that appears with the edit is reported as the others are. Nothing of the older list is left.
    let late: Arc<str> = "late.wild".into();
    assert_eq!(catalog.set(&late, "*.wild", &record("x", &[one]), NOW).len(), hosts.len() + 1);
    assert!(before.iter().all(|route| route.marks.iter().all(|mark| mark.is_removed())));
    assert!(!catalog.get("other").expect("in use").is_stale());
    catalog.check();
}

#[test]
fn a_host_that_goes_to_another_key_is_led_by_that_alone() {
    let (one, two) = ("http://10.0.0.1", "http://10.0.0.2");
    let mut catalog = Catalog::default();
    let [stays, moves] = ["stays.b.x", "moves.b.x"].map(Arc::<str>::from);
    for host in [&stays, &moves] {
        catalog.set(host, "*.x", &record("x", &[one, two]), NOW);
    }
    let before = catalog.get(&moves).expect("in use");
    // A more specific list appears, and the other list loses members that both have.
    catalog.leave_key(&moves, "*.b.x", &record("b", &[one]));
    assert_eq!(catalog.set(&stays, "*.x", &record("x", &[two]), NOW), [Arc::clone(&stays)]);
    assert_eq!(catalog.set(&moves, "*.b.x", &record("b", &[one]), NOW), [Arc::clone(&moves)]);
    assert!(Arc::ptr_eq(&catalog.get(&moves).expect("in use").marks[0], &before.marks[0]));
    catalog.check();
    assert_eq!(catalog.set(&stays, "*.x", &record("x", &[one]), NOW), [Arc::clone(&stays)]);
    assert_eq!(catalog.set(&moves, "*.b.x", &record("b", &[two]), NOW), [Arc::clone(&moves)]);
    // It is removed again, then the host gets its own list.
    assert_eq!(catalog.set(&moves, "*.x", &record("x", &[one]), NOW), [Arc::clone(&moves)]);
    assert_eq!(catalog.set(&stays, "*.x", &record("x", &[two]), NOW).len(), 2);
    assert_eq!(catalog.set(&moves, &moves, &record("m", &[two]), NOW), [Arc::clone(&moves)]);
    assert_eq!(catalog.set(&stays, "*.x", &record("x", &[one]), NOW), [Arc::clone(&stays)]);
    catalog.check();
    assert!(catalog.remove(&moves) && catalog.remove(&stays));
    catalog.check();
}

#[test]
fn who_finds_no_member_left_sees_that_the_route_is_stale() {
    let mut catalog = Catalog::default();
    let hosts: Vec<Arc<str>> = (0..50).map(|number| format!("h{number}").into()).collect();
    let newest = Arc::new(std::sync::Mutex::new(Vec::new()));
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let core = {
        let (newest, is_over) = (Arc::clone(&newest), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut stale = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let routes: Vec<Arc<Route>> = newest.lock().expect("a lock").clone();
                for route in &routes {
                    if route.cluster.members.iter().all(|member| member.state.is_removed()) {
                        assert!(route.is_stale(), "{} has no member left", route.host);
                        stale += 1;
                    }
                }
            }
            stale
        })
    };
    let mut round = 0;
    while round < 300 && !core.is_finished() {
        let url = format!("http://10.0.0.{}", round % 200);
        catalog.set(&hosts[round % hosts.len()], "*", &record("x", &[&url]), NOW);
        hosts.iter().for_each(|host| _ = catalog.set(host, "*", &record("x", &[&url]), NOW));
        *newest.lock().expect("a lock") = catalog.shared().collect();
        round += 1;
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    core.join().expect("no route without members that is not stale");
}

#[test]
fn edits_of_a_key_keep_none_of_its_hosts_in_use() {
    let mut catalog = Catalog::default();
    for number in 0..20 * MIN_PURGE {
        let host: Arc<str> = format!("h{number}").into();
        catalog.set(&host, "*", &record("x", &["http://10.0.0.1"]), NOW);
        if number % (MIN_PURGE / 2) == 0 {
            catalog.set(&host, "*", &record(&number.to_string(), &["http://10.0.0.1"]), NOW);
            catalog.set(&host, "*", &record("x", &["http://10.0.0.1"]), NOW);
        }
        assert!(catalog.by_host.len() <= 3 * MIN_PURGE, "{}", catalog.by_host.len());
    }
    catalog.check();
}
