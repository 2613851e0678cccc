//! Tests of the return of Redis, and of snapshots.

use super::*;

#[test]
fn routes_of_a_snapshot_stay_until_redis_denies_them() {
    let record = listing(&["http://one"]).record;
    let hosts = ["same", "moved", "gone", "bad", "late", "x.wild"];
    let routes = hosts
        .iter()
        .map(|host| (Arc::from(*host), kept_route(if *host == "x.wild" { "*.wild" } else { host }, &record)));
    let mut scene = Scene::with(routes.collect());
    let known = |scene: &Scene| {
        let KnownRoutes { routes, unused } = scene.state.routes();
        let unused =
            unused.iter().map(|(host, route)| format!("{host} {}", route.record.backends[0].endpoint().host()));
        let used = routes.iter().map(|route| format!("{} in use", route.host));
        used.chain(unused).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    scene.up(true);
    scene.ask("same");
    assert_eq!(known(&scene).split(", ").count(), 6, "nothing was denied yet");
    scene.reply_all(|host| match host {
        "moved" => found("moved", &["http://two"], &[]),
        "gone" => Reading::Unknown,
        "bad" => Reading::Bad("frontend:bad: nonsense".into()),
        "x.wild" => found("*.wild", &["http://one"], &[]),
        host => found(host, &["http://one"], &[]),
    });
    assert_eq!(known(&scene), "bad one, late one, moved two, same in use, x.wild one");
    assert_eq!(scene.told(), ["same is one"], "no core gets a host that it has not requested");
    let made: Vec<_> =
        scene.state.take_unresolved().iter().map(|backend| backend.endpoint().host().to_owned()).collect();
    assert_eq!(made, ["one"], "names are looked up for what is in use alone");
    // Redis reports a change and an end.
    scene.touch("late");
    scene.touch("*.wild");
    scene.reply_all(|host| if host == "late" { Reading::Unknown } else { found("*.wild", &["http://three"], &[]) });
    assert_eq!(known(&scene), "bad one, moved two, same in use, x.wild three");
    // A host denied while the connection was down is noticed, and the last known state serves while Redis is away.
    scene.state.down(scene.now);
    scene.told();
    scene.ask("moved");
    scene.ask("late");
    assert_eq!(scene.told(), ["moved is two", "late failed: route_source_down"]);
    scene.up(true);
    scene.reply_all(|_| Reading::Unknown);
    assert_eq!(known(&scene), "");
}

#[test]
fn a_host_that_redis_lacks_is_held_for_so_long_and_no_longer() {
    let record = listing(&["http://one"]).record;
    let mut scene = Scene::with(std::iter::once(("old".into(), kept_route("old", &record))).collect());
    scene.up(true);
    scene.ask("gone");
    scene.reply_all(|host| found(host, &["http://one"], &[]));
    scene.state.down(scene.now);
    scene.up(false);
    scene.reply_all(|_| Reading::Unknown);
    scene.ask("old");
    scene.reply_all(|_| Reading::Unknown);
    scene.told();
    assert_eq!(scene.state.held_total(), 2);
    let first = scene.now;
    // One list is written again and again, while Redis goes away and comes back.
    while scene.now < first + HOLD {
        scene.touch(&format!("other{:?}", scene.now));
        scene.reply_all(|_| Reading::Unknown);
        if scene.now == first + HOLD / 2 {
            scene.state.down(scene.now);
            scene.up(false);
            scene.reply_all(|_| Reading::Unknown);
        }
        scene.told();
        scene.ask("gone");
        scene.ask("old");
        assert_eq!(scene.told(), ["gone is one", "old is one"]);
        assert!(scene.state.next_tick().is_some_and(|end| end <= first + HOLD));
        scene.now = scene.now + Duration::from_secs(5);
        scene.state.tick(scene.now);
    }
    scene.reply_all(|_| Reading::Unknown);
    let mut told = scene.told();
    told.sort();
    assert_eq!(told.join(" ").replace("gone old", "old gone"), "changed: old gone");
    scene.ask("gone");
    scene.ask("old");
    scene.reply_all(|_| Reading::Unknown);
    assert_eq!(scene.told(), ["gone is unknown", "old is unknown"]);
    assert!(scene.state.routes().unused.is_empty());
    assert_eq!(scene.state.held_total(), 2, "each is counted once");
}

#[test]
fn a_mark_without_an_end_counts_for_a_while_and_a_newer_one_for_its_own() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("h");
    let endless = |dead: &[usize]| {
        let Reading::Found { pattern, listing, mut dead } = found("h", &["http://a", "http://b"], dead) else {
            panic!("a list")
        };
        dead.ttl = None;
        Reading::Found { pattern, listing, dead }
    };
    scene.reply_all(|_| endless(&[0]));
    let barred = |scene: &mut Scene| {
        let route = scene.state.catalog.get("h").expect("in use");
        let now = scene.now;
        route.marks.iter().map(|mark| mark.is_dead_external(now)).collect::<Vec<_>>()
    };
    assert_eq!(barred(&mut scene), [true, false]);
    scene.now = scene.now + Duration::from_secs(20);
    scene.state.touch(&ChangedKey::Dead("h".into()), scene.now);
    scene.reply_all(|_| endless(&[0, 1]));
    assert_eq!(barred(&mut scene), [true, true]);
    scene.now = scene.now + Duration::from_secs(10);
    // Reading a mark again does not renew it.
    scene.state.touch(&ChangedKey::Dead("h".into()), scene.now);
    scene.reply_all(|_| endless(&[0, 1]));
    assert_eq!(barred(&mut scene), [false, true]);
    scene.now = scene.now + Duration::from_secs(20);
    assert_eq!(barred(&mut scene), [false, false]);
}

