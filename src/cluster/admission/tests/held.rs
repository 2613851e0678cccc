//! Requests that are held while their frontend is disabled.

use super::*;

#[test]
fn held_requests_go_in_order_and_not_all_at_once() {
    let admission = Arc::default();
    let list = |options: &[(&str, &str)], now: Moment| {
        let (options, _) = Options::read(options.iter().copied(), &Options::default());
        let members = Box::new([member(1, Role::Active, 0)]);
        let cluster = Cluster::new("a".into(), ("x".into(), 0), members, options.into(), Arc::clone(&admission), now);
        let cluster = Arc::new(cluster);
        cluster.publish(now);
        cluster
    };
    let at = |millis: u64| NOW + Duration::from_millis(millis);
    let held = list(&[("disabled", "true"), ("hold", "true"), ("queueLimit", "30")], at(0));
    let (sink, grants) = core();
    let tickets: Vec<_> = (0..30).map(|exchange| waits(&held, &sink, exchange)).collect();
    assert!(matches!(join(&held, &sink, 99, Choice::Any), Joined::Refused), "there are only so many");
    assert!(admission.leave(tickets[3]), "its client has left");
    admission.serve(at(1));
    assert!(grants.try_recv().is_err() && admission.is_closed());
    let opened = list(&[], at(5000));
    let mut permits = Vec::new();
    let mut gone = |now: Moment| {
        admission.poll(now);
        let new: Vec<_> = grants.try_iter().collect();
        let numbers: Vec<u64> = new.iter().map(|(exchange, _)| *exchange).collect();
        permits.extend(new);
        numbers
    };
    assert_eq!(gone(at(5000)), [0, 1, 2, 4]);
    assert!(admission.is_ramping(at(5000)), "those that wait look again");
    // A new request waits behind the others, as does one that finds a returned slot.
    assert!(opened.is_queueing());
    waits(&opened, &sink, 30);
    drop(opened.try_take(0, at(5010)));
    assert_eq!(gone(at(5050)), [0; 0]);
    assert_eq!(gone(at(5100)), [5, 6, 7, 8]);
    assert_eq!(gone(at(5200)), (9..17).collect::<Vec<_>>());
    assert_eq!(gone(at(5300)), (17..31).collect::<Vec<_>>());
    assert!(!opened.is_queueing());
    assert!(admit(&opened).is_some(), "as ever");
}

#[test]
fn a_frontend_that_is_disabled_again_keeps_the_rest() {
    let admission = Arc::default();
    let list = |options: &[(&str, &str)]| publish([member(1, Role::Active, 0)], options, &admission);
    let held = list(&[("disabled", "true"), ("hold", "true")]);
    let (sink, grants) = core();
    (0..10).for_each(|exchange| _ = waits(&held, &sink, exchange));
    let _opened = list(&[]);
    assert_eq!(grants.try_iter().count(), 4);
    let _closed = list(&[("disabled", "true"), ("hold", "true")]);
    admission.serve(NOW + Duration::from_secs(60));
    assert_eq!((grants.try_iter().count(), admission.waiting()), (0, 6));
}
