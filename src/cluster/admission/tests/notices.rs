//! Requests that wait for a token, while the capacity rises, fails, or is shared no longer; and tokens of the node.

use super::*;
use crate::cluster::OwnedDemand;
use crate::shaper::{BucketId, QueueLimits, Spec};

const BUCKETS: &str = r#"{"few": "1..5 t"}"#;

/// Everything that is sent to one core.
#[derive(Debug, Default)]
struct Inbox {
    tokens: Mutex<Vec<HeldToken>>,
    notices: Mutex<Vec<(u64, Notice)>>,
}

impl GrantSink for Inbox {
    fn grant(&self, _: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
        let Granted::Token(token) = granted else { return Err(granted) };
        self.tokens.lock().expect("a lock").push(token);
        Ok(())
    }

    fn notify(&self, exchange: u64, _: Ticket, notice: Notice) {
        self.notices.lock().expect("a lock").push((exchange, notice));
    }
}

impl Inbox {
    fn notices(&self) -> Vec<(u64, Notice)> {
        let mut notices = std::mem::take(&mut *self.notices.lock().expect("a lock"));
        notices.sort_by_key(|(exchange, _)| *exchange);
        notices
    }

    fn tokens(&self) -> usize {
        self.tokens.lock().expect("a lock").len()
    }
}

fn at(millis: u64) -> Moment {
    NOW + Duration::from_millis(millis)
}

/// A request begins to wait for a token of a bucket.
fn wait_for_token(
    cluster: &Arc<Cluster>,
    bucket: BucketId,
    inbox: &Arc<Inbox>,
    exchange: u64,
    named: Option<u64>,
    now: Moment,
) {
    let (route, sink) = (Arc::new(Route::new("a", Arc::clone(cluster))), Arc::clone(inbox) as Arc<dyn GrantSink>);
    let demand = OwnedDemand { route, tried: [].into(), named: named.map(BackendId::new), wanted: None };
    let request = TokenRequest { sink, exchange, bucket, arrived: Moment::ZERO, demand: Some(Arc::new(demand)) };
    let joined = cluster.join_bucket(request, now);
    assert!(matches!(joined, Joined::WaitingForToken { .. }), "{joined:?}");
}

#[test]
fn requests_that_wait_for_a_token_use_a_capacity_that_rises() {
    let members = [member(1, Role::Active, 1), member(2, Role::Active, 100)];
    let cluster = publish(members, &[("buckets", BUCKETS), ("slowStart", "30s")], &Arc::default());
    cluster.members[1].state.set_down(true, at(1));
    cluster.serve(at(1));
    let busy = cluster.try_token(BucketId::UNCLASSIFIED, at(1)).expect("a token");
    let inbox = Arc::<Inbox>::default();
    (0..50).for_each(|exchange| wait_for_token(&cluster, BucketId::UNCLASSIFIED, &inbox, exchange, None, at(2)));
    assert_eq!(inbox.notices(), []);
    // From now on no request arrives or ends.
    cluster.members[1].state.set_down(false, at(1000));
    cluster.serve(at(1000));
    let first = inbox.tokens();
    assert!(first < 15, "{first} tokens at once");
    let told = inbox.notices();
    assert_eq!(told.len(), 50 - first, "all that wait look for room");
    assert!(told.iter().all(|(_, notice)| *notice == Notice::Poll));
    let mut now = at(1000);
    while now != Moment::NEVER && inbox.tokens() < 50 {
        now = cluster.admission.poll(now);
    }
    assert_eq!(inbox.tokens(), 50);
    assert!(now < at(17_000), "half of the capacity is there after half of the time, not at {now:?}");
    cluster.give_back_token(busy);
}

