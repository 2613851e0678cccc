//! One turn of the owner, as a worker's: steps, then their effects in order, then the bytes for both sides. The loop is that
//! of [`drive`]; here is what a worker has around it.

use super::check;
use super::peer::Peer;
use super::world::{Attempt, End, Holding, World};
use sluice::exchange::drive::{self, Driver};
use sluice::exchange::{Disposition, Effect, Exchange, Flushed, Input, Output, Side, WorkerContext};

impl World {
    /// A turn with bytes from `side`: all that are unread, and again what is left while that is wanted.
    pub(crate) fn offer(&mut self, side: Side) {
        let mut buffer = match self.peer(side) {
            Some(peer) => std::mem::take(&mut peer.unread),
            None => return,
        };
        let attempt = self.attempts.len();
        let is_wanted = !buffer.is_empty() && self.end.is_none() && self.exchange.wants(side);
        let (used, is_starved) = if is_wanted { drive::offer(self, side, &buffer) } else { (0, false) };
        if is_starved && let Some(peer) = self.peer(side) {
            peer.is_waiting_for_more = true;
        }
        self.flush(&buffer);
        self.left_over = 0;
        buffer.drain(..used);
        // A connection that is new by now has nothing to do with these bytes.
        if (side == Side::Client || self.attempts.len() == attempt)
            && let Some(peer) = self.peer(side)
        {
            peer.unread = buffer;
        }
    }

    /// A turn with anything else.
    pub(crate) fn tell(&mut self, input: Input<'_>) {
        let is_deadline = matches!(input, Input::Deadline);
        self.step(input, 0);
        assert!(
            !is_deadline || self.exchange.deadline() > self.now || self.has_finish(),
            "a deadline that has come changed nothing"
        );
        self.finish_turn();
    }

    /// What remains to be done behind a step.
    pub(crate) fn finish_turn(&mut self) {
        drive::perform(self);
        self.flush(&[]);
    }

    fn has_finish(&mut self) -> bool {
        self.core.output.effects.iter().any(|effect| matches!(effect, Effect::Finish(_)))
    }

    /// A turn in which the socket of `side` takes bytes again.
    pub(crate) fn write_pending(&mut self, side: Side) {
        let room = if self.rng.u8(..3) == 0 { usize::MAX } else { self.plan.scale.read_size(&mut self.rng) };
        let Some(mut peer) = self.take_peer(side) else { return };
        peer.room = room;
        let mut rng = self.rng.clone();
        let (exchange, core) = self.turn();
        let flushed = exchange.flush_pending_write(side, core, |slices| peer.write(slices, &mut rng));
        self.rng = rng;
        self.put_peer(side, peer);
        self.note(|| format!("backlog of {side:?}: {flushed:?}"));
        drive::after_flush(self, side, flushed);
        self.flush(&[]);
    }

    /// A step without what follows from it.
    pub(crate) fn step(&mut self, input: Input<'_>, offset: usize) -> usize {
        let note = match &input {
            Input::Bytes(side, bytes) => format!("{} bytes of {side:?}", bytes.len()),
            Input::Route(route) => format!("route {:?}", route.as_ref().map(|route| route.marks.len())),
            other => format!("{other:?}"),
        };
        let offered = if let Input::Bytes(side, bytes) = &input { Some((*side, bytes.len())) } else { None };
        let (exchange, core) = self.turn();
        let consumed = exchange.step(input, offset, core);
        self.note(|| format!("{note}: {consumed} consumed"));
        check::after_step(self);
        match offered {
            Some((_, len)) if consumed > len => panic!("more was consumed than offered"),
            Some((Side::Client, _)) => {
                self.consumed += consumed;
                // Of a head that was not read nobody knows that it is HEAD.
                let is_head = self.plan.client.method == "HEAD" && self.consumed > 0;
                self.client.seen.set_to_head(is_head);
            }
            Some((Side::Upstream, len)) => self.left_over = len - consumed,
            None => {}
        }
        consumed
    }

    fn resolve(&mut self) {
        assert!(!self.resolving, "two look-ups at once");
        assert_eq!(self.holding, Holding::Nothing, "a look-up while a backend is held");
        self.resolving = true;
        self.resolves += 1;
        assert!(self.resolves < 40, "look-ups without end");
        if self.rng.bool() {
            self.response_resolve();
        }
    }

    /// Says what the look-up found.
    pub(crate) fn response_resolve(&mut self) {
        let routes = &self.plan.routes;
        let route = match routes[(self.resolves - 1).min(routes.len() - 1)].clone() {
            super::plan::RoutePlan::Found(route) => Ok(route),
            super::plan::RoutePlan::Fails(reason) => Err(reason),
            super::plan::RoutePlan::Never => return,
        };
        self.resolving = false;
        self.step(Input::Route(route), 0);
    }

    fn connect(&mut self, fresh: bool) {
        assert_eq!(self.holding, Holding::Nothing, "a second connection");
        self.holding = Holding::Promise { queued: false };
        let backend = self.exchange.permit().expect("a member was chosen").member().backend.id();
        check::may_connect(self, backend, fresh);
        self.retry = None;
        self.attempts.push(Attempt {
            backend,
            fresh,
            connected: false,
            reused: false,
            released: None,
            seen: None,
            served: 0,
        });
        if self.rng.u8(..3) == 0 {
            self.response_connect();
        }
    }