#[test]
fn a_question_waits_while_it_is_found_out_which_data_there_is() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("known");
    scene.reply_all(|host| found(host, &["http://one"], &[]));
    scene.told();
    scene.ask("asked");
    let (ticket, _) = scene.batch();
    scene.state.touch(&ChangedKey::All, scene.now);
    scene.state.pause();
    scene.ask("later");
    scene.reply(ticket, "asked", Reading::Unknown);
    assert!(scene.state.take_batch().is_none());
    assert_eq!(scene.told(), ["changed:  unknowns"], "a failure is not reported");
    scene.up(false);
    scene.reply_all(|host| if host == "asked" { found(host, &["http://two"], &[]) } else { Reading::Unknown });
    let told: BTreeSet<_> = scene.told().into_iter().collect();
    assert_eq!(told, BTreeSet::from(["asked is two".to_owned(), "later is unknown".to_owned()]));
    scene.ask("known");
    assert_eq!(scene.told(), ["known is one"], "it is held");
}

#[test]
fn an_edit_found_at_one_host_of_a_wildcard_is_reported_for_all_its_hosts() {
    let mut scene = Scene::new();
    scene.up(true);
    for host in ["a.w", "b.w", "own.w"] {
        scene.ask(host);
    }
    let serving = |host: &str| if host == "own.w" { "own.w" } else { "*.w" };
    scene.reply_all(|host| found(serving(host), &["http://one"], &[]));
    scene.told();
    // The first look-up of a host brings the edit, before its push is read.
    scene.ask("new.w");
    scene.reply_all(|_| found("*.w", &["http://two"], &[]));
    let told = |scene: &mut Scene| scene.told().join(", ").replace("b.w a.w", "a.w b.w");
    assert_eq!(told(&mut scene), "changed: a.w b.w, new.w is two");
    scene.touch("*.w");
    scene.reply_all(|host| found(serving(host), &["http://two"], &[]));
    assert_eq!(told(&mut scene), "changed:  unknowns", "they are known to be there");
    // Redis was away during an edit, and comes back: one of the hosts is read before the others.
    scene.state.down(scene.now);
    scene.ask("a.w");
    assert_eq!(told(&mut scene), "changed:  unknowns, a.w is two");
    scene.up(true);
    scene.ask("late.w");
    scene.reply_all(|host| found(serving(host), &["http://three"], &[]));
    let lines = told(&mut scene);
    for part in ["a.w", "b.w", "new.w", "own.w", "late.w is three"] {
        assert_eq!(lines.matches(part).count(), 1, "{part} in {lines}");
    }
    // A more specific list appears for one of them while the other is edited.
    let (one, other) = (scene.state.catalog.peek("a.w").expect("in use"), ["http://three", "http://four"]);
    scene.touch("a.w");
    scene.touch("*.w");
    scene.reply_all(|host| match host {
        "a.w" => found("a.w", &other, &[]),
        host => found(serving(host), &["http://four"], &[]),
    });
    let after = scene.state.catalog.peek("a.w").expect("in use");
    assert!(Arc::ptr_eq(&one.marks[0], &after.marks[0]), "what both lists have stays itself");
    assert!(scene.state.catalog.peek("b.w").expect("in use").marks.iter().all(|mark| !mark.is_removed()));
}

