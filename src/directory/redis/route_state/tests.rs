//! Tests by hand and with random events.

mod dice;
mod inspection;
mod resync;
mod scan;

use super::super::super::catalog::FrontendRecord;
use super::*;
use crate::cluster::{BackendUrl, Options};
use std::collections::BTreeSet;

fn listing(urls: &[&str]) -> Listing {
    let backends = urls.iter().map(|url| BackendUrl::parse(url).expect("a good URL")).collect();
    Listing {
        record: FrontendRecord { id: "x".into(), backends, options: Options::none(), created: 0 },
        options: Some(Vec::new()),
        places: None,
        total: urls.len(),
        faults: Vec::new(),
        option_faults: Vec::new(),
    }
}

fn found(pattern: &str, urls: &[&str], dead: &[usize]) -> Reading {
    let dead = Dead { indexes: dead.to_vec(), ttl: Some(Duration::from_secs(30)) };
    Reading::Found { pattern: pattern.into(), listing: listing(urls), dead }
}

/// The same with an option; `None` for one that could not be read.
fn with_option(reading: Reading, redirect: Option<bool>) -> Reading {
    let Reading::Found { pattern, mut listing, dead } = reading else { return reading };
    listing.options = redirect.map(|flag| vec![("httpsRedirect".into(), flag.to_string().into())]);
    Reading::Found { pattern, listing, dead }
}

/// The longest hold.
const HOLD: Duration = Duration::from_secs(300);

fn limits(unknown_rate: u32) -> Limits {
    Limits { unknown_rate, resync_hold: HOLD, mark_life: Duration::from_secs(30) }
}

fn kept_route(pattern: &str, record: &FrontendRecord) -> Arc<SnapshotRoute> {
    Arc::new(SnapshotRoute { pattern: pattern.into(), record: record.clone(), marks: Box::default() })
}

fn at(seconds: u64) -> Moment {
    Moment::ZERO + Duration::from_secs(seconds)
}

/// A route state, and the time.
struct Scene {
    state: RouteState,
    now: Moment,
}

impl Scene {
    fn new() -> Self {
        Self::with(SnapshotRoutes::default())
    }

    fn with(snapshot_routes: SnapshotRoutes) -> Self {
        Self { state: RouteState::new(&limits(1000), snapshot_routes, Clusters::default()), now: at(100) }
    }

    fn up(&mut self, same_history: bool) {
        self.state.up(same_history, self.now);
    }

    fn ask(&mut self, host: &str) {
        self.state.ask(SubscriberId(0), host.into(), None, self.now);
    }

    fn touch(&mut self, pattern: &str) {
        self.state.touch(&ChangedKey::Route(pattern.into()), self.now);
    }

    /// The next batch, sorted by name.
    fn batch(&mut self) -> (u64, Vec<String>) {
        let batch = self.state.take_batch().expect("something to read");
        let names: BTreeSet<_> = batch.hosts.iter().map(|host| host.to_string()).collect();
        (batch.ticket, names.into_iter().collect())
    }

    /// Replies to all pending reads.
    fn reply_all(&mut self, reading: impl Fn(&str) -> Reading) {
        while let Some(batch) = self.state.take_batch() {
            let mut replies = Replies::none(&batch);
            replies.checker = batch.checker.then_some(None);
            replies.hosts = batch.hosts.into_iter().map(|host| (Arc::clone(&host), reading(&host))).collect();
            self.state.replied(replies, self.now);
        }
    }

    fn reply(&mut self, ticket: u64, host: &str, reading: Reading) {
        self.state.replied(
            Replies {
                ticket,
                hosts: vec![(host.into(), reading)],
                unread: Vec::new(),
                checker: None,
                offset: None,
                shard_offsets: Vec::new(),
            },
            self.now,
        );
    }

