//! What a configuration makes of one request: from its head to its response.

use super::configuration::{Configuration, ServedProxy};
use super::run::Run;
use super::variables::Variables;
use super::view::Facts;
use super::{UNIQUE_ID, Workspace};
use crate::cluster::Route;
use crate::haproxy::model::{CookieMode, Persistence};
use crate::haproxy::program::{Choice, List};
use crate::haproxy::rules::Side;
use std::sync::Arc;
use std::time::Duration;

/// The way of a request through its rules. It lasts from the head of the request to that of the response.
#[derive(Debug)]
pub struct Evaluation {
    configuration: Arc<Configuration>,
    facts: Facts,
    variables: Variables,
    frontend: usize,
    backend: Option<usize>,
    /// The member that a rule or a cookie asks for.
    wanted: Option<usize>,
    /// The client has a cookie that leads to a server that serves.
    has_cookie: bool,
    is_http10: bool,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is forwarded.
    Forward,
    /// This node responds ([`Workspace::reply`]).
    Respond,
    /// This node responds so as well, and the request counts as denied.
    Deny,
    /// No rule leads to a backend.
    NoBackend,
    /// The connection ends without a response.
    Close,
}

/// The moment, and a random number.
#[derive(Clone, Copy, Debug)]
pub struct Dice {
    /// Seconds since 1970.
    pub unix_seconds: i64,
    /// Any number.
    pub random: u32,
}

impl Workspace {
    /// An evaluation of the next request that comes to a frontend.
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
                has_cookie: false,
                is_http10: false,
            }),
        }
    }
}

impl Evaluation {
    /// Decides about a request whose head (in origin form, with its blank line) has come.
    pub fn decide(&mut self, head: &[u8], is_http10: bool, dice: Dice, work: &mut Workspace) -> Outcome {
        work.request.load(head);
        work.response.load(b"");
        self.is_http10 = is_http10;
        let configuration = Arc::clone(&self.configuration);
        let Some(frontend) = configuration.proxy(self.frontend) else { return Outcome::NoBackend };
        let mut run = self.run(&configuration, Side::Request, dice, work);
        let outcome = run.frontend(frontend).unwrap_or_else(|| run.choose(frontend));
        let backend = run.backend;
        self.backend = backend;
        if outcome == Outcome::Forward {
            self.prepare(&configuration, dice, work);
        } else {
            self.finish_reply(&configuration, dice, work);
        }
        outcome
    }

    /// What is added to a request that goes to a server.
    fn prepare(&mut self, configuration: &Configuration, dice: Dice, work: &mut Workspace) {
        let proxy = |index: usize| configuration.proxy(index);
        let (Some(frontend), Some(backend)) = (proxy(self.frontend), self.backend.and_then(proxy)) else { return };
        let mut run = self.run(configuration, Side::Request, dice, work);
        run.add_forwarded_for(frontend, backend);
        run.add_unique_id(frontend);
        let named = run.with_view(|view, scratch| backend.program.server(view, scratch).map(str::to_owned));
        self.wanted = named.and_then(|name| backend.place_of(&name)).filter(|place| serves(backend, *place));
        let Some(persistence) = &backend.persistence else { return };
        let place = cookie_place(backend, persistence, work);
        self.has_cookie = place.is_some();
        self.wanted = self.wanted.or(place);
        // An indirect cookie is between the client and this node.
        if persistence.indirect && place.is_some() {
            work.request.remove_cookie(&persistence.name);
        }
    }

    /// The cluster that the request goes to.
    pub fn route(&self) -> Option<&Arc<Route>> {
        self.configuration.proxy(self.backend?)?.route()
    }

    /// The member that a rule or a cookie asks for.
    pub fn wanted(&self) -> Option<usize> {
        self.wanted
    }

    /// Whether a backend finishes the request of a client that has left.
    pub fn ignores_client_abort(&self) -> bool {
        let backend = self.backend.and_then(|backend| self.configuration.proxy(backend));
        backend.is_none_or(|backend| backend.ignores_client_abort)
    }

