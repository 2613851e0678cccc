//! Requests that wait for a slot of a member.

use super::{SECOND, Scene, settings};
use sluice::base::clock::Moment;
use sluice::base::reason::FailureReason;
use sluice::cluster::{
    Backend, BackendId, BackendUrl, Cluster, ClusterSpec, GrantSink, Granted, Joined, Notice, Options, Permit, Route,
    TenantSettings, Tenants, Ticket, TokenRequest,
};
use sluice::exchange::{Effect, Input, Side};
use sluice::shaper::{BucketId, QueueLimits, Spec};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

/// What the queue sends.
#[derive(Debug, Default)]
struct Mail(Mutex<Vec<Permit>>);

impl GrantSink for Mail {
    fn grant(&self, _: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
        let Granted::Slot(permit) = granted else { return Err(granted) };
        self.0.lock().expect("a lock").push(permit);
        Ok(())
    }

    fn notify(&self, _: u64, _: Ticket, _: Notice) {}
}

fn route(attributes: &[&str], options: &[(&str, &str)]) -> Arc<Route> {
    let url = |(id, attributes): (usize, &&str)| BackendUrl::parse(&format!("http://10.0.0.{id}#{attributes}"));
    let urls: Vec<_> = attributes.iter().enumerate().map(|entry| url(entry).expect("a good URL")).collect();
    let backend = |(url, id): (&BackendUrl, u64)| Arc::new(Backend::new(BackendId::new(id), url.endpoint().clone()));
    let entries = urls.iter().zip(0..).map(|entry| (entry.0, backend(entry))).collect();
    let (options, errors) = Options::read(options.iter().copied(), &Options::default());
    assert_eq!(errors, []);
    let spec = ClusterSpec { created: 0, key: "a", id: "site", entries, options: &Arc::new(options) };
    Arc::new(Route::new("a", Cluster::edit(None, spec, Moment::ZERO)))
}

fn hold(route: &Arc<Route>, place: usize) -> Permit {
    Permit::of_route(Arc::clone(route), route.cluster.take(place, Moment::ZERO).expect("room"))
}

impl Scene {
    /// A scene in which the route was found.
    fn at(route: &Arc<Route>) -> Self {
        let mut scene = Self::new(settings());
        scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        scene.core.output.effects.clear();
        scene.tell(Input::Route(Ok(Arc::clone(route))));
        scene
    }

