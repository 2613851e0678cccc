//! The tables of x0's own unit tests of its TokenShaper (x0d 0.10, `TokenShaper-test`), and the cases in which a shaper
//! that lends idle shares and never exceeds its root differs from x0's.

use super::{Bench, FIXTURE, NO_QUEUE, QUEUE};
use crate::base::clock::Moment;
use crate::shaper::{Admission, Departure, Spec, Token};
use std::time::Duration;

#[test]
fn computed_sizes() {
    let bench = Bench::new(10, FIXTURE, QUEUE);
    let table = [
        (10, (1, 3), (5, 7), (2, 3)),
        (100, (10, 30), (50, 70), (25, 35)),
        (200, (20, 60), (100, 140), (50, 70)),
        (1, (0, 0), (0, 0), (0, 0)),
        (2, (0, 0), (1, 1), (0, 0)),
        (3, (0, 0), (1, 2), (0, 1)),
        (4, (0, 1), (2, 2), (1, 1)),
        (9, (0, 2), (4, 6), (2, 3)),
        (11, (1, 3), (5, 7), (2, 3)),
    ];
    for (size, vip, main, upload) in table {
        bench.resize(size);
        assert_eq!(
            [bench.sizes("vip"), bench.sizes("main"), bench.sizes("upload")],
            [vip, main, upload],
            "root {size}"
        );
        assert_eq!(bench.sizes("root"), (size, size));
    }
}

