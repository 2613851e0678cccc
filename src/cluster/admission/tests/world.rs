//! A cluster, cores and requests in virtual time, and a slow reference that is checked after every event.
//!
//! The reference derives the waiting requests and the holders from the messages to the cores. It never reads the
//! queues.

use super::choice::Choice;
use crate::base::clock::Moment;
use crate::cluster::{
    Backend, BackendId, BackendUrl, Cluster, ClusterSpec, GrantSink, Granted, HeldToken, Joined, Notice, Options,
    Permit, Route, Service, Ticket, TokenRequest, Waiter,
};
use crate::shaper::{BucketId, RequestView};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The number of endpoints in lists.
pub(super) const ENDPOINTS: u64 = 5;

pub(super) const CORES: usize = 3;

/// The classes of requests; the last one has no bucket.
pub(super) const CLASSES: [&str; 4] = ["vip", "upload", "jail", "root"];

const RULES: &str = r#"[{"header": ["X-Class", "vip"], "bucket": "vip"}, {"header": ["X-Class", "upload"], "bucket":
    "upload"}, {"header": ["X-Class", "jail"], "bucket": "jail"}]"#;

/// Requests to which a notice was sent to look for room as time passes.
pub(super) type Notices = Arc<Mutex<Vec<u64>>>;

/// All grants in order.
pub(super) type Post = Arc<Mutex<Vec<(usize, u64, Ticket, Granted)>>>;

#[derive(Debug)]
struct Core {
    number: usize,
    post: Post,
    notices: Notices,
    is_gone: AtomicBool,
}

impl GrantSink for Core {
    fn grant(&self, exchange: u64, ticket: Ticket, granted: Granted) -> Result<(), Granted> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(granted);
        }
        self.post.lock().expect("the post").push((self.number, exchange, ticket, granted));
        Ok(())
    }

    // A request of this world keeps waiting if nothing can serve it.
    fn notify(&self, exchange: u64, _: Ticket, notice: Notice) {
        if notice == Notice::Poll {
            self.notices.lock().expect("the notices").push(exchange);
        }
    }
}

#[derive(Debug)]
pub(super) enum State {
    WaitsForToken(Ticket),
    WaitsForSlot(Ticket, Option<HeldToken>),
    Holds(Permit),
}

#[derive(Debug)]
pub(super) struct Request {
    core: usize,
    class: usize,
    choice: Choice,
    pub(super) state: State,
}

/// A waiting request in the reference.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) exchange: u64,
    pub(super) choice: Choice,
}

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) now: Moment,
    pub(super) newest: Arc<Cluster>,
    /// The buckets of the cluster, if any.
    buckets: Option<&'static str>,
    /// The other options.
    options: Vec<(&'static str, &'static str)>,
    backends: Vec<Arc<Backend>>,
    /// Whether some requests name a member, or cannot use one.
    is_picky: bool,
    /// The route of each core, to the newest list or an older one.
    pub(super) routes: Vec<Arc<Route>>,
    cores: Vec<Arc<Core>>,
    pub(super) mail: Vec<VecDeque<(u64, Ticket, Granted)>>,
    pub(super) post: Post,
    notices: Notices,
    /// When a waiting request looks for room, since a capacity rises.
    looks: BTreeMap<u64, Moment>,
    pub(super) requests: BTreeMap<u64, Request>,
    /// The reference: the requests that wait for a slot, and those that wait for a token of each class.
    pub(super) for_slot: Vec<Waits>,
    pub(super) for_token: [VecDeque<u64>; CLASSES.len()],
    next: u64,
    /// When each request arrived: a retry keeps its place.
    pub(super) arrivals: BTreeMap<u64, Moment>,
    /// Number of grants that came by mail, and of requests that got a slot at all.
    pub(super) waited: u64,
    pub(super) served: u64,
    /// Tokens in use after the last event, in the tree and in each of its buckets.
    pub(super) held_before: Vec<u32>,
    /// Requests in flight at each endpoint after the last event.
    pub(super) in_flight_before: [u32; ENDPOINTS as usize],
}

