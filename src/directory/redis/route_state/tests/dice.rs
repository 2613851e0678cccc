//! A random simulation: a database with edits, two connections with arbitrary delays and failures, and cores with
//! caches. When all messages have arrived, no core may hold a route that differs from the database.

use super::*;
use crate::cluster::Route;
use crate::route;
use std::collections::{BTreeMap, VecDeque};

const SEEDS: u64 = 3_000;
const STEPS: usize = 400;
const CORES: usize = 2;
const HOSTS: &[&str] = &["a.x", "b.x", "c.b.x", "d", "e.y"];
const PATTERNS: &[&str] = &["a.x", "b.x", "c.b.x", "d", "*.x", "*.b.x", "*.y", "*"];

/// The cached result of a host in a core: a route, or none.
type Held = Option<Arc<Route>>;

struct World {
    rng: fastrand::Rng,
    state: RouteState,
    now: Moment,
    routes: BTreeMap<&'static str, Vec<String>>,
    options: BTreeMap<&'static str, bool>,
    dead: BTreeMap<&'static str, BTreeSet<usize>>,
    /// Redis has the watching connection.
    is_watched: bool,
    told: VecDeque<ChangedKey>,
    asked: Option<Batch>,
    replies: Option<Replies>,
    /// The route state was told that Redis is connected.
    is_up: bool,
    mail: [VecDeque<Output>; CORES],
    caches: [BTreeMap<Arc<str>, Held>; CORES],
    waiting: [BTreeSet<Arc<str>>; CORES],
}

