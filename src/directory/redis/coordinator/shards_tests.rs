use super::super::super::reading::Reading;
use super::super::super::route_state::{Batch, Limits, Output, Replies, RouteState};
use super::super::super::shards::nodes::View;
use super::super::Event;
use super::*;
use crate::base::reason::FailureReason;
use crate::directory::catalog::Clusters;
use crate::directory::{LookupResult, SubscriberId};
use redis::Value;
use std::sync::Arc;
use std::time::Duration;

/// Two masters: `a` has the slots up to 8191, `b` those above.
fn view(own: &str) -> View {
    let line = |id: &str, port: u16, slots: &str| {
        let flag = if id == own { "myself," } else { "" };
        format!("{id} 10.0.0.1:{port}@1 {flag}master - 0 0 {port} connected {slots}\n")
    };
    let text = line("a", 1, "0-8191") + &line("b", 2, "8192-16383");
    View::parse(&text, &at(1), false)
}

fn at(port: u16) -> Address {
    Address { host: "10.0.0.1".into(), port }
}

/// A host whose list is at `a`, or at `b`, and whose other keys are anywhere.
fn host_at(id: &str) -> Arc<str> {
    let is_there = |host: &String| (slot_of(format!("frontend:{host}").as_bytes()) < 8192) == (id == "a");
    (0..).map(|number| format!("h{number}")).find(is_there).expect("a host").into()
}

struct Scene {
    coordinator: Coordinator,
    now: Moment,
    sessions: u64,
}

impl Scene {
    fn new() -> Self {
        let limits =
            Limits { unknown_rate: 100, resync_hold: Duration::from_secs(60), mark_life: Duration::from_secs(30) };
        let state = RouteState::new(&limits, Default::default(), Clusters::default());
        let target = Target::parse("redis+cluster://10.0.0.1:1").expect("a URL");
        let place = (&target, &Spellings::default());
        let coordinator = Coordinator::of_cluster(state, None, Duration::from_secs(1), place);
        let mut scene = Self { coordinator, now: Moment::ZERO + Duration::from_secs(1), sessions: 0 };
        assert!(matches!(scene.actions().as_slice(), [Action::Find(known)] if known.is_empty()));
        scene.tell(ShardEvent::Found(view("a")));
        assert_eq!(scene.actions().iter().filter(|action| matches!(action, Action::Watch { .. })).count(), 2);
        scene
    }

    /// Both masters are watched and read.
    fn up() -> Self {
        let mut scene = Self::new();
        scene.link("a", "a");
        assert!(!scene.connects(), "the other one may be there in a moment");
        scene.link("b", "b");
        assert!(scene.connects());
        scene.coordinator.hear(Event::Reading { number: 1, identity: Identity::default() }, scene.now);
        assert!(scene.coordinator.state.is_up());
        scene
    }

    fn tell(&mut self, event: ShardEvent) {
        self.coordinator.hear(Event::Shard(event), self.now);
    }

    fn link(&mut self, id: &str, history: &str) {
        self.sessions += 1;
        let port = if id == "a" { 1 } else { 2 };
        let identity = Identity::of(&format!("role:master\r\nmaster_replid:{history}\r\nmaster_repl_offset:5\r\n"));
        let (watch, session) = (u64::from(port), self.sessions);
        self.tell(ShardEvent::Linked { watch, session, address: at(port), view: view(id), identity });
    }

    fn lose(&mut self, port: u16) {
        let (watch, address) = (u64::from(port), at(port));
        self.tell(ShardEvent::Lost { watch, address, problem: "gone".into(), is_replica: false });
    }

    fn actions(&mut self) -> Vec<Action> {
        self.coordinator.take_actions()
    }

    fn connects(&mut self) -> bool {
        self.actions().iter().any(|action| matches!(action, Action::Connect(_)))
    }

    fn ask(&mut self, host: &Arc<str>) {
        self.coordinator.state.ask(SubscriberId(0), Arc::clone(host), None, self.now);
    }

    /// Replies to the next batch; a host is served, unknown, or away.
    fn reply(&mut self, reading: impl Fn(&str) -> Reading) -> Vec<Arc<str>> {
        let Some(batch): Option<Batch> = self.coordinator.state.take_batch() else { return Vec::new() };
        let mut replies = Replies::none(&batch);
        replies.hosts = batch.hosts.iter().map(|host| (Arc::clone(host), reading(host))).collect();
        self.coordinator.hear(Event::Replies(replies), self.now);
        batch.hosts
    }

