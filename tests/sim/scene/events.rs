//! What may happen next, and one of it at random.

use super::backend::ConnectPlan;
use super::client::ClientFault;
use super::plan::RoutePlan;
use super::world::{Holding, World};
use sluice::base::clock::Moment;
use sluice::base::reason::FailureReason;
use sluice::exchange::{Input, OnClientAbort, Side};
use std::time::Duration;

/// More than any scenario needs.
const EVENT_LIMIT: usize = 50_000;

/// All deadlines of a scenario together, and more.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Read(Side),
    End(Side),
    Broken(Side),
    /// The client is known to have ended its side, though nobody reads.
    Departure,
    Writable(Side),
    Route,
    Connect,
    /// The client has waited for a 100 long enough.
    GoOn,
}

impl World {
    /// Plays the scenario to its end.
    pub(crate) fn run(&mut self) {
        let started = self.now;
        let mut events = Vec::new();
        for count in 0..EVENT_LIMIT {
            if self.end.is_some() {
                return;
            }
            assert!(self.now.since(started) < TIME_LIMIT, "the exchange does not end");
            self.open_gates();
            if self.plan.abort_at == Some(count) {
                self.aborted = true;
                self.tell(Input::Abort(FailureReason::Stopped));
                continue;
            }
            if self.now >= self.exchange.deadline() {
                assert!(!self.plan.is_faultless, "a deadline has come though nothing went wrong");
                self.tell(Input::Deadline);
                continue;
            }
            events.clear();
            self.collect(&mut events);
            match self.rng.choice(&events).copied() {
                Some(event) => self.play(event),
                None => self.wait(),
            }
            let pause = match self.rng.u32(..60) {
                0 if !self.plan.is_faultless => self.rng.u64(..20_000_000),
                _ => self.rng.u64(..300),
            };
            self.now = self.now + Duration::from_micros(pause);
        }
        panic!("more than {EVENT_LIMIT} events");
    }

    fn collect(&mut self, events: &mut Vec<Event>) {
        for side in [Side::Client, Side::Upstream] {
            let (wanted, has_pending_write) =
                (self.exchange.wants(side), !self.exchange.pending_write(side).is_empty());
            let Some(peer) = self.peer(side) else { continue };
            let has_unread = !peer.unread.is_empty() && !peer.is_waiting_for_more;
            let is_silent = peer.readable() == 0 && !has_unread;
            if wanted && !is_silent {
                events.push(Event::Read(side));
            }
            if wanted && is_silent && peer.ends && (peer.has_sent_all() || peer.closed) && !peer.told_end {
                events.push(Event::End(side));
            }
            if peer.resets && peer.has_sent_all() || peer.seen.total >= peer.dies_at && side == Side::Client {
                events.push(Event::Broken(side));
            }
            if has_pending_write && peer.can_take_more() {
                events.push(Event::Writable(side));
            }
        }
        let has_ended = self.client.ends && self.client.gate >= self.client.source.len() && !self.client.told_end;
        let is_told = self.exchange.heeds_client_end() && !self.exchange.wants(Side::Client);
        // Where nothing is to go wrong, it is noticed too late to matter.
        if has_ended && is_told && !self.plan.is_faultless {
            events.push(Event::Departure);
        }
        if self.resolving && !matches!(self.plan.routes.last(), Some(RoutePlan::Never)) {
            events.push(Event::Route);
        }
        let will_come =
            |queued| !matches!(self.connect_plan(), ConnectPlan::NeverComes { queued: must } if must == queued);
        if matches!(self.holding, Holding::Promise { queued } if will_come(queued)) {
            events.push(Event::Connect);
        }
        let may_go_on = self.plan.client.expects && !self.client.seen.has_head && self.rng.u8(..8) == 0;
        if may_go_on && self.client.gate < self.client.source.len() {
            events.push(Event::GoOn);
        }
    }

    fn play(&mut self, event: Event) {
        self.note(|| format!("{event:?}"));
        match event {
            Event::Read(side) => {
                let size = self.plan.scale.read_size(&mut self.rng);
                if let Some(peer) = self.peer(side) {
                    peer.read(size);
                }
                self.offer(side);
            }
            Event::End(side) => {
                if let Some(peer) = self.peer(side) {
                    peer.told_end = true;
                }
                self.tell(Input::End(side));
            }
            Event::Broken(side) => {
                if let Some(peer) = self.peer(side) {
                    peer.resets = false;
                }
                self.client_broken |= side == Side::Client;
                self.client_left |= side == Side::Client && self.exchange.heeds_client_end();
                self.tell(Input::Broken(side));
            }
            Event::Departure => {
                self.client_left = true;
                self.tell(Input::End(Side::Client));
                let ends = self.plan.settings.on_client_abort == OnClientAbort::Close;
                assert!(!ends || self.end.is_some(), "a request goes on for a client that has left");
            }
            Event::Writable(side) => self.write_pending(side),
            Event::Route => {
                self.response_resolve();
                self.finish_turn();
            }
            Event::Connect => {
                self.response_connect();
                self.finish_turn();
            }
            Event::GoOn => self.client.gate = self.client.source.len(),
        }
    }

    /// Says what became of the connection that was asked for.
    pub(crate) fn response_connect(&mut self) {
        let Holding::Promise { queued } = self.holding else { return };
        match self.connect_plan() {
            ConnectPlan::Comes { queued: true, .. } | ConnectPlan::NeverComes { queued: true } if !queued => {
                self.holding = Holding::Promise { queued: true };
                self.step(Input::Queued, 0);
            }
            ConnectPlan::Comes { reused, .. } => {
                self.holding = Holding::Connection;
                let attempt = self.attempts.last_mut().expect("an attempt");
                let reused = reused && !attempt.fresh;
                (attempt.connected, attempt.reused) = (true, reused);
                self.open();
                self.step(Input::Connected { reused }, 0);
            }
            ConnectPlan::Fails(reason) => {
                self.step(Input::ConnectFailed(reason), 0);
            }
            ConnectPlan::NeverComes { .. } => {}
        }
    }

    /// Nothing can happen but that time goes by.
    fn wait(&mut self) {
        let is_waiting_to_go_on = self.plan.client.expects && self.client.gate < self.client.source.len();
        if is_waiting_to_go_on && !self.client.seen.has_head {
            self.client.gate = self.client.source.len();
            return;
        }
        let deadline = self.exchange.deadline();
        if deadline != Moment::NEVER {
            self.now = deadline;
            return;
        }
        assert!(self.is_tunnel, "nothing can happen, and no deadline is set");
        let is_whole = self.plan.client.fault == ClientFault::None && self.plan.is_faultless;
        assert!(!is_whole, "a tunnel without faults does not end");
        self.aborted = true;
        self.tell(Input::Abort(FailureReason::Stopped));
    }
}
