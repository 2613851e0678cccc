use crate::base::clock::Moment;
use crate::cache::collapse::{FillId, Fills, Handover, Joined, UnderWay};
use std::collections::HashMap;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Moment {
    Moment::from_micros(seconds * 1_000_000)
}

/// A response whose last byte arrived at this time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Live(u64);

impl UnderWay for Live {
    fn moved_at(&self) -> Moment {
        at(self.0)
    }
}

type TestFills = Fills<u64, Live>;

fn lead(joined: Joined<Live>) -> FillId {
    match joined {
        Joined::Lead(id) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_fills_and_the_others_get_it() {
    let mut fills = TestFills::default();
    let id = lead(fills.join(&b"k"[..], 0, true, TIMEOUT, at(0)));
    for waiter in 1..=3 {
        assert_eq!(fills.join(&b"k"[..], waiter, true, TIMEOUT, at(waiter)), Joined::Wait(at(10)));
    }
    fills.leave(b"k", &2);
    assert_eq!(fills.end(b"k", id), [1, 3]);
    assert_eq!(fills.under_way(), 0);
    lead(fills.join(&b"k"[..], 5, true, TIMEOUT, at(5)));
}

#[test]
fn a_fill_that_dies_hands_over_and_three_release() {
    let mut fills = TestFills::default();
    let first = lead(fills.join(&b"k"[..], 0, true, TIMEOUT, at(0)));
    for waiter in 1..=4 {
        assert_eq!(fills.join(&b"k"[..], waiter, true, TIMEOUT, at(0)), Joined::Wait(at(10)));
    }
    let Handover::Next(1, second) = fills.failed(b"k", first) else { panic!("the next one fills") };
    // Later reports of the dead fill are ignored.
    assert!(fills.end(b"k", first).is_empty());
    assert_eq!(fills.failed(b"k", first), Handover::Release(vec![]));
    let Handover::Next(2, third) = fills.failed(b"k", second) else { panic!("the next one fills") };
    assert_eq!(fills.failed(b"k", third), Handover::Release(vec![3, 4]));
    assert_eq!(fills.under_way(), 0);
}

/// The timeout of a fill that was passed on starts with its new owner.
#[test]
fn a_fill_that_was_handed_over_starts_again() {
    let mut fills = TestFills::default();
    let first = lead(fills.join(&b"k"[..], 0, true, TIMEOUT, at(0)));
    fills.join(&b"k"[..], 1, true, TIMEOUT, at(0));
    let Handover::Next(1, second) = fills.failed(b"k", first) else { panic!("the next one fills") };
    fills.begin(b"k", first, at(7));
    fills.begin(b"k", second, at(8));
    assert_eq!(fills.join(&b"k"[..], 2, true, TIMEOUT, at(17)), Joined::Wait(at(18)));
}

/// A request whose response may differ from others waits, but others do not wait for it.
#[test]
fn a_request_that_may_not_lead_waits_or_goes_by_itself() {
    let mut fills = TestFills::default();
    assert_eq!(fills.join(&b"k"[..], 0, false, TIMEOUT, at(0)), Joined::Pass);
    let id = lead(fills.join(&b"k"[..], 1, true, TIMEOUT, at(0)));
    assert_eq!(fills.join(&b"k"[..], 2, false, TIMEOUT, at(1)), Joined::Wait(at(10)));
    assert_eq!(fills.join(&b"k"[..], 3, false, TIMEOUT, at(10)), Joined::Pass, "it replaces no fill");
    assert_eq!(fills.end(b"k", id), [2]);
}

#[test]
fn an_uncacheable_response_releases_all_and_ends_waiting_for_a_while() {
    let mut fills = TestFills::default();
    let id = lead(fills.join(&b"k"[..], 0, true, TIMEOUT, at(0)));
    fills.join(&b"k"[..], 1, true, TIMEOUT, at(0));
    assert_eq!(fills.uncacheable(b"k", id, at(1)), [1]);
    assert_eq!(fills.join(&b"k"[..], 2, true, TIMEOUT, at(10)), Joined::Pass);
    lead(fills.join(&b"other"[..], 3, true, TIMEOUT, at(10)));
    lead(fills.join(&b"k"[..], 4, true, TIMEOUT, at(11)));
}

#[test]
fn a_fill_that_never_ends_is_replaced() {
    let mut fills = TestFills::default();
    let first = lead(fills.join(&b"k"[..], 0, true, TIMEOUT, at(0)));
    assert_eq!(fills.join(&b"k"[..], 1, true, TIMEOUT, at(9)), Joined::Wait(at(10)));
    let second = lead(fills.join(&b"k"[..], 2, true, TIMEOUT, at(10)));
    assert_eq!(fills.join(&b"k"[..], 3, true, TIMEOUT, at(10)), Joined::Wait(at(20)));
    assert!(fills.end(b"k", first).is_empty());
    fills.leave(b"k", &1);
    assert_eq!(fills.end(b"k", second), [3]);
}

#[test]
fn waiters_and_marks_are_bounded() {
    let mut fills = TestFills::default();
    lead(fills.join(&b"k"[..], 0, true, TIMEOUT, at(0)));
    let passed =
        (1..5000).filter(|waiter| fills.join(&b"k"[..], *waiter, true, TIMEOUT, at(0)) == Joined::Pass).count();
    assert_eq!(passed, 4999 - 4096);
    for number in 0..10_000_u64 {
        let key = number.to_le_bytes();
        let id = lead(fills.join(&key[..], number, true, TIMEOUT, at(0)));
        fills.uncacheable(&key, id, at(0));
    }
    let remembered = (0..10_000_u64)
        .filter(|number| matches!(fills.join(&number.to_le_bytes()[..], 0, true, TIMEOUT, at(1)), Joined::Pass))
        .count();
    assert_eq!(remembered, 4096);
}

/// From the head of the response on no request waits: waiters are notified, and later requests read, as long as bytes
/// arrive.
#[test]
fn a_response_under_way_is_read() {
    let mut fills = TestFills::default();
    let first = lead(fills.join(&b"k"[..], 0, true, TIMEOUT, at(0)));
    fills.join(&b"k"[..], 1, true, TIMEOUT, at(0));
    assert_eq!(fills.publish(b"k", first, Live(1)), [1]);
    assert!(fills.publish(b"k", FillId::default(), Live(1)).is_empty(), "another fill's");
    assert_eq!(fills.join(&b"k"[..], 2, false, TIMEOUT, at(10)), Joined::Stream(Live(1)));
    // It has stalled: another fill replaces it, and its failure has no effect.
    assert_eq!(fills.join(&b"k"[..], 3, false, TIMEOUT, at(11)), Joined::Pass);
    let second = lead(fills.join(&b"k"[..], 3, true, TIMEOUT, at(11)));
    assert_eq!(fills.failed(b"k", first), Handover::Release(vec![]));
    assert_eq!(fills.join(&b"k"[..], 4, true, TIMEOUT, at(12)), Joined::Wait(at(21)));
    fills.publish(b"k", second, Live(13));
    assert_eq!(fills.failed(b"k", second), Handover::Release(vec![]));
    lead(fills.join(&b"k"[..], 5, true, TIMEOUT, at(13)));
}

/// The present action of a request in the simulation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Doing {
    Fills(FillId),
    Waits(Moment),
}

/// Clients come and leave, and fills end in every manner. Every request ends: none is forgotten, none waits beyond its
/// deadline, and a storable key has one fill at a time.
#[test]
fn every_request_ends() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut fills = TestFills::default();
        let mut doing: HashMap<u64, (u8, Doing)> = HashMap::new();
        let (mut now, mut next) = (0, 0);
        for _ in 0..400 {
            now += random.u64(0..2);
            let late: Vec<u64> = doing
                .iter()
                .filter(|(_, (_, doing))| matches!(doing, Doing::Waits(until) if at(now) >= *until))
                .map(|(id, _)| *id)
                .collect();
            for request in late {
                let (key, _) = doing.remove(&request).expect("a waiter");
                fills.leave(&[key], &request);
            }
            step(&mut random, &mut fills, &mut doing, &mut next, now, seed);
            for key in 0..3 {
                let leaders = doing.values().filter(|(k, d)| *k == key && matches!(d, Doing::Fills(_))).count();
                let waiters = doing.values().filter(|(k, d)| *k == key && matches!(d, Doing::Waits(_))).count();
                assert!(leaders > 0 || waiters == 0, "seed {seed}: {waiters} wait for nothing");
            }
        }
    }
}

