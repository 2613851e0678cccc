//! Changes to a tree in use.

use super::{Bench, QUEUE, spec};
use crate::shaper::{Admission, BucketId, Shaper, Token};

fn apply(bench: &Bench, text: &str) -> Vec<(u32, Token)> {
    let mut granted = Vec::new();
    let size = bench.view("root").rate;
    let applied =
        bench.shaper.apply(size, &spec(text), QUEUE, bench.now, |waiter, token| granted.push((waiter, token)));
    applied.expect("room for it");
    granted
}

fn tokens(bench: &Bench, bucket: &str, count: u32) -> Vec<Token> {
    let take = |waiter| match bench.admit(bucket, waiter) {
        Admission::Token(token) => token,
        other => panic!("{bucket}: {other:?}"),
    };
    (0..count).map(take).collect()
}

fn names(bench: &Bench) -> Vec<String> {
    bench.shaper.snapshot().into_iter().map(|view| view.name).collect()
}

#[test]
fn what_stays_keeps_its_tokens_queue_and_identity() {
    let bench = Bench::new(10, r#"{"a": "10..30 %", "b": "10..20 %"}"#, QUEUE);
    let held = tokens(&bench, "a", 3);
    bench.enqueue("a", 7);
    let id = bench.shaper.bucket("a");
    assert_eq!(apply(&bench, r#"{"c": "10 %", "a": "20..30 %"}"#), []);
    assert_eq!(names(&bench), ["root", "c", "a"], "in the order of the spec");
    assert_eq!(bench.shaper.bucket("a"), id);
    let view = bench.view("a");
    assert_eq!((view.held, view.queued, view.taken, view.rate), (3, 1, 3, 2));
    assert_eq!(apply(&bench, r#"{"a": "20..40 %"}"#).len(), 1, "a higher ceil lets the waiter through");
    assert_eq!(apply(&bench, r#"{"a": "10..20 %"}"#), []);
    assert_eq!((bench.view("a").held, bench.view("a").limit), (4, 2), "nothing is taken back");
    held.into_iter().for_each(|token| drop(bench.give_back(token)));
    assert_eq!(bench.view("a").held, 1);
}

#[test]
fn a_deleted_bucket_drains_first() {
    let bench = Bench::new(10, r#"{"a": "10..30 %", "b": "10..20 %"}"#, QUEUE);
    let old = bench.shaper.bucket("a").expect("a bucket");
    let mut held = tokens(&bench, "a", 3);
    bench.enqueue("a", 7);
    apply(&bench, r#"{"b": "10..20 %"}"#);
    let view = bench.view("a");
    assert!(view.is_draining);
    assert_eq!((view.held, view.queued, view.rate), (3, 1, 0));
    assert_eq!(bench.shaper.bucket("a"), None);
    // A request classified before the change has no bucket any more.
    let Admission::Token(token) = bench.shaper.admit(old, 8, bench.now, |_, _| {}) else { panic!("no token") };
    assert_eq!((bench.view("a").held, bench.view("root").held), (3, 4));
    // A bucket of the same name that is added later is a different one.
    apply(&bench, r#"{"b": "10..20 %", "a": "50 %"}"#);
    assert_ne!(bench.shaper.bucket("a"), Some(old));
    let mut granted = bench.give_back(held.remove(0));
    assert_eq!(granted.iter().map(|(waiter, _)| *waiter).collect::<Vec<_>>(), [7], "those that wait in it are served");
    held.extend(granted.pop().map(|(_, token)| token));
    assert_eq!(names(&bench), ["root", "b", "a", "a"]);
    held.into_iter().chain([token]).for_each(|token| drop(bench.give_back(token)));
    assert_eq!(names(&bench), ["root", "b", "a"]);
    assert_eq!((bench.view("root").held, bench.view("a").is_draining), (0, false));
}

#[test]
fn a_deleted_branch_drains_from_its_leaves() {
    let nested = r#"{"main": {"share": "50..70 %", "buckets": {"upload": "50 %", "deep": {"share": "10 %", "buckets": {"x": "1 t"}}}}}"#;
    let bench = Bench::new(100, nested, QUEUE);
    let held: Vec<_> = ["main", "upload", "deep", "x"].into_iter().flat_map(|name| tokens(&bench, name, 1)).collect();
    apply(&bench, "{}");
    assert_eq!(names(&bench).len(), 5);
    for (left, token) in (0..4).rev().zip(held) {
        bench.give_back(token);
        assert_eq!(bench.view("root").held, left);
    }
    assert_eq!(names(&bench), ["root"]);
    apply(&bench, nested);
    assert_eq!(names(&bench).len(), 5);
    assert_eq!(bench.view("main").held, 0);
}

#[test]
fn a_leaf_that_gets_buckets_is_another_bucket() {
    let bench = Bench::new(10, r#"{"main": "50..70 %"}"#, QUEUE);
    let held = tokens(&bench, "main", 2);
    apply(&bench, r#"{"main": {"share": "50..70 %", "buckets": {"upload": "50 %"}}}"#);
    assert_eq!(names(&bench), ["root", "main", "upload", "main"]);
    assert_eq!((bench.view("main").held, bench.view("root").held), (0, 2));
    held.into_iter().for_each(|token| drop(bench.give_back(token)));
    assert_eq!(names(&bench), ["root", "main", "upload"]);
}

#[test]
fn nodes_are_used_again_and_too_many_in_use_are_refused() {
    let bench = Bench::new(1_000, "{}", QUEUE);
    let many = |round: u32| {
        let buckets: Vec<_> = (0..60).map(|number| format!(r#""{round}-{number}": "1 %""#)).collect();
        format!("{{{}}}", buckets.join(", "))
    };
    for round in 0..10 {
        apply(&bench, &many(round));
        let held = tokens(&bench, &format!("{round}-59"), 1);
        held.into_iter().for_each(|token| drop(bench.give_back(token)));
    }
    let held: Vec<_> = (0..60).flat_map(|number| tokens(&bench, &format!("9-{number}"), 1)).collect();
    apply(&bench, &many(10));
    let held_too: Vec<_> = (0..60).flat_map(|number| tokens(&bench, &format!("10-{number}"), 1)).collect();
    let refused = bench.shaper.apply(1_000, &spec(&many(11)), QUEUE, bench.now, |_, _| {});
    assert!(refused.expect_err("there is no room").to_string().contains("still have requests in flight"));
    assert!(bench.shaper.bucket("10-0").is_some(), "the tree stays as it was");
    held.into_iter().chain(held_too).for_each(|token| drop(bench.give_back(token)));
    apply(&bench, &many(11));
    assert_eq!((names(&bench).len(), bench.view("root").held), (61, 0));
}

#[test]
fn the_largest_tree_fits() {
    // 30 buckets, each with one in it: two nodes for the outer bucket, one for the inner.
    let buckets: Vec<_> =
        (0..30).map(|number| format!(r#""{number}": {{"share": "1 %", "buckets": {{"{number}i": "1 %"}}}}"#)).collect();
    let shaper = Shaper::<u32>::new(100, &spec(&format!("{{{}}}", buckets.join(", "))), QUEUE);
    assert_eq!(shaper.snapshot().len(), 61);
    assert_eq!(shaper.bucket("root"), Some(BucketId::UNCLASSIFIED));
}