#[test]
fn a_changed_share_changes_those_below() {
    let table = [
        (r#"{"main": {"share": "60..70 %", "buckets": {"upload": "50 %"}}}"#, (6, 7), (3, 3)),
        (r#"{"main": {"share": "50..80 %", "buckets": {"upload": "50 %"}}}"#, (5, 8), (2, 4)),
    ];
    for (text, main, upload) in table {
        let bench = Bench::new(10, FIXTURE, QUEUE);
        bench.shaper.apply(10, &super::spec(text), QUEUE, Moment::ZERO, |_, _| {}).expect("room for it");
        assert_eq!((bench.sizes("main"), bench.sizes("upload")), (main, upload), "{text}");
    }
}

#[test]
fn errors() {
    let vip = |share: &str, inside: &str| {
        format!(
            r#"{{"vip": {{"share": "{share}", "buckets": {{{inside}}}}},
                "main": {{"share": "50..70 %", "buckets": {{"upload": "50 %"}}}}}}"#
        )
    };
    let more = |share: &str| format!(r#"{{"more": "{share}", {}"#, &vip("10..30 %", "")[1..]);
    let table = [
        (more("41..50 %"), "rates of this bucket and its siblings add up to 101 %"),
        (more("110 %"), "the rate is over 100 %"),
        (more("-10..20 %"), "expected the assured and the greatest share"),
        (vip("10..30 %", r#""a": "100..40 %""#), "the ceil is over 100 %, below the rate"),
        (vip("10..30 %", r#""a": "100..101 %""#), "the ceil is over 100 %, below the rate"),
        (vip("10..30 %", r#""vip": "100 %""#), "another bucket of the tree has this name"),
        (vip("10..30 %", "").replace(r#""vip""#, r#""main""#), "another bucket of the tree has this name"),
        (vip("60..70 %", ""), "add up to 110 %"),
        (vip("110..120 %", ""), "the rate is over 100 %"),
        (vip("10..9 %", ""), "the ceil is over 100 %, below the rate"),
        (vip("10..110 %", ""), "the ceil is over 100 %, below the rate"),
        (vip("10..30 %", r#""root": "1 %""#), "the root of the tree is no bucket"),
    ];
    for (text, expected) in table {
        let faults = Spec::parse(&text).expect_err(&text);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert!(faults[0].problem.contains(expected), "{text}: expected {expected}, found {}", faults[0]);
    }
    assert!(Spec::parse(&more("40 %")).is_ok(), "{}", more("40 %"));
}

#[test]
fn tokens_are_counted_up_to_the_root() {
    let bench = Bench::new(10, FIXTURE, NO_QUEUE);
    let mut tokens = Vec::new();
    for (vip, root) in [((1, 0), (1, 0)), ((2, 1), (2, 0)), ((3, 2), (3, 0))] {
        tokens.push(bench.take("vip").expect("a token"));
        assert_eq!((bench.held("vip"), bench.held("root")), (vip, root));
    }
    assert_eq!(bench.take("vip"), None);
    assert_eq!((bench.held("vip"), bench.held("root")), ((3, 2), (3, 0)), "nothing has changed");
    for (vip, root) in [((2, 1), (2, 0)), ((1, 0), (1, 0)), ((0, 0), (0, 0))] {
        bench.give_back(tokens.pop().expect("a token"));
        assert_eq!((bench.held("vip"), bench.held("root")), (vip, root));
    }
    bench.resize(11);
    assert_eq!(bench.take_all("vip").len(), 3);
}

#[test]
fn waiters_leave_in_order() {
    let bench = Bench::new(10, FIXTURE, QUEUE);
    let mut tokens: Vec<_> = (0..3).map(|waiter| token(bench.admit("vip", waiter))).collect();
    bench.enqueue("vip", 100);
    assert_eq!(bench.view("vip").queued, 1);
    bench.enqueue("vip", 101);
    assert_eq!(bench.view("vip").queued, 2);
    for (waiter, queued) in [(100, 1), (101, 0)] {
        let granted = bench.give_back(tokens.remove(0));
        assert_eq!(granted.iter().map(|(waiter, _)| *waiter).collect::<Vec<_>>(), [waiter]);
        assert_eq!(bench.view("vip").queued, queued);
        tokens.extend(granted.into_iter().map(|(_, token)| token));
    }
    for token in tokens {
        assert_eq!(bench.give_back(token), []);
    }
    assert_eq!(bench.held("root"), (0, 0));
}

#[test]
fn a_waiter_is_dropped_when_its_time_has_run_out() {
    let text = r#"{"vip": {"share": "10..30 %", "queueTimeout": 1}, "main": "50..70 %"}"#;
    let bench = Bench::new(10, text, QUEUE);
    let _held: Vec<_> = (0..3).map(|waiter| token(bench.admit("vip", waiter))).collect();
    let Admission::Queued { key, deadline } = bench.admit("vip", 7) else { panic!("there is a token") };
    assert_eq!(deadline, Moment::ZERO + Duration::from_secs(1));
    assert_eq!(bench.shaper.cancel(key, Departure::TimedOut), Some(7));
    assert_eq!((bench.view("vip").queued, bench.view("vip").timed_out), (0, 1));
}

/// x0 reserves idle shares, and lets inner nodes exceed the root in sum: 3 and 2; 0; 18; 12; 10.
#[test]
fn idle_shares_are_lent_and_the_root_is_never_exceeded() {
    let two = r#"{"main": "50..100 %", "vip": "50..100 %"}"#;
    let table: [(u32, &str, &[&str], &[usize]); 5] = [
        (5, two, &["main"], &[5]),
        (10, two, &["root"], &[10]),
        (10, FIXTURE, &["root", "vip", "main", "upload"], &[10, 0, 0, 0]),
        (10, FIXTURE, &["vip", "main", "upload"], &[3, 7, 0]),
        (10, FIXTURE, &["upload", "main", "vip", "root"], &[3, 4, 3, 0]),
    ];
    for (size, text, order, expected) in table {
        let bench = Bench::new(size, text, NO_QUEUE);
        let taken: Vec<_> = order.iter().map(|bucket| bench.take_all(bucket)).collect();
        assert_eq!(taken.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{order:?} of {size}");
        assert_eq!(
            bench.held("root").0,
            taken.iter().map(|tokens| u32::try_from(tokens.len()).expect("few")).sum::<u32>()
        );
    }
}

#[test]
fn lent_tokens_come_back_with_the_next_ones_freed() {
    let bench = Bench::new(5, r#"{"main": "50..100 %", "vip": "50..100 %"}"#, QUEUE);
    let mut main: Vec<_> = (0..5).map(|waiter| token(bench.admit("main", waiter))).collect();
    (10..14).for_each(|waiter| bench.enqueue("main", waiter));
    (20..24).for_each(|waiter| bench.enqueue("vip", waiter));
    let next: Vec<_> = main.drain(..2).flat_map(|token| bench.give_back(token)).collect();
    assert_eq!(next.iter().map(|(waiter, _)| *waiter).collect::<Vec<_>>(), [20, 21]);
    assert_eq!((bench.held("main"), bench.held("vip")), ((3, 1), (2, 0)));
}

fn token(admission: Admission) -> Token {
    match admission {
        Admission::Token(token) => token,
        other => panic!("{other:?} and no token"),
    }
}