    /// Whether rules or cookies have anything to do with the response.
    pub fn sees_response(&self) -> bool {
        let proxies = [Some(self.frontend), self.backend].into_iter().flatten();
        proxies.filter_map(|index| self.configuration.proxy(index)).any(|proxy| {
            proxy.persistence.is_some()
                || !proxy.program.is_empty(List::Response)
                || !proxy.program.is_empty(List::AfterResponse)
        })
    }

    /// Decides about a response; both heads come with their blank lines. `place` is that of the server.
    pub fn respond(
        &mut self,
        (request, response): (&[u8], &[u8]),
        place: Option<usize>,
        dice: Dice,
        work: &mut Workspace,
    ) -> Outcome {
        // As in HAProxy, rules of responses see nothing of the request but its method.
        let method = memchr::memchr(b' ', request).map_or(0, |space| space + 1);
        work.request.load(request.get(..method).unwrap_or_default());
        work.response.load(response);
        let configuration = Arc::clone(&self.configuration);
        let proxy = |index: usize| configuration.proxy(index);
        let Some(frontend) = proxy(self.frontend) else { return Outcome::Forward };
        let backend = self.backend.and_then(proxy);
        let has_cookie = self.has_cookie;
        let mut run = self.run(&configuration, Side::Response, dice, work);
        let server = backend.zip(place).and_then(|(backend, place)| backend.servers.get(place));
        run.server = server.map(|server| &*server.name);
        let both = [backend.filter(|backend| !std::ptr::eq(*backend, frontend)), Some(frontend)];
        for proxy in both.into_iter().flatten() {
            if let Some(outcome) = run.list(proxy, List::Response) {
                self.finish_reply(&configuration, dice, work);
                return outcome;
            }
        }
        if let (Some(persistence), Some(server)) = (backend.and_then(|backend| backend.persistence.as_ref()), server)
            && let Some(value) = server.cookie.as_deref().filter(|_| !(has_cookie && persistence.indirect))
        {
            run.set_cookie(persistence, value);
        }
        for proxy in both.into_iter().flatten() {
            let _ = run.list(proxy, List::AfterResponse);
        }
        Outcome::Forward
    }

    /// How long the head of a request may take.
    pub fn head_timeout(&self) -> Option<Duration> {
        self.configuration.proxy(self.frontend)?.head_timeout
    }

    /// Makes the response of this node for a failure.
    pub fn fail(&mut self, status: u16, sentence: &str, dice: Dice, work: &mut Workspace) {
        let configuration = Arc::clone(&self.configuration);
        let backend = self.backend.and_then(|index| configuration.proxy(index));
        let frontend = configuration.proxy(self.frontend);
        let page = [backend, frontend].into_iter().flatten().find_map(|proxy| proxy.error(status));
        match page {
            Some(page) => work.reply.take_page(page),
            None => work.reply.begin_page(status, sentence),
        }
        self.finish_reply(&configuration, dice, work);
    }

    /// Has `http-after-response` change a response of this node.
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
            unix_seconds: dice.unix_seconds,
            random: dice.random,
            side,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.variables.capacity()
    }

    /// Is as good as new, and holds nothing.
    pub(super) fn clear(&mut self, nothing: &Arc<Configuration>) {
        self.configuration = Arc::clone(nothing);
        self.variables.clear();
        (self.backend, self.wanted, self.has_cookie) = (None, None, false);
    }
}

/// The server that the cookie of a request leads to.
fn cookie_place(backend: &ServedProxy, persistence: &Persistence, work: &Workspace) -> Option<usize> {
    let value = work.request.cookie(&persistence.name)?;
    let has_it = |cookie: &str| cookie.as_bytes() == value;
    let place = backend.servers.iter().position(|server| server.cookie.as_deref().is_some_and(has_it))?;
    serves(backend, place).then_some(place)
}

fn serves(backend: &ServedProxy, place: usize) -> bool {
    let member = backend.route().and_then(|route| route.cluster.members.get(place));
    member.is_some_and(crate::cluster::Member::is_up)
}