#[test]
fn requests_that_wait_for_a_token_are_told_that_no_member_serves_them() {
    let list = |members: &[Member], options: &[(&str, &str)], admission: &Arc<Admission>| {
        publish(members.iter().cloned(), &[options, &[("buckets", BUCKETS)]].concat(), admission)
    };
    let members = [member(1, Role::Active, 1), member(2, Role::Active, 1)];
    let cluster = list(&members, &[], &Arc::default());
    let _busy = [0, 1].map(|_| cluster.try_token(BucketId::UNCLASSIFIED, NOW).map(|token| cluster.held(token)));
    let inbox = Arc::<Inbox>::default();
    wait_for_token(&cluster, BucketId::UNCLASSIFIED, &inbox, 1, None, NOW);
    wait_for_token(&cluster, BucketId::UNCLASSIFIED, &inbox, 2, Some(2), NOW);
    cluster.members[1].state.set_down(true, at(1));
    cluster.serve(at(1));
    assert_eq!(inbox.notices(), [(2, Notice::Unavailable)], "the one that it names");
    cluster.members[0].state.set_disabled(true, at(2));
    cluster.serve(at(2));
    assert_eq!(inbox.notices(), [(1, Notice::Unavailable), (2, Notice::Unavailable)]);
    let _patient = list(&members, &[("enqueueOnUnavailable", "true")], &cluster.admission);
    assert_eq!(inbox.notices(), [(2, Notice::Unavailable)], "the other one may wait for a member");
    let _closed = list(&members, &[("disabled", "true")], &cluster.admission);
    assert_eq!(inbox.notices().len(), 2, "the frontend is disabled");
    let _held = list(&members, &[("disabled", "true"), ("hold", "true")], &cluster.admission);
    assert_eq!(inbox.notices(), [], "they wait for it to be enabled");
}

#[test]
fn without_buckets_no_request_waits_for_a_token_whatever_its_ceil_was() {
    let admission = Arc::default();
    let list = |options: &[(&str, &str)]| publish([member(1, Role::Active, 20)], options, &admission);
    let cluster = list(&[("buckets", r#"{"few": "1..5 t", "some": {"share": "2..4 t", "buckets": {"one": "1 t"}}}"#)]);
    let inbox = Arc::<Inbox>::default();
    let classes = cluster.classes.as_ref().expect("buckets");
    let few = classes.bucket_of_test("few");
    let busy: Vec<_> = (0..5).map(|_| cluster.try_token(few, NOW).map(|token| cluster.held(token))).collect();
    assert!(busy.iter().all(Option::is_some));
    (0..30).for_each(|exchange| wait_for_token(&cluster, few, &inbox, exchange, None, NOW));
    let plain = list(&[]);
    assert_eq!((inbox.tokens(), plain.admission.waiting()), (30, 0));
    // Buckets that come back count their requests again.
    drop(busy);
    let again = list(&[("buckets", BUCKETS)]);
    assert!(again.buckets().iter().all(|view| view.limit <= 20), "{:?}", again.buckets());
    inbox.tokens.lock().expect("a lock").clear();
    assert_eq!(again.buckets()[0].held, 0);
}

fn tenants(requests: u32, buckets: &str) -> Tenants {
    let queue = QueueLimits { limit: 10, timeout: Duration::from_secs(1) };
    let buckets = Arc::new(Spec::parse(buckets).expect("good buckets"));
    Tenants::new(&TenantSettings { requests: NonZeroU32::new(requests), buckets, queue })
}

#[test]
fn a_token_of_the_node_comes_back_from_a_cluster_that_had_none_before() {
    let tenants = tenants(1, "{}");
    let [one, other] = [(); 2].map(|()| cluster(&[(Role::Active, 1)], &[]));
    let mut first = admit(&one).expect("room");
    assert!(tenants.enter(&mut first, NOW));
    let mut second = admit(&other).expect("room");
    second.stay_in_node(&mut first);
    drop(first);
    assert_eq!(tenants.views()[0].held, 1, "the second try has it");
    assert!(!tenants.enter(&mut admit(&one).expect("room"), NOW));
    drop(second);
    assert_eq!(tenants.views()[0].held, 0, "it is not lost");
    assert!(tenants.enter(&mut admit(&one).expect("room"), NOW));
}

#[test]
fn weights_of_tenants_are_their_own_rates() {
    let names = ["gold", "inner", "fixed"];
    let weights = |requests, buckets| {
        let tenants = tenants(requests, buckets);
        let of = |name: &&str| {
            let cluster = cluster(&[(Role::Active, 1)], &[("tenant", *name)]);
            tenants.weight(tenants.key_of(&cluster), 1)
        };
        names.each_ref().map(of)
    };
    // The names that are no tenant have the rest.
    assert_eq!(weights(100, r#"{"fixed": "25..50 t"}"#), [7500, 7500, 2500]);
    assert_eq!(weights(0, r#"{"fixed": "25 %"}"#), [7500, 7500, 2500]);
    let nested = r#"{"gold": {"share": "50 %", "buckets": {"inner": "40 %"}}, "fixed": "10 t"}"#;
    assert_eq!(weights(100, nested), [3000, 2000, 1000]);
    assert_eq!(weights(40, nested), [3000, 2000, 2500]);
    // Small shares keep their fractions.
    assert_eq!(weights(10, r#"{"gold": "1..50 %", "fixed": "5..5 %"}"#), [100, 9400, 500]);
}