#[test]
fn no_order_of_messages_leaves_a_stale_entry_behind() {
    let (first, count) = match std::env::var("KEEPER_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => (seed, 1),
        None => (0, SEEDS),
    };
    for seed in first..first + count {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
            }
            world.come_to_rest();
            world.check();
        });
        assert!(result.is_ok(), "KEEPER_SEED={seed} shows it again");
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let record = listing(&["http://0"]).record;
        let routes = HOSTS.iter().filter(|_| rng.bool()).map(|host| (Arc::from(*host), kept_route(host, &record)));
        Self {
            state: RouteState::new(&limits(1_000_000), routes.collect(), Clusters::default()),
            rng,
            now: at(100),
            routes: BTreeMap::new(),
            options: BTreeMap::new(),
            dead: BTreeMap::new(),
            is_watched: false,
            told: VecDeque::new(),
            asked: None,
            replies: None,
            is_up: false,
            mail: Default::default(),
            caches: Default::default(),
            waiting: Default::default(),
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_micros(self.rng.u64(..5_000));
        match self.rng.u32(..100) {
            0..20 => self.ask(),
            20..32 => self.edit(),
            32..36 => self.edit_options(),
            36..40 => self.mark(),
            40..55 => self.hear(),
            55..65 => self.execute(),
            65..75 => self.deliver_replies(),
            75..92 => self.read_mail(),
            92..94 => self.cut(),
            94..99 => self.connect(),
            _ => self.flush(),
        }
        self.deliver();
        self.check_held();
    }

    /// A core that holds a route without members knows that the route is stale.
    fn check_held(&self) {
        for route in self.caches.iter().flat_map(BTreeMap::values).flatten() {
            let members = &route.cluster.members;
            let has_none_left = !members.is_empty() && members.iter().all(|member| member.state.is_removed());
            assert!(!has_none_left || route.is_stale(), "{} has no member left", route.host);
        }
    }

    fn host(&mut self) -> &'static str {
        HOSTS[self.rng.usize(..HOSTS.len())]
    }

    fn ask(&mut self) {
        let core = self.rng.usize(..CORES);
        let host: Arc<str> = self.host().into();
        if !self.caches[core].contains_key(&host) && self.waiting[core].insert(Arc::clone(&host)) {
            self.state.ask(SubscriberId(core), host, None, self.now);
        }
    }

    fn edit(&mut self) {
        let pattern = PATTERNS[self.rng.usize(..PATTERNS.len())];
        if self.rng.bool() {
            let count = self.rng.usize(1..4);
            let urls = (0..count).map(|_| format!("http://{}", self.rng.u32(..4))).collect();
            self.routes.insert(pattern, urls);
            self.tell(ChangedKey::Route(pattern.into()));
        } else if self.routes.remove(pattern).is_some() {
            self.tell(ChangedKey::Route(pattern.into()));
        }
    }

    fn edit_options(&mut self) {
        let pattern = PATTERNS[self.rng.usize(..PATTERNS.len())];
        match self.rng.u32(..3) {
            0 => drop(self.options.remove(pattern)),
            dice => drop(self.options.insert(pattern, dice == 1)),
        }
        self.tell(ChangedKey::Options(pattern.into()));
    }

    fn mark(&mut self) {
        let host = self.host();
        let marks = self.dead.entry(host).or_default();
        let index = self.rng.usize(..3);
        if !marks.remove(&index) {
            marks.insert(index);
        }
        self.tell(ChangedKey::Dead(host.into()));
    }

    fn flush(&mut self) {
        self.routes.clear();
        self.options.clear();
        self.dead.clear();
        self.tell(ChangedKey::All);
    }

    fn tell(&mut self, changed: ChangedKey) {
        if self.is_watched {
            self.told.push_back(changed);
        }
    }

    fn hear(&mut self) {
        if let Some(changed) = self.told.pop_front() {
            self.state.touch(&changed, self.now);
        }
    }

    /// The commands of a batch reach Redis.
    fn execute(&mut self) {
        let Some(batch) = self.asked.take() else { return };
        let hosts = batch.hosts.iter().map(|host| (Arc::clone(host), self.read(host))).collect();
        self.replies = Some(Replies {
            ticket: batch.ticket,
            hosts,
            unread: Vec::new(),
            checker: batch.checker.then_some(None),
            offset: None,
            shard_offsets: Vec::new(),
        });
    }

    fn read(&self, host: &str) -> Reading {
        let Some((pattern, urls)) = self.resolve(host) else { return Reading::Unknown };
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let dead: Vec<_> = self.dead.get(host).into_iter().flatten().copied().collect();
        let mut reading = found(pattern, &urls, &dead);
        if let Reading::Found { listing, .. } = &mut reading {
            let flag = self.options.get(pattern);
            listing.options =
                Some(flag.map(|flag| ("httpsRedirect".into(), flag.to_string().into())).into_iter().collect());
        }
        reading
    }

    fn resolve(&self, host: &str) -> Option<(&'static str, &Vec<String>)> {
        route::patterns(host).find_map(|name| self.routes.get_key_value(&*name)).map(|(name, urls)| (*name, urls))
    }

    fn deliver_replies(&mut self) {
        if let Some(replies) = self.replies.take() {
            self.state.replied(replies, self.now);
        }
    }

    /// One of the connections fails. The first part of the data in transit still arrives.
    fn cut(&mut self) {
        if self.rng.bool() {
            self.is_watched = false;
            let arrives = self.rng.usize(..=self.told.len());
            self.told.truncate(arrives);
        }
        // Until the failure is noticed, the other connection continues.
        for _ in 0..self.rng.usize(..4) {
            match self.rng.u32(..4) {
                0 => self.execute(),
                1 => self.deliver_replies(),
                2 if self.rng.bool() => self.edit_options(),
                2 => self.edit(),
                _ => self.ask(),
            }
            self.deliver();
        }
        if self.rng.bool() {
            self.asked = None;
        }
        self.told.clear();
        self.is_watched = false;
        self.is_up = false;
        self.state.down(self.now);
    }

    fn connect(&mut self) {
        if self.is_up {
            return;
        }
        // The watching connection comes first; its reports may arrive before the reading one is established.
        self.is_watched = true;
        for _ in 0..self.rng.usize(..4) {
            self.edit();
            self.hear();
        }
        self.is_up = true;
        self.state.up(true, self.now);
    }

    /// Sends the outputs of the route state to the cores, and its next batch to Redis.
    fn deliver(&mut self) {
        for output in self.state.take_outputs() {
            match output {
                Output::LookedUp { core, .. } => self.mail[core.0].push_back(output),
                Output::Changed { hosts, unknowns } => {
                    for mail in &mut self.mail {
                        mail.push_back(Output::Changed { hosts: hosts.clone(), unknowns });
                    }
                }
                Output::Checker { .. } => {}
            }
        }
        if self.asked.is_none()
            && let Some(batch) = self.state.take_batch()
        {
            self.asked = Some(batch);
        }
    }

    fn read_mail(&mut self) {
        let core = self.rng.usize(..CORES);
        self.read_letter(core);
    }

    fn read_letter(&mut self, core: usize) {
        match self.mail[core].pop_front() {
            Some(Output::LookedUp { host, result, keep, .. }) => {
                assert!(self.waiting[core].remove(&host), "{host}: a reply without a look-up");
                match result {
                    LookupResult::Found(frontend) if keep => drop(self.caches[core].insert(host, Some(frontend))),
                    LookupResult::Unknown if keep => drop(self.caches[core].insert(host, None)),
                    _ => {}
                }
            }
            Some(Output::Changed { hosts, unknowns }) => {
                hosts.iter().for_each(|host| drop(self.caches[core].remove(host)));
                if unknowns {
                    self.caches[core].retain(|_, held| held.is_some());
                }
            }
            _ => {}
        }
    }

    fn come_to_rest(&mut self) {
        self.connect();
        for _ in 0..200 {
            self.hear();
            self.deliver();
            self.execute();
            self.deliver_replies();
            self.deliver();
        }
        for core in 0..CORES {
            while !self.mail[core].is_empty() {
                self.read_letter(core);
            }
        }
    }

    fn check(&mut self) {
        assert!(self.state.pending.is_empty(), "{:?}", self.state.pending);
        for (host, route) in self.state.routes().unused {
            let urls = route.record.backends.iter().map(ToString::to_string).collect();
            let known = Some((&*route.pattern, urls));
            let expected = self.resolve(&host).map(|(pattern, urls)| (pattern, urls.clone()));
            assert_eq!(known, expected, "the snapshot has {host}");
        }
        for core in 0..CORES {
            assert!(self.waiting[core].is_empty(), "core {core} waits for {:?}", self.waiting[core]);
            for (host, held) in &self.caches[core] {
                let expected = self
                    .resolve(host)
                    .map(|(pattern, urls)| (pattern.to_owned(), urls.clone(), self.options.get(pattern).copied()));
                let held_now = held.as_ref().map(|frontend| {
                    let urls = frontend.cluster.members.iter().map(|member| member.url.to_string());
                    (
                        frontend.cluster.key.to_string(),
                        urls.collect::<Vec<_>>(),
                        frontend.cluster.options.https_redirect,
                    )
                });
                assert_eq!(held_now, expected, "core {core} holds {host}");
                self.check_members(host, held.as_deref());
            }
        }
    }

    fn check_members(&self, host: &str, held: Option<&Route>) {
        let members = held.map_or(&[][..], |route| &route.marks);
        assert!(members.iter().all(|member| !member.is_removed()), "{host} has members that have left");
        if self.dead.get(host).is_none_or(BTreeSet::is_empty) {
            assert!(members.iter().all(|member| !member.is_dead_external(self.now)), "{host} has marks that are gone");
        }
    }
}