fn step(
    random: &mut fastrand::Rng,
    fills: &mut TestFills,
    doing: &mut HashMap<u64, (u8, Doing)>,
    next: &mut u64,
    now: u64,
    seed: u64,
) {
    let mut someone: Vec<u64> = doing.keys().copied().collect();
    someone.sort_unstable();
    if someone.is_empty() || random.u8(0..10) < 6 {
        *next += 1;
        let key = random.u8(0..3);
        match fills.join(&[key][..], *next, random.u8(0..8) > 0, TIMEOUT, at(now)) {
            Joined::Lead(id) => drop(doing.insert(*next, (key, Doing::Fills(id)))),
            Joined::Wait(until) => drop(doing.insert(*next, (key, Doing::Waits(until)))),
            Joined::Stream(_) | Joined::Pass => {}
        }
        return;
    }
    let request = someone[random.usize(0..someone.len())];
    let (key, what) = doing.remove(&request).expect("a request");
    let released = match what {
        Doing::Waits(_) => {
            fills.leave(&[key], &request);
            return;
        }
        Doing::Fills(id) => match random.u8(0..5) {
            4 => {
                doing.insert(request, (key, what));
                fills.publish(&[key], id, Live(now))
            }
            0 => fills.uncacheable(&[key], id, at(now)),
            1 | 2 => fills.end(&[key], id),
            _ => match fills.failed(&[key], id) {
                Handover::Release(waiters) => waiters,
                Handover::Next(waiter, id) => {
                    let before = doing.insert(waiter, (key, Doing::Fills(id)));
                    assert!(
                        matches!(before, Some((k, Doing::Waits(_))) if k == key),
                        "seed {seed}: {waiter} did not wait"
                    );
                    return;
                }
            },
        },
    };
    for waiter in released {
        let was = doing.remove(&waiter);
        assert!(matches!(was, Some((k, Doing::Waits(_))) if k == key), "seed {seed}: {waiter} did not wait");
    }
}
