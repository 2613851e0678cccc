//! *The* match that performs effects.

use super::{Deferred, Worker};
use crate::base::counters::Counter;
use crate::base::gen_slab::SlotKey;
use crate::base::reason::FailureReason;
use crate::cluster::{Cluster, Joined, Notice, Route};
use crate::exchange::{Disposition, Effect, Input, Side};
use crate::health::Observation;
use crate::wire::lenient_response::Repairs;
use std::sync::Arc;

/// Result of a route look-up for an exchange.
pub(super) type RouteResult = Result<Arc<Route>, FailureReason>;

impl Worker {
    /// Performs one effect of an exchange.
    pub(super) fn perform(&mut self, job: SlotKey, effect: Effect) {
        match effect {
            Effect::Resolve => self.resolve(job),
            Effect::AskService => self.ask_service(job),
            Effect::Enqueue => self.enqueue(job),
            Effect::AskStore => self.ask_store(job),
            Effect::Connect { fresh } => self.connect(job, fresh),
            Effect::Wake => self.wake(job),
            Effect::MarkedDead { member, why } => self.note_mark(job, member, why),
            Effect::Revived { member } => self.note_revival(job, member),
            Effect::Ejected { member } => self.note_ejection(job, member),
            Effect::Retry { stale: true } => self.counters.count(Counter::StaleConnections),
            Effect::Retry { stale: false } => self.counters.count(Counter::Retries),
            Effect::Repaired(repairs) => self.count_repairs(repairs),
            Effect::Uploaded => self.end_upload(job),
            Effect::Release { reuse } => self.release(job, reuse),
            Effect::Tunnel => self.become_tunnel(job),
            Effect::CloseWrite(side) => self.close_write(job, side),
            Effect::Reset => self.reset_client(job),
            Effect::Finish(connection) => self.finish(job, connection),
        }
    }