    fn release(&mut self, reuse: bool) {
        assert_ne!(self.holding, Holding::Nothing, "nothing to give back");
        self.holding = Holding::Nothing;
        let peer = self.upstream.take();
        if reuse {
            check::may_reuse(self, peer.as_ref().expect("a connection to give back"));
        }
        let attempt = self.attempts.last_mut().expect("an attempt");
        attempt.released = Some(reuse);
        if let Some(peer) = peer {
            attempt.served = peer.sent;
            attempt.seen = Some(peer.seen);
        }
    }

    fn close_write(&mut self, side: Side) {
        let peer = self.peer(side).expect("a connection whose writing ends");
        assert!(!peer.closing, "{side:?} was closed twice");
        peer.closing = true;
    }

    fn flush(&mut self, input: &[u8]) {
        drive::flush(self, input);
        if self.end.is_some() {
            *self.core.output = Default::default();
        }
        for side in [Side::Client, Side::Upstream] {
            let is_drained = self.exchange.pending_write(side).is_empty();
            if let Some(peer) = self.peer(side) {
                peer.closed |= peer.closing && is_drained;
            }
        }
        check::after_turn(self);
    }

    fn take_peer(&mut self, side: Side) -> Option<Peer> {
        match side {
            // The client is always there: an empty one stands in for it.
            Side::Client => {
                let placeholder = Peer::new(Vec::new(), super::decoder::Kind::Request);
                Some(std::mem::replace(&mut self.client, placeholder))
            }
            Side::Upstream => self.upstream.take(),
        }
    }

    fn put_peer(&mut self, side: Side, peer: Peer) {
        match side {
            Side::Client => self.client = peer,
            Side::Upstream => self.upstream = Some(peer),
        }
    }
}

impl Driver for World {
    fn exchange(&mut self) -> Option<(&mut Exchange, &mut WorkerContext)> {
        self.end.is_none().then(|| self.turn())
    }

    fn output(&mut self) -> &mut Output {
        &mut self.core.output
    }

    fn take_step(&mut self, input: Input<'_>, offset: usize) -> usize {
        self.step(input, offset)
    }

    /// A worker has one order; no other may make a difference.
    fn sides(&mut self) -> [Side; 2] {
        let mut sides = [Side::Client, Side::Upstream];
        self.rng.shuffle(&mut sides);
        sides
    }

    fn send(&mut self, side: Side, input: &[u8]) -> Option<Flushed> {
        if self.end.is_some() {
            return None;
        }
        let mut peer = self.take_peer(side).unwrap_or_else(|| panic!("bytes for {side:?}, where nobody is"));
        let mut rng = self.rng.clone();
        let (exchange, core) = self.turn();
        let flushed = exchange.flush(side, input, core, |slices| peer.write(slices, &mut rng));
        self.rng = rng;
        self.put_peer(side, peer);
        self.note(|| format!("  flush to {side:?}: {flushed:?}, {} kept", self.exchange.pending_write(side).len()));
        Some(flushed)
    }

    fn note_flushed(&mut self, side: Side, flushed: Flushed) {
        let kept = self.exchange.pending_write(side).len();
        assert!(flushed == Flushed::Blocked || kept == 0, "{kept} bytes are kept behind {flushed:?}");
        self.client_broken |= (side, flushed) == (Side::Client, Flushed::Broken);
    }

    /// Does what is to be done; some of it has an answer at once.
    fn perform(&mut self, effect: Effect) {
        self.note(|| format!("  {effect:?}").chars().take(60).collect());
        assert!(self.end.is_none(), "{effect:?} after the end");
        assert!(!self.reset || matches!(effect, Effect::Finish(_)), "{effect:?} after a reset");
        match effect {
            Effect::Resolve => self.resolve(),
            // It is for the pool alone: how many slow uploads there are at a backend.
            Effect::Uploaded => {}
            Effect::Enqueue => panic!("no member has a capacity"),
            Effect::AskStore => panic!("no frontend has a cache"),
            Effect::Wake => panic!("no frontend of the scene sleeps"),
            Effect::Connect { fresh } => self.connect(fresh),
            Effect::Revived { .. } => {}
            Effect::Ejected { .. } => panic!("no frontend has rules of outlier detection"),
            Effect::AskService => panic!("a client of the traffic listener has no service"),
            Effect::MarkedDead { member, .. } => {
                assert!(!self.client_left, "a client that has left marks a backend");
                let route = self.exchange.route().expect("somebody was chosen");
                assert!(route.marks.len() > 1, "the only member was marked dead");
                assert!(route.marks[member].dead_until(self.now).is_some(), "not marked");
            }
            Effect::Retry { stale } => {
                assert_eq!(self.retry, None, "two tries at once");
                assert!(stale || !self.client_left, "a try again for a client that has left");
                self.retries += u32::from(!stale);
                self.retry = Some(stale);
            }
            Effect::Repaired(repairs) => unreachable!("no frontend of the scene is lenient: {repairs:?}"),
            Effect::Release { reuse } => self.release(reuse),
            Effect::Tunnel => {
                assert!(self.holding == Holding::Connection && !self.is_tunnel);
                assert!(self.plan.client.upgrade.is_some(), "a tunnel that nobody asked for");
                self.is_tunnel = true;
            }
            Effect::CloseWrite(side) => self.close_write(side),
            Effect::Reset => {
                assert!(!self.reset, "two resets");
                self.reset = true;
            }
            Effect::Finish(connection) => {
                assert_eq!(self.holding, Holding::Nothing, "the backend was not given back");
                let is_closed = connection == Disposition::Close;
                assert!(is_closed || !self.reset, "a connection that is reset is neither kept nor read from");
                self.end = Some(End { connection, reset: self.reset });
            }
        }
    }
}