    /// Has the request join the queue, as it asks for. Returns whether it has not waited before.
    fn enqueue(&mut self, mail: &Arc<Mail>) -> Option<bool> {
        let asks = self.core.output.effects.iter().any(|effect| matches!(effect, Effect::Enqueue));
        self.core.output.effects.clear();
        let joined = self.exchange.join_queue(Arc::clone(mail) as Arc<dyn GrantSink>, 1, &self.core);
        match joined.filter(|_| asks)? {
            Joined::Waiting { ticket, is_new } => {
                self.tell(Input::Enqueued(ticket));
                Some(is_new)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn counts(route: &Route) -> Vec<(u64, u64)> {
    route.cluster.members.iter().map(|member| member.state.history().totals()).collect()
}

#[test]
fn a_request_that_is_tried_again_waits_for_the_rest_of_its_time() {
    let route = route(&["capacity=1", "capacity=1"], &[("queueTimeout", "10s")]);
    let (_busy, freed) = (hold(&route, 0), hold(&route, 1));
    let mail = Arc::new(Mail::default());
    let mut scene = Scene::at(&route);
    assert_eq!(scene.enqueue(&mail), Some(true));
    scene.core.now = scene.core.now + 3 * SECOND;
    drop(freed);
    let permit = mail.0.lock().expect("a lock").pop().expect("a grant");
    scene.tell(Input::Granted(permit));
    // What it does at a member is no wait.
    scene.core.now = scene.core.now + 5 * SECOND;
    scene.tell(Input::ConnectFailed(FailureReason::ConnectFailed));
    assert_eq!(scene.enqueue(&mail), Some(false), "it has waited before");
    assert_eq!(scene.exchange.deadline(), scene.core.now + 7 * SECOND);
}

/// What a bucket sends.
#[derive(Debug, Default)]
struct Tokens(Mutex<Vec<Granted>>);

impl GrantSink for Tokens {
    fn grant(&self, _: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
        self.0.lock().expect("a lock").push(granted);
        Ok(())
    }

    fn notify(&self, _: u64, _: Ticket, _: Notice) {}
}

#[test]
fn a_retry_keeps_its_token_its_place_and_the_rest_of_its_time() {
    let options = [("buckets", r#"{"a": "50..100 %"}"#), ("queueTimeout", "60s")];
    let route = route(&["capacity=1", "capacity=1"], &options);
    let token = |now| route.cluster.try_token(BucketId::UNCLASSIFIED, now).expect("a token");
    let mut held = vec![token(Moment::ZERO), token(Moment::ZERO)];
    let busy = hold(&route, 1);
    let mail = Arc::new(Tokens::default());
    let sink = || Arc::clone(&mail) as Arc<dyn GrantSink>;
    let mut scene = Scene::at(&route);
    let join = |scene: &mut Scene| {
        assert!(scene.core.output.effects.iter().any(|effect| matches!(effect, Effect::Enqueue)));
        scene.core.output.effects.clear();
        scene.exchange.join_queue(sink(), 1, &scene.core)
    };
    match join(&mut scene) {
        Some(Joined::WaitingForToken { ticket, until }) => scene.tell(Input::EnqueuedUntil(ticket, until)),
        other => panic!("{other:?}"),
    };
    assert_eq!(scene.exchange.deadline(), Moment::ZERO + 60 * SECOND);
    scene.core.now = scene.core.now + 50 * SECOND;
    route.cluster.give_back_token(held.pop().expect("a token"));
    match mail.0.lock().expect("a lock").pop() {
        Some(Granted::Token(token)) => scene.tell(Input::GrantedToken(token)),
        other => panic!("{other:?}"),
    };
    let (bucket, arrived) = (BucketId::UNCLASSIFIED, scene.core.now);
    let rival = TokenRequest { sink: sink(), exchange: 2, bucket, arrived, demand: None };
    let rival = route.cluster.join_bucket(rival, scene.core.now);
    assert!(matches!(rival, Joined::WaitingForToken { .. }), "{rival:?}");
    // Its member fails, and the other one has no room.
    scene.tell(Input::ConnectFailed(FailureReason::ConnectFailed));
    match join(&mut scene) {
        Some(Joined::Waiting { ticket, .. }) => scene.tell(Input::Enqueued(ticket)),
        other => panic!("it waits for a slot: {other:?}"),
    };
    assert_eq!(scene.exchange.deadline(), Moment::ZERO + 60 * SECOND, "not a minute from now");
    let granted = || mail.0.lock().expect("a lock").pop();
    assert!(granted().is_none(), "the other request has its token");
    drop(busy);
    match granted() {
        Some(Granted::Slot(permit)) => scene.tell(Input::Granted(permit)),
        other => panic!("{other:?}"),
    };
    assert!(granted().is_none() && route.cluster.buckets()[0].held == 2, "it has paid once");
    drop(scene);
    assert!(matches!(granted(), Some(Granted::Token(_))), "the token is free with its end");
}

#[test]
fn each_try_is_counted_once() {
    let route = route(&["", ""], &[]);
    let mut scene = Scene::at(&route);
    for _ in 0..2 {
        scene.tell(Input::ConnectFailed(FailureReason::ConnectFailed));
    }
    assert_eq!(scene.exchange.stats().reason, Some(FailureReason::ConnectFailed));
    scene.exchange.count(scene.core.now);
    assert_eq!(counts(&route), [(1, 1), (1, 1)]);
    assert_eq!(route.cluster.admission.history().totals(), (1, 1));
}

#[test]
fn a_slot_of_a_member_that_was_marked_meanwhile_is_refused_and_not_asked_for_at_once() {
    let route = route(&["capacity=1", "capacity=1"], &[]);
    let (_busy, freed) = (hold(&route, 0), hold(&route, 1));
    let mail = Arc::new(Mail::default());
    let mut scene = Scene::at(&route);
    assert_eq!(scene.enqueue(&mail), Some(true));
    drop(freed);
    let permit = mail.0.lock().expect("a lock").pop().expect("a grant");
    route.marks[1].mark_dead(scene.core.now + SECOND);
    scene.tell(Input::Granted(permit));
    assert!(scene.core.output.effects.is_empty(), "it joins again, but not in this step");
    assert_eq!(route.cluster.members[1].state.in_flight(), 0);
    scene.core.now = scene.exchange.deadline();
    scene.tell(Input::Deadline);
    assert_eq!(scene.enqueue(&mail), Some(false));
    assert_eq!(scene.exchange.deadline(), Moment::ZERO + SECOND, "the end of the mark");
}

/// A node with one request in flight, a request at the first of these members, and another one that waits.
fn with_a_rival(route: &Arc<Route>) -> (Scene, Arc<Tenants>, Arc<Tokens>) {
    let settings = TenantSettings {
        requests: NonZeroU32::new(1),
        buckets: Arc::new(Spec::default()),
        queue: QueueLimits { limit: 10, timeout: 60 * SECOND },
    };
    let tenants = Arc::new(Tenants::new(&settings));
    let mut scene = Scene::new(self::settings());
    scene.core.tenants = Some(Arc::clone(&tenants));
    scene.tell(Input::Bytes(Side::Client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    scene.tell(Input::Route(Ok(Arc::clone(route))));
    let rival = Arc::new(Tokens::default());
    let sink = Arc::clone(&rival) as Arc<dyn GrantSink>;
    let joined = tenants.join(&route.cluster, (sink, 2), scene.core.now, scene.core.now);
    assert!(matches!(joined, Joined::WaitingForToken { .. }), "{joined:?}");
    (scene, tenants, rival)
}

#[test]
fn a_retry_keeps_its_token_of_the_node_unless_it_waits_for_a_slot() {
    type Fail = fn(&mut Scene);
    let refused: Fail = |scene| _ = scene.tell(Input::ConnectFailed(FailureReason::ConnectFailed));
    let unavailable: Fail = |scene| {
        scene.tell(Input::Connected { reused: false });
        scene.send_all(Side::Upstream, usize::MAX);
        scene.core.output.effects.clear();
        scene.tell(Input::Bytes(Side::Upstream, b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
    };
    for fail in [refused, unavailable] {
        let route = route(&["", ""], &[("retryOn", "connect,503")]);
        let (mut scene, tenants, rival) = with_a_rival(&route);
        fail(&mut scene);
        let effects = &scene.core.output.effects;
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Retry { .. })), "{effects:?}");
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Connect { .. })), "it waits: {effects:?}");
        assert_eq!((rival.0.lock().expect("a lock").len(), tenants.views()[0].held), (0, 1));
        drop(scene);
        let granted = rival.0.lock().expect("a lock").pop();
        assert!(matches!(granted, Some(Granted::Token(_))), "{granted:?}");
        drop(granted);
        assert_eq!(tenants.views()[0].held, 0);
    }
    // A request that waits for a slot holds nothing that the holder of the slot may wait for.
    let route = route(&["capacity=1", "capacity=1"], &[]);
    let _busy = hold(&route, 1);
    let (mut scene, _, rival) = with_a_rival(&route);
    refused(&mut scene);
    assert!(scene.enqueue(&Arc::new(Mail::default())).is_some());
    assert_eq!(rival.0.lock().expect("a lock").len(), 1);
}

/// The list of this route with other options.
fn edit(route: &Route, options: &[(&str, &str)], now: Moment) -> Arc<Cluster> {
    let (options, errors) = Options::read(options.iter().copied(), &Options::default());
    assert_eq!(errors, []);
    let entries = route.cluster.members.iter().map(|member| (&member.url, Arc::clone(&member.backend))).collect();
    Cluster::edit(
        Some(&route.cluster),
        ClusterSpec { created: 0, key: "a", id: "site", entries, options: &Arc::new(options) },
        now,
    )
}

#[test]
fn a_raise_of_requests_a_second_counts_for_requests_that_wait() {
    let rate = |rate| [("requestsPerSecond", rate), ("queueTimeout", "600s")];
    let route = route(&[""], &rate("1"));
    for _ in 0..100 {
        let _turn = route.cluster.admission.take_turn(&route.cluster.options, Moment::ZERO);
    }
    let mut scene = Scene::at(&route);
    let is_waiting = |scene: &mut Scene| {
        let effects = std::mem::take(&mut scene.core.output.effects);
        !effects.iter().any(|effect| matches!(effect, Effect::Connect { .. } | Effect::Resolve))
    };
    for second in 1..5 {
        assert!(is_waiting(&mut scene));
        scene.core.now = scene.exchange.deadline();
        assert_eq!(scene.core.now, Moment::ZERO + second * SECOND, "it looks once a second");
        scene.tell(Input::Deadline);
    }
    assert!(is_waiting(&mut scene));
    let _raised = edit(&route, &rate("1000"), scene.core.now);
    scene.core.now = scene.exchange.deadline();
    assert_eq!(scene.core.now, Moment::ZERO + 5 * SECOND);
    scene.tell(Input::Deadline);
    assert!(!is_waiting(&mut scene), "its turn has come");
}