    /// The outputs since the last call, abbreviated.
    fn told(&mut self) -> Vec<String> {
        let short = |output| match output {
            Output::LookedUp { host, result: LookupResult::Found(frontend), keep, .. } => {
                let urls: Vec<_> =
                    frontend.marks.iter().map(|mark| mark.backend.endpoint().host().to_owned()).collect();
                format!("{host} is {}{}", urls.join("+"), if keep { "" } else { " once" })
            }
            Output::LookedUp { host, result: LookupResult::Unknown, keep, .. } => {
                format!("{host} is unknown{}", if keep { "" } else { " once" })
            }
            Output::LookedUp { host, result: LookupResult::Failed(reason), .. } => format!("{host} failed: {reason}"),
            Output::Changed { hosts, unknowns } => {
                format!("changed: {}{}", hosts.join(" "), if unknowns { " unknowns" } else { "" })
            }
            Output::Checker { .. } => "checker".to_owned(),
        };
        self.state.take_outputs().into_iter().map(short).collect()
    }
}

#[test]
fn a_reply_overtaken_by_a_write_is_valid_for_its_requests_only() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.reply_all(|_| Reading::Unknown);
    scene.ask("a");
    let (ticket, hosts) = scene.batch();
    assert_eq!(hosts, ["a"]);
    scene.touch("a");
    // A core that asks after the write was reported must not get a result from before it.
    scene.state.ask(SubscriberId(1), "a".into(), None, scene.now);
    scene.told();
    scene.reply(ticket, "a", found("a", &["http://old"], &[]));
    assert_eq!(scene.told(), ["a is old once"]);
    let (ticket, hosts) = scene.batch();
    assert_eq!(hosts, ["a"], "it is asked for again at once");
    scene.reply(ticket, "a", found("a", &["http://new"], &[]));
    assert_eq!(scene.told(), ["changed: a", "a is new"]);
    assert!(scene.state.take_batch().is_none());
    // The write of a wildcard affects hosts below it, except those served by a longer pattern.
    scene.ask("x.b");
    let (ticket, _) = scene.batch();
    scene.touch("*.b");
    scene.touch("*.c");
    scene.told();
    scene.reply(ticket, "x.b", Reading::Unknown);
    assert_eq!(scene.told(), ["x.b is unknown once"]);
    scene.touch("*");
    assert!(scene.state.take_batch().is_none(), "a is served by a longer pattern");
}

#[test]
fn replies_of_a_connection_that_was_lost_are_worth_nothing() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.reply_all(|_| Reading::Unknown);
    scene.ask("a");
    let (ticket, _) = scene.batch();
    scene.state.down(scene.now);
    assert_eq!(scene.told(), ["changed:  unknowns", "a failed: route_source_down"]);
    scene.reply(ticket, "a", found("a", &["http://old"], &[]));
    scene.up(true);
    scene.reply(ticket, "a", found("a", &["http://old"], &[]));
    assert!(scene.told().is_empty());
    scene.ask("a");
    scene.reply_all(|_| found("a", &["http://new"], &[]));
    assert_eq!(scene.told(), ["a is new"]);
}

#[test]
fn known_routes_stay_in_use_and_only_changes_are_reported() {
    let mut scene = Scene::new();
    scene.up(true);
    for host in ["a", "b", "c"] {
        scene.ask(host);
    }
    scene.reply_all(|host| found(host, &["http://one"], &[]));
    scene.state.down(scene.now);
    scene.told();
    scene.ask("a");
    scene.ask("d");
    assert_eq!(scene.told(), ["a is one", "d failed: route_source_down"]);
    scene.up(true);
    scene.reply_all(|host| match host {
        "a" => found("a", &["http://one"], &[]),
        "b" => found("b", &["http://two"], &[]),
        _ => Reading::Unknown,
    });
    let told = scene.told();
    assert!(told == ["changed: b c"] || told == ["changed: c b"], "{told:?}");
}

#[test]
fn other_data_takes_down_nothing_until_it_is_complete() {
    let mut scene = Scene::new();
    scene.up(true);
    for host in ["a", "b"] {
        scene.ask(host);
    }
    scene.reply_all(|host| found(host, &["http://one"], &[]));
    scene.state.down(scene.now);
    scene.up(false);
    scene.reply_all(|_| Reading::Unknown);
    scene.told();
    assert_eq!(scene.state.next_tick(), None, "an empty database is not complete, however long it is empty");
    for host in ["a", "b"] {
        scene.ask(host);
    }
    assert_eq!(scene.told(), ["a is one", "b is one"]);
    // It is filled, first with half a list.
    scene.touch("a");
    scene.reply_all(|_| found("a", &[], &[]));
    scene.ask("a");
    assert_eq!(scene.told(), ["changed: a", "a is one"]);
    scene.touch("a");
    scene.reply_all(|_| found("a", &["http://two"], &[]));
    assert_eq!(scene.told(), ["changed: a"]);
    // From now on the lists of `a` apply as written.
    scene.touch("a");
    scene.reply_all(|_| Reading::Unknown);
    assert_eq!(scene.told(), ["changed: a"]);
    let end = scene.state.next_tick().expect("an end");
    scene.now = end;
    scene.state.tick(end);
    scene.reply_all(|_| Reading::Unknown);
    assert_eq!(scene.told(), ["changed: b"]);
}

