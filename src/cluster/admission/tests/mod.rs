mod choice;
mod held;
mod notices;
mod reference;
mod shares;
mod simulation;
mod world;

use super::*;
use crate::cluster::attributes::Attributes;
use crate::cluster::{Backend, BackendId, BackendUrl, Options, Route};
use choice::Choice;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const NOW: Moment = Moment::ZERO;

#[derive(Debug)]
struct Core(Mutex<Sender<(u64, Permit)>>);

impl GrantSink for Core {
    fn grant(&self, exchange: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
        let Granted::Slot(permit) = granted else { panic!("a token where there are no buckets") };
        self.0.lock().expect("a lock").send((exchange, permit)).map_err(|error| Granted::Slot(error.0.1))
    }

    fn notify(&self, _: u64, _: Ticket, _: Notice) {}
}

fn core() -> (Arc<dyn GrantSink>, Receiver<(u64, Permit)>) {
    let (sender, receiver) = channel();
    (Arc::new(Core(Mutex::new(sender))), receiver)
}

fn member(id: u64, role: Role, capacity: u32) -> Member {
    let url = BackendUrl::parse(&format!("http://10.0.0.{id}")).expect("a good URL");
    let backend = Arc::new(Backend::new(BackendId::new(id), url.endpoint().clone()));
    let attributes = Attributes { role, capacity: NonZeroU32::new(capacity), ..Attributes::default() };
    Member::new(url, backend, attributes, Arc::new(MemberState::new()))
}

fn publish(
    members: impl IntoIterator<Item = Member>,
    options: &[(&str, &str)],
    admission: &Arc<Admission>,
) -> Arc<Cluster> {
    let (options, errors) = Options::read(options.iter().copied(), &Options::default());
    assert_eq!(errors, []);
    let members = members.into_iter().collect();
    let cluster = Cluster::new("a".into(), ("x".into(), 0), members, Arc::new(options), Arc::clone(admission), NOW);
    let cluster = Arc::new(cluster);
    cluster.publish(NOW);
    cluster
}

fn cluster(members: &[(Role, u32)], options: &[(&str, &str)]) -> Arc<Cluster> {
    let members = members.iter().zip(1..).map(|((role, capacity), id)| member(id, *role, *capacity));
    publish(members, options, &Arc::default())
}

fn admit(cluster: &Arc<Cluster>) -> Option<Permit> {
    if cluster.is_queueing() { None } else { Choice::Any.take(&Arc::new(Route::new("a", Arc::clone(cluster))), NOW) }
}

fn join(cluster: &Arc<Cluster>, sink: &Arc<dyn GrantSink>, exchange: u64, choice: Choice) -> Joined {
    let route = Arc::new(Route::new("a", Arc::clone(cluster)));
    cluster.join(choice.waiter(&route, Arc::clone(sink), exchange, false), None, NOW)
}

