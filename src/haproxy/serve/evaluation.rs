//! The evaluation of a configuration's rules for one request, from its head to its response.

use super::compression::{self, Coding};
use super::configuration::{Configuration, ServedProxy, ServedServer};
use super::error_page::ErrorPage;
use super::load::SLOTS;
use super::outcome::{Dice, Outcome};
use super::persistence::{self, ClientCookie};
use super::run::Run;
use super::statistics::StatisticsPage;
use super::stick_table::{Key, StickTable, Tracked};
use super::variables::Variables;
use super::view::Facts;
use super::{CAPTURED_URI, Workspace};
use crate::cluster::Route;
use crate::haproxy::program::List;
use crate::haproxy::rules::{Counter, Side};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The state of a request in its rules. It lasts from the head of the request to the head of the response.
#[derive(Debug)]
pub struct Evaluation {
    configuration: Arc<Configuration>,
    facts: Facts,
    variables: Variables,
    frontend: usize,
    backend: Option<usize>,
    /// The member that a rule or a cookie selects.
    wanted: Option<usize>,
    is_http10: bool,
    /// The number of the request in this process, where rules ask for it.
    number: u64,
    /// The proxy whose statistics page is requested.
    statistics: Option<usize>,
    /// The content of the persistence cookie.
    cookie: ClientCookie,
    /// The coding for the response.
    coding: Option<Coding>,
    /// The entries that the request tracks.
    tracked: [Option<Tracked>; SLOTS],
    /// Keys that will stick to the server that responds.
    sticking: Vec<(Arc<StickTable>, Key)>,
}

/// The number of the next request.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

impl Workspace {
    /// An evaluation for the next request at a frontend.
    pub fn evaluation(&mut self, configuration: &Arc<Configuration>, frontend: usize, facts: Facts) -> Box<Evaluation> {
        match self.spares.pop() {
            Some(mut spare) => {
                (spare.configuration, spare.frontend, spare.facts) = (Arc::clone(configuration), frontend, facts);
                spare
            }
            None => Box::new(Evaluation {
                configuration: Arc::clone(configuration),
                facts,
                variables: Variables::default(),
                frontend,
                backend: None,
                wanted: None,
                is_http10: false,
                number: 0,
                statistics: None,
                cookie: ClientCookie::default(),
                coding: None,
                tracked: Default::default(),
                sticking: Vec::new(),
            }),
        }
    }
}

impl Evaluation {
    /// Applies the rules to a request with this head (in origin form, with its blank line).
    pub fn decide(&mut self, head: &[u8], is_http10: bool, dice: Dice, work: &mut Workspace) -> Outcome {
        work.request.load(head);
        work.response.load(b"");
        self.is_http10 = is_http10;
        let configuration = Arc::clone(&self.configuration);
        let Some(frontend) = configuration.proxy(self.frontend) else { return Outcome::NoBackend };
        if configuration.needs.captured_uri {
            self.variables.set(CAPTURED_URI, work.request.target());
        }
        if configuration.needs.request_number {
            self.number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        }
        if configuration.needs.process_variables {
            configuration.process_variables.copy_to(&mut self.variables);
        }
        if let Some(visit) = self.facts.visit.as_ref().filter(|_| configuration.needs.session_variables) {
            visit.variables().copy_to(&mut self.variables);
        }
        let is_first = self.facts.visit.as_ref().is_none_or(|visit| visit.begin_first_request());
        let mut run = self.run(&configuration, Side::Request, dice, work);
        run.is_first = is_first;
        let outcome = run.frontend(frontend).unwrap_or_else(|| run.choose(frontend));
        let outcome = run.work.reply.outcome(outcome);
        let backend = run.backend;
        self.backend = backend;
        if outcome == Outcome::Deny {
            self.count(&OF_ERRORS, dice);
        }
        match outcome {
            Outcome::Forward => self.prepare(&configuration, dice, work),
            Outcome::Metrics | Outcome::Close => {}
            Outcome::Statistics => self.statistics = Some(backend.unwrap_or(self.frontend)),
            _ => self.finish_reply(&configuration, dice, work),
        }
        outcome
    }

    /// Applies additions to a request that goes to a server.
    fn prepare(&mut self, configuration: &Configuration, dice: Dice, work: &mut Workspace) {
        let proxy = |index: usize| configuration.proxy(index);
        let (Some(frontend), Some(backend)) = (proxy(self.frontend), self.backend.and_then(proxy)) else { return };
        let mut run = self.run(configuration, Side::Request, dice, work);
        run.owner = Some(backend);
        run.add_forwarded_for(frontend, backend);
        run.add_unique_id(frontend);
        let up = |name: &str| backend.place_of(name).filter(|place| serves(backend, *place));
        self.wanted = run.with_view(|view, scratch| backend.program.server(view, scratch, up));
        if let Some(persistence) = &backend.persistence {
            let find = |value: &[u8]| {
                // Servers may share a value, such as a server and its backup.
                let has_it =
                    |server: &ServedServer| server.cookie.as_deref().is_some_and(|own| own.as_bytes() == value);
                (0..).zip(&backend.servers).find(|(place, server)| has_it(server) && serves(backend, *place))
            };
            let find = |value: &[u8]| find(value).map(|(place, _)| place);
            self.cookie = persistence::read(persistence, &mut work.request, dice.unix_seconds, find);
            self.wanted = self.wanted.or(self.cookie.place);
        }
        self.coding =
            compression::accepted([Some(&backend.compression), Some(&frontend.compression)], &mut work.request);
        if backend.program.has_sticks() {
            self.look_up_sticks(configuration, backend, dice, work);
        }
    }