#[test]
fn what_was_remembered_serves_while_redis_is_away_and_until_other_data_is_complete() {
    let record = listing(&["http://one"]).record;
    let snapshot_routes = || std::iter::once(("a".into(), kept_route("*", &record))).collect::<SnapshotRoutes>();
    let mut scene = Scene::with(snapshot_routes());
    scene.ask("a");
    assert!(scene.told().is_empty(), "at the start it is waited for the first attempt");
    scene.state.down(scene.now);
    assert_eq!(scene.told(), ["changed:  unknowns", "a is one"]);
    for (same, expected) in [(true, "a is unknown"), (false, "a is one")] {
        let mut scene = Scene::with(snapshot_routes());
        scene.up(same);
        scene.ask("a");
        scene.reply_all(|_| Reading::Unknown);
        assert_eq!(scene.told().last().map(String::as_str), Some(expected));
    }
}

#[test]
fn a_flood_of_unknown_hosts_costs_so_many_look_ups() {
    let mut scene = Scene::new();
    scene.up(true);
    let mut read = 0;
    for number in 0..5_000 {
        scene.ask(&format!("h{number}"));
        while let Some(batch) = scene.state.take_batch() {
            read += batch.hosts.len();
            let hosts = batch.hosts.into_iter().map(|host| (host, Reading::Unknown)).collect();
            scene.state.replied(
                Replies {
                    ticket: batch.ticket,
                    hosts,
                    unread: Vec::new(),
                    checker: None,
                    offset: None,
                    shard_offsets: Vec::new(),
                },
                scene.now,
            );
        }
    }
    assert_eq!(read, 1000);
    let busy = scene.told().iter().filter(|line| line.ends_with("route_lookup_overloaded")).count();
    assert_eq!(busy, 4000);
    scene.now = scene.now + Duration::from_secs(1);
    for number in 0..5_000 {
        scene.ask(&format!("good{number}"));
        scene.reply_all(|host| found(host, &["http://one"], &[]));
    }
    assert!(scene.told().iter().all(|line| line.ends_with("is one")), "hosts that have a route cost nothing");
}

#[test]
fn a_change_of_options_reads_just_the_hosts_that_the_pattern_serves() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.reply_all(|_| Reading::Unknown);
    let serving = |host: &str| if host == "own.b" { host.to_owned() } else { "*.b".to_owned() };
    for host in ["own.b", "x.b", "y.b", "absent"] {
        scene.ask(host);
    }
    scene.reply_all(|host| match host {
        "absent" => Reading::Unknown,
        _ => found(&serving(host), &["http://one"], &[]),
    });
    scene.told();
    let redirects = |scene: &mut Scene| {
        ["own.b", "x.b", "y.b"]
            .map(|host| scene.state.catalog.get(host).expect("in use").cluster.options.https_redirect)
    };
    let no = Some(false);
    for (pattern, option, told, after) in [
        ("*.b", Some(true), &["changed: x.b y.b"][..], [None, Some(true), Some(true)]),
        // Options that cannot be read change nothing, and neither do those of patterns that serve no host.
        ("*.b", None, &[], [None, Some(true), Some(true)]),
        ("*", no, &[], [None, Some(true), Some(true)]),
        ("absent", no, &[], [None, Some(true), Some(true)]),
        ("own.b", no, &["changed: own.b"], [no, Some(true), Some(true)]),
    ] {
        scene.state.touch(&ChangedKey::Options(pattern.into()), scene.now);
        scene.reply_all(|host| with_option(found(&serving(host), &["http://one"], &[]), option));
        let mut lines = scene.told();
        lines.iter_mut().for_each(|line| *line = line.replace("y.b x.b", "x.b y.b"));
        assert_eq!(lines, told, "{pattern}");
        assert_eq!(redirects(&mut scene), after, "{pattern}");
    }
    // A write was reported while the look-up was in flight: the reply serves once.
    scene.ask("z.b");
    let (ticket, _) = scene.batch();
    scene.state.touch(&ChangedKey::Options("*.b".into()), scene.now);
    scene.reply(ticket, "z.b", found("*.b", &["http://one"], &[]));
    let told = scene.told().join(", ").replace("y.b x.b", "x.b y.b");
    assert_eq!(told, "changed: x.b y.b, z.b is one once", "the others of the pattern learn of it at once");
}

