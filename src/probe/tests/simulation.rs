//! Random clusters, edits, failures and outages in virtual time. `PROBE_SEED=n` replays one run.

use super::{edit, options};
use crate::base::clock::Moment;
use crate::base::gen_slab::SlotKey;
use crate::cluster::{Cluster, MemberState, Options};
use crate::health::{HealthMode, MonitorSettings, Outcome, ProbeFault};
use crate::probe::schedule::{Action, Schedule};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The longest timeout of any options.
const MAX_TIMEOUT: Duration = Duration::from_secs(3);

/// The resolution of the timer wheel: events are late by up to this.
const LATE: Duration = Duration::from_millis(35);

struct World {
    seed: u64,
    rng: fastrand::Rng,
    schedule: Schedule,
    now: Moment,
    options: Arc<Options>,
    cluster: [Arc<Cluster>; 2],
    /// Health of the backends by endpoint.
    healthy: HashMap<String, bool>,
    running: HashMap<SlotKey, Running>,
    /// By the member's state, which is kept alive here so that its address is not reused.
    histories: HashMap<*const MemberState, Watched>,
    states: Vec<Arc<MemberState>>,
    probes: u32,
    verdicts: u32,
}

struct Running {
    endpoint: String,
    ends: Moment,
}

/// The model of a member.
#[derive(Default)]
struct Watched {
    outcomes: Vec<bool>,
    was_down: bool,
    is_suspect: bool,
}

