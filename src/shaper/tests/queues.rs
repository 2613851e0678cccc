//! Queues: limits, departures and order.

use super::{Bench, NO_QUEUE, QUEUE};
use crate::base::clock::Moment;
use crate::shaper::{Admission, BucketId, Departure, QueueLimits, WaiterKey};
use std::time::Duration;

fn key(admission: &Admission) -> WaiterKey {
    match admission {
        Admission::Queued { key, .. } => *key,
        other => panic!("{other:?}, and no place in a queue"),
    }
}

#[test]
fn a_full_queue_refuses_and_each_bucket_has_its_own() {
    let text = r#"{"a": {"share": "10 %", "queueLimit": 2}, "b": {"share": "10 %", "queueLimit": 0}, "c": "10 %"}"#;
    let bench = Bench::new(10, text, QueueLimits { limit: 1, timeout: Duration::from_secs(9) });
    for (bucket, limit) in [("a", 2), ("b", 0), ("c", 1)] {
        assert!(matches!(bench.admit(bucket, 0), Admission::Token(_)), "{bucket}");
        for waiter in 0..limit {
            bench.enqueue(bucket, waiter);
        }
        assert_eq!(bench.admit(bucket, 99), Admission::QueueFull, "{bucket}");
        let view = bench.view(bucket);
        assert_eq!((view.queued, view.queued_max, view.refused, view.taken), (limit, limit, 1, 1), "{bucket}");
    }
    assert!(matches!(bench.admit("root", 0), Admission::Token(_)), "others' queues are no matter of the root's");
}

#[test]
fn the_deadline_is_the_queues() {
    let bench = Bench::new(0, r#"{"a": {"share": "10 %", "queueTimeout": 2.5}}"#, QUEUE);
    let deadline_of = |admission| match admission {
        Admission::Queued { deadline, .. } => deadline,
        other => panic!("{other:?}"),
    };
    assert_eq!(deadline_of(bench.admit("a", 1)), Moment::from_micros(2_500_000));
    assert_eq!(deadline_of(bench.admit("root", 1)), Moment::from_micros(60_000_000));
}

#[test]
fn a_waiter_leaves_from_any_place() {
    for gone in 0..4 {
        let bench = Bench::new(1, "{}", QUEUE);
        let mut token = Some(match bench.admit("root", 0) {
            Admission::Token(token) => token,
            other => panic!("{other:?}"),
        });
        let keys: Vec<_> = (0..4).map(|waiter| key(&bench.admit("root", waiter))).collect();
        assert_eq!(bench.shaper.cancel(keys[gone], Departure::Left), Some(u32::try_from(gone).expect("small")));
        assert_eq!(bench.shaper.cancel(keys[gone], Departure::Left), None, "it is there once");
        let mut order = Vec::new();
        while let Some(held) = token.take() {
            for (waiter, next) in bench.give_back(held) {
                order.push(waiter);
                token = Some(next);
            }
        }
        let expected: Vec<_> = (0..4).filter(|waiter| *waiter as usize != gone).collect();
        assert_eq!(order, expected);
        let view = bench.view("root");
        assert_eq!((view.left, view.timed_out, view.queued, view.held, view.queued_total), (1, 0, 0, 0, 4));
        assert_eq!(bench.shaper.cancel(keys[(gone + 1) % 4], Departure::TimedOut), None, "it has its token");
    }
}

#[test]
fn waits_are_measured() {
    let mut bench = Bench::new(1, "{}", QUEUE);
    let Admission::Token(token) = bench.admit("root", 0) else { panic!("no token") };
    bench.enqueue("root", 1);
    bench.now = Moment::from_micros(1_500);
    assert_eq!(bench.give_back(token).len(), 1);
    let view = bench.view("root");
    assert_eq!((view.waits, view.waited), (1, Duration::from_micros(1_500)));
}

/// A class at its ceil does not block the others, and no request overtakes another in its own queue.
#[test]
fn arrivals_do_not_wait_for_a_class_at_its_ceil() {
    let bench = Bench::new(10, r#"{"jail": "1..2 t", "vip": "50..100 %"}"#, QUEUE);
    let jail: Vec<_> = (0..2).map(|waiter| bench.admit("jail", waiter)).collect();
    bench.enqueue("jail", 7);
    for waiter in 0..8 {
        assert!(matches!(bench.admit("vip", waiter), Admission::Token(_)), "{waiter}");
    }
    bench.enqueue("vip", 8);
    for admission in jail {
        let Admission::Token(token) = admission else { panic!("no token") };
        drop(bench.give_back(token));
    }
    assert_eq!((bench.view("jail").queued, bench.view("vip").queued), (0, 0), "7 below its rate, then 8");
    bench.enqueue("jail", 9);
    bench.enqueue("jail", 10);
}

#[test]
fn more_waiters_than_one_batch_are_served_at_once() {
    let bench = Bench::new(0, "{}", QUEUE);
    (0..100).for_each(|waiter| bench.enqueue("root", waiter));
    let order: Vec<_> = bench.resize(70).into_iter().map(|(waiter, _)| waiter).collect();
    assert_eq!(order, (0..70).collect::<Vec<_>>());
    assert_eq!(bench.shaper.queued(), 30);
}

#[test]
fn the_root_may_shrink_below_what_is_held() {
    let bench = Bench::new(10, r#"{"vip": "50..100 %"}"#, QUEUE);
    let mut tokens: Vec<_> = (0..10).map(|waiter| bench.admit("vip", waiter)).collect();
    assert_eq!(bench.resize(4), []);
    assert_eq!((bench.view("root").held, bench.view("root").limit), (10, 4));
    bench.enqueue("vip", 10);
    for left in (3..10).rev() {
        let Some(Admission::Token(token)) = tokens.pop() else { panic!("no token") };
        let granted = bench.give_back(token);
        assert_eq!(granted.len(), usize::from(left == 3), "{left} of 4 held");
    }
    assert_eq!(bench.view("root").held, 4);
}

#[test]
fn a_tree_of_no_tokens_grants_none() {
    let bench = Bench::new(0, r#"{"vip": "5..20 %", "jail": "1..5 t"}"#, NO_QUEUE);
    for bucket in ["root", "vip", "jail"] {
        assert_eq!(bench.take(bucket), None, "{bucket}");
    }
    assert_eq!(bench.shaper.admit(BucketId::UNCLASSIFIED, 1, bench.now, |_, _| {}), Admission::QueueFull);
}

#[test]
fn a_share_of_less_than_a_token_may_use_one() {
    let bench =
        Bench::new(3, r#"{"vip": "5..20 %", "main": {"share": "20..30 %", "buckets": {"upload": "10 %"}}}"#, NO_QUEUE);
    for bucket in ["vip", "main", "upload"] {
        assert_eq!(bench.sizes(bucket), (0, 0), "{bucket}");
        let tokens = bench.take_all(bucket);
        assert_eq!(tokens.len(), 1, "{bucket}");
        tokens.into_iter().for_each(|token| drop(bench.give_back(token)));
    }
}