impl<'a> Run<'a> {
    /// The rules of the frontend; `None` where a backend is to be chosen.
    fn frontend(&mut self, frontend: &'a ServedProxy) -> Option<Outcome> {
        if let Some(format) = &frontend.unique_id_format {
            let id = self.render(format);
            self.variables.set(UNIQUE_ID, &id);
            self.give_back(id);
        }
        if let Some(uri) = frontend.monitor_uri.as_deref()
            && self.work.request.target() == uri.as_bytes()
        {
            let fails = self.with_view(|view, scratch| frontend.program.monitor_fails(view, scratch));
            let status = if fails { 503 } else { 200 };
            match frontend.error(status) {
                Some(page) => self.work.reply.take_page(page),
                None if fails => self.work.reply.begin_page(503, "No server is available to handle this request."),
                None => self.work.reply.begin_page(200, "Service ready."),
            }
            return Some(if fails { Outcome::Deny } else { Outcome::Respond });
        }
        let lists = [List::Connection, List::Content, List::Request, List::Redirects];
        lists.into_iter().find_map(|list| self.list(frontend, list))
    }

    /// Chooses a backend, and goes through its rules.
    fn choose(&mut self, frontend: &'a ServedProxy) -> Outcome {
        let choice = self.with_view(|view, scratch| frontend.program.backend(view, scratch));
        let Choice::Backend(index) = choice else { return Outcome::NoBackend };
        let Some(backend) = self.configuration.proxy(index) else { return Outcome::NoBackend };
        self.backend = Some(index);
        if !std::ptr::eq(backend, frontend) {
            let lists = [List::Content, List::Request, List::Redirects];
            if let Some(outcome) = lists.into_iter().find_map(|list| self.list(backend, list)) {
                return outcome;
            }
        }
        Outcome::Forward
    }

    /// `option forwardfor`: a field of its own, behind those that came.
    fn add_forwarded_for(&mut self, frontend: &ServedProxy, backend: &ServedProxy) {
        let both = [&backend.forwarded_for, &frontend.forwarded_for];
        let Some(first) = both.into_iter().flatten().next() else { return };
        let source = self.facts.source.ip().to_canonical();
        let is_excepted =
            both.into_iter().flatten().any(|option| option.except.iter().any(|net| net.contains(&source)));
        let name = both.into_iter().flatten().find_map(|option| option.header.as_deref()).unwrap_or("X-Forwarded-For");
        let stays_alone = first.if_none && self.work.request.value_of(name).is_some();
        if !is_excepted && !stays_alone {
            let mut text = arrayvec::ArrayString::<64>::new();
            // The longest address has 45 characters.
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{source}"));
            self.work.request.add(name, text.as_bytes());
        }
    }

    fn add_unique_id(&mut self, frontend: &ServedProxy) {
        if let Some(name) = &frontend.unique_id_header {
            let id = self.variables.get(UNIQUE_ID).unwrap_or_default();
            self.work.request.remove_named(name);
            self.work.request.add(name, id);
        }
    }

    /// `cookie … insert`: tells the client which server is its own.
    fn set_cookie(&mut self, persistence: &Persistence, value: &str) {
        if persistence.mode != CookieMode::Insert {
            return;
        }
        let is_private = persistence.nocache && self.work.response.may_be_cached();
        let mut line = self.take_text();
        line.extend_from_slice(format!("{}={value}; path=/", persistence.name).as_bytes());
        for domain in &persistence.domains {
            line.extend_from_slice(format!("; domain={domain}").as_bytes());
        }
        line.extend_from_slice(if persistence.httponly { b"; HttpOnly" } else { b"" });
        line.extend_from_slice(if persistence.secure { b"; Secure" } else { b"" });
        for attribute in &persistence.attributes {
            line.extend_from_slice(format!("; {attribute}").as_bytes());
        }
        self.work.response.add("Set-Cookie", &line);
        self.give_back(line);
        if is_private {
            self.work.response.add("Cache-Control", b"private");
        }
    }
}