impl Watched {
    fn note(&mut self, is_good: bool, health: &MonitorSettings) {
        self.outcomes.push(is_good);
        let needed = if is_good { health.rise } else { health.fall }.max(1) as usize;
        let streak = self.outcomes.iter().rev().take_while(|end| **end == is_good).count();
        if streak >= needed {
            (self.was_down, self.is_suspect) = (!is_good, false);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Moment::ZERO + Duration::from_secs(rng.u64(1..100_000));
        let options = random_options(&mut rng);
        let cluster = edit(None, &random_members(&mut rng), &options, now);
        let schedule = Schedule::new(now, rng.fork());
        let cluster = [Arc::clone(&cluster), cluster];
        let (healthy, running, histories) = (HashMap::new(), HashMap::new(), HashMap::new());
        let states = cluster[0].members.iter().map(|member| Arc::clone(&member.state)).collect();
        Self { seed, rng, schedule, now, options, cluster, healthy, running, histories, states, probes: 0, verdicts: 0 }
    }

    fn state_of(&self, endpoint: &str) -> Option<&Arc<MemberState>> {
        let members = &self.cluster[0].members;
        Some(&members.iter().find(|member| member.backend.endpoint().to_string() == endpoint)?.state)
    }

    fn play(&mut self) {
        self.look();
        for _ in 0..300 {
            let ends = self.running.values().map(|running| running.ends).min().unwrap_or(Moment::NEVER);
            let random = self.now + Duration::from_millis(self.rng.u64(1..2000));
            self.now = self.now.max(ends.min(random).min(self.schedule.next_visit()));
            self.schedule.advance(self.now);
            self.act();
            self.end_probes();
            if self.now == random {
                self.disturb();
            }
            self.check();
        }
    }

    fn look(&mut self) {
        self.schedule.look_at(&Arc::downgrade(&self.cluster[0].admission), self.now);
        self.act();
    }

    fn disturb(&mut self) {
        let places = self.cluster[0].members.len();
        match self.rng.u32(..10) {
            0 => {
                self.options = random_options(&mut self.rng);
                self.replace();
            }
            1 => self.replace(),
            2..=4 if places > 0 => {
                let place = self.rng.usize(..places);
                let endpoint = self.cluster[0].members[place].backend.endpoint().to_string();
                let healthy = self.healthy.entry(endpoint).or_insert(true);
                *healthy = !*healthy;
            }
            5..=7 if places > 0 => {
                let place = self.rng.usize(..places);
                self.cluster[0].suspect(place, None);
                self.cluster[0].judge_outcome(place, Outcome::Failed, self.now);
                let watched = self.histories.entry(Arc::as_ptr(&self.cluster[0].members[place].state)).or_default();
                if !watched.is_suspect && !watched.was_down && self.options.health.mode != HealthMode::Off {
                    watched.is_suspect = true;
                    watched.outcomes.clear();
                }
                self.look();
            }
            _ => {}
        }
    }

    fn replace(&mut self) {
        let before = self.cluster[0].clone();
        let cluster = edit(Some(&before), &random_members(&mut self.rng), &self.options, self.now);
        self.cluster = [Arc::clone(&cluster), cluster];
        for member in &self.cluster[0].members {
            self.states.push(Arc::clone(&member.state));
            let watched = self.histories.entry(Arc::as_ptr(&member.state)).or_default();
            if self.options.health.mode == HealthMode::Off {
                *watched = Watched::default();
            } else if !before.members.iter().any(|known| Arc::ptr_eq(&known.state, &member.state)) {
                // It is new, or back: its probes are counted from the start.
                watched.outcomes.clear();
            }
        }
        self.look();
    }

    fn act(&mut self) {
        loop {
            let actions = self.schedule.take_actions();
            if actions.is_empty() {
                return;
            }
            actions.into_iter().for_each(|action| self.perform(action));
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start { target, backend, options, .. } => {
                let endpoint = backend.endpoint().to_string();
                assert!(options.health.mode != HealthMode::Off, "seed {}: probes are off", self.seed);
                let Some(state) = self.state_of(&endpoint).map(Arc::as_ptr) else {
                    panic!("seed {}: {endpoint} has left", self.seed)
                };
                let watched = self.histories.entry(state).or_default();
                assert!(
                    options.health.mode != HealthMode::Lazy || watched.was_down || watched.is_suspect,
                    "seed {}: a lazy probe of {endpoint}, which is well",
                    self.seed
                );
                self.probes += 1;
                let takes = Duration::from_millis(self.rng.u64(..3000));
                let running = Running { endpoint, ends: self.now + takes };
                assert!(self.running.insert(target, running).is_none(), "seed {}: two at once", self.seed);
            }
            Action::Expire(target) => self.end(target, Some(Err(ProbeFault::ResponseTimeout))),
            Action::Cancel(target) => drop(self.running.remove(&target)),
            Action::Alive { .. } => panic!("seed {}: nothing was marked", self.seed),
            Action::Tell(_) => self.verdicts += 1,
        }
    }

    fn end_probes(&mut self) {
        let ended: BTreeMap<_, _> =
            self.running.iter().filter(|(_, running)| running.ends <= self.now).map(|(key, _)| (*key, ())).collect();
        for key in ended.into_keys() {
            let is_healthy = self.running.get(&key).and_then(|running| self.healthy.get(&running.endpoint));
            let outcome = if is_healthy.copied().unwrap_or(true) { Ok(()) } else { Err(ProbeFault::ConnectFailed) };
            let end = if self.rng.u32(..20) == 0 { None } else { Some(outcome) };
            self.end(key, end);
            self.act();
        }
    }

    fn end(&mut self, key: SlotKey, end: Option<Result<(), ProbeFault>>) {
        let Some(running) = self.running.remove(&key) else { return };
        let state = self.state_of(&running.endpoint).map(Arc::as_ptr);
        self.schedule.ended(key, end, self.now);
        if let (Some(end), Some(watched)) = (end, state.and_then(|state| self.histories.get_mut(&state))) {
            watched.note(end.is_ok(), &self.options.health);
        }
    }

    /// Checks that the state of each member follows from the outcomes of its probes.
    fn check(&mut self) {
        assert_eq!(self.schedule.running(), self.running.len(), "seed {}", self.seed);
        for member in &self.cluster[0].members {
            let watched = self.histories.entry(Arc::as_ptr(&member.state)).or_default();
            let (is_down, outcomes) = (member.state.is_down(), &watched.outcomes);
            assert_eq!(is_down, watched.was_down, "seed {}: {} by {outcomes:?}", self.seed, member.url);
        }
        if !self.running.is_empty() {
            let next = self.schedule.next_visit();
            let first = self.running.values().map(|running| running.ends).min().unwrap_or(Moment::NEVER);
            assert!(next <= self.now + MAX_TIMEOUT + LATE || first <= next, "seed {}: a probe without end", self.seed);
        }
    }
}

fn random_members(rng: &mut fastrand::Rng) -> Vec<u64> {
    (0..rng.usize(..6)).map(|_| rng.u64(1..8)).collect()
}

fn random_options(rng: &mut fastrand::Rng) -> Arc<Options> {
    let mode = HealthMode::ALL[rng.usize(..4)].name();
    let [rise, fall] = [(); 2].map(|()| rng.u32(..4).to_string());
    let [interval, timeout] = [(); 2].map(|()| format!("{}ms", rng.u32(20..3000)));
    options(&[
        ("health.mode", mode),
        ("health.rise", &rise),
        ("health.fall", &fall),
        ("health.interval", &interval),
        ("health.timeout", &timeout),
        ("health.maxFailures", &rng.u32(..4).to_string()),
    ])
}

#[test]
fn members_are_probed_and_judged_as_their_options_say() {
    let one = std::env::var("PROBE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = one.map_or(0..400, |seed| seed..seed + 1);
    let (mut probes, mut verdicts) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        world.play();
        probes += world.probes;
        verdicts += world.verdicts;
    }
    assert!(one.is_some() || (probes > 10_000 && verdicts > 1_000), "{probes} probes, {verdicts} lines");
}

/// Every member of a monitor that always probes is probed in time.
#[test]
fn no_member_is_left_out() {
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let interval = Duration::from_millis(rng.u64(50..2000));
        let pairs = [("health.mode", "paranoid"), ("health.interval", &format!("{}ms", interval.as_millis()))];
        let mut now = Moment::ZERO + Duration::from_secs(1);
        let members: Vec<u64> = (1..=rng.u64(1..50)).collect();
        let cluster = edit(None, &members, &options(&pairs), now);
        let _host = Arc::clone(&cluster);
        let mut schedule = Schedule::new(now, rng.fork());
        schedule.look_at(&Arc::downgrade(&cluster.admission), now);
        let mut last: HashMap<String, Moment> = HashMap::new();
        let started = now;
        while now < started + 20 * interval {
            now = now.max(schedule.next_visit());
            schedule.advance(now);
            for action in schedule.take_actions() {
                let Action::Start { target, backend, .. } = action else { continue };
                schedule.ended(target, Some(Ok(())), now);
                let before = last.insert(backend.endpoint().to_string(), now);
                let Some(before) = before else {
                    assert!(now.since(started) <= interval + LATE, "seed {seed}: the first one is late");
                    continue;
                };
                let gap = now.since(before);
                let (least, most) = (interval.mul_f64(0.9), interval.mul_f64(1.1) + LATE);
                assert!(gap >= least && gap <= most, "seed {seed}: {gap:?} for an interval of {interval:?}");
            }
        }
        assert_eq!(last.len(), members.len(), "seed {seed}");
    }
}