#[test]
fn a_bad_record_is_remembered_until_it_is_written_to() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("a");
    scene.reply_all(|_| Reading::Bad("frontend:a: nonsense".into()));
    scene.ask("a");
    assert!(scene.state.take_batch().is_none());
    assert_eq!(scene.told(), ["a failed: bad_route", "a failed: bad_route"]);
    scene.touch("a");
    scene.ask("a");
    scene.reply_all(|_| found("a", &["http://one"], &[]));
    scene.touch("a");
    scene.reply_all(|_| Reading::Bad("frontend:a: nonsense".into()));
    scene.ask("a");
    assert_eq!(scene.told(), ["changed: a", "a is one", "changed: a", "a is one"], "what worked works on");
}

#[test]
fn a_bad_record_that_was_corrected_during_an_outage_is_read_again() {
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("a");
    scene.reply_all(|_| Reading::Bad("frontend:a: nonsense".into()));
    scene.state.down(scene.now);
    scene.up(true);
    scene.told();
    scene.ask("a");
    scene.reply_all(|_| found("a", &["http://one"], &[]));
    assert_eq!(scene.told(), ["a is one"]);
}

#[test]
fn marks_follow_their_url() {
    let (a, b, c) = ("http://a", "http://b", "http://c");
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("h");
    scene.reply_all(|_| found("h", &[a, b], &[1]));
    let barred = |scene: &mut Scene| {
        let frontend = scene.state.catalog.get("h").expect("in use");
        let now = scene.now;
        let barred = frontend.marks.iter().filter(|mark| mark.is_dead_external(now));
        barred.map(|mark| mark.backend.endpoint().host().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(barred(&mut scene), ["b"]);
    for (urls, dead, expected) in [
        (vec![a, c], vec![1], vec![]),
        (vec![b, a, c], vec![1], vec!["b"]),
        (vec![b, a, c], vec![1, 2], vec!["b", "c"]),
        (vec![b, a, c], vec![2], vec!["c"]),
        (vec![b, a, c], vec![], vec![]),
    ] {
        scene.touch("h");
        scene.reply_all(|_| found("h", &urls, &dead));
        assert_eq!(barred(&mut scene), expected, "{urls:?} {dead:?}");
    }
    // A mark for an empty index does not affect a backend that is added there later.
    for (urls, dead, expected) in
        [(vec![b, a], vec![2], vec![]), (vec![b, a, c], vec![2], vec![]), (vec![b, a, c], vec![1, 2], vec!["a"])]
    {
        scene.touch("h");
        scene.reply_all(|_| found("h", &urls, &dead));
        assert_eq!(barred(&mut scene), expected, "{urls:?} {dead:?}");
    }
    // A mark expires by itself, however late Redis reports it.
    scene.touch("h");
    scene.reply_all(|_| found("h", &[b, a, c], &[0]));
    scene.now = scene.now + Duration::from_secs(30);
    assert!(barred(&mut scene).is_empty());
}

#[test]
fn own_marks_are_guesses_and_go_when_others_take_them_back() {
    let (a, b) = ("http://a", "http://b");
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("h");
    scene.reply_all(|_| found("h", &[a, b], &[]));
    let frontend = scene.state.catalog.get("h").expect("in use");
    let member = &frontend.marks[1];
    let until = scene.now + Duration::from_secs(30);
    member.mark_dead(until);
    let own = scene.state.mark_dead("h", member.backend.endpoint(), until, scene.now).expect("a mark to tell of");
    assert_eq!((own.index, own.total, own.task), (1, 2, MarkTask::Store));
    scene.touch("h");
    scene.reply_all(|_| found("h", &[a, b], &[]));
    assert!(member.dead_until(scene.now).is_some(), "it is not written yet");
    scene.state.touch(&ChangedKey::Dead("h".into()), scene.now);
    scene.reply_all(|_| found("h", &[a, b], &[1]));
    assert!(member.dead_until(scene.now).is_some() && !member.is_dead_external(scene.now));
    scene.state.touch(&ChangedKey::Dead("h".into()), scene.now);
    scene.reply_all(|_| found("h", &[a, b], &[]));
    assert!(member.dead_until(scene.now).is_none());
    // Probes find the backend good before the mark expires.
    let endpoint = member.backend.endpoint();
    assert_eq!(scene.state.mark_dead("h", endpoint, Moment::ZERO, scene.now), None, "there is no mark");
    scene.state.mark_dead("h", endpoint, until, scene.now).expect("a mark to tell of");
    let over = scene.state.mark_dead("h", endpoint, Moment::ZERO, scene.now).expect("a mark to take back");
    assert_eq!((over.index, over.task), (1, MarkTask::Remove));
    // While a checker is at work, a mark in Redis belongs to it.
    scene.state.note_checker(Some(Duration::from_secs(1)), scene.now);
    let own = scene.state.mark_dead("h", member.backend.endpoint(), until, scene.now).expect("a mark to tell of");
    assert_eq!(own.task, MarkTask::Publish);
    assert_eq!(scene.state.mark_dead("h", endpoint, Moment::ZERO, scene.now), None, "the checker has it");
    scene.state.touch(&ChangedKey::Dead("h".into()), scene.now);
    scene.reply_all(|_| found("h", &[a, b], &[1]));
    assert!(member.is_dead_external(scene.now));
}

#[test]
fn the_mark_of_an_operator_outlives_all_others() {
    let (a, b) = ("http://a", "http://b");
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("h");
    scene.reply_all(|_| found("h", &[a, b], &[]));
    let route = scene.state.catalog.get("h").expect("in use");
    let until = scene.now + Duration::from_secs(600);
    route.marks[0].mark_dead_by_operator(until);
    // Other nodes mark the other backend, and this one, and remove their marks.
    for dead in [vec![1], vec![0, 1], vec![0], vec![]] {
        scene.state.touch(&ChangedKey::Dead("h".into()), scene.now);
        scene.reply_all(|_| found("h", &[a, b], &dead));
        assert!(route.marks[0].is_dead_external(scene.now), "{dead:?}");
        assert_eq!(route.marks[0].dead_external_until(scene.now).is_some(), dead.contains(&0), "{dead:?}");
        assert_eq!(route.marks[0].ends_at(scene.now), Some(until), "{dead:?}");
        assert!(route.marks[0].ends_at(scene.now).is_some(), "{dead:?}");
    }
    route.marks[0].mark_dead_by_operator(Moment::ZERO);
    assert!(route.marks.iter().all(|mark| mark.ends_at(scene.now).is_none()));
}

#[test]
fn an_operator_has_any_host_read_again() {
    let a = "http://a";
    let mut scene = Scene::new();
    scene.up(true);
    scene.ask("h");
    scene.reply_all(|_| found("h", &[a], &[]));
    assert!(!scene.state.flush("absent".into()), "it is not in use");
    assert!(scene.state.take_batch().is_none(), "so nothing is read");
    assert!(scene.state.flush("h".into()));
    assert_eq!(scene.batch().1, ["h"]);
    let mut scene = Scene::new();
    scene.up(true);
    for (host, reading) in
        [("bad", Reading::Bad("no list".into())), ("slow", Reading::Unread(FailureReason::RouteSourceDown))]
    {
        scene.ask(host);
        scene.reply_all(|_| reading.clone());
        scene.ask(host);
        assert!(scene.state.take_batch().is_none(), "{host} is left alone");
        assert!(scene.state.flush(host.into()), "{host}");
        scene.ask(host);
        assert_eq!(scene.batch().1, [host]);
        scene.state.down(scene.now);
        scene.up(true);
    }
}
