use super::*;
use std::collections::BTreeMap;

/// The hash of locks, and the nodes with a heartbeat.
#[derive(Default)]
struct Redis {
    locks: BTreeMap<String, String>,
    alive: HashSet<String>,
    has_foreign: bool,
}

const URL: &str = "http://10.0.0.1:80";

fn probe() -> SharedProbe {
    SharedProbe { url: URL.into(), pattern: "a".into(), identity: 7 }
}

/// A turn of a node's thread. Returns its news and the marks it writes.
fn beat(node: &str, sharing: &ProbeSharing, redis: &mut Redis) -> (Vec<ProbeNews>, Vec<bool>) {
    redis.alive.insert(node.to_owned());
    let read = |question: Question| {
        let (foreign, lock) = (redis.locks.get(&*question.probe.url).cloned(), redis.locks.get("lock").cloned());
        (question.id, Reading { foreign, lock })
    };
    let readings: Vec<_> = sharing.questions().into_iter().map(read).collect();
    let mut marks = Vec::new();
    for write in sharing.hear(readings, node, &redis.alive, redis.has_foreign) {
        match write {
            SharingWrite::Take { id, value, is_stale, .. } => {
                if is_stale {
                    redis.locks.remove("lock");
                }
                let is_free = !redis.locks.contains_key("lock");
                redis.locks.entry("lock".to_owned()).or_insert(value);
                sharing.taken(id, is_free);
            }
            SharingWrite::Put(_, value) => drop(redis.locks.insert("lock".to_owned(), value)),
            SharingWrite::GiveUp(_) => drop(redis.locks.remove("lock")),
            SharingWrite::Mark(_, is_dead) => marks.push(is_dead),
        }
    }
    (sharing.take_news(), marks)
}

#[test]
fn one_node_probes_and_the_others_learn_what_it_finds() {
    let (one, other, mut redis) = (ProbeSharing::default(), ProbeSharing::default(), Redis::default());
    one.join(1, probe());
    other.join(2, probe());
    assert!(one.is_turn(1), "before anything is known of Redis each node is alone");
    assert_eq!(beat("one", &one, &mut redis), (vec![], vec![]));
    assert_eq!(beat("two", &other, &mut redis), (vec![], vec![]));
    assert!(!one.is_turn(1) && !other.is_turn(2));
    assert_eq!(beat("one", &one, &mut redis).0, [ProbeNews::Turn(1)]);
    assert!(one.is_turn(1));
    assert_eq!(beat("two", &other, &mut redis).0, []);
    assert!(!other.is_turn(2));

    one.ended(1, Ok(()));
    for _ in 0..3 {
        one.ended(1, Err(ProbeFault::Status(500)));
    }
    one.judged(1, true);
    assert_eq!(beat("one", &one, &mut redis), (vec![], vec![true]));
    let seen = |outcome, count, has_turned| [ProbeNews::Seen { id: 2, outcome, count, has_turned }];
    assert_eq!(beat("two", &other, &mut redis).0, seen(Err(ProbeFault::Status(500)), 3, false));
    assert_eq!(beat("two", &other, &mut redis).0, []);
    one.ended(1, Ok(()));
    one.ended(1, Err(ProbeFault::Closed));
    beat("one", &one, &mut redis);
    assert_eq!(beat("two", &other, &mut redis).0, seen(Err(ProbeFault::Closed), 1, true));

    // One node ends without releasing the lock. The other node takes over, and knows the mark.
    redis.alive.clear();
    assert_eq!(beat("two", &other, &mut redis).0, [ProbeNews::Turn(2)]);
    other.ended(2, Ok(()));
    other.judged(2, false);
    assert_eq!(beat("two", &other, &mut redis), (vec![], vec![false]));
    // It comes back, and finds the lock taken.
    assert_eq!(
        beat("one", &one, &mut redis).0,
        [ProbeNews::Seen { id: 1, outcome: Ok(()), count: 1, has_turned: false }]
    );
    assert!(!one.is_turn(1));
    // The lock is released.
    other.leave(2);
    beat("two", &other, &mut redis);
    assert_eq!(beat("one", &one, &mut redis).0, [ProbeNews::Turn(1)]);
}

#[test]
fn a_foreign_checker_that_lives_decides_alone() {
    let (one, mut redis) = (ProbeSharing::default(), Redis::default());
    one.join(1, probe());
    beat("one", &one, &mut redis);
    assert!(!one.is_turn(1));
    beat("one", &one, &mut redis);
    assert!(one.is_turn(1));
    redis.locks.insert(URL.to_owned(), "node#42;1.1".to_owned());
    assert_eq!(beat("one", &one, &mut redis).0, [], "its heartbeat was not read");
    redis.has_foreign = true;
    assert_eq!(beat("one", &one, &mut redis).0, [ProbeNews::Foreign(1)]);
    assert!(!one.is_turn(1) && !redis.locks.contains_key("lock"));
    // The other checker has ended, and its lock is still there.
    redis.has_foreign = false;
    assert_eq!(beat("one", &one, &mut redis).0, [ProbeNews::Turn(1)]);
    // It starts again, which empties the hash.
    redis.locks.clear();
    assert_eq!(beat("one", &one, &mut redis).0, []);
    assert!(one.is_turn(1) && redis.locks.contains_key("lock"));
}

#[test]
fn without_redis_each_node_probes() {
    let (one, other, mut redis) = (ProbeSharing::default(), ProbeSharing::default(), Redis::default());
    one.join(1, probe());
    other.join(2, probe());
    assert!(one.is_turn(1));
    beat("one", &one, &mut redis);
    beat("two", &other, &mut redis);
    one.is_turn(1);
    beat("one", &one, &mut redis);
    beat("two", &other, &mut redis);
    assert!(!other.is_turn(2));
    other.lose();
    assert_eq!(other.take_news(), [ProbeNews::Turn(2)]);
    assert!(other.is_turn(2));
    beat("two", &other, &mut redis);
    assert!(!other.is_turn(2), "Redis is back, and the lock is another's");
}

#[test]
fn what_means_nothing_is_a_lock_without_outcomes() {
    for (text, holder) in [("", ""), ("node#42;1.1", "node#42"), ("a;1;2;99;0", "a"), ("a;1;2", "a"), ("1", "1")] {
        assert_eq!(Record::read(text), (holder, Record::default()), "{text}");
    }
    let record = Record { number: 9, streak: 2, fault: 1404, is_marked: true };
    assert_eq!(Record::read(&record.write("a")), ("a", record));
}
