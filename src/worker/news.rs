//! Routes: asked of the cache, then of the directory, and kept until news says otherwise.

use super::Worker;
use super::perform::RouteResult;
use crate::base::counters::Counter;
use crate::base::reason::Reason;
use crate::base::slots::Key;
use crate::directory::{Answer, News};
use crate::exchange::Input;
use crate::route::Cached;
use std::sync::Arc;

impl Worker {
    /// Finds the frontend of an exchange's host, now or by mail.
    pub(super) fn resolve(&mut self, job_key: Key) {
        let Some(job) = self.jobs.get(job_key) else { return };
        let Some(request) = job.exchange.request() else { return };
        let known = match self.routes.get(request.host()) {
            // The news of the change is in the mail; the directory knows already.
            Some(Cached::Found(frontend)) if frontend.is_outdated() => None,
            Some(Cached::Found(frontend)) => Some(Ok(frontend)),
            Some(Cached::Unknown) => Some(Err(Reason::UnknownHost)),
            None => None,
        };
        match known {
            Some(route) => {
                self.counters.count(Counter::RouteHits);
                self.inform(job_key, Input::Route(route));
            }
            None => self.look_up(job_key),
        }
    }

    /// Asks the directory, unless it was asked for this host already.
    #[cold]
    fn look_up(&mut self, job_key: Key) {
        let Some(job) = self.jobs.get(job_key) else { return };
        let Some(request) = job.exchange.request() else { return };
        self.counters.count(Counter::RouteMisses);
        if let Some(waiting) = self.lookups.get_mut(request.host()) {
            return waiting.push(job_key);
        }
        let host: Arc<str> = request.host().into();
        if !self.may_guess(job.client) {
            return self.inform(job_key, Input::Route(Err(Reason::DirectoryBusy)));
        }
        if self.directory.lookup(self.id, Arc::clone(&host)) {
            self.lookups.insert(host, vec![job_key]);
        } else {
            self.inform(job_key, Input::Route(Err(Reason::DirectoryBusy)));
        }
    }

    /// Whether this client may ask for a host that is not known here. Proxies in front of this node ask for many.
    fn may_guess(&mut self, client: Key) -> bool {
        let Some(most) = self.settings.max_guesses else { return true };
        let Some(client) = self.clients.get(client).map(|client| client.peer.address) else { return false };
        self.core.settings.forwarded.trusts(client) || self.guesses.may_ask(client, most, self.core.now)
    }

    pub(super) fn read_news(&mut self) {
        if self.news.take_overflow() {
            self.recover_from_overflow();
        }
        while let Some(news) = self.news.receive() {
            match news {
                News::Answer { host, answer, keep } => self.take_answer(host, &answer, keep),
                News::Checker { until } => self.core.settings.health.checker_until = until,
                News::Changed { hosts, unknowns } => {
                    hosts.iter().for_each(|host| self.forget_route(host));
                    if unknowns {
                        self.routes.clear_unknown();
                    }
                    self.note_departures();
                }
                News::Addresses { backend } => self.name_known(backend),
                News::Certificate { name, answer } => self.take_certificate(name, &answer),
                News::CertificatesChanged { patterns } => self.forget_certificates(&patterns),
            }
        }
    }

    /// Forgets a route, and lets the idle connections go that no list has a use for.
    fn forget_route(&mut self, host: &str) {
        let Some(frontend) = self.routes.evict(host) else { return };
        for member in frontend.members.iter().filter(|member| member.backend.is_orphan()) {
            for connection in self.pool.idle(member.backend.id()) {
                self.close_upstream(connection);
            }
        }
    }

    fn take_answer(&mut self, host: Arc<str>, answer: &Answer, keep: bool) {
        match answer {
            Answer::Found(frontend) if keep => self.routes.put_found(Arc::clone(&host), Arc::clone(frontend)),
            Answer::Unknown if keep => self.routes.put_unknown(Arc::clone(&host)),
            _ => {}
        }
        for job in self.lookups.remove(&host).unwrap_or_default() {
            if matches!(answer, Answer::Unknown)
                && self.settings.max_guesses.is_some()
                && let Some(client) = self.jobs.get(job).and_then(|job| self.clients.get(job.client))
            {
                self.guesses.note(client.peer.address, self.core.now);
            }
            self.tell(job, Input::Route(frontend_of(answer)));
        }
    }

    /// Letters were lost: what is cached may be outdated, and answers may never come. So nothing is kept, and what was
    /// asked is asked again; whoever waits for a name looks again.
    fn recover_from_overflow(&mut self) {
        self.counters.count(Counter::MissedNews);
        log::warn!("worker {}: the mailbox was full; asking for all routes again", self.number);
        while self.news.receive().is_some() {}
        self.routes.clear();
        let lost: Vec<_> = self.lookups.keys().cloned().collect();
        for host in lost {
            if !self.directory.lookup(self.id, Arc::clone(&host)) {
                self.take_answer(host, &Answer::Failed(Reason::DirectoryBusy), false);
            }
        }
        self.ask_for_certificates_again();
        let backends: Vec<_> = self.awaiting_name.keys().copied().collect();
        backends.into_iter().for_each(|backend| self.name_known(backend));
    }
}

/// The frontend of an answer, or why there is none.
fn frontend_of(answer: &Answer) -> RouteResult {
    match answer {
        Answer::Found(frontend) => Ok(Arc::clone(frontend)),
        Answer::Unknown => Err(Reason::UnknownHost),
        Answer::Failed(reason) => Err(*reason),
    }
}