fn waits(cluster: &Arc<Cluster>, sink: &Arc<dyn GrantSink>, exchange: u64) -> Ticket {
    match join(cluster, sink, exchange, Choice::Any) {
        Joined::Waiting { ticket, .. } => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn roles_serve_in_overload_and_outage() {
    use Role::{Active, Backup, Standby};
    let cluster = cluster(&[(Active, 1), (Standby, 1), (Backup, 1)], &[]);
    let route = Route::new("a", Arc::clone(&cluster));
    let any = Choice::Any.demand(&route);
    let open = |role| Service::Open(Turn::Role(role));
    assert_eq!(cluster.service(&any, NOW), open(Active));
    let first = cluster.try_take(0, NOW).expect("room");
    assert_eq!(cluster.service(&any, NOW), open(Standby));
    let second = cluster.try_take(1, NOW).expect("room");
    assert_eq!(cluster.service(&any, NOW), Service::Full, "a full cluster does not spill to backup");
    cluster.members[0].state.set_down(true, NOW);
    assert_eq!(cluster.service(&any, NOW), Service::Full);
    cluster.members[1].state.set_down(true, NOW);
    assert_eq!(cluster.service(&any, NOW), open(Backup));
    cluster.members[2].state.set_disabled(true, NOW);
    assert_eq!(cluster.service(&any, NOW), Service::Unavailable);
    drop((first, second));
    assert_eq!(cluster.admission.in_flight(), 0);
}

#[test]
fn a_slot_goes_to_the_oldest_and_past_a_core_that_is_gone() {
    let cluster = cluster(&[(Role::Active, 1)], &[]);
    let permit = admit(&cluster).expect("room");
    let (gone, receiver) = core();
    drop(receiver);
    let (sink, grants) = core();
    for (sink, exchange) in [(&gone, 1), (&sink, 2), (&sink, 3)] {
        waits(&cluster, sink, exchange);
    }
    drop(permit);
    let (exchange, permit) = grants.try_recv().expect("a grant");
    assert_eq!(exchange, 2);
    assert!(grants.try_recv().is_err());
    assert!(admit(&cluster).is_none(), "a newcomer waits behind those who wait");
    drop(permit);
    drop(grants.try_recv().expect("a grant").1);
    assert_eq!((cluster.admission.in_flight(), cluster.admission.waiting()), (0, 0));
    assert_eq!((cluster.admission.queued(), cluster.admission.dropped()), (3, 0));
}

#[test]
fn who_leaves_is_passed_over_and_the_queue_has_an_end() {
    let cluster = cluster(&[(Role::Active, 1)], &[("queueLimit", "2")]);
    let permit = admit(&cluster).expect("room");
    let (sink, grants) = core();
    let first = waits(&cluster, &sink, 1);
    waits(&cluster, &sink, 2);
    assert!(matches!(join(&cluster, &sink, 3, Choice::Any), Joined::Refused));
    assert!(cluster.admission.leave(first));
    waits(&cluster, &sink, 4);
    drop(permit);
    let order: Vec<_> = std::iter::from_fn(|| grants.try_recv().ok()).map(|(exchange, _)| exchange).collect();
    assert_eq!(order, [2, 4]);
    assert_eq!(cluster.admission.dropped(), 1);
}

#[test]
fn a_request_that_cannot_use_a_slot_holds_up_no_other() {
    let cluster = cluster(&[(Role::Active, 1), (Role::Active, 1)], &[]);
    let [one, two] = [0, 1].map(|place| cluster.try_take(place, NOW).expect("room"));
    let (sink, grants) = core();
    let except = |id| Choice::Except([BackendId::new(id)].into());
    assert!(matches!(join(&cluster, &sink, 1, except(1)), Joined::Waiting { .. }));
    assert!(matches!(join(&cluster, &sink, 2, Choice::Only(BackendId::new(2))), Joined::Waiting { .. }));
    waits(&cluster, &sink, 3);
    drop(one);
    let (exchange, third) = grants.try_recv().expect("a grant");
    assert_eq!((exchange, third.place()), (3, 0), "the first two have no use for it");
    drop(two);
    let (exchange, first) = grants.try_recv().expect("a grant");
    assert_eq!((exchange, first.place()), (1, 1));
    drop(third);
    assert!(grants.try_recv().is_err(), "the one that is left waits for the second member");
    match join(&cluster, &sink, 4, Choice::Any) {
        Joined::Permit(permit) => assert_eq!(permit.place(), 0, "a newcomer takes what the one that waits cannot use"),
        other => panic!("{other:?}"),
    }
    drop(first);
    assert_eq!(grants.try_recv().expect("a grant").0, 2);
}

#[test]
fn more_room_is_taken_at_once_and_less_takes_nothing_back() {
    let old = cluster(&[(Role::Active, 1)], &[]);
    let _held = admit(&old).expect("room");
    let (sink, grants) = core();
    (0..3).for_each(|exchange| _ = waits(&old, &sink, exchange));
    let edit = |capacity| {
        let mut member = old.members[0].clone();
        member.attributes.capacity = NonZeroU32::new(capacity);
        publish([member], &[], &old.admission)
    };
    let _wide = edit(3);
    let permits: Vec<_> = grants.try_iter().collect();
    assert_eq!(permits.iter().map(|(exchange, _)| *exchange).collect::<Vec<_>>(), [0, 1]);
    let narrow = edit(2);
    drop(permits);
    assert_eq!(grants.try_iter().count(), 1, "one of two is let go before there is room for one");
    assert!(narrow.try_take(0, NOW).is_some());
}

#[test]
fn a_member_that_comes_up_takes_as_many_as_it_has_room_for() {
    let cluster = cluster(&[(Role::Active, 1), (Role::Active, 2)], &[]);
    cluster.members[1].state.set_down(true, NOW);
    let _held = admit(&cluster).expect("room");
    let (sink, grants) = core();
    (0..3).for_each(|exchange| _ = waits(&cluster, &sink, exchange));
    cluster.members[1].state.set_down(false, NOW);
    cluster.serve(NOW);
    let granted: Vec<_> = grants.try_iter().collect();
    assert_eq!(
        granted.iter().map(|(exchange, permit)| (*exchange, permit.place())).collect::<Vec<_>>(),
        [(0, 1), (1, 1)]
    );
}

#[test]
fn tunnels_have_a_limit_of_their_own() {
    let cluster = cluster(&[(Role::Active, 1)], &[("maxTunnels", "1")]);
    let mut tunnel = admit(&cluster).expect("room");
    assert!(tunnel.reserve_tunnel());
    tunnel.give_back(true, NOW);
    let mut other = admit(&cluster).expect("a tunnel holds no slot");
    assert!(!other.reserve_tunnel());
    assert_eq!((cluster.admission.in_flight(), cluster.admission.tunnels()), (1, 1));
    drop(tunnel);
    assert!(other.reserve_tunnel());
    other.give_back(false, NOW);
    assert_eq!((cluster.admission.in_flight(), cluster.admission.tunnels()), (0, 0));
}

#[test]
fn threads_never_exceed_the_capacity_and_lose_no_slot() {
    const THREADS: u64 = 4;
    const REQUESTS: u64 = 5_000;
    let cluster = cluster(&[(Role::Active, 2), (Role::Active, 1)], &[("maxRequests", "2")]);
    let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let serve = |permit: Permit| {
        most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::hint::spin_loop();
        held.fetch_sub(1, Ordering::SeqCst);
        drop(permit);
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let (sink, grants) = core();
                for exchange in 0..REQUESTS {
                    if let Some(permit) = admit(&cluster) {
                        serve(permit);
                        continue;
                    }
                    match join(&cluster, &sink, exchange, Choice::Any) {
                        Joined::Permit(permit) => serve(permit),
                        Joined::Waiting { .. } => {
                            let grant = grants.recv_timeout(Duration::from_secs(60));
                            serve(grant.expect("a waiter was forgotten").1);
                        }
                        other => panic!("the queue is long enough: {other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!((cluster.admission.in_flight(), cluster.admission.waiting()), (0, 0));
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?}");
}

/// The notices of one core.
#[derive(Debug, Default)]
struct Notices(Mutex<Vec<(u64, Notice)>>);

impl GrantSink for Notices {
    fn grant(&self, _: u64, _: Ticket, granted: Granted) -> Result<(), Granted> {
        Err(granted)
    }

    fn notify(&self, exchange: u64, _: Ticket, notice: Notice) {
        self.0.lock().expect("a lock").push((exchange, notice));
    }
}

impl Notices {
    fn take(&self) -> Vec<(u64, Notice)> {
        std::mem::take(&mut *self.0.lock().expect("a lock"))
    }
}

fn join_at(route: &Arc<Route>, sink: &Arc<dyn GrantSink>, exchange: u64, ticket: Option<Ticket>) -> Joined {
    route.cluster.join(Choice::Any.waiter(route, Arc::clone(sink), exchange, false), ticket, NOW)
}

#[test]
fn a_request_waits_for_the_last_resort() {
    let cluster = cluster(&[(Role::Active, 1), (Role::Active, 1)], &[]);
    let route = Arc::new(Route::new("a", Arc::clone(&cluster)));
    let held = [0, 1].map(|place| cluster.try_take(place, NOW).expect("room"));
    route.marks.iter().for_each(|mark| mark.mark_dead(NOW + Duration::from_secs(9)));
    let (sink, grants) = core();
    assert!(matches!(join_at(&route, &sink, 1, None), Joined::Waiting { .. }));
    let [_busy, freed] = held;
    drop(freed);
    let (exchange, permit) = grants.try_recv().expect("a grant");
    assert_eq!((exchange, permit.place()), (1, 1));
    assert!(permit.suits(&Choice::Any.demand(&route), NOW), "its mark is this node's own");
    route.marks[1].mark_dead_external(NOW + Duration::from_secs(9));
    assert!(!permit.suits(&Choice::Any.demand(&route), NOW), "a mark of others is no guess");
}

#[test]
fn a_request_that_waits_heeds_the_marks_of_the_moment() {
    for ends_early in [true, false] {
        let cluster = cluster(&[(Role::Active, 1), (Role::Active, 1)], &[]);
        let route = Arc::new(Route::new("a", Arc::clone(&cluster)));
        let _busy = cluster.try_take(0, NOW).expect("room");
        let end = NOW + Duration::from_secs(9);
        route.marks[1].mark_dead_external(end);
        let (sink, grants) = core();
        assert!(matches!(join_at(&route, &sink, 1, None), Joined::Waiting { .. }));
        if ends_early {
            route.marks[1].mark_dead_external(NOW);
            // The next request finds room, but is second in order.
            assert!(matches!(join_at(&route, &sink, 2, None), Joined::Waiting { .. }));
        } else {
            assert_eq!(cluster.admission.poll(NOW), Moment::NEVER, "nothing rises");
            assert!(grants.try_recv().is_err());
            cluster.admission.poll(end);
        }
        let (exchange, permit) = grants.try_recv().expect("a grant");
        assert_eq!((exchange, permit.place()), (1, 1), "ends early: {ends_early}");
    }
}

#[test]
fn one_request_looks_for_room_on_behalf_of_all() {
    let cluster = cluster(&[(Role::Active, 4)], &[("slowStart", "10s")]);
    let at = |millis: u64| NOW + Duration::from_millis(millis);
    cluster.members[0].state.set_down(true, at(1));
    cluster.members[0].state.set_down(false, at(1));
    let _busy = cluster.try_take(0, at(1)).expect("room");
    let (sink, grants) = core();
    (0..3).for_each(|exchange| _ = waits(&cluster, &sink, exchange));
    cluster.serve(at(1));
    assert!(cluster.admission.is_ramping(at(1)));
    assert_eq!(cluster.admission.poll(at(4_000)), at(4_100));
    let granted: Vec<_> = grants.try_iter().collect();
    assert_eq!(granted.iter().map(|(exchange, _)| *exchange).collect::<Vec<_>>(), [0], "one more of four");
    assert_eq!(cluster.admission.poll(at(4_050)), at(4_100), "it was looked for just now");
    assert_eq!(cluster.admission.poll(at(11_000)), Moment::NEVER);
    assert_eq!(grants.try_iter().collect::<Vec<_>>().len(), 2);
}

#[test]
fn a_full_queue_refuses_no_request_with_room() {
    let cluster = cluster(&[(Role::Active, 1), (Role::Active, 0)], &[("queueLimit", "1")]);
    let _busy = cluster.try_take(0, NOW).expect("room");
    let (sink, _grants) = core();
    let named = |exchange| join(&cluster, &sink, exchange, Choice::Only(BackendId::new(1)));
    assert!(matches!(named(1), Joined::Waiting { is_new: true, .. }));
    assert!(matches!(named(2), Joined::Refused));
    for exchange in 3..9 {
        assert!(matches!(join(&cluster, &sink, exchange, Choice::Any), Joined::Permit(_)), "{exchange}");
    }
    assert_eq!((cluster.admission.queued(), cluster.admission.dropped()), (1, 1), "who got a slot has not waited");
}

#[test]
fn a_request_that_comes_back_has_its_place_again() {
    let cluster = cluster(&[(Role::Active, 1)], &[("queueLimit", "2")]);
    let busy = cluster.try_take(0, NOW).expect("room");
    let (sink, grants) = core();
    let route = Arc::new(Route::new("a", Arc::clone(&cluster)));
    let Joined::Waiting { ticket: first, .. } = join_at(&route, &sink, 1, None) else { panic!("no room") };
    assert!(matches!(join_at(&route, &sink, 2, None), Joined::Waiting { .. }));
    drop(busy);
    let (_, permit) = grants.try_recv().expect("a grant");
    assert!(matches!(join_at(&route, &sink, 3, None), Joined::Waiting { .. }));
    let back = join_at(&route, &sink, 1, Some(first));
    assert!(matches!(back, Joined::Waiting { ticket, is_new: false } if ticket == first), "{back:?}");
    drop(permit);
    assert_eq!(grants.try_recv().expect("a grant").0, 1);
    let other = self::cluster(&[(Role::Active, 1)], &[]);
    let _busy = other.try_take(0, NOW).expect("room");
    assert_ne!(waits(&other, &sink, 4), first, "no ticket of another queue is the same");
}

#[test]
fn a_retry_comes_before_those_that_arrived_later_and_is_not_refused() {
    let cluster = cluster(&[(Role::Active, 1), (Role::Active, 1)], &[("queueLimit", "2")]);
    let at = |millis: u64| NOW + Duration::from_millis(millis);
    let route = Arc::new(Route::new("a", Arc::clone(&cluster)));
    let (sink, grants) = core();
    let join = |exchange: u64, choice: Choice| {
        let waiter = choice.waiter(&route, Arc::clone(&sink), exchange, false);
        cluster.join(Waiter { arrived: at(exchange), ..waiter }, None, at(50))
    };
    let [mut first, second] = [0, 1].map(|place| cluster.try_take(place, at(1)).expect("room"));
    (2..4).for_each(|exchange| assert!(matches!(join(exchange, Choice::Any), Joined::Waiting { .. })));
    assert!(matches!(join(4, Choice::Any), Joined::Refused), "the queue is full");
    // The first member fails its request, whose slot the second request gets.
    assert!(first.leave_member(at(50)).is_none());
    let (exchange, _held) = grants.try_recv().expect("a grant");
    assert_eq!(exchange, 2);
    join(5, Choice::Any);
    let retried = join(1, Choice::Except([BackendId::new(1)].into()));
    assert!(matches!(retried, Joined::Waiting { is_new: true, .. }), "{retried:?}");
    drop(second);
    assert_eq!(grants.try_recv().expect("a grant").0, 1, "it goes before 3 and 5");
}

#[test]
fn waiting_requests_get_a_notice_when_unavailable_and_when_to_look_again() {
    let before = cluster(&[(Role::Active, 1), (Role::Active, 1)], &[]);
    let _busy = [0, 1].map(|place| before.try_take(place, NOW).expect("room"));
    let notices = Arc::new(Notices::default());
    let sink = Arc::clone(&notices) as Arc<dyn GrantSink>;
    waits(&before, &sink, 1);
    assert!(matches!(join(&before, &sink, 2, Choice::Only(BackendId::new(2))), Joined::Waiting { .. }));
    let members = |count| before.members[..count].iter().cloned();
    let one = publish(members(1), &[], &before.admission);
    assert_eq!(notices.take(), [(2, Notice::Unavailable)], "the one that it names has left");
    one.members[0].state.set_disabled(true, NOW);
    one.serve(NOW);
    let mut told = notices.take();
    told.sort_by_key(|(exchange, _)| *exchange);
    assert_eq!(told, [(1, Notice::Unavailable), (2, Notice::Unavailable)]);
    assert!(matches!(join(&one, &sink, 3, Choice::Any), Joined::Unavailable));
    let patient = publish(members(1), &[("enqueueOnUnavailable", "true")], &before.admission);
    assert_eq!(notices.take(), [(2, Notice::Unavailable)], "the others may wait for a member");
    let _closed = publish(members(1), &[("disabled", "true")], &before.admission);
    assert_eq!(notices.take().len(), 2);
    patient.members[0].state.set_disabled(false, NOW + Duration::from_secs(1));
    let _rising = publish(members(1), &[("slowStart", "10s")], &before.admission);
    assert!(notices.take().contains(&(1, Notice::Poll)));
}
