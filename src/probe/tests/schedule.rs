use super::{edit, options};
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::cluster::{Cluster, Mark, Options};
use crate::health::{Outcome, ProbeFault};
use crate::probe::schedule::{Action, MAX_RUNNING, Schedule};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A schedule and one cluster, in virtual time.
struct Scene {
    schedule: Schedule,
    now: Moment,
    /// Two references: the directory's, and a host's.
    cluster: [Arc<Cluster>; 2],
    running: HashMap<SlotKey, String>,
    said: Vec<String>,
}

impl Scene {
    fn new(members: &[u64], pairs: &[(&str, &str)]) -> Self {
        let now = Moment::ZERO + Duration::from_secs(1000);
        // No probe times out, unless a test sets its own limit.
        let pairs: Vec<_> = [("health.timeout", "1h")].iter().chain(pairs).copied().collect();
        let cluster = edit(None, members, &options(&pairs), now);
        let mut scene = Self {
            schedule: Schedule::new(now, fastrand::Rng::with_seed(7)),
            now,
            cluster: [Arc::clone(&cluster), cluster],
            running: HashMap::new(),
            said: Vec::new(),
        };
        scene.look();
        scene
    }

    fn look(&mut self) {
        self.schedule.look_at(&Arc::downgrade(&self.cluster[0].admission), self.now);
        self.act();
    }

    fn edit(&mut self, members: &[u64], options: &Arc<Options>) {
        let cluster = edit(Some(&self.cluster[0]), members, options, self.now);
        self.cluster = [Arc::clone(&cluster), cluster];
        self.look();
    }

    fn act(&mut self) {
        loop {
            let actions = self.schedule.take_actions();
            if actions.is_empty() {
                break;
            }
            actions.into_iter().for_each(|action| self.perform(action));
        }
        assert_eq!(self.schedule.running(), self.running.len());
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start { target, backend, .. } => {
                assert_eq!(self.running.insert(target, backend.endpoint().to_string()), None, "two at once");
            }
            Action::Expire(target) => {
                self.running.remove(&target);
                self.schedule.ended(target, Some(Err(ProbeFault::ResponseTimeout)), self.now);
            }
            Action::Cancel(target) => drop(self.running.remove(&target)),
            Action::Alive { hosts, backend } => self.said.push(format!("{hosts:?} {}", backend.endpoint())),
            Action::Tell(notice) => self.said.push(notice.text),
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.schedule.next_visit() < until {
            self.now = self.now.max(self.schedule.next_visit());
            self.schedule.advance(self.now);
            self.act();
        }
        self.now = until;
        self.schedule.advance(self.now);
        self.act();
    }

    /// Ends the running probes.
    fn end_all(&mut self, end: Option<Result<(), ProbeFault>>) -> usize {
        let running: Vec<_> = self.running.drain().collect();
        running.iter().for_each(|(target, _)| self.schedule.ended(*target, end, self.now));
        self.act();
        running.len()
    }

    fn is_down(&self, place: usize) -> bool {
        self.cluster[0].members[place].state.is_down()
    }

    #[track_caller]
    fn expect_said(&mut self, texts: &[&str]) {
        let said = std::mem::take(&mut self.said);
        assert_eq!(said.len(), texts.len(), "{said:#?}");
        assert!(said.iter().zip(texts).all(|(said, text)| said.contains(text)), "{said:#?} where {texts:#?}");
    }
}

const SECOND: Duration = Duration::from_secs(1);
const BAD: Option<Result<(), ProbeFault>> = Some(Err(ProbeFault::ConnectFailed));
const GOOD: Option<Result<(), ProbeFault>> = Some(Ok(()));

#[test]
fn a_member_goes_down_and_comes_back() {
    let mut scene = Scene::new(&[1, 2], &[("health.mode", "paranoid"), ("health.fall", "2"), ("slowStart", "30")]);
    assert_eq!(scene.schedule.len(), 2);
    scene.pass(2 * SECOND);
    assert_eq!(scene.end_all(BAD), 2);
    assert!(!scene.is_down(0));
    scene.pass(3 * SECOND);
    // A probe that could not be made has no effect.
    assert_eq!(scene.end_all(None), 2);
    scene.pass(3 * SECOND);
    assert_eq!(scene.end_all(BAD), 2);
    assert!(scene.is_down(0) && scene.is_down(1));
    scene.expect_said(&["is down: 2 health probes in a row failed: it did not accept the connection"; 2]);
    for _ in 0..2 {
        scene.pass(3 * SECOND);
        assert_eq!(scene.end_all(GOOD), 2);
    }
    assert!(!scene.is_down(0));
    assert_eq!(scene.cluster[0].members[0].state.up_since(), scene.now, "slow start begins");
    scene.expect_said(&["is up again: 2 health probes in a row were good"; 2]);
}