#[test]
fn half_a_list_that_comes_with_another_host_takes_no_held_one_down() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("a.w");
    scene.reply_all(|_| found("*.w", &["http://one"], &[]));
    scene.state.down(scene.now);
    scene.up(false);
    scene.reply_all(|_| Reading::Unknown);
    // The identifier is written, but the first backend is not.
    scene.ask("b.w");
    scene.reply_all(|_| found("*.w", &[], &[]));
    scene.told();
    scene.ask("a.w");
    scene.ask("b.w");
    assert_eq!(scene.told(), ["a.w is one", "b.w is one"]);
    scene.touch("*.w");
    scene.reply_all(|_| found("*.w", &["http://two"], &[]));
    scene.touch("*.w");
    scene.reply_all(|_| found("*.w", &[], &[]));
    scene.told();
    scene.ask("a.w");
    scene.ask("b.w");
    assert_eq!(scene.told(), ["a.w is ", "b.w is "], "a list that was whole may be emptied");
}

#[test]
fn a_host_of_the_snapshot_is_not_served_by_half_a_list_or_a_shorter_wildcard_until_the_data_is_complete() {
    let record = listing(&["http://one"]).record;
    let readings = [found("a.b", &[], &[]), found("*.b", &["http://two"], &[]), found("*", &["http://two"], &[])];
    for reading in readings {
        let mut scene = Scene::with(std::iter::once(("a.b".into(), kept_route("a.b", &record))).collect());
        scene.up(false);
        scene.ask("a.b");
        scene.reply_all(|_| reading.clone());
        assert_eq!(scene.told(), ["a.b is one"], "{reading:?}");
        scene.now = scene.state.next_tick().expect("an end");
        scene.state.tick(scene.now);
        scene.reply_all(|_| reading.clone());
        assert_eq!(scene.told(), ["changed: a.b"], "{reading:?}");
    }
    // Nor where another host comes to its wildcard.
    let mut scene = Scene::new();
    scene.up(true);
    ["a.b", "c.b"].iter().for_each(|host| scene.ask(host));
    let own = |host: &str| found(if host == "a.b" { "a.b" } else { "*.b" }, &["http://one"], &[]);
    scene.reply_all(own);
    scene.state.down(scene.now);
    scene.up(false);
    scene.reply_all(|host| if host == "a.b" { own(host) } else { found("*.b", &[], &[]) });
    scene.told();
    scene.touch("a.b");
    scene.reply_all(|_| found("*.b", &[], &[]));
    ["a.b", "c.b"].iter().for_each(|host| scene.ask(host));
    assert_eq!(scene.told(), ["changed: a.b a.b", "a.b is one", "c.b is one"]);
    // Nor where a bad record has brought it into use.
    let mut scene = Scene::with(std::iter::once(("a.b".into(), kept_route("a.b", &record))).collect());
    scene.up(false);
    scene.ask("a.b");
    scene.reply_all(|_| Reading::Bad("frontend:*.b: nonsense".into()));
    scene.touch("a.b");
    scene.reply_all(|_| found("a.b", &[], &[]));
    scene.ask("a.b");
    assert_eq!(scene.told(), ["a.b is one", "changed: a.b", "a.b is one"]);
}