impl World {
    pub(super) fn new(seed: u64, buckets: Option<&'static str>, options: &[(&'static str, &'static str)]) -> Self {
        let (post, notices) = (Post::default(), Notices::default());
        let core = |number| {
            let (post, notices) = (Arc::clone(&post), Arc::clone(&notices));
            Arc::new(Core { number, post, notices, is_gone: AtomicBool::new(false) })
        };
        let cores: Vec<_> = (0..CORES).map(core).collect();
        let backend = |id| {
            let url = BackendUrl::parse(&format!("http://10.0.0.{id}")).expect("a good URL");
            Arc::new(Backend::new(BackendId::new(id), url.endpoint().clone()))
        };
        let backends: Vec<_> = (0..ENDPOINTS).map(backend).collect();
        let empty = ClusterSpec { created: 0, key: "a", id: "x", entries: Vec::new(), options: &Options::none() };
        let newest = Cluster::edit(None, empty, Moment::ZERO);
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            now: Moment::from_micros(1),
            routes: (0..CORES).map(|_| Arc::new(Route::new("a", Arc::clone(&newest)))).collect(),
            newest,
            buckets,
            options: options.to_vec(),
            backends,
            is_picky: true,
            cores,
            mail: (0..CORES).map(|_| VecDeque::new()).collect(),
            post,
            notices,
            looks: BTreeMap::new(),
            requests: BTreeMap::new(),
            for_slot: Vec::new(),
            for_token: Default::default(),
            next: 0,
            arrivals: BTreeMap::new(),
            waited: 0,
            served: 0,
            held_before: Vec::new(),
            in_flight_before: [0; ENDPOINTS as usize],
        };
        world.edit(&["capacity=2", "capacity=3"]);
        // Requests from before the buckets do not belong to this world.
        (0..CORES).for_each(|core| world.learn_of_edit(core));
        world
    }

    /// No request names a member.
    pub(super) fn without_picky_requests(mut self) -> Self {
        self.is_picky = false;
        self
    }

    /// Makes a list of the first endpoints with these attributes; a text of "-" leaves one out.
    pub(super) fn edit(&mut self, attributes: &[&str]) {
        let listed = attributes.iter().enumerate().filter(|(_, attributes)| **attributes != "-");
        let url = |(id, attributes): (usize, &&str)| BackendUrl::parse(&format!("http://10.0.0.{id}#{attributes}"));
        let urls: Vec<_> = listed.clone().map(|entry| url(entry).expect("a good URL")).collect();
        let entries = urls.iter().zip(listed).map(|(url, (id, _))| (url, Arc::clone(&self.backends[id]))).collect();
        let buckets = self.buckets.map(|buckets| [("buckets", buckets), ("classify", RULES)]);
        let pairs = self.options.iter().copied().chain(buckets.into_iter().flatten());
        let (options, errors) = Options::read(pairs, &Options::default());
        assert_eq!(errors, []);
        let spec = ClusterSpec { created: 0, key: "a", id: "x", entries, options: &Arc::new(options) };
        self.newest = Cluster::edit(Some(&self.newest), spec, self.now);
        self.settle();
    }

    fn learn_of_edit(&mut self, core: usize) {
        if !Arc::ptr_eq(&self.routes[core].cluster, &self.newest) {
            self.routes[core] = Arc::new(Route::new("a", Arc::clone(&self.newest)));
        }
    }

    pub(super) fn random_edit(&mut self) {
        let count = self.random.usize(1..=ENDPOINTS as usize);
        let entry = |random: &mut fastrand::Rng| {
            let role = ["active", "active", "active", "standby", "backup"][random.usize(..5)];
            let others = ["", "", "", "&disabled", "&weight=0"][random.usize(..5)];
            match random.u8(..8) {
                0 => "-".to_owned(),
                _ => format!("capacity={}&role={role}{others}", random.u32(1..6)),
            }
        };
        let attributes: Vec<_> = (0..count).map(|_| entry(&mut self.random)).collect();
        self.edit(&attributes.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// A monitor or an operator changes a member.
    pub(super) fn turn_member(&mut self) {
        if let Some(member) = self.random.choice(&self.newest.members) {
            match self.random.bool() {
                true => member.state.set_down(!member.state.is_down(), self.now),
                false => member.state.set_disabled(!member.state.is_disabled(), self.now),
            }
        }
        self.newest.serve(self.now);
        self.settle();
    }

    pub(super) fn pass_time(&mut self, most: u64) {
        let end = self.now + Duration::from_micros(self.random.u64(0..most));
        self.pass_time_until(end);
    }

    /// Nothing else happens than that waiting requests look for room, if they were to.
    pub(super) fn pass_time_until(&mut self, end: Moment) {
        let notices = std::mem::take(&mut *self.notices.lock().expect("the notices"));
        notices.into_iter().for_each(|exchange| _ = self.looks.insert(exchange, self.now));
        loop {
            let requests = &self.requests;
            self.looks.retain(|exchange, _| {
                requests.get(exchange).is_some_and(|request| !matches!(request.state, State::Holds(_)))
            });
            let next = self.looks.iter().filter(|(_, at)| **at <= end).min_by_key(|(_, at)| **at);
            let Some((exchange, at)) = next.map(|(exchange, at)| (*exchange, *at)) else { break };
            self.now = self.now.max(at);
            match self.newest.admission.poll(self.now) {
                Moment::NEVER => _ = self.looks.remove(&exchange),
                next => _ = self.looks.insert(exchange, next),
            }
            self.settle();
        }
        self.now = end;
    }

    /// A request begins to wait.
    fn wait(&mut self, exchange: u64, request: Request) {
        self.requests.insert(exchange, request);
        if self.newest.admission.is_ramping(self.now) {
            self.looks.insert(exchange, self.now);
        }
    }

    pub(super) fn arrive(&mut self, class: usize) -> u64 {
        let (core, exchange) = (self.random.usize(..CORES), self.next);
        self.next += 1;
        if self.random.u8(..4) > 0 {
            self.learn_of_edit(core);
        }
        let someone = BackendId::new(self.random.u64(..ENDPOINTS));
        let choice = match self.random.u8(..12) {
            _ if !self.is_picky => Choice::Any,
            0 => Choice::Except([someone].into()),
            1 => Choice::Only(someone),
            _ => Choice::Any,
        };
        self.arrivals.insert(exchange, self.now);
        self.begin(core, exchange, class, choice);
        exchange
    }

    /// A request asks for a token if it needs one, then for a slot.
    fn begin(&mut self, core: usize, exchange: u64, class: usize, choice: Choice) {
        let list = Arc::clone(&self.routes[core].cluster);
        if !list.has_buckets() {
            return self.ask_for_slot(core, exchange, class, choice, None);
        }
        let bucket = bucket(&list, CLASSES[class]);
        if let Some(token) = list.try_token(bucket, self.now) {
            let token = list.held(token);
            self.settle();
            return self.ask_for_slot(core, exchange, class, choice, token);
        }
        let sink = Arc::clone(&self.cores[core]);
        // The reference does not know its ticket yet, so it stands in its queue in any case.
        let arrived = self.arrivals[&exchange];
        let later = |other: &u64| self.arrivals[other] > arrived;
        let place = self.for_token[class].iter().position(later).unwrap_or(self.for_token[class].len());
        self.for_token[class].insert(place, exchange);
        match list.join_bucket(TokenRequest { sink, exchange, bucket, arrived, demand: None }, self.now) {
            Joined::Token(token) => {
                self.for_token[class].retain(|waits| *waits != exchange);
                self.settle();
                let is_older = |other: &u64| self.arrivals[other] <= arrived;
                assert!(!self.for_token[class].iter().any(is_older), "it overtakes in {}", CLASSES[class]);
                self.ask_for_slot(core, exchange, class, choice, Some(token));
            }
            Joined::WaitingForToken { ticket, .. } => {
                let state = State::WaitsForToken(ticket);
                self.wait(exchange, Request { core, class, choice, state });
                self.settle();
            }
            Joined::Refused => {
                self.settle();
                self.for_token[class].retain(|waits| *waits != exchange);
            }
            other => panic!("a request for a token got {other:?}"),
        }
    }

    fn ask_for_slot(&mut self, core: usize, exchange: u64, class: usize, choice: Choice, token: Option<HeldToken>) {
        let route = Arc::clone(&self.routes[core]);
        let (list, now) = (&route.cluster, self.now);
        let permit = if list.is_queueing() { None } else { choice.take(&route, now) };
        if let Some(permit) = permit {
            self.check_role(&permit, &choice);
            return self.hold(core, exchange, class, choice, permit, token);
        }
        let sink = Arc::clone(&self.cores[core]) as Arc<dyn GrantSink>;
        let arrived = self.arrivals[&exchange];
        let waiter = Waiter { arrived, ..choice.waiter(&route, sink, exchange, token.is_some()) };
        let later = |other: &Waits| self.arrivals[&other.exchange] > arrived;
        let place = self.for_slot.iter().position(later).unwrap_or(self.for_slot.len());
        self.for_slot.insert(place, Waits { exchange, choice: choice.clone() });
        match list.join(waiter, None, now) {
            Joined::Permit(permit) => {
                self.settle();
                self.check_order(exchange, &permit);
                self.for_slot.retain(|waits| waits.exchange != exchange);
                self.hold(core, exchange, class, choice, permit, token);
            }
            Joined::Waiting { ticket, .. } => {
                let state = State::WaitsForSlot(ticket, token);
                self.wait(exchange, Request { core, class, choice, state });
                self.settle();
            }
            Joined::Refused => {
                assert!(
                    token.is_none() && !matches!(choice, Choice::Except(_)),
                    "a request that was in flight is refused"
                );
                self.for_slot.retain(|waits| waits.exchange != exchange);
                self.settle();
            }
            Joined::Unavailable => {
                self.settle();
                let service = self.newest.service(&choice.demand(&route), now);
                assert_eq!(service, Service::Unavailable, "{choice:?}");
                self.for_slot.retain(|waits| waits.exchange != exchange);
                drop(token);
                self.settle();
            }
            other => panic!("a request for a slot got {other:?}"),
        }
    }

    fn hold(
        &mut self,
        core: usize,
        exchange: u64,
        class: usize,
        choice: Choice,
        mut permit: Permit,
        token: Option<HeldToken>,
    ) {
        if let Some(token) = token {
            let token = token.into_token(permit.cluster()).expect("a token of this cluster");
            permit.attach(token);
        }
        self.served += 1;
        self.requests.insert(exchange, Request { core, class, choice, state: State::Holds(permit) });
        self.settle();
    }

    /// Reads one message of a core.
    pub(super) fn read_mail(&mut self, core: usize) {
        let Some((exchange, ticket, granted)) = self.mail[core].pop_front() else { return };
        let waits = self.requests.get(&exchange).is_some_and(|request| match &request.state {
            State::WaitsForToken(own) | State::WaitsForSlot(own, _) => *own == ticket,
            State::Holds(_) => false,
        });
        if !waits {
            drop(granted);
            return self.settle();
        }
        let Request { class, choice, state, .. } = self.requests.remove(&exchange).expect("it waits");
        self.waited += 1;
        match (granted, state) {
            (Granted::Token(token), State::WaitsForToken(_)) => {
                self.ask_for_slot(core, exchange, class, choice, Some(token));
            }
            (Granted::Slot(permit), State::WaitsForSlot(_, token)) => {
                self.hold(core, exchange, class, choice, permit, token);
            }
            (granted, state) => panic!("{granted:?} for {state:?}"),
        }
    }

    /// A request ends; sometimes it is retried on another member.
    pub(super) fn finish(&mut self) {
        let holding = self.requests.iter().filter(|(_, request)| matches!(request.state, State::Holds(_)));
        let Some(exchange) = self.random.choice(holding.map(|(exchange, _)| *exchange).collect::<Vec<_>>()) else {
            return;
        };
        let Request { core, class, state, .. } = self.requests.remove(&exchange).expect("it holds a slot");
        let State::Holds(mut permit) = state else { return };
        match self.random.u8(..8) {
            // A worker that panics drops it.
            0 => drop(permit),
            1 => {
                let _ = permit.reserve_tunnel();
                permit.give_back(true, self.now);
                self.settle();
                drop(permit);
            }
            2 => {
                let token = permit.leave_member(self.now).and_then(|token| permit.cluster().held(token));
                self.settle();
                let failed = permit.member().backend.id();
                drop(permit);
                let choice = if self.is_picky { Choice::Except([failed].into()) } else { Choice::Any };
                match self.random.bool() {
                    true if token.is_some() => self.ask_for_slot(core, exchange, class, choice, token),
                    _ => {
                        // As one whose route has to be looked up again.
                        drop(token);
                        self.settle();
                        self.begin(core, exchange, class, choice);
                    }
                }
            }
            _ => permit.give_back(false, self.now),
        }
        self.settle();
    }

    /// A client leaves.
    pub(super) fn leave(&mut self) {
        let waiting = self.requests.iter().filter(|(_, request)| !matches!(request.state, State::Holds(_)));
        let Some(exchange) = self.random.choice(waiting.map(|(exchange, _)| *exchange).collect::<Vec<_>>()) else {
            return;
        };
        let request = self.requests.remove(&exchange).expect("it waits");
        let admission = Arc::clone(&self.newest.admission);
        let (ticket, is_known) = match &request.state {
            State::WaitsForToken(ticket) => (*ticket, self.for_token[request.class].contains(&exchange)),
            State::WaitsForSlot(ticket, _) => (*ticket, self.for_slot.iter().any(|waits| waits.exchange == exchange)),
            State::Holds(_) => return,
        };
        assert_eq!(admission.leave(ticket), is_known, "{exchange} is in its queue unless its grant is on the way");
        self.forget(exchange);
        drop(request);
        self.settle();
    }

    /// A core ends with all its requests, and another one replaces it.
    pub(super) fn lose_core(&mut self) {
        let core = self.random.usize(..CORES);
        self.cores[core].is_gone.store(true, Ordering::SeqCst);
        let mut gone = Vec::new();
        for (exchange, request) in std::mem::take(&mut self.requests) {
            match request.core == core {
                true => gone.push((exchange, request)),
                false => _ = self.requests.insert(exchange, request),
            }
        }
        gone.iter().for_each(|(exchange, _)| self.forget(*exchange));
        let admission = Arc::clone(&self.newest.admission);
        // Slots are returned first, so that some are granted to requests of the core that is gone.
        gone.sort_by_key(|(_, request)| !matches!(request.state, State::Holds(_)));
        for (_, request) in gone {
            if let State::WaitsForToken(ticket) | State::WaitsForSlot(ticket, _) = &request.state {
                admission.leave(*ticket);
            }
            drop(request);
        }
        let mail = std::mem::take(&mut self.mail[core]);
        drop(mail);
        self.settle();
        let (post, notices) = (Arc::clone(&self.post), Arc::clone(&self.notices));
        self.cores[core] = Arc::new(Core { number: core, post, notices, is_gone: AtomicBool::new(false) });
    }
}

pub(super) fn bucket(list: &Cluster, class: &str) -> BucketId {
    list.classify(&RequestView {
        host: "a",
        method: b"GET",
        target: b"/",
        fields: format!("X-Class: {class}\r\n\r\n").as_bytes(),
        client: [192, 0, 2, 1].into(),
        tls_name: None,
        is_trusted: false,
    })
}