    /// Applies `stick on` and related rules: the server that a key sticks to, and the keys to store.
    fn look_up_sticks(
        &mut self,
        configuration: &Configuration,
        backend: &ServedProxy,
        dice: Dice,
        work: &mut Workspace,
    ) {
        let mut wanted = self.wanted;
        let mut sticking = std::mem::take(&mut self.sticking);
        let mut run = self.run(configuration, Side::Request, dice, work);
        run.each_stick(backend, false, &mut |stick, table, key| {
            if stick.is_match && wanted.is_none() {
                let place = |server: &str| backend.place_of(server).filter(|place| serves(backend, *place));
                wanted = table.with_server(&key, dice.now, place);
            }
            if stick.is_store {
                sticking.push((Arc::clone(table), key));
            }
        });
        (self.wanted, self.sticking) = (wanted, sticking);
    }

    /// The route of the request's backend.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.configuration.proxy(self.backend?)?.route()
    }

    /// The member that a rule or a cookie selects.
    pub fn wanted(&self) -> Option<usize> {
        self.wanted
    }

    /// Whether a backend finishes the request of a client that has left.
    pub fn ignores_client_abort(&self) -> bool {
        let backend = self.backend.and_then(|backend| self.configuration.proxy(backend));
        backend.is_none_or(|backend| backend.ignores_client_abort)
    }

    /// Whether rules or cookies affect the response.
    pub fn sees_response(&self) -> bool {
        if self.coding.is_some() {
            return true;
        }
        let proxies = [Some(self.frontend), self.backend].into_iter().flatten();
        proxies.filter_map(|index| self.configuration.proxy(index)).any(|proxy| {
            proxy.persistence.is_some()
                || proxy.program.has_sticks()
                || !proxy.program.is_empty(List::Response)
                || !proxy.program.is_empty(List::OldResponse)
                || !proxy.program.is_empty(List::AfterResponse)
        })
    }

    /// Records the status of a response from the server at this index: tables count errors, and keys stick to the
    /// server.
    pub fn note_response(&mut self, status: u16, place: Option<usize>, dice: Dice) {
        let counters = match status {
            400..500 => Some(&OF_ERRORS),
            501 | 505 => None,
            500.. => Some(&OF_FAILURES),
            _ => None,
        };
        if let Some(counters) = counters {
            self.count(counters, dice);
        }
        let configuration = &self.configuration;
        let backend = self.backend.and_then(|backend| configuration.proxy(backend));
        if let Some(server) = backend.zip(place).and_then(|(backend, place)| backend.servers.get(place)) {
            self.sticking.drain(..).for_each(|(table, key)| table.stick(&key, &server.name, dice.now));
        }
    }

    fn count(&self, counters: &[Counter], dice: Dice) {
        let visit = self.facts.visit.as_deref();
        let of_visit = (0..SLOTS).filter_map(|slot| visit?.tracked(slot));
        of_visit.chain(self.tracked.iter().flatten()).for_each(|tracked| tracked.count(counters, dice.now));
    }

    /// Applies the rules to a response; both heads include their blank lines. `place` is the index of the server. A
    /// response that is forwarded comes with the coding for its body, if it can be compressed.
    pub fn respond(
        &mut self,
        (request, response): (&[u8], &[u8]),
        place: Option<usize>,
        can_compress: bool,
        dice: Dice,
        work: &mut Workspace,
    ) -> (Outcome, Option<Coding>) {
        work.request.load(method_of(request));
        work.response.load(response);
        let configuration = Arc::clone(&self.configuration);
        let proxy = |index: usize| configuration.proxy(index);
        let Some(frontend) = proxy(self.frontend) else { return (Outcome::Forward, None) };
        let backend = self.backend.and_then(proxy);
        let coding = self.coding.filter(|_| can_compress && !self.is_http10 && work.request.method() != b"HEAD");
        let cookie = self.cookie;
        // If another server has served, the client gets its cookie.
        let is_wanted = place.is_some() && place == self.wanted;
        let mut run = self.run(&configuration, Side::Response, dice, work);
        let server = backend.zip(place).and_then(|(backend, place)| backend.servers.get(place));
        run.server = server.map(|server| &*server.name);
        run.capture_headers(frontend);
        let both = [backend.filter(|backend| !std::ptr::eq(*backend, frontend)), Some(frontend)];
        for proxy in both.into_iter().flatten() {
            let outcome = run.list(proxy, List::Response).or_else(|| run.list(proxy, List::OldResponse));
            if let Some(outcome) = outcome {
                let outcome = work.reply.outcome(outcome);
                self.finish_reply(&configuration, dice, work);
                return (outcome, None);
            }
        }
        if let Some((backend, server)) = backend.zip(server).filter(|(backend, _)| backend.program.has_sticks()) {
            run.each_stick(backend, true, &mut |_, table, key| table.stick(&key, &server.name, dice.now));
        }
        if let (Some(backend), Some(server)) = (backend, server)
            && let Some(persistence) = &backend.persistence
        {
            let mut line = run.take_text();
            let head = &mut run.work.response;
            let server = (server.cookie.as_deref(), is_wanted);
            persistence::write(server, persistence, cookie, (head, &mut line), dice.unix_seconds);
            run.give_back(line);
        }
        for proxy in both.into_iter().flatten() {
            let _ = run.list(proxy, List::AfterResponse);
        }
        let both = [backend.map(|backend| &backend.compression), Some(&frontend.compression)];
        let coding = coding.filter(|coding| compression::apply(*coding, both, &mut work.response));
        (Outcome::Forward, coding)
    }

    /// The page for a client whose request resulted in [`Outcome::Statistics`] at this target.
    pub fn statistics_page(&self, target: &[u8]) -> Option<StatisticsPage> {
        StatisticsPage::new(&self.configuration, self.statistics?, target)
    }

    /// The limit of the head of a request.
    pub fn head_timeout(&self) -> Option<Duration> {
        self.configuration.proxy(self.frontend)?.head_timeout
    }

    /// Whether the client gets no response for a failure, because the file for its status is empty.
    pub fn is_silent(&self, status: u16) -> bool {
        self.page(status).is_some_and(|page| page.is_nothing())
    }

    /// The file for a status: the backend's, otherwise the frontend's.
    fn page(&self, status: u16) -> Option<&Arc<ErrorPage>> {
        let proxies = [self.backend, Some(self.frontend)].into_iter().flatten();
        proxies.filter_map(|index| self.configuration.proxy(index)).find_map(|proxy| proxy.error(status))
    }

    /// Makes this node's response for a failure. `request` is the head, possibly empty.
    pub fn fail(&mut self, request: &[u8], (status, sentence): (u16, &str), dice: Dice, work: &mut Workspace) {
        // The buffer still holds another request.
        work.request.load(method_of(request));
        self.note_response(status, None, dice);
        let configuration = Arc::clone(&self.configuration);
        match self.page(status) {
            Some(page) => work.reply.take_page(page),
            None => work.reply.begin_page(status, sentence),
        }
        self.finish_reply(&configuration, dice, work);
    }

    /// Applies `http-after-response` to a response of this node.
    fn finish_reply(&mut self, configuration: &Configuration, dice: Dice, work: &mut Workspace) {
        let proxies = [self.backend.filter(|backend| *backend != self.frontend), Some(self.frontend)];
        let proxies = proxies.into_iter().flatten().filter_map(|index| configuration.proxy(index));
        let mut with_rules = proxies.filter(|proxy| !proxy.program.is_empty(List::AfterResponse)).peekable();
        if with_rules.peek().is_none() {
            return;
        }
        std::mem::swap(&mut work.response, &mut work.reply.head);
        let mut run = self.run(configuration, Side::Response, dice, work);
        for proxy in with_rules {
            let _ = run.list(proxy, List::AfterResponse);
        }
        std::mem::swap(&mut work.response, &mut work.reply.head);
    }

    fn run<'a>(
        &'a mut self,
        configuration: &'a Configuration,
        side: Side,
        dice: Dice,
        work: &'a mut Workspace,
    ) -> Run<'a> {
        Run {
            configuration,
            facts: &mut self.facts,
            variables: &mut self.variables,
            work,
            frontend: self.frontend,
            backend: self.backend,
            server: None,
            is_http10: self.is_http10,
            dice,
            number: self.number,
            owner: None,
            tracked: &mut self.tracked,
            side,
            is_first: false,
            is_allowed: false,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.variables.capacity()
    }

    /// Resets the evaluation.
    pub(super) fn clear(&mut self, nothing: &Arc<Configuration>) {
        self.configuration = Arc::clone(nothing);
        self.variables.clear();
        (self.coding, self.tracked, self.cookie) = (None, Default::default(), ClientCookie::default());
        self.sticking.clear();
        (self.facts.visit, self.facts.tls) = (None, None);
        (self.backend, self.wanted, self.statistics) = (None, None, None);
    }
}

/// The part of a request that rules of responses see: its method, and the space behind it.
fn method_of(request: &[u8]) -> &[u8] {
    let len = memchr::memchr(b' ', request).map_or(0, |space| space + 1);
    request.get(..len).unwrap_or_default()
}

/// The counters of errors by clients, and of failures by servers.
const OF_ERRORS: [Counter; 2] = [Counter::HttpErrCnt, Counter::HttpErrRate];
const OF_FAILURES: [Counter; 2] = [Counter::HttpFailCnt, Counter::HttpFailRate];

/// Whether a server may be used.
fn serves(backend: &ServedProxy, place: usize) -> bool {
    let member = backend.route().and_then(|route| route.cluster.members.get(place));
    member.is_some_and(crate::cluster::Member::is_up)
}
