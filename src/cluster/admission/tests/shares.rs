//! Classes of requests under saturation, while members fail, return and change their capacity.

use super::choice::Choice;
use super::world::{CLASSES, CORES, World};
use super::{Cluster, Granted, Joined, Role, member};
use crate::base::clock::Moment;
use crate::cluster::{GrantSink, HeldToken, Notice, Permit, Route, TokenRequest};
use crate::shaper::{BucketId, BucketView};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const BUCKETS: &str = r#"{"vip": "20..60 %", "upload": "30..80 %", "jail": "1..2 t"}"#;

/// Rate and tokens in use of each class; the last one is the root's own.
fn classes(views: &[BucketView]) -> [(u32, u32); 4] {
    let mut all = [0; 4].map(|_| (views[0].rate, views[0].held));
    for (class, name) in CLASSES[..3].iter().enumerate() {
        let view = views.iter().find(|view| view.name == *name).expect("a view");
        all[class] = (view.rate, view.held);
        all[3] = (all[3].0 - view.rate, all[3].1 - view.held);
    }
    all
}

#[test]
fn every_class_has_its_share_within_one_token_while_members_come_and_go() {
    for seed in 0..5 {
        let mut world = World::new(seed, Some(BUCKETS), &[]).without_picky_requests();
        let (mut used, mut usable) = (0, 0);
        for phase in 0..12 {
            let entries: Vec<_> =
                (0..world.random.usize(3..6)).map(|_| format!("capacity={}", world.random.u32(5..9))).collect();
            match phase % 3 {
                0 | 1 => world.edit(&entries.iter().map(String::as_str).collect::<Vec<_>>()),
                _ => world.turn_member(),
            }
            let settling = 4 * (world.in_flight().iter().sum::<u32>() + world.capacity());
            for step in 0..settling + 300 {
                for class in 0..CLASSES.len() {
                    while world.waiting_for_token(class) < 3 {
                        world.arrive(class);
                    }
                }
                world.finish();
                (0..CORES).for_each(|core| (0..4).for_each(|_| world.read_mail(core)));
                world.check_slots();
                world.check_tokens();
                let views = world.newest.buckets();
                if step < settling || views[0].rate == 0 {
                    continue;
                }
                (used, usable) = (used + u64::from(views[0].held), usable + u64::from(views[0].rate));
                for ((rate, held), name) in classes(&views).into_iter().zip(CLASSES) {
                    assert!(
                        held.abs_diff(rate) <= 1,
                        "seed {seed}, phase {phase}: {name} has {held} of {rate}: {views:?}"
                    );
                }
            }
        }
        assert!(used * 100 >= usable * 98, "seed {seed}: {used} of {usable} tokens were used");
        world.drain();
    }
}

/// A request that its thread waits for.
#[derive(Debug)]
struct Mailbox(Mutex<std::sync::mpsc::Sender<Granted>>);

impl GrantSink for Mailbox {
    fn grant(&self, _: u64, _: super::Ticket, granted: Granted) -> Result<(), Granted> {
        self.0.lock().expect("a lock").send(granted).map_err(|error| error.0)
    }

    fn notify(&self, _: u64, _: super::Ticket, _: Notice) {}
}

/// Gets a token and a slot, waiting for each.
fn admit(cluster: &Arc<Cluster>, class: usize, exchange: u64) -> Permit {
    let (sender, grants) = channel();
    let sink: Arc<dyn GrantSink> = Arc::new(Mailbox(Mutex::new(sender)));
    let next = || grants.recv_timeout(Duration::from_secs(60)).expect("a waiter was forgotten");
    let bucket = super::world::bucket(cluster, CLASSES[class]);
    let token: HeldToken = match cluster.try_token(bucket, super::NOW) {
        Some(token) => cluster.held(token).expect("a tree"),
        None => match cluster.join_bucket(
            TokenRequest { sink: Arc::clone(&sink), exchange, bucket, arrived: Moment::ZERO, demand: None },
            super::NOW,
        ) {
            Joined::Token(token) => token,
            Joined::WaitingForToken { .. } => match next() {
                Granted::Token(token) => token,
                Granted::Slot(_) => panic!("a slot before the token"),
            },
            other => panic!("{other:?}"),
        },
    };
    let route = Arc::new(Route::new("a", Arc::clone(cluster)));
    let permit = if cluster.is_queueing() { None } else { Choice::Any.take(&route, super::NOW) };
    let waiter = || Choice::Any.waiter(&route, Arc::clone(&sink), exchange, true);
    let mut permit = permit.unwrap_or_else(|| match cluster.join(waiter(), None, super::NOW) {
        Joined::Permit(permit) => permit,
        Joined::Waiting { .. } => match next() {
            Granted::Slot(permit) => permit,
            Granted::Token(_) => panic!("a second token"),
        },
        other => panic!("{other:?}"),
    });
    permit.attach(token.into_token(cluster).expect("a token of this cluster"));
    permit
}