#[test]
fn a_silent_backend_fails_by_its_timeout() {
    let mut scene = Scene::new(&[1], &[("health.mode", "paranoid"), ("health.timeout", "500ms")]);
    scene.pass(2 * SECOND);
    scene.pass(SECOND);
    assert!(scene.is_down(0));
    scene.expect_said(&["it did not respond within health.timeout"]);
}

#[test]
fn lazy_probes_only_what_failed_and_ends_its_marks() {
    let mut scene = Scene::new(&[1, 2], &[("health.mode", "lazy")]);
    scene.pass(60 * SECOND);
    assert_eq!(scene.running.len(), 0);
    let mark = Arc::new(Mark::new(Arc::clone(&scene.cluster[0].members[1].backend)));
    mark.mark_dead(scene.now + 30 * SECOND);
    scene.cluster[0].suspect(1, Some(("a.test", &mark)));
    scene.look();
    scene.pass(Duration::from_millis(100));
    assert_eq!(scene.running.values().collect::<Vec<_>>(), ["http://10.0.0.2:80"]);
    scene.end_all(GOOD);
    assert!(mark.dead_until(scene.now).is_some(), "rise is 2");
    scene.pass(3 * SECOND);
    assert_eq!(scene.end_all(GOOD), 1);
    assert!(mark.dead_until(scene.now).is_none());
    let lines =
        ["is alive: 2 health probes in a row were good, so its dead marks end", "[\"a.test\"] http://10.0.0.2:80"];
    scene.expect_said(&lines);
    scene.pass(60 * SECOND);
    assert_eq!(scene.running.len(), 0, "it is judged");
    scene.cluster[0].suspect(0, None);
    scene.look();
    scene.pass(SECOND);
    assert_eq!(scene.end_all(BAD), 1);
    assert!(scene.is_down(0));
}

#[test]
fn opportunistic_leaves_busy_members_alone_and_takes_a_slot() {
    let mut scene = Scene::new(&[1], &[("health.mode", "opportunistic"), ("maxRequests", "1")]);
    for _ in 0..10 {
        scene.cluster[0].members[0].state.history().count(false, scene.now);
        scene.pass(SECOND);
        assert_eq!(scene.running.len(), 0, "it had a request a second ago");
    }
    let permit = scene.cluster[0].try_take(0, scene.now).expect("room");
    scene.pass(10 * SECOND);
    assert_eq!(scene.running.len(), 0, "a request is in flight");
    drop(permit);
    scene.pass(5 * SECOND);
    assert_eq!(scene.running.len(), 1);
    assert!(scene.cluster[0].try_take(0, scene.now).is_none(), "the probe has the slot");
    scene.end_all(GOOD);
    assert!(scene.cluster[0].try_take(0, scene.now).is_some());
}

#[test]
fn a_member_that_comes_back_stays_disabled_where_it_is_said_so() {
    let mut scene = Scene::new(&[1], &[("health.mode", "paranoid"), ("health.stickyOffline", "true")]);
    for end in [GOOD, GOOD, BAD, GOOD, GOOD] {
        scene.pass(3 * SECOND);
        assert_eq!(scene.end_all(end), 1);
    }
    let state = &scene.cluster[0].members[0].state;
    assert!(!state.is_down() && state.is_disabled());
    scene.expect_said(&["is down", "stays disabled until an operator enables it"]);
    scene.pass(60 * SECOND);
    assert_eq!(scene.running.len(), 0, "it is not probed while it is disabled");
    scene.cluster[0].members[0].state.set_disabled(false, scene.now);
    scene.pass(3 * SECOND);
    assert_eq!(scene.running.len(), 1);
}

#[test]
fn edits_keep_monitors_and_forget_what_left() {
    let pairs = [("health.mode", "paranoid")];
    let mut scene = Scene::new(&[1, 2, 3], &pairs);
    scene.pass(2 * SECOND);
    scene.edit(&[3, 1, 4], &options(&pairs));
    assert_eq!((scene.running.len(), scene.schedule.len()), (2, 3), "the probe of 2 is cancelled");
    scene.end_all(BAD);
    assert_eq!([0, 1, 2].map(|place| scene.is_down(place)), [true, true, false]);
    scene.said.clear();
    scene.edit(&[3, 1, 4], &options(&[("health.mode", "off")]));
    assert_eq!([0, 1, 2].map(|place| scene.is_down(place)), [false; 3]);
    scene.expect_said(&["probes are off"; 2]);
    scene.pass(60 * SECOND);
    assert_eq!((scene.running.len(), scene.schedule.len()), (0, 0));
}