#[test]
fn a_known_host_is_dropped_or_served_by_less_after_a_second_reading_only() {
    let record = listing(&["http://one"]).record;
    let mut scene = Scene::with(std::iter::once(("kept".into(), kept_route("kept", &record))).collect());
    scene.up(true);
    scene.reply_all(|host| found(host, &["http://one"], &[]));
    for host in ["a", "x.b", "empty"] {
        scene.ask(host);
    }
    scene.reply_all(|host| found(if host == "x.b" { "*.b" } else { host }, &["http://one"], &[]));
    scene.told();
    let denied = |host: &str| match host {
        "x.b" => found("*", &["http://other"], &[]),
        "empty" => found("empty", &[], &[]),
        _ => Reading::Unknown,
    };
    let hosts = ["a", "empty", "kept", "x.b"];
    let read = |scene: &mut Scene, reading: &dyn Fn(&str) -> Reading, confirms: bool| {
        let batch = scene.state.take_batch().expect("something to read");
        assert_eq!(batch.confirms, confirms);
        assert_eq!(batch.hosts.iter().map(|host| &**host).collect::<BTreeSet<_>>(), hosts.into());
        let mut replies = Replies::none(&batch);
        replies.hosts = batch.hosts.into_iter().map(|host| (Arc::clone(&host), reading(&host))).collect();
        scene.state.replied(replies, scene.now);
    };
    // The first reading was put together from before and after a write.
    hosts.into_iter().for_each(|host| scene.state.read_again(host.into()));
    read(&mut scene, &denied, false);
    read(&mut scene, &|host| found(if host == "x.b" { "*.b" } else { host }, &["http://one"], &[]), true);
    assert!(scene.told().is_empty() && scene.state.take_batch().is_none());
    // Two readings in a row are a denial.
    hosts.into_iter().for_each(|host| scene.state.read_again(host.into()));
    read(&mut scene, &denied, false);
    assert!(scene.told().is_empty());
    read(&mut scene, &denied, true);
    let told = scene.told().join(" ");
    assert!(["a", "x.b", "empty"].iter().all(|host| told.contains(host)), "{told}");
    assert!(scene.state.take_batch().is_none());
    assert!(!scene.state.is_known("a") && !scene.state.is_known("kept"));
}

#[test]
fn very_many_hosts_of_an_edited_wildcard_hold_up_no_other_host() {
    let record = listing(&["http://one"]).record;
    let routes = (0..3_000).map(|number| (Arc::from(format!("s{number}.wild")), kept_route("*.wild", &record)));
    let mut scene = Scene::with(routes.collect());
    scene.up(true);
    let reading = |host: &str| found(if host.ends_with(".wild") { "*.wild" } else { host }, &["http://one"], &[]);
    scene.reply_all(reading);
    for number in 0..3_000 {
        scene.ask(&format!("h{number}.wild"));
    }
    scene.reply_all(reading);
    // All of them are read again, and meanwhile requests go on.
    scene.touch("*.wild");
    scene.ask("cold");
    scene.ask("s2999.wild");
    let (ticket, hosts) = scene.batch();
    assert!(["cold", "s2999.wild"].iter().all(|host| hosts.contains(&(*host).to_owned())), "{hosts:?}");
    scene.reply(ticket, "cold", reading("cold"));
    // Requests without end hold up neither those nor what is only compared after a new connection.
    scene.up(true);
    scene.touch("*.wild");
    (0..1_000).for_each(|number| scene.ask(&format!("c{number}")));
    let (mut edited, mut batches) = (0, 0);
    while let Some(batch) = scene.state.take_batch() {
        let mut replies = Replies::none(&batch);
        edited += batch.hosts.iter().filter(|host| host.ends_with(".wild")).count();
        batches += 1;
        assert!(batch.hosts.iter().any(|host| host.starts_with('c')) || batches > 7, "batch {batches}");
        assert!(edited >= 32 * batches.min(100), "{edited} in {batches} batches");
        replies.hosts = batch.hosts.into_iter().map(|host| (Arc::clone(&host), reading(&host))).collect();
        scene.state.replied(replies, scene.now);
    }
    assert!(edited >= 4_000, "{edited}");
}