#[test]
fn threads_share_the_tokens_and_lose_none() {
    const REQUESTS: u64 = 2_000;
    let members = [member(1, Role::Active, 3), member(2, Role::Active, 2)];
    let rules = r#"[{"header": ["X-Class", "vip"], "bucket": "vip"}, {"header": ["X-Class", "upload"], "bucket": "upload"},
        {"header": ["X-Class", "jail"], "bucket": "jail"}]"#;
    let cluster = super::publish(members, &[("buckets", BUCKETS), ("classify", rules)], &Arc::default());
    let (held, most) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (cluster, held, most) = (&cluster, &held, &most);
            scope.spawn(move || {
                for exchange in 0..REQUESTS {
                    let mut permit = admit(cluster, thread % CLASSES.len(), exchange);
                    most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    if exchange % 64 == 0 {
                        // The capacity is examined again, as when a member is up or down.
                        cluster.members[1].state.set_down(exchange % 128 == 0, Moment::from_micros(1));
                        cluster.serve(Moment::from_micros(1));
                        cluster.members[1].state.set_down(false, Moment::from_micros(1));
                        cluster.serve(Moment::from_micros(1));
                    }
                    held.fetch_sub(1, Ordering::SeqCst);
                    match exchange % 2 {
                        0 => permit.give_back(false, Moment::from_micros(2)),
                        _ => drop(permit),
                    }
                }
            });
        }
    });
    assert!((1..=5).contains(&most.into_inner()));
    assert_eq!((cluster.admission.in_flight(), cluster.admission.waiting()), (0, 0));
    assert!(cluster.buckets().iter().all(|view| view.held == 0 && view.queued == 0), "{:?}", cluster.buckets());
}

#[test]
fn the_newest_list_has_the_last_word_on_the_root() {
    let admission = Arc::default();
    let list = |capacity: u32| super::publish([member(1, Role::Active, capacity)], &[("buckets", BUCKETS)], &admission);
    let (first, is_over) = (list(10), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // As cores do when they find a member up or down.
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    first.serve(super::NOW);
                }
            });
        }
        let stale = (0..500).find(|round| {
            let capacity = 10 + round % 2;
            let newest = list(capacity);
            (0..5).any(|_| newest.buckets()[0].rate != capacity)
        });
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(stale, None, "the root is that of an older list");
    });
}

#[test]
fn the_adaptive_root_follows_latency() {
    let options = [("adaptive.enabled", "true"), ("adaptive.max", "60")];
    let cluster = super::publish([member(1, Role::Active, 0)], &options, &Arc::default());
    let (mut held, mut now) = (VecDeque::new(), super::NOW);
    // Requests that always use up the root; `micros` gives the time between two responses from the number in flight.
    let mut play = |micros: fn(u64) -> u64| {
        for _ in 0..20_000 {
            held.extend(std::iter::from_fn(|| cluster.try_token(BucketId::UNCLASSIFIED, now)));
            now = now + Duration::from_micros(micros(held.len() as u64));
            cluster.note_response(now);
            cluster.give_back_token(held.pop_front().expect("a token"));
        }
        let limit = cluster.adaptive_limit().expect("a limit");
        assert_eq!(cluster.buckets()[0].rate, limit);
        limit
    };
    let rises = play(|in_flight| 10_000 / in_flight);
    assert!((48..=60).contains(&rises), "{rises}: the latency is always the same");
    let falls = play(|in_flight| (10_000 / in_flight).max(500));
    assert!((14..=28).contains(&falls), "{falls}: the server has 20 places, and 10 ms are for each");
}