    /// The results of look-ups, in words, and whether unknown hosts are to be forgotten.
    fn results(&mut self) -> (Vec<&'static str>, bool) {
        let (mut results, mut forgets) = (Vec::new(), false);
        for output in self.coordinator.state.take_outputs() {
            match output {
                Output::LookedUp { result: LookupResult::Found(_), .. } => results.push("found"),
                Output::LookedUp { result: LookupResult::Unknown, .. } => results.push("unknown"),
                Output::LookedUp { result: LookupResult::Failed(FailureReason::RouteSourceDown), .. } => {
                    results.push("away");
                }
                Output::LookedUp { .. } => results.push("failed"),
                Output::Changed { unknowns, .. } => forgets |= unknowns,
                Output::Checker { .. } => {}
            }
        }
        (results, forgets)
    }
}

/// The reading of a host, by the program's own parser.
fn served(host: &str) -> Reading {
    let text = |text: &str| Value::BulkString(text.into());
    let patterns: Vec<_> = route::patterns(host).collect();
    let mut replies: Vec<Value> =
        patterns.iter().flat_map(|_| [Value::Nil, Value::Array(vec![text("0"), Value::Array(vec![])])]).collect();
    replies[0] = Value::Array(vec![text("site"), text("http://10.0.0.9")]);
    replies.extend([Value::Array(vec![]), Value::Int(-2), Value::Array(vec![Value::Nil; 3])]);
    super::super::super::reading::read(patterns.iter().map(|pattern| &**pattern), &replies)
}

fn away(_: &str) -> Reading {
    Reading::Unread(FailureReason::RouteSourceDown)
}

#[test]
fn while_one_master_is_away_its_hosts_are_held_and_others_are_looked_up() {
    let mut scene = Scene::up();
    let (held, other) = (host_at("b"), host_at("a"));
    scene.ask(&held);
    scene.reply(served);
    assert_eq!(scene.results().0, ["found"]);
    scene.lose(2);
    assert!(scene.coordinator.state.is_up());
    assert!(scene.actions().iter().any(|action| matches!(action, Action::Partial(true))));
    assert!(scene.results().1, "no host is known to have no route");
    // A host in use stays; another one with its keys there is refused, and not asked for again and again.
    let unknown: Arc<str> = format!("{held}.test").into();
    [&held, &unknown].into_iter().for_each(|host| scene.ask(host));
    assert_eq!(scene.reply(away), [Arc::clone(&unknown)]);
    scene.ask(&unknown);
    assert_eq!((scene.results().0, scene.reply(served).len()), (vec!["found", "away", "away"], 0));
    scene.ask(&other);
    assert_eq!(scene.reply(served), [Arc::clone(&other)]);
    assert_eq!(scene.results().0, ["found"]);
    // Once it is watched again, everything in use is read again, and the other host can be asked for at once.
    scene.link("b", "b");
    let actions = scene.actions();
    assert!(actions.iter().any(|action| matches!(action, Action::Reread)));
    assert!(actions.iter().any(|action| matches!(action, Action::Partial(false))));
    scene.ask(&unknown);
    let mut read = scene.reply(|host| if *host == *unknown { Reading::Unknown } else { served(host) });
    read.sort();
    let mut expected = vec![held, other, unknown];
    expected.sort();
    assert_eq!((read, scene.results().0), (expected, vec!["unknown"]));
}

#[test]
fn a_reply_from_before_a_master_was_back_is_used_once() {
    let mut scene = Scene::up();
    let host = host_at("b");
    scene.ask(&host);
    let batch = scene.coordinator.state.take_batch().expect("a batch");
    scene.lose(2);
    scene.link("b", "b");
    scene.coordinator.state.take_outputs();
    let mut replies = Replies::none(&batch);
    replies.hosts = vec![(Arc::clone(&host), served(&host))];
    scene.coordinator.hear(Event::Replies(replies), scene.now);
    let outputs = scene.coordinator.state.take_outputs();
    assert!(matches!(outputs.as_slice(), [Output::LookedUp { keep: false, .. }]), "{outputs:?}");
    assert_eq!(scene.reply(served), [host]);
}

#[test]
fn with_the_last_master_the_cluster_is_away_until_one_is_back() {
    let mut scene = Scene::up();
    let host = host_at("a");
    scene.ask(&host);
    scene.reply(served);
    scene.lose(1);
    scene.actions();
    scene.lose(2);
    assert!(!scene.coordinator.state.is_up());
    let actions = scene.actions();
    assert!(actions.iter().any(|action| matches!(action, Action::Lost { is_new: true, .. })));
    assert!(actions.iter().any(|action| matches!(action, Action::Find(known) if known.len() == 2)));
    scene.results();
    scene.ask(&host);
    assert_eq!(scene.results().0, ["found"]);
    scene.link("a", "a");
    assert!(scene.connects(), "the other one was tried");
}