#[test]
fn a_shorter_interval_counts_at_once() {
    let mut scene = Scene::new(&[1], &[("health.mode", "paranoid"), ("health.interval", "1h")]);
    scene.edit(&[1], &options(&[("health.mode", "paranoid"), ("health.interval", "1s")]));
    scene.pass(Duration::from_millis(1100));
    assert_eq!(scene.running.len(), 1);
}

#[test]
fn a_cluster_that_no_host_uses_is_not_probed() {
    let mut scene = Scene::new(&[1], &[("health.mode", "paranoid"), ("health.interval", "1s")]);
    let [directory, host] = scene.cluster.clone();
    drop(host);
    scene.cluster = [Arc::clone(&directory), edit(None, &[], &options(&[]), scene.now)];
    drop(directory);
    scene.pass(10 * SECOND);
    assert_eq!(scene.running.len(), 0);
    scene.cluster[1] = Arc::clone(&scene.cluster[0]);
    scene.pass(2 * SECOND);
    assert_eq!(scene.running.len(), 1, "a host uses it again");
    scene.end_all(GOOD);
    let gone = edit(None, &[], &options(&[]), scene.now);
    scene.cluster = [Arc::clone(&gone), gone];
    scene.pass(10 * SECOND);
    assert_eq!((scene.running.len(), scene.schedule.len()), (0, 0), "it is gone");
}

#[test]
fn ejections_end_by_their_time_and_panic_keeps_a_floor() {
    let mut scene = Scene::new(&[1, 2, 3, 4], &[("health.maxFailures", "2"), ("health.panicPercent", "50")]);
    let fail =
        |scene: &Scene, place: usize| (0..2).any(|_| scene.cluster[0].judge_outcome(place, Outcome::Error, scene.now));
    let out = |scene: &Scene| [0, 1, 2, 3].map(|place| scene.cluster[0].members[place].state.is_ejected());
    assert!(fail(&scene, 0) && fail(&scene, 1));
    assert_eq!(out(&scene), [true, true, false, false]);
    scene.pass(SECOND);
    assert!(fail(&scene, 2));
    assert_eq!(out(&scene), [false; 4], "too few are left, so all are used");
    scene.look();
    scene.pass(28 * SECOND);
    assert_eq!(out(&scene), [false; 4]);
    scene.pass(3 * SECOND);
    assert_eq!(out(&scene), [false; 4], "the ejections are over");
    scene.expect_said(&["its ejection is over"; 3]);
    assert!(fail(&scene, 0));
    scene.look();
    assert_eq!(out(&scene), [true, false, false, false]);
    scene.pass(59 * SECOND);
    assert_eq!(out(&scene), [true, false, false, false], "the second one takes longer");
    scene.pass(2 * SECOND);
    assert_eq!(out(&scene), [false; 4]);
    assert!(fail(&scene, 0));
    scene.edit(&[1, 2, 3, 4], &options(&[]));
    assert_eq!(out(&scene), [false; 4], "there are no rules any more");
}

#[test]
fn so_many_probes_run_at_once_and_all_have_their_turn() {
    let members: Vec<u64> = (1..=1000).collect();
    let mut scene = Scene::new(&members, &[("health.mode", "paranoid")]);
    scene.pass(3 * SECOND);
    assert_eq!(scene.running.len(), MAX_RUNNING);
    let mut ended = 0;
    while ended < 1000 {
        let count = scene.end_all(BAD);
        assert!(count > 0, "{ended} of 1000");
        ended += count;
    }
    assert!((0..1000).all(|place| scene.is_down(place)));
}

#[test]
fn probes_that_wait_begin_when_a_cluster_with_probes_under_way_leaves() {
    let pairs = [("health.mode", "paranoid")];
    let members: Vec<u64> = (1..=MAX_RUNNING as u64).collect();
    let mut scene = Scene::new(&members, &pairs);
    scene.pass(3 * SECOND);
    assert_eq!(scene.running.len(), MAX_RUNNING);
    // Another cluster, whose probes have to wait.
    let other = edit(None, &[1, 2], &options(&pairs), scene.now);
    let _host = Arc::clone(&other);
    scene.schedule.look_at(&Arc::downgrade(&other.admission), scene.now);
    scene.pass(10 * SECOND);
    assert_eq!(scene.running.len(), MAX_RUNNING);
    scene.edit(&[], &options(&pairs));
    assert_eq!(scene.running.len(), 2, "nothing else would ever have them begin");
}

#[test]
fn clusters_that_are_gone_are_forgotten_though_nothing_of_them_is_probed() {
    let mut scene = Scene::new(&[1], &[]);
    let rules = options(&[("health.maxFailures", "2")]);
    for _ in 0..2_000 {
        let cluster = edit(None, &[1], &rules, scene.now);
        scene.schedule.look_at(&Arc::downgrade(&cluster.admission), scene.now);
    }
    assert!(scene.schedule.clusters() < 600, "{} clusters are kept", scene.schedule.clusters());
}