    /// A step whose effects the calling loop performs.
    pub(super) fn step_only(&mut self, job: SlotKey, input: Input<'_>) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.exchange.step(input, 0, &mut self.core);
        }
    }

    #[cold]
    fn count_repairs(&self, repairs: Repairs) {
        let Repairs { bare_lf, folded_line, repeated_length, length_beside_chunked } = repairs;
        self.counters.add(Counter::LenientBareLf, bare_lf.into());
        self.counters.add(Counter::LenientFoldedLine, folded_line.into());
        self.counters.add(Counter::LenientRepeatedLength, repeated_length.into());
        self.counters.add(Counter::LenientLengthBesideChunked, length_beside_chunked.into());
    }

    #[cold]
    fn note_revival(&mut self, job: SlotKey, member: usize) {
        let Some((route, cluster)) = self.route_and_cluster(job) else { return };
        if let Some(member) = cluster.members.get(member) {
            self.warn(format_args!("{}: backend {} is alive again", route.host, member.url));
        }
    }

    #[cold]
    fn note_ejection(&mut self, job: SlotKey, member: usize) {
        self.counters.count(Counter::Ejections);
        let Some((route, cluster)) = self.route_and_cluster(job) else { return };
        let Some(member) = cluster.members.get(member) else { return };
        let ejection = member.state.known_health().and_then(|health| health.ejection(self.core.now));
        let Some((until, cause)) = ejection else { return };
        let (key, url, seconds) = (&route.cluster.key, &member.url, until.since(self.core.now).as_secs());
        let effect = if member.state.is_ejected() {
            "it gets no requests"
        } else {
            "it gets requests all the same: too few others serve (health.panicPercent)"
        };
        self.warn(format_args!("{key}: backend {url} is ejected for {seconds} s: {cause}; {effect}"));
    }

    fn route_and_cluster(&self, job: SlotKey) -> Option<(Arc<Route>, Arc<Cluster>)> {
        let exchange = &self.jobs.get(job)?.exchange;
        Some((Arc::clone(exchange.route()?), Arc::clone(exchange.permit()?.cluster())))
    }

    #[cold]
    fn wake(&mut self, job: SlotKey) {
        if let Some(route) = self.jobs.get(job).and_then(|job| job.exchange.route()) {
            self.directory.wake(&route.cluster);
        }
    }

    #[cold]
    fn note_mark(&mut self, job: SlotKey, member: usize, why: Observation) {
        self.counters.count(Counter::DeadMarks);
        let Some((route, cluster)) = self.route_and_cluster(job) else { return };
        let Some(member) = cluster.members.get(member) else { return };
        // The exchange may have moved on to another member meanwhile.
        if let Some(mark) = route.marks.iter().find(|mark| Arc::ptr_eq(&mark.backend, &member.backend)) {
            mark.note_reason(why.code());
        }
        let ttl = self.core.settings.health.mark_ttl(self.core.now);
        let (host, url, seconds) = (&route.host, &member.url, ttl.as_secs_f32());
        self.warn(format_args!("{host}: backend {url} is marked dead for {seconds} s: {why}"));
        // No other node knows the clusters of HAProxy's files.
        if self.jobs.get(job).is_some_and(|job| job.exchange.rules().is_some()) {
            return;
        }
        let until = self.core.now + ttl;
        self.directory.mark_dead(&route.host, &member.backend, until);
    }

    /// Puts the request of an exchange in the queue of its bucket or its cluster.
    #[cold]
    fn enqueue(&mut self, job_key: SlotKey) {
        let Some(job) = self.jobs.get(job_key) else { return };
        let joined = job.exchange.join_queue(self.request_mail.grants(), job_key.pack(), &self.core);
        let Some(joined) = joined else { return };
        let input = match joined {
            Joined::Permit(permit) => Input::Granted(permit),
            Joined::Token(token) => Input::GrantedToken(token),
            Joined::Waiting { ticket, is_new } => {
                if is_new {
                    self.counters.count(Counter::Queued);
                }
                Input::Enqueued(ticket)
            }
            Joined::WaitingForToken { ticket, until } => {
                self.counters.count(Counter::Queued);
                Input::EnqueuedUntil(ticket, until)
            }
            Joined::Unavailable => Input::Notice(Notice::Unavailable),
            Joined::Refused => Input::QueueFull,
        };
        self.step_only(job_key, input);
    }

    #[cold]
    fn close_write(&mut self, job_key: SlotKey, side: Side) {
        let Some(job) = self.jobs.get_mut(job_key) else { return };
        if job.exchange.pending_write(side).is_empty() && self.core.output.queue(side).is_empty() {
            self.shut_down(job_key, side);
        } else {
            job.closing.add(side);
        }
    }

    #[cold]
    pub(super) fn shut_down(&mut self, job: SlotKey, side: Side) {
        let Some(job) = self.jobs.get(job) else { return };
        if let Some(transport) = job.transport(side, &mut self.clients, &mut self.upstreams) {
            transport.close_write();
        }
    }

    #[cold]
    fn reset_client(&mut self, job: SlotKey) {
        let client = self.jobs.get(job).and_then(|job| self.clients.get_mut(job.client));
        if let Some(client) = client {
            client.stream.transport.reset_at_close();
        }
    }

    /// Finishes an exchange: its log line, its buffers, its client.
    fn finish(&mut self, job_key: SlotKey, connection: Disposition) {
        self.release(job_key, false);
        let tenant = self.tenant_of_exchange(job_key);
        let Some(mut job) = self.jobs.remove(job_key) else { return };
        self.note_tenant(job.client, tenant);
        self.record(&job);
        if let Some(rules) = job.exchange.take_rules() {
            self.core.rules.take_back(rules);
        }
        job.exchange.recycle(&mut self.core.buffers, &mut self.core.request_pool);
        let Some(client) = self.clients.get_mut(job.client) else { return self.end_refresh(job_key) };
        client.job = None;
        client.served = client.served.saturating_add(1);
        client.read_size = job.read_size.of_client();
        let drain_target = self.drain.as_ref().map(|drain| drain.drain_target.is_some());
        match connection {
            // Clients of the service never move.
            Disposition::KeepAlive if drain_target.is_none_or(|moves| moves && !client.is_for_service) => {}
            Disposition::KeepAlive => return self.start_lingering_close(job.client, true),
            Disposition::Linger { client_may_send } => return self.start_lingering_close(job.client, client_may_send),
            Disposition::Close => return self.close_client(job.client),
        }
        self.register_client(job.client);
        let Some(client) = self.clients.get_mut(job.client) else { return };
        client.stream.unread.set_starved(false);
        self.timers.set(&mut client.timer, self.core.now + self.settings.idle_timeout);
        if drain_target.is_some() {
            self.may_move(job.client);
        } else if client.stream.has_more() {
            self.deferred.push(Deferred::ReadRequest(job.client));
        }
        self.note_idle(job.client);
    }
}
